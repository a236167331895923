# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads that show the previous state of a resource for some time after a write (switches `read_lag`, `graph_lag`)."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from .behavior import Behavior
from .world import World

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


def graph_lag(behavior: Behavior) -> float:
    """Seconds until Resource Graph shows a write."""
    return float("inf") if behavior.graph_lag == "never" else float(behavior.graph_lag)


@dataclass
class ReadLag(Generic[K, T]):
    world: World
    # By resource: the time of each write and the state before it. None: the resource did not exist.
    _before: dict[K, list[tuple[float, T | None]]] = field(default_factory=dict)

    @property
    def _seconds(self) -> float:
        return float(self.world.behavior.read_lag)

    @property
    def _kept_seconds(self) -> float:
        return max(self._seconds, graph_lag(self.world.behavior))

    @property
    def is_on(self) -> bool:
        return bool(self._seconds and self._before)

    def note(self, key: K, before: T | None) -> None:
        """Keep the state of a resource just before a write."""
        if self._kept_seconds:
            self._before.setdefault(key, []).append((self.world.clock.time(), copy.deepcopy(before)))

    def shown(self, key: K, current: T | None, lag: float | None = None) -> T | None:
        """The state that a read returns now. `lag` is that of the read in seconds, by default `read_lag`."""
        now = self.world.clock.time()
        since = now - (self._seconds if lag is None else lag)
        writes = self._before.get(key, ())
        if writes and writes[-1][0] <= now - self._kept_seconds:
            del self._before[key]
        return next((before for at, before in writes if at > since), current)

    def all(self, current: Mapping[K, T], lag: float | None = None) -> list[T]:
        """The states that a list returns now. `lag` is that of the list in seconds, by default `read_lag`."""
        keys = dict.fromkeys([*current, *self._before])
        return [one for key in keys if (one := self.shown(key, current.get(key), lag)) is not None]
