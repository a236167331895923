# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The effects of writes to key vaults.

A deleted vault is a separate document, with its own ref.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from ..._core.ids import place_of
from . import write as writes
from .write import HIDDEN, NEW, Document, EffectInput, Prediction

_NAMESPACE = "/providers/Microsoft.KeyVault"


def put(write: EffectInput) -> Iterator[Prediction]:
    if write.body["properties"].get("createMode") == "recover":
        yield from _recovered(write)
    elif write.before is None:
        vault = writes.changed(_new(writes.new_id(write), write), write.body)
        now = _second(datetime.fromtimestamp(write.facts.now, UTC))
        times = {"systemData": {"createdAt": now, "lastModifiedAt": now}}
        yield Prediction(vault["id"], {**vault, **times}, contents=NEW)
    else:
        yield from patch(write)


def patch(write: EffectInput) -> Iterator[Prediction]:
    yield Prediction(write.ref, _changed(write.required, write.body))


def delete(write: EffectInput) -> Iterator[Prediction]:
    if write.before is not None:
        deleted = _deleted(write.before, write.facts.now)
        yield Prediction(write.ref, _changed(write.before, {}), exists=False)
        yield Prediction(deleted["id"], deleted)


def set_policies(operation: str, write: EffectInput) -> Iterator[Prediction]:
    """`operation` is add, replace or remove."""
    vault = write.required
    policies = {_holder(one): one for one in vault["properties"].get("accessPolicies", [])}
    for entry in write.body["properties"]["accessPolicies"]:
        policies[_holder(entry)] = _policy_after(operation, policies.get(_holder(entry)) or {}, entry)
    kept = [policy for policy in policies.values() if policy is not None]
    yield Prediction(write.ref, _changed(vault, {"properties": {"accessPolicies": kept}}))


def _changed(vault: Document, body: Mapping[str, Any]) -> Document:
    # The time of the change is not known: the vault is changed only in check mode.
    return {name: value for name, value in writes.changed(vault, body).items() if name != "systemData"}


def _recovered(write: EffectInput) -> Iterator[Prediction]:
    """Recover a deleted vault. Azure does not show its permission model, so the model of the task is assumed, or Azure
    RBAC, the default of new vaults. With access policies, the caller is assumed to have all permissions on keys."""
    subscription, _group, name = place_of(write.ref)
    # The list, because to read one deleted vault needs a different right.
    ref = f"/subscriptions/{subscription}{_NAMESPACE}/deletedVaults"
    deleted = next((one for one in write.facts.list(ref) if one["name"].lower() == name.lower()), None)
    if deleted is None:
        raise writes.missing(f"{ref}/{name}", "DeletedVaultNotFound")
    predicted = write.facts.vault(name)
    if predicted is not None:
        yield predicted._replace(exists=True)
    else:
        vault = _new(deleted["properties"]["vaultId"], write)
        if deleted["properties"].get("purgeProtectionEnabled"):
            vault["properties"]["enablePurgeProtection"] = True
        if name.lower() in write.facts.with_policies:
            policy = {"objectId": write.facts.caller()["object_id"], "permissions": {"keys": ["all"]}}
            vault["properties"].update(enableRbacAuthorization=False, accessPolicies=[policy])
        yield Prediction(vault["id"], {**vault, "tags": write.body.get("tags", {})}, contents=HIDDEN)
    yield Prediction(deleted["id"], deleted, exists=False)


def _new(vault_id: str, write: EffectInput) -> Document:
    """A new vault with Azure's default values."""
    name, sent = place_of(vault_id)[2], write.body["properties"]
    return {
        "id": vault_id,
        "name": name,
        "type": "Microsoft.KeyVault/vaults",
        "location": writes.region(write.body),
        "tags": {},
        "properties": {
            "tenantId": sent["tenantId"],
            "sku": sent["sku"],
            "accessPolicies": [],
            "enableSoftDelete": True,
            "softDeleteRetentionInDays": 90,
            "enableRbacAuthorization": True,
            "vaultUri": f"https://{name.lower()}.{write.facts.vault_suffix()}/",
            "provisioningState": "Succeeded",
            "publicNetworkAccess": "Enabled",
        },
    }


def _deleted(vault: Document, now: float) -> Document:
    place = f"/subscriptions/{place_of(vault['id'])[0]}{_NAMESPACE}/locations/{vault['location']}"
    properties, deleted_at = vault["properties"], datetime.fromtimestamp(now, UTC)
    return {
        "id": f"{place}/deletedVaults/{vault['name']}",
        "name": vault["name"],
        "type": "Microsoft.KeyVault/deletedVaults",
        "properties": {
            "vaultId": vault["id"],
            "location": vault["location"],
            "tags": vault.get("tags", {}),
            "deletionDate": _second(deleted_at),
            "scheduledPurgeDate": _second(deleted_at + timedelta(days=properties.get("softDeleteRetentionInDays", 90))),
            **({"purgeProtectionEnabled": True} if properties.get("enablePurgeProtection") else {}),
        },
    }


def _policy_after(operation: str, previous: Document, entry: Document) -> Document | None:
    """The policy of a principal after the operation; None if its last permission is removed."""
    if operation == "replace":
        return entry
    has, sent = previous.get("permissions", {}), entry.get("permissions", {})
    if operation == "add":
        joined = {of: _joined(has.get(of), sent.get(of)) for of in {**has, **sent}}
        return {**(previous or entry), "permissions": joined}
    left = {of: _without(names, sent.get(of)) for of, names in has.items()}
    return {**previous, "permissions": left} if any(left.values()) else None


def _joined(one: list[str] | None, other: list[str] | None) -> list[str]:
    return [*(one or ()), *_without(other, one)]


def _without(names: list[str] | None, taken: list[str] | None) -> list[str]:
    lower = {name.lower() for name in taken or ()}
    return [name for name in names or () if name.lower() not in lower]


def _holder(policy: Mapping[str, Any]) -> tuple[str, str]:
    return str(policy["objectId"]).lower(), str(policy.get("applicationId") or "").lower()


def _second(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
