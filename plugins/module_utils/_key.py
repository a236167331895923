# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keys that Batch can use: RSA, of a fit size, enabled, allowed to wrap and unwrap, not too old.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import _key_enabled, _key_present, _key_withdrawn
from ._key_document import describe, summary
from ._key_goal import Goal, desired, key_not_found, step
from ._plan import Plan

__all__ = ["describe", "desired", "plan", "summary"]


def plan(goal: Goal, observed: Mapping[str, Any]) -> Plan:
    by_state = {
        "present": _key_present.plan,
        "enabled": _key_enabled.plan,
        "enabled_again": _key_withdrawn.plan_enabled_again,
        "disabled": _key_withdrawn.plan_disabled,
        "absent": _key_withdrawn.plan_absent,
        "recovered": _recovered,
    }
    return by_state[goal.state](goal, observed, describe(observed))


def _recovered(goal: Goal, observed: Mapping[str, Any], before: Mapping[str, Any]) -> Plan:
    if observed["key"] is not None:
        return Plan(goal, before, before)
    if observed["deleted"] is None:
        raise key_not_found(goal)
    return Plan(goal, before, {"exists": True, "soft_deleted": False}, (step("recover", goal),))
