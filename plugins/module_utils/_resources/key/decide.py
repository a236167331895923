# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The task for each state of a key. present.py: a key that Batch can use exists and is not too old; keys and versions
are enabled and recovered. removal.py: they are disabled and deleted.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable

from ..._azure.facts import Facts
from .goal import KeyStateGoal
from .present import KeyEnabled, KeyRecovered, KeyTask
from .removal import KeyDeleted, KeyDisabled

_BY_STATE: dict[str, Callable[[KeyStateGoal, Facts], KeyTask]] = {
    "enabled": KeyEnabled,
    "disabled": KeyDisabled,
    "absent": KeyDeleted,
    "recovered": KeyRecovered,
}


def by_state(goal: KeyStateGoal, facts: Facts) -> KeyTask:
    return _BY_STATE[goal.state](goal, facts)
