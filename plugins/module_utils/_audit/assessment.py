# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The assessment of one account by the data of the account, its vault and its key. Pure: sends no requests.

fleet.py describes the data. If data could not be read, its value is the error with the reason.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

from .._checks import diagnosis, preflight
from .._checks.one_of_many import FleetData, observed_of
from .._core.duration import instant
from .._core.errors import CmkError, Unavailable
from .._core.ids import KeyIdentifier, place_of
from .._documents import account as account_document
from .._documents import encryption as encryption_document
from .._documents import rotation_policy as key_rotation_policy
from .._documents import vault as vault_document
from .._documents.account import Account, key_of
from .._documents.identity import Identity, describe_identity, is_gone
from .._documents.key import KeyBundle, identifier_of, is_usable, item_of, size_of, version_of, why_unusable
from .._documents.pool import Pool, disk_encryption, disks_encrypted_by
from .._documents.vault import Vault

DAY = 86400


@dataclass(frozen=True)
class Newer:
    """The newest version that Batch can use, if the account is pinned to an older version."""

    version: str
    # Why Batch cannot use the newest version of the key; empty if it can.
    newest_unusable: str
    # If the role rotate does not move the account.
    remedy: str = ""


@dataclass(frozen=True)
class Expiring:
    """Other versions that expire while the account may use them."""

    evidence: str
    # When the first of them expires.
    first: str


@dataclass(frozen=True)
class Assessment:
    # The values that are reported for the account.
    record: Mapping[str, Any]
    # The causes why the account cannot use its key.
    causes: tuple[diagnosis.Cause, ...] = ()
    # The version that is newer than the one to which the account is pinned.
    newer: Newer | None = None
    expiring: Expiring | None = None


def assessed(account: Account, fleet: FleetData) -> Assessment:
    key = key_of(account)
    subscription, group, name = place_of(account["id"])
    pools = _pools(account, fleet)
    placed = {
        "id": account["id"],
        "name": name,
        "subscription_id": subscription,
        "subscription_name": fleet["subscription_names"].get(subscription.lower()),
        "resource_group": group,
        "location": account["location"],
        "tags": account.get("tags") or {},
        "provisioning_state": account["properties"].get("provisioningState"),
        "vault_name": key.vault if key else None,
        "key_name": key.name if key else None,
        **encryption_document.describe_key(key),
        "identity": describe_identity(account.get("identity", {})),
    }
    if key is None:
        availability = _availability(account, pools)
        nothing = {**_of_key(None, None, {}, fleet), **_of_vault(None), "access": None, "newer_version_exists": None}
        return Assessment({**placed, **nothing, **availability, **_unknown(_unread_pools(pools, availability), {})})
    kept = fleet["keys"][key.versionless.folded]
    identities = _identities(account, fleet)
    missing = _missing(account.get("identity", {}), identities)
    of_key = observed_of(account, key, fleet)
    observed = replace(
        of_key,
        evidence=preflight.without_deleted(of_key.evidence, account.get("identity", {}), missing),
        deleted_vault=fleet["deleted_vaults"].get(key.vault),
        deleted_key=_or_none(kept["deleted"]),
        missing_identities=missing,
        account_changed_at=fleet["changed_at"].get(account["id"].lower(), 0),
    )
    lost, reasons = diagnosis.lost_key(observed)
    availability = _availability(account, pools, lost, reasons)
    observed = replace(
        observed,
        available=availability["available"],
        unavailable_reason=pools if isinstance(pools, CmkError) else None,
    )
    evidence, found = observed.evidence, diagnosis.causes(observed)
    causes = diagnosis.known(found)
    unclear = diagnosis.unclear(observed, found)
    if pools is not None and availability["available"] is None and not unclear and reasons:
        unclear = {"availability": " ".join(reasons)}
    version, newest = _or_none(evidence.bundle), _or_none(kept["newest"])
    newer = _newer_usable(key, version, newest, kept, fleet["now"]) if newest else None
    unread = {**_unread(observed, kept, identities), **_unread_pools(pools, availability)}
    record = {
        **placed,
        **_of_key(key, version, kept, fleet),
        "newer_version_exists": newer is not None if newest else None,
        **_of_vault(_or_none(evidence.vault)),
        "access": None if "access" in unclear else _access_by(observed.checks, causes),
        **availability,
        **_unknown(unread, unclear),
    }
    return Assessment(record, causes, newer, _expiring(observed))


