# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A move and a removal that meet, while reads show each write after 20 seconds: the removal takes itself back. If the
run was killed before it has asked again, the rerun says so."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import pytest
from meddling import Killed, Wire
from moments import after, after_all, changes_access_policies, changes_version, deletes
from one_process import OneProcess
from operators import done
from role_runs import VARS
from service import DAY, GROUP, LOCATION, Service

LAG = 20
KEY1 = {"vault_name": "vault-one", "name": "key1"}
Report = dict[str, Any]


def move(identifier: str, account: str = "account1") -> Report:
    where = {"resource_group": GROUP, "account_name": account, "previous_key": "any", "wait_timeout": 600}
    return {**where, "key_source": "microsoft_keyvault", "key_identifier": identifier}


def now(service: Service) -> float:
    """The time by the sandbox's clock."""
    return float(service.sandbox.control.call("GET", "/clock")["time"])


def begin(service: Service, *, lag: int = LAG) -> None:
    """From now on, reads show a write after so many seconds. Batch notices only later that a key is lost."""
    service.sandbox.control.advance(30 * DAY)
    service.sandbox.control.behavior(value_lag=str(lag), key_loss_noticed="3600")


class Left:
    """account1 has left the first version of key1 of vault-one a month ago."""

    def __init__(self, service: Service, *, rbac: bool = False, lag: int = LAG) -> None:
        self.principal, self.first = service.on_key(rbac=rbac)
        service.point(None)
        begin(service, lag=lag)


def removal(what: str, left: Left) -> tuple[str, Report]:
    """A module that removes what account1 has left, and its options."""
    if "versions" in what:
        return "keyvault_cmk_unused_versions", dict(KEY1)
    if what == "access":
        return "keyvault_cmk_access", {"vault_name": "vault-one", "principal_id": left.principal, "state": "absent"}
    return "keyvault_cmk_key_state", {**KEY1, "state": {"key": "disabled", "deletion": "absent"}[what]}


def removed(what: str, service: Service, left: Left) -> bool:
    if what == "access":
        return not service.permissions(left.principal) and not service.assignments(left.principal)
    return service.enabled() == [False] if what == "key" else bool(list(service.keys().list_deleted_keys()))


@pytest.mark.parametrize("in_use", ["fail", "keep"])
@pytest.mark.parametrize("unused_for", ["P7D", "P0D"])
@pytest.mark.parametrize("what", ["key", "deletion", "access"])
@pytest.mark.slow(every=2)
def test_another_tool_has_just_moved_the_account(
    runner: OneProcess, service: Service, what: str, unused_for: str, in_use: str
) -> None:
    """No read shows the move before the removal, and each read shows it when the removal asks again."""
    left = Left(service)
    service.point(left.first)
    module, options = removal(what, left)

    report = runner.module(module, {**options, "in_use": in_use, "unused_for": unused_for})

    if in_use == "keep":
        assert done(report)["in_use_by"] == [service.account_id()]
        assert (report["changed"], any("account1" in one for one in report["warnings"])) == (False, True), report
    else:
        assert (report["code"], report["restored"]) == ("in_use", True), report
        again = {"key": "the key was enabled again", "deletion": "the key was recovered"}
        assert "account1" in report["msg"]
        assert f"Therefore {again.get(what, 'the access was granted again')}" in report["msg"]
    service.sandbox.control.advance(LAG)
    assert not removed(what, service, left)
    service.sandbox.control.advance(3600)
    assert service.is_safe()


@pytest.mark.parametrize("wait_timeout", [0, 900])
@pytest.mark.parametrize("ago", [0, 5, 15, 25])
@pytest.mark.parametrize("rbac", [True, False])
@pytest.mark.slow(every=3)
def test_access_of_an_account_that_was_moved_some_seconds_ago(
    runner: OneProcess, service: Service, rbac: bool, ago: int, wait_timeout: int
) -> None:
    """Also if reads show the revocation only after the timeout."""
    left = Left(service, rbac=rbac)
    service.point(left.first)
    time.sleep(ago)
    module, options = removal("access", left)

    report = runner.module(module, {**options, "wait_timeout": wait_timeout})

    # If the first read shows the account, nothing is revoked.
    assert (report["code"], report.get("restored")) == ("in_use", True if ago < LAG else None), report
    service.sandbox.control.advance(600)
    assert service.is_safe()


