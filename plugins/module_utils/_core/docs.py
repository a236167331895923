# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The documents of Azure that a question or a decision asks for.

A question is a pure function of `Docs`. It calls `want` with what it probably needs. If it gets a document that was not
read, `Need` is raised, and the driver reads all that is wanted at once and asks the question again. How old a read may
be is no matter of the question: the phase in which it is asked says that (driver.py).

This module util is private to the collection.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar

from .errors import CmkError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Member(NamedTuple):
    """A large list (`of`) that has a document: `pick` makes it from the items named `name` (None: they do not show it).
    The list is read once the run has asked for `listed_from` of its members."""

    of: Ref[Any]
    name: str
    listed_from: int
    pick: Callable[[list[Any]], Any]


@dataclass(frozen=True, eq=False)
class Ref(Generic[T_co]):
    """A document of Azure, a list of documents (`is_list`), or the response to a question (`body`), which may be a
    list too.

    `kind` is what a write of the run makes out of date. `what` is the read as an infinitive, for errors. If a document
    that `must_exist` is missing, that is an error. One that `is_dated` has the times of its response, which a list and
    the response to a write do not have. One that `is_momentary`, such as whether an account is available, is read for
    each question. One that `lags` behind for minutes, such as a row of Azure Resource Graph, is read once a run. What
    was read is `also` the document of another ref. `keyed` returns the name of an item of a large list, which is stored
    in parts.
    """

    kind: str
    id: str
    what: str
    filter: str = ""
    is_list: bool = False
    must_exist: bool = False
    is_dated: bool = False
    is_momentary: bool = False
    lags: bool = False
    body: Mapping[str, Any] | None = None
    member: Member | None = None
    keyed: Callable[[Any], str] | None = None
    also: Callable[[Any], Ref[Any]] | None = None

    @cached_property
    def name(self) -> tuple[str, ...]:
        asked = json.dumps(self.body) if self.body else ""
        form = "list" if self.is_list else "dated" if self.is_dated else ""
        return self.kind, self.id.lower(), self.filter.lower(), asked.lower(), form


class Read(NamedTuple):
    """A document as it was read. `value` is None if it is missing, or the error if it could not be read. `at` is when
    the request began, `ended` when its last response was received (time.monotonic()). `now` is when Azure responded,
    and `changed_at` when the document was changed, both in seconds since 1970, None if the response does not have
    them."""

    value: Any
    at: float
    ended: float
    now: float | None = None
    changed_at: float | None = None


class Need(BaseException):
    """The documents that have to be read, each at this time (time.monotonic()) or later."""

    def __init__(self, wanted: Iterable[tuple[Ref[Any], float]]) -> None:
        super().__init__()
        self.wanted = list(wanted)


class Doubt(BaseException):
    """What the question has found has to be read by this task."""


class Wait(BaseException):
    """A decision that depends on a change which Azure does not show yet. It is decided again, at growing intervals,
    until it is made. After `seconds` (by default `wait_timeout`), the error `complaint` is raised. `waiting_for`
    completes the line "Waiting for ..."."""

    def __init__(self, complaint: CmkError, waiting_for: str, seconds: float | None = None) -> None:
        super().__init__()
        self.complaint = complaint
        self.waiting_for = waiting_for
        self.seconds = seconds


class Docs:
    """`find` returns the read of a document that began at a time or later, if it is recent enough; `earlier` what the
    run had read before. `asked_at` is when the question was asked (time.monotonic()). `is_certain` is whether no read
    began earlier, except as the phase says."""

    def __init__(
        self,
        find: Callable[[Ref[Any], float], Read | None],
        earlier: Callable[[Ref[Any]], Any],
        local_now: float,
        asked_at: float = 0.0,
        *,
        is_certain: bool = True,
    ) -> None:
        self._find = find
        self._earlier = earlier
        self._local_now = local_now
        self.asked_at = asked_at
        self._is_certain = is_certain
        self._after = 0.0
        self._wanted: dict[tuple[str, ...], tuple[Ref[Any], float]] = {}
        self._times = list[float]()

    def after(self, at: float) -> Docs:
        """The same documents, but none of a read that began earlier than this (time.monotonic()), because it depends on
        what has ended then: permissions vouch for a list that was read before."""
        other = copy(self)
        other._after = max(self._after, at)
        return other

    def doubt(self) -> None:
        """What was found would be refused, or is a failure. If others may have read it before the question was asked,
        the question is asked again, of reads since then."""
        if not self._is_certain:
            raise Doubt

    def want(self, *refs: Ref[Any]) -> None:
        """Read these together with the next document that has to be read."""
        for ref in refs:
            self._wanted[ref.name] = ref, self._after

    def of(self, ref: Ref[Any]) -> Read:
        """The document with the times of its read. An error is its `value`."""
        found = self._find(ref, self._after)
        if found is None:
            self._wanted[ref.name] = ref, self._after
            raise Need(one for one in self._wanted.values() if self._find(*one) is None)
        if found.now is not None:
            self._times.append(found.now)
        return found

    def known(self, ref: Ref[T]) -> T | CmkError | None:
        """The document, None if it is missing, or the error if it could not be read."""
        value: T | CmkError | None = self.of(ref).value
        return value

    def get(self, ref: Ref[T]) -> T | None:
        """The document; None if it is missing. Raises the error if it could not be read."""
        value = self.known(ref)
        if isinstance(value, CmkError):
            raise value
        return value

    def items(self, ref: Ref[list[T]]) -> list[T]:
        return self.get(ref) or []

    def earlier(self, ref: Ref[T]) -> T | None:
        """What the run had read before the question; None if it had not. Use it only to find out what to read."""
        value: T | None = self._earlier(ref)
        return value

    @property
    def now(self) -> float:
        """The current time by Azure's clock, as far as a response has shown it. Otherwise the local time."""
        return max(self._times, default=self._local_now)
