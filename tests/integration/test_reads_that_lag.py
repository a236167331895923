# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Nothing is disabled, deleted or revoked that an account uses, although lists of Azure show the state before the
account was moved: by the same run, by another run or by another tool."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from harness import Ansible, task
from meddling import Killed, Wire
from moments import after_all, changes_access_policies, changes_version
from one_process import OneProcess
from role_runs import VARS, second_account
from service import DAY, GROUP, Service

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.executor import Executor

KEY1 = {"vault_name": "vault-one", "name": "key1"}
# The longest time, in seconds, for which reads may be out of date, and some seconds for the requests.
DELAY = 180
Report = dict[str, Any]


@pytest.fixture(params=["5", "60"])
def lag(request: pytest.FixtureRequest, service: Service) -> str:
    """Set the switch after the resources of a test were made."""
    lag: str = request.param
    return lag


def move(identifier: str | None, account: str = "account1") -> Report:
    source = "microsoft_keyvault" if identifier else "microsoft_batch"
    where = {"resource_group": GROUP, "account_name": account, "key_source": source, "wait_timeout": 600}
    return {**where, **({"key_identifier": identifier, "previous_key": "any"} if identifier else {})}


def version_of(identifier: str) -> str:
    return identifier.rpartition("/")[2]


def done(report: Report) -> Report:
    assert not report.get("failed"), report
    return report


def now(service: Service) -> float:
    """The time by the sandbox's clock."""
    return float(service.sandbox.control.call("GET", "/clock")["time"])


@pytest.fixture
def two_versions(service: Service, lag: str) -> tuple[str, str]:
    """The account uses the newest version for a month. Nothing uses the older version. Returns both."""
    _principal, old = service.on_key()
    new = service.make_key().id
    service.point(new)
    service.sandbox.control.advance(30 * DAY)
    service.sandbox.control.behavior(read_lag=lag, key_loss_noticed="3600")
    return old, new


@pytest.fixture
def two_keys(service: Service, lag: str) -> tuple[str, str]:
    """The account uses key2 for a month. Nothing uses key1. Returns both."""
    _principal, first = service.on_key()
    second = service.make_key("key2").id
    service.point(second)
    service.sandbox.control.advance(30 * DAY)
    service.sandbox.control.behavior(read_lag=lag, key_loss_noticed="3600")
    return first, second


REMOVALS: dict[str, tuple[str, Report]] = {
    "disabled": ("keyvault_cmk_key_state", {**KEY1, "state": "disabled", "in_use": "keep"}),
    "disabled without a margin": (
        "keyvault_cmk_key_state",
        {**KEY1, "state": "disabled", "in_use": "keep", "unused_for": "P0D"},
    ),
    "deleted": ("keyvault_cmk_key_state", {**KEY1, "state": "absent", "in_use": "keep"}),
}
WAYS = {"in process": (False, False), "moved by a module": (True, False), "removed by a module": (False, True)}


# What the run did itself


@pytest.mark.parametrize("way", WAYS)
def test_a_version_that_the_run_has_just_set(
    runner: OneProcess, service: Service, two_versions: tuple[str, str], way: str
) -> None:
    old, _new = two_versions
    moves, removes = (replace(runner, as_module=is_module) for is_module in WAYS[way])
    assert done(moves.module("batch_encryption", move(old)))["changed"]
    since = service.sandbox.control.last
    report = done(removes.module("keyvault_cmk_unused_versions", KEY1))
    assert report["in_use_by"] == [service.account_id()]
    # Nothing is disabled and enabled again.
    assert service.sandbox.control.requests(since, writes=True) == []
    assert service.enabled() == [True, True]
    assert service.is_safe()


