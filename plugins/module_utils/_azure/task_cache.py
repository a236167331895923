# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What this task has seen a moment ago and has not changed since, so that its stages do not all ask for the same.

This module util is private to the collection.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import TypeVar, cast

T = TypeVar("T")
# Seconds.
_LASTS = 5


class Seen:
    def __init__(self) -> None:
        self._kept: dict[tuple[str, ...], tuple[float, object]] = {}
        # A task may look at several things at once, and at the same twice.
        self._lock = Lock()
        self._reading: dict[tuple[str, ...], Lock] = {}
        # How often something was not asked for.
        self.recalled = 0

    def read(self, read: Callable[[], T], kind: str, *name: str) -> T:
        """What `read` gives. That there is nothing is not kept: somebody may be making it."""
        with self._lock:
            alone = self._reading.setdefault((kind, *name), Lock())
        with alone:
            kept = self._kept.get((kind, *name))
            if kept is not None and time.monotonic() - kept[0] < _LASTS:
                self.recalled += 1
                return cast(T, kept[1])
            value = read()
            if value is not None:
                self.keep(value, kind, *name)
            return value

    def keep(self, value: object, *name: str) -> None:
        with self._lock:
            self._kept[name] = (time.monotonic(), value)

    def forget(self, *kinds: str) -> None:
        """All that there is of these kinds, or of any."""
        with self._lock:
            self._kept = {name: kept for name, kept in self._kept.items() if kinds and name[0] not in kinds}
