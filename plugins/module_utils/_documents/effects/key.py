# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The effects of writes to keys, and the documents of keys that Azure does not show.

The document of a key is its newest version. Each version, the rotation policy and the deleted key are separate
documents, with their own refs.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..._core import placeholders
from .write import Document, EffectInput, PredictedRefusal, Prediction

_DAY = 86400
# The fields of a version. A deleted key has more fields.
_FIELDS = ("key", "attributes", "tags")


def create(write: EffectInput) -> Iterator[Prediction]:
    """Create a key, or a new version of the key."""
    vault, name = vault_of(write.ref), write.ref.rpartition("/")[2]
    if write.before is None and write.facts.find(write.ref.replace("/keys/", "/deletedkeys/")) is not None:
        raise PredictedRefusal("Conflict", f"Key {name} is currently in a deleted but recoverable state.")
    body, previous, now = write.body, write.before and write.before["attributes"], int(write.facts.now)
    number = write.facts.number(f"version of {vault}/{name.lower()}")
    version = write.facts.placeholder(placeholders.version(vault, name, number))
    # Times of Key Vault are whole seconds. Of two versions of the same second, neither would be newer.
    created = max(now, previous["created"] + 1) if previous else now
    level = previous.get("recoveryLevel", "Recoverable") if previous else _recovery_level(write, vault)
    key = {
        "kid": f"{write.ref}/{version}",
        "kty": body["kty"],
        "key_ops": body.get("key_ops", []),
        "n": _modulus(body.get("key_size", 2048)),
        "e": "AQAB",
    }
    attributes = {
        "enabled": True,
        **_without_nulls(body.get("attributes", {})),
        "created": created,
        "updated": created,
        "recoveryLevel": level,
    }
    tags = {"tags": body["tags"]} if body.get("tags") else {}
    yield Prediction(key["kid"], {"key": key, "attributes": attributes, **tags})


def update(write: EffectInput) -> Iterator[Prediction]:
    """Change a version of the key."""
    version, body, now = write.required, write.body, int(write.facts.now)
    attributes = {**version["attributes"], **_without_nulls(body.get("attributes", {})), "updated": now}
    operations = {"key_ops": body["key_ops"]} if body.get("key_ops") is not None else {}
    tags = {"tags": body["tags"]} if body.get("tags") is not None else {}
    changed = {**version, "key": {**version["key"], **operations}, "attributes": attributes, **tags}
    yield Prediction(write.ref, changed)


def set_rotation_policy(write: EffectInput) -> Iterator[Prediction]:
    actions = [_without_nulls(action) for action in write.body.get("lifetimeActions", [])]
    attributes = _without_nulls(write.body.get("attributes", {}))
    policy = {"id": write.required["id"], "lifetimeActions": actions, "attributes": attributes}
    yield Prediction(write.ref, policy)


def delete(write: EffectInput) -> Iterator[Prediction]:
    ref, now = write.ref.replace("/keys/", "/deletedkeys/"), int(write.facts.now)
    times = {"deletedDate": now, "scheduledPurgeDate": now + 90 * _DAY}
    yield Prediction(ref, {**write.required, "recoveryId": ref, **times})
    yield Prediction(write.ref, write.required, exists=False)


def recover(write: EffectInput) -> Iterator[Prediction]:
    newest = {field: write.required[field] for field in _FIELDS if field in write.required}
    yield Prediction(write.ref.replace("/deletedkeys/", "/keys/"), newest)
    yield Prediction(write.ref, write.required, exists=False)


def default_policy(ref: str) -> Document:
    """The rotation policy that Key Vault reports for a key without one."""
    notify = {"trigger": {"timeBeforeExpiry": "P30D"}, "action": {"type": "Notify"}}
    return {"id": ref, "lifetimeActions": [notify], "attributes": {}}


def usable(ref: str, now: float) -> Document:
    """A usable key, assumed because Azure does not show the key."""
    vault, name, created = vault_of(ref), ref.rpartition("/")[2], int(now) - 2 * _DAY
    return {
        "key": {
            "kid": f"{ref}/{placeholders.newest(vault, name)}",
            "kty": "RSA",
            "key_ops": ["wrapKey", "unwrapKey"],
            "n": _modulus(2048),
            "e": "AQAB",
        },
        "attributes": {"enabled": True, "created": created, "updated": created, "recoveryLevel": "Recoverable"},
    }


def assumed(newest: Document, version: str) -> Document:
    """A version of the key that Azure does not show, assumed to be enabled and otherwise like the newest version."""
    key, _slash, own = newest["key"]["kid"].rpartition("/")
    if not version or version == own.lower():
        return newest
    attributes = {**newest["attributes"], "enabled": True}
    return {**newest, "key": {**newest["key"], "kid": f"{key}/{version}"}, "attributes": attributes}


def created(bundle: Mapping[str, Any]) -> int:
    return int(bundle["attributes"]["created"])


def vault_of(ref: str) -> str:
    """The name of the vault, in lower case."""
    return ref.removeprefix("https://").partition(".")[0].lower()


def _recovery_level(write: EffectInput, vault: str) -> str:
    predicted = write.facts.vault(vault)
    is_protected = predicted is None or predicted.document["properties"].get("enablePurgeProtection")
    return "Recoverable" if is_protected else "Recoverable+Purgeable"


def _modulus(bits: int) -> str:
    """A modulus of the length of the key's, in base64 without padding."""
    return "A" * -(-bits // 6)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(one) for name, one in value.items() if one is not None}
    return value
