# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keys in check mode.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from ..._azure.gateway import Answer
from ..._azure.overlay import Reads, ResourceOverlay, completed, missing, not_predicted, refused
from ..._azure.predictions import Entry, Predictions
from ..._azure.sdk import no_response
from ..._core import placeholders
from ..._core.concurrent import value_or_error
from ..._core.errors import CmkError, Denied, NotFound
from ..._core.ids import key_in_vault
from ..vault.overlay import VaultsOverlay
from .document import item_of, version_of

# A JSON document of Key Vault, or its predicted copy.
Document = Any
_KIND = "key"
_DAY = 86400
# The rotation policy that Key Vault reports for a key without one.
_DEFAULT_POLICY = {
    "lifetimeActions": [{"trigger": {"timeBeforeExpiry": "P30D"}, "action": {"type": "Notify"}}],
    "attributes": {},
}


class KeysOverlay(ResourceOverlay):
    """An entry has the new versions (`made`), the changes to Azure's versions (`changed`), both by version, and the
    rotation `policy`. If the deletion of the key is predicted, `deleted` is the document of the deleted key. If the
    key is deleted in Azure and its recovery is predicted, `recovered` is its newest version.

    The refs are `https://HOST/keys/NAME`, with `/VERSION`, `/versions`, `/rotationpolicy` or `/create` behind it, and
    `https://HOST/deletedkeys/NAME`, also with `/recover`.
    """

    def __init__(self, azure: Reads, predictions: Predictions, vaults: VaultsOverlay) -> None:
        super().__init__(azure)
        self._predictions = predictions
        self._vaults = vaults

    def answer(self, what: str, ref: str) -> Answer:
        url, kind, name, last = self._parts(what, ref)
        if kind == "deletedkeys":
            document = self._deleted(what, url, name)
        elif last == "rotationpolicy":
            document = self._policy(what, url, name)
        else:
            document = self._version(what, url, name, last.lower())
        return Answer(document, self._azure.now)

    def list(self, what: str, ref: str, filter: str | None) -> list[Any]:
        """The versions of a key."""
        url, _kind, name, _last = self._parts(what, ref)
        entry, read = self._entry(url, name), partial(self._azure.list, what, ref, filter)
        if entry["deleted"]:
            raise missing(what, f"{url}/keys/{name}", "KeyNotFound")
        if entry["recovered"] or not self._vaults.is_in_azure(_vault(url)):
            # Azure lists no versions of a deleted key. The request only shows whether the caller may list versions.
            if entry["recovered"] and isinstance(denied := value_or_error(read, CmkError), Denied):
                raise denied
            newest = self._in_azure(what, url, name, "")
            listed = [item_of(newest)] if newest is not None else []
        else:
            try:
                listed = read()
            except NotFound:
                if not entry["made"]:
                    raise
                listed = []
        made = {version: {"document": item_of(bundle), "made": True} for version, bundle in entry["made"].items()}
        changed = [_with_changes(item, entry["changed"].get(version_of(item))) for item in listed]
        return completed(changed, made, version_of)

    def write(self, what: str, method: str, ref: str, body: Mapping[str, Any]) -> Any:
        url, kind, name, last = self._parts(what, ref)
        writes: dict[tuple[str, str, str], Callable[[], Document]] = {
            ("POST", "keys", "create"): lambda: self._create(what, url, name, body),
            ("PATCH", "keys", last): lambda: self._update(what, url, name, last.lower(), body),
            ("PUT", "keys", "rotationpolicy"): lambda: self._set_policy(what, url, name, body),
            ("DELETE", "keys", ""): lambda: self._delete(what, url, name),
            ("POST", "deletedkeys", "recover"): lambda: self._recover(what, url, name),
        }
        if (method, kind, last) not in writes:
            raise not_predicted(method, ref)
        with self._predictions.locked(_KIND, key_in_vault(_vault(url), name)):
            document = writes[method, kind, last]()
        self._vaults.touch(key_in_vault(_vault(url), name))
        return document

    def _parts(self, what: str, ref: str) -> tuple[str, str, str, str]:
        """The URL of the vault, `keys` or `deletedkeys`, the name of the key, and what is behind it."""
        parts = urlsplit(ref)
        vault = self._vaults.entry(_vault(ref))
        if vault is not None and vault["document"] is None:
            message = f"the vault is deleted, so there is no host {parts.hostname}"
            raise no_response(what, message, unreachable="vault_unreachable")
        kind, name, last = (*parts.path.strip("/").split("/"), "")[:3]
        return f"{parts.scheme}://{parts.netloc}".lower(), kind, name, last

    # Reads

    def _version(self, what: str, url: str, name: str, wanted: str) -> Document | None:
        """A version of the key, by default the newest."""
        entry = self._entry(url, name)
        if entry["deleted"]:
            return None
        if wanted in entry["made"]:
            return entry["made"][wanted]
        found = self._in_azure(what, url, name, wanted)
        if found is not None:
            found = _with_changes(found, entry["changed"].get(version_of(found["key"])))
        newest = max(entry["made"].values(), key=_created, default=None)
        if wanted or newest is None:
            return found
        return newest if found is None or _created(newest) >= _created(found) else found

    def _in_azure(self, what: str, url: str, name: str, wanted: str) -> Document | None:
        """The version without predictions. Azure does not show the keys of a deleted vault. Therefore a vault whose
        recovery is predicted has every key that a task names, and the key is usable."""
        entry, vault = self._entry(url, name), self._vaults.entry(_vault(url))
        if entry["recovered"]:
            return _assumed(entry["recovered"], wanted)
        if vault is not None and vault["recovered"]:
            return _assumed(self._usable(url, name), wanted)
        if not self._vaults.is_in_azure(_vault(url)):
            return None
        # A placeholder is from a task that shares no predictions with this task.
        known = "" if placeholders.is_placeholder(wanted) else wanted
        found: Document | None = self._azure.find(what, f"{url}/keys/{name}/{known}".rstrip("/"))
        return found if found is None or known == wanted else _assumed(found, wanted)

    def _policy(self, what: str, url: str, name: str) -> Document | None:
        entry, ref = self._entry(url, name), f"{url}/keys/{name}/rotationpolicy"
        if entry["deleted"]:
            return None
        if entry["policy"]:
            return entry["policy"]
        is_in_azure = not entry["recovered"] and self._vaults.is_in_azure(_vault(url))
        found: Document | None = self._azure.find(what, ref) if is_in_azure else None
        if found is None and (entry["made"] or not is_in_azure):
            return {"id": ref, **_DEFAULT_POLICY}
        return found

    def _deleted(self, what: str, url: str, name: str) -> Document | None:
        entry = self._entry(url, name)
        if entry["deleted"]:
            return entry["deleted"]
        if entry["recovered"] or entry["made"] or not self._vaults.is_in_azure(_vault(url)):
            return None
        return self._azure.find(what, f"{url}/deletedkeys/{name}")

    # Writes

    def _create(self, what: str, url: str, name: str, body: Mapping[str, Any]) -> Document:
        entry = self._entry(url, name)
        if self._deleted(what, url, name) is not None:
            raise refused(what, "Conflict", f"Key {name} is currently in a deleted but recoverable state.")
        newest = self._version(what, url, name, "")
        number = len(entry["made"]) + 1
        new = self._predictions.keep_placeholder(placeholders.version(_vault(url), name, number))
        # Times of Key Vault are whole seconds. Of two versions of the same second, neither would be newer.
        created = max(int(self._azure.now), _created(newest) + 1 if newest is not None else 0)
        bundle = {
            "key": {
                "kid": f"{url}/keys/{name}/{new}",
                "kty": body["kty"],
                "key_ops": body.get("key_ops", []),
                "n": _modulus(body.get("key_size", 2048)),
                "e": "AQAB",
            },
            "attributes": {
                "enabled": True,
                **{one: value for one, value in body.get("attributes", {}).items() if value is not None},
                "created": created,
                "updated": created,
                "recoveryLevel": self._recovery_level(_vault(url), newest),
            },
            **({"tags": body["tags"]} if body.get("tags") else {}),
        }
        self._put(url, name, {**entry, "made": {**entry["made"], new: bundle}})
        return bundle

    def _update(self, what: str, url: str, name: str, wanted: str, body: Mapping[str, Any]) -> Document:
        current = self._required(what, url, name, wanted)
        entry, version = self._entry(url, name), version_of(current["key"])
        attributes = {one: value for one, value in body.get("attributes", {}).items() if value is not None}
        change: dict[str, Any] = {
            "attributes": {**attributes, "updated": int(self._azure.now)},
            "key_ops": body.get("key_ops"),
            "tags": body.get("tags"),
        }
        bundle = _with_changes(current, change)
        if version in entry["made"]:
            self._put(url, name, {**entry, "made": {**entry["made"], version: bundle}})
        else:
            before = entry["changed"].get(version, {})
            merged = {
                "attributes": {**before.get("attributes", {}), **change["attributes"]},
                "key_ops": change["key_ops"] or before.get("key_ops"),
                "tags": change["tags"] if change["tags"] is not None else before.get("tags"),
            }
            self._put(url, name, {**entry, "changed": {**entry["changed"], version: merged}})
        return bundle

    def _set_policy(self, what: str, url: str, name: str, body: Mapping[str, Any]) -> Document:
        current = self._policy(what, url, name)
        if current is None:
            raise missing(what, f"{url}/keys/{name}", "KeyNotFound")
        policy = {
            "id": current["id"],
            "lifetimeActions": [_without_nulls(action) for action in body.get("lifetimeActions", [])],
            "attributes": _without_nulls(body.get("attributes", {})),
        }
        self._put(url, name, {**self._entry(url, name), "policy": policy})
        return policy

    def _delete(self, what: str, url: str, name: str) -> Document:
        current, now = self._required(what, url, name, ""), int(self._azure.now)
        deleted = {
            **current,
            "recoveryId": f"{url}/deletedkeys/{name}",
            "deletedDate": now,
            "scheduledPurgeDate": now + 90 * _DAY,
        }
        self._put(url, name, {**self._entry(url, name), "deleted": deleted})
        return deleted

    def _recover(self, what: str, url: str, name: str) -> Document:
        entry, deleted = self._entry(url, name), self._deleted(what, url, name)
        if deleted is None:
            raise missing(what, f"{url}/deletedkeys/{name}", "KeyNotFound")
        bundle = {one: deleted[one] for one in ("key", "attributes", "tags") if one in deleted}
        self._put(url, name, {**entry, "deleted": None} if entry["deleted"] else {**entry, "recovered": bundle})
        return bundle

    def _required(self, what: str, url: str, name: str, wanted: str) -> Document:
        found = self._version(what, url, name, wanted)
        if found is None:
            raise missing(what, f"{url}/keys/{name}/{wanted}", "KeyNotFound")
        return found

    def _entry(self, url: str, name: str) -> Entry:
        found = self._predictions.get(_KIND, key_in_vault(_vault(url), name))
        return found or {"made": {}, "changed": {}, "policy": None, "deleted": None, "recovered": None}

    def _put(self, url: str, name: str, entry: Entry) -> None:
        self._predictions.put(_KIND, key_in_vault(_vault(url), name), entry)

    def _recovery_level(self, vault: str, newest: Document | None) -> str:
        if newest is not None:
            return str(newest["attributes"].get("recoveryLevel", "Recoverable"))
        entry = self._vaults.entry(vault)
        is_protected = entry is None or (entry["document"] or {})["properties"].get("enablePurgeProtection")
        return "Recoverable" if is_protected else "Recoverable+Purgeable"

    def _usable(self, url: str, name: str) -> Document:
        """A usable key, assumed because Azure does not show the key."""
        created = int(self._azure.now) - 2 * _DAY
        return {
            "key": {
                "kid": f"{url}/keys/{name}/{placeholders.newest(_vault(url), name)}",
                "kty": "RSA",
                "key_ops": ["wrapKey", "unwrapKey"],
                "n": _modulus(2048),
                "e": "AQAB",
            },
            "attributes": {"enabled": True, "created": created, "updated": created, "recoveryLevel": "Recoverable"},
        }


