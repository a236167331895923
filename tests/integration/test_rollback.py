# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rollbacks during which faults occur, and rollbacks with lists and reads that are out of date."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cases import AT_ONCE, CLOSED
from meddling import REALISTIC, SETTLED, Wire
from moments import (
    Moment,
    after,
    changes_access_policies,
    changes_vault,
    confirms_move,
    creates_vault,
    deletes,
    lists_pools,
    lists_versions_of_key1,
    moves_account,
    reads_account,
)
from one_process import OneProcess
from operators import FIRST_KEY, RBAC_VAULT, Run, World, done
from role_runs import VARS
from service import DAY, Service

OTHER_KEY = (RBAC_VAULT, "key1")
BUSY = {"times": 5, "answer": {"status": 503}}
THROTTLED = {"status": 429, "headers": {"Retry-After": "60"}, "body": {"error": {"code": "TooManyRequests"}}}
BRIEFLY_THROTTLED = {**THROTTLED, "headers": {"Retry-After": "3"}}
UNREACHABLE = {"times": 5, "drop": "before"}
EMPTY = {"times": 1, "answer": {"status": 200, "body": {"value": []}}}
DELETED_KEY = {"method": "GET", "path": "/deletedkeys/"}
ACCOUNTS = {"method": "GET", "path": r"providers/Microsoft\.Batch/batchAccounts[?]"}
# Seconds until an account whose key was restored is available.
RECOVERED = 2 * REALISTIC["batch_recovery"]


def is_look_after(refusals: int, service: Service) -> Callable[[Any], bool]:
    """A function that is true for a read of the account after Batch has refused that many switches."""
    since = service.sandbox.control.last

    def is_it(request: Any) -> bool:
        asked = service.sandbox.control.requests(since) if reads_account()(request) else []
        return [one["status"] >= 400 for one in asked if one["method"] == "PATCH"] == [True] * refusals

    return is_it


def since_switch(service: Service) -> list[dict[str, Any]]:
    """The last switch of an account, and the requests after it."""
    asked = service.sandbox.control.requests()
    last = max(n for n, one in enumerate(asked) if one["method"] == "PATCH" and "/batchAccounts/" in one["url"])
    return asked[last:]


@pytest.fixture
def world(runner: OneProcess, service: Service) -> World:
    return World(service, runner)


def is_available(service: Service, name: str = "account1") -> bool:
    service.sandbox.control.call("DELETE", "/faults")
    service.sandbox.control.advance(SETTLED)
    # The sandbox counts the time of a recovery from the first request that needs the key.
    service.is_available(name)
    service.sandbox.control.advance(RECOVERED)
    return service.is_available(name)


@pytest.mark.parametrize(
    "fault",
    [{"match": DELETED_KEY, **BUSY}, {"match": DELETED_KEY, **UNREACHABLE}, {"match": ACCOUNTS, **EMPTY}],
)
@pytest.mark.parametrize("key", [FIRST_KEY, OTHER_KEY], ids=["policy", "role"])
@pytest.mark.slow(every=3)
def test_an_account_starts_to_use_a_key_during_its_deletion(
    world: World, wire: Wire, service: Service, fault: dict[str, Any], key: tuple[str, str]
) -> None:
    """The rollback recovers the key although one of its requests fails, or a list is empty for a moment."""
    done(world.prepared(Run("provision", "account1", key))())
    identifier = service.encryption()
    done(world.prepared(Run("revert", "account1", key))())
    service.sandbox.control.timing(**REALISTIC)

    def comes() -> None:
        service.point(identifier)
        service.sandbox.control.fault(**fault)

    with wire.meddled(deletes, comes):
        options = {"state": "absent", "unused_for": "P0D"}
        report = world.prepared(Run("keyvault_cmk_key_state", "account1", key, options))()
    assert report["failed"]
    assert report["restored"] is True
    assert is_available(service)


