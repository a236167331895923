# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Injected faults: error responses, delays, dropped connections, truncated responses and expired tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


class BadFault(Exception):
    """The description of a fault is invalid."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None


@dataclass
class Fault:
    number: int
    # The body of the request that added the fault. GET /faults shows it.
    description: Mapping[str, Any]
    method: str | None
    host: re.Pattern[str] | None
    path: re.Pattern[str] | None
    # The first `skip` matching requests are handled normally. The fault then affects `times` requests; None: all.
    skip: int
    times: int | None
    # When the fault ends, by the sandbox's clock; None: never.
    until: float | None
    answer: Answer | None
    # Whether the request is handled before `answer` is sent.
    handled: bool
    delay: float
    # before: the request is not handled. after: the request is handled, but the client gets no response.
    drop: str | None
    # The number of bytes of the response body that are sent before the connection is closed; None: all.
    truncate: int | None
    # Whether all tokens issued so far expire before the request is checked.
    expire_tokens: bool
    matched: int = 0
    applied: int = 0

    def matches(self, method: str, host: str, path: str) -> bool:
        return (
            (self.method is None or self.method == method)
            and (self.host is None or self.host.search(host) is not None)
            and (self.path is None or self.path.search(path) is not None)
        )

    def is_due(self, now: float) -> bool:
        in_time = self.until is None or now < self.until
        return in_time and self.matched > self.skip and (self.times is None or self.applied < self.times)

    def document(self) -> dict[str, Any]:
        return {"id": self.number, **self.description, "matched": self.matched, "applied": self.applied}


class Faults:
    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._last = 0

    def __iter__(self) -> Iterator[Fault]:
        return iter(self._faults)

    def any(self) -> bool:
        return bool(self._faults)

    def clear(self) -> None:
        self._faults.clear()

    def add(self, description: Mapping[str, Any], now: float) -> Fault:
        self._last += 1
        fault = parse(self._last, description, now)
        self._faults.append(fault)
        return fault

    def apply(self, method: str, host: str, path: str, now: float) -> Fault | None:
        """Count the request for each fault that matches, and return the first fault that is due."""
        found: Fault | None = None
        for fault in self._faults:
            if not fault.matches(method, host, path):
                continue
            fault.matched += 1
            if found is None and fault.is_due(now):
                fault.applied += 1
                found = fault
        return found


# One year, in seconds.
LONGEST = 31_536_000
_HEADER_NAME = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)
_HEADER_VALUE = re.compile(r"[\t -~]*")
_KNOWN = {"match", "skip", "times", "seconds", "answer", "handled", "delay", "drop", "truncate", "expire_tokens"}


def parse(number: int, description: Mapping[str, Any], now: float) -> Fault:
    _check_names(description, _KNOWN, "a fault")
    match = description.get("match") or {}
    _check_names(match, {"method", "host", "path"}, "match")
    drop = description.get("drop")
    if drop not in (None, "before", "after"):
        raise BadFault("drop must be 'before' or 'after'")
    seconds = description.get("seconds")
    fault = Fault(
        number,
        dict(description),
        str(match["method"]).upper() if match.get("method") else None,
        _pattern(match.get("host")),
        _pattern(match.get("path")),
        _count(description.get("skip"), "skip") or 0,
        _count(description.get("times", 1 if seconds is None else None), "times"),
        None if seconds is None else now + _seconds(seconds, "seconds"),
        _answer(description.get("answer")),
        bool(description.get("handled")),
        _seconds(description.get("delay"), "delay"),
        drop,
        _count(description.get("truncate"), "truncate"),
        bool(description.get("expire_tokens")),
    )
    if not (fault.answer or fault.drop or fault.delay or fault.expire_tokens) and fault.truncate is None:
        raise BadFault("a fault requires 'answer', delay, drop, truncate or expire_tokens")
    return fault


def _check_names(document: Any, known: set[str], what: str) -> None:
    if not isinstance(document, Mapping):
        raise BadFault(f"{what} must be an object")
    unknown = set(document) - known
    if unknown:
        raise BadFault(f"{what} has no {', '.join(sorted(unknown))}; it has {', '.join(sorted(known))}")


def _pattern(text: Any) -> re.Pattern[str] | None:
    if not text:
        return None
    try:
        return re.compile(str(text), re.IGNORECASE)
    except (re.error, OverflowError, RecursionError) as error:
        raise BadFault(f"{text} is not a valid regular expression: {error}") from error


def _count(value: Any, name: str) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise BadFault(f"{name} must be an integer of at least 0")
    return value


def _seconds(value: Any, name: str) -> float:
    if value is None:
        return 0.0
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= LONGEST:
        raise BadFault(f"{name} must be a number of seconds, at most {LONGEST}")
    return float(value)


def _answer(document: Any) -> Answer | None:
    if document is None:
        return None
    _check_names(document, {"status", "headers", "body"}, "answer")
    status = document.get("status")
    if not isinstance(status, int) or not 200 <= status <= 599:
        raise BadFault("'answer' must have a status from 200 to 599")
    return Answer(status, read_headers(document.get("headers") or {}), document.get("body"))


def read_headers(document: Any) -> dict[str, str]:
    """The headers in a JSON object. Raises BadFault."""
    if not isinstance(document, Mapping):
        raise BadFault("headers must be an object")
    headers = {str(name): str(value) for name, value in document.items()}
    if not all(_HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value) for name, value in headers.items()):
        raise BadFault("headers must have valid HTTP names, and values of printable ASCII characters")
    return headers