@pytest.mark.parametrize("removal", REMOVALS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.slow(every=3)
def test_a_key_that_the_run_has_just_set(
    runner: OneProcess, service: Service, two_keys: tuple[str, str], way: str, removal: str
) -> None:
    moves, removes = (replace(runner, as_module=is_module) for is_module in WAYS[way])
    assert done(moves.module("batch_encryption", move(two_keys[0])))["changed"]
    since = service.sandbox.control.last
    module, options = REMOVALS[removal]
    report = removes.module(module, options)
    assert done(report)["in_use_by"] == [service.account_id()]
    assert service.sandbox.control.requests(since, writes=True) == []
    assert service.is_safe()


def test_an_account_that_the_run_has_created_with_the_key(
    runner: OneProcess, service: Service, two_keys: tuple[str, str]
) -> None:
    """No list shows the account yet."""
    principal = service.make_identity()["properties"]["principalId"]
    service.grant(principal)
    service.sandbox.control.advance(61)
    options = {"resource_group": GROUP, "name": "account2", "identity_id": service.identity_id()}
    assert done(runner.module("batch_account_identity", {**options, "key_identifier": two_keys[0]}))["changed"]

    since = service.sandbox.control.last
    report = done(runner.module(*REMOVALS["disabled"]))
    revoke = {"vault_name": "vault-one", "principal_id": principal, "state": "absent"}
    refused = runner.module("keyvault_cmk_access", revoke)

    assert report["in_use_by"] == [service.account_id("account2")]
    assert refused["code"] == "in_use", refused
    assert service.sandbox.control.requests(since, writes=True) == []
    assert service.is_safe("account2")


def test_access_of_an_account_that_the_run_has_moved_back(runner: OneProcess, service: Service, lag: str) -> None:
    principal, first = service.on_key()
    service.make_vault("vault-two")
    service.grant(principal, "vault-two")
    service.point(service.make_key("key3", "vault-two").id)
    service.sandbox.control.advance(30 * DAY)
    service.sandbox.control.behavior(read_lag=lag, key_loss_noticed="3600")
    done(runner.module("batch_encryption", move(first)))
    since = service.sandbox.control.last
    revoke = {"vault_name": "vault-one", "principal_id": principal, "state": "absent"}
    assert runner.module("keyvault_cmk_access", revoke)["code"] == "in_use"
    assert service.sandbox.control.requests(since, writes=True) == []
    assert service.is_safe()


def test_the_margin_of_a_version_that_the_run_has_just_left(
    runner: OneProcess, service: Service, two_versions: tuple[str, str]
) -> None:
    """Neither the list nor the time of the last change shows that the account was moved twice. Batch may need the first
    version for a day."""
    old, new = two_versions
    for version in (old, new):
        assert done(runner.module("batch_encryption", move(version)))["changed"]
    report = done(runner.module("keyvault_cmk_unused_versions", KEY1))
    assert report["in_use_by"] == [service.account_id()]
    assert report["kept_until"]
    assert service.enabled() == [True, True]


@pytest.mark.parametrize("callers", ["two callers"])
def test_a_version_that_another_caller_of_the_run_has_set(
    runner: OneProcess, service: Service, two_versions: tuple[str, str], callers: str
) -> None:
    made = service.sandbox.control.principal(callers, roles=[{"role": "Owner", "scope": service.sandbox.subscription}])
    other = replace(runner, connection={"client_id": made["client_id"], "secret": made["secret"]})
    officer = service.policy(made["object_id"], "get", "list", "update")
    service.set_policy("add", officer)
    service.sandbox.control.advance(61)
    done(runner.module("batch_encryption", move(two_versions[0])))
    since = service.sandbox.control.last
    assert done(other.module("keyvault_cmk_unused_versions", KEY1))["in_use_by"] == [service.account_id()]
    assert service.sandbox.control.requests(since, writes=True) == []


@pytest.mark.slow(every=2)
def test_switch_of_two_hosts(ansible: Ansible, service: Service, lag: str) -> None:
    """account1 is moved to the key that account2 has left long ago."""
    _principal, first = service.on_key()
    second = service.make_key("key2").id
    for name in ("account1", second_account(service, first).rpartition("/")[2]):
        service.point(second, name)
    service.sandbox.control.advance(30 * DAY)
    service.sandbox.control.behavior(read_lag=lag, key_loss_noticed="3600")
    hosts = {
        "account1": {"cmk_new_key_identifier": first, "cmk_disable_key": ""},
        "account2": {"cmk_new_key_identifier": second, "cmk_disable_key": first.rpartition("/")[0]},
    }
    inventory = {
        "all": {
            "hosts": {
                name: {**own, "cmk_account_name": name, "cmk_key_name": "key2", "ansible_connection": "local"}
                for name, own in hosts.items()
            }
        }
    }
    file = ansible.write("inventory.yml", inventory)
    names = {name: value for name, value in VARS.items() if name not in ("cmk_account_name", "cmk_key_name")}
    run = ansible.playbook(
        "azbatch.cmk.switch",
        extra_vars={**names, "cmk_hosts": "all", "cmk_unused_for": "P0D"},
        arguments=["-i", str(file)],
    )
    assert run.rc == 0, run.output
    service.sandbox.control.advance(61)
    assert service.encryption() == first
    assert service.is_safe()
    assert service.enabled() == [True]


@pytest.mark.slow(every=2)
def test_provision_and_revert_in_one_play(ansible: Ansible, service: Service, lag: str) -> None:
    """One account is created with the key, and another one reverted that has left it."""
    service.make_identity()
    principal, _first = service.on_key(rbac=True)
    service.point(None)
    service.sandbox.control.advance(30 * DAY)
    service.sandbox.control.behavior(read_lag=lag, key_loss_noticed="3600")
    new = {"cmk_account_name": "account2", "cmk_identity_id": service.identity_id()}
    old = {"cmk_account_name": "account1", "cmk_revert_key": "disable", "cmk_unused_for": "P0D"}
    names = {**{name: value for name, value in VARS.items() if name != "cmk_account_name"}, "cmk_wait_timeout": 300}
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "vars": names,
        "tasks": [
            {"ansible.builtin.include_role": {"name": "azbatch.cmk.provision"}, "vars": new},
            {"ansible.builtin.include_role": {"name": "azbatch.cmk.revert"}, "vars": old},
        ],
    }
    run = ansible.playbook([play])
    assert run.rc == 0, run.output
    assert service.is_safe("account2")
    assert service.enabled() == [True]
    assert principal


