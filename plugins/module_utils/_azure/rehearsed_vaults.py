# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Key vaults in check mode.

This module util is private to the collection.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from .._core.ids import KeyIdentifier, key_in_vault, place_of
from .environments import environment_at
from .picture import Entry, Picture
from .responses import Call, Document, Response, completed, missing

_GROUP = r"(/subscriptions/[^/]+/resourceGroups/[^/]+)"
_NAMESPACE = "/providers/Microsoft.KeyVault"
_VAULT = re.compile(rf"{_GROUP}{_NAMESPACE}/vaults/([^/]+)", re.IGNORECASE)
_POLICIES = re.compile(rf"{_GROUP}{_NAMESPACE}/vaults/([^/]+)/accessPolicies/(add|replace|remove)", re.IGNORECASE)
_LIST = re.compile(rf"(/subscriptions/[^/]+(?:/resourceGroups/[^/]+)?){_NAMESPACE}/vaults", re.IGNORECASE)
_DELETED = re.compile(rf"(/subscriptions/[^/]+){_NAMESPACE}/deletedVaults", re.IGNORECASE)
_NAME = re.compile(rf"/subscriptions/[^/]+{_NAMESPACE}/checkNameAvailability", re.IGNORECASE)
_GROUPS_API = "2021-04-01"
_KIND = "vault"
_TOUCHED = "touched vault"


