# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The progress of a run over many hosts: finished and failed hosts, rate, and remaining time.

This plugin util is private to the collection.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class PlayProgress:
    """The progress of one play. Times are seconds of a monotonic clock."""

    total: int
    began: float
    # The number of hosts of the finished waves.
    done: int = 0
    # The number of hosts of the current wave.
    wave: int = 0
    wave_number: int = 0
    task: str = ""
    # Hosts of this wave that have finished the task.
    finished: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    stopped: bool = False

    @property
    def left(self) -> int:
        return self.total - self.done

    @property
    def has_waves_left(self) -> bool:
        """Whether other waves follow the current wave."""
        return self.done + self.wave < self.total

    def next_wave(self, hosts: int) -> None:
        self.wave, self.wave_number = hosts, self.wave_number + 1

    def end_wave(self, changed: int) -> None:
        """Count the hosts of the wave as done. If the play has stopped in the wave, only the changed hosts count."""
        if self.stopped:
            self.done += changed
        else:
            self.done, self.wave, self.task = self.done + self.wave, 0, ""

    def next_task(self, name: str) -> None:
        self.task, self.finished = name, set()

    def line(self, now: float) -> str:
        failed = f", {len(self.failed)} failed" if self.failed else ""
        parts = [f"{self.done} of {self.total} hosts done{failed}"]
        if self.task:
            stopped, finished = "stopped in " if self.stopped else "", f"{len(self.finished)} of {self.wave}"
            # The name of the task without the name of the role.
            parts.append(f"{stopped}wave {self.wave_number}: {finished} finished {self.task.rpartition(' : ')[2]!r}")
        # The canary alone takes longer than any other host: it signs in, lists the accounts and creates the version.
        if self.done > 1 and now > self.began:
            rate = self.done / (now - self.began)
            parts.append(f"{rate:.2g} hosts/s" if rate < 10 else f"{rate:.0f} hosts/s")
            if self.left and not self.stopped:
                parts.append(f"about {duration(self.left / rate)} left")
        return "; ".join(parts)


def duration(seconds: float) -> str:
    """A human-readable duration with two digits of precision."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
