# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Handles all requests to the hosts of Log Analytics."""

from __future__ import annotations

import re

from starlette.responses import Response

from ..entra.rules import TokenProblem
from ..entra.tokens import LOG_ANALYTICS
from ..shared.web import AzureError, BadJson, Route, Routes, answer, call_handler
from . import errors, http
from .http import Call
from .rules import QUERY, READ_LOGS

_AUDIENCES = {LOG_ANALYTICS, f"{LOG_ANALYTICS}/"}
_RESOURCE = re.compile(r"/subscriptions/[^/]+(?:/resourceGroups/[^/]+(?:/providers/.+)?)?", re.IGNORECASE)


async def handle(call: Call) -> Response:
    try:
        _authenticate(call)
        call.route, call.path, _methods = _routes.match(call.request.method, call.url_path)
        if call.route is None:
            raise errors.no_such_path()
        return await call_handler(call.route, call)
    except BadJson:
        error = errors.invalid_property("query")
    except AzureError as refusal:
        error = refusal
    return answer(error.body, error.status, error.headers)


def _authenticate(call: Call) -> None:
    try:
        call.caller = call.world.directory.authenticate(call.request.headers.get("authorization"), _AUDIENCES)
    except TokenProblem as problem:
        if problem.kind == "missing":
            raise errors.unauthenticated("AuthenticationFailed", "The Authorization header is missing") from problem
        code = "InvalidAuthenticationTokenAudience" if problem.kind == "audience" else "InvalidAuthenticationToken"
        raise errors.unauthenticated(code, "The access token is invalid") from problem


def query_workspace(call: Call) -> Response:
    workspace = call.world.monitor.by_customer_id(call.path["workspace"])
    if workspace is None:
        raise errors.no_such_path()
    return http.workspace_logs(call, workspace)


def query_resource(call: Call) -> Response:
    resource_id = f"/{call.path['scope'].strip('/')}"
    if _RESOURCE.fullmatch(resource_id) is None:
        raise errors.no_such_resource(resource_id)
    return http.resource_logs(call, resource_id)


ROUTES: tuple[Route, ...] = (
    Route("POST", "/v1/workspaces/{workspace}/query", query_workspace, QUERY),
    Route("POST", "/v1/{scope:path}/query", query_resource, READ_LOGS),
)
_routes = Routes(ROUTES)