def _of_key(key: KeyIdentifier | None, version: KeyBundle | None, kept: FleetData, fleet: FleetData) -> dict[str, Any]:
    """The version that the account uses, the newest version, and the rotation policy of the key."""
    newest = _or_none(kept.get("newest"))
    attributes = version["attributes"] if version else {}
    created, ends = attributes.get("created"), attributes.get("exp")
    newest_version = identifier_of(newest).version if newest else None
    return {
        "version": identifier_of(version).version if version else None,
        "version_enabled": attributes.get("enabled"),
        "version_created_on": instant(created),
        "version_age_days": _days(fleet["now"] - created) if created else None,
        "expires_on": instant(ends),
        "days_left": _days(ends - fleet["now"]) if ends else None,
        "key_type": version["key"]["kty"] if version else None,
        "key_size": size_of(version) if version else None,
        "newest_version": newest_version,
        "rotation_policy": key_rotation_policy.describe(_or_none(kept.get("policy"))),
        "rotated_by_key_vault": key_rotation_policy.rotates(kept["policy"]) if _or_none(kept.get("policy")) else None,
    }


def _expiring(observed: diagnosis.Symptoms) -> Expiring | None:
    def said(version: str, expires: float, until: float) -> str:
        needed = "" if until == inf else f" until {instant(until)}"
        return f"Version {version}, which Batch may still need{needed}, expires at {instant(expires)}."

    found = diagnosis.expiring(observed)
    if not found:
        return None
    evidence = " ".join(said(version, *times) for version, times in found.items())
    return Expiring(evidence, str(instant(min(expires for expires, _until in found.values()))))


def _newer_usable(
    key: KeyIdentifier, used: KeyBundle | None, newest: KeyBundle, kept: FleetData, now: float
) -> Newer | None:
    """The newest version that Batch can use, if the account is pinned to an older version. If the newest version
    cannot be used, one of those before it may be."""
    if not key.version:
        return None
    newest_version = version_of(newest["key"])
    if is_usable(newest, now):
        return Newer(newest_version, "") if newest_version != key.version else None
    since = used["attributes"]["created"] if used else now
    usable = [
        item
        for item in _or_none(kept["versions"]) or ()
        if version_of(item) not in (newest_version, key.version)
        and item["attributes"]["created"] > since
        and not why_unusable(item, now)
    ]
    if not usable:
        return None
    version = version_of(max(usable, key=lambda item: item["attributes"]["created"]))
    if reason := why_unusable(item_of(newest), now):
        return Newer(version, reason)
    remedy = f"Disable version {newest_version}. The role rotate then moves the account to the newest version."
    return Newer(version, f"Version {newest_version} is not supported by Batch.", remedy)


