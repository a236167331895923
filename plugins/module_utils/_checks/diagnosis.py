# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The causes why a Batch account cannot use its key, with their repairs. Pure: sends no requests.

This module util is private to the collection.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf

from .._core.duration import instant, moment
from .._core.errors import CmkError, Denied
from .._core.ids import KeyIdentifier
from .._documents.access import ROLE_SECONDS
from .._documents.account import Account, availability, is_unavailable
from .._documents.key import KeyBundle, KeyItem, is_staged, item_of, version_of, why_unusable
from .._documents.vault import DeletedVault, is_in_perimeter, lets_azure_services_in, may_let_azure_services_in
from . import preflight, rights
from .preflight import FAILED, Check, Evidence, access_since, has_access
from .versions import KeyVersions, VersionUser, is_key_usable, margin_ends, versions_of, versions_possibly_in_use

# A repair that is made only if it is asked for: the versions may have been leaked.
OTHER_VERSIONS = "other_versions"
_LOST = "The account can only be deleted (azbatch.cmk.batch_account_identity, state: absent)."
_NEW_VERSION = "Create a new version with azbatch.cmk.rotate (cmk_key_new_version: true)."
_RESTORE = "Restore a backup of the key. Without a backup, the account can only be deleted."
# Batch uses wrapKey only when the key of an account is set.
_NEEDED_IN_USE = ("get", "unwrapKey")
_ASK = "Read whether the account is available (pools: true, in the role cmk_audit_pools: true)"
# By cause, the pattern of Batch's message about a key that the caller cannot read. When Batch reports that the key
# is accessible again, its message may still contain an earlier refusal.
_SAID_BY_BATCH = {
    # "Public network access is disabled" is a message about the vault, not about a version.
    "version_unusable": re.compile(r"(?<!access )is disabled|has expired|is not valid yet"),
    "operations_missing": re.compile(r"is not permitted on this key"),
    "key_deleted": re.compile(r"\bkey '[^']+' was not found"),
}
_VERSION_NOT_FOUND = re.compile(r"\bkey '[^']+/([0-9a-f]{32})' was not found")
_BLOCKED_BY_FIREWALL = "caller is not a trusted service"
_ACCESSIBLE_AGAIN = "accessible again"
# Before the text of Batch in the evidence of a cause.
BATCH_REPORTS = "Batch reports: "
# The maximum time until an account is available after Batch can use its key again (Microsoft's guide).
_RECOVERY_SECONDS = 600


@dataclass(frozen=True)
class Cause:
    name: str
    evidence: str
    remedy: str
    # The repair: vault, network, key, other_versions or access. None if this collection cannot repair the cause.
    repair: str | None = None
    # False if it is a cause only if Batch uses a certain identity of several.
    is_certain: bool = True
    # The time until which it can be repaired; None if that is not limited, or not known.
    deadline: str | None = None

    @property
    def described(self) -> dict[str, str | None]:
        """The cause in results."""
        return {"name": self.name, "evidence": self.evidence, "remedy": self.remedy, "repair": self.repair}


_NETWORK_CLOSED = Cause("network_closed", preflight.ONLY_ADDRESSES, preflight.LET_SERVICES_IN, "network")


@dataclass(frozen=True)
class Symptoms:
    """What the diagnosis of an account depends on. A value that could not be read is the error."""

    evidence: Evidence
    # The deleted vault of that name, if the vault was not found.
    deleted_vault: DeletedVault | CmkError | None = None
    deleted_key: KeyBundle | CmkError | None = None
    versions: Sequence[KeyItem] | CmkError | None = None
    # The unusable versions of a type that Batch does not support. The account has never used them.
    unsupported: Sequence[str] = ()
    # Whether the versions beside its own that the account may use are repaired, even if it may not need them.
    repairs_other_versions: bool = False
    # The user-assigned identities of the account that were deleted.
    missing_identities: Sequence[str] = ()
    is_report: bool = False
    # In seconds since 1970; None if it is not known; 0 if it was not read, because it does not matter.
    account_changed_at: float | None = 0
    # None if it is not known.
    available: bool | None = None
    unavailable_reason: CmkError | None = None

    @cached_property
    def checks(self) -> tuple[Check, ...]:
        return preflight.judged(self.evidence)

    @property
    def failed(self) -> dict[str, Check]:
        """The checks that have failed, by their names."""
        return {check.name: check for check in self.checks if check.status == FAILED}


