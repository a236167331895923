# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""User-assigned identities, with azure-mgmt-msi and with plain requests."""

from __future__ import annotations

import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure.identity import DefaultAzureCredential
from azure.mgmt.msi import ManagedServiceIdentityClient
from key_vault_calls import assign
from sandbox_client import Control, Sandbox

VERSION = "2023-01-31"
READER = "acdd72a7-3385-48ef-bd42-f606fba81ae7"


def path(sandbox: Sandbox, name: str = "identity1") -> str:
    return f"{sandbox.group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"


@pytest.fixture
def client(sandbox: Sandbox) -> ManagedServiceIdentityClient:
    return ManagedServiceIdentityClient(DefaultAzureCredential(), sandbox.subscription_id)


def test_the_sdk_makes_reads_changes_lists_and_deletes(client: ManagedServiceIdentityClient) -> None:
    identities = client.user_assigned_identities
    made = identities.create_or_update("rg-sandbox", "identity1", {"location": "West Europe", "tags": {"a": "1"}})
    assert made.location == "westeurope"
    assert made.principal_id != made.client_id
    assert identities.get("rg-sandbox", "IDENTITY1").client_id == made.client_id
    changed = identities.update("rg-sandbox", "identity1", {"tags": {"b": "2"}})
    assert changed.tags == {"b": "2"}
    assert changed.principal_id == made.principal_id
    assert [found.id for found in identities.list_by_resource_group("RG-sandbox")] == [made.id]
    assert [found.id for found in identities.list_by_subscription()] == [made.id]
    identities.delete("rg-sandbox", "identity1")
    assert not list(identities.list_by_subscription())
    with pytest.raises(ResourceNotFoundError) as refusal:
        identities.get("rg-sandbox", "identity1")
    assert refusal.value.error.code == "ResourceNotFound"


def test_a_repetition_keeps_the_principal(sandbox: Sandbox) -> None:
    first = sandbox.arm("PUT", path(sandbox), VERSION, {"location": "westeurope", "tags": {"a": "1"}}).json()
    again = sandbox.arm("PUT", path(sandbox), VERSION, {"location": "westeurope"})
    assert again.status_code == 200
    assert "location" not in again.headers
    assert again.json() == {**first, "tags": {}}


def test_refusals(sandbox: Sandbox) -> None:
    missing = sandbox.arm("PUT", path(sandbox), VERSION, {})
    assert (missing.status_code, missing.json()["error"]["code"]) == (400, "LocationRequired")
    sandbox.arm("PUT", path(sandbox), VERSION, {"location": "westeurope"})
    moved = sandbox.arm("PUT", path(sandbox), VERSION, {"location": "eastus"})
    assert (moved.status_code, moved.json()["error"]["code"]) == (409, "InvalidResourceLocation")
    group = path(sandbox).replace("rg-sandbox", "rg-nowhere")
    assert sandbox.arm("PUT", group, VERSION, {"location": "westeurope"}).status_code == 404


def test_the_principal_is_deleted_with_the_identity(sandbox: Sandbox, control: Control) -> None:
    made = sandbox.arm("PUT", path(sandbox), VERSION, {"location": "westeurope"}).json()
    principal_id = made["properties"]["principalId"]
    assert assign(sandbox, sandbox.group, READER, principal_id).status_code == 201
    response = sandbox.arm("DELETE", path(sandbox), VERSION)
    assert (response.status_code, response.headers["content-length"]) == (200, "0")
    known = [principal["object_id"] for principal in control.call("GET", "/principals")["principals"]]
    assert principal_id not in known
