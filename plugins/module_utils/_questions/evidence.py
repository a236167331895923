# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The documents of a key and of the account's identities that preflight and the diagnosis need. Pure: asks for
documents.

If the caller may not read a document, or the service does not respond, the value is the error with the reason.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard, TypeVar

from .._azure.facts import Facts
from .._checks.diagnosis import Symptoms, depends_on_account_change, possibly_lost
from .._checks.preflight import Evidence, failed_checks, is_unreachable, lasting, without_deleted
from .._checks.versions import MARGIN_SECONDS
from .._core.docs import Docs, Ref
from .._core.errors import CmkError, Denied, NotFound, Unavailable
from .._core.ids import KeyIdentifier, parse_user_assigned_id, place_of
from .._documents import refs
from .._documents.access import RoleAssignment, by_principal, encryption_users, roles_in, scope_of
from .._documents.account import Account
from .._documents.identity import is_gone, principals_of
from .._documents.key import TYPES, KeyBundle, KeyItem, ended_at, version_of
from .._documents.vault import Vault, uses_rbac
from . import users, vaults

T = TypeVar("T")


@dataclass(frozen=True)
class Wanted:
    """A key, and the principals and the tenant of the account that uses it. The vault is searched for in the resource
    group first, which is in the subscription. `account` is the account in a message."""

    key: KeyIdentifier
    principals: Sequence[str]
    tenant_id: str | None
    subscription: str
    group: str | None
    account: str = "account"


def of_account(account: Account, key: KeyIdentifier, facts: Facts, vault_group: str | None = None) -> Wanted:
    """A key that the account uses or is about to use. The vault is often in the resource group of the account, so that
    group is searched first."""
    identity, near = account.get("identity", {}), vaults.group_of(account["id"], facts.vaults_in)
    # The document of an account has the tenant only with a system-assigned identity. It is always the caller's tenant.
    tenant = identity.get("tenantId") or facts.caller["tenant_id"]
    name = f"Batch account {account['name']}"
    return Wanted(key, principals_of(identity), tenant, facts.vaults_in, vault_group or near, name)


def again(docs: Docs, evidence: Evidence, facts: Facts) -> Evidence:
    """The evidence of the same key and principals."""
    vault = evidence.vault
    place, group, _name = place_of(vault["id"]) if isinstance(vault, Mapping) else (facts.vaults_in, None, "")
    wanted = Wanted(evidence.key, evidence.principals, evidence.tenant_id, place, group, evidence.account)
    return gather(docs, wanted)


def certain(docs: Docs, wanted: Wanted) -> Evidence:
    """The evidence. If a check fails, what earlier tasks have read is read again, because they may have read it before
    a repair."""
    return _certain(docs, gather(docs, wanted))


def _certain(docs: Docs, found: Evidence) -> Evidence:
    if failed_checks(lasting(found)):
        docs.doubt()
    return found


def gather(docs: Docs, wanted: Wanted) -> Evidence:
    key, principals = wanted.key, wanted.principals
    docs.want(refs.key(key))
    if (place := vaults.likely(docs, key.vault, wanted.subscription, wanted.group)) is not None:
        docs.want(place)
    vault = _or_reason(lambda: vaults.find(docs, key.vault, wanted.subscription, wanted.group))
    assignments: Any = {}
    known: Any = {}
    if _is_rbac(vault):
        roles = _or_reason(lambda: _roles(docs, vault, key.name, principals))
        assignments, known = (roles, {}) if isinstance(roles, CmkError) else roles
    return Evidence(
        key=key,
        principals=principals,
        tenant_id=wanted.tenant_id,
        vault=vault,
        bundle=_or_reason(lambda: docs.get(refs.key(key))),
        assignments=assignments,
        definitions=known,
        now=_now(docs, key),
        account=wanted.account,
    )


def _roles(
    docs: Docs, vault: Vault, key_name: str, principals: Sequence[str]
) -> tuple[dict[str, list[RoleAssignment]], dict[str, Any]]:
    lists = {one: refs.assignments_of(scope_of(vault, key_name), one) for one in principals}
    docs.want(*lists.values())
    assignments = {principal: docs.items(ref) for principal, ref in lists.items()}
    everyone = [assignment for of_one in assignments.values() for assignment in of_one]
    return assignments, definitions(docs, vault["id"], roles_in(everyone))


def definitions(docs: Docs, scope: str, guids: Iterable[str]) -> dict[str, Any]:
    """The definitions of the roles with these GUIDs, by GUID in lower case."""
    each = [refs.role(scope, guid) for guid in guids]
    docs.want(*each)
    return {role["name"].lower(): role["properties"] for ref in each if (role := docs.get(ref))}