@dataclass(frozen=True)
class AccountState:
    """What a report says of an account; `account` is None if there is no account."""

    account: Account | None = None
    unavailable_reason: CmkError | None = None
    # Without a diagnosis, or without a customer-managed key, None.
    symptoms: Symptoms | None = None
    # Whether Batch has refused to list the pools of the account when an earlier task of the run asked.
    was_refused: bool = False

    @property
    def available(self) -> bool | None:
        return availability(self.unavailable_reason)


@dataclass(frozen=True)
class Diagnosis:
    """The diagnosis of an account. `recoverable` is whether this collection can make all repairs that it needs."""

    recoverable: bool
    causes: Sequence[Cause] = ()
    # In their order.
    repairs: Sequence[str] = ()
    # Why there may be more causes.
    unread: Sequence[CmkError] = ()
    # The id of the vault or deleted vault; None if neither was read.
    vault_id: str | None = None
    # The identifiers of the versions that have to be usable.
    needed: Sequence[KeyIdentifier] = ()
    checks: Sequence[Check] = ()


def diagnosed(observed: Symptoms) -> Diagnosis:
    """If it is not known whether the account is available, all problems count for what has to be repaired."""
    return Diagnosis(
        recoverable=all(cause.repair for cause in _to_repair(observed)),
        causes=causes(observed),
        repairs=repairs(observed),
        unread=unread(observed),
        vault_id=_vault_id(observed),
        needed=_needed(replace(observed, available=bool(observed.available))),
        checks=observed.checks,
    )


def repairs(observed: Symptoms) -> list[str]:
    """The repairs that the account needs, in their order. If it is not known whether the account is available, all
    problems count."""
    return list(dict.fromkeys(cause.repair for cause in _to_repair(observed) if cause.repair))


def _to_repair(observed: Symptoms) -> tuple[Cause, ...]:
    return () if observed.available else causes(replace(observed, available=False))


def unread(observed: Symptoms) -> list[CmkError]:
    """The errors of the reads of the vault, the deleted vault, the key, its versions and the access, and a network
    security perimeter that may be the reason. If there are such errors, there may be more causes than were found."""
    evidence = observed.evidence
    key = evidence.bundle if isinstance(evidence.bundle, CmkError) else observed.versions
    read = (evidence.vault, observed.deleted_vault, key, evidence.assignments)
    errors = [one for one in read if isinstance(one, CmkError)]
    if evidence.vault is None and not isinstance(evidence.bundle, CmkError):
        remedy = f"Grant the caller a role that allows {rights.VAULTS}/read on the vault, such as Key Vault Reader."
        text = f"The key vault {evidence.key.vault} is in no subscription that the caller can read. {remedy}"
        errors.insert(0, Denied(text, action=f"{rights.VAULTS}/read", remedy=remedy))
    if _is_in_perimeter(evidence) and isinstance(evidence.bundle, CmkError):
        text = "A network security perimeter around the vault blocks this network, and perhaps Batch."
        remedy = "Add access rules for both to the perimeter."
        errors.append(Denied(f"{text} {remedy}", code="network_denied", remedy=remedy))
    return errors


def causes(observed: Symptoms) -> tuple[Cause, ...]:
    """The causes in the order of their repair."""
    found = tuple(_causes(observed))
    if found or observed.available is not False or unnoticed_repairs(replace(observed, is_report=False)):
        return found
    if _is_in_perimeter(observed.evidence):
        return (Cause("network_closed", preflight.IN_PERIMETER, preflight.OPEN_PERIMETER),)
    return (_NETWORK_CLOSED,) if _is_open_to_addresses(observed.evidence) and _is_refused(observed) else ()


