# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rights that this collection needs.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

READ_ACCOUNTS = "Microsoft.Batch/batchAccounts/read"
READ_PERMISSIONS = "Microsoft.Authorization/permissions/read"


# Permission of an access policy -> data action of a role, for what this collection does with keys.
_KEYS = "Microsoft.KeyVault/vaults/keys"
KEY_ACTIONS = {
    "get": f"{_KEYS}/read",
    "list": f"{_KEYS}/read",
    "create": f"{_KEYS}/create/action",
    "update": f"{_KEYS}/update/action",
    "delete": f"{_KEYS}/delete",
    "recover": f"{_KEYS}/recover/action",
    "getrotationpolicy": "Microsoft.KeyVault/vaults/keyrotationpolicies/read",
    "setrotationpolicy": "Microsoft.KeyVault/vaults/keyrotationpolicies/write",
}


@dataclass(frozen=True)
class Right:
    """A right that a write needs: an action at the resource id `scope`."""

    action: str
    scope: str


@dataclass(frozen=True)
class VaultRight:
    """A right at the vault of that name. With Azure RBAC it is `action`. With access policies
    it is the key permission `permission` of a policy, or else the action `policy_action`."""

    action: str
    vault: str
    permission: str | None = None
    policy_action: str | None = None
    # The resource group that the vault is to be made in, if it does not exist, and whether it will use Azure RBAC.
    group: str | None = None
    by_role: bool = True
    # The resource group that the vault is looked for in first.
    looked_for_in: str | None = None
    # Whether the caller has to see the vault.
    seen: bool = False


def is_in_no_policy(vault: Mapping[str, Any], permission: str) -> bool:
    """Whether no access policy of the vault has the key permission. An entry of another principal may be one of a group
    that the caller is in, which cannot be seen here."""
    entries = vault["properties"].get("accessPolicies", [])
    granted = (entry.get("permissions", {}).get("keys") or [] for entry in entries)
    lower = {name.lower() for names in granted for name in names}
    return not lower & {permission.lower(), "all"}


def lacking(action: str, scope: str) -> str:
    """A sentence on what the caller lacks."""
    return f"The caller lacks {action} at {scope}."
