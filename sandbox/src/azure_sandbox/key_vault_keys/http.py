# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keys over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from starlette.responses import Response

from ..key_vault.vault import Vault
from ..shared import paging, web
from ..shared.web import AzureError, Route, answer
from . import documents, errors, material, operations, request, rules
from .key import Key, KeyVersion
from .material import BadMaterial, base64url, from_base64url
from .rules import Keys

T = TypeVar("T")

PAGE = 25


class World(rules.World, Protocol):
    keys: Keys


Call = web.Call[World]


def _vault(call: Call) -> Vault:
    return call.world.keys.vault_at(call.host)


def _bundle(call: Call, found: tuple[Key, KeyVersion]) -> Response:
    return answer(documents.bundle(_vault(call), *found, call.api_version))


def _named(call: Call) -> tuple[Key, KeyVersion]:
    return call.world.keys.version(_vault(call), call.path["key"], call.path.get("version", ""))


def _bytes(call: Call, name: str) -> bytes:
    try:
        return from_base64url(call.json.get(name))
    except BadMaterial as problem:
        raise errors.bad_parameter(f"Property {name} has invalid value: {problem}.") from problem


# Creating


def create_without_name(call: Call) -> Response:
    raise errors.operation_not_specified()


async def create(call: Call) -> Response:
    settings = request.key_settings(call.json)
    return _bundle(call, await call.world.keys.create(_vault(call), call.path["key"], settings))


def import_key(call: Call) -> Response:
    jwk = call.json.get("key")
    if not isinstance(jwk, dict):
        raise errors.bad_parameter("Property key has invalid value.")
    kty = str(jwk.get("kty"))
    if call.json.get("Hsm") and not kty.endswith("-HSM"):
        kty += "-HSM"
    wanted = {"kty": kty, "key_ops": jwk.get("key_ops")}
    settings = request.key_settings(
        {**wanted, "attributes": call.json.get("attributes"), "tags": call.json.get("tags")}
    )
    try:
        private_key = material.from_jwk(jwk)
    except BadMaterial as problem:
        raise errors.bad_parameter(f"Property key has invalid value: {problem}.") from problem
    return _bundle(call, call.world.keys.import_key(_vault(call), call.path["key"], settings, private_key))


async def rotate(call: Call) -> Response:
    return _bundle(call, await call.world.keys.rotate(_vault(call), call.path["key"]))


def backup(call: Call) -> Response:
    return answer({"value": base64url(call.world.keys.backup(_vault(call), call.path["key"]))})


def restore(call: Call) -> Response:
    key = call.world.keys.restore(_vault(call), _bytes(call, "value"))
    return _bundle(call, (key, key.latest))


# Reading and changing


def get(call: Call) -> Response:
    return _bundle(call, call.world.keys.shown(_vault(call), call.path["key"], call.path.get("version", "")))


def update(call: Call) -> Response:
    version = call.path.get("version", "")
    return _bundle(call, call.world.keys.update(_vault(call), call.path["key"], version, call.json))


def get_policy(call: Call) -> Response:
    vault = _vault(call)
    return answer(documents.policy(vault, call.world.keys.key(vault, call.path["key"])))


def put_policy(call: Call) -> Response:
    vault = _vault(call)
    return answer(documents.policy(vault, call.world.keys.set_policy(vault, call.path["key"], call.json)))


# Lists


def list_keys(call: Call) -> Response:
    vault = _vault(call)
    keys = call.world.keys.keys(vault)
    return _page(call, keys, lambda key: key.name.lower(), lambda key: documents.key_item(vault, key, call.api_version))


def list_deleted(call: Call) -> Response:
    vault = _vault(call)
    keys = call.world.keys.deleted_keys(vault)
    return _page(
        call, keys, lambda key: key.name.lower(), lambda key: documents.deleted_item(vault, key, call.api_version)
    )


def list_versions(call: Call) -> Response:
    vault = _vault(call)
    versions = call.world.keys.versions(vault, call.path["key"])
    if not versions:
        return answer({"value": [], "nextLink": None})
    key = call.world.keys.key(vault, call.path["key"])
    return _page(
        call,
        versions,
        lambda version: version.version,
        lambda version: documents.version_item(vault, key, version, call.api_version),
    )


def _page(call: Call, entries: list[T], mark: Callable[[T], str], show: Callable[[T], dict[str, Any]]) -> Response:
    """One page of entries that are sorted by their marks. The page starts after the mark in its $skiptoken."""
    size = _page_size(call)
    shown, more = paging.after(entries, mark, paging.last_mark(call, _invalid_token), size)
    link = None if more is None else _next_link(call, more, size)
    return answer({"value": [show(entry) for entry in shown], "nextLink": link})


def _page_size(call: Call) -> int:
    wanted = call.query("maxresults")
    if not wanted:
        return PAGE
    if not wanted.isdecimal() or not 1 <= int(wanted) <= PAGE:
        raise errors.bad_parameter(f"maxresults must be between 1 and {PAGE}")
    return int(wanted)


