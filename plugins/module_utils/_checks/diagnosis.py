# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The causes why a Batch account cannot use its key, with their repairs. Pure: sends no requests.

This module util is private to the collection.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .._core.documents import DeletedVault, KeyBundle, KeyItem
from .._core.duration import instant
from .._core.errors import CmkError, Denied
from .._core.ids import KeyIdentifier, place_of
from .._resources.account import document as account_document
from .._resources.key.document import (
    PREVIOUS_NEEDED_SECONDS,
    followers_on,
    is_retired,
    is_usable,
    item_of,
    just_left,
    newest_first,
    previous_in_doubt,
    version_of,
)
from .._resources.vault.document import is_in_perimeter, lets_addresses_in
from . import preflight, rights
from .preflight import FAILED, Check, Evidence, access_since, failed_checks, has_access
from .rights import Needed

_LOST = "The account cannot be recovered and can only be deleted (azbatch.cmk.batch_account_identity, state: absent)."
_RESTORE = f"Restore a backup of the key if there is one. Without a backup, {_LOST[0].lower()}{_LOST[1:]}"
# Batch uses wrapKey only when the key of an account is set.
_NEEDED_IN_USE = ("get", "unwrapKey")
_ASK = "Read whether the account is available (pools: true, in the role cmk_audit_pools: true)"
_ASK_BY_CHANGE = (
    "Batch refuses each change of an account that has lost its key. If it accepts one, for example of a tag, the "
    "account does not need the version."
)

# By cause, the pattern of Batch's message about a key that the caller cannot read. When Batch reports that the key
# is accessible again, its message may still contain an earlier refusal.
_SAID_BY_BATCH = {
    # "Public network access is disabled" is a message about the vault, not about a version.
    "version_unusable": re.compile(r"(?<!access )is disabled|has expired|is not valid yet"),
    "operations_missing": re.compile(r"is not permitted on this key"),
    "key_deleted": re.compile(r"\bkey '[^']+' was not found"),
}
_VERSION_NOT_FOUND = re.compile(r"\bkey '[^']+/([0-9a-f]{32})' was not found")
_ACCESSIBLE_AGAIN = "accessible again"
# The maximum time until an account is available after Batch can use its key again (Microsoft's guide).
_RECOVERY_SECONDS = 600
# The maximum time until Batch can use a key after a role assignment (Microsoft's documentation of Azure RBAC).
_ROLE_SECONDS = 600


@dataclass(frozen=True)
class Cause:
    name: str
    evidence: str
    remedy: str
    # The repair: vault, network, key or access. None if this collection cannot repair the cause.
    repair: str | None = None
    # False if it is a cause only if Batch uses a certain identity or address of several.
    is_certain: bool = True


def describe(observed: Mapping[str, Any]) -> dict[str, Any]:
    """The diagnosis in a module's return value."""
    evidence: Evidence = observed["evidence"]
    checks = preflight.judged(evidence)
    found = causes(evidence, checks, observed)
    return {
        "causes": [{"name": c.name, "evidence": c.evidence, "remedy": c.remedy, "repair": c.repair} for c in found],
        "recoverable": all(cause.repair for cause in found),
        "vault": _place(evidence, observed),
        "key_identifiers": _needed(evidence, observed),
        "preflight": preflight.describe(checks),
    }


def unread(observed: Mapping[str, Any]) -> list[CmkError]:
    """The errors of the reads of the vault, the deleted vault, the key, its versions and the access, and a network
    security perimeter that may be the reason. If there are such errors, there may be more causes than were found."""
    evidence: Evidence = observed["evidence"]
    key = evidence.bundle if isinstance(evidence.bundle, CmkError) else observed["versions"]
    read = (evidence.vault, observed["deleted_vault"], key, evidence.assignments)
    errors = [one for one in read if isinstance(one, CmkError)]
    if evidence.vault is None and not isinstance(evidence.bundle, CmkError):
        remedy = f"Grant the caller a role that allows {rights.VAULTS}/read on the vault, such as Key Vault Reader."
        text = f"The key vault {evidence.key.vault} is in no subscription that the caller can read. {remedy}"
        errors.insert(0, Denied(text, action=f"{rights.VAULTS}/read", remedy=remedy))
    if _is_in_perimeter(evidence) and isinstance(evidence.bundle, CmkError):
        text = f"{preflight.IN_PERIMETER} {preflight.OPEN_PERIMETER}"
        errors.append(Denied(text, code="network_denied", remedy=preflight.OPEN_PERIMETER))
    return errors