def _causes(observed: Symptoms) -> Iterator[Cause]:
    evidence, failed = observed.evidence, observed.failed
    yield from _of_identity(observed)
    yield from _of_vault(observed)
    yield from _of_key(observed)
    if "access_granted" in failed and (observed.available is False or not has_access(evidence)):
        check = failed["access_granted"]
        yield Cause("access_missing", check.evidence, check.remedy, "access", is_certain=not has_access(evidence))


def known(found: Sequence[Cause]) -> tuple[Cause, ...]:
    """The causes without those that are not certain, if other causes explain why the account is not available."""
    return tuple(cause for cause in found if cause.is_certain) or tuple(found)


def unclear(observed: Symptoms, found: Sequence[Cause]) -> dict[str, str]:
    """Problems that are causes only if Batch uses a certain identity or version of several, with the reasons why
    that is not known. Empty if the account is available, or if nothing else explains why it is not.
    `found` are its `causes`."""
    available = observed.available
    is_explained = any(cause.is_certain for cause in found)
    if available or (available is False and not is_explained):
        return {}
    ask = _ASK if available is None else "Repair the other causes first"
    failed = observed.failed
    problems = {}
    if "access_granted" in failed and has_access(observed.evidence):
        problems["access"] = (
            f"{failed['access_granted'].evidence} Another identity of the account may use the key, and Azure does not "
            f"show which of them Batch uses. {ask}, or grant access."
        )
    if available is None:
        problems |= _unclear_without_response(observed, found)
    return problems


def _unclear_without_response(observed: Symptoms, found: Sequence[Cause]) -> dict[str, str]:
    problems, evidence = {}, observed.evidence
    is_cause = any(cause.name == "version_unusable" for cause in found)
    if (doubtful := doubtful_versions(observed)) and not is_cause:
        problems["version"] = doubtful
    if _is_in_perimeter(evidence):
        problems["network"] = f"{preflight.IN_PERIMETER} If Batch cannot use the key: {preflight.OPEN_PERIMETER}"
    elif _is_open_to_addresses(evidence):
        problems["network"] = f"{preflight.ONLY_ADDRESSES} If Batch cannot use the key: {preflight.LET_SERVICES_IN}"
    return problems


def lost_key(observed: Symptoms) -> tuple[list[str], list[str]]:
    """Judge without the response of Batch whether Batch can use the key of an account. Returns the evidence that
    Batch cannot use the key, and the reasons why that is not known. Both are empty if Batch can use the key. Lists
    of `observed` that were not read are None."""
    evidence, deleted = observed.evidence, observed.deleted_vault
    checks = {check.name: check for check in observed.checks}
    lost = [cause.evidence for cause in _of_identity(observed)]
    lost += [checks[name].evidence for name in ("same_tenant", "key_exists") if checks[name].status == FAILED]
    if isinstance(deleted, Mapping):
        until = deleted["properties"].get("scheduledPurgeDate")
        lost.append(f"The vault {evidence.key.vault} was deleted, and can be recovered until {until}.")
    unknown: list[str] = []
    if isinstance(evidence.bundle, Mapping):
        own = why_unusable(item_of(evidence.bundle), evidence.now) or _not_allowed(evidence.bundle)
        if _is_usable(observed) is False:
            lost.append(own)
        elif own:
            # A version that is valid later has a purpose.
            remedy = "" if is_staged(item_of(evidence.bundle), evidence.now) else f" {_NEW_VERSION}"
            unknown.append(f"{own} The account may use an older version.{remedy}")
        elif doubtful := doubtful_versions(observed):
            unknown.append(doubtful)
    elif isinstance(evidence.bundle, CmkError):
        unknown.append(str(evidence.bundle))
    granted = preflight.granted_to_each(evidence)
    access, network = checks["access_granted"], checks["network_open_to_batch"]
    if access.status == FAILED and not any(has.issuperset(_NEEDED_IN_USE) for has in granted.values()):
        lost.append(access.evidence)
    if network.status == FAILED:
        lost.append(network.evidence)
    unknown += [check.evidence for check in (access, network) if check.status == preflight.UNKNOWN]
    if (noticed := all_noticed_at(observed)) is not None:
        unknown.append(
            "Batch may notice a change of the key, or of the access to it, some minutes later. An account that had "
            f"lost its key before the change is available again at {instant(noticed)} at the latest."
        )
    return lost, list(dict.fromkeys(unknown))


