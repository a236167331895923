# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each key of the accounts in a report: its owner, its versions and what uses it. Pure: sends no requests.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .._checks.one_of_many import FleetData
from .._core.duration import instant
from .._core.errors import CmkError
from .._core.ids import KeyIdentifier, read_key_identifier
from .._documents import rotation_policy
from .._documents.key import KeyItem, version_of, why_unusable

# The tag of a key whose value is the key's owner, in any letter case.
OWNER = "owner"
# States of a version, as in NIST SP 800-57 Part 1. Azure does not show whether a version is compromised.
PRE_ACTIVATION, ACTIVE, SUSPENDED, DEACTIVATED = "pre-activation", "active", "suspended", "deactivated"
Record = Mapping[str, Any]


def keys(fleet: FleetData, accounts: Sequence[Record]) -> list[dict[str, Any]]:
    """By vault and name. `accounts` are the accounts of the report."""
    used: dict[str, list[Record]] = {}
    for account in accounts:
        if account["key_identifier"]:
            used.setdefault(read_key_identifier(account["key_identifier"]).versionless.folded, []).append(account)
    found = [_key(read_key_identifier(name), of, fleet) for name, of in used.items()]
    return sorted(found, key=lambda one: (one["vault_name"], one["key_name"]))


def _key(key: KeyIdentifier, accounts: Sequence[Record], fleet: FleetData) -> dict[str, Any]:
    kept, others = fleet["keys"][key.folded], fleet["other_users"][key.vault]
    newest, deleted = _or_none(kept["newest"]), _or_none(kept["deleted"]) or {}
    listed = _or_none(kept["versions"])
    resources = [one for one in others["resources"] or () if _names(one, key)]
    unread = {"key": kept["newest"], "versions": kept["versions"], "rotation_policy": kept["policy"]}
    unknown = {what: error.reported for what, error in unread.items() if isinstance(error, CmkError)}
    if others["unknown"]:
        unknown["resources"] = others["unknown"]
    return {
        "vault_name": key.vault,
        "key_name": accounts[0]["key_name"],
        "owner": _owner(newest or {}),
        "rotation_policy": rotation_policy.describe(_or_none(kept["policy"])),
        "exists": None if isinstance(kept["newest"], CmkError) else newest is not None,
        "deleted_on": instant(deleted.get("deletedDate")),
        "purged_on": instant(deleted.get("scheduledPurgeDate")),
        "versions": None if listed is None else _versions(listed, accounts, resources, key, fleet["now"]),
        "accounts": [one["id"] for one in accounts],
        "resources": None if others["resources"] is None else [one["id"] for one in resources],
        "unknown": unknown,
    }


def _owner(key: Mapping[str, Any]) -> str | None:
    return next((value for name, value in key.get("tags", {}).items() if name.lower() == OWNER and value), None)


def _names(resource: Record, key: KeyIdentifier) -> bool:
    """Whether the resource uses the key, or a key that is not known."""
    return any(one["name"] is None or one["name"].casefold() == key.name.casefold() for one in resource["used_keys"])


def _versions(
    listed: Sequence[KeyItem], accounts: Sequence[Record], resources: Sequence[Record], key: KeyIdentifier, now: float
) -> list[dict[str, Any]]:
    """The newest first. Without a date of Azure, the value is None: Azure does not record the use of a version."""
    newest_first = sorted(listed, key=lambda item: item["attributes"]["created"], reverse=True)
    current = next((version_of(item) for item in newest_first if not why_unusable(item, now)), None)
    found, replaced_at = [], None
    for item in newest_first:
        attributes, version = item["attributes"], version_of(item)
        pinned = [one["id"] for one in accounts if one["version"] == version and not one["follows_latest"]]
        pinned += [
            one["id"]
            for one in resources
            if any(used["version"] == version and _names({"used_keys": [used]}, key) for used in one["used_keys"])
        ]
        found.append(
            {
                "version": version,
                "state": _state(item, now, is_used=version == current or bool(pinned)),
                "enabled": attributes["enabled"],
                "created_on": instant(attributes["created"]),
                "replaced_on": instant(replaced_at),
                "expires_on": instant(attributes.get("exp")),
                "changed_on": instant(attributes.get("updated")),
                "used_by": pinned,
            }
        )
        replaced_at = attributes["created"]
    return found


def _state(item: KeyItem, now: float, *, is_used: bool) -> str:
    attributes = item["attributes"]
    if attributes.get("nbf", 0) > now:
        return PRE_ACTIVATION
    if attributes.get("exp", now + 1) <= now:
        return DEACTIVATED
    if not attributes["enabled"]:
        return SUSPENDED
    return ACTIVE if is_used else DEACTIVATED


def _or_none(value: Any) -> Any:
    return None if isinstance(value, CmkError) else value
