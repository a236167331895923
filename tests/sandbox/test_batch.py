# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Batch accounts, with azure-mgmt-batch and, if the exact bytes matter, with plain requests."""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.identity import ClientSecretCredential
from azure.mgmt.batch import BatchManagementClient
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
from sandbox_client import MANAGEMENT, VAULTS, Control, Sandbox

from azure_sandbox.shared.behavior import POSITIONS

STORAGE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/store1"


@pytest.fixture
def client(sandbox: Sandbox) -> BatchManagementClient:
    credential = ClientSecretCredential(sandbox.tenant_id, sandbox.client_id, sandbox.secret)
    return BatchManagementClient(credential, sandbox.subscription_id)


def moment_of(etag: str) -> datetime:
    found = re.fullmatch(r'"0x([0-9A-F]{15})"', etag)
    assert found
    ticks = int(found[1], 16)
    return datetime(1, 1, 1, tzinfo=UTC) + timedelta(microseconds=ticks // 10)


# With the SDK


def test_the_sdk_creates_changes_and_deletes_an_account(client: BatchManagementClient) -> None:
    poller = client.batch_account.begin_create("rg-sandbox", "account1", {"location": "West Europe"})
    account = poller.result()
    assert account.location == "westeurope"
    assert account.provisioning_state == "Succeeded"

    changed = client.batch_account.update("rg-sandbox", "account1", {"tags": {"team": "blue"}})
    assert changed.tags == {"team": "blue"}
    assert client.batch_account.get("rg-sandbox", "account1").tags == {"team": "blue"}
    assert [a.name for a in client.batch_account.list()] == ["account1"]
    assert [a.name for a in client.batch_account.list_by_resource_group("rg-sandbox")] == ["account1"]

    client.batch_account.begin_delete("rg-sandbox", "account1").result()
    with pytest.raises(ResourceNotFoundError, match="ResourceNotFound"):
        client.batch_account.get("rg-sandbox", "account1")
    client.batch_account.begin_delete("rg-sandbox", "account1").result()


def test_sdk_reads_keys_and_pools(sandbox: Sandbox, client: BatchManagementClient) -> None:
    create(sandbox)
    first = client.batch_account.get_keys("rg-sandbox", "account1")
    second = client.batch_account.regenerate_key("rg-sandbox", "account1", {"keyName": "Secondary"})
    assert second.primary == first.primary
    assert second.secondary != first.secondary

    machine = {
        "imageReference": {"publisher": "p", "offer": "o", "sku": "s"},
        "nodeAgentSkuId": "batch.node.debian 12",
        "diskEncryptionConfiguration": {"targets": ["OsDisk"]},
    }
    properties = {
        "vmSize": "STANDARD_D2S_V3",
        "deploymentConfiguration": {"virtualMachineConfiguration": machine},
    }
    # Sent as JSON, because older releases of the SDK omit unknown fields.
    assert batch(sandbox, "PUT", "account1", {"properties": properties}, "/pools/pool-1").ok
    assert client.pool.get("rg-sandbox", "account1", "pool-1").name == "pool-1"
    pool = batch(sandbox, "GET", "account1", below="/pools/pool-1").json()
    assert pool["properties"]["deploymentConfiguration"]["virtualMachineConfiguration"] == machine
    assert [p.name for p in client.pool.list_by_batch_account("rg-sandbox", "account1")] == ["pool-1"]
    client.pool.begin_delete("rg-sandbox", "account1", "pool-1").result()
    assert list(client.pool.list_by_batch_account("rg-sandbox", "account1")) == []
    with pytest.raises(ResourceNotFoundError, match="PoolNotFound"):
        client.pool.get("rg-sandbox", "account1", "pool-1")


def test_sdk_reads_location_resources(sandbox: Sandbox, client: BatchManagementClient) -> None:
    create(sandbox)
    assert client.location.get_quotas("westeurope").account_quota > 0
    body = {"name": "account1", "type": "Microsoft.Batch/batchAccounts"}
    assert not client.location.check_name_availability("westeurope", body).name_available
    assert client.location.check_name_availability("eastus", body).name_available
    found = client.batch_account.list_outbound_network_dependencies_endpoints("rg-sandbox", "account1")
    assert [dependency.category for dependency in found] == [
        "Azure Batch",
        "Azure Storage",
        "Microsoft Package Repository",
        "Azure Key Vault",
    ]


# Create


def test_create_is_accepted_and_polled(sandbox: Sandbox, control: Control) -> None:
    control.timing(batch_create=8)
    accepted = batch(sandbox, "PUT", "account1", {"location": "westeurope", "name": "superfluous"})
    assert accepted.status_code == 202
    assert accepted.content == b""
    assert accepted.headers["content-length"] == "0"
    assert accepted.headers["retry-after"] == "1"
    assert accepted.headers.keys().isdisjoint({"content-type", "etag", "azure-asyncoperation"})
    request_id = accepted.headers["x-ms-request-id"]
    assert request_id != accepted.headers["x-ms-correlation-request-id"]
    operation = f"{MANAGEMENT}{account_path(sandbox, 'account1')}/operationResults/{request_id}?api-version={VERSION}"
    location = accepted.headers["location"]
    assert re.fullmatch(re.escape(operation) + r"&t=\d{18}&c=[\w-]+&s=[\w-]+&h=[\w-]+", location)

    session = sandbox.bearer()
    running = session.get(location)
    assert (running.status_code, running.content) == (202, b"")
    assert running.headers["retry-after"] == "1"
    assert running.headers["location"] != location
    assert running.headers["location"].startswith(operation)

    control.advance(8)
    done = session.get(location)
    assert done.status_code == 200
    assert session.get(running.headers["location"]).json() == done.json()
    assert done.json() == read(sandbox)


def test_the_first_poll_of_a_complete_creation_returns_200(sandbox: Sandbox) -> None:
    accepted = batch(sandbox, "PUT", "account1", {"location": "westeurope"})
    assert sandbox.bearer().get(accepted.headers["location"]).status_code == 200


def test_an_account_has_the_form_of_the_service(sandbox: Sandbox) -> None:
    create(sandbox)
    response = batch(sandbox, "GET", "account1")
    account = response.json()
    families = account["properties"].pop("dedicatedCoreQuotaPerVMFamily")
    assert {"name": "standardAv2Family", "coreQuota": 0} in families
    node_endpoint = account["properties"]["nodeManagementEndpoint"]
    assert re.fullmatch(r"[0-9a-f-]{36}\.westeurope\.service\.batch\.azure\.com", node_endpoint)
    expected = {
        "id": account_path(sandbox, "account1"),
        "name": "account1",
        "type": "Microsoft.Batch/batchAccounts",
        "location": "westeurope",
        "properties": {
            "accountEndpoint": "account1.westeurope.batch.azure.com",
            "nodeManagementEndpoint": node_endpoint,
            "provisioningState": "Succeeded",
            "dedicatedCoreQuota": 0,
            "dedicatedCoreQuotaPerVMFamilyEnforced": True,
            "lowPriorityCoreQuota": 0,
            "poolQuota": 100,
            "activeJobAndJobScheduleQuota": 300,
            "poolAllocationMode": "BatchService",
            "publicNetworkAccess": "Enabled",
            "privateEndpointConnections": [],
            "encryption": {"keySource": "Microsoft.Batch"},
            "allowedAuthenticationModes": ["SharedKey", "AAD", "TaskAuthenticationToken"],
        },
        "identity": {"type": "None"},
    }
    # Compared as text, because the order of the fields is also that of the service.
    assert json.dumps(account) == json.dumps(expected)
    assert b'{"id":"/subscriptions/' in response.content
    assert response.headers["content-type"] == "application/json; charset=utf-8"


def test_optional_fields_are_in_the_order_of_the_service(sandbox: Sandbox) -> None:
    reference = {"id": "/subscriptions/s/vault", "url": "https://v1.vault.azure.net/"}
    properties = {
        "poolAllocationMode": "UserSubscription",
        "keyVaultReference": reference,
        "autoStorage": {"storageAccountId": STORAGE},
    }
    account = create(sandbox, tags={"a": "b"}, properties=properties)
    assert list(account) == ["id", "name", "type", "location", "properties", "tags", "identity"]
    assert list(account["properties"]) == [
        "accountEndpoint",
        "nodeManagementEndpoint",
        "provisioningState",
        "dedicatedCoreQuotaPerVMFamilyEnforced",
        "poolQuota",
        "activeJobAndJobScheduleQuota",
        "autoStorage",
        "poolAllocationMode",
        "keyVaultReference",
        "publicNetworkAccess",
        "privateEndpointConnections",
        "encryption",
        "allowedAuthenticationModes",
    ]
    storage = account["properties"]["autoStorage"]
    assert list(storage) == ["storageAccountId", "lastKeySync", "authenticationMode"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}Z", storage["lastKeySync"])
    assert account["properties"]["allowedAuthenticationModes"] == ["AAD", "TaskAuthenticationToken"]


@pytest.mark.parametrize(
    ("version", "absent"),
    [
        ("2018-12-01", {"nodeManagementEndpoint", "publicNetworkAccess", "encryption", "allowedAuthenticationModes"}),
        ("2022-06-01", {"nodeManagementEndpoint"}),
        ("2024-02-01", set()),
    ],
)
def test_older_versions_do_not_show_newer_fields(sandbox: Sandbox, version: str, absent: set[str]) -> None:
    newest = create(sandbox)["properties"]
    shown = sandbox.arm("GET", account_path(sandbox, "account1"), version).json()["properties"]
    assert newest.keys() - shown.keys() - {"privateEndpointConnections"} == absent


def test_newest_version_has_no_task_tokens(sandbox: Sandbox) -> None:
    create(sandbox)
    account = sandbox.arm("GET", account_path(sandbox, "account1"), "2026-08-01").json()
    assert account["properties"]["allowedAuthenticationModes"] == ["SharedKey", "AAD"]


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


def test_create_in_a_government_region_has_that_clouds_endpoint(sandbox: Sandbox) -> None:
    url = f"https://management.usgovcloudapi.net{account_path(sandbox, 'account1')}?api-version={VERSION}"
    session = sandbox.session()
    credential = ClientSecretCredential(
        sandbox.tenant_id, sandbox.client_id, sandbox.secret, authority="login.microsoftonline.us"
    )
    token = credential.get_token("https://management.usgovcloudapi.net/.default").token
    session.headers["authorization"] = f"Bearer {token}"
    accepted = session.put(url, json={"location": "usgovvirginia"})
    assert accepted.headers["location"].startswith("https://management.usgovcloudapi.net/subscriptions/")
    properties = session.get(url).json()["properties"]
    assert properties["accountEndpoint"] == "account1.usgovvirginia.batch.usgovcloudapi.net"


@pytest.mark.parametrize("name", ["ab", "a" * 25, "with-hyphen"])
def test_create_refuses_a_bad_name(sandbox: Sandbox, name: str) -> None:
    refused(batch(sandbox, "PUT", name, {"location": "westeurope"}), 400, "InvalidAccountName")


def test_create_refuses_a_name_taken_in_the_region(sandbox: Sandbox) -> None:
    create(sandbox)
    sandbox.arm("PUT", f"{sandbox.subscription}/resourceGroups/other", "2021-04-01", {"location": "westeurope"})
    path = f"{sandbox.subscription}/resourceGroups/other/providers/Microsoft.Batch/batchAccounts/Account1"
    response = sandbox.arm("PUT", path, VERSION, {"location": "westeurope"})
    assert refused(response, 409, "AccountAlreadyExists")["Reason"] == "An account named 'Account1' is already in use."
    assert sandbox.arm("PUT", path, VERSION, {"location": "eastus"}).status_code == 202


def test_create_needs_a_location(sandbox: Sandbox) -> None:
    stopped_at_the_gateway(batch(sandbox, "PUT", "account1", {}), 400, "LocationRequired")


def test_create_needs_a_location_that_exists(sandbox: Sandbox) -> None:
    response = batch(sandbox, "PUT", "account1", {"location": "atlantis"})
    message = stopped_at_the_gateway(response, 400, "LocationNotAvailableForResourceType")
    assert create(sandbox, location="eastus2euap")["location"] == "eastus2euap"
    assert message.startswith("The provided location 'atlantis' is not available for resource type")


def test_create_refuses_user_subscription_without_a_vault(sandbox: Sandbox) -> None:
    body = {"location": "westeurope", "properties": {"poolAllocationMode": "UserSubscription"}}
    response = batch(sandbox, "PUT", "account1", body)
    assert refused(response, 400, "InvalidRequestBody") == {
        "Reason": "keyVaultReference must be set if poolAllocationMode is specified as 'UserSubscription'"
        " on a PUT request"
    }
    assert response.json()["error"]["message"].startswith("The specified Request Body is not syntactically valid.\n")
    assert batch(sandbox, "GET", "account1").status_code == 404


@pytest.mark.parametrize("content", [b"{", b"[]"])
def test_create_refuses_malformed_json(sandbox: Sandbox, content: bytes) -> None:
    url = f"{MANAGEMENT}{account_path(sandbox, 'account1')}?api-version={VERSION}"
    stopped_at_the_gateway(sandbox.bearer().put(url, data=content), 400, "InvalidRequestContent")


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


def test_empty_list(sandbox: Sandbox) -> None:
    for path in (sandbox.subscription, sandbox.group):
        response = sandbox.arm("GET", f"{path}/providers/Microsoft.Batch/batchAccounts", VERSION)
        assert response.content == b'{"value":[]}'
        assert "etag" not in response.headers


def test_list_of_a_subscription_that_the_caller_may_not_read(sandbox: Sandbox, control: Control) -> None:
    sandbox.arm("PUT", account_path(sandbox, "account1"), VERSION, {"location": "westeurope"})
    other = f"{sandbox.subscription}/resourceGroups/other"
    sandbox.arm("PUT", other, "2022-09-01", {"location": "westeurope"})
    other_account = f"{other}/providers/Microsoft.Batch/batchAccounts/account2"
    sandbox.arm("PUT", other_account, VERSION, {"location": "westeurope"})
    who = control.principal(roles=[{"role": "Reader", "scope": other}])
    session = sandbox.bearer(client_id=who["client_id"], secret=who["secret"])

    def listed(scope: str) -> Any:
        response = sandbox.arm("GET", f"{scope}/providers/Microsoft.Batch/batchAccounts", VERSION, session=session)
        return [one["name"] for one in response.json()["value"]] if response.ok else response.status_code

    assert (listed(sandbox.subscription), listed(other), listed(sandbox.group)) == (["account2"], ["account2"], 403)
    control.behavior(subscription_list="denied")
    assert (listed(sandbox.subscription), listed(other), listed(sandbox.group)) == (403, ["account2"], 403)


@pytest.mark.parametrize("position", ["filtered", "denied"])
def test_other_lists_of_a_subscription_that_the_caller_may_not_read(
    sandbox: Sandbox, control: Control, position: str
) -> None:
    """Of vaults, deleted vaults and user-assigned identities: the caller is Reader of the group `other`."""
    control.behavior(subscription_list=position)
    other = f"{sandbox.subscription}/resourceGroups/other"
    sandbox.arm("PUT", other, "2022-09-01", {"location": "westeurope"})
    properties = {"tenantId": sandbox.tenant_id, "sku": {"family": "A", "name": "standard"}, "accessPolicies": []}
    vault = {"location": "westeurope", "properties": properties}
    identities = "providers/Microsoft.ManagedIdentity/userAssignedIdentities"
    for number, group in enumerate((sandbox.group, other)):
        for name in (f"vault{number}", f"gone{number}"):
            assert sandbox.arm("PUT", f"{group}/providers/Microsoft.KeyVault/vaults/{name}", VAULTS, vault).ok
        sandbox.arm("DELETE", f"{group}/providers/Microsoft.KeyVault/vaults/gone{number}", VAULTS)
        sandbox.arm("PUT", f"{group}/{identities}/identity{number}", "2023-01-31", {"location": "westeurope"})
    who = control.principal(roles=[{"role": "Reader", "scope": other}])
    session = sandbox.bearer(client_id=who["client_id"], secret=who["secret"])

    for path, version, all_of_them, readable in (
        ("providers/Microsoft.KeyVault/vaults", VAULTS, ["vault0", "vault1"], ["vault1"]),
        ("providers/Microsoft.KeyVault/deletedVaults", VAULTS, ["gone0", "gone1"], ["gone1"]),
        (identities, "2023-01-31", ["identity0", "identity1"], ["identity1"]),
    ):
        url = f"{sandbox.subscription}/{path}"
        assert sorted(one["name"] for one in sandbox.arm("GET", url, version).json()["value"]) == all_of_them
        response = sandbox.arm("GET", url, version, session=session)
        if position == "denied":
            assert (response.status_code, response.json()["error"]["code"]) == (403, "AuthorizationFailed")
        else:
            assert [one["name"] for one in response.json()["value"]] == readable


def test_short_list_has_no_next_link(sandbox: Sandbox) -> None:
    account = create(sandbox)
    response = sandbox.arm("GET", f"{sandbox.group}/providers/Microsoft.Batch/batchAccounts", VERSION)
    assert response.json() == {"value": [account]}


@pytest.mark.parametrize("token", ["*", "abc", "YS9i", "YS9iL2MvZA=="])
def test_malformed_page_tokens(sandbox: Sandbox, token: str) -> None:
    path = f"{sandbox.subscription}/providers/Microsoft.Batch/batchAccounts?$skiptoken={token}"
    response = sandbox.arm("GET", path, VERSION)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "InvalidSkipToken")