@pytest.mark.slow(every=2)
def test_a_module_whose_result_is_lost(ansible: Ansible, service: Service, two_versions: tuple[str, str]) -> None:
    """Ansible's timeout ends the task, but not the process of the module, which moves the account."""
    old, _new = two_versions
    service.sandbox.control.fault(match={"method": "PATCH", "path": "batchAccounts"}, delay=4)
    moved = task("move", "batch_encryption", **move(old))
    run = ansible.play(
        [
            {**moved, "timeout": 2, "_fails": True},
            task("disable", "keyvault_cmk_unused_versions", **KEY1),
        ],
        way="module",
    )
    assert run["move"]["code"] == "timed_out"
    assert run["disable"]["in_use_by"] == [service.account_id()]
    assert service.is_safe()


@pytest.mark.parametrize("module", ["batch_encryption", "batch_account_identity"])
def test_no_key_is_set_in_the_background(ansible: Ansible, service: Service, module: str) -> None:
    """The other tasks of the run would not know it."""
    identity = {"name": "account2", "resource_group": GROUP, "identity_id": service.identity_id()}
    key = "https://vault-one.vault.azure.net/keys/key1"
    options = move(key) if module == "batch_encryption" else {**identity, "key_identifier": key}
    background = {"async": 60, "poll": 1}
    run = ansible.play([{**task("key", module, **options), **background, "_fails": True}])
    run["key"].refused("invalid_option")


@pytest.mark.parametrize("lag", ["180"])
@pytest.mark.parametrize("slow", ["/permissions", "/keys/key1"])
def test_a_slow_request_between_a_read_and_the_decision(
    runner: OneProcess, service: Service, wire: Wire, two_versions: tuple[str, str], slow: str
) -> None:
    """The account is read within three minutes after a move, and the task decides after them. The read shows the
    version that is wanted, and that the run has replaced."""
    old, new = two_versions
    done(runner.module("batch_encryption", move(old)))
    time.sleep(DELAY - 10)
    with wire.meddled(lambda request: slow in request.url, lambda: time.sleep(15)):
        report = done(runner.module("batch_encryption", move(new)))
    assert report["changed"]
    time.sleep(DELAY)
    assert service.encryption() == new


