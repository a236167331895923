# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The last requests, and the injected faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..faults import Fault, Faults
from ..request_log import CHALLENGE, Entry, RequestLog
from ..world import World
from . import shown
from .query import MOST_ROWS, PageQuery
from .shown import Rows

# The text that the page shows for requests that no operation handled.
_MARKS = {
    "unknown": "unknown operation",
    "unauthenticated": "no valid token",
    "unresolved": "vault does not exist",
    CHALLENGE: "challenge: the client signs in and sends the request again",
}

# The link "more" multiplies the number of requests on the page by this factor.
MORE = 5


def facts(world: World, log: RequestLog, page_query: PageQuery) -> dict[str, Any]:
    names = _Names(world)
    entries = list(log.newest_first())
    wanted = _WANTED[page_query.show]
    found = [entry for entry in entries if wanted(entry) and page_query.finds(*_texts(entry, names))]
    rows = [_row(entry, names[entry.principal]) for entry in found[: page_query.requests]]
    most = page_query.requests * MORE
    return {
        "rows": Rows(rows, len(found), len(entries)),
        "unknown": sum(map(_is_unknown, entries)),
        "more": page_query.link(requests=min(most, MOST_ROWS)) if len(rows) < min(len(found), MOST_ROWS) else "",
    }


class _Names(dict[str | None, str]):
    """Names of principals by object id. Cached, because a log has many entries of few principals."""

    def __init__(self, world: World) -> None:
        super().__init__({None: ""})
        self._world = world

    def __missing__(self, object_id: str) -> str:
        self[object_id] = shown.principal(self._world, object_id)["name"]
        return self[object_id]


def _texts(entry: Entry, names: _Names) -> tuple[object, ...]:
    return entry.url, entry.method, entry.status, names[entry.principal]


def _is_unknown(entry: Entry) -> bool:
    """Whether the sandbox does not have the operation. False if a fault affected the request: then it is not known."""
    return entry.route == "unknown" and entry.fault is None


_WANTED: Mapping[str, Callable[[Entry], bool]] = {
    "": lambda entry: True,
    "writes": lambda entry: entry.write,
    "unknown": _is_unknown,
    "faults": lambda entry: entry.fault is not None,
}


def _row(entry: Entry, principal: str) -> dict[str, Any]:
    return {
        "number": entry.number,
        "time": shown.moment(entry.time),
        "method": entry.method,
        "url": entry.url,
        "status": "dropped" if entry.status is None else entry.status,
        "failed": entry.status is None or (entry.status >= 400 and entry.route != CHALLENGE),
        "principal": principal,
        "write": entry.write,
        "fault": entry.fault,
        "mark": "" if entry.fault else _MARKS.get(entry.route, ""),
        "unknown": _is_unknown(entry),
        "milliseconds": f"{entry.seconds * 1000:.1f}",
    }


# Faults


def faults(world: World, injected: Faults) -> list[dict[str, Any]]:
    return [
        {
            "number": fault.number,
            "match": [f"{name} {value}" for name, value in (fault.description.get("match") or {}).items() if value],
            "does": list(_does(fault.description)),
            "skip": fault.skip,
            "times": "always" if fault.times is None else fault.times,
            "matched": fault.matched,
            "applied": fault.applied,
            "state": _state(fault, world.clock.time()),
        }
        for fault in injected
    ]


def _state(fault: Fault, now: float) -> str:
    if fault.until is not None:
        return f"until {shown.moment(fault.until)}" if now < fault.until else "expired"
    return "active" if fault.times is None or fault.applied < fault.times else "completed"


def _does(description: Mapping[str, Any]) -> Iterator[str]:
    """A description of what a fault does. It omits the body and the header values of the response, which are
    arbitrary."""
    for name, value in description.items():
        if name == "answer" and isinstance(value, dict):
            headers = ", ".join(value.get("headers") or ())
            yield f"responds with status {value.get('status')}" + (f" and the headers {headers}" if headers else "")
        elif name not in ("match", "skip", "times", "answer") and value not in (None, False):
            unit = " s" if name in ("delay", "seconds") else ""
            yield name if value is True else f"{name}: {value}{unit}"
