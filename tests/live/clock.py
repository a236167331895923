# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The time of the experiments."""

from __future__ import annotations

import time
from typing import Protocol

import requests


class Clock(Protocol):
    # The address of the sandbox whose time it is; empty for the real time.
    url: str

    def now(self) -> float:
        """Seconds since 1970-01-01 UTC."""

    def wait(self, seconds: float) -> None:
        """Return after this time."""


class RealClock:
    url = ""

    def now(self) -> float:
        return time.time()

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)


class SandboxClock:
    """The clock of a sandbox, which a wait advances."""

    def __init__(self, url: str) -> None:
        """`url` is the address of the control API."""
        self.url = url
        self._session = requests.Session()
        self._session.trust_env = False

    def now(self) -> float:
        return float(self._session.get(f"{self.url}/clock", timeout=30).json()["time"])

    def wait(self, seconds: float) -> None:
        body = {"seconds": seconds}
        self._session.post(f"{self.url}/clock/advance", json=body, timeout=30).raise_for_status()


def clock_at(url: str) -> Clock:
    """The clock with this `url`."""
    return SandboxClock(url) if url else RealClock()