def _vault(url: str) -> str:
    """The name of the vault, in lower case."""
    return (urlsplit(url).hostname or "").partition(".")[0]


def _assumed(bundle: Document, wanted: str) -> Document:
    """A version of a key that is not known, assumed to be an enabled version like another one."""
    if not wanted or wanted == version_of(bundle["key"]):
        return bundle
    kid = f"{bundle['key']['kid'].rpartition('/')[0]}/{wanted}"
    return {**bundle, "key": {**bundle["key"], "kid": kid}, "attributes": {**bundle["attributes"], "enabled": True}}


def _with_changes(document: Document, change: Mapping[str, Any] | None) -> Document:
    """A version, or its item in a list, with its predicted changes."""
    if not change:
        return document
    changed = {**document, "attributes": {**document["attributes"], **change["attributes"]}}
    if change["key_ops"] is not None and "key" in document:
        changed["key"] = {**document["key"], "key_ops": change["key_ops"]}
    if change["tags"] is not None:
        changed["tags"] = change["tags"]
    return changed


def _created(bundle: Mapping[str, Any]) -> int:
    return int(bundle["attributes"]["created"])


def _modulus(bits: int) -> str:
    """A modulus of the length of the key's, in base64 without padding."""
    return "A" * -(-bits // 6)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(one) for name, one in value.items() if one is not None}
    return value
