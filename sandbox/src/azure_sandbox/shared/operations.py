# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Asynchronous operations, which continue after the response to the request. Clients poll their state."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from .world import World

T = TypeVar("T")


@dataclass
class Operation(Generic[T]):
    id: str
    # Data of the service that started the operation.
    about: T
    # By the sandbox's clock.
    started_at: float
    done_at: float


@dataclass
class Operations(Generic[T]):
    world: World
    _operations: dict[str, Operation[T]] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Operation[T]]:
        return iter(self._operations.values())

    def start(self, about: T, seconds: float, name: str = "") -> Operation[T]:
        """Start an operation that takes `seconds`. `find` finds the operation by its name, or by its id if it has no
        name."""
        now = self.world.clock.time()
        operation = Operation(str(uuid.uuid4()), about, now, now + seconds)
        self._operations[name.lower() or operation.id] = operation
        return operation

    def find(self, name: str) -> Operation[T] | None:
        return self._operations.get(name.lower())

    def is_done(self, operation: Operation[T]) -> bool:
        return operation.done_at <= self.world.clock.time()
