# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Errors of Microsoft.Authorization."""

from __future__ import annotations

from ..shared.web import AzureError


def _error(status: int, code: str, message: str) -> AzureError:
    return AzureError(status, {"error": {"code": code, "message": message}})


def _dashless(guid: str) -> str:
    return guid.replace("-", "").lower()


def principal_not_found(principal_id: str, tenant_id: str) -> AzureError:
    # Two blanks before "See", as Azure writes it.
    return _error(
        400,
        "PrincipalNotFound",
        f"Principal {_dashless(principal_id)} does not exist in the directory {tenant_id}. Check that you have the"
        " correct principal ID. If you are creating this principal and then immediately assigning a role, this error"
        " might be related to a replication delay. In this case, set the role assignment principalType property to a"
        " value, such as ServicePrincipal, User, or Group.  See https://aka.ms/docs-principaltype",
    )


def assignment_exists(guid: str) -> AzureError:
    return _error(
        409,
        "RoleAssignmentExists",
        f"The role assignment already exists. The ID of the existing role assignment is {_dashless(guid)}.",
    )


def update_not_permitted() -> AzureError:
    return _error(
        400,
        "RoleAssignmentUpdateNotPermitted",
        "Tenant ID, application ID, principal ID, and scope are not allowed to be updated.",
    )


def assignment_not_found(guid: str) -> AzureError:
    return _error(404, "RoleAssignmentNotFound", f"The role assignment '{guid}' is not found.")


def invalid_assignment_id(name: str) -> AzureError:
    return _error(
        400,
        "InvalidRoleAssignmentId",
        f"The role assignment ID '{name}' is not valid. The role assignment ID must be a GUID.",
    )


def invalid_request(what: str) -> AzureError:
    return _error(400, "InvalidCreateRoleAssignmentRequest", what)


def role_does_not_exist(guid: str) -> AzureError:
    return _error(
        400,
        "RoleDefinitionDoesNotExist",
        f"The specified role definition with ID '{_dashless(guid)}' does not exist.",
    )


def role_not_found(guid: str) -> AzureError:
    return _error(404, "RoleDefinitionNotFound", f"The role definition with ID '{_dashless(guid)}' is not found.")


def invalid_role(what: str) -> AzureError:
    return _error(400, "InvalidRoleDefinition", what)


def role_name_taken(name: str) -> AzureError:
    return _error(409, "RoleDefinitionWithSameNameExists", f"A custom role with the same name '{name}' already exists.")


def built_in_role(guid: str) -> AzureError:
    return _error(
        400, "RoleDefinitionUpdateNotPermitted", f"The built-in role definition '{_dashless(guid)}' cannot be changed."
    )


def role_has_assignments() -> AzureError:
    return _error(
        400, "RoleDefinitionHasAssignments", "There are existing role assignments referencing role definition."
    )


def unsupported_filter(text: str) -> AzureError:
    return _error(400, "UnsupportedQuery", f"The filter '{text}' is not supported.")
