# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The instance metadata service at 169.254.169.254: tokens of managed identities, for clients on this machine."""

from __future__ import annotations

import time
from typing import Any, Protocol
from urllib.parse import unquote

from starlette.responses import Response

from ..environment import Operator
from ..shared import web
from ..shared import world as shared
from ..shared.web import AzureError, Route, Routes, answer, call_handler
from . import tokens
from .rules import Directory, Principal

HOST = "169.254.169.254"
USER_ASSIGNED = "/userassignedidentities/"


def _error(status: int, error: str, description: str) -> AzureError:
    return AzureError(status, {"error": error, "error_description": description})


class World(shared.World, Protocol):
    directory: Directory
    operator: Operator


Call = web.Call[World]


def token(call: Call) -> Response:
    resource = unquote(call.query("resource"))
    if not resource:
        raise _error(400, "invalid_request", "Required audience parameter not specified")
    principal = _identity(call)
    if not tokens.is_audience(resource, None):
        raise _error(
            400,
            "invalid_resource",
            f"AADSTS500011: The resource principal named {resource} was not found in the tenant named "
            f"{principal.tenant_id}.",
        )
    call.caller = principal
    access_token, seconds = call.world.directory.issue(principal, tokens.cloud_of(resource), resource, "2")
    now = int(time.time())
    return answer(
        {
            "access_token": access_token,
            "client_id": principal.app_id,
            "expires_in": str(seconds),
            "expires_on": str(now + seconds),
            "ext_expires_in": str(seconds),
            "not_before": str(now - 300),
            "resource": resource,
            "token_type": "Bearer",
        }
    )


def _identity(call: Call) -> Principal:
    """The managed identity in a request. The machine has a system-assigned identity and all user-assigned identities,
    but not the system-assigned identities of accounts. Raises AzureError."""
    directory = call.world.directory
    client_id, object_id = call.query("client_id"), call.query("object_id")
    resource_id = (call.query("msi_res_id") or call.query("mi_res_id")).lower()
    principal: Principal | None
    if client_id:
        principal = directory.by_app_id(client_id)
    elif object_id:
        principal = directory.principal(object_id)
    elif resource_id:
        principal = next((p for p in directory.principals() if (p.resource_id or "").lower() == resource_id), None)
    else:
        principal = directory.principal(call.world.operator.machine_object_id)
    if principal is None or not _attached(call, principal):
        raise _error(400, "invalid_request", "Identity not found")
    return principal


def _attached(call: Call, principal: Principal) -> bool:
    if principal.object_id == call.world.operator.machine_object_id:
        return True
    return principal.kind == "ManagedIdentity" and USER_ASSIGNED in (principal.resource_id or "").lower()


def instance(call: Call) -> Response:
    return answer({"compute": _compute(call), "network": {"interface": []}})


def compute(call: Call) -> Response:
    return answer(_compute(call))


def _compute(call: Call) -> dict[str, Any]:
    operator = call.world.operator
    return {
        "azEnvironment": "AzurePublicCloud",
        "location": operator.location,
        "name": "sandbox-machine",
        "osType": "Linux",
        "resourceGroupName": operator.resource_group,
        "resourceId": operator.machine_resource_id,
        "subscriptionId": operator.subscription_id,
        "tags": "",
        "vmId": operator.machine_object_id,
    }


ROUTES: tuple[Route, ...] = (
    Route("GET", "/metadata/identity/oauth2/token", token),
    Route("GET", "/metadata/instance", instance),
    Route("GET", "/metadata/instance/compute", compute),
)

_routes = Routes(ROUTES)


async def handle(call: Call) -> Response:
    call.route, call.path, _ = _routes.match(call.request.method, call.url_path.rstrip("/"))
    try:
        if call.route is None:
            raise _error(404, "not_found", f"{call.url_path} is not in the sandbox")
        if call.request.headers.get("metadata", "").lower() != "true":
            raise _error(400, "bad_request_102", "Required metadata header not specified")
        return await call_handler(call.route, call)
    except AzureError as error:
        return answer(error.body, error.status, {"server": "IMDS/150.870.65.1854", **error.headers})