def rights_to_repair(observed: Mapping[str, Any], *, with_access: bool = True) -> list[Needed]:
    """The rights for the repairs that are known so far. Empty if the account cannot be recovered. `with_access` is
    whether access is granted too."""
    described = describe(observed)
    if not described["recoverable"]:
        return []
    evidence, place = observed["evidence"], described["vault"] or {}
    names = [cause["name"] for cause in described["causes"]]
    return [
        right
        for name in names
        for right in _rights_for(name, evidence, place, observed["deleted_key"], with_access=with_access)
    ]


def _rights_for(
    cause: str,
    evidence: Evidence,
    place: Mapping[str, str],
    deleted_key: KeyBundle | None,
    *,
    with_access: bool,
) -> Iterator[Needed]:
    vault = evidence.key.vault
    if cause == "vault_deleted":
        yield rights.to_create_vault(place["resource_group"], place["subscription_id"])
        if with_access:
            # Azure does not show the permission model of a deleted vault. With Azure RBAC, access has to be granted
            # again.
            yield rights.to_assign_role(rights.in_group(place["resource_group"], None, place["subscription_id"]))
    if cause == "network_closed":
        yield rights.to_change_vault(place["resource_group"], place["name"], place["subscription_id"])
    if cause == "key_deleted" and deleted_key is not None:
        yield rights.to_use_key("recover", vault)
        yield rights.to_use_key("update", vault)
    if cause in ("version_unusable", "operations_missing"):
        yield rights.to_use_key("update", vault)
    if cause == "access_missing" and with_access:
        yield from rights.to_grant_access(vault)


def causes(evidence: Evidence, checks: Sequence[Check], observed: Mapping[str, Any]) -> tuple[Cause, ...]:
    """The causes in the order of their repair. `observed` has the data beside the evidence, and `available`, which
    is None if it is not known whether the account is available."""
    found = tuple(_causes(evidence, checks, observed))
    if found or observed["available"] is not False or _is_explained(observed):
        return found
    if _is_in_perimeter(evidence):
        return (Cause("network_closed", preflight.IN_PERIMETER, preflight.OPEN_PERIMETER),)
    return found


def _causes(evidence: Evidence, checks: Sequence[Check], observed: Mapping[str, Any]) -> Iterator[Cause]:
    failed = {check.name: check for check in checks if check.status == FAILED}
    yield from _of_identity(evidence, observed["missing_identities"])
    yield from _of_vault(evidence, failed, observed)
    yield from _of_key(evidence, failed, observed)
    if "access_granted" in failed and (observed["available"] is False or not has_access(evidence)):
        check = failed["access_granted"]
        yield Cause("access_missing", check.evidence, check.remedy, "access", is_certain=not has_access(evidence))


def known(found: Sequence[Cause]) -> tuple[Cause, ...]:
    """The causes without those that are not certain, if other causes explain why the account is not available."""
    return tuple(cause for cause in found if cause.is_certain) or tuple(found)


def unclear(
    evidence: Evidence, checks: Sequence[Check], observed: Mapping[str, Any], found: Sequence[Cause]
) -> dict[str, str]:
    """Problems that are causes only if Batch uses a certain identity, address or version of several, with the
    reasons why that is not known. Empty if the account is available, or if nothing else explains why it is not.
    `found` are its `causes`."""
    available = observed["available"]
    is_explained = any(cause.is_certain for cause in found)
    if available or (available is False and not is_explained):
        return {}
    ask = _ASK if available is None else "Repair the other causes first"
    failed = {check.name: check.evidence for check in checks if check.status == FAILED}
    problems = {}
    if "access_granted" in failed and has_access(evidence):
        problems["access"] = (
            f"{failed['access_granted']} Another identity of the account may use the key, and Azure does not show "
            f"which of them Batch uses. {ask}, or grant access."
        )
    if "network_open_to_batch" in failed and _may_be_let_in(evidence):
        problems["network"] = (
            f"{failed['network_open_to_batch']} Its IP rules let other addresses in, and Azure does not show which "
            f"address Batch uses. {ask}, or allow trusted Microsoft services on the vault."
        )
    if available is None:
        problems |= _unclear_without_response(evidence, observed)
    return problems


