# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keys in check mode.

This module util is private to the collection.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from .._core import placeholders
from .._core.ids import VAULT_SUFFIXES, key_in_vault
from .picture import Entry, Picture
from .rehearsed_vaults import RehearsedVaults
from .responses import Call, Document, Response, completed, missing

_KEY = re.compile(r"/keys/([^/]+)(?:/([0-9a-f]{32}))?", re.IGNORECASE)
_CREATE = re.compile(r"/keys/([^/]+)/create", re.IGNORECASE)
_VERSIONS = re.compile(r"/keys/([^/]+)/versions", re.IGNORECASE)
_POLICY = re.compile(r"/keys/([^/]+)/rotationpolicy", re.IGNORECASE)
_DELETED = re.compile(r"/deletedkeys/([^/]+)", re.IGNORECASE)
_RECOVER = re.compile(r"/deletedkeys/([^/]+)/recover", re.IGNORECASE)
_LIST = re.compile(r"/(keys|deletedkeys)", re.IGNORECASE)
_KIND = "key"
_DAY = 86400
# The rotation policy that Key Vault reports for a key without one.
_DEFAULT_POLICY = {
    "lifetimeActions": [{"trigger": {"timeBeforeExpiry": "P30D"}, "action": {"type": "Notify"}}],
    "attributes": {},
}


