# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""If the caller cannot list all Batch accounts, a run does not revoke, disable or delete what an unlisted
account may use. Azure may filter the list or refuse it with 403."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from harness import writes
from one_process import OneProcess
from sandbox_client import Sandbox
from service import GROUP, Service

READ = "Microsoft.Batch/batchAccounts/read"
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
