# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Data that was read from Azure a moment ago, by this task or by another task of the run.

A value's name begins with its kind (`vault`, `key`, `account`). It is as old as the beginning of its read, by the
monotonic clock, which all processes of a machine share. What this task waits for it reads itself; what the run has read
serves for looking before a change, so that a thousand hosts do not all ask for the same vault.

This module util is private to the collection.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any, TypeVar, cast

from .run_store import RunFiles

T = TypeVar("T")
# Seconds that a value lasts for the task that has read it, and for the others of the run.
_TASK_TTL_SECONDS = 5
_RUN_TTL_SECONDS = 20
_ANY = "any"
# So many are read one by one before it pays to list them all.
_LIST_THRESHOLD = 25


class Cache:
    """`caller` names who reads: another principal may see other things."""

    def __init__(self, files: RunFiles, caller: Callable[[], str]) -> None:
        self._files = files
        self._caller = caller
        self._own: dict[tuple[str, ...], tuple[float, object]] = {}
        # By kind, since when this task's values count.
        self._forgotten: dict[str, float] = {}
        # A task may look at several things at once, and at the same twice.
        self._lock = Lock()
        self._reading: dict[tuple[str, ...], Lock] = {}
        # Of a task that changes nothing, a missing resource is kept too. Otherwise somebody else may be creating it.
        self.changes_nothing = False

    def read(self, read: Callable[[], T], kind: str, *name: str) -> T:
        """The value that this task has read a moment ago and not forgotten since, or the value of `read`."""
        with self._lock:
            alone = self._reading.setdefault((kind, *name), Lock())
        with alone:
            at = time.monotonic()
            kept = self._own.get((kind, *name))
            if kept is not None and kept[0] > max(at - _TASK_TTL_SECONDS, self._since(kind)):
                return cast(T, kept[1])
            value = read()
            if value is not None or self.changes_nothing:
                self.keep(value, at, kind, *name)
            return value

    def keep(self, value: object, at: float, *name: str) -> None:
        """A value that was read at that time, for this task and for the run."""
        self._own[name] = at, value
        if value is not None:
            self._files.store({"at": at, "value": value}, self._caller(), *name)
        else:
            self._files.store(at, self._caller(), *name, "missing")

    def was_missing(self, kind: str, *name: str) -> bool:
        """Whether the first task of a role, which changes nothing, missed it a moment ago. It may exist by now."""
        at: float = self._files.load(self._caller(), kind, *name, "missing") or 0
        return at > max(time.monotonic() - _RUN_TTL_SECONDS, self._since(kind))

    def recent(self, read: Callable[[], Any], kind: str, *name: str) -> Any:
        """The value that a task of the run has read after the run's last write to this kind, or the value of `read`.

        For looking before a change alone. A missing resource is read again: somebody may be creating it.
        """
        now = time.monotonic()
        written = (self._files.load(self._caller(), "written", one) or 0 for one in (kind, _ANY))
        since = max(now - _RUN_TTL_SECONDS, self._since(kind), *written)
        # Values that `read` gets from this cache must not be older either.
        self._forgotten[kind] = since
        return self._shared(read, lambda at: at > since, kind, *name)

    def since(self, read: Callable[[], Any], since: float, kind: str, *name: str) -> Any:
        """A value whose read a task of the run began not before that time, or the value of `read`. Tasks that wait
        for a read share the next one."""
        return self._shared(read, lambda at: at >= since, kind, *name)

    def one_of_many(self, read_all: Callable[[], Mapping[str, Any]], member: str, *name: str) -> Any:
        """One value of `read_all`, once many were asked for. None if it gave nothing, or the run has changed it."""
        with self._files.locked(self._caller(), *name, "asked"):
            asked: int = (self._files.load(self._caller(), *name, "asked") or 0) + 1
            self._files.store(asked, self._caller(), *name, "asked")
        if asked <= _LIST_THRESHOLD:
            return None
        since: float = self.recent(lambda: self._keep_all(read_all, *name), *name, "all")
        kept = self._files.load(self._caller(), *name, member)
        return kept["value"] if kept and kept["at"] >= since else None

    def forget(self, *kinds: str) -> None:
        """This task reads again what it asks for next, of these kinds or of all."""
        for kind in kinds or (_ANY,):
            self._forgotten[kind] = time.monotonic()

    def changed(self, *kinds: str) -> None:
        """The run has changed things of these kinds, or of all: no task uses what was read of them before."""
        self.forget(*kinds)
        for kind in kinds or (_ANY,):
            with self._files.locked(self._caller(), "written", kind):
                self._files.store(time.monotonic(), self._caller(), "written", kind)

    def changed_one(self, member: str, *name: str) -> None:
        """The run has changed one of many."""
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
                    kept = {"at": time.monotonic(), "value": read()}
                    if kept["value"] is not None:
                        self._files.store(kept, self._caller(), *name)
        return kept["value"]

    def _keep_all(self, read_all: Callable[[], Mapping[str, Any]], *name: str) -> float:
        """When that was."""
        at = time.monotonic()
        members = read_all()
        with self._files.locked(self._caller(), *name, "members"):
            for member, value in members.items():
                kept = self._files.load(self._caller(), *name, member)
                # One that was changed while they were listed may have been listed as it was before.
                if kept is None or kept["at"] < at:
                    self._files.store({"at": at, "value": value}, self._caller(), *name, member)
        return at
