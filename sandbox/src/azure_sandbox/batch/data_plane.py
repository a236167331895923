# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The data plane of a Batch account. Of its operations, only the list of pools is emulated."""

from __future__ import annotations

import uuid
from typing import Protocol

from starlette.responses import Response

from ..authorization.rules import Authorization
from ..entra.rules import Directory, TokenProblem
from ..shared import web
from ..shared.web import AzureError, Route, Routes, answer, call_handler
from . import http
from .account import Account
from .errors import Refusal

AUDIENCE = "https://batch.core.windows.net"
_METADATA = "https://{host}/$metadata#"
_ERRORS = "Microsoft.Azure.Batch.Protocol.Entities.Container.errors/@Element"


class World(http.World, Protocol):
    authorization: Authorization
    directory: Directory


Call = web.Call[World]


async def handle(call: Call) -> Response:
    try:
        return await _handle(call)
    except Refusal as refusal:
        return _refused(call, refusal.status, refusal.code, refusal.summary)
    except AzureError as error:
        return answer(error.body, error.status, error.headers)


async def _handle(call: Call) -> Response:
    try:
        call.caller = call.world.directory.authenticate(
            call.request.headers.get("authorization"), {AUDIENCE, f"{AUDIENCE}/"}
        )
    except TokenProblem:
        return _refused(call, 401, "AuthenticationFailed", "Server failed to authenticate the request.")
    call.route, call.path, _methods = _routes.match(call.request.method, call.url_path)
    if call.route is None:
        return _refused(call, 404, "NotInSandbox", "The sandbox does not have this operation.")
    if not call.world.authorization.allows(call.caller, call.route.action, _account(call).id):
        return _refused(call, 403, "PermissionDenied", "Server failed to authorize the request.")
    return await call_handler(call.route, call)


def _account(call: Call) -> Account:
    account = call.world.batch.by_host(call.host)
    if account is None:
        raise Refusal(404, "AccountNotFound", "The specified account does not exist.", {})
    return account


def _refused(call: Call, status: int, code: str, message: str) -> Response:
    text = f"{message}\nRequestId:{uuid.uuid4()}\nTime:{call.world.clock.iso()}"
    body = {
        "odata.metadata": f"{_METADATA.format(host=call.host)}{_ERRORS}",
        "code": code,
        "message": {"lang": "en-US", "value": text},
    }
    headers = {"www-authenticate": f'Bearer resource="{AUDIENCE}/"'} if status == 401 else {}
    return answer(body, status, headers)


def list_pools(call: Call) -> Response:
    account = _account(call)
    call.world.batch.use(account)
    found = [{"id": pool.name, "state": "active"} for pool in call.world.batch.pools.all(account)]
    return answer({"odata.metadata": f"{_METADATA.format(host=call.host)}pools", "value": found})


ROUTES = (Route("GET", "/pools", list_pools, "Microsoft.Batch/batchAccounts/pools/read"),)
_routes = Routes(ROUTES)
