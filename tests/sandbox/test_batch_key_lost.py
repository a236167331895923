# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The behavior of Batch while it cannot use the key of an account, and the recovery of the account."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from azure.keyvault.keys import KeyVaultKey
from batch_calls import batch, create, read, refused
from encrypted_account import (
    MICROSOFT,
    Vault,
    customer,
    disable,
    enable,
    encrypt,
    principal_id,
    protected,
    reason,
    refusal,
    state_on_page,
    versionless,
    works,
)
from sandbox_client import Control, Sandbox

Change = Callable[[Vault, KeyVaultKey], Any]


LOSSES: dict[str, tuple[Change, Change, str]] = {
    "key disabled": (disable, enable, "is disabled"),
    "key deleted": (
        lambda vault, key: vault.keys.begin_delete_key(key.name).wait(),
        lambda vault, key: vault.keys.begin_recover_deleted_key(key.name).wait(),
        "was not found",
    ),
    "grant revoked": (
        lambda vault, key: vault.forbid(principal_id(vault.sandbox)),
        lambda vault, key: vault.permit(principal_id(vault.sandbox)),
        "does not have the permission(s) get, unwrapKey",
    ),
    "unwrapKey taken from the key": (
        lambda vault, key: vault.keys.update_key_properties(key.name, key_operations=["wrapKey"]),
        lambda vault, key: vault.keys.update_key_properties(key.name, key_operations=["wrapKey", "unwrapKey"]),
        "unwrapKey",
    ),
    "vault moved to another tenant": (
        lambda vault, key: vault.patch(tenantId=str(uuid.uuid4())),
        lambda vault, key: vault.patch(tenantId=vault.sandbox.tenant_id),
        "belongs to another tenant",
    ),
    "network closed": (
        lambda vault, key: vault.patch(networkAcls={"bypass": "None", "defaultAction": "Deny"}),
        lambda vault, key: vault.patch(networkAcls={"bypass": "AzureServices", "defaultAction": "Deny"}),
        "ForbiddenByFirewall",
    ),
}


def state(sandbox: Sandbox) -> tuple[bool, bool]:
    """Whether the account is available, and whether Batch can use its key, by the control API."""
    [account] = sandbox.control.call("GET", "/accounts")["accounts"]
    assert bool(account["unavailable_reason"]) is not account["available"]
    return account["available"], not account["key_unusable_reason"]


@pytest.mark.slow(every=4)
@pytest.mark.parametrize("versioned", [True, False], ids=["pinned", "following"])
@pytest.mark.parametrize("cause", LOSSES)
@pytest.mark.parametrize("noticed", [3600, 600])
def test_a_loss_is_noticed_late(vault: Vault, control: Control, noticed: int, cause: str, versioned: bool) -> None:
    lose, restore, expected = LOSSES[cause]
    control.behavior(key_loss_noticed=str(noticed), pools_without_key="409")
    control.timing(batch_recovery=600)
    sandbox, key = vault.sandbox, protected(vault, versioned)
    assert state(sandbox) == (True, True)

    lose(vault, key)
    control.advance(noticed - 10)
    assert state(sandbox) == (True, False)
    shown, said = state_on_page(sandbox)
    assert (shown, said.partition(": ")[0]) == ("available", "Batch has not noticed this yet")
    assert expected in said
    assert works(sandbox)
    assert batch(sandbox, "GET", "account1", below="/pools").ok
    assert batch(sandbox, "PATCH", "account1", {"tags": {"a": "b"}}).ok
    restore(vault, key)
    control.advance(20)
    assert works(sandbox)

    lose(vault, key)
    control.advance(noticed - 10)
    assert works(sandbox)
    control.advance(10)
    # The control API changes nothing, and Batch reports the same.
    assert state(sandbox) == (False, False)
    assert expected in reason(sandbox)
    refused(batch(sandbox, "GET", "account1", below="/pools"), 409, "KeyVaultKeyNotAccessible")
    restore(vault, key)
    assert "has not recovered yet" in reason(sandbox)
    control.advance(600)
    assert works(sandbox)