def with_access_now(docs: Docs, evidence: Evidence) -> Evidence:
    """The same evidence, with the key and the access to the key as they are now. The vault grants the access if it does
    not use Azure RBAC.

    Data that the caller could not read before is not read, because preflight has warned. If other data cannot be read
    now, that is an error, not a warning.
    """
    vault, now = evidence.vault, evidence
    reads_key = isinstance(evidence.bundle, Mapping)
    if reads_key:
        docs.want(refs.versions_of(evidence.key))
    if vault is None or isinstance(vault, CmkError) or isinstance(evidence.assignments, CmkError):
        return _with_key_now(docs, evidence) if reads_key else evidence
    by_role = refs.assignments_at(scope_of(vault, evidence.key.name))
    docs.want(by_role if uses_rbac(vault) else refs.vault(vault["id"]))
    if reads_key:
        now = _with_key_now(docs, evidence)
    if not uses_rbac(vault):
        there = docs.get(refs.vault(vault["id"]))
        if there is None:
            raise NotFound(
                f"The vault {vault['id']} was deleted while an account was moved to one of its keys.",
                code="vault_not_found",
                remedy="Recover the vault, or use a key of another vault.",
            )
        now, vault = replace(now, vault=there), there
    return _with_roles_now(docs, now, vault) if uses_rbac(vault) else now


def _with_key_now(docs: Docs, evidence: Evidence) -> Evidence:
    """The evidence with the version (`bundle`), if it was changed since the evidence was read. The list of versions,
    which the tasks of a run share, shows each change."""
    items, bundle = docs.known(refs.versions_of(evidence.key)), evidence.bundle
    if items and not isinstance(items, CmkError) and isinstance(bundle, Mapping):
        version = version_of(bundle["key"])
        newest = max(items, key=lambda item: item["attributes"]["created"])
        item = next((one for one in items if version_of(one) == version), None)
        is_same = item is not None and all(
            item["attributes"].get(name) == bundle["attributes"].get(name)
            for name in ("enabled", "updated", "nbf", "exp")
        )
        if is_same and (evidence.key.version or version_of(newest) == version):
            return evidence
    return replace(evidence, bundle=docs.get(refs.key(evidence.key)), now=_now(docs, evidence.key))


def _with_roles_now(docs: Docs, evidence: Evidence, vault: Vault) -> Evidence:
    """Tasks that wait for the list of all assignments at the key's scope share it. The list does not show the roles
    that a principal has as a member of a group. If a principal has no role in the list, its assignments are read
    separately.
    """
    scope = scope_of(vault, evidence.key.name)
    listed = by_principal(encryption_users(docs.items(refs.assignments_at(scope))))
    single = {one: refs.assignments_of(scope, one) for one in evidence.principals if not listed.get(one.lower())}
    docs.want(*single.values())
    assignments = {
        one: docs.items(single[one]) if one in single else listed[one.lower()] for one in evidence.principals
    }
    # Roles that were assigned since the evidence was first read. If a definition cannot be read, the role grants
    # nothing.
    everyone = [assignment for of_one in assignments.values() for assignment in of_one]
    new = sorted(set(roles_in(everyone)) - evidence.definitions.keys())
    found = _or_reason(lambda: definitions(docs, vault["id"], new))
    known = {} if isinstance(found, CmkError) else found
    return replace(evidence, assignments=assignments, definitions={**evidence.definitions, **known})


def _now(docs: Docs, key: KeyIdentifier) -> float:
    """The time by Key Vault's clock, because the times of keys are by that clock."""
    return docs.of(refs.key(key)).now or docs.now


# Whether Batch can use the key of an account


def of_key_in_use(docs: Docs, account: Account, wanted: Wanted, *, is_report: bool) -> Symptoms:
    """The data that shows whether Batch can use the key. For `is_report` see `unnoticed_repairs`."""
    docs.want(refs.versions_of(wanted.key))
    evidence = gather(docs, wanted)
    is_lost = evidence.vault is None
    found = replace(
        _of_identities(docs, account, evidence),
        deleted_vault=_deleted_vault(docs, wanted, is_unreachable=False) if is_lost else None,
        versions=_versions(docs, wanted.key) if isinstance(evidence.bundle, Mapping) else None,
        is_report=is_report,
    )
    _certain(docs, found.evidence)
    found = _with_time(docs, account, found)
    # Only of versions in doubt, because many accounts ask that.
    return replace(found, unsupported=_unsupported(docs, wanted.key, found))