def all_noticed_at(observed: Symptoms) -> float | None:
    """When Batch has noticed the recent changes of the key and of the access to it at the latest, if the account may
    have lost its key before; None if there are none."""
    changed_at = observed.account_changed_at
    repairs = {} if changed_at == 0 else unnoticed_repairs(observed)
    return max((noticed for repaired, noticed in repairs.items() if (changed_at or 0) < repaired), default=None)


def is_unread(observed: Symptoms) -> bool:
    """Whether the caller cannot read the key, its versions, the access to it, or whether the network lets Batch in."""
    checks = {check.name: check.status for check in observed.checks}
    is_hidden = isinstance(observed.evidence.bundle, CmkError) or isinstance(observed.versions, CmkError)
    return is_hidden or preflight.UNKNOWN in (checks["access_granted"], checks["network_open_to_batch"])


def unnoticed_repairs(observed: Symptoms) -> dict[float, float]:
    """The changes that may have made the key usable for Batch again, and that Batch may not have noticed yet: changes
    of the version, and the role assignment without which there would be no access. By the time of each change, the time
    at which Batch has noticed it at the latest.

    In a report, a change of the vault counts too, such as an access policy or the firewall. It does not prevent the
    change of an account, because with access policies each new account of the vault changes the vault, and because
    Batch itself refuses to change an account that is not available."""
    evidence = observed.evidence
    repairs: dict[float, float] = {}
    if isinstance(evidence.bundle, Mapping):
        # The account may have needed another version that was enabled again.
        others = [item for item in _possible(observed)[1:] if not why_unusable(item, evidence.now)]
        items = [item_of(evidence.bundle), *others]
        times = [(item["attributes"].get("updated") or 0, item["attributes"]["created"]) for item in items]
        repairs |= {updated: updated + _RECOVERY_SECONDS for updated, created in times if updated > created}
    granted = access_since(evidence)
    repairs[granted] = granted + ROLE_SECONDS + _RECOVERY_SECONDS
    changed = preflight.dated_change(evidence)
    if changed and observed.is_report:
        repairs[changed] = changed + _RECOVERY_SECONDS
    return {repaired: noticed for repaired, noticed in repairs.items() if noticed > evidence.now}


def may_recover(observed: Symptoms) -> bool:
    """Whether the account may become available without a repair, because somebody may have repaired the key or changed
    its vault a few minutes ago."""
    is_vault_changed = preflight.vault_changed_at(observed.evidence) > observed.evidence.now - _RECOVERY_SECONDS
    return is_vault_changed or bool(unnoticed_repairs(observed))


def depends_on_account_change(observed: Symptoms, *, judges_repairs: bool = True) -> bool:
    """Whether the time when the account was changed says more about its availability: if the account may have used a
    version that is unusable now or expires soon and, with `judges_repairs`, after a recent change of the key."""
    just_changed = replace(observed, account_changed_at=None)
    if isinstance(observed.versions, CmkError) or _others_unusable(just_changed):
        return True
    if expiring(just_changed):
        return True
    return judges_repairs and bool(unnoticed_repairs(just_changed))


def _user(observed: Symptoms) -> VersionUser:
    evidence = observed.evidence
    return VersionUser(evidence.key.version, observed.account_changed_at, access_since(evidence))


def _versions(observed: Symptoms) -> KeyVersions:
    evidence, items = observed.evidence, _listed(observed) or ()
    bundle = evidence.bundle
    if isinstance(bundle, Mapping) and evidence.key.version is None:
        return versions_of(bundle, items, evidence.now)
    return KeyVersions(items, evidence.now)


def expiring(observed: Symptoms) -> dict[str, tuple[float, float]]:
    """The usable versions beside its own that expire while the account may use them: for each, when it expires, and
    until when the account may use it (infinite if that is not known), in seconds since 1970."""
    evidence = observed.evidence
    versions, user = _versions(observed), _user(observed)
    ends = {
        version_of(item): (item["attributes"].get("exp", inf), margin_ends(versions, user, older=item))
        for item in _possible(observed)[1:]
        if not why_unusable(item, evidence.now)
    }
    return {version: (expires, until) for version, (expires, until) in ends.items() if expires < until}


