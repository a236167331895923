# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Batch and the page agree on whether an account is available, and why not.

Batch stores the results of its checks; the page changes nothing. Both use batch/key_check.py. `works` and `reason` read
the page, send a request to Batch, read the page again, and compare the three results. test_batch_rules.py compares the
check with Key Vault.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from azure.keyvault.keys import KeyVaultKey
from batch_calls import batch, user_assigned_identity
from encrypted_account import Vault, disable, later, principal_id, protected, reason, works
from sandbox_client import Control

Loss = Callable[[Vault, KeyVaultKey], Any]
IDENTITIES = "2023-01-31"
DAY = 86400


def expire(vault: Vault, key: KeyVaultKey) -> None:
    vault.keys.update_key_properties(key.name, expires_on=later(vault.sandbox.control, 3600))
    assert works(vault.sandbox)
    vault.sandbox.control.advance(3601)


def delete_key(vault: Vault, key: KeyVaultKey) -> None:
    vault.keys.begin_delete_key(key.name).wait()


def purge_key(vault: Vault, key: KeyVaultKey) -> None:
    delete_key(vault, key)
    vault.sandbox.control.advance(91 * DAY)


def replace_key(vault: Vault, key: KeyVaultKey) -> None:
    """The key has its name again, but not the version that the account is on."""
    purge_key(vault, key)
    vault.rsa_key(key.name)


def delete_vault(vault: Vault, key: KeyVaultKey) -> None:
    vault.delete()


def purge_vault(vault: Vault, key: KeyVaultKey) -> None:
    vault.delete()
    vault.sandbox.control.advance(91 * DAY)


def remove_identity(vault: Vault, key: KeyVaultKey) -> None:
    assert batch(vault.sandbox, "PATCH", "account1", {"identity": {"type": "None"}}).ok


def change_identity(vault: Vault, key: KeyVaultKey) -> None:
    identity = user_assigned_identity(vault.sandbox)
    wanted = {"type": "UserAssigned", "userAssignedIdentities": {identity["id"]: {}}}
    assert batch(vault.sandbox, "PATCH", "account1", {"identity": wanted}).ok


LOSSES: dict[str, tuple[Loss, str]] = {
    "key disabled": (disable, "is disabled"),
    "key deleted": (delete_key, "was not found"),
    "key purged": (purge_key, "was not found"),
    "key expired": (expire, "has expired"),
    "key not valid yet": (
        lambda vault, key: vault.keys.update_key_properties(key.name, not_before=later(vault.sandbox.control, DAY)),
        "is not valid yet",
    ),
    "version missing": (replace_key, "was not found"),
    "operation missing": (
        lambda vault, key: vault.keys.update_key_properties(key.name, key_operations=["wrapKey"]),
        "unwrapKey",
    ),
    "access revoked": (
        lambda vault, key: vault.forbid(principal_id(vault.sandbox)),
        "does not have the permission(s) get, unwrapKey",
    ),
    "permission model changed": (
        lambda vault, key: vault.patch(enableRbacAuthorization=not vault.rbac),
        "does not have the permission(s) get, unwrapKey",
    ),
    "vault deleted": (delete_vault, "The key vault"),
    "vault purged": (purge_vault, "The key vault"),
    "vault of another tenant": (
        lambda vault, key: vault.patch(tenantId=str(uuid.uuid4())),
        "belongs to another tenant",
    ),
    "firewall closed": (
        lambda vault, key: vault.patch(networkAcls={"bypass": "None", "defaultAction": "Deny"}),
        "ForbiddenByFirewall",
    ),
    "public network disabled": (
        lambda vault, key: vault.patch(
            publicNetworkAccess="Disabled", networkAcls={"bypass": "None", "defaultAction": "Deny"}
        ),
        "Forbidden",
    ),
    "perimeter": (lambda vault, key: vault.patch(publicNetworkAccess="SecuredByPerimeter"), "Forbidden"),
    "identity removed": (remove_identity, "has no identity"),
    "identity changed": (change_identity, "does not have the permission(s) get, unwrapKey"),
}


@pytest.mark.slow(every=3)
@pytest.mark.parametrize("versioned", [True, False], ids=["pinned", "following"])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_page_agrees_with_batch(vault: Vault, control: Control, loss: str, versioned: bool) -> None:
    lose, expected = LOSSES[loss]
    key = protected(vault, versioned)
    assert works(vault.sandbox)
    lose(vault, key)
    assert expected in reason(vault.sandbox)
