# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans keys that Batch can use: type RSA, a supported size, enabled, with wrapKey and unwrapKey, not too old.

This module util is private to the collection.
"""

from __future__ import annotations

from ..._core.plan import Plan
from . import disabled, enabled, present
from .document import describe
from .goal import Goal
from .observed import Observed
from .recovery import plan_recovered
from .writes import KeyWrites


def plan(goal: Goal, observed: Observed) -> Plan[KeyWrites]:
    by_state = {
        "present": present.plan,
        "enabled": enabled.plan,
        "enabled_again": disabled.plan_enabled_again,
        "disabled": disabled.plan_disabled,
        "retired": disabled.plan_disabled,
        "absent": disabled.plan_absent,
        "recovered": plan_recovered,
    }
    return by_state[goal.state](goal, observed, describe(observed))
