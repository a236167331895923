# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Role assignments, role definitions, locks and policy assignments over HTTP."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Protocol

from starlette.responses import Response

from ..shared import web
from ..shared.errors import resource_group_not_found
from ..shared.timing import iso
from ..shared.web import Route, answer
from . import documents, errors, filters, rules
from .governance import Governance
from .rules import Authorization, RoleAssignment, subscription_in, tidy_scope

# In the response to a creation or a change, Azure's createdOn is this much earlier than updatedOn.
_SEEMING_AGE = timedelta(seconds=0.8)


class World(rules.World, Protocol):
    authorization: Authorization
    governance: Governance


Call = web.Call[World]


def _scope(call: Call) -> str:
    return tidy_scope(call.path.get("scope", ""))


def _subscription(call: Call) -> str:
    return subscription_in(_scope(call))


def _by(call: Call) -> str:
    assert call.caller is not None
    return call.caller.object_id


def _properties(call: Call) -> dict[str, Any]:
    properties = call.json.get("properties") or {}
    if not isinstance(properties, dict):
        raise errors.invalid_request("The properties of the request are not an object.")
    return properties


def _check_group(call: Call) -> None:
    """Check that the resource group exists. The scope is one path parameter, so the frame has not checked this."""
    parts = _scope(call).split("/")
    named = len(parts) > 4 and parts[3].lower() == "resourcegroups"
    if named and call.world.resources.group(parts[2], parts[4]) is None:
        raise resource_group_not_found(parts[4])


# Assignments


def _document(call: Call, held: RoleAssignment) -> dict[str, Any]:
    return documents.assignment(held, _subscription(call), call.api_version)


def put_assignment(call: Call) -> Response:
    _check_group(call)
    held, is_written = call.world.authorization.put(_scope(call), call.path["name"], _properties(call), _by(call))
    document = _document(call, held)
    if not is_written:
        return answer(document)
    seeming = call.world.clock.now() - _SEEMING_AGE
    document["properties"].update(createdOn=iso(seeming), createdBy=None)
    return answer(document, 201)


def get_assignment(call: Call) -> Response:
    held = call.world.authorization.assignment(_scope(call), call.path["name"])
    return answer(_document(call, held))


def delete_assignment(call: Call) -> Response:
    gone = call.world.authorization.delete(_scope(call), call.path["name"])
    return answer(status=204) if gone is None else answer(_document(call, gone))


def list_assignments(call: Call) -> Response:
    """List the assignments at the scope and at scopes above it, and at scopes below it unless the filter is
    atScope()."""
    _check_group(call)
    wanted = filters.read(call.query("$filter"))
    held = call.world.authorization.assignments(
        _scope(call), below=not wanted.at_scope, principal_id=wanted.principal_id
    )
    return answer({"value": [_document(call, one) for one in held]})


# Definitions


def list_permissions(call: Call) -> Response:
    """The permissions of the caller's roles at the scope."""
    _check_group(call)
    assert call.caller is not None
    held = call.world.authorization.permissions(call.caller, _scope(call))
    return answer({"value": [documents.permission(one) for one in held]})


def put_role(call: Call) -> Response:
    role = call.world.authorization.put_role(call.path["name"], _properties(call), _by(call))
    return answer(documents.role(role, _subscription(call)), 201)


def get_role(call: Call) -> Response:
    role = call.world.authorization.role(call.path["name"])
    if role is None:
        raise errors.role_not_found(call.path["name"])
    return answer(documents.role(role, _subscription(call)))


def delete_role(call: Call) -> Response:
    gone = call.world.authorization.delete_role(call.path["name"])
    return answer(status=204) if gone is None else answer(documents.role(gone, _subscription(call)))


def list_roles(call: Call) -> Response:
    wanted = filters.read(call.query("$filter"))
    found = [role for role in call.world.authorization.roles(_scope(call)) if wanted.takes(role)]
    return answer({"value": [documents.role(role, _subscription(call)) for role in found]})


# Locks


def list_locks(call: Call) -> Response:
    """The locks of the resources at the scope and below."""
    return answer({"value": [documents.lock(one) for one in call.world.governance.locks(_scope(call))]})


def put_lock(call: Call) -> Response:
    _check_group(call)
    made = call.world.governance.put_lock(_scope(call), call.path["name"], _properties(call))
    return answer(documents.lock(made), 201)


def delete_lock(call: Call) -> Response:
    existed = call.world.governance.delete_lock(_scope(call), call.path["name"])
    return answer(status=200 if existed else 204)


PROVIDER = "Microsoft.Authorization"

API_VERSIONS: frozenset[str] = frozenset(
    {
        "2015-07-01",
        "2017-10-01-preview",
        "2018-01-01-preview",
        "2018-07-01",
        "2018-09-01-preview",
        "2020-04-01-preview",
        "2020-05-01",
        "2020-08-01-preview",
        "2020-10-01-preview",
        "2021-06-01",
        "2022-04-01",
        "2022-05-01-preview",
        "2022-06-01",
        "2022-07-01-preview",
    }
)

_HERE = "/providers/Microsoft.Authorization"
_ACTION = "Microsoft.Authorization/"


def _at(scope: str) -> tuple[Route, ...]:
    assignments, roles = scope + _HERE + "/roleAssignments", scope + _HERE + "/roleDefinitions"
    return (
        Route("GET", scope + _HERE + "/permissions", list_permissions, _ACTION + "permissions/read"),
        Route("GET", scope + _HERE + "/locks", list_locks, _ACTION + "locks/read"),
        Route("PUT", scope + _HERE + "/locks/{name}", put_lock, _ACTION + "locks/write"),
        Route("DELETE", scope + _HERE + "/locks/{name}", delete_lock, _ACTION + "locks/delete"),
        Route("GET", assignments, list_assignments, _ACTION + "roleAssignments/read"),
        Route("GET", assignments + "/{name}", get_assignment, _ACTION + "roleAssignments/read"),
        Route("PUT", assignments + "/{name}", put_assignment, _ACTION + "roleAssignments/write"),
        Route("DELETE", assignments + "/{name}", delete_assignment, _ACTION + "roleAssignments/delete"),
        Route("GET", roles, list_roles, _ACTION + "roleDefinitions/read"),
        Route("GET", roles + "/{name}", get_role, _ACTION + "roleDefinitions/read"),
        Route("PUT", roles + "/{name}", put_role, _ACTION + "roleDefinitions/write"),
        Route("DELETE", roles + "/{name}", delete_role, _ACTION + "roleDefinitions/delete"),
    )


# At any resource, resource group or subscription, and at the root scope.
ROUTES: tuple[Route, ...] = (*_at("/{scope:path}"), *_at(""))
