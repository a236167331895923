# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The documents that the keys of many Batch accounts depend on. Pure: asks for documents of each subscription, vault,
key and role. Asks for a document of each account only if pools are requested.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from itertools import chain
from typing import Any

from .._azure.facts import Facts
from .._checks.diagnosis import depends_on_account_change
from .._checks.one_of_many import FleetData, observed_of
from .._checks.preflight import is_unreachable
from .._checks.usage import BATCH, Listed
from .._core.docs import Docs
from .._core.errors import CmkError, Denied, NotFound
from .._core.ids import KeyIdentifier, parse_user_assigned_id
from .._documents import refs
from .._documents.access import RoleAssignment, by_principal, roles_in, scope_of
from .._documents.account import Account, key_of
from .._documents.identity import ManagedIdentity, principals_of
from .._documents.key import KeyBundle, identifier_of
from .._documents.vault import uses_rbac
from . import services, users, vaults


def listed(docs: Docs, scope: Any, facts: Facts, own: str | None) -> Listed:
    """The accounts of the scope (_audit.options). `own` is the task's own subscription, if it is known. Waits until
    lists show the keys that the run has set, or until no list can be older than these writes."""
    if scope.group is None:
        found = users.of_subscriptions(docs, scope.subscriptions, own)
    else:
        named = scope.account and scope.account.lower()
        of_group = docs.items(refs.accounts_of(facts.subscription, scope.group))
        found = {"accounts": [one for one in of_group if not named or one["name"].lower() == named], "unlisted": []}
    return found


def read(
    docs: Docs, accounts: Sequence[Account], tenant_id: str, *, with_pools: bool, vault_used_by: str
) -> dict[str, Any]:
    """The names of versions and keys are their identifiers in lower case. If a document could not be read, the value is
    the error. If it does not exist, the value is None."""
    used = {key.folded: key for key in map(key_of, accounts) if key}
    keys = {key.versionless.folded: key.versionless for key in used.values()}
    docs.want(refs.SUBSCRIPTIONS, *map(refs.key, keys.values()))
    names = {key.vault for key in keys.values()}
    found = vaults.named(docs, names, _subscriptions_of(accounts))
    of_keys = _keys(docs, keys)
    unseen = {name for name, vault in found.items() if not isinstance(vault, Mapping)}
    unreachable = {key.vault for name, key in keys.items() if is_unreachable(of_keys[name]["newest"])}
    grants, definitions = _grants(docs, keys, found, accounts)
    fleet = {
        "accounts": accounts,
        "tenant_id": tenant_id,
        "vaults": found,
        "deleted_vaults": vaults.deleted(docs, unseen, unseen & unreachable),
        "keys": of_keys,
        "named": _named(docs, used, of_keys),
        "grants": grants,
        "definitions": definitions,
        "identities": _identities(docs, accounts),
        "subscription_names": _subscription_names(docs),
        "now": max((now for key in keys.values() if (now := docs.of(refs.key(key)).now)), default=docs.now),
    }
    # Without the pools, it is not judged whether an account is available after a repair.
    fleet["changed_at"] = _changed_at(docs, accounts, fleet, judges_repairs=with_pools)
    pools = {account["id"].lower(): refs.pools_of(account["id"]) for account in accounts} if with_pools else {}
    docs.want(*pools.values())
    others = services.not_asked(names) if vault_used_by == BATCH else services.of_vaults(docs, names)
    return {**fleet, "other_users": others, "pools": {name: docs.known(ref) for name, ref in pools.items()}}


def _subscription_names(docs: Docs) -> dict[str, str | None]:
    """The names of subscriptions by their ids in lower case. An error is ignored, because a report is complete without
    the names."""
    listed = docs.known(refs.SUBSCRIPTIONS)
    if listed is None or isinstance(listed, CmkError):
        return {}
    return {one["subscriptionId"].lower(): one.get("displayName") for one in listed}


def _keys(docs: Docs, keys: Mapping[str, KeyIdentifier]) -> dict[str, Any]:
    newest = {name: docs.known(refs.key(key)) for name, key in keys.items()}
    for name, key in keys.items():
        if isinstance(newest[name], Mapping):
            docs.want(refs.versions_of(key), refs.rotation_policy_of(key))
        elif newest[name] is None:
            docs.want(refs.deleted_key(key))

    def of(name: str, key: KeyIdentifier) -> dict[str, Any]:
        exists, is_missing = isinstance(newest[name], Mapping), newest[name] is None
        deleted = docs.known(refs.deleted_key(key)) if is_missing else None
        return {
            "newest": newest[name],
            "versions": docs.known(refs.versions_of(key)) if exists else None,
            "policy": docs.known(refs.rotation_policy_of(key)) if exists else None,
            "deleted": None if isinstance(deleted, Denied) else deleted,
        }

    return {name: of(name, key) for name, key in keys.items()}


