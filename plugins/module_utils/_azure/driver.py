# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads the documents that questions ask for. Only this file knows how old a read may be: the phase in which a question
is asked says that.

| phase | a read of the subject serves | a read of what is only checked serves |
|---|---|---|
| `glance`: is nothing to be done? | since the host's previous task ended, 20 s old at most | the same |
| `solve`: what is to be changed? | a document: of this task, 5 s old at most, or since its own write to the kind; \
a list, or the time of a change: since the question was asked, 5 s old at most | 20 s old at most |
| `check` | 20 s old at most | the same |
| `since`: decided again, confirmed | since that time | 20 s old at most |
| `now`: wanted, refused, rollback | since the question was asked | the same |

The task, or its change, says what its subject is (`is_subject`). Where no task is named, a read of any task of the run
by this caller serves. If what was checked is a refusal (`Docs.doubt`), it is read again, since the question was asked.

No read serves that began before the run's last write to its kind ended (journal.py). Its age is counted from its first
request. A wait for the rate limit is before the request, so tasks that begin to wait meanwhile share the read. What is
missing (None) is read again by each task, because another user may be creating it.

This module util is private to the collection.
"""

from __future__ import annotations

import time
import zlib
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import nullcontext
from dataclasses import dataclass, replace
from enum import Enum
from threading import Lock
from typing import Any, Generic, TypeAlias, TypeVar, cast

from .._core.concurrent import map_concurrent
from .._core.docs import Docs, Doubt, Member, Need, Read, Ref, Wait
from .._core.errors import CmkError, Denied
from .gateway import Gateway
from .rate_limit import timed
from .session import Session

T = TypeVar("T")
_OWN_SECONDS = 5
_RECENT_SECONDS = 20
_RUN_SECONDS = 600
_PARTS = 64
# All hosts wait for a list of documents that they need. If its read takes longer than this, they read their documents
# alone until so many times as long have passed.
_LONG_SECONDS = 5
_PAUSE = 20
Name = tuple[str, ...]


class MaxAge(Enum):
    """How old a read may be."""

    # Of this task, five seconds old at most; all since a write of this task to the kind.
    OWN = "own"
    # Since the host's previous task ended, twenty seconds old at most.
    GLANCE = "glance"
    # Twenty seconds old at most.
    RECENT = "recent"
    # Ten minutes old at most.
    RUN = "run"


# An age, or the time (time.monotonic()) at which the read began, or later.
Freshness: TypeAlias = "MaxAge | float"
IsSubject: TypeAlias = Callable[[Ref[Any]], bool]


def everything(_ref: Ref[Any]) -> bool:
    return True


@dataclass(frozen=True)
class _Phase:
    """How old reads may be: of the documents that are the subject, of its lists and the times of its changes, and of
    what is only checked."""

    asked_at: float
    documents: Freshness
    lists: Freshness
    checks: Freshness
    is_subject: IsSubject = everything

    def freshness(self, ref: Ref[Any]) -> Freshness:
        if ref.lags:
            return MaxAge.RUN
        if not self.is_subject(ref):
            return self.checks
        return self.lists if ref.is_list or ref.is_dated else self.documents


@dataclass(frozen=True)
class Solved(Generic[T]):
    """The result of a question, or its error. `is_shared` is whether another task has read a part of it."""

    is_shared: bool
    found: T | None = None
    error: CmkError | None = None

    def get(self) -> T:
        if self.error is not None:
            raise self.error
        return cast(T, self.found)


class _Reading:
    """A read of one thread, for which other threads of the task may wait."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.ended: Future[None] = Future()


