# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The drill: each kind by its playbook, refusals, and drills that fail or end in the middle."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from callers import give, sign_in
from cases import CLOSED
from harness import Ansible, Run, kill, until, writes
from meddling import Wire
from one_process import OneProcess, RolesRunner
from others import uses
from role_runs import holdings, play_role, second_account, wrote
from service import DAY, GROUP, Service

from ansible_collections.azbatch.cmk.plugins.module_utils._core.interrupts import Interrupted
from ansible_collections.azbatch.cmk.plugins.module_utils._documents.key import DRILL_TAG

ROOT = Path(__file__).resolve().parents[2]
VARS = {"cmk_resource_group": GROUP, "cmk_account_name": "account1", "cmk_drill_canary": "account1"}
KINDS = ("disable_key", "revoke_access", "close_firewall")
# With the permission model of the vault.
OF_EACH_KIND = [("disable_key", False), ("revoke_access", True), ("close_firewall", False)]
# Batch notices a loss late, and lists the pools of an account without its key.
HARD = {"pools_without_key": "200", "key_loss_noticed": "600"}
OPEN_TO_BATCH = {**CLOSED, "bypass": "AzureServices"}


def drill(ansible: Ansible, **variables: Any) -> Run:
    check = variables.pop("check", False)
    return ansible.playbook("azbatch.cmk.drill", extra_vars={**VARS, **variables}, check=check)


def canary(service: Service, *, rbac: bool = False) -> dict[str, Any]:
    """account1 follows key1, which has two versions, in a vault with a firewall. Returns the state of Azure."""
    service.on_key(rbac=rbac, follow=True)
    service.make_key(tags={"owner": "ops"})
    service.change_vault(properties={"networkAcls": OPEN_TO_BATCH}, tags={"owner": "ops"})
    return state(service)


def state(service: Service) -> dict[str, Any]:
    """All accounts, vaults, keys and role assignments, without the drill's tag of versions: it stays if it is the only
    one, because an empty object may count as no change, or if another task has enabled the version."""
    found = holdings(service)
    for one in found["keys"]["vault-one"].get("key1", ()):
        one["tags"] = {name: value for name, value in (one["tags"] or {}).items() if name != DRILL_TAG}
    return found


def reports(ansible: Ansible) -> list[dict[str, Any]]:
    """The reports for machines, the earliest first. Each has a report for people and a page beside it. The page shows
    also the earlier drills."""
    files = sorted((ansible.folder / "cmk-drill").glob("*.json"))
    for number, file in enumerate(files):
        passed = "passed" if json.loads(file.read_text())["passed"] else "not passed"
        text, page = (file.with_suffix(suffix).read_text() for suffix in (".md", ".html"))
        assert text.startswith(f"# Drill of account1: {passed}\n")
        # Only in a job of AWX.
        assert "AWX" not in text
        assert f">{passed}</span>" in page
        assert page.count('<tr><th scope="row">') == (number + 1 if number else 0)
    return [json.loads(file.read_text()) for file in files]


@pytest.mark.parametrize(("kind", "rbac"), OF_EACH_KIND)
@pytest.mark.slow
def test_a_drill(ansible: Ansible, service: Service, kind: str, rbac: bool) -> None:
    before = canary(service, rbac=rbac)
    service.sandbox.control.behavior(**HARD)
    predicted = drill(ansible, cmk_drill_kind=kind, check=True)
    assert predicted.rc == 0, predicted.output
    assert wrote(predicted) == []
    assert reports(ansible) == []

    run = drill(ansible, cmk_drill_kind=kind)
    assert run.rc == 0, run.output
    assert service.is_safe()
    assert state(service) == before
    [report] = reports(ansible)
    assert report["passed"]
    assert (report["kind"], report["account_id"]) == (kind, service.account_id())
    assert report["key_identifier"] == "https://vault-one.vault.azure.net/keys/key1"
    assert report["started_by"] == service.operator
    assert report["refusal"] == "409 KeyVaultKeyNotAccessible"
    assert 600 <= report["seconds_until_refused"] < 660
    assert 0 <= report["seconds_until_recovered"] < 60
    # What the check has predicted is what the run has changed.
    names = [
        one.name for one in run if one.get("changed") and "drill" in one.full_name and one.action != "include_role"
    ]
    ours = [name for name in names if "report" not in name]
    assert ours == [one.name for one in predicted if one.get("changed") and "drill" in one.full_name]


