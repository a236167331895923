# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Data that this task or another task of the run has read from Azure a moment ago.

The name of a value begins with its kind (`vault`, `key`, `account`). The age of a value is counted from its first
request, by the monotonic clock, which all processes of a machine share. A wait for the rate limit is before the
request, so tasks that begin to wait meanwhile share the value. A task uses the values of other tasks only before a
change, so that a thousand hosts do not all read the same vault. If a task waits for a change, it reads from Azure
itself.

This module util is private to the collection.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from threading import Lock
from typing import Any, TypeVar, cast

from .run_store import RunFiles

T = TypeVar("T")
# The TTL of a value for the task that has read it, and for the other tasks of the run.
_TASK_TTL_SECONDS = 5
_RUN_TTL_SECONDS = 20
_ANY = "any"
# The times of the requests, and of cached values, that the current read uses.
_times: ContextVar[list[float] | None] = ContextVar("_times", default=None)
# After this number of single reads, all members are listed with one read.
_LIST_THRESHOLD = 25


def request_sent() -> None:
    """Note that a request is sent now."""
    _note(time.monotonic())


def _note(at: float) -> None:
    times = _times.get()
    if times is not None:
        times.append(at)


class Cache:
    """`caller` returns the fingerprint of the caller: another principal may be able to read other data."""

    def __init__(self, files: RunFiles, caller: Callable[[], str]) -> None:
        self._files = files
        self._caller = caller
        self._own: dict[tuple[str, ...], tuple[float, object]] = {}
        # By kind, the time before which this task's values are out of date.
        self._forgotten: dict[str, float] = {}
        # The threads of a task may read several values at the same time, and one value twice.
        self._lock = Lock()
        self._reading: dict[tuple[str, ...], Lock] = {}
        # If a task changes nothing, a missing resource is cached too. Otherwise another task may be creating the
        # resource.
        self.changes_nothing = False

    def read(self, read: Callable[[], T], kind: str, *name: str) -> T:
        """The value from this task's cache, or the value of `read`."""
        with self._lock:
            alone = self._reading.setdefault((kind, *name), Lock())
        with alone:
            at = time.monotonic()
            kept = self._own.get((kind, *name))
            if kept is not None and kept[0] > max(at - _TASK_TTL_SECONDS, self._since(kind)):
                _note(kept[0])
                return cast(T, kept[1])
            value = read()
            if value is not None or self.changes_nothing:
                self.keep(value, at, kind, *name)
            return value

    def keep(self, value: object, at: float, *name: str) -> None:
        """Cache a value that was read at the time `at`, for this task and for the run."""
        self._own[name] = at, value
        if value is not None:
            self._files.store({"at": at, "value": value}, self._caller(), *name)
        else:
            self._files.store(at, self._caller(), *name, "missing")

    def was_missing(self, kind: str, *name: str) -> bool:
        """Whether the first task of a role, which changes nothing, did not find the resource a moment ago. The
        resource may exist now."""
        at: float = self._files.load(self._caller(), kind, *name, "missing") or 0
        return at > max(time.monotonic() - _RUN_TTL_SECONDS, self._since(kind))

    def recent(self, read: Callable[[], Any], kind: str, *name: str) -> Any:
        """The value that a task of the run has read since the run's last write to this kind, or the value of `read`.

        Use it only before a change. A missing resource is read again, because another task may be creating the
        resource.
        """
        now = time.monotonic()
        written = (self._files.load(self._caller(), "written", one) or 0 for one in (kind, _ANY))
        since = max(now - _RUN_TTL_SECONDS, self._since(kind), *written)
        # `read` may use this cache too, and must not get an older value from it.
        self._forgotten[kind] = since
        return self._shared(read, lambda at: at > since, kind, *name)

    def since(self, read: Callable[[], Any], since: float, kind: str, *name: str) -> Any:
        """A value whose read a task of the run has begun at the time `since` or later, or the value of `read`.
        Tasks that wait for a read share the next read."""
        return self._shared(read, lambda at: at >= since, kind, *name)

    def one_of_many(self, read_all: Callable[[], Mapping[str, Any]], member: str, *name: str) -> Any:
        """One value of `read_all`, which is called once many members were requested. None before that, if
        `read_all` did not return the member, or if the run has changed the member."""
        with self._files.locked(self._caller(), *name, "asked"):
            asked: int = (self._files.load(self._caller(), *name, "asked") or 0) + 1
            self._files.store(asked, self._caller(), *name, "asked")
        if asked <= _LIST_THRESHOLD:
            return None
        since: float = self.recent(lambda: self._keep_all(read_all, *name), *name, "all")
        kept = self._files.load(self._caller(), *name, member)
        return kept["value"] if kept and kept["at"] >= since else None

    def forget(self, *kinds: str) -> None:
        """Make this task's values of these kinds, or of all kinds, out of date."""
        for kind in kinds or (_ANY,):
            self._forgotten[kind] = time.monotonic()

    def changed(self, *kinds: str) -> None:
        """The run has changed resources of these kinds, or of all kinds: make the values of all tasks out of date."""
        self.forget(*kinds)
        for kind in kinds or (_ANY,):
            with self._files.locked(self._caller(), "written", kind):
                self._files.store(time.monotonic(), self._caller(), "written", kind)

    def changed_one(self, member: str, *name: str) -> None:
        """The run has changed this member: `one_of_many` does not use its listed value."""
        with self._files.locked(self._caller(), *name, "members"):
            self._files.store({"at": time.monotonic(), "value": None}, self._caller(), *name, member)

    def _since(self, kind: str) -> float:
        return max(self._forgotten.get(kind, 0), self._forgotten.get(_ANY, 0))

    def _shared(self, read: Callable[[], Any], is_fresh: Callable[[float], bool], *name: str) -> Any:
        kept = self._files.load(self._caller(), *name)
        if kept is None or not is_fresh(kept["at"]):
            with self._files.locked(self._caller(), *name):
                kept = self._files.load(self._caller(), *name)
                if kept is None or not is_fresh(kept["at"]):
                    kept = _timed(read)
                    if kept["value"] is not None:
                        self._files.store(kept, self._caller(), *name)
        _note(kept["at"])
        return kept["value"]

    def _keep_all(self, read_all: Callable[[], Mapping[str, Any]], *name: str) -> float:
        """List all members and cache them. Returns the time at which the read began."""
        at = time.monotonic()
        members = read_all()
        with self._files.locked(self._caller(), *name, "members"):
            for member, value in members.items():
                kept = self._files.load(self._caller(), *name, member)
                # If a member was changed during the read, the list may have its previous value.
                if kept is None or kept["at"] < at:
                    self._files.store({"at": at, "value": value}, self._caller(), *name, member)
        return at


def _timed(read: Callable[[], Any]) -> dict[str, Any]:
    """The value of `read`, and the time of its first request or of the oldest cached value that it uses."""
    began, times = time.monotonic(), list[float]()
    token = _times.set(times)
    try:
        value = read()
    finally:
        _times.reset(token)
    return {"at": min(times, default=began), "value": value}
