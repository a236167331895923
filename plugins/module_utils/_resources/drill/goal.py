# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The goal of azbatch.cmk.batch_encryption_drill.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..._checks.usage import ANY
from ..._core.errors import Problems
from ..._core.ids import check_account_name, check_subscriptions


@dataclass(frozen=True)
class DrillGoal:
    group: str
    name: str
    # lost, recovered or ended
    state: str
    kind: str
    # The services that use the vault (usage.py).
    vault_used_by: str = ANY


def desired(params: Mapping[str, Any]) -> DrillGoal:
    name, problems = params["account_name"], Problems()
    problems.of(check_account_name, name, "account_name")
    problems.of(check_subscriptions, params["users_in"], "users_in")
    if params["state"] == "lost":
        for option in ("canary", "kind"):
            if not params[option]:
                problems.add(option, None, "O(state=lost) requires it.", f"Set O({option}).")
        if params["canary"] and params["canary"].lower() != name.lower():
            problems.add(
                "canary",
                params["canary"],
                f"O(account_name) is {name!r}, and a drill makes the account unavailable.",
                f"If {name} may be unavailable, repeat its name in O(canary).",
            )
    problems.refuse()
    return DrillGoal(params["resource_group"], name, params["state"], params["kind"] or "", params["vault_used_by"])
