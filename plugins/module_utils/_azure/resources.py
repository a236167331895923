# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads of Azure Resource Manager for which this collection uses no SDK, such as lists of Batch accounts.

This module util is private to the collection.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from email.utils import parsedate_to_datetime
from functools import cached_property, partial
from typing import Any

from .._core.concurrent import map_concurrent, value_or_error
from .._core.documents import Account, Permission, Pool
from .._core.errors import CmkError, Denied
from . import sdk
from .session import Session

# API versions from recorded traffic, stable for years.
_SUBSCRIPTIONS = "2022-12-01"
_GROUPS = "2021-04-01"
# The API version of the oldest supported SDK.
_ACCOUNTS = "2024-02-01"
# The first version of the API that shows a pool's own key.
_POOLS = "2025-06-01"


class Resources:
    def __init__(self, session: Session) -> None:
        self._session = session

    def group(self, name: str) -> dict[str, Any]:
        path = f"/subscriptions/{self._session.subscription_id}/resourceGroups/{name}"

        def read() -> dict[str, Any]:
            with sdk.translated(f"read the resource group {name}"):
                return self._get(path, _GROUPS)

        found: dict[str, Any] = self._session.cache.recent(read, "group", path.lower())
        return found

    def regions(self, namespace: str, resource_type: str) -> list[str] | None:
        """The regions where the resource provider has the resource type; None if the caller may not read them."""
        path = f"/subscriptions/{self._session.subscription_id}/providers/{namespace}"

        def read() -> list[str] | None:
            try:
                with sdk.translated(f"read the regions of {namespace}"):
                    types = self._get(path, _GROUPS)["resourceTypes"]
            except Denied:
                return None
            listed = (one["locations"] for one in types if one["resourceType"].lower() == resource_type.lower())
            return next(listed, None)

        found: list[str] | None = self._session.cache.recent(read, "regions", path)
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
        with sdk.translated("list the subscriptions"):
            listed = self._all("/subscriptions", _SUBSCRIPTIONS)
        return {item["subscriptionId"]: item.get("displayName") for item in listed}

    def groups(self, subscription: str) -> list[str]:
        """The names of the resource groups of a subscription that the caller may read."""
        with sdk.translated(f"list the resource groups of the subscription {subscription}"):
            return [item["name"] for item in self._all(f"/subscriptions/{subscription}/resourceGroups", _GROUPS)]

    def permissions(self, scope: str) -> list[Permission]:
        """The permissions of the caller at the scope, as a task of the run read it a moment ago."""
        found: list[Permission] = self._session.cache.recent(
            lambda: self._permissions(scope), "permissions", scope.lower()
        )
        return found

    def permissions_since(self, scope: str, since: float) -> list[Permission]:
        """The same permissions, read at `since` (time.monotonic()) or later."""
        found: list[Permission] = self._session.cache.since(
            lambda: self._permissions(scope), since, "permissions", scope.lower()
        )
        return found

    def _permissions(self, scope: str) -> list[Permission]:
        """Source: the REST reference for resource groups and resources; for subscriptions, the article "Authorize
        with Resource Manager's API"."""
        with sdk.translated(f"read the caller's permissions at {scope}"):
            return self._all(f"{scope}/providers/Microsoft.Authorization/permissions", sdk.AUTHORIZATION_API)

    def account(self, account_id: str) -> Account:
        with sdk.translated(f"read the Batch account {account_id}"):
            return self._get(account_id, _ACCOUNTS)

    def accounts(self, subscription: str, group: str | None = None) -> list[Account]:
        """The Batch accounts of a subscription or resource group. The SDK is slower, because it converts them to
        models."""
        place = f"/subscriptions/{subscription}" + (f"/resourceGroups/{group}" if group else "")
        what = f"resource group {group}" if group else f"subscription {subscription}"
        with sdk.translated(f"list the Batch accounts of the {what}"):
            return self._all(f"{place}/providers/Microsoft.Batch/batchAccounts", _ACCOUNTS)

    def changed_at(self, account_id: str) -> float | None:
        """When a Batch account was changed, in seconds since 1970; None if the response has no time."""
        return self.times(account_id)[0]

    def changed_at_of_each(self, account_ids: Iterable[str]) -> dict[str, float | None]:
        """`changed_at` of several accounts; None also if the time could not be read."""
        read = map_concurrent(lambda name: value_or_error(partial(self.changed_at, name), CmkError), account_ids)
        return {name: None if isinstance(at, CmkError) else at for name, at in read.items()}

    def times(self, account_id: str) -> tuple[float | None, float | None]:
        """When an account was changed, and the time of the response, both from the headers of the response. The
        document of an account has no times."""
        with sdk.translated(f"read the Batch account {account_id.rpartition('/')[2]}"):
            headers = self._answer(account_id, _ACCOUNTS).headers
        changed, now = (
            parsedate_to_datetime(headers[name]).timestamp() if name in headers else None
            for name in ("Last-Modified", "Date")
        )
        return changed, now

    def pools(self, account_id: str) -> list[Pool]:
        """The pools of a Batch account with the keys of their disks, which azure-mgmt-batch 17.3 does not show."""
        with sdk.translated(f"list the pools of the Batch account {account_id.rpartition('/')[2]}"):
            return self._all(f"{account_id}/pools", _POOLS)

    def _all(self, path: str, api_version: str) -> list[Any]:
        """The items of all pages of a list."""
        page = self._get(path, api_version)
        items: list[Any] = page["value"]
        while page.get("nextLink"):
            page = self._get(page["nextLink"])
            items += page["value"]
        return items

    def _get(self, url: str, api_version: str | None = None) -> Any:
        return json.loads(self._answer(url, api_version).text())

    def _answer(self, url: str, api_version: str | None) -> Any:
        from azure.core.exceptions import ClientAuthenticationError, map_error
        from azure.core.rest import HttpRequest

        params = {"api-version": api_version} if api_version else None
        answer = self._client.send_request(HttpRequest("GET", self._client.format_url(url), params=params))
        map_error(answer.status_code, answer, {401: ClientAuthenticationError})
        answer.raise_for_status()
        return answer

    @cached_property
    def _client(self) -> Any:
        """A client without models, because an SDK package would be a large dependency for a few reads."""
        environment = self._session.environment
        return sdk.load("azure-mgmt-core").ARMPipelineClient(
            environment.resource_manager,
            policies=self._session.bare_policies(environment.resource_manager_scope),
            **self._session.policies,
        )
