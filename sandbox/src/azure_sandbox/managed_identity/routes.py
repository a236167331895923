# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The operations of Microsoft.ManagedIdentity."""

from __future__ import annotations

from ..shared.web import Route
from . import http

PROVIDER = "Microsoft.ManagedIdentity"

API_VERSIONS: frozenset[str] = frozenset(
    {
        "2018-11-30",
        "2021-09-30-preview",
        "2022-01-31-preview",
        "2023-01-31",
        "2023-07-31-preview",
        "2024-11-30",
        "2025-01-31-preview",
        "2025-05-31-preview",
        "2026-04-30",
        "2026-05-31",
    }
)

_LIST = "/providers/Microsoft.ManagedIdentity/userAssignedIdentities"
_GROUP = "/subscriptions/{subscription}/resourceGroups/{group}" + _LIST
_IDENTITY = _GROUP + "/{identity}"
_ACTION = "Microsoft.ManagedIdentity/userAssignedIdentities/"

ROUTES: tuple[Route, ...] = (
    Route("GET", "/subscriptions/{subscription}" + _LIST, http.list_identities, _ACTION + "read"),
    Route("GET", _GROUP, http.list_identities, _ACTION + "read"),
    Route("PUT", _IDENTITY, http.put, _ACTION + "write"),
    Route("GET", _IDENTITY, http.get, _ACTION + "read"),
    Route("PATCH", _IDENTITY, http.patch, _ACTION + "write"),
    Route("DELETE", _IDENTITY, http.delete, _ACTION + "delete"),
)