def test_long_list_has_pages(sandbox: Sandbox, client: BatchManagementClient) -> None:
    names = [f"account{number:03d}" for number in range(205)]
    session = sandbox.bearer()
    for name in names:
        sandbox.arm("PUT", account_path(sandbox, name), VERSION, {"location": "westeurope"}, session)
    url = f"{MANAGEMENT}{sandbox.subscription}/providers/Microsoft.Batch/batchAccounts?api-version={VERSION}"
    lengths = []
    while url:
        page = session.get(url).json()
        lengths.append(len(page["value"]))
        url = page.get("nextLink")
    assert lengths == [100, 100, 5]
    assert [account.name for account in client.batch_account.list()] == names
    assert [account.name for account in client.batch_account.list_by_resource_group("rg-sandbox")] == names


# Etags


def test_a_writes_etag_is_not_the_stored_one(sandbox: Sandbox) -> None:
    create(sandbox)
    before = batch(sandbox, "GET", "account1").headers
    assert batch(sandbox, "GET", "account1").headers["etag"] == before["etag"]
    written = batch(sandbox, "PATCH", "account1", {"tags": {"a": "b"}}).headers
    after = batch(sandbox, "GET", "account1").headers
    assert moment_of(before["etag"]) < moment_of(after["etag"]) < moment_of(written["etag"])
    for headers in (before, written, after):
        moment = moment_of(headers["etag"]).replace(microsecond=0)
        assert parsedate_to_datetime(headers["last-modified"]) == moment


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