@pytest.mark.slow
def test_recover_may_not_make_the_repair(ansible: Ansible, service: Service) -> None:
    """The drill shows that, fails, and restores the key nevertheless."""
    before = canary(service)
    run = drill(ansible, cmk_allowed_repairs=["network"])
    assert run.rc != 0
    assert [one["code"] for one in run.failed] == ["repair_not_allowed"]
    assert state(service) == before
    assert service.is_safe()
    [report] = reports(ansible)
    assert (report["passed"], report["recovered_at"]) == (False, None)
    assert report["refused_at"]


@pytest.mark.parametrize(
    ("variable", "value"), [("cmk_allowed_repairs", ["magic"]), ("cmk_drill_folder", "/proc/nowhere")]
)
@pytest.mark.slow(every=2)
def test_wrong_variables_are_refused_first(ansible: Ansible, service: Service, variable: str, value: Any) -> None:
    """Also those of the role recover, which the drill runs once the account has lost its key."""
    canary(service)
    since = service.sandbox.control.last
    run = drill(ansible, **{variable: value})
    assert run.rc != 0, run.output
    assert writes(service.sandbox.control.requests(since)) == []
    [failed] = run.failed
    assert variable in f"{failed.name} {failed.get('msg')}"
    assert "unknown" not in failed.get("msg")


# The module


def module(runner: OneProcess, state: str, **options: Any) -> dict[str, Any]:
    given = {"canary": "account1", "kind": "disable_key"} if state == "lost" else {}
    account = {"resource_group": GROUP, "account_name": "account1", "state": state, "wait_timeout": 7200}
    return dict(runner.module("batch_encryption_drill", {**account, **given, **options}))


def not_on_a_key(service: Service) -> None:
    service.point(None)


def unavailable(service: Service) -> None:
    for version in service.versions():
        service.disable(version=version.version)


def another_user(service: Service) -> None:
    second_account(service, "https://vault-one.vault.azure.net/keys/key1")


def a_user_that_has_left(service: Service) -> None:
    another_user(service)
    service.point(None, "account2")


def a_pool(service: Service, key: str = "key1") -> None:
    identity = service.make_identity()
    service.grant(identity["properties"]["principalId"])
    key_of_disks = service.key(key).id
    own = {"keyUrl": key_of_disks, "identityReference": {"resourceId": identity["id"]}}
    disks = {"targets": ["OsDisk"], "customerManagedKey": own}
    service.make_pool(
        "pool1",
        identity={"type": "UserAssigned", "userAssignedIdentities": {identity["id"]: {}}},
        deploymentConfiguration={"virtualMachineConfiguration": {"diskEncryptionConfiguration": disks}},
    )


def a_pool_on_another_key(service: Service) -> None:
    service.make_key("other")
    a_pool(service, "other")


def another_key_of_the_vault(service: Service) -> None:
    second_account(service, service.make_key("other").id)
    # Until then, the account may have left key1.
    service.sandbox.control.advance(8 * DAY)


def a_storage_account(service: Service) -> None:
    uses(service, "storage", service.key().id)


def a_storage_account_on_another_key(service: Service) -> None:
    uses(service, "storage", service.make_key("other").id)


def open_to_all(service: Service) -> None:
    service.change_vault(properties={"networkAcls": {**OPEN_TO_BATCH, "defaultAction": "Allow"}})


def access_from_above(service: Service) -> None:
    service.assign(service.account()["identity"]["principalId"], service.sandbox.group)