@pytest.mark.parametrize("to", ["another key", "a Microsoft-managed key"])
def test_an_account_leaves_a_key_whose_loss_is_not_noticed(policy_vault: Vault, control: Control, to: str) -> None:
    control.behavior(key_loss_noticed="3600")
    sandbox, key = policy_vault.sandbox, protected(policy_vault)
    other = str(policy_vault.rsa_key("key2").id)
    disable(policy_vault, key)
    assert "is disabled" in refusal(sandbox, str(key.id))
    body = customer(other) if to == "another key" else MICROSOFT
    assert batch(sandbox, "PATCH", "account1", body).ok
    control.advance(3601)
    assert works(sandbox)


@pytest.mark.parametrize("seconds", [60, 600])
@pytest.mark.parametrize("by", ["timing", "behavior"])
def test_a_role_assignment_takes_effect_late(sandbox: Sandbox, control: Control, by: str, seconds: int) -> None:
    vault = Vault(sandbox, rbac=True).make()
    # The larger of the two counts.
    control.timing(role_propagation=seconds if by == "timing" else 5)
    control.behavior(role_delay=str(seconds) if by == "behavior" else "0")
    create(sandbox, identity={"type": "SystemAssigned"})
    vault.permit(principal_id(sandbox))
    key = str(vault.rsa_key().id)
    assert "does not have the permission(s)" in refusal(sandbox, key)
    control.advance(seconds)
    assert encrypt(sandbox, key).status_code == 200
    vault.forbid(principal_id(sandbox))
    assert works(sandbox)
    control.advance(seconds)
    assert not works(sandbox)


def test_account_without_its_key_can_only_be_read_and_deleted(policy_vault: Vault) -> None:
    sandbox = policy_vault.sandbox
    key = protected(policy_vault)
    pool = {"properties": {"vmSize": "STANDARD_D2S_V3"}}
    batch(sandbox, "PUT", "account1", pool, "/pools/pool-1")
    sandbox.control.behavior(pools_without_key="409")
    before = read(sandbox)
    disable(policy_vault, key)
    assert read(sandbox) == before
    listed = sandbox.arm("GET", f"{sandbox.subscription}/providers/Microsoft.Batch/batchAccounts", "2025-06-01")
    assert listed.json() == {"value": [before]}

    for method, below, body in (
        ("PATCH", "", {"tags": {"a": "b"}}),
        ("PATCH", "", MICROSOFT),
        ("PATCH", "", customer(versionless(policy_vault.rsa_key("key2")))),
        ("PUT", "", {"location": "westeurope"}),
        ("POST", "/listKeys", None),
        ("POST", "/regenerateKeys", {"keyName": "Primary"}),
        ("POST", "/syncAutoStorageKeys", None),
        ("GET", "/outboundNetworkDependenciesEndpoints", None),
        ("GET", "/pools", None),
        ("GET", "/pools/pool-1", None),
        ("PUT", "/pools/pool-1", pool),
        ("DELETE", "/pools/pool-1", None),
    ):
        response = batch(sandbox, method, "account1", body, below)
        details = refused(response, 409, "KeyVaultKeyNotAccessible")
        assert details == {"Reason": f"The key '{key.id}' is disabled.", "KeyIdentifier": key.id}
        assert "retry-after" not in response.headers

    location = batch(sandbox, "DELETE", "account1").headers["location"]
    assert sandbox.bearer().get(location).status_code == 200
    assert batch(sandbox, "GET", "account1").status_code == 404


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("200", None),
        ("409", "KeyVaultKeyNotAccessible"),
        ("403", "KeyVaultKeyNotAccessible"),
        ("500", "InternalError"),
    ],
)
def test_pools_without_key(policy_vault: Vault, status: str, code: str | None) -> None:
    sandbox = policy_vault.sandbox
    key = protected(policy_vault)
    sandbox.control.behavior(pools_without_key=status)
    assert batch(sandbox, "GET", "account1", below="/pools").status_code == 200
    disable(policy_vault, key)

    response = batch(sandbox, "GET", "account1", below="/pools")

    assert response.status_code == int(status)
    assert (response.json().get("error") or {}).get("code") == code
    refused(batch(sandbox, "PATCH", "account1", MICROSOFT), 409, "KeyVaultKeyNotAccessible")
