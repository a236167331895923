# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The parts of the sandbox that the control API and the page need."""

from __future__ import annotations

from typing import Protocol

from .faults import Faults
from .request_log import RequestLog
from .world import World


class Sandbox(Protocol):
    world: World
    log: RequestLog
    faults: Faults
    url: str
    # The delay of every response, in seconds.
    latency: float

    @property
    def environment(self) -> dict[str, str]: ...

    def reset(self) -> None: ...
