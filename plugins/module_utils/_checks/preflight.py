# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The checks before an account is moved to a key. Pure: sends no requests.

If data could not be read, its value is the error with the reason, and its checks are `unknown`.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import TypeGuard

from .._core.duration import instant, moment
from .._core.errors import CmkError, Refused, numbered
from .._core.ids import KeyIdentifier
from .._core.summary import version_text
from .._documents import access as access_document
from .._documents import key as key_document
from .._documents import vault as vault_document
from .._documents.access import RoleAssignment, RoleDefinitionProperties
from .._documents.identity import Identity
from .._documents.key import KeyBundle
from .._documents.vault import Vault

OK, FAILED, UNKNOWN = "ok", "failed", "unknown"


@dataclass(frozen=True)
class Evidence:
    """The data of a key, and of the identities that are about to use it."""

    key: KeyIdentifier
    # Object ids of the account's identities; Batch may use any of them.
    principals: Sequence[str]
    tenant_id: str | None
    vault: Vault | CmkError | None
    bundle: KeyBundle | CmkError | None
    # Role assignments that reach the key, for each principal; empty for a vault with access policies.
    assignments: Mapping[str, Sequence[RoleAssignment]] | CmkError
    definitions: Mapping[str, RoleDefinitionProperties]
    now: float
    # Seconds for which the key has to stay valid from now on.
    lasting: float = 0
    # If true, the check of access passes if one of the identities may use the key.
    by_any: bool = False
    # The account in a message.
    account: str = "account"
    # Those principals whose identity was deleted. Their role assignments and access policies may remain.
    deleted: Sequence[str] = ()

    @property
    def existing(self) -> list[str]:
        """The principals that can use the key if they have access."""
        return [principal for principal in self.principals if principal not in self.deleted]


@dataclass(frozen=True)
class Check:
    name: str
    status: str
    evidence: str
    remedy: str = ""


def lasting(evidence: Evidence) -> Evidence:
    """The evidence with the additional requirement that the key does not expire soon, for an account that is about
    to be moved to the key. A rollback has no such requirement (`for_rollback`)."""
    return replace(evidence, lasting=key_document.EXPIRES_SOON)


def without_deleted(evidence: Evidence, identity: Identity, missing: Sequence[str]) -> Evidence:
    """The evidence on an account, of whose user-assigned identities those with the ids `missing` were deleted."""
    assigned = identity.get("userAssignedIdentities", {})
    return replace(
        evidence, deleted=[assigned[one]["principalId"] for one in missing if "principalId" in assigned[one]]
    )


def for_rollback(evidence: Evidence) -> Evidence:
    """The evidence on the key that the account used before: it is enough if one of the identities may use the key."""
    return replace(evidence, by_any=True)


def judged(evidence: Evidence) -> tuple[Check, ...]:
    return tuple(_named(name, judge(evidence)) for name, judge in _JUDGES.items())


def failed_checks(evidence: Evidence, among: Iterable[str] | None = None) -> list[str]:
    """The names of the failed checks, by default of all checks, otherwise only of those in `among`."""
    names = [check.name for check in judged(evidence) if check.status == FAILED]
    return names if among is None else [name for name in names if name in among]


def require(evidence: Evidence, so: str | None = None) -> tuple[Check, ...]:
    """All checks. If a check fails, an error that names all failed checks and the consequence (`so`, by default that
    the account was not moved)."""
    checks = judged(evidence)
    failed = [check for check in checks if check.status == FAILED]
    if not failed:
        return checks
    message = numbered([f"{check.evidence} {check.remedy}" for check in failed])
    so = so or f"The {evidence.account} was not moved to the key {evidence.key.name}"
    raise Refused(
        f"{so}.{message}",
        code="preflight_failed",
        key_identifier=str(evidence.key),
        failed_checks=[check.name for check in failed],
        preflight=describe(failed),
        remedy=numbered([check.remedy for check in failed]).lstrip(),
    )


def require_for_change(evidence: Evidence) -> tuple[Check, ...]:
    """The checks before an account is moved to the key: `require`, and that the access to the key can be read.

    If access is revoked at this moment, the revocation takes effect later, so Batch still accepts the key. The
    check after the change finds the revocation only if the caller can read the access.
    """
    checks = require(lasting(evidence))
    access = next(check for check in checks if check.name == "access_granted")
    if access.status != UNKNOWN:
        return checks
    remedy = f"Assign Reader on the vault {evidence.key.vault} to the caller."
    raise Refused(
        f"The {evidence.account} was not moved to key {evidence.key.name}: the caller cannot read whether its identity "
        f"may use the key. {remedy}",
        code="access_unknown",
        preflight=describe([access]),
        remedy=remedy,
    )


