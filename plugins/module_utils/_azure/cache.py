# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Data that this task or another task of the run has read from Azure.

How old a value may be is a time of the monotonic clock, which all processes of a machine share: a read that a task of
the run has begun then, or later, serves (`get`). Tasks that wait for the same read share it. The age of a value is
counted from its first request. A wait for the rate limit is before the request, so tasks that begin to wait meanwhile
share the value.

For checks before a change, a task accepts what is some seconds old (RECENTLY), so that a thousand hosts do not all read
the same vault. The change itself is planned from the task's own reads (JUST_NOW), because a task may have waited for a
lock since it began. After a write, it asks for reads since its write.

The name of a value begins with its kind (`vault`, `key`, `account`).

This module util is private to the collection.
"""

from __future__ import annotations

import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from math import inf, nextafter
from threading import Lock
from typing import Any, TypeAlias, TypeVar, cast

from .run_store import RunFiles

T = TypeVar("T")
# How old a value may be: a time of the monotonic clock, or JUST_NOW or RECENTLY, which return it for the value's kind.
NotBefore: TypeAlias = "float | Callable[[Cache, str], float]"
_JUST_NOW_SECONDS = 5
_RECENTLY_SECONDS = 20
_ANY = "any"
# The times of the requests, and of cached values, that the current read uses.
_times: ContextVar[list[float] | None] = ContextVar("_times", default=None)
# The time since which reads of other tasks count as `just_now` too (`shared_since`), also for the threads of the block.
_shared_since: ContextVar[float | None] = ContextVar("_shared_since", default=None)
# After this number of single reads, all members are listed. A page of a list has about a hundred.
_LIST_THRESHOLD = 4
_PARTS = 64


def request_sent() -> None:
    """Note that a request is sent now."""
    _note(time.monotonic())


def _note(at: float) -> None:
    times = _times.get()
    if times is not None:
        times.append(at)


class _Reading:
    """A read of one thread, for which other threads of the task may wait."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.ended: Future[None] = Future()