@pytest.mark.parametrize("times", [1, 3])
def test_a_read_after_a_switch_is_out_of_date(world: World, wire: Wire, service: Service, times: int) -> None:
    """Access was revoked just before the switch, and Batch does not know that yet. The rollback writes the previous key
    although a read still shows it."""
    done(world.prepared(Run("provision", "account1", FIRST_KEY))())
    done(world.prepared(Run("provision", "account2", OTHER_KEY))())
    principal, first = world.principal("account1"), service.encryption()
    service.grant(principal, RBAC_VAULT)
    service.sandbox.control.advance(SETTLED)
    service.sandbox.control.timing(**REALISTIC)

    def revoked() -> None:
        service.revoke(principal, RBAC_VAULT)
        old = {"status": 200, "body": service.account()}
        reads = {"method": "GET", "path": "/batchAccounts/account1[?]"}
        service.sandbox.control.fault(match=reads, times=times, answer=old)

    with wire.meddled(moves_account(), revoked):
        report = world.prepared(Run("switch", "account1", None, {"to": OTHER_KEY}))()
    assert report["code"] == "preflight_failed"
    assert report["restored"] is True
    assert service.encryption() == first
    assert is_available(service)


def test_somebody_else_moves_the_account_after_the_switch_was_read(world: World, wire: Wire, service: Service) -> None:
    """Another user moves the account to a newer version, and disables the version of the run before the run lists the
    versions again. The run has the account from before the move, so the rollback has to read the account again."""
    done(world.prepared(Run("provision", "account1", FIRST_KEY))())
    newer: list[str] = []

    def others() -> None:
        switched = since_switch(service)[0]["body"]["properties"]["encryption"]["keyVaultProperties"]["keyIdentifier"]
        newer.append(service.make_key().id)
        service.point(newer[0])
        service.disable(version=switched.rpartition("/")[2])

    with wire.meddled(after(moves_account(), lists_versions_of_key1), others):
        report = world.prepared(Run("rotate", "account1", None, {"cmk_key_new_version": True}))()
    assert report.get("failed_checks") == ["key_enabled"], report
    assert [service.encryption()] == newer
    assert report["current_state"]["key_identifier"] == newer[0]
    assert is_available(service)


@pytest.mark.parametrize("refusals", [1, 3])
def test_somebody_else_moves_the_account_while_batch_refuses_its_key(
    world: World, wire: Wire, service: Service, refusals: int
) -> None:
    """Batch refuses the new key until the access to it has taken effect. The account stays on the key to which somebody
    else has moved it, because the run may move it from its previous key only."""
    done(world.prepared(Run("provision", "account1", FIRST_KEY))())
    done(world.prepared(Run("provision", "account2", OTHER_KEY))())
    service.sandbox.control.advance(SETTLED)
    service.sandbox.control.timing(**REALISTIC)
    newer = service.make_key("key2").id
    with wire.meddled(is_look_after(refusals, service), lambda: service.point(newer)):
        report = world.prepared(Run("switch", "account1", None, {"to": OTHER_KEY}))()
    assert service.encryption() == newer, report
    assert report["code"] == "account_on_another_key"
    assert is_available(service)


@pytest.mark.parametrize(("seconds", "is_seen"), [(30, True), (5, False)])
def test_somebody_else_moves_the_account_while_azure_lets_the_switch_wait(
    world: World, wire: Wire, service: Service, seconds: int, is_seen: bool
) -> None:
    done(world.prepared(Run("provision", "account1", FIRST_KEY))())
    newer = service.make_key("key2").id
    busy = {"status": 429, "headers": {"Retry-After": str(seconds)}, "body": {"error": {"code": "TooManyRequests"}}}
    service.sandbox.control.fault(match={"method": "PATCH", "path": "/batchAccounts/"}, times=1, answer=busy)
    with wire.meddled(is_look_after(1, service), lambda: service.point(newer)):
        report = world.prepared(Run("rotate", "account1", None, {"cmk_key_new_version": True}))()
    assert (service.encryption() == newer) is is_seen, report
    assert report.get("code") == ("account_on_another_key" if is_seen else None)
    assert is_available(service)


