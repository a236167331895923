# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rights that a write needs, and those that the caller lacks.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias


@dataclass(frozen=True)
class Right:
    """A right that a write needs: an action at the resource id `scope`. A scope from `rights.in_group` is in the task's
    own subscription."""

    action: str
    scope: str


@dataclass(frozen=True)
class VaultRight:
    """A right at the vault of this name. With Azure RBAC it is `action`. With access policies it is the key permission
    `permission` or, if that is not set, the action `policy_action`."""

    action: str
    vault: str
    permission: str | None = None
    policy_action: str | None = None
    # The resource group in which the vault is searched for first.
    looked_for_in: str | None = None
    # Whether the right is missing if the caller may not read the vault.
    reads_vault: bool = False


Needed: TypeAlias = "Right | VaultRight"


# By the begin of an action, Azure's built-in role that is sufficient, in the order in which they are searched.
_ROLES = (
    ("Microsoft.KeyVault/vaults/keys/read", "Key Vault Reader or Key Vault Crypto Officer"),
    ("Microsoft.KeyVault/vaults/key", "Key Vault Crypto Officer"),
    ("Microsoft.KeyVault/vaults/read", "Key Vault Reader"),
    ("Microsoft.KeyVault/", "Key Vault Contributor"),
    ("Microsoft.Authorization/roleAssignments/write", "Role Based Access Control Administrator"),
    ("Microsoft.Authorization/roleAssignments/delete", "Role Based Access Control Administrator"),
    ("Microsoft.ManagedIdentity/userAssignedIdentities/assign", "Managed Identity Operator"),
    ("Microsoft.Batch/", "Azure Batch Account Contributor"),
)


def grant(action: str) -> str:
    """How a caller gets the right: by a role or, for a permission of a key, by an access policy."""
    if not action.startswith("Microsoft."):
        return "Add it to the caller's access policy of the vault."
    if action.lower().endswith("/read") and not action.startswith("Microsoft.KeyVault/"):
        return "Assign Reader."
    found = (role for begin, role in _ROLES if action.lower().startswith(begin.lower()))
    return f"Assign {next(found, 'a role that allows it')}."


class Missing(NamedTuple):
    """The actions that the caller lacks with their scopes, and why vaults could not be found, which may be for a right
    too."""

    rights: Sequence[tuple[str, str]]
    hidden: Sequence[str]
