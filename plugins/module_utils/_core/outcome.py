# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The result of a task.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from . import placeholders
from .summary import would


@dataclass(frozen=True)
class Outcome:
    """What a task has changed. `before` and `after` have the shape of the module's return value, and `report` has
    further values of the result."""

    changed: bool
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    report: Mapping[str, Any] = field(default_factory=dict)

    def summarized(self, summary: str) -> Outcome:
        """The outcome with a one-line summary."""
        return replace(self, report={**self.report, "summary": summary})

    def result(self, *, planned: bool = False) -> dict[str, Any]:
        """The task's result. For a `planned` change, values that only Azure can assign are `(known after apply)`."""
        result = {
            **self.after,
            **self.report,
            "changed": self.changed,
            "diff": {"before": _differing(self.before, self.after), "after": _differing(self.after, self.before)},
            **({"warnings": list(self.warnings)} if self.warnings else {}),
        }
        if planned and self.changed and "summary" in result:
            result["summary"] = would(result["summary"])
        returned: dict[str, Any] = placeholders.shown(result) if planned else result
        return returned


def _differing(values: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """The values that differ from the others. Of a mapping in both, the values of it that differ."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        other = others.get(name)
        if isinstance(value, Mapping) and isinstance(other, Mapping) and value != other:
            found[name] = _differing(value, other)
        elif value != other:
            found[name] = value
    return found


def together(outcomes: Sequence[Outcome]) -> Outcome:
    """Combine the outcomes of several principals. If there are several, `principals` has the values of each
    outcome, and the other values are those of the first outcome."""
    if len(outcomes) == 1:
        return outcomes[0]
    first = outcomes[0] if outcomes else Outcome(False, {}, {})
    return Outcome(
        any(one.changed for one in outcomes),
        {**first.before, "principals": [dict(one.before) for one in outcomes]},
        {**first.after, "principals": [dict(one.after) for one in outcomes]},
        tuple(dict.fromkeys(warning for one in outcomes for warning in one.warnings)),
        _together([one.report for one in outcomes]),
    )


def _together(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Lists of several reports together. Whether something holds for all. Of other values the greatest, such as the
    latest time."""
    combined: dict[str, Any] = {}
    for name in dict.fromkeys(name for report in reports for name in report):
        values = [report[name] for report in reports if name in report]
        if isinstance(values[0], list):
            combined[name] = [one for value in values for one in value]
        elif isinstance(values[0], bool):
            combined[name] = all(values)
        else:
            combined[name] = max(filter(None, values), default=None)
    return combined
