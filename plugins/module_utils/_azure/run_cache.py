# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What any task of the run has read a moment ago, so that a thousand hosts do not ask for the same vault.

For looking before a change alone: what confirms one is always read anew. Ages and order go by the monotonic clock,
which all processes of a machine share.

This module util is private to the collection.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from .run_store import RunFiles
from .task_cache import Seen

# Seconds that pass until a value is read again.
_LASTS = 20
_ANY = "any"
# So many are read one by one before it pays to list them all.
_FEW = 25


class Recent:
    """`caller` tells whose eyes it was seen with; `seen` is what this task remembers by itself."""

    def __init__(self, files: RunFiles, caller: str, seen: Seen) -> None:
        self._files = files
        self._caller = caller
        self._seen = seen

    def read(self, read: Callable[[], Any], *name: str) -> Any:
        """What `read` gives, unless the run has it: not older than the run's last write to things of its kind."""
        if not self._files.shared:
            return read()
        kept = self._fresh(*name)
        if kept is None:
            with self._files.locked(self._caller, *name):
                kept = self._fresh(*name)
                if kept is None:
                    recalled = self._seen.recalled
                    kept = {"at": time.monotonic(), "value": read()}
                    # What this task has by heart may be older than another's last write, of which it knows nothing.
                    if self._seen.recalled == recalled:
                        self._files.store(kept, self._caller, *name)
        return kept["value"]

    def read_since(self, read: Callable[[], Any], since: float, *name: str) -> Any:
        """What `read` gives, or gave another task of the run that began to read not before `since`, by
        time.monotonic(), which all processes of a machine share. Tasks that wait for a read share the next one."""
        if not self._files.shared:
            return read()
        with self._files.locked(self._caller, *name, "since"):
            kept = self._files.load(self._caller, *name, "since")
            if kept is None or kept["at"] < since:
                kept = {"at": time.monotonic(), "value": read()}
                self._files.store(kept, self._caller, *name, "since")
        return kept["value"]

    def among_many(self, read_all: Callable[[], Mapping[str, Any]], member: str, *name: str) -> Any:
        """What `read_all` gave of one, once many were asked for. None if it gave nothing, or the run has changed it."""
        if not self._files.shared or self._asked(*name) <= _FEW:
            return None
        since: float = self.read(lambda: self._keep_all(read_all, *name), *name, "all")
        kept = self._files.load(self._caller, *name, member)
        return kept["value"] if kept and kept["at"] >= since else None

    def forget(self, member: str, *name: str) -> None:
        """The run has changed this one."""
        if self._files.shared:
            with self._files.locked(self._caller, *name, "members"):
                self._files.store({"at": time.monotonic(), "value": None}, self._caller, *name, member)

    def written(self, *kinds: str) -> None:
        """The run has changed things of these kinds, the first part of their names; without any, of all."""
        for kind in kinds or (_ANY,):
            with self._files.locked(self._caller, "written", kind):
                self._files.store(time.monotonic(), self._caller, "written", kind)

    def _fresh(self, kind: str, *name: str) -> dict[str, Any] | None:
        kept: dict[str, Any] | None = self._files.load(self._caller, kind, *name)
        written = (self._files.load(self._caller, "written", one) or 0 for one in (kind, _ANY))
        since = max(time.monotonic() - _LASTS, *written)
        return kept if kept and kept["at"] > since else None

    def _asked(self, *name: str) -> int:
        with self._files.locked(self._caller, *name, "asked"):
            asked: int = (self._files.load(self._caller, *name, "asked") or 0) + 1
            self._files.store(asked, self._caller, *name, "asked")
        return asked

    def _keep_all(self, read_all: Callable[[], Mapping[str, Any]], *name: str) -> float:
        """When that was."""
        at = time.monotonic()
        members = read_all()
        with self._files.locked(self._caller, *name, "members"):
            for member, value in members.items():
                kept = self._files.load(self._caller, *name, member)
                # One that was changed while they were listed may have been listed as it was before.
                if kept is None or kept["at"] < at:
                    self._files.store({"at": at, "value": value}, self._caller, *name, member)
        return at
