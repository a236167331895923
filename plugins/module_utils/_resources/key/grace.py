# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The grace period: the time for which a previous key or version stays enabled after accounts were moved from it.

Azure is eventually consistent, and other accounts may still be moved. A node of Batch may still use the previous
key or version.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..._core.documents import KeyBundle
from ..._core.duration import instant
from ..._core.errors import Refused
from ..._core.ids import KeyIdentifier
from .document import PREVIOUS_NEEDED_SECONDS, identifier_of
from .goal import Goal

# By account id, the seconds since the account was changed; None if the response has no time.
Ages = Mapping[str, "float | None"]


def kept_until(goal: Goal, observed: Mapping[str, Any], ages: Ages | None = None) -> float | None:
    """The end of the grace period, in seconds since 1970; None if the period has ended, or if there is none.

    `ages` are the ages of the accounts that may have been moved. Without them, the actual end may be later.
    """
    now, key = observed["now"], observed["key"]
    began = [now] if observed["moved_in_run"] else []
    if key is not None and goal.moved_to and identifier_of(key).same_key(goal.moved_to):
        began.append(key["attributes"]["created"])
    # If the time of an account's change is not known, the account may have been changed just now.
    began += [now - (age or 0) for age in (ages or {}).values()]
    # If no account uses the new key any more, it is not known when the accounts were moved.
    if goal.moved_to is not None and ages is not None and not began:
        began = [now]
    until = max(began, default=now - goal.grace_period) + goal.grace_period
    return until if until > now else None


def moved_to(goal: Goal, newest: KeyBundle | None) -> KeyIdentifier | None:
    """The key, without a version, that accounts may have been moved to from the key or version that is disabled. If the
    goal does not name it, accounts may have been moved from a version to another version of the same key."""
    if goal.moved_to is not None:
        return goal.moved_to.versionless
    if newest is None or goal.version is None or goal.state != "disabled":
        return None
    return identifier_of(newest).versionless


def subject(goal: Goal) -> str:
    return f"version {goal.version} of the key {goal.name}" if goal.version else f"the key {goal.name}"


def is_forced(goal: Goal) -> bool:
    """Whether `force` allows that accounts lose the version. If it is known which key accounts were moved to, only a
    shorter grace period allows that."""
    return goal.force and goal.moved_to is None


def cut_short(goal: Goal, observed: Mapping[str, Any]) -> tuple[str, ...]:
    """The warning that the key or version is disabled earlier than Batch may allow."""
    if goal.taken_away or (goal.grace_period >= PREVIOUS_NEEDED_SECONDS and not is_forced(goal)):
        return ()
    until = kept_until(replace(goal, grace_period=PREVIOUS_NEEDED_SECONDS), observed, observed["ages"])
    if until is None:
        return ()
    why = "force allows that accounts lose it" if is_forced(goal) else "the grace period is shorter than a day"
    return (f"Batch may need {subject(goal)} until {instant(until)}, but {why}.",)


def refused(goal: Goal, until: float) -> Refused:
    remedy = (
        f"Run the task again after that time. If {subject(goal)} is leaked, set grace_period: P0D. Accounts that still "
        "need it may then lose their key."
    )
    return Refused(
        f"Refused to disable {subject(goal)} before {instant(until)}. Accounts were changed, or moved to another "
        f"version or key, so recently that Batch may still need this one. {remedy}",
        code="in_grace_period",
        kept_until=instant(until),
        option="grace_period",
        remedy=remedy,
    )
