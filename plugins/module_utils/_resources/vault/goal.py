# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of azbatch.cmk.keyvault_cmk_vault, checked.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..._core.errors import Problems
from ..._core.ids import check_vault_name


@dataclass(frozen=True)
class Goal:
    group: str
    name: str
    location: str | None
    authorization: str | None
    sku: str
    retention_days: int
    recover: bool
    trusted_services: bool
    present: bool
    force: bool
    # In a deletion: the vault was deleted, and the second check requires that no account needs it (see usage.py).
    # In the rollback: the vault is recovered because an account needs it.
    taken_away: bool = False
    # Whether this task has created the vault. If another task or user created it at the same time, Batch accounts
    # may lack access.
    created: bool = False

    def described(self, _current: Mapping[str, Any]) -> str:
        """A sentence on the state after the rollback."""
        return (
            "Therefore the vault was recovered. The Batch accounts whose key is in the vault were granted access "
            "again. Other role assignments at the vault were deleted: assign these roles again."
        )


def desired(params: Mapping[str, Any]) -> Goal:
    retention, problems = params["retention_days"], Problems()
    if not 7 <= retention <= 90:
        problems.add("retention_days", retention, "Key Vault allows 7 to 90 days.", "Use 7 to 90.")
    name = problems.of(check_vault_name, params["name"], "name")
    problems.refuse()
    return Goal(
        group=params["resource_group"],
        name=name,
        location=params["location"],
        authorization=params["authorization"],
        sku=params["sku"],
        retention_days=retention,
        recover=params["recover"],
        trusted_services=params["trusted_services"],
        present=params["state"] == "present",
        force=params["force"],
    )