class RehearsedKeys:
    """An entry has the versions that were created in the picture (`made`), the changes to Azure's versions (`changed`),
    both by version, and the rotation `policy`. If the key is deleted in the picture, `deleted` is the document of the
    deleted key. If the key is deleted in Azure and recovered in the picture, `recovered` is its newest version."""

    def __init__(self, picture: Picture, vaults: RehearsedVaults) -> None:
        self._picture = picture
        self._vaults = vaults

    def response(self, call: Call) -> Response | None:
        vault, _dot, suffix = call.host.partition(".")
        if suffix not in VAULT_SUFFIXES:
            return None
        entry = self._vaults.entry(vault)
        if entry is not None and entry["document"] is None:
            raise _no_such_host(call.host)
        return self._of_key(call, vault)

    def _of_key(self, call: Call, vault: str) -> Response | None:
        if call.method == "GET":
            return self._read(call, vault)
        writes: dict[str, tuple[re.Pattern[str], Callable[..., Response]]] = {
            "POST": (_CREATE, self._create),
            "PATCH": (_KEY, self._update),
            "PUT": (_POLICY, self._set_policy),
            "DELETE": (_KEY, self._delete),
        }
        pattern, write = writes.get(call.method, (_KEY, self._update))
        if call.method == "POST" and _RECOVER.fullmatch(call.path):
            pattern, write = _RECOVER, self._recover
        found = pattern.fullmatch(call.path)
        if found is None or call.method not in writes:
            return None
        with self._picture.locked(_KIND, f"{vault}/{found[1]}"):
            response = write(call, vault, *found.groups())
        self._vaults.touch(key_in_vault(vault, found[1]))
        return response

    def _read(self, call: Call, vault: str) -> Response | None:
        if found := _VERSIONS.fullmatch(call.path):
            return self._versions(call, vault, found[1])
        if found := _POLICY.fullmatch(call.path):
            return self._policy(call, vault, found[1])
        if found := _KEY.fullmatch(call.path):
            return self._version(call, vault, found[1], (found[2] or "").lower())
        if found := _DELETED.fullmatch(call.path):
            return self._deleted(call, vault, found[1])
        if found := _LIST.fullmatch(call.path):
            return self._listed(call, vault, deleted=found[1].lower() == "deletedkeys")
        return None

    # Reads

    def _version(self, call: Call, vault: str, name: str, wanted: str) -> Response:
        """A version of the key, by default the newest."""
        entry = self._entry(vault, name)
        if entry["deleted"]:
            return _key_not_found(name)
        if wanted in entry["made"]:
            return Response(200, entry["made"][wanted])
        response = self._in_azure(call, vault, name, wanted, entry)
        if response.status == 200:
            response = _patched(response, entry)
        made = max(entry["made"].values(), key=_created, default=None)
        if wanted or made is None or (response.status not in (200, 404)):
            return response
        is_newer = response.status == 404 or _created(made) >= _created(response.body)
        return Response(200, made) if is_newer else response

    def _in_azure(self, call: Call, vault: str, name: str, wanted: str, entry: Entry) -> Response:
        """The version without the changes in the picture. Azure does not show the keys of a deleted vault. Therefore a
        vault that was recovered in the picture has every key that a task names, and the key is usable."""
        host = self._vaults.entry(vault)
        if entry["recovered"]:
            return Response(200, _assumed(entry["recovered"], wanted))
        if host is not None and host["recovered"]:
            return Response(200, _assumed(_usable(call, vault, name), wanted))
        if not self._vaults.is_in_azure(vault):
            return _key_not_found(name)
        if placeholders.is_placeholder(wanted):
            # The placeholder is from a task that shares no picture with this task.
            response = call.get(f"/keys/{name}")
            return response if response.status != 200 else Response(200, _assumed(response.body, wanted))
        return call.get(f"/keys/{name}/{wanted}" if wanted else f"/keys/{name}")

    def _versions(self, call: Call, vault: str, name: str) -> Response:
        entry = self._entry(vault, name)
        if entry["deleted"]:
            return _key_not_found(name)
        if entry["recovered"] or not self._vaults.is_in_azure(vault):
            # Azure lists no versions of a deleted key. The request only shows whether the caller may list versions.
            if entry["recovered"] and (asked := call.ask()).status == 403:
                return asked
            newest = self._in_azure(call, vault, name, "", entry)
            response = Response(200, {"value": [_item(newest.body)] if newest.status == 200 else [], "nextLink": None})
        else:
            response = call.ask()
        if response.status == 404 and entry["made"]:
            response = Response(200, {"value": [], "nextLink": None})
        made = {item: {"document": _item(bundle), "made": True} for item, bundle in entry["made"].items()}
        if response.status == 200 and entry["changed"]:
            value = [_with_changes(item, entry["changed"].get(_version_in(item))) for item in response.body["value"]]
            response = response.with_body({**response.body, "value": value})
        return completed(response, made, _version_in)

    def _policy(self, call: Call, vault: str, name: str) -> Response:
        entry = self._entry(vault, name)
        if entry["deleted"]:
            return _key_not_found(name)
        if entry["policy"]:
            return Response(200, entry["policy"])
        if entry["recovered"] or not self._vaults.is_in_azure(vault):
            return Response(200, {"id": f"https://{call.host}/keys/{name}/rotationpolicy", **_DEFAULT_POLICY})
        response = call.ask() if call.method == "GET" else call.get()
        if response.status == 404 and entry["made"]:
            return Response(200, {"id": f"https://{call.host}/keys/{name}/rotationpolicy", **_DEFAULT_POLICY})
        return response

    def _deleted(self, call: Call, vault: str, name: str) -> Response:
        entry = self._entry(vault, name)
        if entry["deleted"]:
            return Response(200, entry["deleted"])
        if entry["recovered"] or entry["made"] or not self._vaults.is_in_azure(vault):
            return missing("KeyNotFound", f"Deleted Key not found: {name}")
        return call.get(f"/deletedkeys/{name}")

    def _listed(self, call: Call, vault: str, *, deleted: bool) -> Response:
        entries = self._picture.at(_KIND, vault)
        changed: dict[str, Entry] = {}
        for entry_name, entry in entries.items():
            of_vault, _slash, name = entry_name.partition("/")
            if of_vault != vault:
                continue
            bundle = entry["deleted"] or max(entry["made"].values(), key=_created, default=None) or entry["recovered"]
            if bundle is None:
                continue
            is_shown = bool(entry["deleted"]) is deleted
            document = {**_item(bundle), "kid": f"https://{call.host}/keys/{name}"}
            made = deleted or bool(entry["recovered"]) or not entry["in_azure"]
            changed[name] = {"document": document if is_shown else None, "made": made}
        in_azure = self._vaults.is_in_azure(vault)
        response = call.ask() if in_azure else Response(200, {"value": [], "nextLink": None})
        return completed(response, changed, lambda item: str(item["kid"]).rpartition("/keys/")[2].lower())

    # Writes

    def _create(self, call: Call, vault: str, name: str) -> Response:
        entry = self._entry(vault, name)
        deleted = self._deleted(call, vault, name)
        if deleted.status == 200:
            message = f"Key {name} is currently in a deleted but recoverable state."
            return Response(409, {"error": {"code": "Conflict", "message": message}})
        newest = self._version(call, vault, name, "")
        if newest.status not in (200, 404):
            return newest
        number = len(entry["made"]) + 1
        new = self._picture.keep_placeholder(placeholders.version(vault, name, number))
        # Times of Key Vault are whole seconds. Of two versions of the same second, neither would be newer.
        created = max(int(call.now), _created(newest.body) + 1 if newest.status == 200 else 0)
        size = call.body.get("key_size", 2048)
        bundle = {
            "key": {
                "kid": f"https://{call.host}/keys/{name}/{new}",
                "kty": call.body["kty"],
                "key_ops": call.body.get("key_ops", []),
                "n": _modulus(size),
                "e": "AQAB",
            },
            "attributes": {
                "enabled": True,
                **{one: value for one, value in call.body.get("attributes", {}).items() if value is not None},
                "created": created,
                "updated": created,
                "recoveryLevel": self._recovery_level(vault, newest),
            },
            **({"tags": call.body["tags"]} if call.body.get("tags") else {}),
        }
        in_azure = entry["in_azure"] or (newest.status == 200 and not entry["made"])
        self._put(vault, name, {**entry, "made": {**entry["made"], new: bundle}, "in_azure": in_azure})
        return Response(200, bundle)

    def _update(self, call: Call, vault: str, name: str, wanted: str | None) -> Response:
        current = self._version(call, vault, name, (wanted or "").lower())
        if current.status != 200:
            return current
        entry, number = self._entry(vault, name), _version_in(current.body["key"])
        attributes = {one: value for one, value in call.body.get("attributes", {}).items() if value is not None}
        change: dict[str, Any] = {
            "attributes": {**attributes, "updated": int(call.now)},
            "key_ops": call.body.get("key_ops"),
            "tags": call.body.get("tags"),
        }
        bundle = _with_changes(current.body, change)
        if number in entry["made"]:
            self._put(vault, name, {**entry, "made": {**entry["made"], number: bundle}})
        else:
            before = entry["changed"].get(number, {})
            merged = {
                "attributes": {**before.get("attributes", {}), **change["attributes"]},
                "key_ops": change["key_ops"] or before.get("key_ops"),
                "tags": change["tags"] if change["tags"] is not None else before.get("tags"),
            }
            self._put(vault, name, {**entry, "changed": {**entry["changed"], number: merged}, "in_azure": True})
        return Response(200, bundle)

    def _set_policy(self, call: Call, vault: str, name: str) -> Response:
        current = self._policy(call, vault, name)
        if current.status != 200:
            return current
        sent = {"lifetimeActions": call.body.get("lifetimeActions", []), "attributes": call.body.get("attributes", {})}
        actions = [_without_nulls(action) for action in sent["lifetimeActions"]]
        policy = {
            "id": current.body["id"],
            "lifetimeActions": actions,
            "attributes": _without_nulls(sent["attributes"]),
        }
        self._put(vault, name, {**self._entry(vault, name), "policy": policy})
        return Response(200, policy)

    def _delete(self, call: Call, vault: str, name: str, _version: str | None) -> Response:
        current = self._version(call, vault, name, "")
        if current.status != 200:
            return current
        entry = self._entry(vault, name)
        deletion = {
            "recoveryId": f"https://{call.host}/deletedkeys/{name}",
            "deletedDate": int(call.now),
            "scheduledPurgeDate": int(call.now) + 90 * _DAY,
        }
        deleted = {**current.body, **deletion}
        in_azure = entry["in_azure"] or not entry["made"]
        self._put(vault, name, {**entry, "deleted": deleted, "in_azure": in_azure})
        return Response(200, deleted)

    def _recover(self, call: Call, vault: str, name: str) -> Response:
        entry = self._entry(vault, name)
        deleted = self._deleted(call, vault, name)
        if deleted.status != 200:
            return deleted
        bundle = {one: deleted.body[one] for one in ("key", "attributes", "tags") if one in deleted.body}
        if entry["deleted"]:
            self._put(vault, name, {**entry, "deleted": None})
        else:
            self._put(vault, name, {**entry, "recovered": bundle})
        return Response(200, bundle)

    def _entry(self, vault: str, name: str) -> Entry:
        found = self._picture.at(_KIND, vault).get(f"{vault}/{name}".lower())
        return found or {
            **{"made": {}, "changed": {}, "policy": None, "deleted": None, "recovered": None},
            "in_azure": False,
        }

    def _put(self, vault: str, name: str, entry: Entry) -> None:
        """All keys of a vault have the same place, so that they can be listed together."""
        self._picture.put(_KIND, f"{vault}/{name}", entry, place=vault)

    def _recovery_level(self, vault: str, newest: Response) -> str:
        if newest.status == 200:
            return str(newest.body["attributes"].get("recoveryLevel", "Recoverable"))
        entry = self._vaults.entry(vault)
        is_protected = entry is None or (entry["document"] or {})["properties"].get("enablePurgeProtection")
        return "Recoverable" if is_protected else "Recoverable+Purgeable"


