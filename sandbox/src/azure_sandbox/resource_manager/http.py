# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Subscriptions, resource groups, providers and lists of resources over HTTP."""

from __future__ import annotations

import re
from typing import Any, Protocol

from starlette.responses import Response

from ..authorization.governance import Governance
from ..authorization.rules import Authorization
from ..shared import clouds, errors, web
from ..shared import world as shared
from ..shared.operations import Operation
from ..shared.paging import page
from ..shared.resource import REGIONS, read_tags
from ..shared.web import Route, answer
from .providers import PROVIDERS, Provider
from .rules import NOT_REGISTERED, REGISTERED, Resource, ResourceGroup, Resources, Subscription

READ_GROUPS = "Microsoft.Resources/subscriptions/resourceGroups/read"
READ_SUBSCRIPTION = "Microsoft.Resources/subscriptions/read"


class World(shared.World, Protocol):
    authorization: Authorization
    governance: Governance
    resources: Resources


Call = web.Call[World]


def _may(call: Call, action: str, scope: str) -> bool:
    assert call.caller is not None
    return call.world.authorization.allows(call.caller, action, scope)


def _subscription(call: Call) -> Subscription:
    subscription = call.world.resources.subscription(call.path["subscription"])
    if subscription is None:
        raise errors.subscription_not_found(call.path["subscription"])
    return subscription


def _group(call: Call) -> ResourceGroup:
    group = call.world.resources.group(call.path["subscription"], call.path["group"])
    if group is None:
        raise errors.resource_group_not_found(call.path["group"])
    return group


# Tenants and subscriptions


def list_tenants(call: Call) -> Response:
    assert call.caller is not None
    tenant = call.caller.tenant_id
    return answer({"value": [{"id": f"/tenants/{tenant}", "tenantId": tenant, "tenantCategory": "Home"}]})


def _subscription_document(subscription: Subscription) -> dict[str, Any]:
    return {
        "id": f"/subscriptions/{subscription.id}",
        "authorizationSource": "RoleBased",
        "managedByTenants": [],
        "subscriptionId": subscription.id,
        "tenantId": subscription.tenant_id,
        "displayName": subscription.display_name,
        "state": subscription.state,
        "subscriptionPolicies": {
            "locationPlacementId": "Public_2014-09-01",
            "quotaId": "PayAsYouGo_2014-09-01",
            "spendingLimit": "Off",
        },
    }


def list_subscriptions(call: Call) -> Response:
    """List the subscriptions of the caller (switch `listed_subscriptions`)."""
    caller, for_any_role = call.caller, call.world.behavior.listed_subscriptions == "any_role"
    assert caller is not None

    def is_listed(subscription: Subscription) -> bool:
        scope = f"/subscriptions/{subscription.id}"
        reaches = for_any_role and call.world.authorization.reaches(caller, scope)
        return reaches or _may(call, READ_SUBSCRIPTION, scope)

    listed = [one for one in call.world.resources.subscriptions() if is_listed(one)]
    return answer(
        {
            "value": [_subscription_document(subscription) for subscription in listed],
            "count": {"type": "Total", "value": len(listed)},
        }
    )


def get_subscription(call: Call) -> Response:
    return answer(_subscription_document(_subscription(call)))


def list_locations(call: Call) -> Response:
    base = f"/subscriptions/{_subscription(call).id}/locations"
    return answer(
        {
            "value": [
                {"id": f"{base}/{name}", "name": name, "type": "Region", "displayName": name, "metadata": {}}
                for name in REGIONS
            ]
        }
    )


# Resource groups


def _group_document(group: ResourceGroup, state: str = "Succeeded") -> dict[str, Any]:
    return {
        "id": group.id,
        "name": group.name,
        "type": "Microsoft.Resources/resourceGroups",
        "location": group.location,
        **({"tags": group.tags} if group.tags else {}),
        "properties": {"provisioningState": state},
    }