def test_patch_removes_auto_storage_with_null(sandbox: Sandbox) -> None:
    create(sandbox, properties={"autoStorage": {"storageAccountId": STORAGE}})
    response = batch(sandbox, "PATCH", "account1", {"properties": {"autoStorage": None}})
    assert "autoStorage" not in response.json()["properties"]


def test_patch_refuses_an_empty_storage_account(sandbox: Sandbox) -> None:
    create(sandbox)
    response = batch(sandbox, "PATCH", "account1", {"properties": {"autoStorage": {"storageAccountId": ""}}})
    assert stopped_at_the_gateway(response, 400, "LinkedInvalidPropertyId") == (
        "Property id '' at path 'properties.autoStorage.storageAccountId' is invalid. Expect fully qualified resource"
        " Id that start with '/subscriptions/{subscriptionId}' or '/providers/{resourceProviderNamespace}/'."
    )
    response = batch(sandbox, "PATCH", "account1", {"properties": {"autoStorage": {"storageAccountId": None}}})
    refused(response, 400, "MissingRequiredProperty")


@pytest.mark.parametrize("name", ["poolAllocationMode", "keyVaultReference"])
def test_patch_refuses_changes_of_immutable_properties(sandbox: Sandbox, name: str) -> None:
    create(sandbox)
    response = batch(sandbox, "PATCH", "account1", {"properties": {name: "BatchService"}})
    assert name in refused(response, 400, "InvalidRequestBody")["Reason"]