class Driver:
    """What one caller may read is never given to another: values are stored by the caller's fingerprint."""

    def __init__(self, session: Session, gateway: Gateway) -> None:
        self._session = session
        self._files = session.files
        self._journal = session.journal
        self._gateway = gateway
        # What this task has read.
        self._own: dict[Name, Read] = {}
        # By kind, the time before which reads are out of date for this task (`forget`).
        self._forgotten: dict[str, float] = {}
        # The threads of a task may read several documents at the same time, and one document twice.
        self._lock = Lock()
        self._reading: dict[Name, _Reading] = {}

    # Questions

    def glance(self, question: Callable[[Docs], T]) -> Solved[T]:
        """The result, as far as other tasks have read since this host's previous task ended."""
        asked_at = self._glanced_since(time.monotonic())
        return self._asked(question, _Phase(asked_at, MaxAge.GLANCE, MaxAge.GLANCE, MaxAge.GLANCE))

    def check(self, question: Callable[[Docs], T]) -> T:
        """The result of a check before a change, as far as other tasks have read lately."""
        return self.solve(question, lambda _ref: False)

    def solve(
        self, question: Callable[[Docs], T], is_subject: IsSubject = everything, *, asked_at: float | None = None
    ) -> T:
        """The result, before a change. `asked_at` is when it was asked (time.monotonic()), by default now."""
        now = time.monotonic()
        asked_at = now if asked_at is None else asked_at
        lists = max(asked_at, now - _OWN_SECONDS)
        return self._asked(question, _Phase(asked_at, MaxAge.OWN, lists, MaxAge.RECENT, is_subject)).get()

    def since(
        self, question: Callable[[Docs], T], at: float, is_subject: IsSubject = everything, *, waits: bool = True
    ) -> T:
        """The result from reads of the subject that began at that time or later. Without `waits`, the complaint of a
        question that would wait is raised."""
        return self._asked(question, _Phase(at, at, at, MaxAge.RECENT, is_subject), waits=waits).get()

    def now(self, question: Callable[[Docs], T]) -> T:
        """The result from reads that begin now."""
        return self.since(question, time.monotonic())

    def _asked(self, question: Callable[[Docs], T], phase: _Phase, *, waits: bool = True) -> Solved[T]:
        """The question sees one state of each document, although other tasks may read it meanwhile. If it raises Wait,
        it is asked again; without `waits`, its complaint is raised."""
        try:
            return self._ask_once(question, phase)
        except Wait as wait:
            first = wait
        if not waits:
            raise first.complaint
        answers, complaints = list[Solved[T]](), [first.complaint]

        def complaint() -> CmkError | None:
            if complaints:
                return complaints.pop()
            self.forget()
            try:
                answers.append(self._ask_once(question, replace(phase, asked_at=time.monotonic())))
            except Wait as again:
                return again.complaint
            return None

        seconds = self._session.wait_timeout if first.seconds is None else first.seconds
        failure = self._session.poll_until(complaint, time.monotonic() + seconds, first.waiting_for)
        if failure is not None:
            raise failure
        return answers[0]

    def _ask_once(self, question: Callable[[Docs], T], phase: _Phase) -> Solved[T]:
        began = time.monotonic()
        # How old a read may be is counted from the beginning, however long the reads take.
        since: dict[tuple[str, Freshness], float] = {}
        pinned: dict[Name, tuple[Read, bool]] = {}
        before: dict[Name, Any] = {}

        def earlier(ref: Ref[Any]) -> Any:
            # What the question itself has listed is in that list already.
            if ref.is_list and ref.name in before:
                return before[ref.name]
            before[ref.name] = self._earlier(ref)
            return before[ref.name]

        def oldest(ref: Ref[Any], after: float) -> tuple[float, Freshness]:
            named = ref.kind, phase.freshness(ref)
            if named not in since:
                since[named] = self._since(*named)
            at = max(since[named], after, began if ref.is_momentary else 0.0)
            return at, (at if after else named[1])

        def find(ref: Ref[Any], after: float) -> Read | None:
            at, fresh = oldest(ref, after)
            is_shared = fresh is not MaxAge.OWN
            if ref.name not in pinned or pinned[ref.name][0].at < at or not (is_shared or pinned[ref.name][1]):
                kept = self._kept(ref, at, is_shared)
                if kept is None:
                    return None
                pinned[ref.name] = kept, kept is self._own.get(ref.name)
            return pinned[ref.name][0]

        def serve(wanted: tuple[Ref[Any], float]) -> None:
            ref, began = wanted[0], time.monotonic()
            try:
                read = self._read(ref, *oldest(*wanted))
            except CmkError as error:
                read = Read(error, began, time.monotonic())
            is_new = read.value is None or isinstance(read.value, CmkError)
            pinned[ref.name] = read, is_new or read is self._own.get(ref.name)

        def solved(found: T | None = None, error: CmkError | None = None) -> Solved[T]:
            return Solved(not all(is_own for _read, is_own in pinned.values()), found, error)

        while True:
            try:
                is_certain = phase.checks is not MaxAge.RECENT
                return solved(question(Docs(find, earlier, time.time(), phase.asked_at, is_certain=is_certain)))
            except CmkError as error:
                return solved(error=error)
            except Doubt:
                phase = replace(phase, checks=max(phase.asked_at, began - _RECENT_SECONDS))
            except Need as need:
                if len(need.wanted) == 1:
                    serve(need.wanted[0])
                else:
                    map_concurrent(serve, need.wanted)

    def get(self, ref: Ref[T], fresh: Freshness = MaxAge.OWN) -> T | None:
        """The document; None if it is missing."""
        value: T | None = self.read(ref, fresh).value
        return value

    def read(self, ref: Ref[Any], fresh: Freshness = MaxAge.OWN) -> Read:
        """The document, with the times of its read."""
        return self._read(ref, self._since(ref.kind, fresh), fresh)

    def keep(self, ref: Ref[T], value: T, at: float | None = None) -> None:
        """Keep what the response to a write, or to the poll after it, has shown."""
        at = time.monotonic() if at is None else at
        self._keep(ref, Read(value, at, at), is_dated=False)

    # How old a read may be

    def forget(self, *kinds: str) -> None:
        """Make what was read of these kinds, or of all kinds, out of date for this task."""
        for kind in kinds or ("any",):
            self._forgotten[kind] = time.monotonic()

    def _since(self, kind: str, fresh: Freshness) -> float:
        now = time.monotonic()
        if not isinstance(fresh, MaxAge):
            since = fresh
        elif fresh is MaxAge.RUN:
            since = now - _RUN_SECONDS
        elif fresh is MaxAge.RECENT:
            since = now - _RECENT_SECONDS
        elif fresh is MaxAge.GLANCE:
            since = self._glanced_since(now)
        else:
            since = 0.0 if self._journal.has_changed(kind) else now - _OWN_SECONDS
        forgotten = max(self._forgotten.get(one, 0.0) for one in (kind, "any"))
        return max(since, self._journal.readable_since(kind, forgotten))

    def _glanced_since(self, now: float) -> float:
        return max(now - _RECENT_SECONDS, self._session.task_began)

    # Reads

    def _read(self, ref: Ref[Any], since: float, fresh: Freshness) -> Read:
        is_shared = fresh is not MaxAge.OWN
        while (kept := self._kept(ref, since, is_shared)) is None:
            with self._lock:
                under_way = self._reading.get(ref.name)
                if under_way is None or under_way.began < since:
                    mine = self._reading[ref.name] = _Reading(time.monotonic())
                    break
            # Another thread of the task reads the document.
            wait([under_way.ended])
        else:
            return kept
        try:
            # A read that began too early, and may be slow, is not waited for.
            waits = is_shared and under_way is None
            with self._files.locked(self._session.fingerprint, *ref.name) if waits else nullcontext():
                kept = self._kept(ref, since, is_shared)
                if kept is None and is_shared and isinstance(fresh, MaxAge) and (member := self._one_of_many(ref)):
                    kept = self._from_list(member, since, fresh)
                if kept is None:
                    asked, began = timed(lambda: self._ask(ref))
                    kept = asked._replace(at=began, ended=time.monotonic())
                    self._keep(ref, kept)
        finally:
            with self._lock:
                if self._reading.get(ref.name) is mine:
                    del self._reading[ref.name]
            mine.ended.set_result(None)
        return kept

    def _ask(self, ref: Ref[Any]) -> Read:
        if ref.is_list and ref.body is not None:
            return Read(self._gateway.query(ref.what, ref.id, ref.body), 0.0, 0.0)
        if ref.is_list:
            return Read(self._gateway.list(ref.what, ref.id, ref.filter), 0.0, 0.0)
        if ref.body is not None:
            return Read(self._gateway.ask(ref.what, ref.id, ref.body), 0.0, 0.0)
        if ref.must_exist:
            return Read(self._gateway.get(ref.what, ref.id), 0.0, 0.0)
        answer = self._gateway.answer(ref.what, ref.id)
        return Read(answer.document, 0.0, 0.0, answer.at, answer.changed_at)

    def _kept(self, ref: Ref[Any], since: float, is_shared: bool) -> Read | None:
        own = self._own.get(ref.name)
        if own is not None and own.at >= since:
            return own
        return self._stored(ref, since) if is_shared else None

    def _earlier(self, ref: Ref[Any]) -> Any:
        kept = self._own.get(ref.name) or self._stored(ref) or (ref.member and self._picked(ref.member, 0.0))
        return kept and kept.value

    def _keep(self, ref: Ref[Any], read: Read, *, is_dated: bool = True) -> None:
        """Keep it for this task and for the run; what is missing only for this task. A newer read stays."""
        is_missing = read.value is None
        other = None if is_missing or ref.also is None else ref.also(read.value)
        if other and (is_dated or not other.is_dated):
            self._keep(replace(other, also=None), read)
        own = self._own.get(ref.name)
        if own is not None and own.at > read.at:
            return
        self._own[ref.name] = read
        if is_missing:
            return
        if ref.keyed is None:
            self._files.store(read, self._session.fingerprint, *ref.name)
            return
        parts = defaultdict[str, dict[str, list[Any]]](lambda: defaultdict(list))
        for item in read.value:
            name = ref.keyed(item)
            parts[_part_of(name)][name].append(item)
        for part in map(str, range(_PARTS)):
            stored = {"at": read.at, "ended": read.ended, "items": parts.get(part, {})}
            self._files.store(stored, self._session.fingerprint, *ref.name, part)

    def _stored(self, ref: Ref[Any], since: float = 0.0) -> Read | None:
        if ref.keyed is None:
            found = self._files.load(self._session.fingerprint, *ref.name)
            return None if found is None or found[1] < since else Read(*found)
        parts = list[Any]()
        # A list that is too old, or incomplete, is not loaded as a whole.
        for number in range(_PARTS):
            parts.append(self._files.load(self._session.fingerprint, *ref.name, str(number)))
            if not parts[-1] or parts[-1]["at"] < since or parts[-1]["at"] != parts[0]["at"]:
                return None
        items = [item for part in parts for items in part["items"].values() for item in items]
        return Read(items, parts[0]["at"], parts[0]["ended"])

    # Members of lists

    def _one_of_many(self, ref: Ref[Any]) -> Member | None:
        """The list that has the document, if the run asks for many of its members, the caller may read it, and that
        does not take long."""
        member = ref.member
        if member is None or self._journal.has_changed(ref.kind):
            return None
        named = self._session.fingerprint, *member.of.name
        names: list[str] = self._files.load(*named, "asked") or []
        if member.name not in names and len(names) < member.listed_from:
            with self._files.locked(*named, "asked"):
                names = [*(self._files.load(*named, "asked") or []), member.name]
                self._files.store(names, *named, "asked")
        is_paused = (self._files.load(*named, "paused until") or 0.0) > time.monotonic()
        return None if is_paused or len(names) < member.listed_from else member

    def _from_list(self, member: Member, since: float, fresh: MaxAge) -> Read | None:
        """The document from its list, which is read unless a task of the run has read it."""
        if (found := self._picked(member, since)) is not None:
            return found
        named = self._session.fingerprint, *member.of.name
        # Those who wait for the list load only its part with their document.
        with self._files.locked(*named, "read for a member"):
            if (found := self._picked(member, since)) is not None:
                return found
            began = time.monotonic()
            try:
                self.read(member.of, fresh)
            except Denied:
                self._files.store(began + _RECENT_SECONDS, *named, "paused until")
                return None
            took = time.monotonic() - began
            if took > _LONG_SECONDS:
                self._files.store(began + took * _PAUSE, *named, "paused until")
        return self._picked(member, since)

    def _picked(self, member: Member, since: float) -> Read | None:
        """The document from its list, if a task of the run has read that since then."""
        # Only the part of the list that has the document.
        part = self._files.load(self._session.fingerprint, *member.of.name, _part_of(member.name))
        if part is None or part["at"] < since:
            return None
        value = member.pick(part["items"].get(member.name, []))
        return None if value is None else Read(value, part["at"], part["ended"])


def _part_of(member: str) -> str:
    """The part of a list that has the member. A file for each member would take long to write, and a single file long
    to read."""
    return str(zlib.crc32(member.encode()) % _PARTS)