@pytest.mark.parametrize("lag", ["60"])
def test_a_store_that_loses_its_values_while_a_task_waits_for_the_vault(
    runner: OneProcess, service: Service, monkeypatch: pytest.MonkeyPatch, two_versions: tuple[str, str]
) -> None:
    """The disk is full for a moment, and another task cannot store a value."""
    old, _new = two_versions
    done(runner.module("batch_encryption", move(old)))
    locked = Executor.locked

    def wait(executor: Executor, vault: str) -> Any:
        for one in Path(runner.tokens).glob("*.json"):
            one.unlink()
        monkeypatch.setattr(Executor, "locked", locked)
        return locked(executor, vault)

    monkeypatch.setattr(Executor, "locked", wait)
    report = done(runner.module("keyvault_cmk_unused_versions", {**KEY1, "unused_for": "P0D"}))
    assert report["in_use_by"] == [service.account_id()]
    assert service.enabled() == [True, True]
    assert not [one for one in report.get("warnings", []) if "enabled again" in one]


# What others did


@pytest.mark.parametrize("by", ["another run", "another tool"])
def test_a_version_that_others_have_just_set(
    runner: OneProcess, service: Service, two_versions: tuple[str, str], by: str
) -> None:
    """The version is disabled, because no read shows the account's move. It is enabled again once a list shows it."""
    old, _new = two_versions
    if by == "another run":
        done(runner.another().module("batch_encryption", move(old)))
    else:
        service.point(old)
    report = done(runner.another().module("keyvault_cmk_unused_versions", KEY1))
    assert report["in_use_by"] == [service.account_id()]
    [warning] = [one for one in report["warnings"] if "enabled again" in one]
    assert "account1" in warning
    assert service.enabled() == [True, True]
    assert service.is_safe()


@pytest.mark.parametrize("removal", REMOVALS)
def test_a_key_that_others_have_just_set(
    runner: OneProcess, service: Service, two_keys: tuple[str, str], removal: str
) -> None:
    service.point(two_keys[0])
    module, options = REMOVALS[removal]
    report = done(runner.module(module, options))
    assert report["in_use_by"] == [service.account_id()]
    assert any("account1" in one for one in report["warnings"])
    assert service.is_safe()


@pytest.mark.slow(every=2)
def test_no_host_confirms_what_another_host_has_to_undo(
    ansible: Ansible, service: Service, two_keys: tuple[str, str]
) -> None:
    """Two hosts disable the key that another tool has just set."""
    service.point(two_keys[0])
    file = ansible.write("inventory.yml", {"all": {"hosts": {name: {"ansible_connection": "local"} for name in "ab"}}})
    module, options = REMOVALS["disabled"]
    play = {"hosts": "all", "gather_facts": False, "tasks": [task("it", module, **options)]}
    run = ansible.playbook([play], arguments=["-i", str(file)])
    assert run.rc == 0, run.output
    for one in run:
        assert one["in_use_by"] == [service.account_id()], str(one)
    assert len(run.tasks) == 2
    assert service.is_safe()


@pytest.mark.parametrize("by", ["the run", "another tool"])
def test_a_vault_whose_key_was_just_set(runner: OneProcess, service: Service, lag: str, by: str) -> None:
    _principal, first = service.on_key()
    service.point(None)
    service.sandbox.control.advance(30 * DAY)
    service.sandbox.control.behavior(read_lag=lag, key_loss_noticed="3600")
    if by == "the run":
        done(runner.module("batch_encryption", move(first)))
    else:
        service.point(first)
    delete = {"resource_group": GROUP, "name": "vault-one", "state": "absent", "wait_timeout": 900}
    report = runner.module("keyvault_cmk_vault", delete)
    assert (report["code"], report.get("restored")) == ("in_use", None if by == "the run" else True), report
    assert service.is_safe()


def test_what_was_removed_although_it_is_used_is_a_failure(
    runner: OneProcess, service: Service, two_keys: tuple[str, str]
) -> None:
    service.point(two_keys[0])
    report = runner.module("keyvault_cmk_key_state", {**KEY1, "state": "disabled"})
    assert (report["code"], report["restored"]) == ("in_use", True), report
    assert "account1" in report["msg"]
    assert "Therefore the key was enabled again" in report["msg"]
    assert service.is_safe()


