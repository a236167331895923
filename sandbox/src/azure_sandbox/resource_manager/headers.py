# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The headers that every answer of Resource Manager has."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

from starlette.responses import Response

from ..shared.errors import FAILURE_CAUSE
from . import throttling
from .throttling import Call

FIXED = (
    ("cache-control", "no-cache"),
    ("pragma", "no-cache"),
    ("expires", "-1"),
    ("strict-transport-security", "max-age=31536000; includeSubDomains"),
    ("x-content-type-options", "nosniff"),
    ("x-cache", "CONFIG_NOCACHE"),
)
REGION = "westeurope"


def add(call: Call, response: Response) -> None:
    """Those that the handler has set stay as they are."""
    present = {name for name, _ in response.raw_headers}
    for name, value in _all(call, gateway=FAILURE_CAUSE.encode() in present):
        if (encoded := name.encode()) not in present:
            response.raw_headers.append((encoded, value.encode("latin-1")))


def _all(call: Call, *, gateway: bool) -> Iterator[tuple[str, str]]:
    yield from FIXED
    correlation = str(uuid.uuid4())
    # The gateway's own answers have one id for both.
    yield "x-ms-request-id", correlation if gateway else str(uuid.uuid4())
    yield "x-ms-correlation-request-id", correlation
    now = time.gmtime()
    yield "x-ms-routing-request-id", f"{REGION.upper()}:{time.strftime('%Y%m%dT%H%M%SZ', now)}:{correlation}"
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", now)
    yield "x-msedge-ref", f"Ref A: {correlation.replace('-', '').upper()} Ref B: SANDBOX Ref C: {moment}"
    asked = call.request.headers
    if asked.get("x-ms-return-client-request-id", "").lower() == "true":
        own = asked.get("x-ms-client-request-id", "")
        if own.isascii() and own.isprintable():
            yield "x-ms-client-request-id", own
    if call.caller is not None:
        yield throttling.remaining(call)
        if not gateway:
            who = f"tenantId={call.caller.tenant_id},objectId={call.caller.object_id}"
            yield "x-ms-operation-identifier", f"{who}/{REGION}/{correlation}"
