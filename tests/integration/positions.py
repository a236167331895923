# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Single switches of the sandbox in other positions than in most tests, for tests of faults and of concurrent runs."""

from __future__ import annotations

from service import USED

from azure_sandbox.shared.behavior import POSITIONS

# Locks and denials make nearly every job fail: test_locked. The versions that an account needs depend on hours, and
# the jobs here disable unused versions at once: test_previous_version.
_NOT_HERE = ("resource_lock", "policy_denial", "follower_delay", "previous_version_needed")
_OTHERS = [
    {name: position}
    for name, positions in POSITIONS.items()
    if name not in _NOT_HERE
    for position in positions
    if position != USED.get(name, positions[0])
]
# After this time, in seconds, reads show all writes, role assignments are in effect, Batch has noticed a loss, and a
# repaired account is available.
SETTLED = 3600 + 1800


def position(number: int) -> dict[str, str]:
    """For odd numbers, the next switch in another position. For even numbers, all switches are in the position that
    most tests use."""
    return _OTHERS[number // 2 % len(_OTHERS)] if number % 2 else {}
