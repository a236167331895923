# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans to make a version of a key usable again, to recover an account that uses it.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..._core.documents import KeyAttributes, KeyBundle
from ..._core.errors import NotFound
from ..._core.plan import Plan
from .document import describe
from .goal import Goal, key_not_found, key_soft_deleted
from .observed import Observed
from .present import repaired
from .writes import KeyWrites


def plan(goal: Goal, observed: Observed, _newest: Mapping[str, Any]) -> Plan[KeyWrites]:
    if observed["key"] is None:
        raise key_soft_deleted(goal) if observed["deleted"] else key_not_found(goal)
    version: KeyBundle | None = observed["named"] if goal.version else observed["key"]
    if version is None:
        raise NotFound(
            f"The key {goal.name} has no version {goal.version}. Only a backup of the key can restore a purged "
            "version. Correct version.",
            code="version_not_found",
            option="version",
            value=goal.version,
            remedy="Correct version, or restore a backup of the key.",
        )
    # The returned state is that of the named version, not of the newest version.
    before = describe({**observed, "key": version})
    steps, after = repaired(goal, version, before, _validity(goal, version["attributes"], observed["now"]))
    return Plan(goal, before, after, steps)


def _validity(goal: Goal, attributes: KeyAttributes, now: float) -> dict[str, int]:
    times = {}
    if attributes.get("exp") is not None and attributes["exp"] <= now and goal.extend_expired_by is not None:
        times["exp"] = int(now + goal.extend_expired_by)
    if attributes.get("nbf") is not None and attributes["nbf"] > now:
        times["nbf"] = int(now)
    return times