@pytest.mark.parametrize(
    "properties",
    [
        {"publicNetworkAccess": "Perhaps"},
        {"allowedAuthenticationModes": ["Password"]},
        {"networkProfile": []},
        {"autoStorage": {"storageAccountId": STORAGE, "authenticationMode": "None"}},
    ],
    ids=lambda properties: next(iter(properties)),
)
def test_patch_refuses_unknown_values(sandbox: Sandbox, properties: dict[str, Any]) -> None:
    before = create(sandbox)
    response = batch(sandbox, "PATCH", "account1", {"properties": properties})
    refused(response, 400, "InvalidPropertyValue")
    assert read(sandbox) == before


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


def test_deleted_accounts_identity_is_gone(sandbox: Sandbox, control: Control) -> None:
    account = create(sandbox, identity={"type": "SystemAssigned"})
    batch(sandbox, "DELETE", "account1")
    assert batch(sandbox, "GET", "account1").status_code == 404
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


def test_the_type_of_the_identity_can_change(sandbox: Sandbox) -> None:
    create(sandbox, identity={"type": "SystemAssigned"})
    wanted = {"type": "UserAssigned", "userAssignedIdentities": {user_assigned_identity(sandbox)["id"]: {}}}
    identity = batch(sandbox, "PATCH", "account1", {"identity": wanted}).json()["identity"]
    assert identity.keys() == {"type", "userAssignedIdentities"}