def warnings(checks: Sequence[Check]) -> tuple[str, ...]:
    return tuple(f"Could not check {c.name}: {c.evidence}" for c in checks if c.status == UNKNOWN)


def describe(checks: Sequence[Check]) -> list[dict[str, str]]:
    return [{"name": c.name, "status": c.status, "evidence": c.evidence, "remedy": c.remedy} for c in checks]


# Whether a check passes (None if the data could not be read), the evidence, and the remedy if it fails.
Judgement = tuple["bool | None", str, str]


def _named(name: str, judgement: Judgement) -> Check:
    holds, text, remedy = judgement
    if holds is None:
        return Check(name, UNKNOWN, text)
    return Check(name, OK, text) if holds else Check(name, FAILED, text, remedy)


def _of_vault(judge: Callable[[Vault, Evidence], Judgement]) -> Callable[[Evidence], Judgement]:
    def judged(evidence: Evidence) -> Judgement:
        vault = evidence.vault
        if vault is None or isinstance(vault, CmkError):
            return None, _unseen(f"the vault {evidence.key.vault}", vault), ""
        return judge(vault, evidence)

    return judged


def _of_key(judge: Callable[[KeyBundle, Evidence], Judgement]) -> Callable[[Evidence], Judgement]:
    def judged(evidence: Evidence) -> Judgement:
        bundle = evidence.bundle
        if bundle is None or isinstance(bundle, CmkError):
            return None, _unseen("the key", bundle), ""
        return judge(bundle, evidence)

    return judged


def _unseen(what: str, error: CmkError | None) -> str:
    return f"{what} could not be read: {error.reported}" if error else f"{what} was not found."


def _identity_present(evidence: Evidence) -> Judgement:
    text = (
        f"Principal ids of the account: {', '.join(evidence.principals)}."
        if evidence.principals
        else "The account has no identity."
    )
    return bool(evidence.principals), text, "Give the account an identity with M(azbatch.cmk.batch_account_identity)."


def is_unreachable(bundle: KeyBundle | CmkError | None) -> TypeGuard[CmkError]:
    """Whether the host of the vault did not respond when the key was read."""
    return isinstance(bundle, CmkError) and bundle.code == "vault_unreachable"


def _vault_reachable(evidence: Evidence) -> Judgement:
    answer = evidence.bundle
    if is_unreachable(answer):
        return False, answer.problem, "Correct O(key_identifier), recover a deleted vault, or check the network."
    if isinstance(evidence.vault, CmkError) and isinstance(answer, CmkError):
        return None, str(answer), ""
    return True, f"{evidence.key.vault_url} is reachable.", ""


def _soft_delete(vault: Vault, _evidence: Evidence) -> Judgement:
    on = vault["properties"].get("enableSoftDelete", True)
    return on, f"Soft delete is {'on' if on else 'off'}.", "Turn it on with M(azbatch.cmk.keyvault_cmk_vault)."


def _purge_protection(evidence: Evidence) -> Judgement:
    on = _has_purge_protection(evidence)
    if on is None:
        return None, "neither the vault nor the key could be read.", ""
    return on, f"Purge protection is {'on' if on else 'off'}.", "Turn it on with M(azbatch.cmk.keyvault_cmk_vault)."


def _has_purge_protection(evidence: Evidence) -> bool | None:
    """Purge protection of the vault; if the caller may not read the vault, according to the key's recovery level."""
    if isinstance(evidence.vault, Mapping):
        return bool(evidence.vault["properties"].get("enablePurgeProtection"))
    if isinstance(evidence.bundle, Mapping):
        return "Purgeable" not in evidence.bundle["attributes"].get("recoveryLevel", "Purgeable")
    return None


def _same_tenant(vault: Vault, evidence: Evidence) -> Judgement:
    has = vault["properties"]["tenantId"]
    if evidence.tenant_id is None:
        return None, "the account's tenant is not known.", ""
    same = has.lower() == evidence.tenant_id.lower()
    text = f"The vault belongs to tenant {has}, the account to tenant {evidence.tenant_id}."
    return same, text, "Use a vault of the account's tenant."


