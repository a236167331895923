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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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
        # The time of a value, and whether it is out of date after _TASK_TTL_SECONDS.
        self._own: dict[tuple[str, ...], tuple[float, object, bool]] = {}
        # By kind, the time before which this task's values are out of date.
        self._forgotten: dict[str, float] = {}
        # The threads of a task may read several values at the same time, and one value twice.
        self._lock = Lock()
        self._reading: dict[tuple[str, ...], Lock] = {}
        # The time since which reads of other tasks are used by `read` too (`shared_since`).
        self._shared_since: float | None = None
        # Whether a value that another task has read was used in `shared_since`.
        self.has_shared = False

    def read(self, read: Callable[[], T], kind: str, *name: str) -> T:
        """The value from this task's cache, or the value of `read`."""
        # A read inside a shared read is a part of it.
        if self._shared_since is not None and _times.get() is None:
            return cast(T, self.recent(read, kind, *name))
        return self._read(read, kind, *name)

    def _read(self, read: Callable[[], T], kind: str, *name: str) -> T:
        with self._lock:
            alone = self._reading.setdefault((kind, *name), Lock())
        with alone:
            at = time.monotonic()
            kept = self._own.get((kind, *name))
            if kept is not None and kept[0] > max(at - _TASK_TTL_SECONDS if kept[2] else 0, self._since(kind)):
                _note(kept[0])
                return cast(T, kept[1])
            value = read()
            # A missing resource is read again, because another task may be creating it.
            if value is not None:
                self.keep(value, at, kind, *name)
            return value

    def keep(self, value: object, at: float, *name: str) -> None:
        """Cache a value that was read at the time `at`, for this task and for the run."""
        self._own[name] = at, value, True
        self._files.store({"at": at, "value": value}, self._caller(), *name)

    def keep_answer(self, value: object, *name: str) -> None:
        """Cache the response to this task's own write. This task uses it until `forget`."""
        at = time.monotonic()
        self.keep(value, at, *name)
        self._own[name] = at, value, False

    def recent(self, read: Callable[[], Any], kind: str, *name: str) -> Any:
        """The value that a task of the run has read since the run's last write to this kind, or the value of `read`.

        Use it only before a change. A missing resource is read again, because another task may be creating the
        resource.
        """
        now = time.monotonic()
        since = max(now - _RUN_TTL_SECONDS, self._shared_since or 0, self._since(kind), self._written(kind))
        # `read` may use this cache too, and must not get an older value from it.
        self._forgotten[kind] = since
        return self._shared(read, lambda at: at > since, kind, *name)

    @contextmanager
    def shared_since(self, at: float) -> Iterator[None]:
        """Use the values that other tasks have read since then, and no older ones, to find out whether there is
        something to do."""
        before, self._shared_since = self._shared_since, at
        try:
            yield
        finally:
            self._shared_since = before

    def since(self, read: Callable[[], Any], since: float, kind: str, *name: str) -> Any:
        """A value whose read a task of the run has begun at the time `since` or later, or the value of `read`.
        Tasks that wait for a read share the next read."""
        return self._shared(read, lambda at: at >= since, kind, *name)

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
        since: float = self.recent(lambda: self._keep_all(read_all, *name), *name, "all")
        kept = self._files.load(self._caller(), *name, member)
        if not (kept and kept["at"] >= since):
            return None
        self.has_shared = True
        return kept["value"]

    @property
    def shares(self) -> bool:
        """Whether values that other tasks have read are used now (`shared_since`)."""
        return self._shared_since is not None

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

    def is_written_since(self, at: float, *kinds: str) -> bool:
        """Whether the run has changed resources of these kinds since then."""
        return any(self._written(kind) > at for kind in kinds)

    def _written(self, kind: str) -> float:
        return max(self._files.load(self._caller(), "written", one) or 0.0 for one in (kind, _ANY))

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
                        self._own[name] = kept["at"], kept["value"], True
                    _note(kept["at"])
                    return kept["value"]
        self.has_shared = True
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
