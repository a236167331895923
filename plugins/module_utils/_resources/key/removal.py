# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Disables or deletes keys and versions that nothing may use, and confirms that.

This module util is private to the collection.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ..._core.ids import key_in_vault
from ..._core.plan import Outcome
from ..._core.reconcile import Removal, converge, unless_used
from . import disabled
from . import plan as key_plan
from .goal import Goal


def remove(goal: Goal, cloud: Any, *, later: bool) -> Outcome:
    """Disable or delete what the goal names, if nothing may use it. With `later`, a later task confirms that."""

    def make() -> Outcome:
        return unless_used(
            lambda: converge(goal, cloud.keys, key_plan, rights=cloud.rights.require), keeps_used=goal.keeps_used
        )

    def once() -> Outcome:
        if not goal.keeps_used:
            return make()
        # The count is part of the name, because a task of the run may have enabled or recovered a key that another task
        # had disabled or deleted.
        outcome: Outcome = cloud.run_once(make, repr((goal, cloud.keys.restorations(goal.vault, goal.name))))
        return outcome

    with cloud.locked(goal.vault):
        outcome = once()
    name = "key", key_in_vault(goal.vault, goal.name), goal.state, goal.version or ""
    of = partial(disabled.removed, goal)
    removal = Removal(name, goal.vault, cloud.keys, key_plan, of, goal.keeps_used, cloud.keys.confirm)
    earlier = None if goal.force else cloud.keys.removed_earlier(goal)
    confirmed: Outcome = cloud.confirmed(outcome, removal, later=later, earlier=earlier)
    return confirmed
