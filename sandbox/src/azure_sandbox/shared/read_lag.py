# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads that show the previous state of a resource for some time after a write (switch `read_lag`)."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from .world import World

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


@dataclass
class ReadLag(Generic[K, T]):
    world: World
    # By resource: the time of each write and the state before it. None: the resource did not exist.
    _before: dict[K, list[tuple[float, T | None]]] = field(default_factory=dict)

    @property
    def _seconds(self) -> int:
        return int(self.world.behavior.read_lag)

    @property
    def is_on(self) -> bool:
        return bool(self._seconds and self._before)

    def note(self, key: K, before: T | None) -> None:
        """Keep the state of a resource just before a write."""
        if self._seconds:
            self._before.setdefault(key, []).append((self.world.clock.time(), copy.deepcopy(before)))

    def shown(self, key: K, current: T | None) -> T | None:
        """The state that a read returns now."""
        since = self.world.clock.time() - self._seconds
        writes = [(at, before) for at, before in self._before.get(key, ()) if at > since]
        if writes:
            return writes[0][1]
        self._before.pop(key, None)
        return current

    def all(self, current: Mapping[K, T]) -> list[T]:
        """The states that a list returns now."""
        keys = dict.fromkeys([*current, *self._before])
        return [one for key in keys if (one := self.shown(key, current.get(key))) is not None]