@pytest.mark.parametrize("wait_timeout", [30, 900])
@pytest.mark.parametrize("ago", [0, 5, 55])
@pytest.mark.parametrize("rbac", [True, False])
@pytest.mark.slow(every=4)
def test_access_of_an_account_that_others_have_moved_back(
    runner: OneProcess, service: Service, lag: str, rbac: bool, ago: int, wait_timeout: int
) -> None:
    """Also if reads show the revocation only after the timeout."""
    principal, first = service.on_key(rbac=rbac)
    service.point(None)
    service.sandbox.control.advance(30 * DAY)
    service.sandbox.control.behavior(read_lag=lag, key_loss_noticed="3600")
    service.point(first)
    time.sleep(ago)
    revoke = {"vault_name": "vault-one", "principal_id": principal, "state": "absent"}
    report = runner.module("keyvault_cmk_access", {**revoke, "wait_timeout": wait_timeout})
    if ago >= int(lag):
        # The first read shows the account.
        assert report["code"] == "in_use", report
        assert "restored" not in report
        return
    assert (report["code"], report["restored"]) == ("in_use", True), report
    assert "account1" in report["msg"]
    service.sandbox.control.advance(600)
    assert service.is_safe()


def test_an_account_that_visits_a_version_during_the_removal(
    runner: OneProcess, service: Service, wire: Wire, two_versions: tuple[str, str]
) -> None:
    """Between the two checks, another tool moves the account to the version and back. Batch may need it for a day."""
    old, new = two_versions

    def visit() -> None:
        service.point(old)
        service.point(new)

    with wire.meddled(changes_version, visit):
        report = done(runner.module("keyvault_cmk_unused_versions", KEY1))
    assert report["in_use_by"] == [service.account_id()]
    assert service.enabled() == [True, True]


def test_access_of_an_account_that_visits_a_key_during_the_revocation(
    runner: OneProcess, service: Service, wire: Wire, lag: str
) -> None:
    principal, first = service.on_key()
    service.point(None)
    service.sandbox.control.advance(30 * DAY)
    service.sandbox.control.behavior(read_lag=lag, key_loss_noticed="3600")

    def visit() -> None:
        service.point(first)
        service.point(None)

    with wire.meddled(changes_access_policies, visit):
        report = runner.module(
            "keyvault_cmk_access", {"vault_name": "vault-one", "principal_id": principal, "state": "absent"}
        )
    assert (report["code"], report["restored"]) == ("in_use", True), report
    assert service.permissions(principal)


# When the removal is confirmed


def test_a_run_that_ends_before_the_confirmation_is_completed_by_the_next(
    runner: OneProcess, service: Service, two_versions: tuple[str, str]
) -> None:
    service.point(two_versions[0])
    report = done(runner.another().module("keyvault_cmk_unused_versions", {**KEY1, "confirm": "later"}))
    assert (report["confirmed"], service.enabled()) == (False, [False, True])
    report = done(runner.another().module("keyvault_cmk_unused_versions", KEY1))
    assert (report["confirmed"], service.enabled()) == (True, [True, True])
    assert any("account1" in one for one in report["warnings"])
    assert service.is_safe()


@pytest.mark.slow(every=4)
@pytest.mark.parametrize("confirm", ["now", "later"])
@pytest.mark.parametrize("after", [0, 240, 1800])
def test_a_killed_run_is_completed_by_the_next(
    runner: OneProcess, service: Service, wire: Wire, two_versions: tuple[str, str], after: int, confirm: str
) -> None:
    """As late as that may be. There is nothing to wait for if the removal is older than any read."""
    service.point(two_versions[0])
    with suppress(Killed), wire.meddled(after_all(changes_version), wire.kill):
        runner.another().module("keyvault_cmk_unused_versions", KEY1)
    assert service.enabled() == [False, True]
    service.sandbox.control.advance(after)
    report = done(runner.another().module("keyvault_cmk_unused_versions", {**KEY1, "confirm": confirm}))
    is_asked = confirm == "now" or after > DELAY
    assert (report["confirmed"], service.enabled()) == (is_asked, [is_asked, True])
    assert service.is_safe() or not is_asked


def test_what_is_confirmed_is_not_asked_again(
    runner: OneProcess, service: Service, two_versions: tuple[str, str]
) -> None:
    assert done(runner.another().module("keyvault_cmk_unused_versions", KEY1))["disabled_versions"]
    service.sandbox.control.advance(61)
    assert service.versions()[0].tags == {"azbatch-cmk-disabled": "confirmed"}
    since = service.sandbox.control.last
    report = done(runner.another().module("keyvault_cmk_unused_versions", KEY1))
    assert (report["changed"], report["confirmed"]) == (False, True)
    assert not [
        one for one in service.sandbox.control.requests(since) if one["url"].partition("?")[0].endswith("/pools")
    ]


