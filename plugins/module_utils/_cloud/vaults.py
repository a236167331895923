# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Key vaults, as resources.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

from .._errors import CmkError, Denied
from .._ids import place_of
from . import _sdk
from .resources import Resources
from .session import Session
from .side_by_side import each, or_reason
from .visible import VisibleAccounts


class Vaults:
    def __init__(self, session: Session, resources: Resources, visible: VisibleAccounts) -> None:
        self._session = session
        self._resources = resources
        self._visible = visible

    def read(self, goal: Any) -> dict[str, Any]:
        vault = self.get(goal.group, goal.name)
        observed: dict[str, Any] = {"vault": vault, "deleted": None}
        if not goal.present:
            return {**observed, "visible": self._visible.read()} if vault or goal.withdrawn else observed
        if vault is not None:
            return observed
        observed["deleted"] = self._deleted(goal.name, self._session.subscription_id)
        observed["caller"] = self._session.caller
        if goal.location is None and observed["deleted"] is None:
            observed["group"] = self._resources.group(goal.group)
        return observed

    def get(self, group: str, name: str) -> dict[str, Any] | None:
        subscription = self._session.subscription_id
        return self._session.seen.read(
            lambda: self._read(subscription, group, name), "vault", group.lower(), name.lower()
        )

    def anew(self, vault_id: str) -> dict[str, Any] | None:
        """The vault as it is now."""
        return self._read(*place_of(vault_id))

    def _read(self, subscription: str, group: str, name: str) -> dict[str, Any] | None:
        with _sdk.translated(f"read the key vault {name}"):
            return _sdk.document_or_none(self._client(subscription).vaults.get, group, name)

    def find(self, name: str, group: str | None) -> dict[str, Any] | None:
        """The vault of that name: in that resource group, or wherever else it is in the subscriptions seen.

        There is but one of a name in all of Azure, so the group just spares the search.
        """
        there = self.get(group, name) if group is not None else None
        if there is not None:
            return there
        for subscription in self._resources.subscription_ids():
            found = self._listed(subscription).get(name.lower())
            if found is not None:
                return found
        return None

    def named(self, names: Set[str], subscriptions: Sequence[str]) -> dict[str, Any]:
        """The vaults of these names, in lower case: looked for in these subscriptions and, if some are not there, in
        all others that are seen.

        None if there is none; an error if there may be one where the caller may not look.
        """
        found, refused = self._in(subscriptions)
        if names - found.keys():
            others = [one for one in self._resources.listed_subscription_ids() if one.lower() not in subscriptions]
            more, refused_there = self._in(others)
            found, refused = {**more, **found}, refused or refused_there
        return {name: found.get(name, refused) for name in names}

    def _in(self, subscriptions: Sequence[str]) -> tuple[dict[str, dict[str, Any]], CmkError | None]:
        """The vaults by their names, and why one of the subscriptions could not be looked at."""
        listed = each(lambda one: or_reason(lambda: self._listed(one)), subscriptions)
        found: dict[str, dict[str, Any]] = {}
        refused = None
        for vaults in listed.values():
            if isinstance(vaults, CmkError):
                refused = vaults
            else:
                found.update(vaults)
        return found, refused

    def _listed(self, subscription: str) -> dict[str, dict[str, Any]]:
        """By their names, in lower case."""
        with _sdk.translated(f"list the key vaults of the subscription {subscription}"):
            vaults = _sdk.documents(self._client(subscription).vaults.list_by_subscription)
        return {vault["name"].lower(): vault for vault in vaults}

    def deleted(self, names: Set[str]) -> dict[str, dict[str, Any]]:
        """Those of these names, in lower case, that were deleted and can be recovered."""
        if not names:
            return {}
        subscriptions = self._resources.listed_subscription_ids()
        listed = each(self._all_deleted, subscriptions).values()
        return {one["name"].lower(): one for of_one in listed for one in of_one if one["name"].lower() in names}

    def find_deleted(self, name: str) -> dict[str, Any] | None:
        """The deleted vault of that name, in all subscriptions seen."""
        found = (self._deleted(name, subscription) for subscription in self._resources.subscription_ids())
        return next((vault for vault in found if vault is not None), None)

    def create(self, group: str, name: str, body: Mapping[str, Any]) -> None:
        """Also brings back a deleted vault, where the body says so."""
        what = f"create the key vault {name}"
        # With a vault that comes back come its keys, and who may use them.
        with self._session.changing(what, "vault", "key", "access", "role"):
            poller = self._client().vaults.begin_create_or_update(group, name, _sdk.content(body))
            _sdk.finish(poller, self._session.wait_timeout, what)

    def update(self, group: str, name: str, body: Mapping[str, Any]) -> None:
        with self._session.changing(f"change the key vault {name}"):
            self._client().vaults.update(group, name, _sdk.content(body))

    def delete(self, group: str, name: str) -> None:
        with self._session.changing(f"delete the key vault {name}"):
            self._client().vaults.delete(group, name)

    def set_policy(self, vault_id: str, operation: str, entry: Mapping[str, Any]) -> None:
        """Add, replace or remove one principal's access policy; those of others are not touched."""
        subscription, group, name = place_of(vault_id)
        body = {"properties": {"accessPolicies": [entry]}}
        with self._session.changing(f"change an access policy of the key vault {name}", "vault"):
            self._client(subscription).vaults.update_access_policy(group, name, operation, _sdk.content(body))

    def _deleted(self, name: str, subscription: str) -> dict[str, Any] | None:
        return next((vault for vault in self._all_deleted(subscription) if vault["name"].lower() == name.lower()), None)

    def _all_deleted(self, subscription: str) -> list[dict[str, Any]]:
        """Of a subscription; as if there were none where the caller may not look."""

        def read() -> list[dict[str, Any]]:
            with _sdk.translated(f"list the deleted key vaults of the subscription {subscription}"):
                return _sdk.documents(self._client(subscription).vaults.list_deleted)

        try:
            return self._session.seen.read(read, "vault", "deleted", subscription)
        except Denied:
            return []

    def _client(self, subscription_id: str | None = None) -> Any:
        return self._session.client("azure-mgmt-keyvault", "KeyVaultManagementClient", subscription_id)
