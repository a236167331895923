# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Vaults as JSON of the management plane, with the names and the order of members that Azure uses."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from .vault import AccessPolicy, NetworkRules, Vault


def vault(shown: Vault, *, registering: bool, just_created: bool = False) -> dict[str, Any]:
    return {
        "id": shown.id,
        "name": shown.name,
        "type": "Microsoft.KeyVault/vaults",
        "location": shown.sent_location,
        "tags": shown.tags,
        "systemData": {
            "createdBy": shown.created_by,
            "createdByType": "Application",
            "createdAt": shown.created_at,
            "lastModifiedBy": shown.modified_by,
            "lastModifiedByType": "Application",
            "lastModifiedAt": shown.modified_at,
        },
        "properties": _properties(shown, registering or just_created, just_created),
    }


def event_data(shown: Vault) -> dict[str, Any]:
    """The data of an event of a vault."""
    return {
        "Id": _uri(shown, just_created=False),
        "VaultName": shown.name,
        "ObjectType": "Vault",
        "ObjectName": shown.name,
        "Version": None,
        "NBF": None,
        "EXP": None,
    }


def _properties(shown: Vault, registering: bool, just_created: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"sku": {"family": "A", "name": shown.sku}, "tenantId": shown.tenant_id}
    if not shown.network.is_default:
        found["networkAcls"] = _network(shown.network)
    found["accessPolicies"] = policies(shown.access_policies)
    found["enabledForDeployment"] = shown.flags.get("enabledForDeployment", False)
    for name in ("enabledForDiskEncryption", "enabledForTemplateDeployment"):
        if name in shown.flags:
            found[name] = shown.flags[name]
    found["enableSoftDelete"] = True
    found["softDeleteRetentionInDays"] = shown.retention_days
    if shown.rbac_setting is not None:
        found["enableRbacAuthorization"] = shown.rbac_setting
    # Azure never returns false.
    if shown.purge_protection:
        found["enablePurgeProtection"] = True
    found["vaultUri"] = _uri(shown, just_created)
    found["provisioningState"] = "RegisteringDns" if registering else "Succeeded"
    found["publicNetworkAccess"] = shown.public_network_access
    return found


def _uri(shown: Vault, just_created: bool) -> str:
    """The response to the creation has the name in the letter case of the request, and no trailing slash. Later
    responses have the name in lower case and a trailing slash."""
    if just_created:
        return f"https://{shown.name}.{shown.host.partition('.')[2]}"
    return f"https://{shown.host}/"


def _network(rules: NetworkRules) -> dict[str, Any]:
    return {
        "bypass": rules.bypass,
        "defaultAction": rules.default_action,
        "ipRules": [{"value": value} for value in rules.ip_rules],
        "virtualNetworkRules": [*rules.subnets],
    }


def policies(shown: Iterable[AccessPolicy]) -> list[dict[str, Any]]:
    return [_policy(policy) for policy in shown]


def _policy(policy: AccessPolicy) -> dict[str, Any]:
    found: dict[str, Any] = {"tenantId": policy.tenant_id, "objectId": policy.object_id}
    if policy.application_id:
        found["applicationId"] = policy.application_id
    found["permissions"] = {kind: [*names] for kind, names in policy.permissions.items()}
    return found


def deleted_vault(shown: Vault, purge_date: datetime) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "vaultId": shown.id,
        "location": shown.location,
        "tags": shown.tags,
        "deletionDate": _second(datetime.fromtimestamp(shown.deleted_at or 0, UTC)),
        "scheduledPurgeDate": _second(purge_date),
    }
    if shown.purge_protection:
        properties["purgeProtectionEnabled"] = True
    place = f"/subscriptions/{shown.subscription}/providers/Microsoft.KeyVault/locations/{shown.location}"
    return {
        "id": f"{place}/deletedVaults/{shown.name}",
        "name": shown.name,
        "type": "Microsoft.KeyVault/deletedVaults",
        "properties": properties,
    }


def operation(started_at: float, done_at: float, now: float) -> dict[str, Any]:
    if now < done_at:
        return {"createdDateTime": _blank(started_at), "status": "NotStarted"}
    return {
        "createdDateTime": _blank(started_at),
        "lastActionDateTime": _blank(done_at),
        "status": "Succeeded",
    }


def _second(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _blank(moment: float) -> str:
    """Format a time with a blank instead of the T."""
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%SZ}"