class Cache:
    """`caller` returns the fingerprint of the caller: another principal may be able to read other data. A write makes
    the values of all callers out of date."""

    def __init__(self, files: RunFiles, caller: Callable[[], str]) -> None:
        self._files = files
        self._caller = caller
        # What this task has read: the values (`value`) with their times (`at`).
        self._own: dict[tuple[str, ...], dict[str, Any]] = {}
        # By kind, the time before which values are out of date for this task.
        self._forgotten: dict[str, float] = {}
        # The kinds that this task has changed.
        self._changed: set[str] = set()
        # The threads of a task may read several values at the same time, and one value twice.
        self._lock = Lock()
        self._reading: dict[tuple[str, ...], _Reading] = {}
        # Whether a value that another task has read was used in `shared_since`.
        self.has_shared = False

    # How old a value may be

    def just_now(self, kind: str) -> float:
        """A few seconds ago, but not before `forget` or the run's last write to this kind. After a write of this task
        to this kind, all its reads since then."""
        if _shared_since.get() is not None:
            return self.recently(kind)
        is_changed = not self._changed.isdisjoint((kind, _ANY))
        moment = 0.0 if is_changed else time.monotonic() - _JUST_NOW_SECONDS
        return max(moment, self._since(kind))

    def recently(self, kind: str) -> float:
        """Some seconds ago, but not before the run's last write to this kind. Use it only before a change."""
        return max(time.monotonic() - _RECENTLY_SECONDS, _shared_since.get() or 0.0, self._since(kind))

    @contextmanager
    def shared_since(self, at: float) -> Iterator[None]:
        """Use the values that other tasks have read since then, and no older ones, to find out whether there is
        something to do."""
        token = _shared_since.set(at)
        try:
            yield
        finally:
            _shared_since.reset(token)

    @property
    def shares(self) -> bool:
        """Whether values that other tasks have read are used now (`shared_since`)."""
        return _shared_since.get() is not None

    # Values

    def get(self, read: Callable[[], T], kind: str, *name: str, not_before: NotBefore = just_now) -> T:
        """The value of a read that a task of the run has begun at `not_before` or later, or the value of `read`. With
        JUST_NOW, only reads of this task count.

        A missing resource (None) is read again, because another task may be creating it.
        """
        named, since = (kind, *name), not_before(self, kind) if callable(not_before) else not_before
        is_shared = not_before is not JUST_NOW or self.shares
        while (kept := self._kept(named, since, is_shared)) is None:
            with self._lock:
                under_way = self._reading.get(named)
                if under_way is None or under_way.began < since:
                    mine = self._reading[named] = _Reading(time.monotonic())
                    break
            # Another thread of the task reads the value.
            wait([under_way.ended])
        else:
            _note(kept["at"])
            return cast(T, kept["value"])
        try:
            # A read that began too early, and may be slow, is not waited for.
            waits = is_shared and under_way is None
            with self._files.locked(self._caller(), *named) if waits else nullcontext():
                kept = self._kept(named, since, is_shared)
                if kept is None:
                    kept = _timed(read)
                    if kept["value"] is not None:
                        self.keep(kept["value"], kept["at"], *named)
        finally:
            with self._lock:
                if self._reading.get(named) is mine:
                    del self._reading[named]
            mine.ended.set_result(None)
        _note(kept["at"])
        return cast(T, kept["value"])

    def _kept(self, name: tuple[str, ...], not_before: float, is_shared: bool) -> dict[str, Any] | None:
        own = self._own.get(name)
        if own is not None and own["at"] >= not_before:
            return own
        kept: dict[str, Any] | None = self._files.load(self._caller(), *name) if is_shared else None
        if kept is None or kept["at"] < not_before:
            return None
        self.has_shared = True
        return kept

    def recent(self, kind: str, *name: str) -> Any:
        """What a task of the run has read some seconds ago, None if no task has. Use it only to begin reads early."""
        kept = self._kept((kind, *name), self.recently(kind), True)
        return kept and kept["value"]

    def earlier(self, *name: str) -> Any:
        """What a task of the run has read at any time, None if no task has. Use it only to find out what to read."""
        kept = self._own.get(name) or self._files.load(self._caller(), *name)
        return kept and kept["value"]

    def keep(self, value: object, at: float, *name: str) -> None:
        """Cache a value that was read at the time `at`, for this task and for the run. A newer value stays."""
        if name in self._own and self._own[name]["at"] > at:
            return
        self._own[name] = kept = {"at": at, "value": value}
        self._files.store(kept, self._caller(), *name)

    def one_of_many(self, read_all: Callable[[], Mapping[str, Any]], member: str, *name: str) -> Any:
        """One value of `read_all`, which is called once many members were requested. None before that, if
        `read_all` did not return the member, or if the run has changed the member."""
        asked = (self._caller(), *name, "asked")
        members: list[str] = self._files.load(*asked) or []
        if member not in members and len(members) <= _LIST_THRESHOLD:
            with self._files.locked(*asked):
                members = [*(self._files.load(*asked) or []), member]
                self._files.store(members, *asked)
        if len(members) <= _LIST_THRESHOLD:
            return None
        since = self.get(lambda: self._keep_all(read_all, *name), *name, "all", not_before=RECENTLY)
        part = self._files.load(self._caller(), *name, _part_of(member))
        changed_at = self._files.load("written", *name, member) or 0.0
        if not (part and member in part["values"] and part["at"] >= since and part["at"] > changed_at):
            return None
        self.has_shared = True
        return part["values"][member]

    # What is out of date

    def forget(self, *kinds: str) -> None:
        """Make the values of these kinds, or of all kinds, out of date for this task."""
        for kind in kinds or (_ANY,):
            self._forgotten[kind] = time.monotonic()

    def changed(self, *kinds: str) -> None:
        """The run has changed resources of these kinds, or of all kinds: make the values of all tasks out of date."""
        self.forget(*kinds)
        for kind in kinds or (_ANY,):
            self._changed.add(kind)
            with self._files.locked("written", kind):
                self._files.store(time.monotonic(), "written", kind)

    def is_written_since(self, at: float, *kinds: str) -> bool:
        """Whether the run has changed resources of these kinds since then; without kinds, whether a task has changed
        something that is not known here."""
        return any(self._written(kind) > at for kind in kinds or (_ANY,))

    def _written(self, kind: str) -> float:
        return max(self._files.load("written", one) or 0.0 for one in (kind, _ANY))

    def changed_one(self, member: str, *name: str) -> None:
        """The run has changed this member: `one_of_many` does not use a value that was listed before."""
        self._files.store(time.monotonic(), "written", *name, member)

    def _since(self, kind: str) -> float:
        """After `forget` and the run's last write. A value from that very moment is out of date."""
        forgotten = (self._forgotten.get(one, 0.0) for one in (kind, _ANY))
        return nextafter(max(*forgotten, self._written(kind)), inf)

    def _keep_all(self, read_all: Callable[[], Mapping[str, Any]], *name: str) -> float:
        """List all members and cache them. Returns the time at which the read began."""
        at = time.monotonic()
        parts = defaultdict[str, dict[str, Any]](dict)
        for member, value in read_all().items():
            parts[_part_of(member)][member] = value
        for part, values in parts.items():
            self._files.store({"at": at, "values": values}, self._caller(), *name, part)
        return at


JUST_NOW, RECENTLY = Cache.just_now, Cache.recently


def _part_of(member: str) -> str:
    """The part of a list that has the member. A file for each member would take long to write, and a single file long
    to read."""
    return f"part {zlib.crc32(member.encode()) % _PARTS}"


def _timed(read: Callable[[], Any]) -> dict[str, Any]:
    """The value of `read`, and the time of its first request or of the oldest cached value that it uses."""
    began, times = time.monotonic(), list[float]()
    token = _times.set(times)
    try:
        value = read()
    finally:
        _times.reset(token)
    return {"at": min(times, default=began), "value": value}