def _key_exists(evidence: Evidence) -> Judgement:
    if isinstance(evidence.bundle, CmkError):
        return None, _unseen("the key", evidence.bundle), ""
    if evidence.bundle is None:
        if evidence.key.version:
            remedy = "Correct the version in O(key_identifier), or leave it out to follow the latest version."
            return False, f"The key {evidence.key.name} has no {version_text(evidence.key.version)}.", remedy
        remedy = "Create or recover it (M(azbatch.cmk.keyvault_cmk_key)), or correct O(key_identifier)."
        return False, f"The vault {evidence.key.vault} has no key {evidence.key.name}.", remedy
    return True, f"{evidence.bundle['key']['kid']} exists.", ""


def _enabled(bundle: KeyBundle, _evidence: Evidence) -> Judgement:
    on = bundle["attributes"]["enabled"]
    return on, f"The key version is {'enabled' if on else 'disabled'}.", "Enable the version, or use another version."


def _not_expired(bundle: KeyBundle, evidence: Evidence) -> Judgement:
    begins, ends = bundle["attributes"].get("nbf"), bundle["attributes"].get("exp")
    since = f"It is valid from {instant(begins)}" if begins else "It is valid"
    text = f"{since} until {instant(ends)}." if ends else f"{since} and does not expire."
    if evidence.lasting and ends and ends > evidence.now:
        text += f" It must stay valid for {evidence.lasting / 60:.0f} minutes."
    valid = (begins is None or begins <= evidence.now) and (ends is None or evidence.now + evidence.lasting < ends)
    return valid, text, "Create a new version with azbatch.cmk.rotate, or extend its validity."


def _type_rsa(bundle: KeyBundle, _evidence: Evidence) -> Judgement:
    has = bundle["key"]["kty"]
    return has in key_document.TYPES, f"The key's type is {has}.", "Use a key of type RSA or RSA-HSM."


def _size_supported(bundle: KeyBundle, _evidence: Evidence) -> Judgement:
    has = key_document.size_of(bundle)
    text = f"The key has {has} bits." if has else "The key is not an RSA key."
    return has in key_document.SIZES, text, "Use a key of 2048, 3072 or 4096 bits."


def _ops_wrap_unwrap(bundle: KeyBundle, _evidence: Evidence) -> Judgement:
    allowed = bundle["key"].get("key_ops", [])
    holds = set(key_document.OPERATIONS) <= set(allowed)
    text = f"The key allows {', '.join(allowed) or 'nothing'}."
    return holds, text, "Allow wrapKey and unwrapKey with M(azbatch.cmk.keyvault_cmk_key)."


def _access_granted(vault: Vault, evidence: Evidence) -> Judgement:
    if not evidence.existing:
        return None, "the account has no identity.", ""
    if isinstance(evidence.assignments, CmkError):
        return None, _unseen("role assignments", evidence.assignments), ""
    missing = {principal: _missing(vault, principal, evidence) for principal in evidence.existing}
    lacking: dict[str, list[str]] = {}
    for principal, names in missing.items():
        if names:
            lacking.setdefault(", ".join(names), []).append(principal)
    if evidence.by_any and not all(missing.values()):
        return True, "One of the identities may get, wrapKey and unwrapKey.", ""
    they_lack = [
        f"principal {who[0]} lacks {names}" if len(who) == 1 else f"principals {' and '.join(who)} lack {names}"
        for names, who in lacking.items()
    ]
    text = (
        f"The {'; the '.join(they_lack)} in the vault {vault['name']}."
        if lacking
        else "The identity may get, wrapKey and unwrapKey."
    )
    return not lacking, text, "Grant it with M(azbatch.cmk.keyvault_cmk_access)."


def _missing(vault: Vault, principal: str, evidence: Evidence) -> list[str]:
    return sorted(set(access_document.NEEDED) - _granted(vault, principal, evidence))


def _granted(vault: Vault, principal: str, evidence: Evidence) -> set[str]:
    assignments = evidence.assignments.get(principal, ()) if isinstance(evidence.assignments, Mapping) else ()
    return access_document.granted(vault, principal, evidence.key.name, assignments, evidence.definitions)


def granted_to_each(evidence: Evidence) -> dict[str, set[str]]:
    """The permissions of each of the identities, by its principal; none if the vault could not be read."""
    vault = evidence.vault
    if vault is None or isinstance(vault, CmkError):
        return {}
    return {principal: _granted(vault, principal, evidence) for principal in evidence.existing}


def has_access(evidence: Evidence) -> bool:
    """Whether one of the identities may use the key. Batch may use any of them."""
    return any(granted.issuperset(access_document.NEEDED) for granted in granted_to_each(evidence).values())


