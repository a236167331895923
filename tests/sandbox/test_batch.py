# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Batch accounts, with azure-mgmt-batch and, if the exact bytes matter, with plain requests."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
from batch_calls import (
    VERSION,
    account_path,
    batch,
    create,
    read,
    refused,
    stopped_at_the_gateway,
    user_assigned_identity,
)
from sandbox_client import VAULTS, Control, Sandbox

from azure_sandbox.shared.behavior import POSITIONS

STORAGE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/store1"


# Create


def test_account_is_creating_until_it_is_created(sandbox: Sandbox, control: Control) -> None:
    control.timing(batch_create=8)
    accepted = batch(sandbox, "PUT", "account1", {"location": "westeurope"})
    assert read(sandbox)["properties"]["provisioningState"] == "Creating"
    details = refused(batch(sandbox, "PATCH", "account1", {"tags": {}}), 409, "AccountOperationInProgress")
    assert "Creating" in details["Reason"]
    session = sandbox.bearer()
    assert [session.get(accepted.headers["location"]).status_code for _ in range(3)] == [202, 202, 202]
    control.advance(8)
    assert session.get(accepted.headers["location"]).status_code == 200
    assert batch(sandbox, "PATCH", "account1", {"tags": {}}).status_code == 200


def test_create_refuses_a_name_taken_in_the_region(sandbox: Sandbox) -> None:
    create(sandbox)
    sandbox.arm("PUT", f"{sandbox.subscription}/resourceGroups/other", "2021-04-01", {"location": "westeurope"})
    path = f"{sandbox.subscription}/resourceGroups/other/providers/Microsoft.Batch/batchAccounts/Account1"
    response = sandbox.arm("PUT", path, VERSION, {"location": "westeurope"})
    assert refused(response, 409, "AccountAlreadyExists")["Reason"] == "An account named 'Account1' is already in use."
    assert sandbox.arm("PUT", path, VERSION, {"location": "eastus"}).status_code == 202


def test_create_needs_a_location_that_exists(sandbox: Sandbox) -> None:
    response = batch(sandbox, "PUT", "account1", {"location": "atlantis"})
    message = stopped_at_the_gateway(response, 400, "LocationNotAvailableForResourceType")
    assert create(sandbox, location="eastus2euap")["location"] == "eastus2euap"
    assert message.startswith("The provided location 'atlantis' is not available for resource type")


# Get, list


def test_a_missing_account_has_the_error_of_resource_manager(sandbox: Sandbox) -> None:
    message = (
        "The Resource 'Microsoft.Batch/batchAccounts/account1' under resource group 'rg-sandbox' was not found. For"
        " more details please go to https://aka.ms/ARMResourceNotFoundFix"
    )
    for method, below in (("GET", ""), ("PATCH", ""), ("POST", "/listKeys"), ("GET", "/pools")):
        response = batch(sandbox, method, "account1", {} if method == "PATCH" else None, below)
        assert stopped_at_the_gateway(response, 404, "ResourceNotFound") == message


def test_names_are_found_in_any_letter_case(sandbox: Sandbox) -> None:
    create(sandbox, "Account1")
    path = account_path(sandbox, "ACCOUNT1").replace("resourceGroups/rg-sandbox", "RESOURCEGROUPS/RG-SANDBOX")
    account = sandbox.arm("GET", path, VERSION).json()
    assert account["id"] == account_path(sandbox, "Account1")
    assert account["properties"]["accountEndpoint"] == "account1.westeurope.batch.azure.com"


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


def test_put_again_cannot_move_the_account(sandbox: Sandbox) -> None:
    create(sandbox)
    response = batch(sandbox, "PUT", "account1", {"location": "eastus"})
    stopped_at_the_gateway(response, 409, "InvalidResourceLocation")


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


@pytest.mark.parametrize(
    ("sent", "shown"), [({"c": "d"}, {"c": "d"}), ({}, None), (None, {"a": "b"})], ids=["others", "none", "null"]
)
def test_patch_replaces_the_tags_as_a_whole(sandbox: Sandbox, sent: Any, shown: Any) -> None:
    create(sandbox, tags={"a": "b"})
    assert batch(sandbox, "PATCH", "account1", {"tags": sent}).json().get("tags") == shown


# Identity


