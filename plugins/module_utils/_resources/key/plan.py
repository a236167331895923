# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans keys that Batch can use: type RSA, a supported size, enabled, with wrapKey and unwrapKey, not too old.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable

from ..._core.plan import Outcome, Plan
from ..._documents.key import describe
from . import disabled, present
from .goal import Goal, KeyWrites, Observed


def plan(goal: Goal, observed: Observed) -> Plan[KeyWrites]:
    by_state = {
        "present": present.plan_present,
        "enabled": present.plan_enabled,
        "enabled_again": disabled.plan_enabled_again,
        "disabled": disabled.plan_disabled,
        "retired": disabled.plan_disabled,
        "absent": disabled.plan_absent,
        "recovered": present.plan_recovered,
    }
    return by_state[goal.state](goal, observed, describe(observed))


def recovered_first(goal: Goal, ensure: Callable[[Goal], Outcome]) -> Outcome:
    """The outcome of `ensure`. If the first call has recovered the key, `ensure` is called again: Azure shows only
    after the recovery what else has to change, such as a disabled version."""
    outcome = ensure(goal)
    was_recovered = goal.recover and outcome.before.get("soft_deleted", False) and outcome.after["exists"]
    if not was_recovered:
        return outcome
    ready = ensure(goal)
    return Outcome(True, outcome.before, ready.after, (*outcome.warnings, *ready.warnings), ready.report)
