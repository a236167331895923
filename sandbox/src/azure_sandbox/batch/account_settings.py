# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The settings in a request for an account. Their format is checked before any resource is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..shared.resource import read_tags, tidy_location
from . import errors
from .account import MICROSOFT_BATCH, MICROSOFT_KEY_VAULT

IDENTITY_TYPES = ("None", "SystemAssigned", "UserAssigned")
NETWORK_ACCESS = ("Enabled", "Disabled", "SecuredByPerimeter")
ALLOCATION_MODES = ("BatchService", "UserSubscription")
AUTHENTICATION_MODES = ("SharedKey", "AAD", "TaskAuthenticationToken")
STORAGE_AUTHENTICATION_MODES = ("StorageKeys", "BatchAccountManagedIdentity")

_NOT_UPDATABLE = ("poolAllocationMode", "keyVaultReference")


@dataclass
class IdentitySettings:
    type: str
    # By resource id: true to assign, false (null in the request) to remove.
    ids: dict[str, bool] = field(default_factory=dict)


@dataclass
class EncryptionSettings:
    # None: a Microsoft-managed key.
    key_identifier: str | None


@dataclass
class AccountSettings:
    """The settings in the request. None means that the request does not contain the setting."""

    location: str | None = None
    tags: dict[str, str] | None = None
    identity: IdentitySettings | None = None
    encryption: EncryptionSettings | None = None
    # By the names of the fields of Account. Here None is a value.
    fields: dict[str, Any] = field(default_factory=dict)


def of_put(document: dict[str, Any]) -> AccountSettings:
    settings = _common(document)
    properties = _object(document, "properties")
    if isinstance(document.get("location"), str):
        settings.location = tidy_location(document["location"])
    mode = _one_of(properties, "poolAllocationMode", ALLOCATION_MODES)
    reference = properties.get("keyVaultReference")
    if mode == "UserSubscription" and not reference:
        raise errors.invalid_body(
            "keyVaultReference must be set if poolAllocationMode is specified as 'UserSubscription' on a PUT request"
        )
    if mode is not None:
        settings.fields["pool_allocation_mode"] = mode
    if reference:
        settings.fields["key_vault_reference"] = _key_vault_reference(reference)
    return settings


def of_patch(document: dict[str, Any]) -> AccountSettings:
    properties = _object(document, "properties")
    for name in _NOT_UPDATABLE:
        if properties.get(name) is not None:
            raise errors.invalid_body(f"{name} cannot be updated")
    return _common(document)


def _common(document: dict[str, Any]) -> AccountSettings:
    properties = _object(document, "properties")
    settings = AccountSettings(tags=_tags(document), identity=identity(document), encryption=_encryption(properties))
    if "autoStorage" in properties:
        settings.fields["auto_storage"] = _auto_storage(properties["autoStorage"])
    access = _one_of(properties, "publicNetworkAccess", NETWORK_ACCESS)
    if access is not None:
        settings.fields["public_network_access"] = access
    if properties.get("networkProfile") is not None:
        settings.fields["network_profile"] = _object(properties, "networkProfile", "properties.")
    if "allowedAuthenticationModes" in properties:
        settings.fields["authentication_modes"] = _authentication_modes(properties["allowedAuthenticationModes"])
    return settings


def _object(document: dict[str, Any], name: str, above: str = "") -> dict[str, Any]:
    value = document.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise errors.invalid_value(f"{above}{name}", "A JSON object is expected.")
    return value


def _one_of(properties: dict[str, Any], name: str, values: tuple[str, ...]) -> str | None:
    value = properties.get(name)
    if value is None:
        return None
    found = next((known for known in values if isinstance(value, str) and known.lower() == value.lower()), None)
    if found is None:
        raise errors.invalid_value(f"properties.{name}", f"'{value}' is none of {', '.join(values)}.")
    return found


def _tags(document: dict[str, Any]) -> dict[str, str] | None:
    return None if document.get("tags") is None else read_tags(document["tags"])


