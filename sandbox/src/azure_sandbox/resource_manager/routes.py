# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The operations that Resource Manager answers itself: Microsoft.Resources, and a few without any provider."""

from __future__ import annotations

from ..shared.web import Route
from . import http

PROVIDER = "Microsoft.Resources"

API_VERSIONS = frozenset(
    {
        *("2014-04-01", "2015-01-01", "2015-11-01", "2016-02-01", "2016-06-01", "2016-07-01", "2016-09-01"),
        *("2017-03-01", "2017-05-01", "2017-05-10", "2017-06-01", "2017-08-01"),
        *("2018-01-01", "2018-02-01", "2018-05-01", "2018-07-01", "2018-08-01", "2018-09-01", "2018-11-01"),
        *("2019-03-01", "2019-05-01", "2019-05-10", "2019-06-01", "2019-07-01", "2019-08-01", "2019-09-01"),
        *("2019-10-01", "2019-11-01", "2020-01-01", "2020-05-01", "2020-06-01", "2020-08-01", "2020-09-01"),
        *("2020-10-01", "2021-01-01", "2021-04-01", "2021-10-01", "2022-01-01", "2022-05-01", "2022-09-01"),
        *("2022-12-01", "2023-07-01", "2024-03-01", "2024-07-01", "2024-11-01", "2025-03-01", "2025-04-01"),
    }
)

_SUBSCRIPTION = "/subscriptions/{subscription}"
_GROUPS = "Microsoft.Resources/subscriptions/resourceGroups"
_GROUP = f"{_SUBSCRIPTION}/resourceGroups/{{group}}"
_PROVIDER = f"{_SUBSCRIPTION}/providers/{{namespace}}"

ROUTES: tuple[Route, ...] = (
    Route("GET", "/tenants", http.list_tenants),
    Route("GET", "/subscriptions", http.list_subscriptions),
    Route("GET", _SUBSCRIPTION, http.get_subscription, http.READ_SUBSCRIPTION),
    Route("GET", f"{_SUBSCRIPTION}/locations", http.list_locations, "Microsoft.Resources/subscriptions/locations/read"),
    Route("GET", f"{_SUBSCRIPTION}/resourceGroups", http.list_groups),
    Route("GET", _GROUP, http.get_group, f"{_GROUPS}/read"),
    Route("HEAD", _GROUP, http.head_group, f"{_GROUPS}/read"),
    Route("PUT", _GROUP, http.put_group, f"{_GROUPS}/write"),
    Route("PATCH", _GROUP, http.patch_group, f"{_GROUPS}/write"),
    Route("DELETE", _GROUP, http.delete_group, f"{_GROUPS}/delete"),
    Route("GET", f"{_GROUP}/resources", http.list_group_resources),
    Route("GET", f"{_SUBSCRIPTION}/resources", http.list_resources),
    Route("GET", f"{_SUBSCRIPTION}/providers", http.list_providers, "Microsoft.Resources/providers/read"),
    Route("GET", _PROVIDER, http.get_provider, "Microsoft.Resources/providers/read"),
    Route("POST", f"{_PROVIDER}/register", http.register_provider, "Microsoft.Resources/providers/register/action"),
    Route(
        "POST", f"{_PROVIDER}/unregister", http.unregister_provider, "Microsoft.Resources/providers/unregister/action"
    ),
    Route("GET", f"{_SUBSCRIPTION}/operationresults/{{operation}}", http.operation_result),
)

# Open to everybody, token or not.
PUBLIC_ROUTES: tuple[Route, ...] = (Route("GET", "/metadata/endpoints", http.endpoints),)