def test_somebody_else_adds_a_network_rule_while_azure_lets_the_repair_wait(
    world: World, wire: Wire, service: Service
) -> None:
    """A repeated request with the previous rules would remove the new rule."""
    done(world.prepared(Run("provision", "account1", FIRST_KEY))())
    service.change_vault(properties={"networkAcls": CLOSED})

    def others() -> None:
        rules = [*CLOSED["ipRules"], {"value": "10.1.2.3"}]
        service.change_vault(properties={"networkAcls": {**CLOSED, "ipRules": rules}})
        service.sandbox.control.fault(match={"method": "PATCH", "path": "/vaults/vault-one"}, times=1, answer=THROTTLED)

    with wire.meddled(changes_vault(), others):
        done(world.prepared(Run("recover", "account1"))())
    rules = service.vault()["properties"]["networkAcls"]
    assert [rule["value"] for rule in rules["ipRules"]] == ["127.0.0.1/32", "10.1.2.3/32"]
    assert is_available(service)


def test_somebody_else_uses_a_key_while_azure_lets_the_change_of_the_identity_wait(
    world: World, wire: Wire, service: Service
) -> None:
    done(world.prepared(Run("provision", "account1", FIRST_KEY))())
    identifier = service.encryption()
    done(world.prepared(Run("revert", "account1"))())
    run = world.prepared(Run("batch_account_identity", "account1", None, {"allowed_repairs": ["identity"]}))

    def others() -> None:
        service.point(identifier)
        service.sandbox.control.fault(match={"method": "PATCH", "path": "/batchAccounts/"}, times=1, answer=THROTTLED)

    with wire.meddled(moves_account(), others):
        report = run()
    assert report["code"] == "identity_in_use", report
    assert service.encryption() == identifier
    assert is_available(service)


@pytest.mark.parametrize(
    ("read", "is_lost", "after_switch"),
    [
        pytest.param("/pools", False, lists_pools, id="confirmation"),
        pytest.param("/pools", True, lists_pools, id="confirmation of a lost account"),
        pytest.param(r"/batchAccounts/account1(?:\?|$)", True, lists_versions_of_key1, id="rollback"),
    ],
)
def test_a_switch_is_confirmed_or_rolled_back_although_a_read_is_throttled(
    world: World, wire: Wire, service: Service, read: str, is_lost: bool, after_switch: Moment
) -> None:
    """Azure requires a wait that is longer than wait_timeout. If the task did not wait, it could neither confirm the
    change nor roll it back."""
    done(world.prepared(Run("provision", "account1", FIRST_KEY))())
    done(world.prepared(Run("provision", "account2", OTHER_KEY))())
    first, wanted = service.encryption(), service.encryption("account2")
    control = service.sandbox.control
    # Batch accepts the rollback until it notices that the key is lost.
    control.behavior(key_loss_noticed="3600")

    def others() -> None:
        control.fault(match={"method": "GET", "path": read}, times=1, answer=THROTTLED)
        if is_lost:
            service.disable("key1", vault=RBAC_VAULT)

    with wire.meddled(after(moves_account(), after_switch), others):
        report = world.prepared(Run("switch", "account1", None, {"to": OTHER_KEY, "cmk_wait_timeout": 30}))()
    assert service.encryption() == (first if is_lost else wanted), report
    assert report.get("restored") == (True if is_lost else None), report
    assert service.is_safe()