def test_user_assigned_needs_an_identity(sandbox: Sandbox) -> None:
    create(sandbox)
    response = batch(sandbox, "PATCH", "account1", {"identity": {"type": "UserAssigned"}})
    message = stopped_at_the_gateway(response, 400, "MissingIdentityIds")
    assert message == "The identity ids must not be null or empty for 'UserAssigned' identity type."


def test_user_assigned_needs_an_existing_identity(sandbox: Sandbox) -> None:
    missing = f"{sandbox.group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/missing"
    identity = {"type": "UserAssigned", "userAssignedIdentities": {missing: {}}}
    response = batch(sandbox, "PUT", "account1", {"location": "westeurope", "identity": identity})
    assert missing in stopped_at_the_gateway(response, 400, "FailedIdentityOperation")
    assert batch(sandbox, "GET", "account1").status_code == 404


def test_user_assigned_needs_a_resource_id(sandbox: Sandbox) -> None:
    identity = {"type": "UserAssigned", "userAssignedIdentities": {"identity1": {}}}
    response = batch(sandbox, "PUT", "account1", {"location": "westeurope", "identity": identity})
    stopped_at_the_gateway(response, 400, "LinkedInvalidPropertyId")


def test_identities_of_both_types_are_refused(sandbox: Sandbox) -> None:
    create(sandbox)
    identity = {"type": "SystemAssigned, UserAssigned", "userAssignedIdentities": {STORAGE: {}}}
    response = batch(sandbox, "PATCH", "account1", {"identity": identity})
    assert refused(response, 400, "InvalidPropertyValue")["PropertyPath"] == "identity.type"
    response = batch(sandbox, "PATCH", "account1", {"identity": {"userAssignedIdentities": {}}})
    assert refused(response, 400, "MissingRequiredProperty")["PropertyPath"] == "identity.type"
    identity["type"] = "SystemAssigned"
    response = batch(sandbox, "PATCH", "account1", {"identity": identity})
    stopped_at_the_gateway(response, 400, "InvalidIdentityIds")


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