def _no_such_host(host: str) -> Exception:
    import requests

    return requests.exceptions.ConnectionError(f"the vault is deleted, so there is no host {host}")


def _key_not_found(name: str) -> Response:
    return missing("KeyNotFound", f"A key with (name/id) {name} was not found in this key vault.")


def _usable(call: Call, vault: str, name: str) -> Document:
    """A usable key, assumed because Azure does not show the key."""
    created = int(call.now) - 2 * _DAY
    return {
        "key": {
            "kid": f"https://{call.host}/keys/{name}/{placeholders.newest(vault, name)}",
            "kty": "RSA",
            "key_ops": ["wrapKey", "unwrapKey"],
            "n": _modulus(2048),
            "e": "AQAB",
        },
        "attributes": {"enabled": True, "created": created, "updated": created, "recoveryLevel": "Recoverable"},
    }


def _assumed(bundle: Document, wanted: str) -> Document:
    """A version of a key that is not known, assumed to be an enabled version like another one."""
    if not wanted or wanted == _version_in(bundle["key"]):
        return bundle
    kid = f"{bundle['key']['kid'].rpartition('/')[0]}/{wanted}"
    return {**bundle, "key": {**bundle["key"], "kid": kid}, "attributes": {**bundle["attributes"], "enabled": True}}


