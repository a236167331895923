# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Accounts and pools as JSON, in the order of fields that Batch uses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from .account import MICROSOFT_BATCH, MICROSOFT_KEY_VAULT, Account, Identity, Pool

# The newest API version
NEWEST = "2026-08-01"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# 0001-01-01 to 1970-01-01, in .NET ticks of 100 ns.
_TICKS_AT_EPOCH = 621_355_968_000_000_000

# Quotas of a new subscription. Batch has about a hundred VM families, whose names are as irregular as these.
_FAMILIES = [
    {"name": name, "coreQuota": 0}
    for name in (
        "standardAv2Family",
        "standardDv2Family",
        "standardDv3Family",
        "standardEv3Family",
        "standardDSv2Family",
        "standardDSv3Family",
        "standardESv3Family",
        "standardFSv2Family",
        "standardNCFamily",
        "standardNVFamily",
        "standardDDv4Family",
        "standardDDSv4Family",
        "standardEDv4Family",
        "standardEDSv4Family",
        "Standard NCASv3_T4 Family",
        "Standard NDASv4_A100 Family",
        "standard NDAMSv4_A100Family",
        "StandardNVADSA10v5Family",
    )
]


def ticks(moment: float) -> int:
    return int(moment * 10_000_000) + _TICKS_AT_EPOCH


def etag(moment: float) -> str:
    return f'"0x{ticks(moment):X}"'


def http_date(moment: float) -> str:
    return format_datetime(_EPOCH + timedelta(seconds=int(moment)), usegmt=True)


def iso(moment: float) -> str:
    time = _EPOCH + timedelta(seconds=moment)
    return f"{time:%Y-%m-%dT%H:%M:%S}.{time.microsecond:06d}0Z"


def account_document(account: Account, state: str, api_version: str) -> dict[str, Any]:
    document: dict[str, Any] = {
        "id": account.id,
        "name": account.name,
        "type": "Microsoft.Batch/batchAccounts",
        "location": account.location,
        "properties": _properties(account, state, api_version),
    }
    if account.tags:
        document["tags"] = account.tags
    if api_version >= "2020-05-01":
        document["identity"] = _identity(account.identity)
    return document


def _properties(account: Account, state: str, api_version: str) -> dict[str, Any]:
    batch_service = account.pool_allocation_mode == "BatchService"
    properties: dict[str, Any] = {"accountEndpoint": account.host}
    if api_version >= "2022-10-01":
        node_host = f"{account.node_endpoint}.{account.location}.service.{account.domain}"
        properties["nodeManagementEndpoint"] = node_host
    properties["provisioningState"] = state
    if batch_service:
        properties["dedicatedCoreQuota"] = 0
        properties["dedicatedCoreQuotaPerVMFamily"] = _FAMILIES
    properties["dedicatedCoreQuotaPerVMFamilyEnforced"] = True
    if batch_service:
        properties["lowPriorityCoreQuota"] = 0
    properties["poolQuota"] = 100
    properties["activeJobAndJobScheduleQuota"] = 300
    if account.auto_storage:
        properties["autoStorage"] = account.auto_storage
    properties["poolAllocationMode"] = account.pool_allocation_mode
    if account.key_vault_reference:
        properties["keyVaultReference"] = account.key_vault_reference
    if api_version >= "2020-03-01":
        properties["publicNetworkAccess"] = account.public_network_access
        if account.network_profile:
            properties["networkProfile"] = account.network_profile
        properties["privateEndpointConnections"] = []
    if api_version >= "2020-05-01":
        properties["encryption"] = _encryption(account)
    if api_version >= "2021-06-01":
        properties["allowedAuthenticationModes"] = _authentication_modes(account, api_version)
    return properties


def _encryption(account: Account) -> dict[str, Any]:
    key_identifier = account.protection.key_identifier if account.protection else account.refused_key
    if not key_identifier:
        return {"keySource": MICROSOFT_BATCH}
    properties = {"keyIdentifier": key_identifier}
    return {"keySource": MICROSOFT_KEY_VAULT, "keyVaultProperties": properties}


def _authentication_modes(account: Account, api_version: str) -> list[str]:
    modes = account.authentication_modes
    if modes is None:
        modes = ["SharedKey", "AAD", "TaskAuthenticationToken"]
        if account.pool_allocation_mode == "UserSubscription":
            modes = modes[1:]
    # This version of the API removed the mode.
    return [mode for mode in modes if mode != "TaskAuthenticationToken" or api_version < "2026-08-01"]


def _identity(identity: Identity) -> dict[str, Any]:
    if identity.type == "SystemAssigned":
        return {"principalId": identity.principal_id, "tenantId": identity.tenant_id, "type": "SystemAssigned"}
    if identity.type == "UserAssigned":
        assigned = {
            resource_id: {"principalId": one.principal_id, "clientId": one.client_id}
            for resource_id, one in identity.user_assigned.items()
        }
        return {"type": "UserAssigned", "userAssignedIdentities": assigned}
    return {"type": "None"}


def keys_document(account: Account) -> dict[str, Any]:
    return {"accountName": account.name, "primary": account.keys["Primary"], "secondary": account.keys["Secondary"]}


def pool_etag(pool: Pool) -> str:
    return f"W/{etag(pool.modified)}"


def pool_document(account: Account, pool: Pool) -> dict[str, Any]:
    sent = pool.properties
    fixed = {"fixedScale": {"targetDedicatedNodes": 0, "targetLowPriorityNodes": 0, "resizeTimeout": "PT15M"}}
    properties = {
        "lastModified": iso(pool.modified),
        "creationTime": iso(pool.created),
        "provisioningState": "Succeeded" if pool.gone_at is None else "Deleting",
        "provisioningStateTransitionTime": iso(pool.created),
        "allocationState": "Steady",
        "allocationStateTransitionTime": iso(pool.created),
        "vmSize": str(sent.get("vmSize", "")).upper(),
        "interNodeCommunication": sent.get("interNodeCommunication", "Disabled"),
        "taskSlotsPerNode": sent.get("taskSlotsPerNode", 1),
        "taskSchedulingPolicy": sent.get("taskSchedulingPolicy", {"nodeFillType": "Spread"}),
        "deploymentConfiguration": sent.get("deploymentConfiguration", {}),
        "scaleSettings": sent.get("scaleSettings", fixed),
        "currentDedicatedNodes": 0,
        "currentLowPriorityNodes": 0,
    }
    properties.update({name: value for name, value in sent.items() if name not in properties})
    document: dict[str, Any] = {
        **({} if pool.identity.type == "None" else {"identity": _identity(pool.identity)}),
        "id": f"{account.id}/pools/{pool.name}",
        "name": pool.name,
        "type": "Microsoft.Batch/batchAccounts/pools",
        "etag": pool_etag(pool),
        "properties": properties,
    }
    return document


def outbound_dependencies(account: Account) -> dict[str, Any]:
    """The outbound dependencies of an account: four categories with one host each."""
    storage = "*.blob.core.windows.net"
    hosts = {
        "Azure Batch": f"{account.name.lower()}.{account.location}.{account.domain}",
        "Azure Storage": storage,
        "Microsoft Package Repository": "packages.microsoft.com",
        "Azure Key Vault": "*.vault.azure.net",
    }
    value = [
        {"category": category, "endpoints": [{"domainName": host, "endpointDetails": [{"port": 443}]}]}
        for category, host in hosts.items()
    ]
    return {"value": value}
