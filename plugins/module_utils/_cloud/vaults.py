# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Key vaults, as resources.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._errors import Denied
from .._ids import place_of
from . import _sdk
from .resources import Resources
from .session import Session
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
        def read() -> dict[str, Any] | None:
            with _sdk.translated(f"read the key vault {name}"):
                return _sdk.document_or_none(self._client().vaults.get, group, name)

        return self._session.seen.read(read, "vault", group.lower(), name.lower())

    def find(self, name: str, group: str | None) -> dict[str, Any] | None:
        """The vault of that name: in that resource group, or wherever else it is in the subscriptions seen.

        There is but one of a name in all of Azure, so the group just spares the search.
        """
        there = self.get(group, name) if group is not None else None
        if there is not None:
            return there
        for subscription in self._resources.subscription_ids():
            with _sdk.translated(f"list the key vaults of the subscription {subscription}"):
                vaults = _sdk.documents(self._client(subscription).vaults.list_by_subscription)
            found = next((vault for vault in vaults if vault["name"].lower() == name.lower()), None)
            if found is not None:
                return found
        return None

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
        def read() -> list[dict[str, Any]]:
            with _sdk.translated(f"list the deleted key vaults of the subscription {subscription}"):
                return _sdk.documents(self._client(subscription).vaults.list_deleted)

        try:
            vaults = self._session.seen.read(read, "vault", "deleted", subscription)
        except Denied:
            return None
        return next((vault for vault in vaults if vault["name"].lower() == name.lower()), None)

    def _client(self, subscription_id: str | None = None) -> Any:
        return self._session.client("azure-mgmt-keyvault", "KeyVaultManagementClient", subscription_id)