def _patched(response: Response, entry: Entry) -> Response:
    change = entry["changed"].get(_version_in(response.body["key"]))
    return response.with_body(_with_changes(response.body, change)) if change else response


def _with_changes(document: Document, change: Mapping[str, Any] | None) -> Document:
    """A version, or its item in a list, with its changes in the picture."""
    if not change:
        return document
    changed = {**document, "attributes": {**document["attributes"], **change["attributes"]}}
    if change["key_ops"] is not None and "key" in document:
        changed["key"] = {**document["key"], "key_ops": change["key_ops"]}
    if change["tags"] is not None:
        changed["tags"] = change["tags"]
    return changed


def _item(bundle: Document) -> Document:
    tags = {"tags": bundle["tags"]} if "tags" in bundle else {}
    return {"kid": bundle["key"]["kid"], "attributes": bundle["attributes"], **tags}


def _version_in(item: Mapping[str, Any]) -> str:
    return str(item["kid"]).rpartition("/")[2].lower()


def _created(bundle: Mapping[str, Any]) -> int:
    return int(bundle["attributes"]["created"])


def _modulus(bits: int) -> str:
    """A modulus of the length of the key's, in base64 without padding."""
    return "A" * -(-bits // 6)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(one) for name, one in value.items() if one is not None}
    return value
