# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The permissions that access policies and role assignments grant.

This module util is private to the collection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, NotRequired, TypedDict

from .._core.ids import role_guid, within
from .._core.summary import and_text
from . import vault as vault_document
from .vault import AccessPolicy, Vault

# The built-in role that this collection assigns, Key Vault Crypto Service Encryption User.
ENCRYPTION_USER = "e147488a-f6f5-4113-8e2d-b22465e65bf6"
# Permission of an access policy -> data action of a role, for the three permissions that Batch needs.
NEEDED = {
    "get": "Microsoft.KeyVault/vaults/keys/read",
    "wrapKey": "Microsoft.KeyVault/vaults/keys/wrap/action",
    "unwrapKey": "Microsoft.KeyVault/vaults/keys/unwrap/action",
}
# The maximum time until Batch can use a key after a role assignment (Microsoft's documentation of Azure RBAC).
ROLE_SECONDS = 600
# A built-in role of Azure. Its permissions are the same everywhere, so its definition is not read.
KNOWN_ROLES: dict[str, RoleDefinitionProperties] = {
    ENCRYPTION_USER: {"permissions": [{"dataActions": list(NEEDED.values())}]}
}


class Permission(TypedDict, total=False):
    """The permissions of a role definition, or of the caller at a scope."""

    actions: list[str] | None
    notActions: list[str] | None
    dataActions: list[str] | None
    notDataActions: list[str] | None


class RoleAssignmentProperties(TypedDict):
    scope: str
    roleDefinitionId: str
    principalId: str
    principalType: NotRequired[str]
    createdOn: NotRequired[str]


class RoleAssignment(TypedDict):
    id: str
    properties: RoleAssignmentProperties


class RoleDefinitionProperties(TypedDict, total=False):
    permissions: list[Permission]


class RoleDefinition(TypedDict):
    # A GUID.
    name: str
    properties: RoleDefinitionProperties


def summary(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """One line for a person. `before` and `after` are return values of the module."""
    vault, _keys, key = after["scope"].rpartition("/vaults/")[2].partition("/keys/")
    where = f"key {key} in vault {vault}" if key else f"the keys in vault {vault}"
    previous = "" if before == after else f" (before: {_granted_text(before)})"
    at = "on" if after["granted"] else "to"
    return f"The principal {after['principal_id']} has {_granted_text(after)} {at} {where}{previous}."


def _granted_text(described: Mapping[str, Any]) -> str:
    return and_text(described["granted"]) if described["granted"] else "no access"


def granted(
    vault: Vault,
    principal: str,
    key_name: str | None,
    assignments: Iterable[RoleAssignment],
    definitions: Mapping[str, RoleDefinitionProperties],
) -> set[str]:
    """The needed permissions that the principal has, according to the permission model of the vault."""
    if vault_document.authorization_of(vault) == vault_document.ACCESS_POLICY:
        return needed_among(key_permissions(policy_of(vault, principal)))
    scope = scope_of(vault, key_name)
    reaching = [a["properties"] for a in assignments if within(a["properties"]["scope"], scope)]
    known = {**definitions, **KNOWN_ROLES}
    # A role whose definition is not known grants nothing that is known.
    roles = [known.get(role_guid(properties["roleDefinitionId"]), {}) for properties in reaching]
    permissions = [permission for role in roles for permission in role.get("permissions", [])]
    return {name for name, action in NEEDED.items() if allows(permissions, action, data=True)}


def scope_of(vault: Vault, key_name: str | None) -> str:
    return f"{vault['id']}/keys/{key_name}" if key_name else str(vault["id"])


def needed_among(permissions: Iterable[str]) -> set[str]:
    lower = {permission.lower() for permission in permissions}
    return {name for name in NEEDED if name.lower() in lower or "all" in lower}


def policy_of(vault: Vault, principal: str) -> AccessPolicy:
    """The access policy of the principal. An entry with an applicationId does not count, because it is for an
    application that acts on behalf of the principal."""
    entries = vault["properties"].get("accessPolicies", [])
    own = (e for e in entries if e["objectId"].lower() == principal.lower() and not e.get("applicationId"))
    nothing: AccessPolicy = {}
    return next(own, nothing)


def key_permissions(policy: AccessPolicy) -> list[str]:
    return list(policy.get("permissions", {}).get("keys") or [])


def by_principal(assignments: Iterable[RoleAssignment]) -> dict[str, list[RoleAssignment]]:
    """The assignments of each principal, by its object id in lower case."""
    found: dict[str, list[RoleAssignment]] = {}
    for assignment in assignments:
        found.setdefault(assignment["properties"]["principalId"].lower(), []).append(assignment)
    return found


def encryption_users(assignments: Iterable[RoleAssignment]) -> list[RoleAssignment]:
    """Those of ENCRYPTION_USER. Other roles are left out."""
    return [one for one in assignments if role_guid(one["properties"]["roleDefinitionId"]) == ENCRYPTION_USER]


def roles_in(assignments: Iterable[RoleAssignment]) -> list[str]:
    """The GUIDs of the assigned roles whose definitions have to be read."""
    assigned = {role_guid(assignment["properties"]["roleDefinitionId"]) for assignment in assignments}
    return sorted(assigned - KNOWN_ROLES.keys())


def allows(permissions: Iterable[Permission], action: str, *, data: bool = False) -> bool:
    """Whether one of the permissions of Azure RBAC allows the action. With `data`, the action is a data action."""
    if data:
        parts = ((one.get("dataActions"), one.get("notDataActions")) for one in permissions)
    else:
        parts = ((one.get("actions"), one.get("notActions")) for one in permissions)
    return any(_matches(granted, action) and not _matches(excepted, action) for granted, excepted in parts)


def allows_all_reads(permissions: Iterable[Permission]) -> bool:
    """Whether one of the permissions allows to read every resource."""
    return any(
        _matches(one.get("actions"), "Any.Provider/anything/read")
        and not any(excepted.lower().endswith(("*", "/read")) for excepted in one.get("notActions") or ())
        for one in permissions
    )


def _matches(patterns: Iterable[str] | None, action: str) -> bool:
    return any(_pattern(pattern).fullmatch(action) for pattern in patterns or ())


@cache
def _pattern(wildcard: str) -> re.Pattern[str]:
    """A pattern in which `*` matches any text. `vaults/*/read` also matches `vaults/read`: Key Vault Reader has
    only the first action and may read vaults."""
    text = ".*".join(re.escape(part) for part in wildcard.split("*"))
    return re.compile(text.replace("/.*/", "/(?:.*/)?"), re.IGNORECASE)