@pytest.mark.parametrize("read", [r"/providers/Microsoft\.Batch/batchAccounts\?", "/pools"], ids=["accounts", "pools"])
def test_access_is_restored_although_a_list_is_throttled(
    runner: OneProcess, wire: Wire, service: Service, read: str
) -> None:
    """Another account begins to use the access just before it is revoked."""
    principal = service.make_identity("shared")["properties"]["principalId"]
    identity = {"type": "UserAssigned", "userAssignedIdentities": {service.identity_id("shared"): {}}}
    service.make_vault()
    for name in ("account1", "account2"):
        service.make_account(name, identity=identity)
    service.grant(principal)
    key = service.make_key().id
    service.point(key)

    def others() -> None:
        service.point(key, "account2")
        service.sandbox.control.fault(match={"method": "GET", "path": read}, times=1, answer=BRIEFLY_THROTTLED)

    with wire.meddled(changes_access_policies, others):
        report = runner.role("revert", {**VARS, "cmk_wait_timeout": 1, "cmk_unused_access": "revoke", **AT_ONCE})
    assert service.is_safe("account2"), report


def test_the_previous_version_is_disabled_before_the_rollback_writes_it(
    world: World, wire: Wire, service: Service
) -> None:
    """Access to the new key is revoked just before the switch. After the revocation has taken effect, Batch refuses
    every change of the account's key."""
    done(world.prepared(Run("provision", "account1", FIRST_KEY))())
    done(world.prepared(Run("provision", "account2", OTHER_KEY))())
    principal, first = world.principal("account1"), service.encryption() or ""
    service.grant(principal, RBAC_VAULT)
    service.sandbox.control.advance(SETTLED)
    service.sandbox.control.timing(**REALISTIC)
    acts = [lambda: service.revoke(principal, RBAC_VAULT), lambda: service.disable(version=first.rpartition("/")[2])]

    def before_a_switch(request: Any) -> bool:
        if moves_account()(request) and acts:
            acts.pop(0)()
        return False

    with wire.meddled(before_a_switch, lambda: None):
        report = world.prepared(Run("switch", "account1", None, {"to": OTHER_KEY}))()
    assert not acts
    assert report["code"] == "preflight_failed"
    assert report["current_state"]["key_source"] == "microsoft_batch", report
    assert is_available(service)


def test_a_rollback_is_refused_and_the_new_key_can_be_used(world: World, wire: Wire, service: Service) -> None:
    """The list of the pools fails after the switch, and another user disables the previous version."""
    done(world.prepared(Run("provision", "account1", FIRST_KEY))())
    first = service.encryption() or ""

    def others() -> None:
        service.disable(version=first.rpartition("/")[2])
        service.sandbox.control.fault(match={"method": "GET", "path": "/pools"}, **BUSY)

    run = world.prepared(Run("rotate", "account1", None, {"cmk_key_new_version": True}))
    with wire.meddled(confirms_move(), others):
        report = run()
    assert report["code"] == "service_unavailable", report
    assert report["restored"] is False
    assert report["current_state"]["key_identifier"] == service.encryption() != first
    assert is_available(service)


def test_the_previous_key_is_used_through_one_of_two_identities(world: World, wire: Wire, service: Service) -> None:
    """Only one of the identities has access to the previous key, which is sufficient for the account."""
    names = ("identity1", "identity2")
    one, other = (service.make_identity(name)["properties"]["principalId"] for name in names)
    identity = {"type": "UserAssigned", "userAssignedIdentities": {service.identity_id(name): {} for name in names}}
    service.make_account(identity=identity)
    service.grant(one)
    first = service.make_key().id
    service.point(first)
    new = service.make_key(vault=RBAC_VAULT).id
    for principal in (one, other):
        service.grant(principal, RBAC_VAULT)
    service.sandbox.control.advance(SETTLED)
    service.sandbox.control.timing(**REALISTIC)

    def revoked() -> None:
        for principal in (one, other):
            service.revoke(principal, RBAC_VAULT)

    with wire.meddled(moves_account(), revoked):
        report = world.prepared(Run("switch", "account1", None, {"cmk_new_key_identifier": new}))()
    assert report["failed_checks"] == ["access_granted"], report
    assert report["restored"] is True
    assert service.encryption() == first
    assert is_available(service)


