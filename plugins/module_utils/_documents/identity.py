# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Managed identities: those of an account or another resource, and the resource of a user-assigned identity.

This module util is private to the collection.
"""

from __future__ import annotations

from typing import Any, TypedDict

from .._core.errors import CmkError

# The type of an account's identity if it is not known which one a write of the run has given it.
UNKNOWN_IDENTITY = "Unknown"
SYSTEM_ASSIGNED = "system_assigned"
USER_ASSIGNED = "user_assigned"
TYPES = {SYSTEM_ASSIGNED: "SystemAssigned", USER_ASSIGNED: "UserAssigned"}
_OPTIONS = {azure: option for option, azure in TYPES.items()} | {"None": "none"}


class AssignedIdentity(TypedDict, total=False):
    """A user-assigned identity of an account; without fields in a request."""

    principalId: str
    clientId: str


class Identity(TypedDict, total=False):
    """The identities of an account. It has a principal and a tenant only if one identity is system-assigned."""

    type: str
    principalId: str
    tenantId: str
    # By their resource ids.
    userAssignedIdentities: dict[str, AssignedIdentity]


class ManagedIdentityProperties(TypedDict):
    principalId: str
    tenantId: str


class ManagedIdentity(TypedDict):
    """A user-assigned identity as a resource."""

    id: str
    properties: ManagedIdentityProperties


def principals_of(identity: Identity) -> tuple[str, ...]:
    """The object ids of an account's identities.

    No field shows which of several user-assigned identities Batch uses for the key, so all of them are returned.
    """
    assigned = [value.get("principalId") for value in identity.get("userAssignedIdentities", {}).values()]
    return tuple(filter(None, [identity.get("principalId"), *assigned]))


def describe_identity(identity: Identity) -> dict[str, Any]:
    assigned = identity.get("userAssignedIdentities", {})
    return {
        "type": _OPTIONS.get(identity.get("type", "None"), identity.get("type")),
        "principal_id": identity.get("principalId"),
        "tenant_id": identity.get("tenantId"),
        "user_assigned_identities": {
            name: {"principal_id": value.get("principalId"), "client_id": value.get("clientId")}
            for name, value in assigned.items()
        },
    }


def is_gone(assigned: AssignedIdentity, principal_id: str | CmkError | None) -> bool:
    """Whether a user-assigned identity of an account was deleted. `principal_id` is the current object id of the
    identity of this name. If it differs, the identity was created again. Such an identity is another principal,
    which the account does not have."""
    if isinstance(principal_id, CmkError):
        return False
    return principal_id is None or principal_id.lower() != assigned.get("principalId", principal_id).lower()