def _unclear_without_response(evidence: Evidence, observed: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    doubtful = [*_previous_versions(evidence, observed), *_retired_versions(evidence, _listed(observed))]
    if doubtful and not _unusable(evidence, observed):
        found["version"] = doubtful[0]
    if _is_in_perimeter(evidence):
        found["network"] = f"{preflight.IN_PERIMETER} If Batch cannot use the key: {preflight.OPEN_PERIMETER}"
    return found


def lost_key(observed: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Judge without the response of Batch whether Batch can use the key of an account. Returns the evidence that
    Batch cannot use the key, and the reasons why that is not known. Both are empty if Batch can use the key. Lists
    of `observed` that were not read are None."""
    evidence: Evidence = observed["evidence"]
    checks = {check.name: check for check in preflight.judged(evidence)}
    deleted = isinstance(observed["deleted_vault"], Mapping)
    lost = [cause.evidence for cause in _of_identity(evidence, observed["missing_identities"])]
    lost += [checks[name].evidence for name in ("same_tenant", "key_exists") if checks[name].status == FAILED]
    lost += [f"The vault {evidence.key.vault} was deleted."] if deleted else []
    unknown: list[str] = []
    if isinstance(evidence.bundle, Mapping):
        unusable = _why_unusable(evidence.bundle, evidence.now)
        if unusable and (evidence.key.version or _none_usable(evidence, _listed(observed))):
            lost.append(unusable)
        elif unusable:
            unknown.append(f"{unusable} The account may be on an older version.")
        else:
            unknown += _previous_versions(evidence, observed)
    elif isinstance(evidence.bundle, CmkError):
        unknown.append(evidence.bundle.msg)
    granted = preflight.granted_to_each(evidence)
    access, network = checks["access_granted"], checks["network_open_to_batch"]
    if access.status == FAILED and not any(has.issuperset(_NEEDED_IN_USE) for has in granted.values()):
        lost.append(access.evidence)
    if network.status == FAILED and not _may_be_let_in(evidence):
        lost.append(network.evidence)
    elif network.status == FAILED:
        unknown.append(f"{network.evidence} Its IP rules let other addresses in.")
    unknown += [check.evidence for check in (access, network) if check.status == preflight.UNKNOWN]
    repairs = unnoticed_repairs(observed) if "account_changed_at" in observed else {}
    later = [noticed for repaired, noticed in repairs.items() if (observed["account_changed_at"] or 0) < repaired]
    if later:
        unknown.append(
            "The key, or the access to it, was changed a few minutes ago. An account that had lost its key before is "
            f"available again at {instant(max(later))} at the latest."
        )
    return lost, list(dict.fromkeys(unknown))


def unnoticed_repairs(observed: Mapping[str, Any]) -> dict[float, float]:
    """The changes that may have made the key usable for Batch again, and that Batch may not have noticed yet: changes
    of the version, and the role assignment without which there would be no access. By the time of each change, the time
    at which Batch has noticed it at the latest.

    In a report, a change of the vault counts too, such as an access policy or the firewall. It does not prevent the
    change of an account, because with access policies each new account of the vault changes the vault, and because
    Batch itself refuses to change an account that is not available."""
    evidence: Evidence = observed["evidence"]
    repairs: dict[float, float] = {}
    if isinstance(evidence.bundle, Mapping):
        items = [item_of(evidence.bundle)]
        if evidence.key.version is None:
            # An account that follows the key may have needed an older version that was enabled again.
            items += [item for item in _listed(observed) or () if not _reason(item, evidence.now)]
        times = [(item["attributes"].get("updated") or 0, item["attributes"]["created"]) for item in items]
        repairs |= {updated: updated + _RECOVERY_SECONDS for updated, created in times if updated > created}
    granted = access_since(evidence)
    repairs[granted] = granted + _ROLE_SECONDS + _RECOVERY_SECONDS
    changed = preflight.dated_change(evidence)
    if changed and observed.get("is_report"):
        repairs[changed] = changed + _RECOVERY_SECONDS
    return {repaired: noticed for repaired, noticed in repairs.items() if noticed > evidence.now}


def may_recover(observed: Mapping[str, Any]) -> bool:
    """Whether the account may become available without a repair, because somebody may have repaired the key or changed
    its vault a few minutes ago."""
    return _is_vault_changed(observed["evidence"]) or bool(unnoticed_repairs(observed))


def _is_vault_changed(evidence: Evidence) -> bool:
    """Whether the vault was changed in the last minutes, or may have been."""
    return preflight.vault_changed_at(evidence) > evidence.now - _RECOVERY_SECONDS


def depends_on_account_change(observed: Mapping[str, Any]) -> bool:
    """Whether the time when the account was changed says more about its availability: after a recent change of the key,
    and if the account may have needed a version that was disabled or has expired."""
    evidence: Evidence = observed["evidence"]
    doubtful = _lost_without_access(evidence, observed) or _just_left(evidence, observed)
    return bool(unnoticed_repairs(observed) or doubtful or isinstance(observed["versions"], CmkError))


def lost_version_too_early(observed: Mapping[str, Any]) -> bool:
    """Whether the account may have needed a version when it was disabled or expired, regardless of the access."""
    return bool(_lost_too_early(observed["evidence"], observed))


def _previous_versions(evidence: Evidence, observed: Mapping[str, Any]) -> list[str]:
    """Why the account may have lost a previous version. Empty if it does not need one."""
    if isinstance(observed["versions"], CmkError):
        return _unlisted_versions(evidence, observed, observed["versions"])
    if doubtful := _lost_too_early(evidence, observed):
        key = replace(evidence.key, version=doubtful[0])
        return [
            f"Version {key.version} of the key {key.name} was disabled or expired soon after a newer version was "
            f"created. {_may_need(key)}"
        ]
    if "account_changed_at" not in observed:
        # The audit reads when accounts were changed only if availability is asked for.
        return []
    if doubtful := _just_left(evidence, observed):
        return [lost_after_change(replace(evidence.key, version=doubtful[0]))]
    if doubtful := _lost_without_access(evidence, observed):
        key = replace(evidence.key, version=doubtful[0])
        return [
            f"Version {key.version} of the key {key.name} was disabled or expired before the account was granted its "
            f"access to the key at {instant(access_since(evidence))}, or soon after. If the account had no access "
            f"when a newer version was created, it needs that version. {_may_need(key)} {_ASK_BY_CHANGE}"
        ]
    return []


def _unlisted_versions(evidence: Evidence, observed: Mapping[str, Any], error: CmkError) -> list[str]:
    """An account that follows the key may need any previous version. An account that is pinned to a version may need a
    previous version for a day after its last change."""
    if evidence.key.version is not None:
        if "account_changed_at" not in observed:
            return []
        changed = observed["account_changed_at"]
        if changed is not None and changed + PREVIOUS_NEEDED_SECONDS <= evidence.now:
            return []
    return [f"It is not known whether the account needs a previous version of the key {evidence.key.name}. {error.msg}"]


def _listed(observed: Mapping[str, Any]) -> Sequence[KeyItem] | None:
    """The versions of the key. None if they were not read, or could not be read."""
    versions: Sequence[KeyItem] | CmkError | None = observed["versions"]
    return None if isinstance(versions, CmkError) else versions


def _retired_versions(evidence: Evidence, versions: Sequence[KeyItem] | None) -> list[str]:
    """Of an account that follows the key: whether it may need a version that was retired long ago, because the newest
    version may have become usable only now."""
    if evidence.key.version is not None or not isinstance(evidence.bundle, Mapping):
        return []
    newest = evidence.bundle
    used = followers_on(newest, versions, evidence.now)[1:2] if is_usable(newest, evidence.now) else []
    return [
        f"{_reason(item, evidence.now)} The newest version of the key {evidence.key.name} was changed less than two "
        "days ago. If Batch could not use the newest version before, the account may need the previous version. "
        f"{_ASK}."
        for item in versions or ()
        if version_of(item) in used and is_retired(item, newest, evidence.now)
    ]


def previous_unusable(key: KeyIdentifier, version: KeyBundle | None, now: float) -> str | None:
    """Why Batch cannot use the version `key`, which an account has just left for another version of the key; None if
    Batch can."""
    reason = _why_unusable(version, now) if version else f"Version {key.version} of the key {key.name} was deleted."
    return f"{reason} {_may_need(key)}" if reason else None


def lost_after_change(version: KeyIdentifier) -> str:
    """The doubt about a version that became unusable when the account may just have been moved from it."""
    return (
        f"Version {version.version} of the key {version.name} was disabled or expired at about the time when the "
        f"account was changed. {_may_need(version)}"
    )


def _may_need(version: KeyIdentifier) -> str:
    return (
        "The account may need it. Make that version usable with azbatch.cmk.recover, or with "
        f"azbatch.cmk.keyvault_cmk_key (key_identifier: {version}, state: enabled), and disable it two days later."
    )


def _why_unusable(version: KeyBundle, now: float) -> str:
    reason = _reason(item_of(version), now)
    return reason or ("" if "unwrapKey" in version["key"].get("key_ops", ()) else "The key does not allow unwrapKey.")


def _none_usable(evidence: Evidence, versions: Sequence[KeyItem] | None) -> bool:
    """Whether none of the versions that an account may use is usable, if it follows the key. False if the versions
    could not be listed."""
    return versions is not None and all(_reason(item, evidence.now) for item in versions)


def _is_in_perimeter(evidence: Evidence) -> bool:
    return isinstance(evidence.vault, Mapping) and is_in_perimeter(evidence.vault)


def _may_be_let_in(evidence: Evidence) -> bool:
    """Whether the vault has IP rules. The address that Batch uses may be among them."""
    return isinstance(evidence.vault, Mapping) and lets_addresses_in(evidence.vault)


def _of_identity(evidence: Evidence, missing: Sequence[str]) -> Iterator[Cause]:
    # Batch may use any identity, so the account may be able to use one of the others.
    if not evidence.principals:
        yield Cause("identity_missing", "The account no longer has an identity.", _LOST)
    elif len(missing) >= len(evidence.principals):
        text = f"These identities of the account were deleted: {', '.join(missing)}."
        yield Cause(
            "identity_missing",
            f"{text} Identities of the same names that were created since are other identities.",
            _LOST,
        )


def _of_vault(evidence: Evidence, failed: Mapping[str, Check], observed: Mapping[str, Any]) -> Iterator[Cause]:
    vault = evidence.key.vault
    deleted: DeletedVault | CmkError | None = observed["deleted_vault"]
    if isinstance(deleted, Mapping):
        purged = deleted["properties"].get("scheduledPurgeDate")
        text = f"The vault {vault} was deleted; it can be recovered until {purged}."
        yield Cause(
            "vault_deleted", text, "Recover the vault (azbatch.cmk.keyvault_cmk_vault, recover: true).", "vault"
        )
    elif deleted is None and "vault_reachable" in failed and not isinstance(evidence.vault, Mapping):
        text = f"There is no vault {vault}, and no deleted vault has this name. The name is available: it was purged."
        yield Cause("vault_missing", text, _LOST)
    if "same_tenant" in failed:
        check = failed["same_tenant"]
        yield Cause("vault_in_other_tenant", check.evidence, "Move the vault back to the account's tenant.")
    if "network_open_to_batch" in failed and (observed["available"] is False or not _may_be_let_in(evidence)):
        check = failed["network_open_to_batch"]
        is_certain = not _may_be_let_in(evidence)
        yield Cause("network_closed", check.evidence, check.remedy, "network", is_certain=is_certain)


def _of_key(evidence: Evidence, failed: Mapping[str, Check], observed: Mapping[str, Any]) -> Iterator[Cause]:
    key = evidence.key
    if isinstance(evidence.bundle, CmkError):
        yield from _said_by_batch(_said(observed))
    if observed["deleted_key"] is not None:
        yield Cause(
            "key_deleted",
            f"The key {key.name} was deleted and can be recovered.",
            "Recover the key (azbatch.cmk.keyvault_cmk_key, state: recovered).",
            "key",
        )
    elif evidence.bundle is None:
        what = f"version {key.version} of the key {key.name}" if _listed(observed) else f"key {key.name}"
        name = "version_missing" if _listed(observed) else "key_missing"
        yield Cause(name, f"There is no {what}, and no deleted key has this name: it was purged.", _RESTORE)
    elif _is_version_lost(observed):
        # The account follows the key, and a different key of the same name exists now.
        text = f"The key {key.name} does not have the version that Batch needs: the version was purged."
        yield Cause("version_missing", f"{text} Batch reports: {_said(observed)}", _RESTORE)
    unusable = _unusable(evidence, observed)
    if unusable:
        remedy = "Enable the version, or extend its validity (azbatch.cmk.keyvault_cmk_key, state: enabled)."
        yield Cause("version_unusable", " ".join(unusable.values()), remedy, "key")
    if "key_ops_wrap_unwrap" in failed:
        check = failed["key_ops_wrap_unwrap"]
        yield Cause("operations_missing", check.evidence, check.remedy, "key")
    for name in ("key_type_rsa", "key_size_supported"):
        if name in failed:
            yield Cause("key_not_supported", failed[name].evidence, failed[name].remedy)


def _said(observed: Mapping[str, Any]) -> str:
    """The current message of Batch about the key."""
    reason: CmkError | None = observed.get("unavailable_reason")
    said = reason.facts.get("azure", {}).get("message", "") if reason else ""
    return "" if _ACCESSIBLE_AGAIN in said else said


def _is_version_lost(observed: Mapping[str, Any]) -> bool:
    found = _VERSION_NOT_FOUND.search(_said(observed))
    versions = [version_of(item) for item in _listed(observed) or ()]
    return found is not None and bool(versions) and found[1] not in versions


def _said_by_batch(said: str) -> Iterator[Cause]:
    """The cause that Batch's message shows, if the caller cannot read the key."""
    for name, pattern in _SAID_BY_BATCH.items():
        if pattern.search(said):
            yield Cause(name, f"Batch reports: {said}", "Run this as a caller who can read the key.", "key")


def _unusable(evidence: Evidence, observed: Mapping[str, Any]) -> dict[str, str]:
    """The unusable versions among those that the account may need, each with the reason."""
    reasons = {version_of(item): _reason(item, evidence.now) for item in _in_question(evidence, observed)}
    return {version: reason for version, reason in reasons.items() if reason}


def _in_question(evidence: Evidence, observed: Mapping[str, Any]) -> list[KeyItem]:
    """The versions that the account may need. If it is pinned: that version. If it follows the key: the newest
    version, and the previous version if the account may use it (`followers_on`). If the account is not available:
    also the versions that became unusable too early.

    An available account does not need the previous version. An unavailable account may use an older version. Older
    versions are returned only if nothing else explains why the account is unavailable, because a person may have
    disabled older versions on purpose. A version that Batch names is always needed: without it, Batch cannot move the
    account to a newer version.
    """
    versions = _listed(observed)
    newest = evidence.bundle if isinstance(evidence.bundle, Mapping) else None
    if versions is None:
        return [item_of(newest)] if newest else []
    by_version = {version_of(item): item for item in versions}
    named = [version for version in by_version if version in _said(observed)]
    is_lost = observed["available"] is False
    lost = _lost_too_early(evidence, observed) if is_lost else []
    if evidence.key.version is not None:
        followed = [evidence.key.version]
        likely = [*followed, *lost, *(named if is_lost else ())]
    else:
        used = followers_on(newest, versions, evidence.now) if newest else newest_first(versions)
        followed = [version for version in used if version in by_version]
        if observed["available"]:
            return [by_version[version] for version in followed[:1]]
        recent = followed[:2]
        if newest and is_usable(newest, evidence.now):
            recent = [version for version in recent if not is_retired(by_version[version], newest, evidence.now)]
        likely = [*recent, *lost, *named]
    items = [by_version[version] for version in dict.fromkeys(likely) if version in by_version]
    if is_lost and not (any(_reason(item, evidence.now) for item in items) or _is_explained(observed)):
        beside = _lost_without_access(evidence, observed) if _is_refused_alone(evidence, observed) else []
        less_likely = dict.fromkeys([*followed, *_just_left(evidence, observed), *beside])
        return [by_version[version] for version in less_likely if version in by_version]
    return items


def _is_refused_alone(evidence: Evidence, observed: Mapping[str, Any]) -> bool:
    """Whether Batch itself refuses requests, and the vault does not explain that: without a refusal, the account may
    well be available."""
    is_refused = account_document.availability(observed.get("unavailable_reason")) is False
    return is_refused and not _is_vault_changed(evidence) and not _is_in_perimeter(evidence)


def _is_explained(observed: Mapping[str, Any]) -> bool:
    """Whether something other than a version of the key explains that the account is not available: another cause, a
    repair of this run, or a repair a few minutes ago."""
    if observed.get("after_repair"):
        return True
    checks = preflight.judged(observed["evidence"])
    others = ("access_granted", "network_open_to_batch", "same_tenant")
    # A change of the vault may have caused the loss.
    repairs = unnoticed_repairs({**observed, "is_report": False})
    return any(check.status == FAILED for check in checks if check.name in others) or bool(repairs)


def _lost_too_early(evidence: Evidence, observed: Mapping[str, Any], *, access_since: float = 0) -> list[str]:
    """The previous versions that were disabled or expired when the account may still have needed them."""
    if not isinstance(evidence.bundle, Mapping):
        return []
    return previous_in_doubt(
        evidence.bundle,
        _listed(observed) or (),
        evidence.now,
        follows=evidence.key.version is None,
        access_since=access_since,
        account_changed_at=observed.get("account_changed_at"),
    )


def _lost_without_access(evidence: Evidence, observed: Mapping[str, Any]) -> list[str]:
    """The same, and the versions that were disabled or expired before the account was granted its access. The account
    needs them if it had no access before."""
    return _lost_too_early(evidence, observed, access_since=access_since(evidence))


def _just_left(evidence: Evidence, observed: Mapping[str, Any]) -> list[str]:
    """The versions that became unusable when the account may just have been moved from them."""
    if not isinstance(evidence.bundle, Mapping):
        return []
    return just_left(
        evidence.bundle,
        _listed(observed) or (),
        evidence.now,
        follows=evidence.key.version is None,
        account_changed_at=observed.get("account_changed_at"),
    )


def _reason(item: KeyItem, now: float) -> str:
    version, attributes = version_of(item), item["attributes"]
    if not attributes["enabled"]:
        return f"Version {version} is disabled."
    if attributes.get("exp") is not None and attributes["exp"] <= now:
        return f"Version {version} has expired."
    if attributes.get("nbf") is not None and attributes["nbf"] > now:
        return f"Version {version} is not valid yet."
    return ""


def _needed(evidence: Evidence, observed: Mapping[str, Any]) -> list[str]:
    """The identifiers of the versions that have to be usable: the version that the account is pinned to, and the
    unusable versions that the account may need. If it follows the key, the identifier of the key without a version if
    the newest version lacks operations, or if all versions can be used."""
    key = evidence.key
    unusable = [str(replace(key, version=one)) for one in _unusable(evidence, observed)]
    is_named = key.version or not unusable or failed_checks(evidence, ("key_ops_wrap_unwrap",))
    return list(dict.fromkeys([*([str(key)] if is_named else ()), *unusable]))


def _place(evidence: Evidence, observed: Mapping[str, Any]) -> dict[str, str] | None:
    """The subscription, resource group and name of the vault or deleted vault; None if neither was read."""
    deleted: DeletedVault | CmkError | None = observed["deleted_vault"]
    vault = evidence.vault
    if isinstance(deleted, Mapping):
        resource_id = str(deleted["properties"]["vaultId"])
    elif vault is not None and not isinstance(vault, CmkError):
        resource_id = str(vault["id"])
    else:
        return None
    subscription, group, name = place_of(resource_id)
    return {"subscription_id": subscription, "resource_group": group, "name": name}
