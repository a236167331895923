# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A clock that a test controls."""

from __future__ import annotations

from types import ModuleType

import pytest


class Clock:
    """Replaces the module `time`. The time in seconds grows by `tick` with each call."""

    def __init__(self, tick: float = 0.0) -> None:
        self.now = 1000.0
        self._tick = tick

    def time(self) -> float:
        self.now += self._tick
        return self.now

    monotonic = time

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def clock_of(module: ModuleType, monkeypatch: pytest.MonkeyPatch, *, tick: float = 0.0) -> Clock:
    """Replace the module `time` in the module by a clock, and return the clock."""
    clock = Clock(tick)
    monkeypatch.setattr(module, "time", clock)
    return clock


def clock_of_all(monkeypatch: pytest.MonkeyPatch, *, tick: float = 1e-4) -> Clock:
    """Replace the monotonic clock and the pauses of all modules."""
    clock = Clock(tick)
    monkeypatch.setattr("time.monotonic", clock.monotonic)
    monkeypatch.setattr("time.sleep", clock.sleep)
    return clock
