# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The data of a key in Key Vault's documents.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..._core.documents import JsonWebKey, KeyBundle, KeyItem
from ..._core.duration import instant
from ..._core.ids import KeyIdentifier, read_key_identifier
from ..._core.summary import and_text, changed_values, version_text
from . import rotation_policy

# The documentation says that Batch uses a new version of a versionless identifier automatically, but not how soon.
# Azure's services check for a new version at least once a day. It also does not say for how long Batch needs the
# previous version. For other services, Azure recommends to keep it for a day.
TAKEN_WITHIN_SECONDS = 24 * 3600
PREVIOUS_NEEDED_SECONDS = 24 * 3600
# It also does not say how soon Batch notices that it cannot use a version any more. Azure App Configuration notices
# within an hour.
LOSS_NOTICED_SECONDS = 3600
# For this time after a new version, an account that follows the key may need the previous version.
FOLLOWING_LAG = TAKEN_WITHIN_SECONDS + PREVIOUS_NEEDED_SECONDS

# The keys that Batch supports (learn.microsoft.com, "Configure customer-managed keys for your Azure Batch account").
TYPES = ("RSA", "RSA-HSM")
SIZES = (2048, 3072, 4096)
OPERATIONS = ("wrapKey", "unwrapKey")
# In seconds. No account is moved to a version that expires within this time, because there would be no time to react.
EXPIRES_SOON = 3600
# A version that expires within this time is replaced. The previous version must stay valid for the lag after that, and
# a nightly run may be delayed by a day, or fail once.
REPLACED_BEFORE_EXPIRY = FOLLOWING_LAG + 2 * 24 * 3600


def describe(observed: Mapping[str, Any]) -> dict[str, Any]:
    """The module's return value."""
    key: KeyBundle | None = observed["key"]
    if key is None:
        return {"exists": False, "soft_deleted": observed["deleted"] is not None}
    identifier = identifier_of(key)
    attributes, versions = key["attributes"], observed["versions"]
    return {
        "exists": True,
        "soft_deleted": False,
        "key_identifier": str(identifier),
        "versionless_identifier": str(identifier.versionless),
        "version": identifier.version,
        "key_type": key["key"]["kty"],
        "key_size": size_of(key),
        "key_ops": key["key"].get("key_ops", []),
        "enabled": attributes["enabled"],
        "created_on": instant(attributes["created"]),
        "expires_on": instant(attributes.get("exp")),
        "previous_version": (previous := previous_version(versions, identifier.version)),
        "previous_key_identifier": str(replace(identifier, version=previous)) if previous else None,
        "enabled_versions": sorted(version_of(v) for v in versions or () if v["attributes"]["enabled"]),
        "rotation_policy": rotation_policy.describe(observed["policy"]),
    }