def an_identity_without_access(service: Service) -> None:
    one, two = service.make_identity("one"), service.make_identity("two")
    service.grant(one["properties"]["principalId"])
    own = {"type": "UserAssigned", "userAssignedIdentities": {one["id"]: {}, two["id"]: {}}}
    service.change_account(identity=own)


def a_policy_with_all(service: Service) -> None:
    service.set_policy("replace", service.policy(service.account()["identity"]["principalId"], "all"))


def another_drill(service: Service) -> None:
    tags = {"kind": "disable_key", "account": service.account_id("account2"), "key": "https://x/keys/key2"}
    service.change_vault(tags={f"azbatch-cmk-drill-{name}": value for name, value in tags.items()})


@pytest.mark.parametrize(
    ("prepare", "options", "code"),
    [
        (not_on_a_key, {}, "account_not_on_cmk"),
        (unavailable, {}, "account_unavailable"),
        (another_user, {}, "in_use"),
        (a_user_that_has_left, {}, "recently_used"),
        (a_pool, {}, "in_use"),
        (a_pool_on_another_key, {"kind": "close_firewall"}, "in_use"),
        (another_key_of_the_vault, {"kind": "close_firewall"}, "in_use"),
        (a_storage_account, {"kind": "revoke_access"}, "in_use"),
        (a_storage_account_on_another_key, {"kind": "close_firewall"}, "in_use"),
        (open_to_all, {"kind": "close_firewall"}, "drill_refused"),
        *(
            (prepare, {"kind": "revoke_access"}, "drill_refused")
            for prepare in (access_from_above, an_identity_without_access, a_policy_with_all)
        ),
        (another_drill, {}, "drill_under_way"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
@pytest.mark.slow(every=4)
def test_refused_before_the_first_write(
    runner: OneProcess, service: Service, prepare: Callable[[Service], None], options: dict[str, str], code: str
) -> None:
    canary(service, rbac=prepare is access_from_above)
    service.sandbox.control.advance(8 * DAY)
    prepare(service)
    since = service.sandbox.control.last
    assert module(runner, "lost", **options).get("code") == code
    assert writes(service.sandbox.control.requests(since)) == []


@pytest.mark.parametrize("changed", ["tags", "rules"])
@pytest.mark.slow(every=2)
def test_changes_of_the_vault_by_others_stay(runner: OneProcess, service: Service, wire: Wire, changed: str) -> None:
    """Somebody changes the vault after the drill has read it."""
    canary(service)
    rules = {**OPEN_TO_BATCH, "ipRules": [*OPEN_TO_BATCH.get("ipRules", []), {"value": "203.0.113.7/32"}]}
    wanted = {"tags": {"owner": "somebody"}} if changed == "tags" else {"properties": {"networkAcls": rules}}

    def is_update(request: Any) -> bool:
        return request.method == "PATCH" and "/batchAccounts/" in request.url

    with wire.meddled(is_update, lambda: service.change_vault(**wanted)):
        assert module(runner, "lost", kind="close_firewall")["code"] == "plan_outdated"
    assert service.is_safe()
    vault = service.vault()
    assert vault["tags"] == {"owner": "somebody" if changed == "tags" else "ops"}
    addresses = [one["value"] for one in vault["properties"]["networkAcls"]["ipRules"]]
    assert ("203.0.113.7/32" in addresses) is (changed == "rules")


def test_the_recovery_is_recorded_once(runner: OneProcess, service: Service) -> None:
    canary(service)
    module(runner, "lost")
    for version in service.versions():
        service.keys().update_key_properties("key1", version.version, enabled=True)
    first = module(runner, "recovered")
    service.sandbox.control.advance(60)
    second = module(runner, "recovered")
    assert (first["changed"], second["changed"]) == (True, False)
    assert first["drill"]["recovered_at"] == second["drill"]["recovered_at"]


def test_the_drill_of_another_account_is_not_ended(runner: OneProcess, service: Service) -> None:
    canary(service)
    another_drill(service)
    tags = service.vault()["tags"]
    for drill_state in ("recovered", "ended"):
        assert module(runner, drill_state)["changed"] is False
    assert service.vault()["tags"] == tags


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow(every=3)
def test_a_loss_that_batch_does_not_notice_in_time(runner: OneProcess, service: Service, kind: str) -> None:
    before = canary(service)
    service.sandbox.control.behavior(pools_without_key="200", key_loss_noticed="3600")
    failure = module(runner, "lost", kind=kind, wait_timeout=120)
    assert (failure["code"], failure["restored"]) == ("timed_out", True)
    assert service.is_safe()
    # The tags stay, so that a later run confirms that the account works.
    assert module(runner, "ended")["drill"]["passed"] is False
    assert state(service) == before
    assert module(runner, "ended")["changed"] is False


@pytest.mark.parametrize(("kind", "rbac"), OF_EACH_KIND)
@pytest.mark.slow(every=3)
def test_reads_that_lag(runner: OneProcess, service: Service, kind: str, rbac: bool) -> None:
    before = canary(service, rbac=rbac)
    control = service.sandbox.control
    control.behavior(pools_without_key="200", key_loss_noticed="0", value_lag="20")
    lost = module(runner, "lost", kind=kind)
    assert lost["drill"]["seconds_until_refused"] < 35
    control.advance(20)
    assert module(runner, "ended")["drill"]["refused_at"] == lost["drill"]["refused_at"]
    control.advance(20)
    assert state(service) == before
    assert service.is_safe()


def at_first_sleep(monkeypatch: pytest.MonkeyPatch, at_least: float, act: Callable[[], object]) -> None:
    """Call `act` once, after a sleep of these seconds or more."""
    sleep, done = time.sleep, list[bool]()

    def passing(seconds: float) -> None:
        sleep(seconds)
        if seconds >= at_least and not done:
            done.append(True)
            act()

    monkeypatch.setattr(time, "sleep", passing)


def test_an_interrupt_while_reads_lag(runner: OneProcess, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """That reads still show the key as before does not show that nothing is missing."""
    canary(service)
    service.sandbox.control.behavior(pools_without_key="200", key_loss_noticed="3600", value_lag="20")

    def interrupt() -> None:
        raise Interrupted(signal.SIGINT)

    at_first_sleep(monkeypatch, 1, interrupt)
    failure = module(runner, "lost")
    assert (failure["code"], failure["restored"]) == ("interrupted", True)
    assert service.is_safe()


def test_tags_of_the_account_that_somebody_changes_stay(
    runner: OneProcess, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each update of the drill has all tags of the account."""
    canary(service)
    service.sandbox.control.behavior(pools_without_key="200", key_loss_noticed="3600")
    at_first_sleep(monkeypatch, 30, lambda: service.change_account(tags={"owner": "somebody"}))
    assert module(runner, "lost")["code"] == "plan_outdated"
    assert service.account()["tags"] == {"owner": "somebody"}
    assert service.is_safe()


def test_a_user_that_lists_show_late(runner: OneProcess, service: Service) -> None:
    """The drill ends as soon as a list shows the other account."""
    canary(service)
    account = service.make_account("account2")
    service.grant(account["identity"]["principalId"])
    service.sandbox.control.advance(8 * DAY)
    service.sandbox.control.behavior(pools_without_key="200", key_loss_noticed="3600", value_lag="20")
    service.point("https://vault-one.vault.azure.net/keys/key1", "account2")
    failure = module(runner, "lost")
    assert failure["code"] in ("in_use", "recently_used"), failure
    assert service.enabled() == [True, True]
    assert service.is_safe("account2")


def test_a_user_of_the_access_that_lists_show_late(runner: OneProcess, service: Service) -> None:
    """It uses another key with the identity of the canary."""
    canary(service)
    shared = service.make_identity()
    service.grant(shared["properties"]["principalId"])
    identity = {"type": "UserAssigned", "userAssignedIdentities": {shared["id"]: {}}}
    service.change_account(identity=identity)
    service.make_account("account2", identity=identity)
    other = service.make_key("other").id
    service.sandbox.control.advance(8 * DAY)
    service.sandbox.control.behavior(pools_without_key="200", key_loss_noticed="3600", value_lag="20")
    service.point(other, "account2")
    failure = module(runner, "lost", kind="revoke_access")
    assert failure["code"] in ("in_use", "recently_used"), failure
    assert (failure["restored"], service.is_available("account2")) == (True, True)


# Rights

DEFINITION = json.loads((ROOT / "examples" / "roles" / "drill.json").read_text(encoding="utf-8"))
SUBSCRIPTION = json.loads((ROOT / "examples" / "roles" / "subscription.json").read_text(encoding="utf-8"))


def sign_in_as_drill(service: Service, monkeypatch: pytest.MonkeyPatch, without: str = "") -> None:
    def rights(of: dict[str, Any], name: str) -> list[str]:
        return [one for one in of[name] if one != without]

    own = give(service, service.sandbox.group, rights(DEFINITION, "Actions"), rights(DEFINITION, "DataActions"))
    above = give(service, service.sandbox.subscription, rights(SUBSCRIPTION, "Actions"))
    sign_in(service, monkeypatch, [own, above])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow(every=3)
def test_the_documented_rights_are_enough(
    runner: OneProcess, roles: RolesRunner, service: Service, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    canary(service, rbac=True)
    sign_in_as_drill(service, monkeypatch)
    before = state(service)
    assert module(runner, "lost", kind=kind)["drill"]["refused_at"]
    assert not service.is_available()
    # Recover ends a drill that was not finished.
    runner.forget()
    play_role(roles, "recover")
    assert state(service) == before
    assert service.is_safe()


def test_without_all_reads(runner: OneProcess, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the role, and what to set if no other service uses the vault."""
    canary(service, rbac=True)
    sign_in_as_drill(service, monkeypatch, without="*/read")
    failure = module(runner, "lost")
    assert failure["code"] == "users_unknown"
    assert [(one["scope"], one["action"]) for one in failure["unlisted"]] == [(service.sandbox.subscription, "*/read")]
    assert "Assign Reader" in failure["remedy"]
    assert "vault_used_by=batch" in failure["remedy"]
    assert "separate" not in failure["remedy"]


@pytest.mark.parametrize(
    ("kind", "right"),
    [
        ("disable_key", "Microsoft.KeyVault/vaults/write"),
        # Only the restoring needs it.
        ("revoke_access", "Microsoft.Authorization/roleAssignments/write"),
    ],
)
@pytest.mark.slow(every=2)
def test_without_a_right(
    runner: OneProcess, service: Service, monkeypatch: pytest.MonkeyPatch, kind: str, right: str
) -> None:
    canary(service, rbac=True)
    sign_in_as_drill(service, monkeypatch, without=right)
    since = service.sandbox.control.last
    failure = module(runner, "lost", kind=kind)
    assert (failure["code"], failure["action"]) == ("permission_denied", right), failure
    assert writes(service.sandbox.control.requests(since)) == []


# A process that ends


@pytest.mark.slow
def test_killed_in_the_middle(ansible: Ansible, service: Service) -> None:
    before = canary(service)
    service.sandbox.control.behavior(**HARD)
    process = subprocess.Popen(
        ansible.arguments("azbatch.cmk.drill", extra_vars=VARS),
        # The clock of the test does not advance by itself.
        env=ansible.environment(ANSIBLE_CALLBACKS_ENABLED=None, TEST_CLOCK=None),
        cwd=ansible.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    until(lambda: service.enabled() == [False, False])
    kill(process.pid)
    process.communicate()
    service.sandbox.control.advance(600)
    assert not service.is_available()
    run = drill(ansible)
    assert run.rc == 0, run.output
    assert state(service) == before
    assert [report["passed"] for report in reports(ansible)] == [False, True]
