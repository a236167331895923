# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A change as a value, before it is an act.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Step:
    """One write: the name of a method of the service, with its arguments."""

    action: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What separates the observed from the goal.

    `before` and `after` have the shape of the module's return value. `goal` is the desired state with one-shot
    wishes turned into state, so that a plan made once the steps have run is empty. `former` is the goal that leads
    back to `before`, for nouns that are put back when a change fails; `if_refused` leads back where the change, read
    again, is one that would have been refused, also where `former` leads nowhere. `foreseen_by` are reads that fail
    where Azure would refuse the steps, for check mode, which does not find out by trying. `report` is told beside the
    state.
    """

    goal: Any
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    steps: tuple[Step, ...] = ()
    warnings: tuple[str, ...] = ()
    former: Any = None
    if_refused: Any = None
    foreseen_by: tuple[Step, ...] = ()
    report: Mapping[str, Any] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        return bool(self.steps)


@dataclass(frozen=True)
class Outcome:
    """What a task reports. Of what is `foretold`, nothing has been done."""

    changed: bool
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    report: Mapping[str, Any] = field(default_factory=dict)
    foretold: bool = False

    def summarized(self, summary: str) -> Outcome:
        """The outcome with one line for a person."""
        return replace(self, report={**self.report, "summary": f"Predicted: {summary}" if self.foretold else summary})

    def result(self) -> dict[str, Any]:
        return {
            **self.after,
            **self.report,
            "changed": self.changed,
            "diff": {"before": dict(self.before), "after": dict(self.after)},
            **({"warnings": list(self.warnings)} if self.warnings else {}),
        }
