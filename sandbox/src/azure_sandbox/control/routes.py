# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The operations of the control API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from starlette.responses import Response

from ..page import http as page
from ..sandbox import Sandbox
from ..shared.web import AzureError, BadJson, Call, Route, Routes, answer, call_handler
from . import event_subscriptions, http, reading


def _front(sandbox: Sandbox, call: Call[Any]) -> Response:
    """The page for browsers, and a JSON description for other clients."""
    wanted = page.is_wanted(call.request.headers.get("accept", ""))
    return (page.get if wanted else http.describe)(sandbox, call)


_TABLE: tuple[tuple[str, str, Callable[[Sandbox, Call[Any]], Response | Awaitable[Response]]], ...] = (
    ("GET", "/", _front),
    ("GET", "/environment", http.get_environment),
    ("POST", "/reset", http.reset),
    ("GET", "/requests", http.get_requests),
    ("DELETE", "/requests", http.delete_requests),
    ("GET", "/clock", http.get_clock),
    ("POST", "/clock/advance", http.advance_clock),
    ("GET", "/timing", http.get_timing),
    ("PATCH", "/timing", http.patch_timing),
    ("GET", "/behavior", http.get_behavior),
    ("PATCH", "/behavior", http.patch_behavior),
    ("GET", "/accounts", http.get_accounts),
    ("GET", "/faults", http.get_faults),
    ("POST", "/faults", http.post_fault),
    ("DELETE", "/faults", http.delete_faults),
    ("GET", "/event-subscriptions", event_subscriptions.get),
    ("POST", "/event-subscriptions", event_subscriptions.post),
    ("DELETE", "/event-subscriptions/{id}", event_subscriptions.delete),
    ("POST", "/subscriptions", http.post_subscription),
    ("GET", "/other-resources", http.get_other_resources),
    ("POST", "/other-resources", http.post_other_resource),
    ("DELETE", "/other-resources", http.delete_other_resource),
    ("GET", "/principals", http.get_principals),
    ("POST", "/principals", http.post_principal),
    ("POST", "/federated-token", http.post_federated_token),
)


def service(sandbox: Sandbox) -> Callable[[Call[Any]], Awaitable[Response]]:
    routes = Routes(Route(method, path, partial(handler, sandbox)) for method, path, handler in _TABLE)

    async def handle(call: Call[Any]) -> Response:
        route, call.path, methods = routes.match(call.request.method, call.url_path)
        try:
            reading.check_site(sandbox.url, call.request)
            if route is None:
                path = call.url_path
                raise reading.method_not_allowed(methods) if methods else reading.not_found(f"there is no {path}")
            return await call_handler(route, call)
        except AzureError as error:
            return answer(error.body, error.status, error.headers)
        except BadJson as error:
            refusal = reading.bad_request(str(error))
            return answer(refusal.body, refusal.status)

    return handle
