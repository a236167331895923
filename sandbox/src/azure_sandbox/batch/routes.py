# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The operations of Microsoft.Batch."""

from __future__ import annotations

from ..shared.web import Route
from . import http

PROVIDER = "Microsoft.Batch"

API_VERSIONS = frozenset(
    {
        "2018-12-01",
        "2019-04-01",
        "2019-08-01",
        "2020-03-01",
        "2020-03-01-preview",
        "2020-05-01",
        "2020-09-01",
        "2021-01-01",
        "2021-06-01",
        "2022-01-01",
        "2022-06-01",
        "2022-10-01",
        "2023-05-01",
        "2023-11-01",
        "2024-02-01",
        "2024-07-01",
        "2025-06-01",
        "2026-08-01",
    }
)

_SUBSCRIPTION = "/subscriptions/{subscription}/providers/Microsoft.Batch"
_GROUP = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Batch"
_LOCATION = _SUBSCRIPTION + "/locations/{location}"
_ACCOUNT = _GROUP + "/batchAccounts/{account}"
_POOL = _ACCOUNT + "/pools/{name}"

_WRITE = "Microsoft.Batch/batchAccounts/write"
_DELETE = "Microsoft.Batch/batchAccounts/delete"
_READ_POOLS = "Microsoft.Batch/batchAccounts/pools/read"

ROUTES: tuple[Route, ...] = (
    # Whether the caller must be allowed to read all of them is a switch.
    Route("GET", _SUBSCRIPTION + "/batchAccounts", http.list_all_accounts),
    Route("GET", _GROUP + "/batchAccounts", http.list_accounts, http.READ),
    Route("PUT", _ACCOUNT, http.put, _WRITE),
    Route("GET", _ACCOUNT, http.get, http.READ),
    Route("PATCH", _ACCOUNT, http.patch, _WRITE),
    Route("DELETE", _ACCOUNT, http.delete, _DELETE),
    Route(
        "GET",
        _ACCOUNT + "/operationResults/{operation}",
        http.create_result,
        "Microsoft.Batch/batchAccounts/operationResults/read",
    ),
    Route(
        "GET",
        _LOCATION + "/accountOperationResults/{operation}",
        http.delete_result,
        "Microsoft.Batch/locations/accountOperationResults/read",
    ),
    Route("POST", _ACCOUNT + "/listKeys", http.list_keys, "Microsoft.Batch/batchAccounts/listkeys/action"),
    Route(
        "POST",
        _ACCOUNT + "/regenerateKeys",
        http.regenerate_keys,
        "Microsoft.Batch/batchAccounts/regeneratekeys/action",
    ),
    Route(
        "POST",
        _ACCOUNT + "/syncAutoStorageKeys",
        http.sync_auto_storage_keys,
        "Microsoft.Batch/batchAccounts/syncAutoStorageKeys/action",
    ),
    Route(
        "GET",
        _ACCOUNT + "/outboundNetworkDependenciesEndpoints",
        http.list_outbound_dependencies,
        "Microsoft.Batch/batchAccounts/outboundNetworkDependenciesEndpoints/read",
    ),
    Route(
        "POST",
        _LOCATION + "/checkNameAvailability",
        http.check_name,
        "Microsoft.Batch/locations/checkNameAvailability/action",
    ),
    Route("GET", _LOCATION + "/quotas", http.quotas, "Microsoft.Batch/locations/quotas/read"),
    Route("GET", _ACCOUNT + "/pools", http.list_pools, _READ_POOLS),
    Route("GET", _POOL, http.get_pool, _READ_POOLS),
    Route("PUT", _POOL, http.put_pool, "Microsoft.Batch/batchAccounts/pools/write"),
    Route("DELETE", _POOL, http.delete_pool, "Microsoft.Batch/batchAccounts/pools/delete"),
    Route(
        "GET",
        _ACCOUNT + "/poolOperationResults/{operation}",
        http.delete_pool_result,
        "Microsoft.Batch/batchAccounts/poolOperationResults/read",
    ),
)