def access_since(evidence: Evidence) -> float:
    """When the account was granted the access that it has. 0 if it has no access, or has it by an access policy, which
    has no time. If several identities have access, the latest time, because Batch may use any of them."""
    vault = evidence.vault
    if not isinstance(vault, Mapping):
        return 0
    have_access = [principal for principal in evidence.existing if not _missing(vault, principal, evidence)]
    return max((_granted_since(vault, evidence, principal, undated=0) for principal in have_access), default=0)


def _granted_since(vault: Vault, evidence: Evidence, principal: str, *, undated: float) -> float:
    """The earliest time at which the role assignments of the principal were enough. 0 if its access does not depend on
    role assignments. `undated` is the time of an assignment without a time."""
    given = evidence.assignments.get(principal, ()) if isinstance(evidence.assignments, Mapping) else ()
    created = {one["id"]: moment(one["properties"].get("createdOn")) or undated for one in given}
    for time in sorted(created.values()):
        older = replace(evidence, assignments={principal: [one for one in given if created[one["id"]] <= time]})
        if not _missing(vault, principal, older):
            return time
    return 0


def vault_changed_at(evidence: Evidence) -> float:
    """When the vault was changed. The present time if that is not known."""
    return dated_change(evidence) or evidence.now


def dated_change(evidence: Evidence) -> float | None:
    """When the vault was changed; None if that is not known."""
    document = evidence.vault.get("systemData") if isinstance(evidence.vault, Mapping) else None
    return moment((document or {}).get("lastModifiedAt"))


def usable_since(evidence: Evidence) -> float:
    """Since when the account can use the key, as far as the access and the vault show: after the last change of both.
    Infinite if one of its identities cannot use the key, or if that is not known."""
    vault, principals = evidence.vault, evidence.principals
    if not isinstance(vault, Mapping) or not principals:
        return inf
    is_open = vault_document.lets_azure_services_in(vault) and not vault_document.is_in_perimeter(vault)
    if not is_open or any(_missing(vault, principal, evidence) for principal in principals):
        return inf
    granted = [_granted_since(vault, evidence, principal, undated=inf) for principal in principals]
    return max(dated_change(evidence) or inf, *granted)


IN_PERIMETER = "A network security perimeter secures the vault. Its access rules are not read."
OPEN_PERIMETER = "Allow Batch there, by a user-assigned identity, or take the vault out of it."

ONLY_ADDRESSES = (
    "The vault's firewall blocks trusted Microsoft services, but allows IP addresses that may be those of Batch."
)
LET_SERVICES_IN = "Allow trusted Microsoft services (networkAcls.bypass: AzureServices)."


def _network_open(vault: Vault, _evidence: Evidence) -> Judgement:
    if vault_document.is_in_perimeter(vault):
        return None, f"{IN_PERIMETER} {OPEN_PERIMETER}", ""
    is_open = vault_document.lets_azure_services_in(vault)
    if not is_open and vault_document.may_let_azure_services_in(vault):
        return None, f"{ONLY_ADDRESSES} {LET_SERVICES_IN}", ""
    text = (
        "The vault allows trusted Microsoft services."
        if is_open
        else "The vault's firewall blocks trusted Microsoft services."
    )
    return is_open, text, LET_SERVICES_IN


_JUDGES: dict[str, Callable[[Evidence], Judgement]] = {
    "identity_present": _identity_present,
    "vault_reachable": _vault_reachable,
    "vault_soft_delete": _of_vault(_soft_delete),
    "vault_purge_protection": _purge_protection,
    "same_tenant": _of_vault(_same_tenant),
    "key_exists": _key_exists,
    "key_enabled": _of_key(_enabled),
    "key_not_expired": _of_key(_not_expired),
    "key_type_rsa": _of_key(_type_rsa),
    "key_size_supported": _of_key(_size_supported),
    "key_ops_wrap_unwrap": _of_key(_ops_wrap_unwrap),
    "access_granted": _of_vault(_access_granted),
    "network_open_to_batch": _of_vault(_network_open),
}
NAMES = tuple(_JUDGES)
# The checks that must pass for an account to stay available. Batch requires the others only when the key is set.
KEEP_AVAILABLE = (
    "identity_present",
    "vault_reachable",
    "key_exists",
    "key_enabled",
    "key_not_expired",
    "key_ops_wrap_unwrap",
    "access_granted",
    "network_open_to_batch",
)
