# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The effects of writes to Batch accounts.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..._core import placeholders
from ..._core.ids import place_of
from . import write as writes
from .write import NEW, Document, EffectInput, Prediction

delete = writes.deleted


def put(write: EffectInput) -> Iterator[Prediction]:
    if write.before is None:
        new = _new(write)
        yield Prediction(new["id"], _changed(new, write), contents=NEW)
    else:
        # The request repeats a creation that has failed, or changes the account.
        yield from patch(write)


def patch(write: EffectInput) -> Iterator[Prediction]:
    yield Prediction(write.ref, _changed(write.required, write))


def _new(write: EffectInput) -> Document:
    name, location = place_of(write.ref)[2], writes.region(write.body)
    return {
        "id": writes.new_id(write),
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


def _changed(account: Document, write: EffectInput) -> Document:
    identity = {"identity": _identity(account, write)} if write.body.get("identity") else {}
    changed = {**writes.changed(account, write.body), **identity}
    return {**changed, "properties": {**changed["properties"], "provisioningState": "Succeeded"}}


def _identity(account: Document, write: EffectInput) -> Document:
    has, wanted = account.get("identity", {}), write.body["identity"]
    if wanted["type"] == "SystemAssigned":
        return has if has.get("type") == "SystemAssigned" else _new_identity(account["id"], write)
    named = wanted.get("userAssignedIdentities", {})
    lower = {one.lower() for one in named}
    assigned = {one: ids for one, ids in has.get("userAssignedIdentities", {}).items() if one.lower() not in lower}
    for ref in named:
        identity = write.facts.find(ref)
        if identity is None:
            raise writes.missing(ref)
        assigned[ref] = {of: identity["properties"][of] for of in ("principalId", "clientId")}
    return {"type": wanted["type"], **({"userAssignedIdentities": assigned} if assigned else {})}


def _new_identity(account_id: str, write: EffectInput) -> Document:
    _subscription, group, name = place_of(account_id)
    number = write.facts.number(f"principal of {account_id.lower()}")
    principal = write.facts.placeholder(placeholders.principal(name, group, number))
    return {"type": "SystemAssigned", "principalId": principal, "tenantId": write.facts.caller()["tenant_id"]}
