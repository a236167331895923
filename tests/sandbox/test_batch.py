# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Batch accounts: lists, changes, identities and quotas."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from batch_calls import (
    VERSION,
    batch,
    create,
    read,
    refused,
    user_assigned_identity,
)
from sandbox_client import VAULTS, Control, Sandbox

from azure_sandbox.shared.behavior import POSITIONS

STORAGE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/store1"


# Get, list


@pytest.mark.parametrize("position", ["filtered", "denied"])
def test_lists_of_a_subscription_that_is_not_readable(sandbox: Sandbox, control: Control, position: str) -> None:
    """The caller is Reader of the group `other`."""
    control.behavior(subscription_list=position)
    other = f"{sandbox.subscription}/resourceGroups/other"
    sandbox.arm("PUT", other, "2022-09-01", {"location": "westeurope"})
    properties = {"tenantId": sandbox.tenant_id, "sku": {"family": "A", "name": "standard"}, "accessPolicies": []}
    body = {"location": "westeurope", "properties": properties}
    accounts, vaults = "providers/Microsoft.Batch/batchAccounts", "providers/Microsoft.KeyVault/vaults"
    identities = "providers/Microsoft.ManagedIdentity/userAssignedIdentities"
    for number, group in enumerate((sandbox.group, other)):
        for name in (f"vault{number}", f"gone{number}"):
            assert sandbox.arm("PUT", f"{group}/{vaults}/{name}", VAULTS, body).ok
        sandbox.arm("DELETE", f"{group}/{vaults}/gone{number}", VAULTS)
        sandbox.arm("PUT", f"{group}/{identities}/identity{number}", "2023-01-31", {"location": "westeurope"})
        sandbox.arm("PUT", f"{group}/{accounts}/account{number}", VERSION, {"location": "westeurope"})
    who = control.principal(roles=[{"role": "Reader", "scope": other}])
    session = sandbox.bearer(client_id=who["client_id"], secret=who["secret"])

    for path, version, kind in (
        (accounts, VERSION, "account"),
        (vaults, VAULTS, "vault"),
        ("providers/Microsoft.KeyVault/deletedVaults", VAULTS, "gone"),
        (identities, "2023-01-31", "identity"),
    ):
        url = f"{sandbox.subscription}/{path}"
        listed = sandbox.arm("GET", url, version).json()["value"]
        assert sorted(one["name"] for one in listed) == [f"{kind}0", f"{kind}1"]
        response = sandbox.arm("GET", url, version, session=session)
        if position == "denied":
            assert (response.status_code, response.json()["error"]["code"]) == (403, "AuthorizationFailed")
        else:
            assert [one["name"] for one in response.json()["value"]] == [f"{kind}1"]
        if kind != "gone":
            assert sandbox.arm("GET", f"{other}/{path}", version, session=session).ok


# PUT of an existing account


def test_a_second_put_sets_its_properties(sandbox: Sandbox) -> None:
    create(sandbox, tags={"tag1": "value1"}, properties={"autoStorage": {"storageAccountId": STORAGE}})
    body = {"location": "westeurope", "tags": {"tag2": "value2"}, "properties": {"publicNetworkAccess": "Disabled"}}
    response = batch(sandbox, "PUT", "account1", body)
    assert response.status_code == 200
    assert "etag" in response.headers
    assert response.headers.keys().isdisjoint({"location", "retry-after"})
    account = response.json()
    assert account["tags"] == {"tag2": "value2"}
    assert account["properties"]["publicNetworkAccess"] == "Disabled"
    assert account["properties"]["autoStorage"]["storageAccountId"] == STORAGE
    assert account == read(sandbox)


# Patch


def test_patch_keeps_unset_properties(sandbox: Sandbox) -> None:
    storage = {"storageAccountId": STORAGE, "authenticationMode": "StorageKeys"}
    profile = {"accountAccess": {"defaultAction": "Deny"}}
    properties = {"autoStorage": storage, "networkProfile": profile, "allowedAuthenticationModes": ["AAD"]}
    before = create(sandbox, tags={"a": "b"}, properties=properties)
    response = batch(sandbox, "PATCH", "account1", {"properties": {"publicNetworkAccess": "Disabled"}})
    assert response.status_code == 200
    assert response.json()["properties"].pop("publicNetworkAccess") == "Disabled"
    before["properties"]["publicNetworkAccess"] = "Disabled"
    assert response.json() == read(sandbox) == before


# Identity


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize("position", ["replaced", "merged"])
def test_user_assigned_identities_are_replaced_or_merged(sandbox: Sandbox, method: str, position: str) -> None:
    sandbox.control.behavior(identities_on_put=position)
    first, second = (user_assigned_identity(sandbox, name)["id"] for name in ("first", "second"))
    create(sandbox, identity={"type": "UserAssigned", "userAssignedIdentities": {first: {}}})

    body = {"location": "westeurope", "identity": {"type": "UserAssigned", "userAssignedIdentities": {second: {}}}}
    written = batch(sandbox, method, "account1", body).json()["identity"]["userAssignedIdentities"]

    assert list(written) == ([second] if position == "replaced" else [first, second])


@pytest.mark.parametrize("position", POSITIONS["refused_creation"])
def test_account_quota(sandbox: Sandbox, position: str) -> None:
    sandbox.control.behavior(account_quota="3", refused_creation=position)
    quotas = f"{sandbox.subscription}/providers/Microsoft.Batch/locations/westeurope/quotas"
    assert sandbox.arm("GET", quotas, VERSION).json() == {"accountQuota": 3}
    for number in range(3):
        create(sandbox, f"account{number}")
    # Each region has a separate quota.
    assert batch(sandbox, "PUT", "elsewhere", {"location": "northeurope"}).status_code == 202

    response = batch(sandbox, "PUT", "last", {"location": "westeurope"})

    if position != "at_once":
        url = urlsplit(response.headers["location"])
        response = sandbox.arm("GET", url.path, VERSION)
    refused(response, 409, "SubscriptionQuotaExceeded")
    left = batch(sandbox, "GET", "last")
    assert left.status_code == (200 if position == "failed_account" else 404)
    batch(sandbox, "DELETE", "account0")
    assert batch(sandbox, "PUT", "last", {"location": "westeurope"}).status_code == 202
    assert read(sandbox, "last")["properties"]["provisioningState"] == "Succeeded"
