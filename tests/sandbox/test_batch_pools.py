# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pools with a key for their disks, and the deletion of a pool."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from batch_calls import batch, create, refused, user_assigned_identity
from encrypted_account import Vault
from sandbox_client import Control, Sandbox

GONE = "0" * 32


@pytest.fixture
def vault(sandbox: Sandbox) -> Vault:
    create(sandbox)
    return Vault(sandbox).make()


def put(vault: Vault, key: str, *, assigned: str | None, used: str | None) -> requests.Response:
    """Create a pool with this identity whose disks are encrypted with this key, by the identity `used`."""
    own: dict[str, Any] = {"keyUrl": key, **({"identityReference": {"resourceId": used}} if used else {})}
    disks = {"targets": ["OsDisk"], "customerManagedKey": own}
    properties = {"deploymentConfiguration": {"virtualMachineConfiguration": {"diskEncryptionConfiguration": disks}}}
    identity = {"type": "UserAssigned", "userAssignedIdentities": {assigned: {}}}
    body = {"properties": properties, **({"identity": identity} if assigned else {})}
    return batch(vault.sandbox, "PUT", "account1", body, "/pools/pool1")


def test_the_identity_of_a_pool(vault: Vault) -> None:
    identity = user_assigned_identity(vault.sandbox)
    response = put(vault, vault.rsa_key().id, assigned=identity["id"], used=identity["id"].upper())

    assert response.status_code == 200, response.text
    assigned = response.json()["identity"]["userAssignedIdentities"][identity["id"]]
    assert assigned == {name: identity["properties"][name] for name in ("principalId", "clientId")}
    assert batch(vault.sandbox, "GET", "account1", below="/pools/pool1").json() == response.json()


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("{key}", "It is not the URL of a version of a key."),
        (f"{{key}}/{GONE}", f"The key '{{key}}/{GONE}' was not found."),
        (f"https://vault2.vault.azure.net/keys/key1/{GONE}", "The key vault 'vault2.vault.azure.net' was not found."),
    ],
    ids=["no version", "no such version", "no such vault"],
)
def test_a_key_that_does_not_exist(vault: Vault, key: str, reason: str) -> None:
    versionless = str(vault.rsa_key().id).rpartition("/")[0]
    response = put(vault, key.format(key=versionless), assigned=None, used=None)
    details = refused(response, 400, "InvalidPropertyValue")
    assert details["Reason"] == reason.format(key=versionless)
    assert batch(vault.sandbox, "GET", "account1", below="/pools").json() == {"value": []}


def test_a_pool_is_deleted_in_a_while(vault: Vault, control: Control) -> None:
    control.timing(pool_delete=15)
    assert put(vault, vault.rsa_key().id, assigned=None, used=None).ok
    assert batch(vault.sandbox, "DELETE", "account1", below="/pools/pool1").status_code == 202
    control.advance(10)
    [pool] = batch(vault.sandbox, "GET", "account1", below="/pools").json()["value"]
    assert pool["properties"]["provisioningState"] == "Deleting"
    again = put(vault, vault.rsa_key().id, assigned=None, used=None)
    assert "pool1" in refused(again, 409, "PoolBeingDeleted")["Reason"]
    # A second request does not delay the deletion.
    assert batch(vault.sandbox, "DELETE", "account1", below="/pools/pool1").status_code == 202
    control.advance(6)
    assert batch(vault.sandbox, "GET", "account1", below="/pools").json() == {"value": []}
    assert batch(vault.sandbox, "DELETE", "account1", below="/pools/pool1").status_code == 204
