# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keys as JSON of the data plane, with the names and the order of members that Azure uses."""

from __future__ import annotations

from typing import Any

from ..key_vault.vault import Vault
from .key import Key, KeyVersion
from .rotation import RotationPolicy

# The newest API version. Dated versions follow 7.6.
NEWEST = "2025-07-01"
API_VERSIONS = frozenset(
    {"2016-10-01", "7.0", "7.1", "7.2-preview", "7.2", "7.3", "7.4-preview.1", "7.4", "7.5-preview.1", "7.5"}
    | {"7.6-preview.2", "7.6", "2025-06-01-preview", NEWEST}
)
_DAY = 86400


def kid(vault: Vault, key: Key, version: KeyVersion | None = None) -> str:
    base = f"https://{vault.host}/keys/{key.name}"
    return f"{base}/{version.version}" if version else base


def attributes(vault: Vault, version: KeyVersion, api_version: str) -> dict[str, Any]:
    shown: dict[str, Any] = {"enabled": version.enabled}
    if version.size is not None:
        shown["key_size"] = version.size
    if version.not_before is not None:
        shown["nbf"] = version.not_before
    if version.expires is not None:
        shown["exp"] = version.expires
    shown["created"] = version.created
    shown["updated"] = version.updated
    shown["recoveryLevel"] = vault.recovery_level
    shown["recoverableDays"] = vault.retention_days
    if _since(api_version, "7.4"):
        shown["exportable"] = False
    if _since(api_version, "7.5"):
        shown["hsmPlatform"] = "2" if version.is_hardware else "0"
    return shown


def bundle(vault: Vault, key: Key, version: KeyVersion, api_version: str = NEWEST) -> dict[str, Any]:
    public = {"kid": kid(vault, key, version), "kty": version.kty, "key_ops": version.key_ops, **version.public}
    return _tagged({"key": public, "attributes": attributes(vault, version, api_version)}, version)


def key_item(vault: Vault, key: Key, api_version: str) -> dict[str, Any]:
    return _tagged({"kid": kid(vault, key), "attributes": attributes(vault, key.latest, api_version)}, key.latest)


def version_item(vault: Vault, key: Key, version: KeyVersion, api_version: str) -> dict[str, Any]:
    return _tagged({"kid": kid(vault, key, version), "attributes": attributes(vault, version, api_version)}, version)


def deleted_bundle(vault: Vault, key: Key, api_version: str) -> dict[str, Any]:
    return {**_deletion(vault, key), **bundle(vault, key, key.latest, api_version)}


def deleted_item(vault: Vault, key: Key, api_version: str) -> dict[str, Any]:
    return {**_deletion(vault, key), **key_item(vault, key, api_version)}


def policy(vault: Vault, key: Key) -> dict[str, Any]:
    shown = key.policy or RotationPolicy()
    dates = {"expiryTime": shown.expiry_time, "created": shown.created, "updated": shown.updated}
    return {
        "id": f"{kid(vault, key)}/rotationpolicy",
        "lifetimeActions": [
            {"trigger": {action.trigger: action.duration}, "action": {"type": action.kind}} for action in shown.actions
        ],
        "attributes": {name: value for name, value in dates.items() if value is not None},
    }


def event_data(vault: Vault, key: Key, version: KeyVersion) -> dict[str, Any]:
    """The data of an event of a key version."""
    return {
        "Id": kid(vault, key, version),
        "VaultName": vault.name,
        "ObjectType": "Key",
        "ObjectName": key.name,
        "Version": version.version,
        "NBF": version.not_before,
        "EXP": version.expires,
    }


def _deletion(vault: Vault, key: Key) -> dict[str, Any]:
    deleted_at = int(key.deleted_at or 0)
    return {
        "recoveryId": f"https://{vault.host}/deletedkeys/{key.name}",
        "deletedDate": deleted_at,
        "scheduledPurgeDate": deleted_at + vault.retention_days * _DAY,
    }


def _tagged(document: dict[str, Any], version: KeyVersion) -> dict[str, Any]:
    """Add the tags to a document. If the key has no tags, the document has no member `tags`."""
    return {**document, "tags": version.tags} if version.tags else document


def _since(api_version: str, first: str) -> bool:
    """Whether an API version is `first` or later. 2016-10-01 precedes 7.0; all other dated versions follow 7.6."""
    if api_version == "2016-10-01":
        return False
    return api_version.startswith("20") or api_version >= first