def test_system_assigned_identity_is_a_principal(sandbox: Sandbox, control: Control) -> None:
    account = create(sandbox, identity={"type": "SystemAssigned"})
    assert list(account["identity"]) == ["principalId", "tenantId", "type"]
    assert account["identity"]["tenantId"] == sandbox.tenant_id
    assert principal_of(control, account) == account["identity"]["principalId"]

    kept = batch(sandbox, "PATCH", "account1", {"identity": {"type": "SystemAssigned"}}).json()
    assert kept["identity"] == account["identity"]
    gone = batch(sandbox, "PATCH", "account1", {"identity": {"type": "None"}}).json()
    assert gone["identity"] == {"type": "None"}
    assert principal_of(control, account) is None


def principal_of(control: Control, account: dict[str, Any]) -> str | None:
    found = control.call("GET", "/principals")["principals"]
    return next((one["object_id"] for one in found if one["resource_id"] == account["id"]), None)


def test_user_assigned_identities_keep_the_callers_letter_case(sandbox: Sandbox) -> None:
    identity = user_assigned_identity(sandbox)
    written = identity["id"].replace("resourcegroups", "resourceGroups").replace("identity1", "Identity1")
    account = create(sandbox, identity={"type": "UserAssigned", "userAssignedIdentities": {written: {}}})
    facts = {name: identity["properties"][name] for name in ("principalId", "clientId")}
    assert account["identity"] == {"type": "UserAssigned", "userAssignedIdentities": {written: facts}}


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


def test_user_assigned_identities_are_removed_with_null(sandbox: Sandbox) -> None:
    sandbox.control.behavior(identities_on_put="merged")
    first, second = (user_assigned_identity(sandbox, name)["id"] for name in ("first", "second"))
    create(sandbox, identity={"type": "UserAssigned", "userAssignedIdentities": {first: {}}})

    def patched(ids: dict[str, Any]) -> list[str]:
        body = {"identity": {"type": "UserAssigned", "userAssignedIdentities": ids}}
        return list(batch(sandbox, "PATCH", "account1", body).json()["identity"]["userAssignedIdentities"])

    assert patched({second: {}}) == [first, second]
    assert patched({first.upper().replace("/SUBSCRIPTIONS", "/subscriptions"): None}) == [second]


def test_user_assigned_needs_an_existing_identity(sandbox: Sandbox) -> None:
    missing = f"{sandbox.group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/missing"
    identity = {"type": "UserAssigned", "userAssignedIdentities": {missing: {}}}
    response = batch(sandbox, "PUT", "account1", {"location": "westeurope", "identity": identity})
    assert missing in stopped_at_the_gateway(response, 400, "FailedIdentityOperation")
    assert batch(sandbox, "GET", "account1").status_code == 404


def test_identities_of_both_types_are_refused(sandbox: Sandbox) -> None:
    create(sandbox)
    response = batch(sandbox, "PATCH", "account1", {"identity": {"type": "SystemAssigned, UserAssigned"}})
    assert refused(response, 400, "InvalidPropertyValue")["PropertyPath"] == "identity.type"


def test_assigning_an_identity_needs_the_right_to(sandbox: Sandbox, control: Control) -> None:
    identity = user_assigned_identity(sandbox)
    roles = [{"scope": account_path(sandbox, "account1"), "role": "Contributor"}]
    somebody = control.principal(roles=roles)
    session = sandbox.bearer(client_id=somebody["client_id"], secret=somebody["secret"])
    create(sandbox)
    body = {"identity": {"type": "UserAssigned", "userAssignedIdentities": {identity["id"]: {}}}}
    response = sandbox.arm("PATCH", account_path(sandbox, "account1"), VERSION, body, session)
    message = stopped_at_the_gateway(response, 403, "LinkedAuthorizationFailed")
    assert "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action" in message
    assert identity["id"] in message


# Delete


def test_delete_takes_time(sandbox: Sandbox, control: Control) -> None:
    create(sandbox)
    control.timing(batch_delete=12)
    location = batch(sandbox, "DELETE", "account1").headers["location"]
    assert read(sandbox)["properties"]["provisioningState"] == "Deleting"
    refused(batch(sandbox, "PATCH", "account1", {"tags": {}}), 409, "AccountOperationInProgress")
    session = sandbox.bearer()
    assert session.get(location).status_code == 202
    control.advance(12)
    assert session.get(location).status_code == 200
    assert batch(sandbox, "GET", "account1").status_code == 404


def test_deleting_a_missing_account(sandbox: Sandbox) -> None:
    response = batch(sandbox, "DELETE", "account1")
    assert (response.status_code, response.content) == (204, b"")
