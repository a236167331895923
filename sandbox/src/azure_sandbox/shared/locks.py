# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The resource locks that the switch `resource_lock` sets."""

from __future__ import annotations

READ_ONLY, CAN_NOT_DELETE = "ReadOnly", "CanNotDelete"
# Position of the switch, or of a policy -> type of the resources.
TYPES = {"accounts": "Microsoft.Batch/batchAccounts", "vaults": "Microsoft.KeyVault/vaults"}


def level(position: str, resource_type: str) -> str | None:
    """The level of the lock that each resource of the type has; None if it has no lock."""
    if position == "deletions":
        return CAN_NOT_DELETE if resource_type in TYPES.values() else None
    return READ_ONLY if TYPES.get(position) == resource_type else None