@pytest.mark.parametrize("in_use", ["keep", "fail"])
def test_each_identity_of_an_account_is_confirmed(runner: OneProcess, service: Service, lag: str, in_use: str) -> None:
    """The access of both identities is revoked, and both turn out to be in use by other accounts."""
    service.make_vault()
    principals = [service.make_identity(name)["properties"]["principalId"] for name in ("id1", "id2")]
    for principal in principals:
        service.grant(principal)
    key = service.make_key().id
    for account, identities in (("account1", ["id1"]), ("account2", ["id2"]), ("account3", ["id1", "id2"])):
        assigned = {service.identity_id(name): {} for name in identities}
        service.make_account(account, identity={"type": "UserAssigned", "userAssignedIdentities": assigned})
    service.sandbox.control.advance(30 * DAY)
    service.sandbox.control.behavior(read_lag=lag, key_loss_noticed="3600")
    service.point(key, "account1")
    service.point(key, "account2")
    account = {"account_name": "account3", "account_resource_group": GROUP}
    wanted = {"vault_name": "vault-one", **account, "state": "absent", "in_use": in_use}
    report = runner.module("keyvault_cmk_access", wanted)
    assert bool(report.get("failed")) is (in_use == "fail"), report
    assert all(map(service.permissions, principals))
    assert service.is_safe("account1")
    assert service.is_safe("account2")


def test_a_version_that_somebody_has_revoked_stays_disabled(
    runner: OneProcess, service: Service, two_versions: tuple[str, str]
) -> None:
    """Only what this collection has disabled as unused is enabled again."""
    old, new = two_versions
    service.point(old)
    service.sandbox.control.advance(61)
    service.disable(version=version_of(old))
    service.sandbox.control.behavior(key_loss_noticed="0")
    runner.module("keyvault_cmk_unused_versions", KEY1)
    assert service.enabled() == [False, True]
    # Also if the collection has disabled that version before.
    service.keys().update_key_properties("key1", version_of(old), enabled=True)
    service.point(new)
    service.sandbox.control.advance(30 * DAY)
    assert done(runner.another().module("keyvault_cmk_unused_versions", KEY1))["disabled_versions"]
    service.sandbox.control.advance(DAY)
    service.keys().update_key_properties("key1", version_of(old), enabled=True)
    service.point(old)
    service.sandbox.control.advance(61)
    service.disable(version=version_of(old))
    runner.another().module("keyvault_cmk_unused_versions", KEY1)
    assert service.enabled() == [False, True]


@pytest.mark.parametrize("removes", [True, False])
def test_only_a_removal_waits(
    runner: OneProcess, service: Service, two_versions: tuple[str, str], removes: bool
) -> None:
    if removes is False:
        done(runner.module("keyvault_cmk_unused_versions", KEY1))
    began = now(service)
    report = done(runner.another().module("keyvault_cmk_unused_versions", KEY1))
    waited = now(service) - began
    assert report["changed"] is removes
    assert DELAY - 1 <= waited < DELAY + 30 if removes else waited < 10
    assert report["confirmed"] is True


def test_later_is_confirmed_by_the_next_task(
    runner: OneProcess, service: Service, two_versions: tuple[str, str]
) -> None:
    began = now(service)
    first = done(runner.module("keyvault_cmk_unused_versions", {**KEY1, "confirm": "later"}))
    assert (first["changed"], first["confirmed"]) == (True, False)
    assert now(service) - began < 10
    second = done(runner.module("keyvault_cmk_unused_versions", KEY1))
    assert (second["changed"], second["confirmed"]) == (False, True)
    assert DELAY - 1 <= now(service) - began < DELAY + 30
    assert service.enabled() == [False, True]


@pytest.mark.parametrize("as_module", [True, False])
def test_later_is_confirmed_at_once_if_no_note_is_kept(
    runner: OneProcess, service: Service, two_versions: tuple[str, str], as_module: bool
) -> None:
    began = now(service)
    runner.fill_disk()
    report = done(
        replace(runner, as_module=as_module).module("keyvault_cmk_unused_versions", {**KEY1, "confirm": "later"})
    )
    runner.make_room()
    assert (report["changed"], report["confirmed"]) == (True, True)
    assert now(service) - began >= DELAY - 1


