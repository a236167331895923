# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Queries of a caller, the quota of queries, and the resources of services that the sandbox does not have."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from ..resource_manager.rules import Resource, Subscription
from ..shared.lag import Lag
from ..shared.world import Principal
from . import errors, rows
from .query import BadQuery, Row, read
from .rows import World

# https://learn.microsoft.com/azure/governance/resource-graph/concepts/guidance-for-throttled-requests
QUERIES, WINDOW_SECONDS = 15, 5
# As in the recorded refusal. It is shorter than the time until the quota is full again.
RETRY_SECONDS = 2
MOST_ROWS = 1000
MOST_BYTES = 16 * 1024 * 1024
_ELASTIC_SAN = "microsoft.elasticsan/"


@dataclass(frozen=True)
class Request:
    query: str
    # None: all subscriptions of the tenant.
    subscriptions: Collection[str] | None
    top: int = MOST_ROWS
    token: str = ""


@dataclass(frozen=True)
class Page:
    rows: list[Row]
    total: int
    # The token of the next page; empty if there is none.
    token: str
    is_truncated: bool


@dataclass(frozen=True)
class Quota:
    remaining: int
    # Until the quota is full again.
    seconds: int
    is_exceeded: bool


@dataclass
class ResourceGraph:
    world: World
    # The resources that tests have added, by id in lower case.
    _added: dict[str, dict[str, Any]] = field(default_factory=dict)
    # By principal: the start of the current window, and the queries in it.
    _windows: dict[str, tuple[float, int]] = field(default_factory=dict)
    _lag: Lag[str, dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        self._lag = Lag(self.world)

    # Resources of other services

    def added(self) -> list[dict[str, Any]]:
        return list(self._added.values())

    def add(self, document: dict[str, Any]) -> None:
        """Add or replace a resource, with its document of Resource Manager."""
        key = document["id"].lower()
        self._lag.note(key, self._added.get(key))
        self._added[key] = document

    def remove(self, resource_id: str) -> bool:
        """Returns whether the resource existed."""
        key = resource_id.lower()
        self._lag.note(key, self._added.get(key))
        return self._added.pop(key, None) is not None

    def contents(self, subscription: str) -> Iterator[Resource]:
        for one in self._added.values():
            if one["id"].split("/")[2].lower() == subscription.lower():
                yield Resource(one["id"], one["name"], one["type"], one.get("location", ""), one.get("tags") or {})

    def drop(self, resource: Resource) -> None:
        self.remove(resource.id)

    # Queries

    def take(self, principal: Principal) -> Quota:
        """Count one query. The quota is enforced only with the timing `throttling`."""
        now = self.world.clock.time()
        start, count = self._windows.get(principal.object_id, (now, 0))
        if now >= start + WINDOW_SECONDS or not self.world.timing.throttling:
            start, count = now, 0
        is_exceeded = count >= QUERIES
        count += not is_exceeded
        self._windows[principal.object_id] = start, count
        return Quota(QUERIES - count, math.ceil(start + WINDOW_SECONDS - now), is_exceeded)

    def page(self, principal: Principal, request: Request) -> Page:
        """One page of the rows that the caller may read; other rows are missing. Raises Refused."""
        try:
            query = read(request.query)
        except BadQuery as problem:
            raise errors.invalid_query(problem.detail) from problem
        searched = self._searched(principal, request.subscriptions)
        is_shown = self._filter(principal)
        found = query.run(row for subscription in searched for row in self._rows(subscription) if is_shown(row))
        top, start = (request.top, 0) if not request.token else _position(request.token)
        if start and not query.is_ordered:
            # Without an order by id, pages of Azure may repeat and omit rows.
            found.reverse()
        shown = found[start : start + top]
        size = len(json.dumps(shown, ensure_ascii=False).encode())
        if size > MOST_BYTES:
            raise errors.too_large(size, MOST_BYTES)
        has_more = len(found) > start + top
        token = _token(top, start + top) if has_more and query.is_paged else ""
        return Page(shown, len(found), token, has_more and not token)

    def _searched(self, principal: Principal, named: Collection[str] | None) -> list[Subscription]:
        """The subscriptions of the scope in which the caller has any role. Raises Refused."""
        wanted = None if named is None else {one.lower() for one in named}
        found = [
            one
            for one in self.world.resources.subscriptions()
            if one.tenant_id == principal.tenant_id and (wanted is None or one.id in wanted)
        ]
        searched = [one for one in found if self.world.authorization.reaches(principal, f"/subscriptions/{one.id}")]
        if not searched:
            raise errors.no_valid_subscriptions(named or ())
        return searched

    def _rows(self, subscription: Subscription) -> Iterator[Row]:
        yield from rows.resources(self.world, subscription)
        for one in self._lag.in_graph(self._added):
            # Those of Elastic SAN are in another table.
            if one["id"].split("/")[2].lower() == subscription.id and not one["type"].lower().startswith(_ELASTIC_SAN):
                yield rows.row(subscription, one)

    def _filter(self, principal: Principal) -> Callable[[Row], bool]:
        may = self.world.authorization.reader(principal)
        return lambda row: may(f"{row['type']}/read", row["id"])


def _token(size: int, start: int) -> str:
    """As Resource Graph writes it: JSON with indentation and line ends of Windows, in base64."""
    cluster = "https://armtopology.kusto.windows.net"
    document = {"$id": "1", "MaxRows": size, "RowsToSkip": start, "KustoClusterUrl": cluster}
    return base64.b64encode(json.dumps(document, indent=2).replace("\n", "\r\n").encode()).decode()


def _position(token: str) -> tuple[int, int]:
    """The size and the start of the page of a token. Raises Refused."""
    try:
        document = json.loads(base64.b64decode(token, validate=True))
        size, start = document["MaxRows"], document["RowsToSkip"]
    except (binascii.Error, ValueError, KeyError, TypeError, RecursionError) as error:
        raise errors.bad_request("InvalidSkipToken", "The $skipToken is invalid.") from error
    if not all(isinstance(one, int) and one > 0 for one in (size, start)):
        raise errors.bad_request("InvalidSkipToken", "The $skipToken is invalid.")
    return min(size, MOST_ROWS), start
