# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The events that a vault writes to its logs."""

from __future__ import annotations

from typing import Protocol

from starlette.responses import Response

from ..authorization.rules import RoleAssignment
from ..key_vault.access import CLIENT_ADDRESS, SERVICE_ADDRESS
from ..key_vault.vault import Vault
from ..monitor.rules import Monitor
from ..monitor.tables import Event
from ..shared import web
from ..shared import world as shared
from ..shared.world import Principal
from . import documents


class World(shared.World, Protocol):
    monitor: Monitor


# The names of operations that differ from those of their permissions.
_NAMES = {
    "wrapKey": "KeyWrap",
    "unwrapKey": "KeyUnwrap",
    "getrotationpolicy": "KeyRotationPolicyGet",
    "setrotationpolicy": "KeyRotationPolicySet",
}


def record(call: web.Call[World], vault: Vault, response: Response, assignment: RoleAssignment | None) -> None:
    """Record a request to the data plane."""

    def event() -> Event:
        query = call.request.scope["query_string"].decode("latin-1")
        return Event(
            vault_id=vault.id,
            time=call.world.clock.iso(),
            operation=_operation(call),
            version=call.api_version,
            status=response.status_code,
            key=_key(call, vault),
            request_uri=f"https://{vault.host}{call.url_path}{'?' if query else ''}{query}",
            client=call.request.headers.get("user-agent", ""),
            address=CLIENT_ADDRESS,
            correlation_id=response.headers["x-ms-request-id"],
            caller=call.caller,
            shows_resource=_shows_resource(call.world),
            rbac=vault.rbac,
            assignment=assignment.id if assignment else "",
        )

    call.world.monitor.record(vault.id, event)


def record_batch(world: World, vault: Vault, principal: Principal, operation: str, kid: str) -> None:
    """Record a use of a key by Batch (switch `log_batch`)."""
    if world.behavior.log_batch == "hidden":
        return
    event = Event(
        vault_id=vault.id,
        time=world.clock.iso(),
        operation=operation,
        version=documents.NEWEST,
        status=200,
        key=kid,
        request_uri=f"{kid}/{operation.lower().removeprefix('key')}key?api-version={documents.NEWEST}",
        address=SERVICE_ADDRESS,
        caller=principal,
        shows_resource=_shows_resource(world),
        rbac=vault.rbac,
    )
    world.monitor.record(vault.id, lambda: event)


def _shows_resource(world: World) -> bool:
    return world.behavior.log_identity == "shown"


def _operation(call: web.Call[World]) -> str:
    if call.caller is None or call.route is None:
        # The first request of an SDK has no token.
        return "Authentication"
    action, path = call.route.action, call.route.path
    name = _NAMES.get(action, f"Key{action.capitalize()}")
    if path.startswith("/deletedkeys") and action in ("get", "list"):
        name = f"Key{action.capitalize()}Deleted"
    return f"{name}Versions" if path.endswith("/versions") else name


def _key(call: web.Call[World], vault: Vault) -> str:
    """The identifier as in the request, without the version if the request has none."""
    name, version = call.path.get("key"), call.path.get("version")
    if not name:
        return ""
    return f"https://{vault.host}/keys/{name}" + (f"/{version}" if version else "")
