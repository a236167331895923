# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""If the caller cannot list all Batch accounts, a run does not revoke, disable or delete what an unlisted
account may use. Azure may filter the list or refuse it with 403."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from cases import AT_ONCE, DISABLE
from harness import writes
from meddling import Wire
from one_process import OneProcess
from role_runs import QUARTER, VARS
from sandbox_client import VAULTS, Sandbox
from service import GROUP, NEEDED, Service
from service import OFFICER as PERMISSIONS

READ = "Microsoft.Batch/batchAccounts/read"
NAMES = [f"account{number}" for number in range(1, 13)]
Run = Callable[[], dict[str, Any]]


@pytest.fixture(params=["filtered", "denied"])
def position(request: pytest.FixtureRequest, service: Service) -> str:
    """Azure's response to the list of the subscription's accounts, if the caller only has roles on a resource group."""
    service.sandbox.control.behavior(subscription_list=request.param)
    return str(request.param)


@pytest.fixture
def caller(service: Service, position: str, runner: OneProcess, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A caller that has the roles Owner and Key Vault Crypto Officer only on the resource group."""
    return sign_in(service, monkeypatch, ("Owner", service.sandbox.group), (OFFICER, service.sandbox.group))


OFFICER = "Key Vault Crypto Officer"


def sign_in(service: Service, monkeypatch: pytest.MonkeyPatch, *roles: tuple[str, str]) -> dict[str, Any]:
    held = [{"role": role, "scope": scope} for role, scope in roles]
    who = service.sandbox.control.principal("group-only", roles=held, secret_lifetime=1e9)
    monkeypatch.setenv("AZURE_CLIENT_ID", who["client_id"])
    for name in ("AZURE_SECRET", "AZURE_CLIENT_SECRET"):
        monkeypatch.setenv(name, who["secret"])
    return who


def share_a_key(service: Service, names: list[str]) -> str:
    """Create accounts that use one version of key1 in vault-one. Returns the version's identifier."""
    service.make_vault(rbac=True)
    identifier = service.make_key().id
    service.make_identity()
    principal = service.identities.user_assigned_identities.get(GROUP, "identity1").principal_id
    assert principal
    service.assign(principal, service.vault_id())
    identity = {"type": "UserAssigned", "userAssignedIdentities": {service.identity_id(): {}}}
    for name in names:
        service.make_account(name, identity=identity)
        service.point(identifier, name)
    return identifier


def refused(service: Service, run: Run, moved: int = 0) -> dict[str, Any]:
    """Check that the run fails, because there may be accounts that it cannot list, and that it only moved that number
    of accounts, to a version that it may have created."""
    since = service.sandbox.control.last
    failure = run()
    assert failure.get("code") == "users_unknown", failure
    written = [one["url"] for one in writes(service.sandbox.control.requests(since))]
    moves = [one for one in written if "/keys/" not in one or not one.partition("?")[0].endswith("/create")]
    assert ["/batchAccounts/" in one for one in moves] == [True] * moved, written
    # If the list is only incomplete, resources of other services may be missing too.
    unlisted = failure["unlisted"][0]
    assert (unlisted["scope"], unlisted["action"]) == (service.sandbox.subscription, READ)
    assert {one["action"] for one in failure["unlisted"][1:]} <= {"*/read"}
    assert unlisted["reason"]
    for word in (service.sandbox.subscription, READ):
        assert word in failure["msg"]
        assert word in failure["remedy"]
    return failure


@pytest.mark.parametrize("check", [True, False], ids=["check", "run"])
@pytest.mark.slow(every=4)
def test_twelve_accounts_share_a_key(runner: OneProcess, service: Service, caller: dict[str, Any], check: bool) -> None:
    identifier = share_a_key(service, NAMES)
    service.sandbox.control.advance(QUARTER)
    wanted = {**VARS, "cmk_key_max_version_age": "P90D", "cmk_unused_versions": "disable"}

    for name in NAMES:
        run = partial(runner.role, "rotate", {**wanted, "cmk_account_name": name}, check=check)
        refused(service, run, 0 if check else 1)

    assert all(service.enabled())
    current = identifier if check else service.key().id
    assert [service.encryption(name) for name in NAMES] == [current] * 12
    assert all(service.is_available(name) for name in NAMES)


def test_twelve_accounts_move_if_the_previous_version_is_kept(
    runner: OneProcess, service: Service, caller: dict[str, Any]
) -> None:
    share_a_key(service, NAMES)
    service.sandbox.control.advance(QUARTER)

    for name in NAMES:
        report = runner.role("rotate", {**VARS, "cmk_key_max_version_age": "P90D", "cmk_account_name": name})
        assert report.get("changed") is True, report

    assert len({service.encryption(name) for name in NAMES}) == 1
    assert len(service.versions()) == 2
    assert all(service.is_available(name) for name in NAMES)


@pytest.mark.parametrize(
    "wanted",
    [{"cmk_unused_key": "delete"}, {"cmk_unused_key": "disable"}, {"cmk_unused_access": "revoke"}],
    ids=["delete", "disable", "access"],
)
@pytest.mark.slow(every=2)
def test_revert(runner: OneProcess, service: Service, caller: dict[str, Any], wanted: dict[str, Any]) -> None:
    """The account is moved. The key and the access stay, because accounts that cannot be listed may use them."""
    share_a_key(service, ["account1"])
    everything = {**VARS, **wanted, **AT_ONCE}
    key_before, permissions = service.key().properties.updated_on, service.assignments(identity_of(service))

    refused(service, lambda: runner.another().role("revert", everything, check=True))
    refused(service, lambda: runner.another().role("revert", everything), moved=1)

    assert service.encryption() is None
    assert service.is_available()
    assert service.key().properties.updated_on == key_before
    assert service.assignments(identity_of(service)) == permissions


def identity_of(service: Service) -> str:
    principal = service.identities.user_assigned_identities.get(GROUP, "identity1").principal_id
    assert principal
    return str(principal)


def elsewhere(service: Service) -> str:
    """Create an account in another resource group, which the caller cannot read and which uses key1. Returns its ID."""
    share_a_key(service, [])
    version = service.key().id
    sandbox = service.sandbox
    group = f"{sandbox.subscription}/resourceGroups/elsewhere"
    account = f"{group}/providers/Microsoft.Batch/batchAccounts/hidden"
    identity = {"type": "UserAssigned", "userAssignedIdentities": {service.identity_id(): {}}}
    key = {"encryption": {"keySource": "Microsoft.KeyVault", "keyVaultProperties": {"keyIdentifier": version}}}
    body = {"location": "westeurope", "identity": identity, "properties": key}
    assert sandbox.arm("PUT", group, "2021-04-01", {"location": "westeurope"}).ok
    assert sandbox.arm("PUT", account, "2024-07-01", body).ok
    return account


def is_available(sandbox: Sandbox, account: str) -> bool:
    return sandbox.arm("GET", f"{account}/pools", "2024-07-01").ok


def far_away(service: Service, monkeypatch: pytest.MonkeyPatch) -> str:
    """Create a vault and an account in a subscription that the caller cannot read. Both that account and account1 use a
    key of the vault. The caller is Owner of the subscription of account1, and has all permissions on the vault's keys
    that the collection uses. Returns the ID of the other account."""
    sandbox = service.sandbox
    identity = service.make_identity()["properties"]["principalId"]
    who = sign_in(service, monkeypatch, ("Owner", sandbox.subscription))
    second = sandbox.control.call("POST", "/subscriptions", {"name": "second"})["subscription_id"]
    group = f"/subscriptions/{second}/resourceGroups/far"
    assert sandbox.arm("PUT", group, "2021-04-01", {"location": "westeurope"}).ok
    holders = {who["object_id"]: PERMISSIONS, service.operator: PERMISSIONS, identity: NEEDED}
    properties = {
        "tenantId": sandbox.tenant_id,
        "sku": {"family": "A", "name": "standard"},
        "enablePurgeProtection": True,
        "enableRbacAuthorization": False,
        "accessPolicies": [service.policy(holder, *names) for holder, names in holders.items()],
    }
    vault = f"{group}/providers/Microsoft.KeyVault/vaults/vault-far"
    assert sandbox.arm("PUT", vault, VAULTS, {"location": "westeurope", "properties": properties}).ok
    version = service.make_key(vault="vault-far").id
    user = {"type": "UserAssigned", "userAssignedIdentities": {service.identity_id(): {}}}
    service.make_account(identity=user)
    service.point(version)
    account = f"{group}/providers/Microsoft.Batch/batchAccounts/far"
    key = {"encryption": {"keySource": "Microsoft.KeyVault", "keyVaultProperties": {"keyIdentifier": version}}}
    body = {"location": "westeurope", "identity": user, "properties": key}
    assert sandbox.arm("PUT", account, "2024-07-01", body).ok
    return account


def test_a_vault_in_a_subscription_that_the_caller_does_not_see(
    runner: OneProcess, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller has access to the vault's keys, but unlisted accounts of that subscription may use them."""
    account = far_away(service, monkeypatch)
    names = {**VARS, "cmk_vault_name": "vault-far"}
    key = {"vault_name": "vault-far", "name": "key1"}
    since, before = service.sandbox.control.last, service.encryption()
    failure = runner.role("rotate", {**names, **DISABLE})
    assert failure.get("code") == "users_unknown", failure
    assert writes(service.sandbox.control.requests(since)) == []
    assert service.encryption() == before

    failure = runner.another().role("revert", {**names, "cmk_unused_key": "delete", **AT_ONCE})
    assert failure.get("code") == "users_unknown", failure
    assert service.encryption() is None
    for wanted in ({"state": "disabled"}, {"state": "absent"}):
        failure = runner.module("keyvault_cmk_key_state", {**key, **wanted, "unused_for": "P0D"})
        assert failure.get("code") == "users_unknown", failure
        assert "vault-far" in failure["msg"]
    assert is_available(service.sandbox, account)
    assert runner.module("keyvault_cmk_key_state", {**key, "state": "disabled", "force": True})["changed"] is True


def test_everything_that_can_be_revoked_disabled_or_deleted(
    runner: OneProcess, service: Service, caller: dict[str, Any]
) -> None:
    account = elsewhere(service)
    service.make_key()
    old, _new = (one.version for one in service.versions())
    principal = service.identities.user_assigned_identities.get(GROUP, "identity1").principal_id
    policy = {"time_after_create": "P90D", "expiry_time": "P1Y", "time_before_expiry": None}
    key = {"vault_name": "vault-one", "name": "key1"}
    assert runner.module("keyvault_cmk_key", {**key, "rotation_policy": policy})["changed"] is True
    acts = [
        ("keyvault_cmk_key_state", {**key, "state": "disabled"}),
        ("keyvault_cmk_key_state", {**key, "state": "absent"}),
        ("keyvault_cmk_key_state", {**key, "state": "disabled", "version": old}),
        ("keyvault_cmk_key", {**key, "remove_rotation_policy": True}),
        ("keyvault_cmk_access", {"vault_name": "vault-one", "principal_id": principal, "state": "absent"}),
    ]

    for module, wanted in acts:
        refused(service, lambda module=module, wanted=wanted: runner.module(module, wanted, check=True))
        refused(service, lambda module=module, wanted=wanted: runner.module(module, wanted))
    assert is_available(service.sandbox, account)

    forced = runner.module("keyvault_cmk_key_state", {**acts[2][1], "force": True})
    assert forced["changed"] is True
    assert any(service.sandbox.subscription in warning for warning in forced["warnings"])
    assert not is_available(service.sandbox, account)


def test_known_users_are_named_first(runner: OneProcess, service: Service, caller: dict[str, Any]) -> None:
    share_a_key(service, ["account1", "account2"])

    failure = runner.module("keyvault_cmk_key_state", {"vault_name": "vault-one", "name": "key1", "state": "absent"})

    assert failure["code"] == "in_use"
    assert sorted(failure["accounts"]) == [service.account_id("account1"), service.account_id("account2")]
    assert {one["scope"] for one in failure["unlisted"]} == {service.sandbox.subscription}


def test_the_permission_named_in_the_error_is_sufficient(
    runner: OneProcess, service: Service, position: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller gets a custom role at the subscription with the action that the error names."""
    sandbox, role = service.sandbox, "33333333-0000-4000-8000-000000000003"
    actions = [READ, "Microsoft.Authorization/permissions/read"]
    properties = {
        "roleName": "Lists Batch accounts",
        "assignableScopes": [sandbox.subscription],
        "permissions": [{"actions": actions}],
    }
    path = f"{sandbox.subscription}/providers/Microsoft.Authorization/roleDefinitions/{role}"
    assert sandbox.arm("PUT", path, "2022-04-01", {"properties": properties}).ok
    on_group = [(name, sandbox.group) for name in ("Owner", OFFICER)]
    sign_in(service, monkeypatch, *on_group, (role, sandbox.subscription))
    share_a_key(service, ["account1"])
    sandbox.control.advance(QUARTER)

    wanted = {**VARS, "cmk_key_max_version_age": "P90D", "cmk_unused_versions": "disable"}
    report = runner.role("rotate", {**wanted, "cmk_vault_used_by": "batch"})

    assert report.get("changed") is True, report
    assert service.is_available()


@pytest.mark.parametrize(
    ("role", "wanted", "last_write"),
    [
        ("revert", {"cmk_unused_key": "delete", **AT_ONCE}, "/batchAccounts/"),
        # The version that both accounts have left is disabled.
        ("rotate", DISABLE, "/keys/"),
    ],
)
@pytest.mark.slow(every=2)
def test_a_role_at_the_subscription_that_ends_during_the_run(
    runner: OneProcess,
    service: Service,
    wire: Wire,
    position: str,
    monkeypatch: pytest.MonkeyPatch,
    role: str,
    wanted: dict[str, Any],
    last_write: str,
) -> None:
    """A role that is activated for some hours may end during the run. Then the list of accounts is not complete any
    more, although the cached list was."""
    sandbox = service.sandbox
    hidden = elsewhere(service)
    identifier = service.key().id
    service.assign(service.make_account()["identity"]["principalId"], service.vault_id())
    service.point(identifier)
    if role == "rotate":
        newest = service.make_key().id
        service.point(newest)
        key = {"keySource": "Microsoft.KeyVault", "keyVaultProperties": {"keyIdentifier": newest}}
        assert sandbox.arm("PATCH", hidden, "2024-07-01", {"properties": {"encryption": key}}).ok
    on_group = [(name, sandbox.group) for name in ("Owner", OFFICER)]
    who = sign_in(service, monkeypatch, *on_group, ("Reader", sandbox.subscription))

    def end() -> None:
        assignments = service.authorization.role_assignments
        for one in assignments.list_for_scope(sandbox.subscription, filter=f"principalId eq '{who['object_id']}'"):
            if one.scope == sandbox.subscription:
                assignments.delete_by_id(one.id)

    with wire.meddled(lambda request: request.method == "PATCH" and last_write in request.url, end):
        report = runner.role(role, {**VARS, **wanted})

    assert is_available(sandbox, hidden), report
    assert report.get("code") == "users_unknown", report
    assert service.is_available()


@pytest.mark.parametrize("status", [404, 409, 500, 401])
def test_a_subscription_whose_list_of_accounts_fails(runner: OneProcess, service: Service, status: int) -> None:
    """If the list of a subscription fails with any status, its accounts may use the key. The audit still reports the
    accounts of other subscriptions."""
    share_a_key(service, ["account1"])
    service.point(None)
    second = service.sandbox.control.call("POST", "/subscriptions", {"name": "second"})["subscription_id"]
    service.sandbox.control.fault(
        match={"method": "GET", "path": f"/subscriptions/{second}/providers/Microsoft.Batch/batchAccounts"},
        times=None,
        answer={"status": status, "body": {"error": {"code": "Odd", "message": "Something is odd."}}},
    )

    key = {"vault_name": "vault-one", "name": "key1", "state": "disabled", "unused_for": "P0D"}
    failure = runner.module("keyvault_cmk_key_state", key)
    assert failure["code"] == "users_unknown"
    [unlisted] = failure["unlisted"]
    assert (unlisted["scope"], unlisted["action"]) == (f"/subscriptions/{second}", None)
    assert "Something is odd." in failure["msg"]

    report = runner.module("batch_encryption_audit", {"return_accounts": True})
    assert [one["name"] for one in report["accounts"]] == ["account1"]
    assert report["unlisted_subscriptions"] == [second]
    assert report["unlisted"] == failure["unlisted"]
    audit = runner.module("batch_encryption_audit", {})
    assert audit["counts"]["accounts"] == 1
    assert any(second in warning and "Something is odd." in warning for warning in audit["warnings"])