def _next_link(call: Call, mark: str, size: int) -> str:
    # Azure includes the port.
    return paging.next_link(call, mark, [("api-version", call.api_version)], [("maxresults", str(size))], ":443")


def _invalid_token(_token: str) -> AzureError:
    return errors.bad_parameter("Invalid $skiptoken")


# Deleting, recovering and purging


def delete(call: Call) -> Response:
    vault = _vault(call)
    key = call.world.keys.delete(vault, call.path["key"])
    return answer(documents.deleted_bundle(vault, key, call.api_version))


def get_deleted(call: Call) -> Response:
    vault = _vault(call)
    key = call.world.keys.deleted_key(vault, call.path["key"])
    return answer(documents.deleted_bundle(vault, key, call.api_version))


def recover(call: Call) -> Response:
    key = call.world.keys.recover(_vault(call), call.path["key"])
    return _bundle(call, (key, key.latest))


def purge(call: Call) -> Response:
    call.world.keys.purge(_vault(call), call.path["key"])
    return Response(status_code=204)


# Cryptography


def _result(call: Call, found: tuple[Key, KeyVersion], value: bytes) -> Response:
    return answer({"kid": documents.kid(_vault(call), *found), "value": base64url(value)})


def _encrypt(call: Call, operation: str) -> Response:
    found, now = _named(call), call.world.clock.time()
    data = _bytes(call, "value")
    return _result(call, found, operations.encrypt(found[1], operation, call.json.get("alg"), data, now))


def _decrypt(call: Call, operation: str) -> Response:
    found, now = _named(call), call.world.clock.time()
    data = _bytes(call, "value")
    return _result(call, found, operations.decrypt(found[1], operation, call.json.get("alg"), data, now))


def encrypt(call: Call) -> Response:
    return _encrypt(call, "encrypt")


def decrypt(call: Call) -> Response:
    return _decrypt(call, "decrypt")


def wrap_key(call: Call) -> Response:
    return _encrypt(call, "wrapKey")


def unwrap_key(call: Call) -> Response:
    return _decrypt(call, "unwrapKey")


def sign(call: Call) -> Response:
    found, now = _named(call), call.world.clock.time()
    digest = _bytes(call, "value")
    return _result(call, found, operations.sign(found[1], call.json.get("alg"), digest, now))


def verify(call: Call) -> Response:
    found, now = _named(call), call.world.clock.time()
    digest, signature = _bytes(call, "digest"), _bytes(call, "value")
    return answer({"value": operations.verify(found[1], call.json.get("alg"), digest, signature, now)})


def _cryptography() -> list[Route]:
    """Routes with a version, without a version and with an empty version. If a key identifier has no version, some
    clients send the empty version."""
    handlers = {
        "encrypt": (encrypt, "encrypt"),
        "decrypt": (decrypt, "decrypt"),
        "wrapkey": (wrap_key, "wrapKey"),
        "unwrapkey": (unwrap_key, "unwrapKey"),
        "sign": (sign, "sign"),
        "verify": (verify, "verify"),
    }
    return [
        Route("POST", f"/keys/{{key}}{version}/{name}", handler, permission)
        for name, (handler, permission) in handlers.items()
        for version in ("/{version}", "", "/")
    ]


# The first route that matches is used, so fixed names precede versions.
ROUTES: tuple[Route, ...] = (
    Route("POST", "/keys//create", create_without_name, "create"),
    Route("POST", "/keys/restore", restore, "restore"),
    Route("POST", "/keys/{key}/create", create, "create"),
    Route("POST", "/keys/{key}/rotate", rotate, "rotate"),
    Route("POST", "/keys/{key}/backup", backup, "backup"),
    Route("GET", "/keys/{key}/rotationpolicy", get_policy, "getrotationpolicy"),
    Route("PUT", "/keys/{key}/rotationpolicy", put_policy, "setrotationpolicy"),
    Route("GET", "/keys/{key}/versions", list_versions, "list"),
    *_cryptography(),
    Route("GET", "/keys", list_keys, "list"),
    Route("PUT", "/keys/{key}", import_key, "import"),
    Route("DELETE", "/keys/{key}", delete, "delete"),
    Route("GET", "/keys/{key}", get, "get"),
    # The SDK requests the latest version with this path.
    Route("GET", "/keys/{key}/", get, "get"),
    Route("GET", "/keys/{key}/{version}", get, "get"),
    Route("PATCH", "/keys/{key}", update, "update"),
    Route("PATCH", "/keys/{key}/", update, "update"),
    Route("PATCH", "/keys/{key}/{version}", update, "update"),
    Route("GET", "/deletedkeys", list_deleted, "list"),
    Route("GET", "/deletedkeys/{key}", get_deleted, "get"),
    Route("DELETE", "/deletedkeys/{key}", purge, "purge"),
    Route("POST", "/deletedkeys/{key}/recover", recover, "recover"),
)
