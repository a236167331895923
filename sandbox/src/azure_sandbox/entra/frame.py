# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every request on a login host passes here."""

from __future__ import annotations

from starlette.responses import Response

from ..shared.web import AzureError, Routes, answer, call_handler
from . import errors, http
from .http import Call
from .routes import ROUTES

_routes = Routes(ROUTES)


async def handle(call: Call) -> Response:
    path = call.url_path.rstrip("/")
    call.route, call.path, methods = _routes.match(call.request.method, path)
    try:
        if call.route is None:
            raise _not_here(call, path, methods)
        return await call_handler(call.route, call)
    except AzureError as error:
        return answer(error.body, error.status, {**http.headers(call), **error.headers})


def _not_here(call: Call, path: str, methods: set[str]) -> AzureError:
    if methods:
        error = errors.entra_error(405, "invalid_request", 900561, "The endpoint only accepts other methods.")
        error.headers["allow"] = ", ".join(sorted(methods))
        return error
    return errors.entra_error(
        404, "not_found", 90014, f"{call.request.method} {path} is not in the sandbox (see docs/sandbox-fidelity.md)."
    )
