# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads that several resources need: subscriptions, resource groups, permissions, Batch accounts, and user-assigned
identities.

This module util is private to the collection.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial
from typing import Any

from .._core.concurrent import map_concurrent, value_or_error
from .._core.documents import Account, ManagedIdentity, Permission, Pool
from .._core.errors import CmkError, Denied, NotFound
from .._core.ids import UserAssignedId, key_of, parse_user_assigned_id
from .cache import JUST_NOW, RECENTLY, NotBefore
from .gateway import Answer, Gateway
from .session import Session


class Resources:
    def __init__(self, session: Session, gateway: Gateway) -> None:
        self._session = session
        self._gateway = gateway

    def group(self, name: str) -> dict[str, Any]:
        path = f"/subscriptions/{self._session.subscription_id}/resourceGroups/{name}"

        what = f"read the resource group {name}"
        found: dict[str, Any] = self._session.cache.get(
            lambda: self._gateway.get(what, path), "group", path.lower(), not_before=RECENTLY
        )
        return found

    def regions(self, namespace: str, resource_type: str) -> list[str] | None:
        """The regions where the resource provider has the resource type; None if the caller may not read them."""
        path = f"/subscriptions/{self._session.subscription_id}/providers/{namespace}"

        def read() -> list[str] | None:
            try:
                types = self._gateway.get(f"read the regions of {namespace}", path)["resourceTypes"]
            except Denied:
                return None
            listed = (one["locations"] for one in types if one["resourceType"].lower() == resource_type.lower())
            return next(listed, None)

        found: list[str] | None = self._session.cache.get(read, "regions", path, not_before=RECENTLY)
        return found

    def subscription_ids(self) -> list[str]:
        """All subscriptions that the caller can read, the task's own subscription first."""
        own = self._session.subscription_id
        return [own, *(one for one in self.listed_subscription_ids() if one.lower() != own.lower())]

    def listed_subscription_ids(self) -> list[str]:
        """All subscriptions that Azure lists for the caller. The task's own subscription may be missing."""
        return list(self.subscription_names())

    def subscription_names(self) -> dict[str, str | None]:
        """The display names of the same subscriptions, by their ids."""
        listed = self._gateway.list("list the subscriptions", "/subscriptions")
        return {item["subscriptionId"]: item.get("displayName") for item in listed}

    def groups(self, subscription: str) -> list[str]:
        """The names of the resource groups of a subscription that the caller may read."""
        what = f"list the resource groups of the subscription {subscription}"
        return [item["name"] for item in self._gateway.list(what, f"/subscriptions/{subscription}/resourceGroups")]

    def permissions(self, scope: str, not_before: NotBefore = RECENTLY) -> list[Permission]:
        """The permissions of the caller at the scope.

        Source: the REST reference for resource groups and resources; for subscriptions, the article "Authorize with
        Resource Manager's API"."""
        what = f"read the caller's permissions at {scope}"

        def read() -> list[Permission]:
            return self._gateway.list(what, f"{scope}/providers/Microsoft.Authorization/permissions")

        return self._session.cache.get(read, "permissions", scope.lower(), not_before=not_before)

    def permissions_in(self, group: str) -> list[Permission] | CmkError:
        """The permissions of the caller at a resource group, which the tasks of a run share, or why they are not
        known."""
        scope = f"/subscriptions/{self._session.subscription_id}/resourceGroups/{group}"
        found: list[Permission] | CmkError = value_or_error(partial(self.permissions, scope), CmkError)
        return found

    def account(self, account_id: str) -> Account:
        account: Account = self._gateway.get(f"read the Batch account {account_id}", account_id)
        return account

    def accounts(self, subscription: str, group: str | None = None) -> list[Account]:
        """The Batch accounts of a subscription or resource group."""
        place = f"/subscriptions/{subscription}" + (f"/resourceGroups/{group}" if group else "")
        what = f"resource group {group}" if group else f"subscription {subscription}"
        return self._gateway.list(
            f"list the Batch accounts of the {what}", f"{place}/providers/Microsoft.Batch/batchAccounts"
        )

    def account_with_times(self, account_id: str) -> Answer:
        """A Batch account that may be missing. The times of the response are cached (`_times`)."""
        at = time.monotonic()
        answer = self._gateway.answer(f"read the Batch account {account_id.rpartition('/')[2]}", account_id)
        times = answer.changed_at, answer.at, str(key_of(answer.document) or "")
        self._session.cache.keep(times, at, account_kind(account_id), "times")
        return answer

    def _times(self, account_id: str, not_before: NotBefore) -> tuple[float | None, float | None, str]:
        """When an account was changed, and the time of the response, both in seconds since 1970, from the headers of
        the response. None if the response does not have them. The document of an account has no times. Then the key
        in the same document."""

        def read() -> tuple[float | None, float | None, str]:
            answer = self.account_with_times(account_id)
            return answer.changed_at, answer.at, str(key_of(answer.document) or "")

        changed, now, key = self._session.cache.get(read, account_kind(account_id), "times", not_before=not_before)
        return changed, now, key

    def changed_at(self, account: Account) -> float | None:
        """When a Batch account was changed. None if that is not known: the account may have been changed just now."""
        return _changed_at(account, self._times(account["id"], JUST_NOW))

    def changed_at_of_each(
        self, accounts: Iterable[Account], not_before: float | None = None
    ) -> tuple[dict[str, float | None], float]:
        """When several accounts were changed, by their ids, read now or at `not_before` (time.monotonic()) or later;
        None also if a time could not be read. And the latest time of the responses; without one, the local time."""
        since = time.monotonic() if not_before is None else not_before
        by_id = {account["id"]: account for account in accounts}
        read = map_concurrent(lambda name: value_or_error(partial(self._times, name, since), CmkError), by_id)
        known = {name: times for name, times in read.items() if not isinstance(times, CmkError)}
        changed = {
            name: _changed_at(account, known[name]) if name in known else None for name, account in by_id.items()
        }
        return changed, max((now for _changed, now, _key in known.values() if now is not None), default=time.time())

    def pools(self, account_id: str) -> list[Pool]:
        """The pools of a Batch account with the keys of their disks, which azure-mgmt-batch 17.3 does not show."""
        what = f"list the pools of the Batch account {account_id.rpartition('/')[2]}"
        return self._gateway.list(what, f"{account_id}/pools")


