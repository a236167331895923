# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The data of a key in Key Vault's documents.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NotRequired, TypedDict

from .._core.duration import instant
from .._core.ids import KeyIdentifier, read_key_identifier
from .._core.summary import and_text, changed_values, used_by_text, version_text
from . import rotation_policy
from .rotation_policy import RotationPolicy
from .vault import HSM

# The keys that Batch supports (learn.microsoft.com, "Configure customer-managed keys for your Azure Batch account").
TYPES = ("RSA", HSM)
SIZES = (2048, 3072, 4096)
OPERATIONS = ("wrapKey", "unwrapKey")
# In seconds. No account is moved to a version that expires within this time, because there would be no time to react.
EXPIRES_SOON = 3600
# The tag of a forced version has the purpose that the version was created for. Several runs that force a version for
# the same purpose share it, such as the slices of a workflow job.
TAG = "azbatch-cmk-new-version-for"
# The tag of a version that a drill has disabled has the time at which the drill began.
DRILL_TAG = "azbatch-cmk-drill-began"
# Documented limits of Key Vault: the number of tags of a version, and the number of characters of a tag's value.
MOST_TAGS, LONGEST = 15, 256
# The number of a workflow job may be used again, for example after its controller was installed again. Therefore a
# version counts only for this time.
_COUNTS_FOR_SECONDS = 7 * 24 * 3600


class KeyAttributes(TypedDict, total=False):
    """The attributes of a version of a key. The first two fields always exist. Times are seconds since 1970."""

    enabled: bool
    created: int
    updated: int
    nbf: int
    exp: int
    recoveryLevel: str


class JsonWebKey(TypedDict):
    kid: str
    kty: str
    key_ops: NotRequired[list[str]]
    # The modulus, in base64 without padding.
    n: NotRequired[str]


class KeyBundle(TypedDict):
    """A version of a key. A deleted key has the same fields, and the times of its deletion and of its purge in seconds
    since 1970."""

    key: JsonWebKey
    attributes: KeyAttributes
    tags: NotRequired[dict[str, str]]
    deletedDate: NotRequired[int]
    scheduledPurgeDate: NotRequired[int]


class KeyItem(TypedDict):
    """A version in a list of versions."""

    kid: str
    attributes: KeyAttributes
    tags: NotRequired[dict[str, str]]


def describe(
    key: KeyBundle | None,
    versions: Sequence[KeyItem] | None,
    policy: RotationPolicy | None,
    now: float,
    *,
    is_deleted: bool = False,
) -> dict[str, Any]:
    """The module's return value. `now` is by Key Vault's clock."""
    if key is None:
        return {"exists": False, "soft_deleted": is_deleted}
    identifier, attributes = identifier_of(key), key["attributes"]
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
        "staged_versions": [
            {"version": version_of(one), "valid_from": instant(one["attributes"]["nbf"])}
            for one in sorted(versions or (), key=lambda one: one["attributes"]["created"])
            if is_staged(one, now) and one["attributes"]["created"] >= attributes["created"]
        ],
        "rotation_policy": rotation_policy.describe(policy),
    }


