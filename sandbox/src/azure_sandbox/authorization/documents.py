# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Role assignments, role definitions, locks and policy assignments as JSON. Members of the first two are in Azure's
order, and their missing values are null."""

from __future__ import annotations

from typing import Any

from .governance import Lock
from .roles import Permission, RoleDefinition
from .rules import RoleAssignment

_PROVIDER = "/providers/Microsoft.Authorization"


# The first API version whose assignments have a condition, a description and a delegated identity.
_CONDITIONS_SINCE = "2020-04-01-preview"


def assignment(held: RoleAssignment, subscription: str, api_version: str) -> dict[str, Any]:
    """`subscription` is the subscription in the request, not the subscription of the assignment's scope."""
    properties = {
        "roleDefinitionId": role_id(held.role, subscription),
        "principalId": held.principal_id,
        "principalType": held.principal_type,
        "scope": held.scope,
        "condition": held.condition,
        "conditionVersion": held.condition_version,
        "createdOn": held.created_on,
        "updatedOn": held.updated_on,
        "createdBy": held.created_by,
        "updatedBy": held.updated_by,
        "delegatedManagedIdentityResourceId": held.delegated_identity,
        "description": held.description,
    }
    if api_version < _CONDITIONS_SINCE:
        for name in ("condition", "conditionVersion", "delegatedManagedIdentityResourceId", "description"):
            del properties[name]
    return {
        "properties": properties,
        "id": held.id,
        "type": "Microsoft.Authorization/roleAssignments",
        "name": held.guid,
    }


def lock(one: Lock) -> dict[str, Any]:
    return {
        "properties": {"level": one.level},
        "id": f"{one.scope}{_PROVIDER}/locks/{one.name}",
        "type": "Microsoft.Authorization/locks",
        "name": one.name,
    }


def role(definition: RoleDefinition, subscription: str) -> dict[str, Any]:
    return {
        "properties": {
            "roleName": definition.name,
            "type": definition.kind,
            "description": definition.description,
            "assignableScopes": list(definition.assignable_scopes),
            "permissions": [permission(one) for one in definition.permissions],
            "createdOn": definition.created_on,
            "updatedOn": definition.updated_on,
            "createdBy": definition.created_by,
            "updatedBy": definition.updated_by,
        },
        "id": role_id(definition.guid, subscription),
        "type": "Microsoft.Authorization/roleDefinitions",
        "name": definition.guid,
    }


def role_id(guid: str, subscription: str) -> str:
    prefix = f"/subscriptions/{subscription}" if subscription else ""
    return f"{prefix}{_PROVIDER}/roleDefinitions/{guid}"


def permission(granted: Permission) -> dict[str, list[str]]:
    return {
        "actions": list(granted.actions),
        "notActions": list(granted.not_actions),
        "dataActions": list(granted.data_actions),
        "notDataActions": list(granted.not_data_actions),
    }
