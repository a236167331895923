# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Resource locks and Azure policies, which the switches `resource_lock` and `policy_denial` set."""

from __future__ import annotations

import re

from ..shared import errors, locks
from ..shared.web import Call
from ..shared.world import World

_RESOURCES = {
    position: re.compile(f".*/providers/{re.escape(kind)}/[^/]+", re.IGNORECASE)
    for position, kind in locks.TYPES.items()
}
_WRITES = ("PUT", "PATCH", "DELETE", "POST")


def check(call: Call[World], path: str) -> None:
    """Check a request, which may be for a child resource, against locks and policies. Raises AzureError."""
    method, behavior = call.request.method, call.world.behavior
    if method not in _WRITES:
        return
    if behavior.resource_lock == "deletions":
        locked = _resource(path, *_RESOURCES) if method == "DELETE" else ""
    else:
        locked = _resource(path, behavior.resource_lock)
    if locked:
        raise errors.scope_locked(path, "delete" if method == "DELETE" else "write", locked)
    # A role assignment is a separate resource, which the denial does not cover.
    is_changed = method in ("PUT", "PATCH") and "/roleassignments/" not in path.lower()
    if is_changed and (denied := _resource(path, behavior.policy_denial)):
        raise errors.disallowed_by_policy(denied.rpartition("/")[2])


def _resource(path: str, *positions: str) -> str:
    """The id of the account or vault in a path; empty if the path has none of the kinds in `positions`."""
    for position in positions:
        found = _RESOURCES[position].match(path) if position in _RESOURCES else None
        if found:
            return found[0]
    return ""