def _possible(observed: Symptoms) -> list[KeyItem]:
    """The versions that the account may use, its own version first."""
    bundle, items = observed.evidence.bundle, _listed(observed)
    if isinstance(bundle, Mapping) and not items:
        return [item_of(bundle)]
    versions = _versions(observed)
    by_version = {version_of(item): item for item in items or ()}
    if isinstance(bundle, Mapping):
        by_version[version_of(bundle["key"])] = item_of(bundle)
    own, *others = versions_possibly_in_use(versions, _user(observed)) or [""]
    kept = (own, *(one for one in others if one not in observed.unsupported))
    return [by_version[one] for one in kept if one in by_version]


def _unusable_of(items: Sequence[KeyItem], evidence: Evidence) -> dict[str, str]:
    """The unusable versions among these, each with the reason."""
    reasons = {version_of(item): why_unusable(item, evidence.now) for item in items}
    return {version: reason for version, reason in reasons.items() if reason}


def _is_usable(observed: Symptoms) -> bool | None:
    """Whether Batch can use the key, by the versions that the account may use (`is_key_usable`)."""
    evidence, items = observed.evidence, _possible(observed)
    bundle = evidence.bundle
    unusable = set(_unusable_of(items, evidence))
    if isinstance(bundle, Mapping) and _not_allowed(bundle):
        unusable.add(version_of(bundle["key"]))
    return is_key_usable([version_of(item) for item in items], unusable, is_pinned=evidence.key.version is not None)


def _is_refused(observed: Symptoms) -> bool:
    """Whether Batch has refused a request because the account is not available."""
    reason = observed.unavailable_reason
    return reason is not None and is_unavailable(reason)


def _others_unusable(observed: Symptoms) -> dict[str, str]:
    """The unusable versions that the account may use beside its own version, each with the reason."""
    return _unusable_of(_possible(observed)[1:], observed.evidence)


def possibly_lost(observed: Symptoms) -> Collection[str]:
    """The unusable versions that the account may use."""
    return _unusable_of(_possible(observed), observed.evidence)


def doubtful_versions(observed: Symptoms) -> str:
    """Why it is not known whether the account has lost a version that it may use; empty if it has not."""
    evidence = observed.evidence
    if isinstance(observed.versions, CmkError):
        is_settled = margin_ends(KeyVersions((), evidence.now), _user(observed)) <= evidence.now
        if evidence.key.version is not None and is_settled:
            return ""
        return (
            f"It is not known whether the account needs a previous version of the key {evidence.key.name}. "
            f"{observed.versions}"
        )
    unusable = _unusable_of(_possible(observed), evidence)
    if not unusable or _is_usable(observed) is False:
        return ""
    return f"{' '.join(unusable.values())} {_may_need(*(replace(evidence.key, version=one) for one in unusable))}"


def lost_after_change(
    left: KeyIdentifier, target: KeyIdentifier, items: Sequence[KeyItem], now: float
) -> dict[str, str]:
    """The unusable versions that an account may need, which was moved a moment ago from `left` to `target`, another
    version of the key; each with the reason."""
    possible = versions_possibly_in_use(KeyVersions(items, now), VersionUser(target.version, now))
    reasons = {version_of(item): why_unusable(item, now) for item in items}
    return {
        version: f"{reason} {_may_need(replace(left, version=version))}"
        for version, reason in reasons.items()
        if reason and version in (left.version, *possible)
    }


def _listed(observed: Symptoms) -> Sequence[KeyItem] | None:
    """The versions of the key. None if they were not read, or could not be read."""
    return None if isinstance(observed.versions, CmkError) else observed.versions