def moved_after_revocation(runner: OneProcess, service: Service, takes_effect: int) -> Report:
    """Revoke access, to be confirmed later, and let another tool move the account to the key before the revocation
    takes effect, after these seconds. Returns the options of the revocation."""
    principal, first = service.on_key()
    service.point(None)
    service.sandbox.control.advance(30 * DAY)
    service.sandbox.control.timing(policy_propagation=takes_effect)
    revoke = {"vault_name": "vault-one", "principal_id": principal, "state": "absent", "in_use": "keep"}
    assert done(runner.module("keyvault_cmk_access", {**revoke, "confirm": "later"}))["confirmed"] is False
    service.point(first)
    return revoke


@pytest.mark.parametrize("lost", [True, False])
def test_a_revocation_is_confirmed_although_the_notes_of_the_run_are_lost(
    runner: OneProcess, service: Service, lost: bool
) -> None:
    """Another tool moves the account to the key before the revocation takes effect. The run's folder is deleted."""
    revoke = moved_after_revocation(runner, service, 300)
    if lost:
        shutil.rmtree(runner.tokens)
    report = done(runner.module("keyvault_cmk_access", {**revoke, "wait_timeout": 600}))
    runner.make_room()
    assert any("account1" in one for one in report["warnings"]), report
    service.sandbox.control.advance(600)
    assert service.is_safe()


@pytest.mark.parametrize("has_room", [True, False])
def test_a_revocation_is_confirmed_although_the_disk_is_full(
    runner: OneProcess, service: Service, has_room: bool
) -> None:
    """A value that cannot be stored removes all other values, but not the note of the revocation."""
    revoke = moved_after_revocation(runner, service, 600)
    if not runner.disk_can_be_filled:
        pytest.skip("there is no separate disk")
    runner.fill_disk()
    if has_room:
        runner.module("batch_encryption_info", {"resource_group": GROUP, "account_name": "account1"})
        runner.make_room()
    report = done(runner.module("keyvault_cmk_access", {**revoke, "wait_timeout": 600}))
    runner.make_room()
    assert any("account1" in one for one in report["warnings"]), report
    service.sandbox.control.advance(600)
    assert service.is_safe()


