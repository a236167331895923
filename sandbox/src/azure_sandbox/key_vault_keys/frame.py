# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Handles all requests to the host of a vault. It checks the token, the operation, the API version, the rate limit, the
network rules and the permission, in this order, and then calls the operation.

Azure does not reveal whether a key exists to a caller who may not read the key, so existence is checked last.
"""

from __future__ import annotations

import uuid
from typing import Protocol

from starlette.responses import Response

from ..authorization.rules import RoleAssignment
from ..entra.rules import Directory, TokenProblem
from ..key_vault.access import CLIENT_ADDRESS
from ..key_vault.vault import Vault
from ..shared import clouds, web
from ..shared.web import AzureError, BadJson, Routes, answer, call_handler
from . import documents, errors, http, throttling

_routes = Routes(http.ROUTES)

# The application id of Key Vault, which old clients use as the audience.
KEY_VAULT_APPLICATION = "cfa8b339-82a2-471a-a3c9-0fc0be7a4093"
SERVICE_VERSION = "1.9.3449.1"
_FIXED = {
    "cache-control": "no-cache",
    "expires": "-1",
    "pragma": "no-cache",
    # Key Vault has no blank after the semicolon; Resource Manager has one.
    "strict-transport-security": "max-age=31536000;includeSubDomains",
    "x-content-type-options": "nosniff",
    "x-ms-keyvault-network-info": f"conn_type=Ipv4;addr={CLIENT_ADDRESS};act_addr_fam=InterNetwork;",
    "x-ms-keyvault-service-version": SERVICE_VERSION,
}


class World(http.World, throttling.World, Protocol):
    directory: Directory


Call = web.Call[World]


async def handle(call: Call) -> Response:
    """The response to any request to a vault's host."""
    vault: Vault | None = None
    assignment: RoleAssignment | None = None
    try:
        vault = call.world.keys.vault_at(call.host)
        _authenticate(call, vault)
        _find_route(call)
        _check_version(call)
        throttling.check(call, vault)
        assignment = _enter(call, vault)
        await call.world.keys.catch_up(vault)
        assert call.route is not None
        response = await call_handler(call.route, call)
    except BadJson:
        response = _refusal(errors.bad_body())
    except AzureError as error:
        response = _refusal(error)
    _add_headers(call, response, vault, assignment)
    return response


def _refusal(error: AzureError) -> Response:
    return answer(error.body, error.status, error.headers)


def _authenticate(call: Call, vault: Vault) -> None:
    cloud = clouds.by_vault_host(vault.host) or clouds.PUBLIC
    issuer = cloud.issuer(vault.tenant_id)
    authority = f"{cloud.authority}/{vault.tenant_id}"
    audiences = {cloud.vault_audience, KEY_VAULT_APPLICATION}
    try:
        principal = call.world.directory.authenticate(call.request.headers.get("authorization"), audiences)
        if vault.tenant_id.lower() != principal.tenant_id.lower():
            raise TokenProblem("issuer", cloud.issuer(principal.tenant_id))
    except TokenProblem as problem:
        raise errors.token_problem(problem.kind, problem.detail, authority, cloud.vault_audience, issuer) from problem
    call.caller = principal


def _find_route(call: Call) -> None:
    method, path = call.request.method, call.url_path
    call.route, call.path, others = _routes.match(method, path)
    if call.route is None:
        raise errors.wrong_method(method) if others else errors.not_in_sandbox(method, path)


def _check_version(call: Call) -> None:
    version = call.api_version
    if not version:
        raise errors.missing_api_version()
    if version not in documents.API_VERSIONS:
        raise errors.unknown_api_version(version)


def _enter(call: Call, vault: Vault) -> RoleAssignment | None:
    assert call.route is not None
    assert call.caller is not None
    return call.world.keys.enter(vault, call.caller, call.route.action, call.path.get("key", ""))


def _add_headers(call: Call, response: Response, vault: Vault | None, assignment: RoleAssignment | None) -> None:
    response.headers.update(_FIXED)
    if vault is not None:
        response.headers["x-ms-keyvault-region"] = vault.location
    response.headers["x-ms-request-id"] = str(uuid.uuid4())
    client_request_id = call.request.headers.get("x-ms-client-request-id")
    if client_request_id:
        response.headers["x-ms-client-request-id"] = client_request_id
    if assignment is not None:
        response.headers["x-ms-keyvault-rbac-assignment-id"] = assignment.guid.replace("-", "")