def test_delete_is_accepted_and_polled(sandbox: Sandbox) -> None:
    create(sandbox)
    accepted = batch(sandbox, "DELETE", "account1")
    assert (accepted.status_code, accepted.content) == (202, b"")
    assert accepted.headers["retry-after"] == "1"
    request_id = accepted.headers["x-ms-request-id"]
    where = f"{MANAGEMENT}{sandbox.subscription}/providers/Microsoft.Batch/locations/westeurope"
    location = accepted.headers["location"]
    assert location.startswith(f"{where}/accountOperationResults/account1-{request_id}?api-version={VERSION}&t=")
    session = sandbox.bearer()
    for _ in range(2):
        done = session.get(location)
        assert (done.status_code, done.content) == (200, b"")
        assert done.headers.keys().isdisjoint({"etag", "content-type"})


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


def test_name_is_available_after_delete(sandbox: Sandbox) -> None:
    create(sandbox, tags={"a": "b"})
    batch(sandbox, "DELETE", "account1")
    assert "tags" not in create(sandbox)


@pytest.mark.parametrize("kind", ["batchAccounts/account1/operationResults/", "locations/westeurope/accountOperation"])
def test_unknown_operation(sandbox: Sandbox, kind: str) -> None:
    create(sandbox)
    guid = "11111111-1111-1111-1111-111111111111"
    if kind.startswith("locations"):
        path = f"{sandbox.subscription}/providers/Microsoft.Batch/{kind}Results/account1-{guid}"
    else:
        path = f"{sandbox.group}/providers/Microsoft.Batch/{kind}{guid}"
    refused(sandbox.arm("GET", path, VERSION), 404, "OperationNotFound")