class RehearsedVaults:
    """An entry has the vault's `document`, which is None while the vault is deleted, and `deleted`, its document in
    the list of deleted vaults. `made` and `recovered` show whether the vault was created or recovered in the
    picture. Azure does not show the keys of a recovered vault. If `roles_of_azure` is false, the vault has lost its
    role assignments."""

    def __init__(self, picture: Picture, caller: Callable[[], Mapping[str, str]]) -> None:
        self._picture = picture
        self._caller = caller
        # The names, in lower case, of the vaults for which this task sets `authorization` to access policies.
        self.with_policies: set[str] = set()

    def response(self, call: Call) -> Response | None:
        if found := _VAULT.fullmatch(call.path):
            return self._of_vault(call, found[1], found[2])
        if call.method == "PUT" and (found := _POLICIES.fullmatch(call.path)):
            return self._policies(call, found[1], found[2], found[3].lower())
        if call.method == "GET" and (found := _LIST.fullmatch(call.path)):
            return completed(call.ask(), self._below(found[1]), _id)
        if call.method == "GET" and (found := _DELETED.fullmatch(call.path)):
            return completed(call.ask(), self._deleted_of(found[1]), lambda item: str(item["name"]).lower())
        if call.method == "POST" and _NAME.fullmatch(call.path):
            return self._is_name_free(call)
        return None

    def entry(self, name: str) -> Entry | None:
        return self._picture.get(_KIND, name)

    def is_in_azure(self, name: str) -> bool:
        """Whether the keys of the vault can be read from Azure."""
        entry = self.entry(name)
        return entry is None or not (entry["made"] or entry["recovered"])

    def has_roles_of_azure(self, name: str) -> bool:
        entry = self.entry(name)
        return entry is None or bool(entry["roles_of_azure"])

    def touch(self, name: str) -> None:
        """Note that the picture has a change that may affect Batch accounts which use a key of this vault, or this key
        (`key_in_vault`)."""
        self._picture.put(_TOUCHED, name, {})

    def is_touched(self, key: KeyIdentifier) -> bool:
        names = key.vault, key_in_vault(key.vault, key.name)
        return any(self._picture.get(_TOUCHED, name) is not None for name in names)

    def _of_vault(self, call: Call, group: str, name: str) -> Response | None:
        if call.method == "GET":
            return self._read(call, group, name)
        with self._picture.locked(_KIND, name):
            current = self._read(call, group, name)
            if call.method == "PUT" and current.status in (200, 404):
                return self._put(call, current, group, name)
            if call.method == "PATCH" and current.status == 200:
                return self._changed(current.body, call.body)
            if call.method == "DELETE" and current.status == 200:
                return self._delete(call, current.body)
            if call.method == "DELETE" and current.status == 404:
                return Response(204)
        return current if current.status >= 400 else None

    def _read(self, call: Call, group: str, name: str) -> Response:
        entry = self.entry(name)
        path = f"{group}{_NAMESPACE}/vaults/{name}"
        if entry is None:
            return call.get(path)
        document = entry["document"]
        if document is None or _id(document) != path.lower():
            return missing("ResourceNotFound", f"The Resource '{path}' was not found.")
        return Response(200, document)

    def _put(self, call: Call, current: Response, group: str, name: str) -> Response:
        properties = call.body.get("properties", {})
        if properties.get("createMode") == "recover":
            return self._recovered(call, group, name)
        if current.status == 200:
            return self._changed(current.body, call.body)
        read = call.get(group, _GROUPS_API)
        if read.status == 404:
            return read
        parent = read.body["id"] if read.status == 200 else group
        vault = _new(f"{parent}{_NAMESPACE}/vaults/{name}", call)
        vault["properties"].update(properties)
        vault["tags"] = call.body.get("tags", {})
        return self._store(vault, {"made": True, "recovered": False, "roles_of_azure": False, "deleted": None})

    def _recovered(self, call: Call, group: str, name: str) -> Response:
        """Recover a deleted vault. Azure does not show its permission model, so the model of the task is assumed,
        or Azure RBAC, the default of new vaults. With access policies, the caller is assumed to have all
        permissions on keys."""
        entry = self.entry(name)
        if entry and entry["deleted"]:
            return self._store(entry["before"], {**entry, "deleted": None})
        found = self._in_azure(call, f"/{'/'.join(group.split('/')[1:3])}", name)
        if found.status != 200:
            return found
        deleted = found.body["properties"]
        vault = _new(deleted["vaultId"], call)
        vault["tags"] = call.body.get("tags", {})
        if deleted.get("purgeProtectionEnabled"):
            vault["properties"]["enablePurgeProtection"] = True
        if name.lower() in self.with_policies:
            policy = {"objectId": self._caller()["object_id"], "permissions": {"keys": ["all"]}}
            vault["properties"].update(enableRbacAuthorization=False, accessPolicies=[policy])
        return self._store(vault, {"made": False, "recovered": True, "roles_of_azure": False, "deleted": None})

    @staticmethod
    def _in_azure(call: Call, subscription: str, name: str) -> Response:
        """The deleted vault, from the list of deleted vaults: to read one deleted vault needs a different right."""
        page = call.get(f"{subscription}{_NAMESPACE}/deletedVaults")
        while page.status == 200:
            for deleted in page.body["value"]:
                if deleted["name"].lower() == name.lower():
                    return Response(200, deleted)
            if not page.body.get("nextLink"):
                return missing("DeletedVaultNotFound", f"The deleted vault '{name}' was not found.")
            page = call.ask(page.body["nextLink"])
        return page

    def _changed(self, vault: Document, body: Mapping[str, Any]) -> Response:
        vault = copy.deepcopy(vault)
        vault["properties"].update(body.get("properties", {}))
        if "tags" in body:
            vault["tags"] = body["tags"]
        return self._store(vault, self._facts(vault["name"]))

    def _delete(self, call: Call, vault: Document) -> Response:
        subscription, _group, name = place_of(vault["id"])
        properties = vault["properties"]
        deleted_at = datetime.fromtimestamp(call.now, timezone.utc)
        purge = deleted_at + timedelta(days=properties.get("softDeleteRetentionInDays", 90))
        place = f"/subscriptions/{subscription}{_NAMESPACE}/locations/{vault['location']}"
        deleted = {
            "id": f"{place}/deletedVaults/{name}",
            "name": name,
            "type": "Microsoft.KeyVault/deletedVaults",
            "properties": {
                "vaultId": vault["id"],
                "location": vault["location"],
                "tags": vault.get("tags", {}),
                "deletionDate": f"{deleted_at:%Y-%m-%dT%H:%M:%SZ}",
                "scheduledPurgeDate": f"{purge:%Y-%m-%dT%H:%M:%SZ}",
                **({"purgeProtectionEnabled": True} if properties.get("enablePurgeProtection") else {}),
            },
        }
        facts = {**self._facts(name), "roles_of_azure": False, "deleted": deleted, "before": vault}
        self._picture.put(_KIND, name, {**facts, "document": None})
        self.touch(name)
        return Response(200)

    def _policies(self, call: Call, group: str, name: str, operation: str) -> Response:
        with self._picture.locked(_KIND, name):
            current = self._read(call, group, name)
            if current.status != 200:
                return current
            policies = {_holder(one): one for one in current.body["properties"].get("accessPolicies", [])}
            for entry in call.body["properties"]["accessPolicies"]:
                changed = _policy_after(operation, policies.get(_holder(entry)), entry)
                if changed is None:
                    policies.pop(_holder(entry), None)
                else:
                    policies[_holder(entry)] = changed
            accepted = self._changed(current.body, {"properties": {"accessPolicies": [*policies.values()]}})
        return Response(200, {"properties": {"accessPolicies": accepted.body["properties"]["accessPolicies"]}})

    def _store(self, vault: Document, facts: Mapping[str, Any]) -> Response:
        # The time of the last change is not known: the vault is changed only in check mode.
        vault.pop("systemData", None)
        self._picture.put(_KIND, vault["name"], {**facts, "document": vault})
        self.touch(vault["name"])
        return Response(200, vault)

    def _facts(self, name: str) -> Entry:
        return self.entry(name) or {"made": False, "recovered": False, "roles_of_azure": True, "deleted": None}

    def _below(self, scope: str) -> dict[str, Entry]:
        entries = [entry for entry in self._picture.all(_KIND).values() if entry["document"] or not entry["made"]]
        by_id = {_id(entry["document"] or entry["before"]): entry for entry in entries}
        return {
            vault_id: {"document": entry["document"], "made": entry["made"] or entry["recovered"]}
            for vault_id, entry in by_id.items()
            if vault_id.startswith(f"{scope.lower()}/")
        }

    def _deleted_of(self, subscription: str) -> dict[str, Entry]:
        entries = self._picture.all(_KIND).items()
        return {
            name: {"document": entry["deleted"], "made": not entry["recovered"]}
            for name, entry in entries
            if _id(entry["document"] or entry["before"]).startswith(f"{subscription.lower()}/")
        }

    def _is_name_free(self, call: Call) -> Response:
        """Whether the name is available. The name of a deleted vault is not available."""
        if self.entry(str(call.body.get("name"))) is None:
            return call.ask()
        return Response(200, {"nameAvailable": False, "reason": "AlreadyExists", "message": "In the picture."})


