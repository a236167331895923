# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A move and a removal that meet, while reads show each write after 20 seconds: the removal takes itself back. If the
run was killed before it has asked again, the rerun says so."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from meddling import Killed, Wire
from moments import after, after_all, changes_access_policies, changes_version, deletes
from one_process import OneProcess
from operators import done
from role_runs import VARS
from service import DAY, GROUP, Service

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
