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
from email.utils import formatdate

from .._core import placeholders
from .._core.documents import Account
from .._core.ids import key_of, place_of
from .._resources.account.document import is_failed, is_of_caller
from .picture import Entry, Picture
from .rehearsed_vaults import RehearsedVaults
from .responses import Call, Document, Response, completed, missing

_GROUP = r"(/subscriptions/[^/]+/resourceGroups/[^/]+)"
_NAMESPACE = "/providers/Microsoft.Batch"
_ACCOUNT = re.compile(rf"({_GROUP}{_NAMESPACE}/batchAccounts/([^/]+))", re.IGNORECASE)
_POOLS = re.compile(rf"({_GROUP}{_NAMESPACE}/batchAccounts/[^/]+)/pools", re.IGNORECASE)
_LIST = re.compile(
    rf"(/subscriptions/[^/]+(?:/resourceGroups/[^/]+)?){_NAMESPACE}/batchAccounts",
    re.IGNORECASE,
)
_NAME = re.compile(rf"(/subscriptions/[^/]+){_NAMESPACE}/locations/([^/]+)/checkNameAvailability", re.IGNORECASE)
_KIND = "account"
_PRINCIPAL = "principal of"
_IDENTITIES_API = "2023-01-31"
_GROUPS_API = "2021-04-01"


