# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A key that is recovered if somebody deleted it, and then brought to the state that the task asks for.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable

from ..._core.plan import Outcome
from .goal import Goal


def recovered_first(goal: Goal, ensure: Callable[[Goal], Outcome]) -> Outcome:
    """The outcome of `ensure`, called a second time if the first call recovered the key: only then can Azure show what
    else has to change, such as a version that is disabled."""
    outcome = ensure(goal)
    was_recovered = goal.recover and outcome.before.get("soft_deleted", False) and outcome.after["exists"]
    if not was_recovered:
        return outcome
    ready = ensure(goal)
    return Outcome(True, outcome.before, ready.after, (*outcome.warnings, *ready.warnings), ready.report)