def summary(vault: str, name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """One line for a person. `before` and `after` are return values of the module."""
    found = _summary(f"key {name} in vault {vault}", before, after)
    staged = [f"{version_text(one['version'])} from {one['valid_from']}" for one in after.get("staged_versions") or ()]
    return f"{found} Can be used later: {and_text(staged)}." if staged else found


def _summary(key: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
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
        what = "newest usable version" if after["staged_versions"] else "newest version"
        return f"The {what} of {key} is {'enabled' if after['enabled'] else 'disabled'}: {newest}."
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


def kept_summary(vault: str, name: str, report: Mapping[str, Any]) -> str:
    """One line for a person about versions that stay enabled, or a key that was not deleted, because it may be in use;
    empty if there are none. `report` is from removal.py."""
    users = report.get("in_use_by")
    if not users and not report.get("kept_until"):
        return ""
    versions = [version_text(version) for version in report["kept_versions"] if version]
    key = f"key {name} in vault {vault}"
    what = f"{and_text(versions)} of {key}" if versions else key
    verb = ("stay" if len(versions) > 1 else "stays") + " enabled" if versions else "was not deleted"
    until = f" until {report['kept_until']}" if report["kept_until"] else ""
    reason = used_by_text(users) if users else f"because Batch may need {'them' if len(versions) > 1 else 'it'}"
    return f"{what[0].upper()}{what[1:]} {verb}{until}, {reason}."


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


def ended_at(item: KeyItem, now: float) -> float:
    """When the version became unusable: disabled, expired, or not valid yet. Later than now if it is usable."""
    attributes = item["attributes"]
    # An expired version may have been disabled later.
    expired = attributes.get("exp", now + 1)
    is_changed = not attributes["enabled"] or (attributes.get("nbf") or 0) > now
    return float(min(attributes.get("updated") or 0, expired) if is_changed else expired)


def updated_at(item: KeyItem) -> float:
    """When the version was last updated after its creation; 0 if it was not."""
    updated = item["attributes"].get("updated") or 0
    return float(updated if updated > item["attributes"]["created"] else 0)


def usable_since(item: KeyItem) -> float:
    """Since when a usable version can be used. Its last update may have made it usable."""
    attributes = item["attributes"]
    return float(max(attributes["created"], attributes.get("updated") or 0, attributes.get("nbf") or 0))


def why_unusable(item: KeyItem, now: float) -> str:
    """Why Batch cannot use the version, as a list of versions shows it; empty if Batch can."""
    version, attributes = version_of(item), item["attributes"]
    if not attributes["enabled"]:
        return f"Version {version} is disabled."
    if attributes.get("exp") is not None and attributes["exp"] <= now:
        return f"Version {version} has expired."
    if attributes.get("nbf") is not None and attributes["nbf"] > now:
        return f"Version {version} is not valid yet."
    return ""


def is_fit(key: KeyBundle) -> bool:
    """Whether Batch supports the type, the size and the operations of this version."""
    document = key["key"]
    return document["kty"] in TYPES and size_of(key) in SIZES and set(OPERATIONS) <= set(document.get("key_ops") or ())


def is_usable(key: KeyBundle, now: float) -> bool:
    """Whether Batch can use this version of a key: its state, validity, type, size and operations."""
    return not why_unusable(item_of(key), now) and is_fit(key)


def is_staged(item: KeyItem, now: float) -> bool:
    """Whether the version is enabled, and will be valid later."""
    return item["attributes"]["enabled"] and (item["attributes"].get("nbf") or 0) > now


def newest_usable(
    newest: KeyBundle,
    versions: Sequence[KeyItem] | None,
    now: float,
    read: Callable[[str], KeyBundle | None],
    *,
    counts_disabled: bool,
) -> KeyBundle:
    """The newest version that is enabled and valid now: no account can be moved to another one. `newest` if there is
    none, if the versions could not be listed, or if it is disabled and `counts_disabled` (it may be enabled)."""
    if not why_unusable(item_of(newest), now) or (counts_disabled and not newest["attributes"]["enabled"]):
        return newest
    usable = [one for one in versions or () if not why_unusable(one, now)]
    if not usable:
        return newest
    return read(version_of(max(usable, key=lambda one: one["attributes"]["created"]))) or newest


def newest_known(
    newest: KeyBundle,
    versions: Sequence[KeyItem] | None,
    used: str,
    read: Callable[[str], KeyBundle | None],
) -> KeyBundle:
    """The newest version in the response of Key Vault, or the version that an account uses if that was created
    later: a replica of the vault may not have it yet. `read` returns the document of a version."""
    created = newest["attributes"]["created"]
    if any(version_of(one) == used and one["attributes"]["created"] <= created for one in versions or ()):
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


def version_for(purpose: str | None, newest: KeyBundle, versions: Sequence[KeyItem] | None, now: float) -> str | None:
    """The newest enabled version that was forced for the purpose within the last week; None if there is none. None
    also if the newest version of the key is disabled, because no account can be moved to that version.

    `newest` is the newest version, and `versions` are all versions of the key, if they could be listed.
    """
    if purpose is None or not newest["attributes"]["enabled"]:
        return None
    forced = [
        one
        for one in (*(versions or ()), item_of(newest))
        if one.get("tags", {}).get(TAG) == purpose
        and one["attributes"]["enabled"]
        and now - one["attributes"]["created"] < _COUNTS_FOR_SECONDS
    ]
    return version_of(max(forced, key=lambda one: one["attributes"]["created"])) if forced else None


def tags_of_new_version(previous: Mapping[str, str], purpose: str | None) -> dict[str, str]:
    """The tags of the previous version, and the tag with the purpose of the new version, if the number of tags
    allows it.

    The tags that this collection has set on the previous version are not copied.
    """
    tags = {name: value for name, value in previous.items() if name not in (TAG, DRILL_TAG)}
    return {**tags, TAG: purpose} if purpose and len(tags) < MOST_TAGS else tags
