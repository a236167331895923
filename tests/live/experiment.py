# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An experiment, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from azure_sandbox.shared.behavior import POSITIONS

from .lab import Lab, Span


class Length(Enum):
    """How long the experiments of this length take together: at most two hours, some hours, or some days."""

    SHORT = "short"
    HOURS = "hours"
    DAYS = "days"


@dataclass(frozen=True)
class Outcome:
    """What an experiment has found."""

    # For people.
    seen: str
    # By switch of `/behavior`, the positions that explain what was found. None is a contradiction: no position of the
    # switch explains it. More than one is no decision.
    consistent: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    # By name in `/timing`, the duration that was measured, in seconds.
    timing: Mapping[str, float] = field(default_factory=dict)
    # By request, what Azure did, beside the cases of the experiment.
    details: Mapping[str, str] = field(default_factory=dict)
    # By switch that cannot be measured yet, the reason.
    not_yet: Mapping[str, str] = field(default_factory=dict)
    # By switch whose positions are times, the time that was measured.
    spans: Mapping[str, Span] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        consistent = dict(self.consistent)
        for switch, span in self.spans.items():
            consistent[switch] = span.explained_by(POSITIONS[switch])
        return {
            "seen": self.seen,
            "consistent": {switch: [*positions] for switch, positions in consistent.items()},
            "timing": dict(self.timing),
            "details": dict(self.details),
            "not_yet": dict(self.not_yet),
            "seconds": {switch: span.document() for switch, span in self.spans.items()},
        }


@dataclass(frozen=True)
class Experiment:
    # The name of its recording too.
    name: str
    question: str
    steps: str
    run: Callable[[Lab], Outcome]
    minutes: float
    length: Length = Length.SHORT
    # By switch of `/behavior`, what each position means.
    switches: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    # The names in `/timing` that it measures.
    durations: tuple[str, ...] = ()
    # How many Batch accounts it has at once at most. The quota of a region can be as low as one.
    accounts: int = 1
    # The resources that are charged, and how many cents at most.
    creates: str = ""
    cents: int = 0