def _days(length: float) -> int:
    return int(length // DAY)


def _of_vault(vault: Vault | None) -> dict[str, Any]:
    described = vault_document.describe(vault)
    returned = ("id", "authorization", "soft_delete", "purge_protection", "trusted_services")
    return {"vault": {name: described[name] for name in returned} if vault else None}


def _access_by(checks: Sequence[preflight.Check], causes: Sequence[diagnosis.Cause]) -> str | None:
    """Whether the account's identity may use the key; None if that could not be read. If the account is available,
    one of several identities is enough."""
    if any(cause.name == "access_missing" for cause in causes):
        return "missing"
    status = next(check.status for check in checks if check.name == "access_granted")
    return None if status == preflight.UNKNOWN else "granted"


def _identities(account: Account, fleet: FleetData) -> dict[str, Any]:
    """For each user-assigned identity of the account, the object ids of all identities in the identity's
    subscription (Identities.listed), or the error if they could not be read."""
    assigned = account.get("identity", {}).get("userAssignedIdentities", {})
    return {one: fleet["identities"].get(one.split("/")[2].lower()) for one in assigned}


def _missing(identity: Identity, listed: Mapping[str, Any]) -> list[str]:
    """The user-assigned identities that were deleted. `listed` is the result of `_identities`."""
    assigned = identity.get("userAssignedIdentities", {})
    fleet = {one: there for one, there in listed.items() if _or_none(there) is not None}
    return [one for one, there in fleet.items() if is_gone(assigned[one], there.get(one.lower()))]


def _pools(account: Account, fleet: FleetData) -> Sequence[Pool] | CmkError | None:
    """The pools of the account; None if pools were not requested; the error if they could not be read."""
    found: Sequence[Pool] | CmkError | None = fleet["pools"].get(account["id"].lower())
    return found


def _availability(
    account: Account, pools: Sequence[Pool] | CmkError | None, lost: Sequence[str] = (), unknown: Sequence[str] = ()
) -> dict[str, Any]:
    """The values `available`, `unavailable_reason` and `pools`. `available` is None if pools were not requested, if
    the caller may not list them, if the account is being created or deleted, or if it is not known."""
    listed = None if isinstance(pools, CmkError) else _disks(pools)
    reason = pools if isinstance(pools, CmkError) else None
    if account["properties"].get("provisioningState") in account_document.UNDER_WAY:
        available = True if listed is not None else None
    elif pools is None:
        available = None
    else:
        reason = account_document.why_unavailable(reason, lost, unknown)
        available = account_document.availability(reason)
    return {
        "available": available,
        "unavailable_reason": reason.reported if reason and available is False else None,
        "pools": listed,
    }


def _unread_pools(pools: Sequence[Pool] | CmkError | None, availability: Mapping[str, Any]) -> dict[str, CmkError]:
    return {"pools": pools} if isinstance(pools, CmkError) and availability["available"] is None else {}


def _disks(pools: Sequence[Pool] | None) -> list[dict[str, Any]] | None:
    return None if pools is None else [_disk(pool) for pool in pools]


def _disk(pool: Pool) -> dict[str, Any]:
    encryption = disk_encryption(pool)
    own = encryption.get("customerManagedKey") or {}
    return {
        "name": pool["name"],
        "encrypted_by": disks_encrypted_by(pool),
        "encrypted_disks": encryption.get("targets") or [],
        "key": own.get("keyUrl"),
        "key_follows_latest": bool(own.get("rotationToLatestKeyVersionEnabled")) if own.get("keyUrl") else None,
    }


def _unknown(unread: Mapping[str, CmkError], unclear: Mapping[str, str]) -> dict[str, Any]:
    """The values `unknown` and `missing_rights`."""
    rights = {error.facts["action"] for error in unread.values() if error.facts.get("action")}
    return {
        "unknown": {**{what: error.reported for what, error in unread.items()}, **unclear},
        "missing_rights": sorted(rights),
    }


def _unread(observed: diagnosis.Symptoms, kept: FleetData, identities: Mapping[str, Any]) -> dict[str, CmkError]:
    """The errors of the data that could not be read. If the vault is missing, its unreachable host is a cause
    instead."""
    evidence = observed.evidence
    is_gone = evidence.vault is None and isinstance(evidence.bundle, Unavailable)
    looked_at = {
        "vault": evidence.vault,
        "deleted_vault": observed.deleted_vault,
        "key": None if is_gone else evidence.bundle,
        "access": evidence.assignments,
        "versions": kept["versions"],
        "rotation_policy": kept["policy"],
        **{
            f"identity {name}": there.get(name.lower()) if isinstance(there, Mapping) else there
            for name, there in identities.items()
        },
    }
    return {what: fleet for what, fleet in looked_at.items() if isinstance(fleet, CmkError)}


def _or_none(fleet: Any) -> Any:
    return None if isinstance(fleet, CmkError) else fleet
