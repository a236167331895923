# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The operations of Microsoft.KeyVault."""

from __future__ import annotations

from ..shared.web import Route
from . import http

PROVIDER = "Microsoft.KeyVault"

API_VERSIONS = frozenset(
    {
        "2021-10-01",
        "2021-11-01-preview",
        "2022-02-01-preview",
        "2022-07-01",
        "2022-11-01",
        "2023-02-01",
        "2023-07-01",
        "2024-04-01-preview",
        "2024-11-01",
        "2024-12-01-preview",
        "2025-05-01",
        "2026-02-01",
        "2026-05-15",
    }
)

_SUBSCRIPTION = "/subscriptions/{subscription}/providers/Microsoft.KeyVault"
_GROUP = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.KeyVault"
_VAULTS = _GROUP + "/vaults"
_VAULT = _VAULTS + "/{vault}"
_LOCATION = _SUBSCRIPTION + "/locations/{location}"
_DELETED = _LOCATION + "/deletedVaults/{vault}"

_WRITE = "Microsoft.KeyVault/vaults/write"
_READ = "Microsoft.KeyVault/vaults/read"
_READ_HSMS = "Microsoft.KeyVault/managedHSMs/read"

ROUTES: tuple[Route, ...] = (
    Route("PUT", _VAULT, http.put, _WRITE),
    Route("GET", _VAULT, http.get, _READ),
    Route("PATCH", _VAULT, http.patch, _WRITE),
    Route("DELETE", _VAULT, http.delete, "Microsoft.KeyVault/vaults/delete"),
    Route("GET", _VAULTS, http.list_in_group, _READ),
    Route("GET", _SUBSCRIPTION + "/vaults", http.list_in_subscription, _READ),
    Route(
        "PUT",
        _VAULT + "/accessPolicies/{operation}",
        http.put_access_policies,
        "Microsoft.KeyVault/vaults/accessPolicies/write",
    ),
    Route("GET", _SUBSCRIPTION + "/deletedVaults", http.list_deleted, "Microsoft.KeyVault/deletedVaults/read"),
    Route("GET", _DELETED, http.get_deleted, "Microsoft.KeyVault/locations/deletedVaults/read"),
    Route("POST", _DELETED + "/purge", http.purge, "Microsoft.KeyVault/locations/deletedVaults/purge/action"),
    Route(
        "GET",
        _LOCATION + "/operationResults/{name}",
        http.get_operation,
        "Microsoft.KeyVault/locations/operationResults/read",
    ),
    Route(
        "POST",
        _SUBSCRIPTION + "/checkNameAvailability",
        http.check_name,
        "Microsoft.KeyVault/checkNameAvailability/read",
    ),
    Route("GET", _SUBSCRIPTION + "/managedHSMs", http.list_no_hsms, _READ_HSMS),
    Route("GET", _GROUP + "/managedHSMs", http.list_no_hsms, _READ_HSMS),
    Route(
        "GET",
        _SUBSCRIPTION + "/deletedManagedHSMs",
        http.list_no_hsms,
        "Microsoft.KeyVault/deletedManagedHsms/read",
    ),
)
