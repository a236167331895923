# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The operations on keys. The action of each is the permission that it needs, by its name in access policies."""

from __future__ import annotations

from ..shared.web import Route
from . import http


def _cryptography() -> list[Route]:
    """With a version, without one, and with an empty one, as clients build it from an identifier without."""
    handlers = {
        "encrypt": (http.encrypt, "encrypt"),
        "decrypt": (http.decrypt, "decrypt"),
        "wrapkey": (http.wrap_key, "wrapKey"),
        "unwrapkey": (http.unwrap_key, "unwrapKey"),
        "sign": (http.sign, "sign"),
        "verify": (http.verify, "verify"),
    }
    return [
        Route("POST", f"/keys/{{key}}{version}/{name}", handler, permission)
        for name, (handler, permission) in handlers.items()
        for version in ("/{version}", "", "/")
    ]


# The first that matches is taken: fixed names before versions.
ROUTES: tuple[Route, ...] = (
    Route("POST", "/keys//create", http.create_without_name, "create"),
    Route("POST", "/keys/restore", http.restore, "restore"),
    Route("POST", "/keys/{key}/create", http.create, "create"),
    Route("POST", "/keys/{key}/rotate", http.rotate, "rotate"),
    Route("POST", "/keys/{key}/backup", http.backup, "backup"),
    Route("GET", "/keys/{key}/rotationpolicy", http.get_policy, "getrotationpolicy"),
    Route("PUT", "/keys/{key}/rotationpolicy", http.put_policy, "setrotationpolicy"),
    Route("GET", "/keys/{key}/versions", http.list_versions, "list"),
    *_cryptography(),
    Route("GET", "/keys", http.list_keys, "list"),
    Route("PUT", "/keys/{key}", http.import_key, "import"),
    Route("DELETE", "/keys/{key}", http.delete, "delete"),
    Route("GET", "/keys/{key}", http.get, "get"),
    # The SDK asks for the latest version this way.
    Route("GET", "/keys/{key}/", http.get, "get"),
    Route("GET", "/keys/{key}/{version}", http.get, "get"),
    Route("PATCH", "/keys/{key}", http.update, "update"),
    Route("PATCH", "/keys/{key}/", http.update, "update"),
    Route("PATCH", "/keys/{key}/{version}", http.update, "update"),
    Route("GET", "/deletedkeys", http.list_deleted, "list"),
    Route("GET", "/deletedkeys/{key}", http.get_deleted, "get"),
    Route("DELETE", "/deletedkeys/{key}", http.purge, "purge"),
    Route("POST", "/deletedkeys/{key}/recover", http.recover, "recover"),
)
