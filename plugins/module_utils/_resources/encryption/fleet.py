# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads many Batch accounts with the data that their keys depend on. Changes nothing.

Sends requests for each subscription, vault, key and role. Sends a request for each account only if pools are requested.

This module util is private to the collection.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence, Set
from functools import partial
from itertools import chain
from typing import Any

from ..._azure.resources import Identities, Resources
from ..._azure.session import Session
from ..._azure.visible import VisibleAccounts
from ..._checks.diagnosis import depends_on_account_change
from ..._checks.one_of_many import FleetData, observed_of
from ..._checks.preflight import is_unreachable
from ..._checks.usage import Listed
from ..._core.concurrent import map_concurrent, value_or_error
from ..._core.documents import Account, KeyBundle, RoleAssignment
from ..._core.errors import CmkError, NotConverged
from ..._core.ids import KeyIdentifier, key_of, principals_of
from ..._core.plan import MAX_READ_DELAY
from ..access.client import Access
from ..access.document import by_principal, roles_in, scope_of
from ..key.client import Keys
from ..key.document import identifier_of
from ..vault.document import uses_rbac
from ..vault.reads import VaultReads


class Fleet:
    def __init__(
        self,
        session: Session,
        resources: Resources,
        visible: VisibleAccounts,
        vaults: VaultReads,
        keys: Keys,
        access: Access,
        identities: Identities,
    ) -> None:
        self._session = session
        self._resources = resources
        self._visible = visible
        self._vaults = vaults
        self._keys = keys
        self._access = access
        self._identities = identities

    def read(self, scope: Any) -> dict[str, Any]:
        """The accounts of the scope (_audit.options), and the data that their keys depend on.

        The names of versions and keys are their identifiers in lower case. If data could not be read, the value is
        the error. If a resource does not exist, the value is None.
        """
        listed = self._shown(scope)
        accounts: Sequence[Account] = listed["accounts"]
        used = {key.folded: key for key in map(key_of, accounts) if key}
        keys = {key.versionless.folded: key.versionless for key in used.values()}
        vaults = self._vaults.named({key.vault for key in keys.values()}, _subscriptions_of(accounts))
        read = map_concurrent(lambda name: self._key(keys[name]), keys)
        unseen = {name for name, vault in vaults.items() if not isinstance(vault, Mapping)}
        unreachable = {key.vault for name, key in keys.items() if is_unreachable(read[name]["newest"])}
        deleted_vaults = self._vaults.deleted(unseen, unseen & unreachable)
        grants, definitions = self._grants(keys, vaults, accounts)
        fleet = {
            **listed,
            "vaults": vaults,
            "deleted_vaults": deleted_vaults,
            "keys": read,
            "named": self._named(used, read),
            "grants": grants,
            "definitions": definitions,
            "identities": self._each_identity(accounts),
            "pools": self._pools(accounts) if scope.pools else {},
            "subscription_names": self._subscription_names(),
            "tenant_id": self._session.caller["tenant_id"],
            "now": self._keys.now,
        }
        # Without the pools, it is not judged whether an account is available after a repair.
        return {**fleet, "changed_at": self._changed_at(accounts, fleet, judges_repairs=scope.pools)}

    def _shown(self, scope: Any) -> Listed:
        """The accounts, once lists show the keys that the run has set, or no list can be older than these writes."""
        listed: Listed = {"accounts": [], "unlisted": []}

        def hidden() -> CmkError | None:
            nonlocal listed
            listed = self._accounts(scope)
            if not any(map(self._session.journal.may_hide_write, listed["accounts"])):
                return None
            return NotConverged("Lists of Batch accounts do not show yet which keys this run has set.")

        self._session.poll_until(hidden, time.monotonic() + MAX_READ_DELAY, "Azure to list the keys of this run")
        return listed

    def _accounts(self, scope: Any) -> Listed:
        if scope.group is None:
            return self._visible.listed(scope.subscriptions)
        listed = self._resources.accounts(self._session.subscription_id, scope.group)
        named = scope.account and scope.account.lower()
        return {"accounts": [one for one in listed if not named or one["name"].lower() == named], "unlisted": []}

    def _subscription_names(self) -> dict[str, str | None]:
        """The names of subscriptions by their ids in lower case. An error is ignored, because a report is complete
        without the names."""
        names = _or_error(self._resources.subscription_names)
        return {} if isinstance(names, CmkError) else {one.lower(): name for one, name in names.items()}

    def _key(self, key: KeyIdentifier) -> dict[str, Any]:
        newest = _or_error(partial(self._keys.bundle, key))
        is_there = isinstance(newest, Mapping)
        return {
            "newest": newest,
            "versions": _or_error(partial(self._keys.versions, key)) if is_there else None,
            "policy": _or_error(partial(self._keys.rotation_policy, key)) if is_there else None,
            "deleted": _or_error(partial(self._keys.deleted, key)) if newest is None else None,
        }

    def _named(self, used: Mapping[str, KeyIdentifier], read: Mapping[str, Any]) -> dict[str, Any]:
        """The versions that accounts are pinned to, or the error if their key could not be read."""
        newest: dict[str, KeyBundle | CmkError | None] = {
            name: read[key.versionless.folded]["newest"] for name, key in used.items() if key.version
        }
        older = {
            name
            for name, one in newest.items()
            if one is not None and not isinstance(one, CmkError) and identifier_of(one).folded != name
        }
        return newest | map_concurrent(lambda name: _or_error(partial(self._keys.bundle, used[name])), older)

    def _changed_at(self, accounts: Sequence[Account], fleet: FleetData, *, judges_repairs: bool) -> dict[str, Any]:
        """When accounts were changed, by their ids in lower case. Read only of accounts of which that time says more.
        None if the time could not be read."""
        doubtful = [
            account
            for account in accounts
            if (key := key_of(account))
            and depends_on_account_change(observed_of(account, key, fleet), judges_repairs=judges_repairs)
        ]
        changed_at, _now = self._resources.changed_at_of_each(doubtful)
        return {name.lower(): at for name, at in changed_at.items()}

    def _grants(
        self, keys: Mapping[str, KeyIdentifier], vaults: Mapping[str, Any], accounts: Sequence[Account]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """For each key in a vault that uses Azure RBAC, the role assignments that apply to the key; and the
        assigned roles."""
        principals = {one.lower() for account in accounts for one in principals_of(account.get("identity", {}))}
        scopes = {
            name: scope_of(vaults[key.vault], key.name)
            for name, key in keys.items()
            if isinstance(vaults[key.vault], Mapping) and uses_rbac(vaults[key.vault])
        }

        def grants(name: str) -> Any:
            return _or_error(lambda: _by_holder(self._access.all_assignments(scopes[name]), principals))

        found = map_concurrent(grants, scopes)
        at = {guid: scopes[name] for name, given in found.items() for guid in _roles_in(given)}
        roles = map_concurrent(lambda guid: _or_error(lambda: self._access.definitions(at[guid], [guid])[guid]), at)
        hidden = {guid: reason for guid, reason in roles.items() if isinstance(reason, CmkError)}
        fleet = {
            name: next((hidden[guid] for guid in _roles_in(given) if guid in hidden), given)
            for name, given in found.items()
        }
        return fleet, roles

    def _each_identity(self, accounts: Sequence[Account]) -> dict[str, Any]:
        """By subscription, its user-assigned identities (Identities.listed), for the subscriptions of the identities of
        accounts that use a key. If the identity may exist, an error is in place of its object id."""
        assigned = [one.get("identity", {}).get("userAssignedIdentities", {}) for one in accounts if key_of(one)]
        subscriptions = {identity.split("/")[2].lower() for each_of in assigned for identity in each_of}
        listed = map_concurrent(lambda one: _or_error(lambda: self._identities.listed(one)), subscriptions)
        # Azure may list only identities that the caller may read, so an identity that is not listed is read by itself.
        hidden = {
            one.lower(): one
            for each_of in assigned
            for one in each_of
            if isinstance(there := listed[one.split("/")[2].lower()], Mapping) and one.lower() not in there
        }
        read = map_concurrent(lambda one: _or_error(partial(self._identities.principal_id, hidden[one])), hidden)
        for name, principal_id in read.items():
            if principal_id is not None:
                listed[name.split("/")[2]][name] = principal_id
        return listed

    def _pools(self, accounts: Sequence[Account]) -> dict[str, Any]:
        names = [account["id"].lower() for account in accounts]
        return map_concurrent(lambda name: _or_error(lambda: self._resources.pools(name)), names)


def _or_error(read: Callable[[], Any]) -> Any:
    """The value, or the error: one key that cannot be read must not prevent the reads of all others."""
    return value_or_error(read, CmkError)


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