def _named(docs: Docs, used: Mapping[str, KeyIdentifier], of_keys: Mapping[str, Any]) -> dict[str, Any]:
    """The versions that accounts are pinned to, or the error if their key could not be read."""
    newest: dict[str, KeyBundle | CmkError | None] = {
        name: of_keys[key.versionless.folded]["newest"] for name, key in used.items() if key.version
    }
    older = {
        name: refs.key(used[name])
        for name, one in newest.items()
        if one is not None and not isinstance(one, CmkError) and identifier_of(one).folded != name
    }
    docs.want(*older.values())
    return newest | {name: docs.known(ref) for name, ref in older.items()}


def _changed_at(
    docs: Docs, accounts: Sequence[Account], fleet: FleetData, *, judges_repairs: bool
) -> dict[str, float | None]:
    """When accounts were changed, by their ids in lower case. Read only of accounts of which that time says more. None
    if the time could not be read."""
    doubtful = [
        account
        for account in accounts
        if (key := key_of(account))
        and depends_on_account_change(observed_of(account, key, fleet), judges_repairs=judges_repairs)
    ]
    return {name.lower(): at for name, at in users.changed_at(docs, doubtful).items()}


def _grants(
    docs: Docs, keys: Mapping[str, KeyIdentifier], found: Mapping[str, Any], accounts: Sequence[Account]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """For each key in a vault that uses Azure RBAC, the role assignments that apply to the key; and the assigned
    roles."""
    principals = {one.lower() for account in accounts for one in principals_of(account.get("identity", {}))}
    scopes = {
        name: scope_of(found[key.vault], key.name)
        for name, key in keys.items()
        if isinstance(found[key.vault], Mapping) and uses_rbac(found[key.vault])
    }
    docs.want(*map(refs.assignments_at, scopes.values()))
    grants: dict[str, Any] = {}
    for name, scope in scopes.items():
        listed = docs.known(refs.assignments_at(scope))
        grants[name] = listed if isinstance(listed, CmkError) else _by_holder(listed or [], principals)
    at = {guid: refs.role(scopes[name], guid) for name, given in grants.items() for guid in _roles_in(given)}
    docs.want(*at.values())
    roles: dict[str, Any] = {}
    for guid, ref in at.items():
        role = docs.known(ref)
        roles[guid] = role["properties"] if isinstance(role, Mapping) else role
    hidden = {guid: reason for guid, reason in roles.items() if isinstance(reason, CmkError)}
    return {
        name: next((hidden[guid] for guid in _roles_in(given) if guid in hidden), given)
        for name, given in grants.items()
    }, roles


def _identities(docs: Docs, accounts: Sequence[Account]) -> dict[str, Any]:
    """By subscription, the object ids of its user-assigned identities by their resource ids in lower case, for the
    subscriptions of the identities of accounts that use a key. If the identity may exist, an error is in place of its
    object id."""
    assigned = [one.get("identity", {}).get("userAssignedIdentities", {}) for one in accounts if key_of(one)]
    subscriptions = {identity.split("/")[2].lower() for each_of in assigned for identity in each_of}
    docs.want(*map(refs.identities_of, subscriptions))
    read = {one: docs.known(refs.identities_of(one)) for one in subscriptions}
    listed: dict[str, Any] = {name: of if isinstance(of, CmkError) else _by_id(of or []) for name, of in read.items()}
    # Azure may list only identities that the caller may read, so an identity that is not listed is read by itself.
    hidden = {
        one.lower(): refs.identity(parse_user_assigned_id(one, "identity_id"))
        for each_of in assigned
        for one in each_of
        if isinstance(there := listed[one.split("/")[2].lower()], Mapping) and one.lower() not in there
    }
    docs.want(*hidden.values())
    for name, ref in hidden.items():
        found = docs.known(ref)
        if isinstance(found, CmkError) and not isinstance(found, NotFound):
            listed[name.split("/")[2]][name] = found
        elif isinstance(found, Mapping):
            listed[name.split("/")[2]][name] = found["properties"]["principalId"]
    return listed


def _by_id(identities: Sequence[ManagedIdentity]) -> dict[str, str]:
    return {one["id"].lower(): one["properties"]["principalId"] for one in identities}


def _subscriptions_of(accounts: Sequence[Account]) -> list[str]:
    return list(dict.fromkeys(account["id"].split("/")[2].lower() for account in accounts if key_of(account)))


def _by_holder(assignments: Sequence[RoleAssignment], principals: Set[str]) -> dict[str, Any]:
    """The assignments of each principal, and those of groups. The members of a group are not known here."""
    held = by_principal(assignments)
    others = [one for holder, given in held.items() if holder not in principals for one in given]
    return {
        "by_principal": {holder: given for holder, given in held.items() if holder in principals},
        "of_groups": [one for one in others if one["properties"].get("principalType") == "Group"],
    }


def _roles_in(grants: Any) -> list[str]:
    if isinstance(grants, CmkError):
        return []
    return roles_in([*chain.from_iterable(grants["by_principal"].values()), *grants["of_groups"]])