# Access keys


def test_keys_are_random(sandbox: Sandbox) -> None:
    create(sandbox)
    response = batch(sandbox, "POST", "account1", below="/listKeys")
    keys = response.json()
    assert list(keys) == ["accountName", "primary", "secondary"]
    assert keys["accountName"] == "account1"
    assert {len(base64.b64decode(keys[which])) for which in ("primary", "secondary")} == {64}
    assert keys["primary"] != keys["secondary"]
    assert "etag" not in response.headers


def test_regenerating_one_key_keeps_the_other(sandbox: Sandbox) -> None:
    create(sandbox)
    before = batch(sandbox, "POST", "account1", below="/listKeys").json()
    etag = batch(sandbox, "GET", "account1").headers["etag"]
    after = batch(sandbox, "POST", "account1", {"keyName": "Primary"}, "/regenerateKeys").json()
    assert after["primary"] != before["primary"]
    assert after["secondary"] == before["secondary"]
    assert batch(sandbox, "POST", "account1", below="/listKeys").json() == after
    assert batch(sandbox, "GET", "account1").headers["etag"] != etag


def test_regenerating_a_key_needs_its_name(sandbox: Sandbox) -> None:
    create(sandbox)
    response = batch(sandbox, "POST", "account1", {}, "/regenerateKeys")
    assert refused(response, 400, "MissingRequiredProperty")["PropertyName"] == "keyName"
    response = batch(sandbox, "POST", "account1", {"keyName": "Third"}, "/regenerateKeys")
    refused(response, 400, "InvalidPropertyValue")


def test_account_without_shared_keys_lists_none(sandbox: Sandbox) -> None:
    create(sandbox, properties={"allowedAuthenticationModes": ["AAD"]})
    refused(batch(sandbox, "POST", "account1", below="/listKeys"), 409, "SharedKeyNotAllowed")


def test_syncing_storage_keys_moves_the_time(sandbox: Sandbox, control: Control) -> None:
    before = create(sandbox, properties={"autoStorage": {"storageAccountId": STORAGE}})["properties"]["autoStorage"]
    control.advance(60)
    response = batch(sandbox, "POST", "account1", below="/syncAutoStorageKeys")
    assert (response.status_code, response.content) == (204, b"")
    assert read(sandbox)["properties"]["autoStorage"]["lastKeySync"] > before["lastKeySync"]