def list_groups(call: Call) -> Response:
    groups = call.world.resources.groups(_subscription(call))
    return answer(page(call, [group for group in groups if _may(call, READ_GROUPS, group.id)], _group_document))


def get_group(call: Call) -> Response:
    return answer(_group_document(_group(call)))


def _tags(call: Call) -> dict[str, str]:
    return read_tags(call.json.get("tags"))


def head_group(call: Call) -> Response:
    found = call.world.resources.group(call.path["subscription"], call.path["group"]) is not None
    return answer(status=204 if found else 404)


def put_group(call: Call) -> Response:
    location = call.json.get("location")
    if not location or not isinstance(location, str):
        raise errors.location_required()
    group, new = call.world.resources.put_group(_subscription(call), call.path["group"], location, _tags(call))
    return answer(_group_document(group), 201 if new else 200)


def patch_group(call: Call) -> Response:
    group = _group(call)
    if call.json.get("tags") is not None:
        group.tags = _tags(call)
    return answer(_group_document(group))


def delete_group(call: Call) -> Response:
    group = _group(call)
    operation = call.world.resources.delete_group(group)
    call.world.governance.forget(group.id)
    return _accepted(call, operation)


def _accepted(call: Call, operation: Operation[None]) -> Response:
    location = (
        f"https://{call.host}/subscriptions/{call.path['subscription']}/operationresults/{operation.id}"
        f"?api-version={call.api_version}"
    )
    return answer(status=202, headers={"location": location, "retry-after": str(call.world.timing.retry_after)})


def operation_result(call: Call) -> Response:
    operation = call.world.resources.operations.find(call.path["operation"])
    if operation is None:
        raise errors.gateway_error(404, "NotFound", f"The operation '{call.path['operation']}' could not be found.")
    if call.world.resources.operations.is_done(operation):
        return answer(status=200)
    return _accepted(call, operation)


# Providers


def _provider(call: Call) -> Provider:
    provider = PROVIDERS.get(call.path["namespace"].lower())
    if provider is None:
        raise errors.invalid_resource_namespace(call.path["namespace"])
    return provider


def _provider_document(provider: Provider, subscription: Subscription) -> dict[str, Any]:
    versions = sorted(provider.api_versions, reverse=True)
    return {
        "id": f"/subscriptions/{subscription.id}/providers/{provider.namespace}",
        "namespace": provider.namespace,
        "resourceTypes": [
            {"resourceType": kind, "locations": list(REGIONS), "apiVersions": versions}
            for kind in provider.resource_types
        ],
        "registrationState": subscription.registration(provider.namespace),
        "registrationPolicy": "RegistrationRequired",
    }


def list_providers(call: Call) -> Response:
    subscription = _subscription(call)
    return answer({"value": [_provider_document(provider, subscription) for provider in PROVIDERS.values()]})


def get_provider(call: Call) -> Response:
    return answer(_provider_document(_provider(call), _subscription(call)))


def register_provider(call: Call) -> Response:
    return _set_registration(call, REGISTERED)


def unregister_provider(call: Call) -> Response:
    return _set_registration(call, NOT_REGISTERED)


def _set_registration(call: Call, state: str) -> Response:
    provider, subscription = _provider(call), _subscription(call)
    subscription.registrations[provider.namespace.lower()] = state
    return answer(_provider_document(provider, subscription))


# Resources of all providers

_CLAUSE = re.compile(r"\s*(resourceType|name|location|resourceGroup)\s+eq\s+'([^']*)'\s*", re.IGNORECASE)


def _wanted(resource: Resource, clauses: dict[str, str]) -> bool:
    facts = {
        "resourcetype": resource.type,
        "name": resource.name,
        "location": resource.location,
        "resourcegroup": resource.id.split("/")[4],
    }
    return all(facts[field].lower() == value.lower() for field, value in clauses.items())


def _clauses(text: str) -> dict[str, str]:
    clauses: dict[str, str] = {}
    for part in re.split(r"\s+and\s+", text, flags=re.IGNORECASE) if text else []:
        found = _CLAUSE.fullmatch(part)
        if found is None:
            raise errors.invalid_filter(text)
        clauses[found[1].lower()] = found[2]
    return clauses


