# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads that show a write after a delay (switches `value_lag`, `name_lag`, `list_lag`, `graph_lag`)."""

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
class Lag(Generic[K, T]):
    """All reads of a value have the same delay, so a read never shows an older value than an earlier read."""

    world: World
    # The position of `value_lag_of` that names the service.
    service: str = ""
    # By resource: the time of each write and the state before it. None: the resource did not exist.
    _before: dict[K, list[tuple[float, T | None]]] = field(default_factory=dict)

    @property
    def _longest(self) -> float:
        behavior = self.world.behavior
        return max(float(behavior.value_lag), float(behavior.name_lag), float(behavior.list_lag), graph_lag(behavior))

    @property
    def is_on(self) -> bool:
        return bool(self._longest and self._before)

    def note(self, key: K, before: T | None) -> None:
        """Keep the state of a resource just before a write."""
        if self._longest:
            self._before.setdefault(key, []).append((self.world.clock.time(), copy.deepcopy(before)))

    def shown(self, key: K, current: T | None) -> T | None:
        """The state that a read of the resource returns now."""
        return self._shown(key, current, float(self.world.behavior.name_lag))

    def listed(self, current: Mapping[K, T], *, of_resources: bool = True) -> list[T]:
        """The states that a list returns now. Only lists of resources are reported to show new names late."""
        behavior = self.world.behavior
        return self._all(current, float(behavior.list_lag if of_resources else behavior.name_lag))

    def in_graph(self, current: Mapping[K, T]) -> list[T]:
        """The states that Resource Graph returns now."""
        lag = graph_lag(self.world.behavior)
        return self._all(current, lag, lag)

    def _all(self, current: Mapping[K, T], name_lag: float, value_lag: float | None = None) -> list[T]:
        keys = dict.fromkeys([*current, *self._before])
        return [one for key in keys if (one := self._shown(key, current.get(key), name_lag, value_lag)) is not None]

    def _shown(self, key: K, current: T | None, name_lag: float, value_lag: float | None = None) -> T | None:
        """`name_lag` is the delay of a creation in seconds, `value_lag` that of other writes."""
        now, writes = self.world.clock.time(), self._before.get(key, ())
        if writes and writes[-1][0] <= now - self._longest:
            del self._before[key]
        if value_lag is None:
            behavior = self.world.behavior
            value_lag = float(behavior.value_lag) if behavior.value_lag_of in ("all", self.service) else 0.0
        for at, before in writes:
            if at > now - (name_lag if before is None else value_lag):
                return before
        return current