def test_a_run_that_does_not_see_the_revocation_moves_the_account(
    runner: OneProcess, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reads are three minutes out of date, and the revocation takes effect after ten minutes."""
    principal, first = service.on_key(rbac=True)
    service.point(None)
    service.sandbox.control.advance(30 * DAY)
    service.sandbox.control.behavior(read_lag="180", role_delay="600", key_loss_noticed="3600")
    sleep, began, moved = time.sleep, time.monotonic(), list[Report]()

    def move_once(seconds: float) -> None:
        sleep(seconds)
        if not moved and time.monotonic() - began > 70:
            moved.append({})
            moved[0] = runner.another().module("batch_encryption", move(first))

    monkeypatch.setattr(time, "sleep", move_once)
    revoke = {"vault_name": "vault-one", "principal_id": principal, "state": "absent", "wait_timeout": 900}
    report = runner.module("keyvault_cmk_access", revoke)
    assert moved[0]["changed"], moved
    assert (report["code"], report["restored"]) == ("in_use", True), report
    service.sandbox.control.advance(700)
    assert service.is_safe()


def test_the_keys_of_a_night_wait_together(ansible: Ansible, service: Service) -> None:
    """Four accounts with a key each, in waves of one host."""
    service.make_vault()
    accounts = ["account1", "account2", "account3", "account4"]
    for name in accounts:
        service.grant(service.make_account(name)["identity"]["principalId"])
        service.make_key(name)
        service.point(service.make_key(name).id, name)
    service.sandbox.control.advance(30 * DAY)
    inventory = {
        "all": {
            "hosts": {
                name: {"cmk_account_name": name, "cmk_key_name": name, "ansible_connection": "local"}
                for name in accounts
            }
        }
    }
    file = ansible.write("inventory.yml", inventory)
    names = {name: value for name, value in VARS.items() if name not in ("cmk_account_name", "cmk_key_name")}
    began = now(service)
    run = ansible.playbook(
        "azbatch.cmk.rotate",
        extra_vars={**names, "cmk_hosts": "all", "cmk_serial": 1, "cmk_unused_versions": "disable"},
        arguments=["-i", str(file), "--forks", "2"],
    )
    assert run.rc == 0, run.output
    for name in accounts:
        assert service.enabled(name) == [False, True]
    # Two tasks that wait at the same time both advance the sandbox's clock.
    assert now(service) - began < 2 * DELAY + 60


# Other reads


def pool(service: Service, identifier: str, account: str = "account1") -> None:
    disk = {"targets": ["OsDisk"], "customerManagedKey": {"keyUrl": identifier}}
    machine = {"virtualMachineConfiguration": {"diskEncryptionConfiguration": disk}}
    service.make_pool("pool1", account, deploymentConfiguration=machine)


def test_a_pool_that_was_made_before_the_task(runner: OneProcess, service: Service) -> None:
    """Another task has listed the pools of 25 accounts just before."""
    _principal, old = service.on_key()
    service.point(service.make_key().id)
    spare = service.make_key("key2").id
    service.make_key("key2")
    for number in range(2, 26):
        service.make_account(f"account{number}")
    service.sandbox.control.advance(30 * DAY)
    done(runner.module("keyvault_cmk_unused_versions", {"vault_name": "vault-one", "name": "key2", "confirm": "later"}))
    pool(service, old)
    since = service.sandbox.control.last
    report = done(runner.module("keyvault_cmk_unused_versions", KEY1))
    assert report["in_use_by"] == [f"{service.account_id()}/pools/pool1"]
    assert service.sandbox.control.requests(since, writes=True) == []
    assert spare


def old_document(service: Service, **headers: str) -> Callable[[], None]:
    """Reads of the account return the current document and these headers from now on."""
    document = service.account()

    def act() -> None:
        match = {"method": "GET", "path": r"/batchAccounts/account1\?"}
        service.sandbox.control.fault(
            match=match, times=100, answer={"status": 200, "headers": headers, "body": document}
        )

    return act


def test_a_time_from_the_document_before_the_move(runner: OneProcess, service: Service) -> None:
    """The list shows that the account has left the version, and a read of the account still the version and the time of
    the change before. Batch may need the version for a day."""
    _principal, _old = service.on_key()
    act = old_document(service, **{"Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"})
    new = service.make_key().id
    service.sandbox.control.advance(30 * DAY)
    service.point(new)
    act()
    report = done(runner.module("keyvault_cmk_unused_versions", KEY1))
    assert (report["in_use_by"], bool(report["kept_until"])) == ([service.account_id()], True)
    assert service.enabled() == [True, True]


@pytest.mark.parametrize("time", ["", "soon", "Thu, 99 Jan 2026 00:00:00 GMT"])
def test_a_time_that_cannot_be_read_is_now(runner: OneProcess, service: Service, time: str) -> None:
    service.on_key()
    service.point(service.make_key().id)
    service.sandbox.control.advance(30 * DAY)
    old_document(service, **{"Last-Modified": time})()
    report = done(runner.module("keyvault_cmk_unused_versions", KEY1))
    assert (report["in_use_by"], bool(report["kept_until"])) == ([service.account_id()], True)


@pytest.mark.parametrize("report", ["batch_encryption_info", "batch_encryption_diagnosis"])
def test_a_report_names_the_key_that_the_run_has_set(
    runner: OneProcess, service: Service, two_keys: tuple[str, str], report: str
) -> None:
    first, _second = two_keys
    done(runner.module("batch_encryption", move(first)))
    assert done(runner.module(report, {"resource_group": GROUP, "account_name": "account1"}))["key_identifier"] == first
    done(runner.module("batch_encryption", move(None)))
    audit = done(runner.module("batch_encryption_audit", {"resource_group": GROUP, "return_accounts": True}))
    [account] = audit["accounts"]
    assert account["key_source"] == "microsoft_batch"


def test_a_report_names_the_key_that_another_tool_has_set_after_the_run(
    runner: OneProcess, service: Service, two_keys: tuple[str, str]
) -> None:
    first, second = two_keys
    done(runner.module("batch_encryption", move(first)))
    service.point(second)
    info = {"resource_group": GROUP, "account_name": "account1"}
    assert done(runner.module("batch_encryption_info", info))["key_identifier"] == second