def _resource_list(call: Call, resources: list[Resource]) -> Response:
    """The resources that match the filter and that the caller may read. Resource Manager omits other resources."""
    clauses = _clauses(call.query("$filter"))
    readable = [r for r in resources if _wanted(r, clauses) and _may(call, f"{r.type}/read", r.id)]
    return answer(page(call, readable, lambda resource: resource.document()))


def list_resources(call: Call) -> Response:
    return _resource_list(call, list(call.world.resources.all(_subscription(call))))


def list_group_resources(call: Call) -> Response:
    return _resource_list(call, call.world.resources.of_group(_group(call)))


# The description of the clouds, which the Azure CLI and azure.azcollection can read


def endpoints(call: Call) -> Response:
    own = clouds.by_management_host(call.host) or clouds.PUBLIC
    if call.api_version < "2019-05-01":
        return answer(
            {
                "galleryEndpoint": "https://gallery.azure.com/",
                "graphEndpoint": "https://graph.windows.net/",
                "portalEndpoint": "https://portal.azure.com/",
                "authentication": {
                    "loginEndpoint": f"{own.authority}/",
                    "audiences": sorted(own.management_audiences),
                },
            }
        )
    return answer([_cloud_document(cloud) for cloud in clouds.CLOUDS])


def _cloud_document(cloud: clouds.Cloud) -> dict[str, Any]:
    return {
        "name": cloud.name,
        "portal": "https://portal.azure.com",
        "authentication": {
            "loginEndpoint": cloud.authority,
            "audiences": sorted(audience for audience in cloud.management_audiences if not audience.endswith("/")),
            "tenant": "common",
            "identityProvider": "AAD",
        },
        "resourceManager": f"https://{cloud.management_host}/",
        "graph": "https://graph.windows.net/",
        "microsoftGraphResourceId": "https://graph.microsoft.com/",
        "activeDirectoryDataLake": "https://datalake.azure.net/",
        "batch": "https://batch.core.windows.net/",
        "suffixes": {"keyVaultDns": cloud.vault_suffix[1:], "storage": "core.windows.net"},
    }


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
    Route("GET", "/tenants", list_tenants),
    Route("GET", "/subscriptions", list_subscriptions),
    Route("GET", _SUBSCRIPTION, get_subscription, READ_SUBSCRIPTION),
    Route("GET", f"{_SUBSCRIPTION}/locations", list_locations, "Microsoft.Resources/subscriptions/locations/read"),
    Route("GET", f"{_SUBSCRIPTION}/resourceGroups", list_groups),
    Route("GET", _GROUP, get_group, f"{_GROUPS}/read"),
    Route("HEAD", _GROUP, head_group, f"{_GROUPS}/read"),
    Route("PUT", _GROUP, put_group, f"{_GROUPS}/write"),
    Route("PATCH", _GROUP, patch_group, f"{_GROUPS}/write"),
    Route("DELETE", _GROUP, delete_group, f"{_GROUPS}/delete"),
    Route("GET", f"{_GROUP}/resources", list_group_resources),
    Route("GET", f"{_SUBSCRIPTION}/resources", list_resources),
    Route("GET", f"{_SUBSCRIPTION}/providers", list_providers, "Microsoft.Resources/providers/read"),
    Route("GET", _PROVIDER, get_provider, "Microsoft.Resources/providers/read"),
    Route("POST", f"{_PROVIDER}/register", register_provider, "Microsoft.Resources/providers/register/action"),
    Route("POST", f"{_PROVIDER}/unregister", unregister_provider, "Microsoft.Resources/providers/unregister/action"),
    Route("GET", f"{_SUBSCRIPTION}/operationresults/{{operation}}", operation_result),
)

# Operations that need no token.
PUBLIC_ROUTES: tuple[Route, ...] = (Route("GET", "/metadata/endpoints", endpoints),)
