# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The operations of Microsoft.Authorization."""

from __future__ import annotations

from ..shared.web import Route
from . import http

PROVIDER = "Microsoft.Authorization"

API_VERSIONS: frozenset[str] = frozenset(
    {
        "2015-07-01",
        "2017-10-01-preview",
        "2018-01-01-preview",
        "2018-07-01",
        "2018-09-01-preview",
        "2020-04-01-preview",
        "2020-08-01-preview",
        "2020-10-01-preview",
        "2022-04-01",
        "2022-05-01-preview",
    }
)

_HERE = "/providers/Microsoft.Authorization"
_ACTION = "Microsoft.Authorization/"


def _at(scope: str) -> tuple[Route, ...]:
    assignments, roles = scope + _HERE + "/roleAssignments", scope + _HERE + "/roleDefinitions"
    return (
        Route("GET", scope + _HERE + "/permissions", http.list_permissions, _ACTION + "permissions/read"),
        Route("GET", assignments, http.list_assignments, _ACTION + "roleAssignments/read"),
        Route("GET", assignments + "/{name}", http.get_assignment, _ACTION + "roleAssignments/read"),
        Route("PUT", assignments + "/{name}", http.put_assignment, _ACTION + "roleAssignments/write"),
        Route("DELETE", assignments + "/{name}", http.delete_assignment, _ACTION + "roleAssignments/delete"),
        Route("GET", roles, http.list_roles, _ACTION + "roleDefinitions/read"),
        Route("GET", roles + "/{name}", http.get_role, _ACTION + "roleDefinitions/read"),
        Route("PUT", roles + "/{name}", http.put_role, _ACTION + "roleDefinitions/write"),
        Route("DELETE", roles + "/{name}", http.delete_role, _ACTION + "roleDefinitions/delete"),
    )


# At any resource, group or subscription, and at the root above them all.
ROUTES: tuple[Route, ...] = (*_at("/{scope:path}"), *_at(""))
