# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Recovers a deleted key, and then brings the key to the state of the goal.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..._core.documents import KeyBundle
from ..._core.plan import Outcome, Plan, Step, step
from .document import version_of
from .goal import Goal, key_not_found
from .observed import Observed
from .writes import KeyWrites


def plan_recovered(goal: Goal, observed: Observed, before: Mapping[str, Any]) -> Plan[KeyWrites]:
    if observed["key"] is not None:
        return Plan(goal, before, before)
    deleted: KeyBundle | None = observed["deleted"]
    if deleted is None:
        raise key_not_found(goal)
    steps = [step(KeyWrites.recover, vault=goal.vault, name=goal.name)]
    if goal.taken_away is None:
        steps.append(_touch(goal, deleted))
    return Plan(goal, before, {"exists": True, "soft_deleted": False}, tuple(steps))


def _touch(goal: Goal, deleted: KeyBundle) -> Step[KeyWrites]:
    """Update the newest version without a change. Azure does not show when a key was recovered, but it shows when a
    version was updated: since when Batch can use the newest version, and accounts can be moved to it."""
    body = {"attributes": {"enabled": deleted["attributes"]["enabled"]}}
    return step(KeyWrites.update, vault=goal.vault, name=goal.name, version=version_of(deleted["key"]), body=body)


def recovered_first(goal: Goal, ensure: Callable[[Goal], Outcome]) -> Outcome:
    """The outcome of `ensure`. If the first call has recovered the key, `ensure` is called again: Azure shows only
    after the recovery what else has to change, such as a disabled version."""
    outcome = ensure(goal)
    was_recovered = goal.recover and outcome.before.get("soft_deleted", False) and outcome.after["exists"]
    if not was_recovered:
        return outcome
    ready = ensure(goal)
    return Outcome(True, outcome.before, ready.after, (*outcome.warnings, *ready.warnings), ready.report)