def _changed_at(account: Account, times: tuple[float | None, float | None, str]) -> float | None:
    """Not known if the document with the time shows another key than the account: one of the two reads is out of
    date."""
    changed, _now, key = times
    return changed if key.lower() == str(key_of(account) or "").lower() else None


def account_kind(account_id: str) -> str:
    """The cache's kind of a Batch account: a change of another account does not make it out of date."""
    return f"account {account_id.lower()}"


class Identities:
    def __init__(self, session: Session, gateway: Gateway) -> None:
        self._session = session
        self._gateway = gateway

    def listed(self, subscription: str) -> dict[str, str]:
        """The object ids of a subscription's identities, by their resource ids in lower case."""
        what = f"list the user-assigned identities of the subscription {subscription}"
        listed = self._gateway.list(
            what, f"/subscriptions/{subscription}/providers/Microsoft.ManagedIdentity/userAssignedIdentities"
        )
        return {identity["id"].lower(): identity["properties"]["principalId"] for identity in listed}

    def get(self, identity_id: UserAssignedId, not_before: NotBefore = JUST_NOW) -> ManagedIdentity:
        what = f"read the user-assigned identity {identity_id.name}"
        ref = str(identity_id)
        identity: ManagedIdentity | None = self._session.cache.get(
            lambda: self._gateway.find(what, ref), "identity", ref.lower(), not_before=not_before
        )
        if identity is None:
            raise NotFound(
                f"There is no user-assigned identity {identity_id}. Create it, or correct O(identity_id).",
                code="identity_not_found",
                option="identity_id",
                value=str(identity_id),
                remedy="Create the identity, or correct O(identity_id).",
            )
        return identity

    def principal_id(self, resource_id: str) -> str | None:
        """The object id of a user-assigned identity, which another task of the run may have read a moment ago; None if
        there is no such identity."""
        identity = parse_user_assigned_id(resource_id, "identity_id")
        try:
            return self.get(identity, RECENTLY)["properties"]["principalId"]
        except NotFound:
            return None