def summary(vault: str, name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """One line for a person. `before` and `after` are return values of the module."""
    key = f"key {name} in vault {vault}"
    if not after["exists"]:
        return f"Deleted {key}. It can be recovered." if before["exists"] else f"There is no {key}."
    if not before["exists"]:
        version = f", {version_text(after['version'])}" if "version" in after else ""
        return f"{'Recovered' if before['soft_deleted'] else 'Created'} {key}{version}."
    newest = version_text(after["version"])
    if before["version"] != after["version"]:
        made = newest if after["version"] else "a version"
        return f"Created {made} of {key} (before: {version_text(before['version'])})."
    if before == after:
        return f"The newest version of {key} is {'enabled' if after['enabled'] else 'disabled'}: {newest}."
    disabled, enabled = (
        [version for version in one["enabled_versions"] if version not in other["enabled_versions"]]
        for one, other in ((before, after), (after, before))
    )
    others = {name: value for name, value in after.items() if name not in ("enabled", "enabled_versions")}
    sentences = [
        f"{what} {and_text(map(version_text, versions))} of {key}."
        for what, versions in (("Disabled", disabled), ("Enabled", enabled))
        if versions
    ]
    changed = changed_values(before, others)
    if changed or not sentences:
        sentences.append(f"Changed {key}, {newest}: {changed}.")
    return " ".join(sentences)


def size_of(key: KeyBundle) -> int | None:
    """The size of the key in bits, from its modulus: older responses do not have the field `key_size`."""
    modulus = key["key"].get("n")
    return len(modulus) * 6 // 8 * 8 if modulus else None


def identifier_of(key: KeyBundle) -> KeyIdentifier:
    return read_key_identifier(key["key"]["kid"])


def version_of(item: KeyItem | JsonWebKey) -> str:
    return str(item["kid"]).rsplit("/", 1)[-1].lower()


def item_of(key: KeyBundle) -> KeyItem:
    """The version as a list of versions shows it."""
    item: KeyItem = {"kid": key["key"]["kid"], "attributes": key["attributes"]}
    return {**item, "tags": key["tags"]} if "tags" in key else item


def followers_on(newest: KeyBundle, versions: Sequence[KeyItem] | None, now: float, since: float = 0) -> list[str]:
    """The versions that an account may use if it follows the key, the newest first. If the newest version has been
    usable for longer than the lag, only that version. `versions` are all versions of the key, if they could be listed.
    `since` is the time since which the account can use the key, if that was read.

    Batch does not move an account to a version that it cannot use: disabled, expired, not valid yet or of another
    type. The last update of the newest version may have made the version usable, so the lag begins with the update.
    """
    attributes = newest["attributes"]
    usable_since = max(attributes["created"], attributes.get("updated") or 0, attributes.get("nbf") or 0, since)
    if is_usable(newest, now) and now - usable_since >= FOLLOWING_LAG:
        return [version_of(newest["key"])]
    return newest_first(versions or ()) or [version_of(newest["key"])]


def previous_in_doubt(
    used: KeyBundle,
    versions: Sequence[KeyItem],
    now: float,
    *,
    follows: bool,
    access_since: float = 0,
    account_changed_at: float | None = None,
) -> list[str]:
    """The previous versions that became unusable when the account may still have needed them. The account is pinned
    to the version `used` or, with `follows`, follows the key with that newest version. If an account loses its
    version before Batch has moved it to the newest version, Batch cannot move it any more. Batch cannot move it either
    before `access_since`, when the account was granted its access to the key. An account that was changed since then
    has not lost its key."""
    created = used["attributes"]["created"]
    needed_until = created + (FOLLOWING_LAG if follows else PREVIOUS_NEEDED_SECONDS)
    used_version = version_of(used["key"])
    older = [one for one in versions if one["attributes"]["created"] <= created and version_of(one) != used_version]
    found, next_created = [], created
    for item in sorted(older, key=lambda one: one["attributes"]["created"], reverse=True):
        ended = _ended_at(item, now)
        # Whether an account that follows the key may have used this version when it became unusable. No account takes a
        # version that was created as a disabled version.
        was_usable = ended > item["attributes"]["created"]
        movable_since = max(next_created, access_since)
        may_be_stuck = follows and was_usable and ended < movable_since + TAKEN_WITHIN_SECONDS
        # If Batch had not noticed the loss yet, the account could still be moved to the newer version.
        is_in_time = now < needed_until and created < ended + LOSS_NOTICED_SECONDS
        is_needed = (account_changed_at or 0) <= ended + LOSS_NOTICED_SECONDS
        if ended <= now and is_needed and (is_in_time or may_be_stuck):
            found.append(version_of(item))
        next_created = item["attributes"]["created"]
    return found


def is_retired(item: KeyItem, newest: KeyBundle, now: float) -> bool:
    """Whether no account that follows the key needs this previous version, if Batch could use the newest version since
    its creation: the version became unusable more than a day after that, and the lag is over."""
    created = newest["attributes"]["created"]
    return created + TAKEN_WITHIN_SECONDS <= _ended_at(item, now) <= now and created + FOLLOWING_LAG <= now


def just_left(
    used: KeyBundle,
    versions: Sequence[KeyItem],
    now: float,
    *,
    follows: bool,
    account_changed_at: float | None = None,
) -> list[str]:
    """The other versions that became unusable so soon after the account was changed that it may still have needed them.
    The account may have been moved from any version, older or newer, when it was changed. An account that was changed
    more than an hour after that has not lost its key. If `account_changed_at` is None, any version may have been left.
    """
    lag, found = FOLLOWING_LAG if follows else PREVIOUS_NEEDED_SECONDS, []
    for item in versions:
        ended = _ended_at(item, now)
        was_usable = item["attributes"]["created"] < ended <= now
        if account_changed_at is None:
            is_needed = now < ended + LOSS_NOTICED_SECONDS + lag
        else:
            is_needed = account_changed_at <= ended + LOSS_NOTICED_SECONDS and now < account_changed_at + lag
        if was_usable and is_needed and version_of(item) != version_of(used["key"]):
            found.append(version_of(item))
    return found


def _ended_at(item: KeyItem, now: float) -> float:
    """When the version became unusable: disabled, expired, or not valid yet. Later than now if it is usable."""
    attributes = item["attributes"]
    # An expired version may have been disabled later.
    expired = attributes.get("exp", now + 1)
    is_changed = not attributes["enabled"] or (attributes.get("nbf") or 0) > now
    return float(min(attributes.get("updated") or 0, expired) if is_changed else expired)


def newest_first(versions: Sequence[KeyItem]) -> list[str]:
    """The ids of the versions, sorted by their creation: Key Vault sorts them by their ids, which are random."""
    ordered = sorted(versions, key=lambda item: item["attributes"]["created"], reverse=True)
    return [version_of(item) for item in ordered]


def is_usable(key: KeyBundle, now: float) -> bool:
    """Whether Batch can use this version of a key: its state, validity, type, size and operations."""
    attributes, document = key["attributes"], key["key"]
    begins, ends = attributes.get("nbf"), attributes.get("exp")
    return (
        bool(attributes["enabled"])
        and (begins is None or begins <= now)
        and (ends is None or now < ends)
        and document["kty"] in TYPES
        and size_of(key) in SIZES
        and set(OPERATIONS) <= set(document.get("key_ops") or ())
    )


def newest_known(
    newest: KeyBundle,
    versions: Sequence[KeyItem] | None,
    used: str,
    read: Callable[[str], KeyBundle | None],
) -> KeyBundle:
    """The newest version in the response of Key Vault, or the version that an account uses if that was created
    later: a replica of the vault may not have it yet. `read` returns the document of a version."""
    created = newest["attributes"]["created"]
    if versions is not None and not any(
        version_of(v) == used and v["attributes"]["created"] > created for v in versions
    ):
        return newest
    named = read(used)
    return named if named is not None and named["attributes"]["created"] > created else newest


def previous_version(versions: Sequence[KeyItem] | None, current: str | None) -> str | None:
    """The version before `current` by time of creation: Key Vault sorts versions by their ids, which are random."""
    newest = max((v["attributes"]["created"] for v in versions or () if version_of(v) == current), default=None)
    older = [
        v
        for v in versions or ()
        if version_of(v) != current and (newest is None or v["attributes"]["created"] <= newest)
    ]
    return version_of(max(older, key=lambda v: v["attributes"]["created"])) if older else None
