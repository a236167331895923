# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Batch accounts in check mode.

This module util is private to the collection.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from ..._azure import sdk
from ..._azure.gateway import Answer
from ..._azure.overlay import Reads, ResourceOverlay, completed, missing, not_predicted, place, refused
from ..._azure.predictions import Entry, Predictions
from ..._core import placeholders
from ..._core.concurrent import value_or_error
from ..._core.documents import Account
from ..._core.errors import CmkError
from ..._core.ids import KeyIdentifier, key_of, place_of
from ..vault.overlay import VaultsOverlay
from .document import encryption_body, is_failed, is_of_caller

Document = dict[str, Any]
_NAMESPACE = "/providers/Microsoft.Batch"
_KIND = "account"
_PRINCIPAL = "principal of"


class AccountsOverlay(ResourceOverlay):
    """An entry has the account's `document`, which is None once the account is deleted, its `location`, `made`, which
    is true if the creation is predicted, and `changed`, the time of the change.

    `failed_checks` returns the names of the checks that fail for an account, each a reason why it could not use its
    key. `tenant` returns the caller's tenant.
    """

    def __init__(
        self,
        azure: Reads,
        predictions: Predictions,
        vaults: VaultsOverlay,
        failed_checks: Callable[[Account], list[str]],
        tenant: Callable[[], str],
    ) -> None:
        super().__init__(azure)
        self._predictions = predictions
        self._vaults = vaults
        self._failed_checks = failed_checks
        self._tenant = tenant

    def answer(self, what: str, ref: str) -> Answer:
        types = place(ref).types
        if types == ("batchaccounts",):
            return self._account(what, ref)
        if types == ("batchaccounts", "pools"):
            return self._pools(what, ref, partial(self._azure.answer, what, ref), Answer({"value": []}))
        return super().answer(what, ref)

    def list(self, what: str, ref: str, filter: str | None) -> list[Any]:
        at = place(ref)
        if at.types == ("batchaccounts", "pools"):
            return self._pools(what, ref, partial(self._azure.list, what, ref, filter), [])
        return self._predicted(at.scope, self._azure.list(what, ref, filter))

    def _predicted(self, scope: str, listed: Any) -> Any:
        """The accounts below the scope, with the predictions."""
        entries = self._predictions.all(_KIND)
        below = {name: entry for name, entry in entries.items() if name.startswith(f"{scope.lower()}/")}
        return completed(listed, below, lambda item: str(item["id"]).lower())

    def ask(self, what: str, ref: str, body: Mapping[str, Any]) -> Any:
        """The name of an account that would be created is taken in its region, and that of an account that would be
        deleted is available."""
        at = place(ref)
        for account_id, entry in self._predictions.all(_KIND).items():
            is_here = account_id.startswith(f"{at.scope.lower()}/") and entry["location"] == at.parts[1].lower()
            if is_here and place_of(account_id)[2] == str(body.get("name")).lower():
                return {"nameAvailable": entry["document"] is None, "reason": "AlreadyExists"}
        return self._azure.ask(what, ref, body)

    def write(self, what: str, method: str, ref: str, body: Mapping[str, Any]) -> Any:
        if place(ref).types != ("batchaccounts",) or method not in ("PUT", "PATCH", "DELETE"):
            raise not_predicted(method, ref)
        with self._predictions.locked(_KIND, ref):
            current = self._account(what, ref).document
            made = self.is_made(ref)
            if method == "DELETE":
                if current is not None:
                    self._put_deleted(current, made=made)
                return None
            if current is None:
                if method == "PATCH":
                    raise missing(what, ref)
                account = self._new(what, ref, body)
                self._require_quota(what, account)
                return self._changed(what, account, body, made=True)
            if method == "PUT" and is_failed(current):
                # The account's creation has failed, and this request repeats it.
                properties = {**current["properties"], "provisioningState": "Succeeded"}
                return self._changed(what, {**current, "properties": properties}, body, made=made)
            self._require_available(what, current)
            return self._changed(what, current, body, made=made)

    def complete_operations(self) -> None:
        """Predict that the accounts which the task has read are created or deleted, if that is under way."""
        for account in self._azure.documents("microsoft.batch", "batchaccounts"):
            state = account["properties"].get("provisioningState")
            if state == "Creating":
                properties = {**account["properties"], "provisioningState": "Succeeded"}
                self._put({**account, "properties": properties}, made=False)
            elif state == "Deleting":
                self._put_deleted(account, made=False)

    def is_made(self, account_id: str) -> bool:
        """Whether the creation of the account is predicted."""
        entry = self._predictions.get(_KIND, account_id)
        return entry is not None and entry["made"]

    def _account(self, what: str, ref: str) -> Answer:
        entry = self._predictions.get(_KIND, ref)
        if entry is None:
            return self._azure.answer(what, ref)
        return Answer(entry["document"], self._azure.now, entry.get("changed"))

    def _new(self, what: str, ref: str, body: Mapping[str, Any]) -> Document:
        name, location = place_of(ref)[2], body["location"].replace(" ", "").lower()
        return {
            "id": f"{self._group_of(what, ref)}{_NAMESPACE}/batchAccounts/{name}",
            "name": name,
            "type": "Microsoft.Batch/batchAccounts",
            "location": location,
            "identity": {"type": "None"},
            "properties": {
                "accountEndpoint": f"{name.lower()}.{location}.batch.azure.com",
                "provisioningState": "Succeeded",
                "poolAllocationMode": "BatchService",
                "publicNetworkAccess": "Enabled",
                "encryption": {"keySource": "Microsoft.Batch"},
            },
        }

    def _require_quota(self, what: str, account: Document) -> None:
        """Batch refuses an account that exceeds the quota of the subscription in the region, which not every caller may
        read. An account whose creation has failed does not count."""
        scope, location = f"/subscriptions/{place_of(account['id'])[0]}", account["location"]
        quotas = f"{scope}{_NAMESPACE}/locations/{location}/quotas"
        limits = value_or_error(lambda: self._azure.get(what, quotas), CmkError)
        listed = value_or_error(lambda: self._azure.recent(what, f"{scope}{_NAMESPACE}/batchAccounts"), CmkError)
        if isinstance(limits, CmkError) or isinstance(listed, CmkError):
            return
        there = [one for one in self._predicted(scope, listed) if one["location"] == location and not is_failed(one)]
        if len(there) >= limits["accountQuota"]:
            message = "The regional Batch account quota for the specified subscription has been reached."
            raise refused(what, sdk.QUOTA_EXCEEDED, message)

    def _require_available(self, what: str, account: Account) -> None:
        """Batch refuses to change an account that is not available."""
        key = key_of(account)
        if key and (failed := self._failed_checks(account)):
            raise _unavailable(what, key, failed)
        pools = value_or_error(lambda: self.answer(what, f"{account['id']}/pools"), CmkError)
        if isinstance(pools, CmkError) and pools.facts.get("azure", {}).get("status") == 409:
            raise pools

    def _changed(self, what: str, account: Document, body: Mapping[str, Any], *, made: bool) -> Document:
        account = copy.deepcopy(account)
        if body.get("identity"):
            account["identity"] = self._identity(what, account, body["identity"])
        if "tags" in body:
            account["tags"] = body["tags"]
        account["properties"].update(body.get("properties", {}))
        self._put(account, made=made)
        return account

    def _put(self, account: Document, *, made: bool) -> None:
        entry: Entry = {
            "document": account,
            "made": made,
            "location": account["location"],
            # As in a header, in whole seconds.
            "changed": int(self._azure.now),
        }
        self._predictions.put(_KIND, account["id"], entry)

    def _put_deleted(self, account: Document, *, made: bool) -> None:
        self._predictions.put(_KIND, account["id"], {"document": None, "made": made, "location": account["location"]})

    def _identity(self, what: str, account: Document, wanted: Mapping[str, Any]) -> Document:
        has = account.get("identity", {})
        if wanted["type"] == "SystemAssigned":
            return has if has.get("type") == "SystemAssigned" else self._new_identity(account["id"])
        named = wanted.get("userAssignedIdentities", {})
        lower = {one.lower() for one in named}
        assigned = {one: ids for one, ids in has.get("userAssignedIdentities", {}).items() if one.lower() not in lower}
        for name in named:
            properties = self._azure.get(what, name)["properties"]
            assigned[name] = {of: properties[of] for of in ("principalId", "clientId")}
        return {"type": wanted["type"], **({"userAssignedIdentities": assigned} if assigned else {})}

    def _new_identity(self, account_id: str) -> Document:
        _subscription, group, name = place_of(account_id)
        number = self._predictions.next_number(f"{_PRINCIPAL} {account_id.lower()}")
        principal = self._predictions.keep_placeholder(placeholders.principal(name, group, number))
        return {"type": "SystemAssigned", "principalId": principal, "tenantId": self._tenant()}

    def _pools(self, what: str, ref: str, read: Callable[[], Any], none: Any) -> Any:
        """The pools, as `read` returns them, or `none`. The list of pools shows whether an account is available. If a
        prediction affects availability, the preflight checks decide."""
        account_id = ref.rpartition("/pools")[0]
        entry = self._predictions.get(_KIND, account_id)
        if entry is None and not self._vaults.has_touched_keys:
            return read()
        account = value_or_error(lambda: self._account(what, account_id).document, CmkError)
        if entry is not None and account is None:
            raise missing(what, account_id)
        key = None if isinstance(account, CmkError) or account is None else key_of(account)
        if entry is None and not (key and self._vaults.is_touched(key)):
            return read()
        failed = self._failed_checks(account) if key else []
        if key and failed and (named := _named_version(read, key)):
            # Before it uses the newest version of a key that the account follows, Batch needs the version that it
            # names. The newest version may be of a type that Batch does not use.
            pinned = copy.deepcopy(account)
            pinned["properties"]["encryption"] = encryption_body(replace(key, version=named))
            failed = self._failed_checks(pinned)
        if key and failed:
            raise _unavailable(what, key, failed)
        if entry is not None and entry["made"]:
            return none
        pools = value_or_error(read, CmkError)
        if not isinstance(pools, CmkError):
            return pools
        # The account can use its key, whatever Batch responds now. If the caller may not list pools, Resource
        # Manager refuses the request, and that response stays.
        said = pools.facts.get("azure", {})
        if said.get("status", 429) == 429 or is_of_caller(said.get("code")):
            raise pools
        return none


def _named_version(read: Callable[[], Any], key: KeyIdentifier) -> str | None:
    """The version that Batch names in its refusal to list the pools of an account that follows this key."""
    pools = None if key.version else value_or_error(read, CmkError)
    said = pools.facts.get("azure", {}).get("message", "") if isinstance(pools, CmkError) else ""
    found = re.search(rf"/keys/{re.escape(key.name)}/([0-9a-f]{{32}})\b", said, re.IGNORECASE)
    return found[1] if found else None


def _unavailable(what: str, key: KeyIdentifier, failed: list[str]) -> Exception:
    message = f"The key {key} that the account is encrypted with is not accessible: {', '.join(failed)}."
    return refused(what, "KeyVaultKeyNotAccessible", message)