@pytest.mark.parametrize("vault", ["vault-one", RBAC_VAULT])
def test_a_rollback_is_refused_after_a_switch_that_was_not_confirmed(
    world: World, wire: Wire, service: Service, vault: str
) -> None:
    """Another controller reverts the account and revokes its access to both keys just before the switch, which Batch
    still accepts. Then the second read of the new key fails."""
    done(world.prepared(Run("provision", "account1", (vault, "key1")))())
    done(world.prepared(Run("provision", "account2", (vault, "key2")))())
    service.sandbox.control.advance(SETTLED)
    # The revocation takes effect after its confirmation, and after the SDK's retries of the read of the vault.
    service.sandbox.control.timing(**{**REALISTIC, "policy_propagation": 400, "role_propagation": 400})
    other = world.prepared(Run("revert", "account1", None, {"cmk_unused_access": "revoke", **AT_ONCE}), beside=True)

    def taken_back() -> None:
        done(other())
        access = "roleAssignments" if vault == RBAC_VAULT else f"/vaults/{vault}[?]"
        service.sandbox.control.fault(match={"method": "GET", "path": access}, **BUSY)

    run = world.prepared(Run("switch", "account1", None, {"to": (vault, "key2")}))
    with wire.meddled(moves_account(), taken_back):
        report = run()
    assert report["code"] == "service_unavailable", report
    assert report["current_state"]["key_source"] == "microsoft_batch", report
    assert is_available(service)


@pytest.mark.parametrize("fault", [BUSY, UNREACHABLE])
@pytest.mark.parametrize(
    "path",
    [ACCOUNTS["path"], "/vaults/new-vault", "accessPolicies|roleAssignments"],
    ids=["accounts", "vault", "access"],
)
@pytest.mark.parametrize("authorization", ["access_policy", "rbac"])
@pytest.mark.slow(every=3)
def test_two_controllers_create_a_vault(
    world: World, wire: Wire, service: Service, fault: dict[str, Any], path: str, authorization: str
) -> None:
    """The PUT request of the run for account1 arrives last, and replaces the access policy of account2. The same run
    creates the access policy again, although one of its requests fails."""
    key = ("new-vault", "key1")
    service.make_account("account2")

    def run(account: str, how: str, **options: Any) -> Callable[[], dict[str, Any]]:
        return world.prepared(Run("provision", account, key, {"cmk_vault_authorization": how}), **options)

    def other() -> None:
        done(run("account2", "access_policy", beside=True)())
        service.sandbox.control.fault(match={"path": path}, **fault)

    first = run("account1", authorization)
    with wire.meddled(creates_vault("new-vault"), other):
        first()
    assert is_available(service, "account2")


@pytest.mark.parametrize("ends", ["not confirmed", "interrupted"])
def test_a_rollback_while_reads_lag(runner: OneProcess, service: Service, wire: Wire, ends: str) -> None:
    """Reads show neither the change nor the rollback yet."""
    _, version = service.on_key()
    service.sandbox.control.advance(DAY)
    service.sandbox.control.behavior(value_lag="20")

    def end() -> None:
        service.sandbox.control.advance(10)
        if ends == "interrupted":
            raise KeyboardInterrupt
        service.sandbox.control.fault(match={"method": "GET", "path": "/pools"}, **{**BUSY, "times": 4})

    with wire.meddled(confirms_move(), end):
        report = runner.role("revert", {**VARS, "cmk_wait_timeout": 600})

    assert report["code"] == ("interrupted" if ends == "interrupted" else "service_unavailable")
    assert "The change was rolled back." in report["msg"]
    assert report["restored"] is True
    service.sandbox.control.advance(40)
    assert service.encryption() == version
