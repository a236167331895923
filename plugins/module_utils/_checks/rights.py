# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rights that this collection needs.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._core.rights import Needed, Right, VaultRight
from .._documents.account import POOLS_READ
from .._documents.vault import Vault

READ_ACCOUNTS = "Microsoft.Batch/batchAccounts/read"
READ_PERMISSIONS = "Microsoft.Authorization/permissions/read"
VAULTS = "Microsoft.KeyVault/vaults"
READ_DELETED_VAULTS = "Microsoft.KeyVault/deletedVaults/read"
_ACCOUNTS = "Microsoft.Batch/batchAccounts"
_ASSIGNMENTS = "Microsoft.Authorization/roleAssignments"
_IDENTITIES = "Microsoft.ManagedIdentity/userAssignedIdentities"

# Permission of an access policy -> data action of a role, for the operations on keys that this collection uses.
_KEYS = f"{VAULTS}/keys"
KEY_ACTIONS = {
    "get": f"{_KEYS}/read",
    "list": f"{_KEYS}/read",
    "create": f"{_KEYS}/create/action",
    "update": f"{_KEYS}/update/action",
    "delete": f"{_KEYS}/delete",
    "recover": f"{_KEYS}/recover/action",
    "getrotationpolicy": f"{VAULTS}/keyrotationpolicies/read",
    "setrotationpolicy": f"{VAULTS}/keyrotationpolicies/write",
}


def in_group(group: str, resource: str | None = None) -> str:
    """The scope of a resource group, or of a resource (`TYPE/NAME`) in it."""
    return f"/resourceGroups/{group}{f'/providers/{resource}' if resource else ''}"


def to_create_account(group: str) -> tuple[Needed, ...]:
    # The long-running creation is polled.
    actions = f"{_ACCOUNTS}/write", f"{_ACCOUNTS}/operationResults/read"
    return tuple(Right(action, in_group(group)) for action in actions)


def to_confirm_creation(group: str) -> Right:
    """The right to list the pools of a new account, which confirms that the account can use its key."""
    return Right(POOLS_READ, in_group(group))


def to_change_account(group: str, name: str) -> Right:
    return Right(f"{_ACCOUNTS}/write", in_group(group, f"{_ACCOUNTS}/{name}"))


def to_delete_account(group: str, name: str) -> Right:
    return Right(f"{_ACCOUNTS}/delete", in_group(group, f"{_ACCOUNTS}/{name}"))


def to_assign_identities(body: Mapping[str, Any]) -> tuple[Needed, ...]:
    """The rights for the user-assigned identities in the body of a request that writes an account."""
    # The principal of the identity is read, because access is granted to it.
    actions = f"{_IDENTITIES}/assign/action", f"{_IDENTITIES}/read"
    assigned = body.get("identity", {}).get("userAssignedIdentities", {})
    return tuple(Right(action, identity) for identity in assigned for action in actions)


def to_set_encryption(group: str, name: str) -> tuple[Needed, ...]:
    # The list of pools confirms the change.
    return to_change_account(group, name), Right(POOLS_READ, in_group(group, f"{_ACCOUNTS}/{name}"))


def to_see_access(vault: str, vault_group: str | None) -> VaultRight:
    """The right to read the access to a key, which confirms a change to the key."""
    return VaultRight(
        f"{_ASSIGNMENTS}/read", vault, policy_action=f"{VAULTS}/read", looked_for_in=vault_group, reads_vault=True
    )


def to_create_vault(group: str) -> Right:
    return Right(f"{VAULTS}/write", in_group(group))


def to_change_vault(group: str, name: str) -> Right:
    return Right(f"{VAULTS}/write", in_group(group, f"{VAULTS}/{name}"))


def to_change_policies(vault_id: str) -> Right:
    return Right(f"{VAULTS}/accessPolicies/write", vault_id)


def to_assign_role(scope: str) -> Right:
    return Right(f"{_ASSIGNMENTS}/write", scope)


def to_unassign_role(assignment_id: str) -> Right:
    return Right(f"{_ASSIGNMENTS}/delete", assignment_id.rpartition(f"/providers/{_ASSIGNMENTS}/")[0])


def to_use_key(permission: str, vault: str) -> VaultRight:
    return VaultRight(KEY_ACTIONS[permission], vault, permission)


def is_in_no_policy(vault: Vault, permission: str) -> bool:
    """Whether no access policy of the vault has the key permission. The entries of all principals count, because
    the caller may be a member of a group that has an entry."""
    entries = vault["properties"].get("accessPolicies", [])
    granted = (entry.get("permissions", {}).get("keys") or [] for entry in entries)
    lower = {name.lower() for names in granted for name in names}
    return not lower & {permission.lower(), "all"}