@pytest.mark.parametrize("seconds", [2, 15, 30])
def test_another_run_moves_the_account_after_the_revocation(
    runner: OneProcess, service: Service, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    """The revocation takes effect only after ten minutes. Until a read shows it, the other run moves the account."""
    left = Left(service, rbac=True)
    service.sandbox.control.behavior(role_delay="600")
    sleep, began, moved = time.sleep, time.monotonic(), list[Report]()

    def move_once(slept: float) -> None:
        if slept == 2 * LAG:
            sleep(seconds)
            moved.append(runner.another().module("batch_encryption", move(left.first)))
            slept = max(0.0, began + slept - time.monotonic())
        sleep(slept)

    monkeypatch.setattr(time, "sleep", move_once)
    report = runner.module(*removal("access", left))

    if seconds < LAG:
        assert (report["code"], report["restored"]) == ("in_use", True), report
    else:
        assert (report.get("changed"), moved[0]["code"]) == (True, "preflight_failed"), (report, moved)
    service.sandbox.control.advance(700)
    assert service.is_safe()


@pytest.mark.parametrize("in_use", ["keep", "fail"])
def test_each_identity_of_an_account_gets_its_access_back(runner: OneProcess, service: Service, in_use: str) -> None:
    """The access of both identities is revoked, and both turn out to be in use by other accounts."""
    service.make_vault()
    principals = [service.make_identity(name)["properties"]["principalId"] for name in ("id1", "id2")]
    for principal in principals:
        service.grant(principal)
    key = service.make_key().id
    for account, identities in (("account1", ["id1"]), ("account2", ["id2"]), ("account3", ["id1", "id2"])):
        assigned = {service.identity_id(name): {} for name in identities}
        service.make_account(account, identity={"type": "UserAssigned", "userAssignedIdentities": assigned})
    begin(service)
    service.point(key, "account1")
    service.point(key, "account2")
    account = {"account_name": "account3", "account_resource_group": GROUP}
    wanted = {"vault_name": "vault-one", **account, "state": "absent", "in_use": in_use}

    report = runner.module("keyvault_cmk_access", wanted)

    assert bool(report.get("failed")) is (in_use == "fail"), report
    service.sandbox.control.advance(LAG)
    assert all(map(service.permissions, principals))
    assert service.is_safe("account1")
    assert service.is_safe("account2")


def test_an_account_that_visits_a_version_during_its_removal(runner: OneProcess, service: Service, wire: Wire) -> None:
    """Between the two checks, another tool moves the account to the version and back. Batch may need it for a week."""
    _principal, first = service.on_key()
    newest = service.make_key().id
    service.point(newest)
    begin(service, lag=0)
    with wire.meddled(changes_version, lambda: (service.point(first), service.point(newest))):
        report = done(runner.module("keyvault_cmk_unused_versions", KEY1))
    assert report["in_use_by"] == [service.account_id()]
    assert service.enabled() == [True, True]


def test_an_account_that_visits_a_key_during_the_revocation(runner: OneProcess, service: Service, wire: Wire) -> None:
    left = Left(service)
    with wire.meddled(changes_access_policies, lambda: (service.point(left.first), service.point(None))):
        report = runner.module(*removal("access", left))
    assert (report["code"], report["restored"]) == ("in_use", True), report
    service.sandbox.control.advance(LAG)
    assert service.permissions(left.principal)


@pytest.mark.parametrize("what", ["key", "deletion", "access", "versions"])
def test_what_a_removal_waits_for(runner: OneProcess, service: Service, what: str) -> None:
    """Only the first removal of a whole key or of access waits, twice the longest lag of a read."""
    left = Left(service)
    service.make_key()
    service.sandbox.control.advance(30 * DAY)
    module, options = removal(what, left)
    waited = list[float]()
    for is_first in (True, False):
        began = now(service)
        assert done(runner.another().module(module, options))["changed"] is is_first
        waited.append(now(service) - began)
        service.sandbox.control.advance(LAG)
    assert waited[1] < 10
    assert waited[0] < 2 * LAG if what == "versions" else 2 * LAG <= waited[0] < 2 * LAG + 10


@pytest.mark.parametrize("lag", ["5", "20"])
def test_the_role_moves_an_account_whose_identity_it_has_changed(
    runner: OneProcess, service: Service, lag: str
) -> None:
    """The previous identity has no access to the key."""
    service.make_account(identity={"type": "SystemAssigned"})
    service.make_identity()
    service.sandbox.control.behavior(value_lag=lag)
    variables = {
        **VARS,
        "cmk_location": LOCATION,
        "cmk_identity_id": service.identity_id(),
        "cmk_allowed_repairs": ["identity"],
    }

    report = done(runner.role("provision", variables))

    assert report["changed_steps"]["account"], report
    time.sleep(DAY)
    assert service.encryption() == service.key().id
    assert service.is_available()


# Runs that were killed


@pytest.mark.parametrize("what", ["key", "deletion", "access", "versions", "some versions"])
def test_the_rerun_of_a_killed_run_names_the_account_that_has_lost_its_key(
    runner: OneProcess, service: Service, wire: Wire, what: str
) -> None:
    """Nothing is restored, because somebody may have removed it on purpose."""
    left = Left(service)
    module, options = removal(what, left)
    if "versions" in what:
        for _number in range(2):
            service.make_key()
        service.sandbox.control.advance(30 * DAY)
    if what == "some versions":
        # The newest of the unused versions is disabled first. The rerun could disable the other.
        left.first, options = service.versions()[1].id, {**options, "unused_for": "P0D"}
    service.point(left.first)
    sent = {"access": changes_access_policies, "deletion": deletes}.get(what, changes_version)
    killed_at = after(sent, sent) if what == "some versions" else after_all(sent)
    with suppress(Killed), wire.meddled(killed_at, wire.kill):
        runner.another().module(module, options)
    service.sandbox.control.advance(LAG)
    since = service.sandbox.control.last

    for in_use in ("fail", "keep"):
        report = runner.another().module(module, {**options, **({} if "versions" in what else {"in_use": in_use})})
        assert (report.get("code"), report.get("accounts")) == ("in_use", [service.account_id()]), report
        assert "azbatch.cmk.recover" in report["remedy"]
    assert service.sandbox.control.requests(since, writes=True) == []

    done(runner.another().role("recover", {**VARS, "cmk_wait_timeout": 900}))
    assert service.is_safe()


@pytest.mark.parametrize("what", ["key", "versions"])
def test_what_was_disabled_on_purpose_a_day_ago(runner: OneProcess, service: Service, what: str) -> None:
    """A version that leaked, for example. It fails one rerun, and not those of the next nights."""
    left = Left(service, lag=0)
    service.point(left.first)
    service.sandbox.control.advance(30 * DAY)
    service.disable()
    module, options = removal(what, left)
    assert runner.another().module(module, options).get("code") == "in_use"
    service.sandbox.control.advance(DAY)
    report = done(runner.another().module(module, options))
    assert report["changed"] is False