def _may_need(version: KeyIdentifier, *more: KeyIdentifier) -> str:
    only, recover = "Only if the account becomes unavailable, make", "azbatch.cmk.recover (cmk_allowed_repairs: [key,"
    if more:
        return f"Batch may still need them. {only} them usable with {recover} {OTHER_VERSIONS}])."
    return (
        f"Batch may still need it. {only} that version usable with {recover} {OTHER_VERSIONS}]), or with "
        f"azbatch.cmk.keyvault_cmk_key_state (key_identifier: {version}, state: enabled)."
    )


def _not_allowed(version: KeyBundle) -> str:
    return "" if "unwrapKey" in version["key"].get("key_ops", ()) else "The key does not allow unwrapKey."


def _is_in_perimeter(evidence: Evidence) -> bool:
    return isinstance(evidence.vault, Mapping) and is_in_perimeter(evidence.vault)


def _is_open_to_addresses(evidence: Evidence) -> bool:
    """Whether the vault's firewall lets Batch in only if its IP rules have the addresses of Batch."""
    vault = evidence.vault
    return isinstance(vault, Mapping) and may_let_azure_services_in(vault) and not lets_azure_services_in(vault)


def _of_identity(observed: Symptoms) -> Iterator[Cause]:
    principals, missing = observed.evidence.principals, observed.missing_identities
    # Batch may use any identity, so the account may be able to use one of the others.
    if not principals:
        yield Cause("identity_missing", "The account no longer has an identity.", _LOST)
    elif len(missing) >= len(principals):
        names = ", ".join(identity.rpartition("/")[2] for identity in missing)
        text = f"Identities of the account were deleted: {names}. New ones of the same names are others."
        yield Cause("identity_missing", text, _LOST)


def _of_vault(observed: Symptoms) -> Iterator[Cause]:
    evidence, failed, deleted = observed.evidence, observed.failed, observed.deleted_vault
    vault = evidence.key.vault
    if isinstance(deleted, Mapping):
        purged = deleted["properties"].get("scheduledPurgeDate")
        text = f"The vault {vault} was deleted; it can be recovered until {purged}."
        remedy = "Recover the vault (azbatch.cmk.keyvault_cmk_vault, allowed_repairs: [vault])."
        yield Cause("vault_deleted", text, remedy, "vault", deadline=instant(moment(purged)))
    elif deleted is None and "vault_reachable" in failed and not isinstance(evidence.vault, Mapping):
        text = f"The vault {vault} was purged: there is neither a vault nor a deleted vault of this name."
        yield Cause("vault_missing", text, _LOST)
    if "same_tenant" in failed:
        check = failed["same_tenant"]
        yield Cause("vault_in_other_tenant", check.evidence, "Move the vault back to the account's tenant.")
    if "network_open_to_batch" in failed:
        check = failed["network_open_to_batch"]
        yield Cause("network_closed", check.evidence, check.remedy, "network")
    elif _is_open_to_addresses(evidence) and _BLOCKED_BY_FIREWALL in _said(observed):
        yield _NETWORK_CLOSED


def _of_key(observed: Symptoms) -> Iterator[Cause]:
    evidence, failed, deleted = observed.evidence, observed.failed, observed.deleted_key
    key = evidence.key
    if isinstance(evidence.bundle, CmkError):
        yield from _said_by_batch(_said(observed))
    if deleted is not None:
        purged = instant(deleted.get("scheduledPurgeDate")) if isinstance(deleted, Mapping) else None
        text = f"The key {key.name} was deleted; it can be recovered{f' until {purged}' if purged else ''}."
        remedy = "Recover the key (azbatch.cmk.keyvault_cmk_key_state, state: recovered)."
        yield Cause("key_deleted", text, remedy, "key", deadline=purged)
    elif evidence.bundle is None:
        what = f"version {key.version} of the key {key.name}" if _listed(observed) else f"key {key.name}"
        name = "version_missing" if _listed(observed) else "key_missing"
        yield Cause(name, f"There is no {what}, and no deleted key has this name: it was purged.", _RESTORE)
    elif _is_version_lost(observed):
        # The account follows the key, and a different key of the same name exists now.
        text = f"The key {key.name} does not have the version that Batch needs: the version was purged."
        yield Cause("version_missing", f"{text} {BATCH_REPORTS}{_said(observed)}", _RESTORE)
    unusable = _unusable(observed)
    if unusable:
        remedy = "Enable the version, or extend its validity (azbatch.cmk.keyvault_cmk_key_state, state: enabled)."
        repair = "key" if _is_key_lost(observed) else OTHER_VERSIONS
        yield Cause("version_unusable", " ".join(unusable.values()), remedy, repair)
    if _needs_other_version(observed):
        return
    if "key_ops_wrap_unwrap" in failed:
        check = failed["key_ops_wrap_unwrap"]
        yield Cause("operations_missing", check.evidence, check.remedy, "key")
    if wrong := [failed[name] for name in ("key_type_rsa", "key_size_supported") if name in failed]:
        yield Cause("key_not_supported", " ".join(one.evidence for one in wrong), wrong[0].remedy)


