# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every request on a vault's host passes here: token, version, network, then the operation."""

from __future__ import annotations

from starlette.responses import Response

from ..web import Call, Route, answer


def route_of(method: str, path: str) -> Route | None:
    """The operation, or none if the sandbox does not have it."""
    return None


async def handle(call: Call) -> Response:
    """The answer to any request on a vault's host. `call.path` and `call.caller` are set on the way."""
    return answer({"error": {"code": "NotInSandbox", "message": "not yet"}}, 404)
