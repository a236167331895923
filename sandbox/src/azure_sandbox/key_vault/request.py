# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Validates the properties of a vault in a request, and converts them to fields of Vault."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from . import errors
from .vault import AccessPolicy, NetworkRules, Vault

_NAME = re.compile(r"[a-z](?!.*--)[a-z0-9-]{1,22}[a-z0-9]", re.IGNORECASE)
_GUID = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_FLAGS = ("enabledForDeployment", "enabledForDiskEncryption", "enabledForTemplateDeployment")
_KEY_PERMISSIONS = frozenset(
    "all encrypt decrypt wrapkey unwrapkey sign verify get list create update import delete backup restore recover"
    " purge release rotate getrotationpolicy setrotationpolicy".split()
)


def is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def mapping(value: Any, name: str) -> dict[str, Any]:
    """An object in a request; empty if the request does not contain it. Raises AzureError."""
    if value is not None and not isinstance(value, dict):
        raise errors.invalid_value(name)
    return dict(value or {})


def fields(properties: dict[str, Any], vault: Vault | None) -> dict[str, Any]:
    """The fields of Vault that `properties` sets. A null sets nothing. Raises AzureError."""
    given = {name: value for name, value in properties.items() if value is not None}
    # Azure refuses false also when a vault is created, and for vaults without purge protection.
    if given.get("enablePurgeProtection") is False:
        raise errors.purge_protection_is_for_good()
    # A new vault has soft delete, even if the request contains false.
    if vault is not None and given.get("enableSoftDelete") is False:
        raise errors.soft_delete_is_for_good()
    found: dict[str, Any] = {}
    if "tenantId" in given:
        found["tenant_id"] = _guid(given["tenantId"], "tenantId")
    if "sku" in given:
        found["sku"] = _sku(given["sku"])
    if "accessPolicies" in given:
        found["access_policies"] = access_policies(given["accessPolicies"])
    if "networkAcls" in given:
        found["network"] = _network_rules(given["networkAcls"])
    if "publicNetworkAccess" in given:
        found["public_network_access"] = _choice(
            given["publicNetworkAccess"], "publicNetworkAccess", ("Enabled", "Disabled", "SecuredByPerimeter")
        )
    if "enableRbacAuthorization" in given:
        found["rbac_setting"] = _flag(given, "enableRbacAuthorization")
    if given.get("enablePurgeProtection"):
        found["purge_protection"] = True
    if "softDeleteRetentionInDays" in given:
        found["retention_days"] = _retention(given["softDeleteRetentionInDays"], vault)
    flags = {name: _flag(given, name) for name in _FLAGS if name in given}
    if flags:
        found["flags"] = flags
    return found


def access_policies(documents: Any) -> list[AccessPolicy]:
    if not isinstance(documents, list) or len(documents) > 1024:
        raise errors.invalid_value("accessPolicies")
    return [_access_policy(document) for document in documents]


def _access_policy(document: dict[str, Any]) -> AccessPolicy:
    document = mapping(document, "accessPolicies")
    application = document.get("applicationId")
    permissions = document.get("permissions")
    if not isinstance(permissions, dict):
        raise errors.invalid_value("permissions")
    wanted = {kind: _names(kind, names) for kind, names in permissions.items() if names is not None}
    if any(name.lower() not in _KEY_PERMISSIONS for name in wanted.get("keys", ())):
        raise errors.invalid_value("permissions.keys")
    return AccessPolicy(
        _guid(document.get("tenantId"), "tenantId"),
        _guid(document.get("objectId"), "objectId"),
        _guid(application, "applicationId") if application else None,
        wanted,
    )


def _names(kind: str, names: Any) -> tuple[str, ...]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise errors.invalid_value(f"permissions.{kind}")
    return tuple(names)


def _guid(value: Any, name: str) -> str:
    if not isinstance(value, str) or not _GUID.fullmatch(value):
        raise errors.invalid_value(name)
    return value


def _flag(given: dict[str, Any], name: str) -> bool:
    if not isinstance(given[name], bool):
        raise errors.invalid_value(name)
    return bool(given[name])


def _choice(value: Any, name: str, choices: tuple[str, ...]) -> str:
    found = next((choice for choice in choices if str(value).lower() == choice.lower()), None)
    if found is None:
        raise errors.invalid_value(name)
    return found


def _sku(document: Any) -> str:
    if not isinstance(document, dict):
        raise errors.invalid_value("sku")
    _choice(document.get("family", "A"), "sku.family", ("A",))
    return _choice(document.get("name"), "sku.name", ("standard", "premium"))


def _retention(days: Any, vault: Vault | None) -> int:
    if not isinstance(days, int) or isinstance(days, bool) or not 7 <= days <= 90:
        raise errors.invalid_value("softDeleteRetentionInDays")
    if vault is not None and vault.retention_days != days:
        raise errors.retention_is_set()
    return days


def _network_rules(document: Any) -> NetworkRules:
    if not isinstance(document, dict):
        raise errors.invalid_value("networkAcls")
    addresses = tuple(_address(rule.get("value")) for rule in _rules(document, "ipRules"))
    subnets = tuple(_subnet(rule) for rule in _rules(document, "virtualNetworkRules"))
    return NetworkRules(
        _choice(document.get("bypass") or "AzureServices", "networkAcls.bypass", ("AzureServices", "None")),
        _choice(document.get("defaultAction") or "Allow", "networkAcls.defaultAction", ("Allow", "Deny")),
        addresses,
        subnets,
    )


def _rules(document: dict[str, Any], name: str) -> list[dict[str, Any]]:
    rules = document.get(name) or []
    if not isinstance(rules, list):
        raise errors.invalid_value(f"networkAcls.{name}")
    return [mapping(rule, f"networkAcls.{name}") for rule in rules]


def _subnet(rule: dict[str, Any]) -> dict[str, Any]:
    """The rule with the id of the subnet in lower case, as Azure stores it."""
    if not isinstance(rule.get("id"), str):
        raise errors.invalid_value("networkAcls.virtualNetworkRules")
    return {**rule, "id": rule["id"].lower()}


def _address(value: Any) -> str:
    """An IP rule as a network. An address without a prefix length becomes a network of one address."""
    try:
        return str(ipaddress.IPv4Network(str(value), strict=False))
    except ValueError as error:
        raise errors.invalid_value("networkAcls.ipRules") from error
