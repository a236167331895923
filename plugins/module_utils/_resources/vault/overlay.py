# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Key vaults in check mode.

This module util is private to the collection.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from ..._azure.gateway import Answer
from ..._azure.overlay import Reads, ResourceOverlay, completed, missing, not_predicted, place
from ..._azure.predictions import Entry, Predictions
from ..._core.ids import KeyIdentifier, key_in_vault, place_of
from .document import ACCESS_POLICY

Document = dict[str, Any]
_NAMESPACE = "/providers/Microsoft.KeyVault"
_KIND = "vault"
_TOUCHED = "touched"


class VaultsOverlay(ResourceOverlay):
    """An entry has the vault's `document`, which is None while the vault is deleted, and `deleted`, its document in
    the list of deleted vaults. `made` and `recovered` show whether its creation or its recovery is predicted. Azure
    does not show the keys of a recovered vault. If `roles_of_azure` is false, the vault has lost its role assignments.

    `caller` returns the caller's `object_id`. `suffix` is that of the vaults' hosts.
    """

    def __init__(
        self, azure: Reads, predictions: Predictions, caller: Callable[[], Mapping[str, str]], suffix: Callable[[], str]
    ) -> None:
        super().__init__(azure)
        self._predictions = predictions
        self._caller = caller
        self._suffix = suffix
        # The names, in lower case, of the vaults for which this task sets `authorization` to access policies.
        self._with_policies: set[str] = set()

    def assume(self, params: Mapping[str, Any]) -> None:
        """Use the task's options for what Azure does not show of a deleted vault."""
        if params.get("authorization") == ACCESS_POLICY:
            self._with_policies |= {str(params[one]).lower() for one in ("name", "vault_name") if one in params}

    def answer(self, what: str, ref: str) -> Answer:
        entry = self.entry(place_of(ref)[2]) if place(ref).types == ("vaults",) else None
        # Only Azure knows whether the resource group of another place exists.
        if entry is None or _id(entry["document"] or entry["before"]) != ref.lower():
            return super().answer(what, ref)
        return Answer(entry["document"])

    def list(self, what: str, ref: str, filter: str | None) -> list[Any]:
        at, listed = place(ref), self._azure.list(what, ref, filter)
        if at.types == ("deletedvaults",):
            return completed(listed, self._deleted_of(at.scope), lambda item: str(item["name"]).lower())
        return completed(listed, self._below(at.scope), _id)

    def ask(self, what: str, ref: str, body: Mapping[str, Any]) -> Any:
        """Whether the name is available. The name of a deleted vault is not available."""
        if self.entry(str(body.get("name"))) is None:
            return self._azure.ask(what, ref, body)
        return {"nameAvailable": False, "reason": "AlreadyExists"}

    def write(self, what: str, method: str, ref: str, body: Mapping[str, Any]) -> Any:
        vault, at = "/".join(ref.split("/")[:9]), place(ref)
        wanted = (method, at.types)
        with self._predictions.locked(_KIND, place_of(ref)[2]):
            current = self.answer(what, vault).document
            if wanted == ("PUT", ("vaults",)):
                return self._put(what, ref, current, body)
            if wanted == ("DELETE", ("vaults",)):
                return current and self._delete(current)
            if current is None:
                raise missing(what, ref)
            if wanted == ("PATCH", ("vaults",)):
                return self._changed(current, body)
            if wanted == ("PUT", ("vaults", "accesspolicies")):
                return self._set_policies(current, at.parts[3].lower(), body["properties"]["accessPolicies"])
        raise not_predicted(method, ref)

    def entry(self, name: str) -> Entry | None:
        return self._predictions.get(_KIND, name)

    def is_in_azure(self, name: str) -> bool:
        """Whether the keys of the vault can be read from Azure."""
        entry = self.entry(name)
        return entry is None or not (entry["made"] or entry["recovered"])

    def has_roles_of_azure(self, name: str) -> bool:
        entry = self.entry(name)
        return entry is None or bool(entry["roles_of_azure"])

    def touch(self, name: str) -> None:
        """Note that a prediction may affect Batch accounts which use a key of this vault, or this key
        (`key_in_vault`)."""
        self._predictions.put(_TOUCHED, name, {}, place=_TOUCHED)

    @property
    def has_touched_keys(self) -> bool:
        return bool(self._predictions.at(_TOUCHED, _TOUCHED))

    def is_touched(self, key: KeyIdentifier) -> bool:
        touched = self._predictions.at(_TOUCHED, _TOUCHED)
        return any(name.lower() in touched for name in (key.vault, key_in_vault(key.vault, key.name)))

    def _put(self, what: str, ref: str, current: Document | None, body: Mapping[str, Any]) -> Document:
        properties, (subscription, _group, name) = body["properties"], place_of(ref)
        if properties.get("createMode") == "recover":
            return self._recovered(what, subscription, name, body)
        if current is not None:
            return self._changed(current, body)
        vault = self._new(f"{self._group_of(what, ref)}{_NAMESPACE}/vaults/{name}", body)
        vault["properties"].update(properties)
        vault["tags"] = body.get("tags", {})
        made = {"made": True, "recovered": False, "roles_of_azure": False, "deleted": None}
        now = f"{datetime.fromtimestamp(self._azure.now, timezone.utc):%Y-%m-%dT%H:%M:%SZ}"
        return self._store(vault, made, {"createdAt": now, "lastModifiedAt": now})

    def _recovered(self, what: str, subscription: str, name: str, body: Mapping[str, Any]) -> Document:
        """Recover a deleted vault. Azure does not show its permission model, so the model of the task is assumed,
        or Azure RBAC, the default of new vaults. With access policies, the caller is assumed to have all
        permissions on keys."""
        entry = self.entry(name)
        if entry and entry["deleted"]:
            return self._store(entry["before"], {**entry, "deleted": None})
        # The list, because to read one deleted vault needs a different right.
        ref = f"/subscriptions/{subscription}{_NAMESPACE}/deletedVaults"
        listed = self._azure.list(what, ref)
        deleted = next((one["properties"] for one in listed if one["name"].lower() == name.lower()), None)
        if deleted is None:
            raise missing(what, f"{ref}/{name}", "DeletedVaultNotFound")
        vault = self._new(deleted["vaultId"], body)
        vault["tags"] = body.get("tags", {})
        if deleted.get("purgeProtectionEnabled"):
            vault["properties"]["enablePurgeProtection"] = True
        if name.lower() in self._with_policies:
            policy = {"objectId": self._caller()["object_id"], "permissions": {"keys": ["all"]}}
            vault["properties"].update(enableRbacAuthorization=False, accessPolicies=[policy])
        return self._store(vault, {"made": False, "recovered": True, "roles_of_azure": False, "deleted": None})

    def _changed(self, vault: Document, body: Mapping[str, Any]) -> Document:
        vault = copy.deepcopy(vault)
        vault["properties"].update(body.get("properties", {}))
        if "tags" in body:
            vault["tags"] = body["tags"]
        return self._store(vault, self._facts(vault["name"]))

    def _delete(self, vault: Document) -> Document:
        subscription, _group, name = place_of(vault["id"])
        properties = vault["properties"]
        deleted_at = datetime.fromtimestamp(self._azure.now, timezone.utc)
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
        self._predictions.put(_KIND, name, {**facts, "document": None})
        self.touch(name)
        return deleted

    def _set_policies(self, vault: Document, operation: str, entries: Sequence[Document]) -> Document:
        policies = {_holder(one): one for one in vault["properties"].get("accessPolicies", [])}
        for entry in entries:
            changed = _policy_after(operation, policies.get(_holder(entry)), entry)
            if changed is None:
                policies.pop(_holder(entry), None)
            else:
                policies[_holder(entry)] = changed
        kept = {"properties": {"accessPolicies": [*policies.values()]}}
        self._changed(vault, kept)
        return kept

    def _store(self, vault: Document, facts: Mapping[str, Any], times: Mapping[str, str] | None = None) -> Document:
        # Without `times`, the time of the last change is not known: the vault is changed only in check mode.
        vault.pop("systemData", None)
        if times:
            vault["systemData"] = times
        self._predictions.put(_KIND, vault["name"], {**facts, "document": vault})
        self.touch(vault["name"])
        return vault

    def _facts(self, name: str) -> Entry:
        return self.entry(name) or {"made": False, "recovered": False, "roles_of_azure": True, "deleted": None}

    def _below(self, scope: str) -> dict[str, Entry]:
        entries = [entry for entry in self._predictions.all(_KIND).values() if entry["document"] or not entry["made"]]
        by_id = {_id(entry["document"] or entry["before"]): entry for entry in entries}
        return {
            vault_id: {"document": entry["document"], "made": entry["made"] or entry["recovered"]}
            for vault_id, entry in by_id.items()
            if vault_id.startswith(f"{scope.lower()}/")
        }

    def _deleted_of(self, subscription: str) -> dict[str, Entry]:
        entries = self._predictions.all(_KIND).items()
        return {
            name: {"document": entry["deleted"], "made": not entry["recovered"]}
            for name, entry in entries
            if _id(entry["document"] or entry["before"]).startswith(f"{subscription.lower()}/")
        }

    def _new(self, vault_id: str, body: Mapping[str, Any]) -> Document:
        """A new vault with Azure's default values."""
        name = place_of(vault_id)[2]
        sent = body["properties"]
        return {
            "id": vault_id,
            "name": name,
            "type": "Microsoft.KeyVault/vaults",
            "location": body["location"].replace(" ", "").lower(),
            "tags": {},
            "properties": {
                "tenantId": sent["tenantId"],
                "sku": sent["sku"],
                "accessPolicies": [],
                "enableSoftDelete": True,
                "softDeleteRetentionInDays": 90,
                "enableRbacAuthorization": True,
                "vaultUri": f"https://{name.lower()}.{self._suffix()}/",
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
