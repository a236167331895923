# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The data of a key vault in Azure's document, and errors.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any, NotRequired, TypedDict

from .._core.errors import CmkError, NotFound, Refused

RBAC = "rbac"
ACCESS_POLICY = "access_policy"
PREMIUM = "premium"
# The type of keys that only premium vaults can have.
HSM = "RSA-HSM"
# The values of publicNetworkAccess in lower case, and those of the module.
_PUBLIC = {"enabled": "enabled", "disabled": "disabled", "securedbyperimeter": "secured_by_perimeter"}


class PolicyPermissions(TypedDict, total=False):
    keys: list[str] | None
    secrets: list[str] | None
    certificates: list[str] | None
    storage: list[str] | None


class AccessPolicy(TypedDict, total=False):
    """The entry of a principal in a vault's access policies. It always has the first two fields."""

    tenantId: str
    objectId: str
    # Of an application that acts on behalf of the principal.
    applicationId: str | None
    permissions: PolicyPermissions


class NetworkAcls(TypedDict, total=False):
    bypass: str
    defaultAction: str


class Sku(TypedDict):
    family: str
    name: str


class VaultProperties(TypedDict):
    tenantId: str
    sku: Sku
    vaultUri: str
    accessPolicies: NotRequired[list[AccessPolicy]]
    enableRbacAuthorization: NotRequired[bool | None]
    enableSoftDelete: NotRequired[bool]
    enablePurgeProtection: NotRequired[bool]
    softDeleteRetentionInDays: NotRequired[int]
    networkAcls: NotRequired[NetworkAcls]
    publicNetworkAccess: NotRequired[str]


class SystemData(TypedDict, total=False):
    createdAt: str
    lastModifiedAt: str


class Vault(TypedDict):
    """A key vault."""

    id: str
    name: str
    location: str
    properties: VaultProperties
    tags: NotRequired[dict[str, str]]
    systemData: NotRequired[SystemData]


class DeletedVaultProperties(TypedDict):
    vaultId: str
    location: str
    scheduledPurgeDate: NotRequired[str]
    purgeProtectionEnabled: NotRequired[bool]
    tags: NotRequired[dict[str, str]]


class DeletedVault(TypedDict):
    """A deleted vault that can be recovered."""

    name: str
    properties: DeletedVaultProperties


def describe(vault: Vault | None) -> dict[str, Any]:
    """The module's return value."""
    if vault is None:
        return {"exists": False}
    properties = vault["properties"]
    return {
        "exists": True,
        "id": vault["id"],
        "name": vault["name"],
        "location": vault["location"],
        "vault_uri": url(vault),
        "tenant_id": properties["tenantId"],
        "sku": properties["sku"]["name"].lower(),
        "authorization": authorization_of(vault),
        "soft_delete": properties.get("enableSoftDelete", True),
        "purge_protection": properties.get("enablePurgeProtection", False),
        "retention_days": properties.get("softDeleteRetentionInDays", 90),
        "public_network_access": _PUBLIC.get(_public_access(vault)),
        "trusted_services": lets_azure_services_in(vault),
        "tags": vault.get("tags", {}),
    }


def is_unchanged_since_creation(vault: Vault | None) -> bool:
    """Whether the document shows that no request has changed the vault since it was created. In recorded traffic, each
    change sets the second time."""
    times = (vault.get("systemData") if vault else None) or SystemData()
    created = times.get("createdAt")
    return bool(created) and created == times.get("lastModifiedAt")


def uses_rbac(vault: Vault) -> bool:
    """Whether the vault uses Azure RBAC, not access policies."""
    return bool(vault["properties"].get("enableRbacAuthorization"))


def authorization_of(vault: Vault) -> str:
    return RBAC if uses_rbac(vault) else ACCESS_POLICY


def lets_azure_services_in(vault: Vault) -> bool:
    """Whether the firewall allows Batch, because it allows trusted Microsoft services or all addresses."""
    trusted = "azureservices" in _network_rules(vault).get("bypass", "AzureServices").lower()
    return trusted or allows_all_networks(vault)


def allows_all_networks(vault: Vault) -> bool:
    """Whether the firewall allows all addresses."""
    is_open = _network_rules(vault).get("defaultAction", "Allow").lower() == "allow"
    return is_open and _public_access(vault) == "enabled"


def may_let_azure_services_in(vault: Vault) -> bool:
    """Whether the firewall allows addresses that may be those of Batch."""
    rules = _network_rules(vault).get("ipRules") or ()
    return _public_access(vault) == "enabled" and any(not _is_loopback(rule["value"]) for rule in rules)


def _is_loopback(address: str) -> bool:
    return ip_network(address, strict=False).is_loopback


def is_in_perimeter(vault: Vault) -> bool:
    """Whether a network security perimeter controls access, instead of trusted services and the vault's own rules."""
    return _public_access(vault) == "securedbyperimeter"


def _network_rules(vault: Vault) -> Mapping[str, Any]:
    rules: Mapping[str, Any] = vault["properties"].get("networkAcls", {})
    return rules


def _public_access(vault: Vault) -> str:
    # Azure may return the letter case of the request that has set it.
    return (vault["properties"].get("publicNetworkAccess") or "Enabled").lower()


def url(vault: Vault) -> str:
    """The URL without a slash at its end. Azure returns it without the slash at the creation, and with the slash
    later."""
    return str(vault["properties"]["vaultUri"]).rstrip("/").lower()


def required(vault: Vault | None, name: str, group: str | None, identifier: str | None = None) -> Vault:
    """The vault's document. Raises NotFound if there is no vault. `group` and `identifier` are the options
    `vault_resource_group` and `key_identifier`."""
    if vault is None:
        option = "key_identifier" if identifier else "vault_name"
        options = (
            f"O({option}), O(vault_resource_group) or O(vault_subscription_id)"
            if group
            else f"O({option}) or O(subscription_id)"
        )
        raise NotFound(
            f"There is no key vault {name}. Create it, or correct {options}.",
            code="vault_not_found",
            option=option,
            value=identifier or name,
            remedy=f"Create it, or correct {options}.",
        )
    return vault


def require_sku_for(key_type: str | None, vault: Vault | CmkError | None) -> None:
    """Raise Refused if the vault, as far as the caller can read it, cannot have keys of the type."""
    if key_type != HSM or not isinstance(vault, Mapping) or vault["properties"]["sku"]["name"].lower() == PREMIUM:
        return
    remedy = "Use O(key_type=RSA), or a vault of the SKU premium."
    raise Refused(
        f"The key vault {vault['name']} is not of the SKU premium, so it cannot have a key of the type {key_type}. "
        f"{remedy}",
        code="vault_not_premium",
        option="key_type",
        value=key_type,
        remedy=remedy,
    )


def name_taken(name: str) -> Refused:
    return Refused(
        f"The name {name} is taken in Azure, by a key vault of another resource group or a deleted one. Use another "
        "name, or correct O(resource_group) or O(subscription_id).",
        code="vault_name_taken",
        option="name",
        value=name,
        remedy="Use another name, or correct O(resource_group) or O(subscription_id).",
    )
