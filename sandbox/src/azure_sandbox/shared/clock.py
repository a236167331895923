# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The sandbox's time: the machine's, plus what a test advanced it by."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone


class Clock:
    def __init__(self) -> None:
        self._advanced = 0.0

    def advance(self, seconds: float) -> None:
        self._advanced += seconds

    def time(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        return time.time() + self._advanced

    def now(self) -> datetime:
        return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=self.time())

    def iso(self, fraction_digits: int = 7) -> str:
        """`2025-04-03T09:30:10.7797806Z`; Azure's services differ in the number of fraction digits."""
        now = self.now()
        fraction = f"{now.microsecond:06d}0"[:fraction_digits]
        return f"{now:%Y-%m-%dT%H:%M:%S}{'.' if fraction else ''}{fraction}Z"