def identity(document: dict[str, Any]) -> IdentitySettings | None:
    if document.get("identity") is None:
        return None
    identity = _object(document, "identity")
    kind = identity.get("type")
    if not kind:
        raise errors.missing_property("identity.type")
    known = next((name for name in IDENTITY_TYPES if isinstance(kind, str) and name.lower() == kind.lower()), None)
    if known is None:
        # Unlike most services, Batch has no account with identities of both sorts.
        raise errors.invalid_value("identity.type", f"'{kind}' is none of {', '.join(IDENTITY_TYPES)}.")
    ids = _object(identity, "userAssignedIdentities", "identity.")
    if ids and known != "UserAssigned":
        raise errors.identity_ids_unexpected(known)
    for resource_id in ids:
        if not resource_id.lower().startswith("/subscriptions/"):
            raise errors.linked_id_invalid(resource_id, f"identity.userAssignedIdentities.{resource_id}")
    return IdentitySettings(known, {resource_id: value is not None for resource_id, value in ids.items()})


def _encryption(properties: dict[str, Any]) -> EncryptionSettings | None:
    if properties.get("encryption") is None:
        return None
    encryption = _object(properties, "encryption", "properties.")
    vault = _object(encryption, "keyVaultProperties", "properties.encryption.")
    source = encryption.get("keySource")
    if source is None:
        raise errors.missing_property("properties.encryption.keySource")
    if source == MICROSOFT_BATCH:
        if vault:
            raise errors.invalid_body(f"keyVaultProperties must not be set if keySource is '{MICROSOFT_BATCH}'")
        return EncryptionSettings(None)
    if source != MICROSOFT_KEY_VAULT:
        known = f"{MICROSOFT_BATCH}, {MICROSOFT_KEY_VAULT}"
        raise errors.invalid_value("properties.encryption.keySource", f"'{source}' is none of {known}.")
    if not vault:
        raise errors.missing_property("properties.encryption.keyVaultProperties")
    identifier = vault.get("keyIdentifier")
    if not identifier:
        raise errors.missing_property("properties.encryption.keyVaultProperties.keyIdentifier")
    return EncryptionSettings(str(identifier))


def _auto_storage(value: Any) -> dict[str, Any] | None:
    # An empty object removes auto-storage, as null does.
    if not value:
        return None
    storage = _object({"autoStorage": value}, "autoStorage", "properties.")
    path = "properties.autoStorage.storageAccountId"
    account_id = storage.get("storageAccountId")
    if account_id is None:
        raise errors.missing_property(path)
    if not str(account_id).lower().startswith("/subscriptions/"):
        raise errors.linked_id_invalid(str(account_id), path)
    mode = storage.get("authenticationMode") or "StorageKeys"
    if mode not in STORAGE_AUTHENTICATION_MODES:
        known = ", ".join(STORAGE_AUTHENTICATION_MODES)
        raise errors.invalid_value("properties.autoStorage.authenticationMode", f"'{mode}' is none of {known}.")
    wanted: dict[str, Any] = {"storageAccountId": account_id, "authenticationMode": mode}
    if storage.get("nodeIdentityReference"):
        wanted["nodeIdentityReference"] = storage["nodeIdentityReference"]
    return wanted


def _key_vault_reference(value: Any) -> dict[str, Any]:
    reference = _object({"keyVaultReference": value}, "keyVaultReference", "properties.")
    for name in ("id", "url"):
        if not reference.get(name):
            raise errors.missing_property(f"properties.keyVaultReference.{name}")
    return {"id": reference["id"], "url": reference["url"]}


def _authentication_modes(value: Any) -> list[str] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not set(map(str, value)) <= set(AUTHENTICATION_MODES):
        known = ", ".join(AUTHENTICATION_MODES)
        raise errors.invalid_value("properties.allowedAuthenticationModes", f"A list of {known} is expected.")
    return value
