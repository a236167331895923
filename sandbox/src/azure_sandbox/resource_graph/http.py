# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Resource Graph over HTTP."""

from __future__ import annotations

import time
import uuid
from typing import Any, Protocol

from starlette.responses import Response

from ..authorization.rules import is_guid
from ..shared import web
from ..shared.web import Route, answer
from . import errors, rows
from .errors import Refused
from .rules import MOST_ROWS, RETRY_SECONDS, Page, Request, ResourceGraph


class World(rows.World, Protocol):
    resource_graph: ResourceGraph


Call = web.Call[World]

# The full number in the recording of 2025.
_TENANT_READS = 2200


def query(call: Call) -> Response:
    assert call.caller is not None
    began = time.perf_counter()
    correlation_id = str(uuid.uuid4())
    quota = call.world.resource_graph.take(call.caller)
    headers = {
        "x-ms-user-quota-remaining": str(quota.remaining),
        "x-ms-user-quota-resets-after": f"00:00:{quota.seconds:02d}",
        "x-ms-ratelimit-remaining-tenant-resource-requests": str(quota.remaining),
        "x-ms-ratelimit-remaining-tenant-reads": str(_TENANT_READS - 1),
        "x-ms-request-id": correlation_id,
        "x-ms-correlation-request-id": correlation_id,
    }
    document: dict[str, Any]
    try:
        if quota.is_exceeded:
            raise errors.throttled(RETRY_SECONDS)
        document, status = _document(call.world.resource_graph.page(call.caller, _request(call))), 200
    except Refused as refused:
        document, status = refused.document(call.world.clock.iso(), correlation_id), refused.status
        headers |= refused.headers
    headers["x-ms-resource-graph-request-duration"] = f"0:00:00:{time.perf_counter() - began:010.7f}"
    return answer(document, status, headers)


def _request(call: Call) -> Request:
    text = call.json.get("query")
    if not isinstance(text, str) or not text.strip():
        raise errors.bad_request("EmptyQuery", "The query is missing.")
    options = call.json.get("options") or {}
    if not isinstance(options, dict):
        raise errors.bad_request("InvalidOptions", "The options are not an object.")
    top = _option(options, "$top", int, MOST_ROWS)
    if not 1 <= top <= MOST_ROWS:
        raise errors.bad_request("InvalidTop", f"$top must be an integer from 1 to {MOST_ROWS}.")
    return Request(text, _subscriptions(call), top, _option(options, "$skipToken", str, ""))


def _option(options: dict[str, Any], name: str, kind: type, default: Any) -> Any:
    """Unknown options are ignored, as Azure does. Raises Refused."""
    value = options.get(name)
    if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
        raise errors.bad_request("InvalidOptions", f"The option {name} is invalid.")
    return default if value is None else value


def _subscriptions(call: Call) -> list[str] | None:
    """The subscriptions in the request; None if it is for the whole tenant. Raises Refused."""
    named, groups = _texts(call, "subscriptions"), _texts(call, "managementGroups")
    if named and groups:
        message = "Subscriptions and management groups cannot be given together."
        raise errors.bad_request("SubscriptionsAndManagementGroups", message)
    if invalid := [one for one in named if not is_guid(one)]:
        raise errors.invalid_guids(invalid)
    assert call.caller is not None
    # The only management group is that of the tenant. Others are ignored, as Azure ignores those that do not exist.
    if groups and call.caller.tenant_id not in groups:
        return []
    return named or None


def _texts(call: Call, name: str) -> list[str]:
    values = call.json.get(name) or []
    if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
        raise errors.bad_request("InvalidScopes", f"{name} must be a list of strings.")
    return values


def _document(page: Page) -> dict[str, Any]:
    return {
        "totalRecords": page.total,
        "count": len(page.rows),
        "data": page.rows,
        "facets": [],
        "resultTruncated": str(page.is_truncated).lower(),
        **({"$skipToken": page.token} if page.token else {}),
    }


PROVIDER = "Microsoft.ResourceGraph"

API_VERSIONS = frozenset(
    {
        "2018-09-01-preview",
        "2019-04-01",
        "2020-04-01-preview",
        "2021-03-01",
        "2021-06-01-preview",
        "2022-10-01",
        "2024-04-01",
    }
)

# Each row needs the right to read its resource. The query itself needs none.
ROUTES: tuple[Route, ...] = (Route("POST", "/providers/Microsoft.ResourceGraph/resources", query),)
