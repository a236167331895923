# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changes of the key of Batch accounts, and refusals of Batch."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from batch_calls import batch, create, read, refused, user_assigned_identity
from encrypted_account import (
    MICROSOFT,
    NEEDED,
    Vault,
    customer,
    encrypt,
    principal_id,
    protected,
    reason,
    refusal,
    versionless,
    works,
)
from sandbox_client import Sandbox

LONG_AGO, FUTURE = (datetime(year, 1, 1, tzinfo=UTC) for year in (2000, 2100))


def test_creation_with_a_key_needs_a_grant_first(policy_vault: Vault) -> None:
    sandbox = policy_vault.sandbox
    sandbox.control.behavior(refused_creation="at_once")
    before = sandbox.control.call("GET", "/principals")
    key = policy_vault.rsa_key()
    body = {"location": "westeurope", "identity": {"type": "SystemAssigned"}, **customer(str(key.id))}
    refused(batch(sandbox, "PUT", "account1", body), 400, "InvalidKeyVaultProperties")
    assert batch(sandbox, "GET", "account1").status_code == 404
    assert sandbox.control.call("GET", "/principals") == before


def poll(sandbox: Sandbox, accepted: requests.Response) -> requests.Response:
    assert accepted.status_code == 202, accepted.text
    url = urlsplit(accepted.headers["location"])
    return sandbox.arm("GET", url.path, parse_qs(url.query)["api-version"][0])


def without_a_grant(vault: Vault) -> tuple[dict[str, Any], str]:
    """The body of a creation with a key that the account's identity may not use, and the identity's principal."""
    identity = user_assigned_identity(vault.sandbox)
    user = {"type": "UserAssigned", "userAssignedIdentities": {identity["id"]: {}}}
    body = {"location": "westeurope", "identity": user, "tags": {"a": "b"}, **customer(str(vault.rsa_key().id))}
    return body, identity["properties"]["principalId"]


def test_a_creation_that_fails_and_leaves_an_account(policy_vault: Vault) -> None:
    sandbox = policy_vault.sandbox
    sandbox.control.timing(batch_create=8)
    body, principal = without_a_grant(policy_vault)
    accepted = batch(sandbox, "PUT", "account1", body)
    assert poll(sandbox, accepted).status_code == 202
    assert read(sandbox)["properties"]["provisioningState"] == "Creating"
    sandbox.control.advance(8)

    refused(poll(sandbox, accepted), 400, "InvalidKeyVaultProperties")

    account = read(sandbox)
    assert account["properties"]["provisioningState"] == "Failed"
    assert account["properties"]["encryption"] == body["properties"]["encryption"]
    assert account["tags"] == {"a": "b"}
    for method, below, sent in (("GET", "/pools", None), ("POST", "/listKeys", None), ("PATCH", "", MICROSOFT)):
        refused(batch(sandbox, method, "account1", sent, below), 409, "AccountCreationFailed")
    # The creation fails again until the key can be used.
    again = batch(sandbox, "PUT", "account1", body)
    sandbox.control.advance(8)
    refused(poll(sandbox, again), 400, "InvalidKeyVaultProperties")
    policy_vault.permit(principal)
    last = batch(sandbox, "PUT", "account1", body)
    sandbox.control.advance(8)
    assert poll(sandbox, last).json()["properties"]["provisioningState"] == "Succeeded"
    assert works(sandbox)


def test_a_creation_that_fails_and_leaves_nothing(policy_vault: Vault) -> None:
    sandbox = policy_vault.sandbox
    sandbox.control.behavior(refused_creation="no_account")
    before = sandbox.control.call("GET", "/principals")
    body = {
        "location": "westeurope",
        "identity": {"type": "SystemAssigned"},
        **customer(str(policy_vault.rsa_key().id)),
    }
    refused(poll(sandbox, batch(sandbox, "PUT", "account1", body)), 400, "InvalidKeyVaultProperties")
    assert batch(sandbox, "GET", "account1").status_code == 404
    assert sandbox.control.call("GET", "/principals") == before


def test_identifier_is_shown_as_it_was_written(policy_vault: Vault) -> None:
    key = protected(policy_vault)
    for written in (str(key.id).upper().replace("HTTPS", "https").replace("KEYS", "keys"), f"{versionless(key)}/"):
        encrypted = encrypt(policy_vault.sandbox, written)
        assert encrypted.status_code == 200, encrypted.text
        shown = read(policy_vault.sandbox)["properties"]["encryption"]["keyVaultProperties"]["keyIdentifier"]
        assert shown == written


def test_vault_behind_a_firewall_lets_batch_in_as_a_trusted_service(policy_vault: Vault) -> None:
    key = protected(policy_vault)
    policy_vault.patch(networkAcls={"bypass": "AzureServices", "defaultAction": "Deny"})
    assert encrypt(policy_vault.sandbox, str(key.id)).status_code == 200
    policy_vault.patch(networkAcls={"bypass": "None", "defaultAction": "Deny"})
    assert "ForbiddenByFirewall" in reason(policy_vault.sandbox)


# Errors in the request


def test_no_encryption_in_a_patch_changes_none(policy_vault: Vault) -> None:
    protected(policy_vault)
    before = read(policy_vault.sandbox)
    for properties in ({}, {"encryption": None}):
        assert batch(policy_vault.sandbox, "PATCH", "account1", {"properties": properties}).json() == before


# Errors of the key


def test_missing_grant(vault: Vault) -> None:
    create(vault.sandbox, identity={"type": "SystemAssigned"})
    message = refusal(vault.sandbox, str(vault.rsa_key().id))
    assert "does not have the permission(s) get, wrapKey, unwrapKey" in message
    assert principal_id(vault.sandbox) in message


@pytest.mark.parametrize("missing", NEEDED)
def test_missing_permission(policy_vault: Vault, missing: str) -> None:
    create(policy_vault.sandbox, identity={"type": "SystemAssigned"})
    policy_vault.permit(principal_id(policy_vault.sandbox), [name for name in NEEDED if name != missing])
    message = refusal(policy_vault.sandbox, str(policy_vault.rsa_key().id))
    assert f"does not have the permission(s) {missing} on the key 'key1'" in message


def test_vault_without_purge_protection(sandbox: Sandbox) -> None:
    vault = Vault(sandbox).make(enablePurgeProtection=None)
    create(sandbox, identity={"type": "SystemAssigned"})
    vault.permit(principal_id(sandbox))
    key = vault.rsa_key()
    assert "Purge protection is not enabled" in refusal(sandbox, str(key.id))
    vault.patch(enablePurgeProtection=True)
    assert encrypt(sandbox, str(key.id)).status_code == 200


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"enabled": False}, "is disabled."),
        ({"expires_on": LONG_AGO}, "has expired."),
        ({"not_before": FUTURE}, "is not valid yet."),
        ({"key_operations": ["encrypt", "unwrapKey"]}, "does not permit the operation(s) wrapKey"),
        ({"key_operations": ["encrypt", "wrapKey"]}, "does not permit the operation(s) unwrapKey"),
    ],
)
def test_key_that_batch_cannot_use(policy_vault: Vault, options: dict[str, Any], said: str) -> None:
    protected(policy_vault)
    key = policy_vault.rsa_key("key2", **options)
    assert refusal(policy_vault.sandbox, str(key.id)).startswith(f"The key '{key.id}' {said}")
