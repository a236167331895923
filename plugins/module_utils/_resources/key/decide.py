# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The decision for each state of a key. present.py: a key that Batch can use exists and is not too old; keys and
versions are enabled and recovered. removal.py: they are disabled and deleted. Its rollback and the drill enable
versions again without this table.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable

from ..._azure.facts import Facts
from ..._core.changes import Change, Outcome
from ..._core.docs import Docs
from ..._questions import users
from .goal import Goal
from .present import decide_enabled, decide_present, decide_recovered
from .removal import decide_absent, decide_disabled

_BY_STATE: dict[str, Callable[[Docs, Goal, Facts], Change]] = {
    "present": decide_present,
    "enabled": decide_enabled,
    "disabled": decide_disabled,
    "retired": decide_disabled,
    "absent": decide_absent,
    "recovered": decide_recovered,
}


def decide(docs: Docs, goal: Goal, facts: Facts) -> Change:
    change = _BY_STATE[goal.state](docs, goal, facts)
    return users.with_left_out(docs, facts, change) if goal.disables_or_deletes else change


def recovered_first(goal: Goal, ensure: Callable[[Goal], Outcome]) -> Outcome:
    """The outcome of `ensure`. If the first call has recovered the key, `ensure` is called again: Azure shows only
    after the recovery what else has to change, such as a disabled version."""
    outcome = ensure(goal)
    was_recovered = goal.repairs and outcome.before.get("soft_deleted", False) and outcome.after["exists"]
    if not was_recovered:
        return outcome
    ready = ensure(goal)
    return Outcome(True, outcome.before, ready.after, (*outcome.warnings, *ready.warnings), ready.report)