def _said(observed: Symptoms) -> str:
    """The current message of Batch about the key."""
    reason = observed.unavailable_reason
    said = reason.facts.get("azure", {}).get("message", "") if reason else ""
    return "" if _ACCESSIBLE_AGAIN in said else said


def _is_version_lost(observed: Symptoms) -> bool:
    found = _VERSION_NOT_FOUND.search(_said(observed))
    versions = [version_of(item) for item in _listed(observed) or ()]
    return found is not None and bool(versions) and found[1] not in versions


def _needs_other_version(observed: Symptoms) -> bool:
    """Whether Batch names an older version that it needs, because it does not support the newest version of the key
    that the account follows. The type and the operations of the newest version are then not the cause."""
    evidence = observed.evidence
    if evidence.key.version or observed.available is not False or not isinstance(evidence.bundle, Mapping):
        return False
    if observed.failed.keys().isdisjoint(("key_type_rsa", "key_size_supported")):
        return False
    newest, said = version_of(evidence.bundle["key"]), _said(observed)
    return any(version_of(item) in said for item in _listed(observed) or () if version_of(item) != newest)


def _said_by_batch(said: str) -> Iterator[Cause]:
    """The cause that Batch's message shows, if the caller cannot read the key."""
    for name, pattern in _SAID_BY_BATCH.items():
        if pattern.search(said):
            yield Cause(name, f"{BATCH_REPORTS}{said}", "Run this as a caller who can read the key.", "key")


def _unusable(observed: Symptoms) -> dict[str, str]:
    """The unusable versions to be repaired, each with the reason. Versions other than its own are among them only if
    Batch cannot use the key for sure, or if they were asked for: somebody may have disabled them on purpose. A version
    that Batch names in a refusal is always needed: without it, Batch cannot move the account to a newer version."""
    items = _possible(observed)
    if not _is_key_lost(observed) and not observed.repairs_other_versions:
        return {}
    if observed.available:
        items = items[:1]
    if observed.available is False and _is_refused(observed):
        said = _said(observed)
        items += [item for item in _listed(observed) or () if version_of(item) in said]
    supported = [item for item in items if version_of(item) not in observed.unsupported]
    return _unusable_of(supported, observed.evidence)


def _is_key_lost(observed: Symptoms) -> bool:
    """Whether Batch refuses the account, or cannot use the key by the versions that the account may use."""
    is_refused = observed.available is False and _is_refused(observed)
    return is_refused or _is_usable(observed) is False


def _needed(observed: Symptoms) -> list[KeyIdentifier]:
    """The identifiers of the versions that have to be usable: the version that the account is pinned to, and the
    unusable versions that the account may need. If it follows the key, the identifier of the key without a version if
    the newest version lacks operations, or if all versions can be used."""
    key = observed.evidence.key
    unusable = [replace(key, version=one) for one in _unusable(observed)]
    lacks_operations = "key_ops_wrap_unwrap" in observed.failed
    is_named = key.version or not unusable or (lacks_operations and not _needs_other_version(observed))
    return list(dict.fromkeys([*([key] if is_named else ()), *unusable]))


def _vault_id(observed: Symptoms) -> str | None:
    deleted, vault = observed.deleted_vault, observed.evidence.vault
    if isinstance(deleted, Mapping):
        return deleted["properties"]["vaultId"]
    return vault["id"] if isinstance(vault, Mapping) else None