class RehearsedAccounts:
    """An entry has the account's `document`, which is None once the account is deleted, its `location`, and `made`,
    which is true if the account was created in the picture."""

    def __init__(self, picture: Picture, vaults: RehearsedVaults, caller: Callable[[], Mapping[str, str]]) -> None:
        self._picture = picture
        self._vaults = vaults
        self._caller = caller
        # Returns the names of the checks that fail for an account, each a reason why it could not use its key.
        self.failed_checks: Callable[[Account], list[str]] = lambda _account: []

    def response(self, call: Call) -> Response | None:
        if found := _ACCOUNT.fullmatch(call.path):
            return self._of_account(call, found[1], found[2], found[3])
        if call.method == "GET" and (found := _POOLS.fullmatch(call.path)):
            return self._pools(call, found[1])
        if call.method == "GET" and (found := _LIST.fullmatch(call.path)):
            return self._listed(call, found[1])
        if call.method == "POST" and (found := _NAME.fullmatch(call.path)):
            return self._is_name_free(call, found[1], found[2])
        return None

    def _of_account(self, call: Call, account_id: str, group: str, name: str) -> Response | None:
        if call.method == "GET":
            return self._read(call, account_id)
        with self._picture.locked(_KIND, account_id):
            current = self._read(call, account_id)
            if call.method == "PUT" and current.status in (200, 404):
                return self._put(call, current, group, name)
            if call.method == "PATCH":
                return self._patched(call, current, account_id)
            if call.method == "DELETE":
                return self._deleted(current, account_id)
        return current if current.status >= 400 else None

    def _read(self, call: Call, account_id: str) -> Response:
        entry = self._picture.get(_KIND, account_id)
        if entry is None:
            response = call.get(account_id)
            return _settled(response, account_id) if response.status == 200 else response
        if entry["document"] is None:
            return _not_found(account_id)
        return Response(200, entry["document"], {"Last-Modified": entry["changed"]})

    def _put(self, call: Call, current: Response, group: str, name: str) -> Response:
        if current.status == 200 and is_failed(current.body):
            # The account's creation has failed, and this request repeats it.
            properties = {**current.body["properties"], "provisioningState": "Succeeded"}
            return self._changed(call, {**current.body, "properties": properties}, made=True)
        if current.status == 200:
            return self._patched(call, current, current.body["id"])
        read = call.get(group, _GROUPS_API)
        if read.status == 404:
            return read
        # The id of the account has the letter case of the group's id, if the caller may read the group.
        parent = read.body["id"] if read.status == 200 else group
        location = call.body["location"].replace(" ", "").lower()
        account = {
            "id": f"{parent}{_NAMESPACE}/batchAccounts/{name}",
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
        return self._changed(call, account, made=True)

    def _patched(self, call: Call, current: Response, account_id: str) -> Response:
        if current.status != 200:
            return current
        # Batch refuses to change an account that is not available.
        key = key_of(current.body)
        if key and (failed := self.failed_checks(current.body)):
            return _unavailable(str(key), failed)
        pools = self._pools(call, account_id)
        if pools.status == 409:
            return pools
        entry = self._picture.get(_KIND, account_id)
        made = entry is not None and entry["made"]
        return self._changed(call, current.body, made=made)

    def _changed(self, call: Call, account: Document, *, made: bool) -> Response:
        account = copy.deepcopy(account)
        if call.body.get("identity"):
            identity = self._identity(call, account)
            if isinstance(identity, Response):
                return identity
            account["identity"] = identity
        if "tags" in call.body:
            account["tags"] = call.body["tags"]
        account["properties"].update(call.body.get("properties", {}))
        entry: Entry = {
            "document": account,
            "made": made,
            "location": account["location"],
            "changed": formatdate(call.now, usegmt=True),
        }
        self._picture.put(_KIND, account["id"], entry)
        return Response(200, account)

    def _identity(self, call: Call, account: Document) -> Document | Response:
        wanted, has = call.body["identity"], account.get("identity", {})
        if wanted["type"] == "SystemAssigned":
            return has if has.get("type") == "SystemAssigned" else self._new_identity(account["id"])
        named = wanted.get("userAssignedIdentities", {})
        lower = {one.lower() for one in named}
        assigned = {one: ids for one, ids in has.get("userAssignedIdentities", {}).items() if one.lower() not in lower}
        for name in named:
            read = call.get(name, _IDENTITIES_API)
            if read.status != 200:
                return read
            assigned[name] = {of: read.body["properties"][of] for of in ("principalId", "clientId")}
        return {"type": wanted["type"], **({"userAssignedIdentities": assigned} if assigned else {})}

    def _new_identity(self, account_id: str) -> Document:
        _subscription, group, name = place_of(account_id)
        number = self._picture.next_number(f"{_PRINCIPAL} {account_id.lower()}")
        principal = self._picture.keep_placeholder(placeholders.principal(name, group, number))
        return {"type": "SystemAssigned", "principalId": principal, "tenantId": self._caller()["tenant_id"]}

    def _deleted(self, current: Response, account_id: str) -> Response:
        if current.status == 404:
            return Response(204)
        if current.status == 200:
            entry = self._picture.get(_KIND, account_id)
            made, location = entry is not None and entry["made"], current.body["location"]
            self._picture.put(_KIND, account_id, {"document": None, "made": made, "location": location})
            return Response(200)
        return current

    def _pools(self, call: Call, account_id: str) -> Response:
        """The list of pools shows whether an account is available. If the picture has a change that affects
        availability, the preflight checks decide."""
        entry = self._picture.get(_KIND, account_id)
        if entry and entry["made"] and entry["document"]:
            pools = Response(200, {"value": []})
        else:
            pools = call.get(f"{account_id}/pools")
        account = self._read(call, account_id)
        if account.status != 200:
            return account if entry else pools
        key = key_of(account.body)
        if entry is None and not (key and self._vaults.is_touched(key)):
            return pools
        failed = self.failed_checks(account.body)
        if failed:
            return _unavailable(str(key), failed)
        # In the picture, the account can use its key, whatever Batch responds now. If the caller may not list
        # pools, Resource Manager refuses the request, and that response stays.
        is_refused = pools.status == 403 and is_of_caller((pools.body or {}).get("error", {}).get("code"))
        return pools if pools.status in (200, 429) or is_refused else Response(200, {"value": []})

    def _listed(self, call: Call, scope: str) -> Response:
        changed = {
            name: entry for name, entry in self._picture.all(_KIND).items() if name.startswith(f"{scope.lower()}/")
        }
        response = call.ask()
        if response.status != 200:
            return response
        settled = [_settled(Response(200, item), item["id"]) for item in response.body["value"]]
        if any(one.body is not item for one, item in zip(settled, response.body["value"], strict=True)):
            value = [one.body for one in settled if one.status == 200]
            response = response.with_body({**response.body, "value": value})
        return completed(response, changed, lambda item: str(item["id"]).lower())

    def _is_name_free(self, call: Call, subscription: str, location: str) -> Response:
        """The name of an account in the picture is taken in its region, and that of an account deleted in the picture
        is free."""
        name = str(call.body.get("name")).lower()
        for account_id, entry in self._picture.all(_KIND).items():
            _subscription, _group, of_account = place_of(account_id)
            is_here = account_id.startswith(f"{subscription.lower()}/") and entry["location"] == location.lower()
            if of_account == name and is_here:
                if entry["document"] is None:
                    return Response(200, {"nameAvailable": True})
                return Response(200, {"nameAvailable": False, "reason": "AlreadyExists", "message": "In the picture."})
        return call.ask()


def _settled(response: Response, account_id: str) -> Response:
    """The response with an operation that is still running shown as complete."""
    state = response.body["properties"].get("provisioningState")
    if state == "Deleting":
        return _not_found(account_id)
    if state != "Creating":
        return response
    properties = {**response.body["properties"], "provisioningState": "Succeeded"}
    return response.with_body({**response.body, "properties": properties})


def _not_found(account_id: str) -> Response:
    return missing("ResourceNotFound", f"The Resource '{account_id}' was not found.")


def _unavailable(key: str, failed: list[str]) -> Response:
    message = f"The key {key} that the account is encrypted with is not accessible: {', '.join(failed)}."
    return Response(409, {"error": {"code": "KeyVaultKeyNotAccessible", "message": message}})