def test_syncing_storage_keys_needs_storage(sandbox: Sandbox) -> None:
    create(sandbox)
    response = batch(sandbox, "POST", "account1", below="/syncAutoStorageKeys")
    refused(response, 409, "AutoStorageNotConfigured")


# Names


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("account2", b'{"nameAvailable":true}'),
        (
            "account1",
            b'{"nameAvailable":false,"reason":"AlreadyExists",'
            b'"message":"An account named \'account1\' is already in use."}',
        ),
        (
            "randombatchaccount@5^$g9873495873",
            b'{"nameAvailable":false,"reason":"Invalid",'
            b'"message":"Account name must be at least 3 characters and at most 24 characters."}',
        ),
    ],
    ids=["free", "taken", "invalid"],
)
def test_name_check(sandbox: Sandbox, name: str, content: bytes) -> None:
    create(sandbox)
    path = f"{sandbox.subscription}/providers/Microsoft.Batch/locations/West%20Europe/checkNameAvailability"
    response = sandbox.arm("POST", path, VERSION, {"name": name, "type": "Microsoft.Batch/batchAccounts"})
    assert (response.status_code, response.content) == (200, content)


# Pools


def test_pools_etag_is_weak_and_in_the_body(sandbox: Sandbox) -> None:
    create(sandbox)
    response = batch(sandbox, "PUT", "account1", {"properties": {"vmSize": "STANDARD_D2S_V3"}}, "/pools/pool-1")
    assert response.status_code == 200
    pool = response.json()
    assert list(pool) == ["id", "name", "type", "etag", "properties"]
    assert re.fullmatch(r'W/"0x[0-9A-F]{15}"', pool["etag"])
    assert response.headers["etag"] == pool["etag"]
    assert parsedate_to_datetime(response.headers["last-modified"]) == datetime.fromisoformat(
        pool["properties"]["lastModified"][:19] + "+00:00"
    )
    assert batch(sandbox, "GET", "account1", below="/pools").json() == {"value": [pool]}


def test_the_deletion_of_a_pool_is_named_after_it(sandbox: Sandbox) -> None:
    create(sandbox)
    assert batch(sandbox, "PUT", "account1", {"properties": {}}, "/pools/pool-1").ok
    accepted = batch(sandbox, "DELETE", "account1", below="/pools/pool-1")
    assert accepted.status_code == 202
    operation = f"{MANAGEMENT}{account_path(sandbox, 'account1')}/poolOperationResults/delete-pool-1"
    assert accepted.headers["location"].partition("?")[0] == operation
    assert sandbox.bearer().get(accepted.headers["location"]).status_code == 200
    refused(batch(sandbox, "GET", "account1", below="/poolOperationResults/delete-pool-2"), 404, "OperationNotFound")


def test_missing_pool(sandbox: Sandbox) -> None:
    create(sandbox)
    refused(batch(sandbox, "GET", "account1", below="/pools/pool-1"), 404, "PoolNotFound")
    assert batch(sandbox, "DELETE", "account1", below="/pools/pool-1").status_code == 204


# Permissions


def test_reader_reads_only(sandbox: Sandbox, control: Control) -> None:
    create(sandbox)
    somebody = control.principal(roles=[{"scope": sandbox.subscription, "role": "Reader"}])
    credential = ClientSecretCredential(sandbox.tenant_id, somebody["client_id"], somebody["secret"])
    client = BatchManagementClient(credential, sandbox.subscription_id)
    assert client.batch_account.get("rg-sandbox", "account1").name == "account1"
    for forbidden in (
        lambda: client.batch_account.update("rg-sandbox", "account1", {"tags": {}}),
        lambda: client.batch_account.begin_delete("rg-sandbox", "account1"),
        lambda: client.batch_account.get_keys("rg-sandbox", "account1"),
    ):
        with pytest.raises(HttpResponseError) as caught:
            forbidden()
        assert caught.value.status_code == 403