def _new(vault_id: str, call: Call) -> Document:
    """A new vault with Azure's default values."""
    name, suffix = place_of(vault_id)[2], environment_at(call.host).vault_suffix
    sent = call.body["properties"]
    return {
        "id": vault_id,
        "name": name,
        "type": "Microsoft.KeyVault/vaults",
        "location": call.body["location"].replace(" ", "").lower(),
        "tags": {},
        "properties": {
            "tenantId": sent["tenantId"],
            "sku": sent["sku"],
            "accessPolicies": [],
            "enableSoftDelete": True,
            "softDeleteRetentionInDays": 90,
            "enableRbacAuthorization": True,
            "vaultUri": f"https://{name.lower()}.{suffix}/",
            "provisioningState": "Succeeded",
            "publicNetworkAccess": "Enabled",
        },
    }


def _policy_after(operation: str, previous: Document | None, entry: Document) -> Document | None:
    if operation == "replace":
        return entry
    permissions: Mapping[str, Any] = (previous or {}).get("permissions", {})
    named: Mapping[str, Any] = entry.get("permissions", {})
    if operation == "add":
        merged = {kind: _joined(permissions.get(kind), named.get(kind)) for kind in {**permissions, **named}}
        return {**(previous or entry), "permissions": merged}
    if previous is None:
        return None
    left = {kind: _without(names, named.get(kind)) for kind, names in permissions.items()}
    return {**previous, "permissions": left} if any(left.values()) else None


def _joined(one: list[str] | None, other: list[str] | None) -> list[str]:
    has = {name.lower() for name in one or ()}
    return [*(one or ()), *(name for name in other or () if name.lower() not in has)]


def _without(names: list[str] | None, taken: list[str] | None) -> list[str]:
    lower = {name.lower() for name in taken or ()}
    return [name for name in names or () if name.lower() not in lower]


def _holder(policy: Mapping[str, Any]) -> tuple[str, str]:
    return str(policy["objectId"]).lower(), str(policy.get("applicationId") or "").lower()


def _id(vault: Mapping[str, Any]) -> str:
    return str(vault["id"]).lower()