def symptoms(docs: Docs, account: Account, wanted: Wanted) -> Symptoms:
    """The data of the diagnosis."""
    evidence, key = gather(docs, wanted), wanted.key
    there, unreachable = isinstance(evidence.vault, Mapping), is_unreachable(evidence.bundle)
    versions = None if evidence.vault is None else _versions(docs, key)
    found = replace(
        _of_identities(docs, account, evidence),
        # An error if a deleted vault may exist that the caller may not read.
        deleted_vault=None if there else _deleted_vault(docs, wanted, is_unreachable=unreachable),
        deleted_key=deleted_key(docs, key) if evidence.bundle is None else None,
        versions=versions,
        is_report=True,
    )
    _certain(docs, found.evidence)
    whenever = replace(found, account_changed_at=None)
    # Batch may name a version that it needs for a move.
    ended = _unsupported(docs, key, whenever, ended_for=MARGIN_SECONDS)
    return _with_time(docs, account, replace(found, unsupported=ended))


def deleted_key(docs: Docs, key: KeyIdentifier) -> Any:
    """The deleted key; None also if the caller may not read it."""
    found = docs.known(refs.deleted_key(key))
    if isinstance(found, Denied):
        return None
    if isinstance(found, CmkError):
        raise found
    return found


def _deleted_vault(docs: Docs, wanted: Wanted, *, is_unreachable: bool) -> Any:
    names = {wanted.key.vault.lower()}
    found = vaults.deleted(docs, names, names if is_unreachable else set(), wanted.subscription)
    return found[wanted.key.vault.lower()]


def _with_time(docs: Docs, account: Account, found: Symptoms) -> Symptoms:
    """If the time of the account's last change says more about its availability, add that time. If the account was
    changed after the key, Batch has used the key."""
    if not depends_on_account_change(found):
        return found
    return replace(found, account_changed_at=users.changed_at(docs, [account])[account["id"]])


def _versions(docs: Docs, key: KeyIdentifier) -> list[KeyItem] | CmkError | None:
    """The versions of the key, or why they could not be listed."""
    listed = docs.known(refs.versions_of(key))
    if isinstance(listed, CmkError) and not isinstance(listed, Denied | Unavailable):
        raise listed
    return listed


def _unsupported(docs: Docs, key: KeyIdentifier, found: Symptoms, *, ended_for: float = 0) -> list[str]:
    """The unusable versions of a type that Batch does not support, which a list of versions does not show: of those
    that the account may use, and of those that have been unusable for less than `ended_for` seconds."""
    versions, now = found.versions, found.evidence.now
    if versions is None or isinstance(versions, CmkError):
        return []
    possible = possibly_lost(found)
    ended = [one for one in versions if now - ended_for < ended_at(one, now) <= now or version_of(one) in possible]
    return unsupported(docs, key, map(version_of, ended))


def unsupported(docs: Docs, key: KeyIdentifier, versions: Iterable[str]) -> list[str]:
    """Those of the versions that have a type that Batch does not support, so that no account has ever used them."""
    each = {version: refs.key(replace(key, version=version)) for version in versions}
    docs.want(*each.values())

    def read(ref: Ref[KeyBundle]) -> KeyBundle | CmkError | None:
        return _or_reason(lambda: docs.get(ref))

    found = {version: read(ref) for version, ref in each.items()}
    return [version for version, one in found.items() if isinstance(one, Mapping) and one["key"]["kty"] not in TYPES]


def _of_identities(docs: Docs, account: Account, evidence: Evidence) -> Symptoms:
    """The user-assigned identities of the account that were deleted, and the evidence without their access."""
    identity = account.get("identity", {})
    assigned = identity.get("userAssignedIdentities", {})
    each = {name: refs.identity(parse_user_assigned_id(name, "identity_id")) for name in assigned}
    docs.want(*each.values())
    missing = [name for name in assigned if is_gone(assigned[name], _principal_id(docs, each[name]))]
    return Symptoms(without_deleted(evidence, identity, missing), missing_identities=missing)


def _principal_id(docs: Docs, ref: Ref[Any]) -> str | CmkError | None:
    """The object id; None if there is no such identity."""
    found = docs.known(ref)
    if isinstance(found, NotFound) or found is None:
        return None
    if isinstance(found, CmkError):
        if not isinstance(found, Denied):
            raise found
        return found
    principal: str = found["properties"]["principalId"]
    return principal


def _is_rbac(vault: Vault | CmkError | None) -> TypeGuard[Vault]:
    return vault is not None and not isinstance(vault, CmkError) and uses_rbac(vault)


def _or_reason(ask: Callable[[], T]) -> T | CmkError:
    """The value, or why the caller cannot know it: a missing right or resource, or a service that does not respond."""
    try:
        return ask()
    except (Denied, NotFound, Unavailable) as reason:
        return reason
