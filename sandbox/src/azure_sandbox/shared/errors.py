# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Errors of Resource Manager's gateway. They have a message of one line, and no target or details."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from .web import AzureError

FAILURE_CAUSE = "x-ms-failure-cause"


def gateway_refusal(status: int, error: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> AzureError:
    return AzureError(status, {"error": error}, {FAILURE_CAUSE: "gateway", **(headers or {})})


def gateway_error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> AzureError:
    return gateway_refusal(status, {"code": code, "message": message}, headers)


def _listed(names: Collection[str]) -> str:
    return ",".join(sorted(names, reverse=True))


# Tokens


def _challenge(tenant_id: str, error: str, description: str) -> dict[str, str]:
    # Tools find a subscription's tenant by this header.
    return {
        "www-authenticate": (
            f'Bearer authorization_uri="https://login.windows.net/{tenant_id}", error="{error}", '
            f'error_description="{description}"'
        )
    }


def authentication_missing(tenant_id: str) -> AzureError:
    return gateway_error(
        401,
        "AuthenticationFailed",
        "Authentication failed. The 'Authorization' header is missing.",
        _challenge(tenant_id, "invalid_token", "The authentication failed because of missing 'Authorization' header."),
    )


def _invalid_token(tenant_id: str, code: str, message: str) -> AzureError:
    return gateway_error(401, code, message, _challenge(tenant_id, "invalid_token", message.replace('"', "'")))


def token_malformed(tenant_id: str) -> AzureError:
    return _invalid_token(tenant_id, "InvalidAuthenticationToken", "The access token is invalid.")


def token_expired(tenant_id: str, expired: str, now: str) -> AzureError:
    return _invalid_token(
        tenant_id,
        "ExpiredAuthenticationToken",
        f"The access token expiry UTC time '{expired}' is earlier than current UTC time '{now}'.",
    )


def token_audience(tenant_id: str, audience: str, expected: Collection[str]) -> AzureError:
    allowed = ",".join(f"'{each}'" for each in sorted(expected, reverse=True))
    return _invalid_token(
        tenant_id,
        "InvalidAuthenticationTokenAudience",
        f"The access token has been obtained for wrong audience or resource '{audience}'. It should exactly match with "
        f"one of the allowed audiences {allowed}.",
    )


def token_tenant(tenant_id: str, issuer: str) -> AzureError:
    return _invalid_token(
        tenant_id,
        "InvalidAuthenticationTokenTenant",
        f"The access token is from the wrong issuer '{issuer}'. It must match the tenant "
        f"'https://sts.windows.net/{tenant_id}/' associated with this subscription. Please use the authority (URL) "
        f"'https://login.windows.net/{tenant_id}' to get the token. Note, if the subscription is transferred to "
        "another tenant there is no impact to the services, but information about new tenant could take time to "
        "propagate (up to an hour). If you just transferred your subscription and see this error message, please try "
        "back later.",
    )


def authorization_failed(client_id: str, object_id: str, action: str, scope: str) -> AzureError:
    return gateway_error(
        403,
        "AuthorizationFailed",
        f"The client '{client_id}' with object id '{object_id}' does not have authorization to perform action "
        f"'{action}' over scope '{scope}' or the scope is invalid. If access was recently granted, please refresh your "
        "credentials.",
    )


# Locks and policies


def scope_locked(scope: str, operation: str, locked: str) -> AzureError:
    return gateway_error(
        409,
        "ScopeLocked",
        f"The scope '{scope}' cannot perform {operation} operation because following scope(s) are locked: '{locked}'. "
        "Please remove the lock and try again.",
    )


# Versions, names, bodies


def missing_api_version() -> AzureError:
    return gateway_error(
        400,
        "MissingApiVersionParameter",
        "The api-version query parameter (?api-version=) is required for all requests.",
    )


def invalid_api_version(version: str, supported: Collection[str]) -> AzureError:
    return gateway_error(
        400,
        "InvalidApiVersionParameter",
        f"The api-version '{version}' is invalid. The supported versions are '{_listed(supported)}'.",
    )


def no_registered_provider(location: str, version: str, kind: str, supported: Collection[str]) -> AzureError:
    return gateway_error(
        400,
        "NoRegisteredProviderFound",
        f"No registered resource provider found for location '{location}' and API version '{version}' for type "
        f"'{kind}'. The supported api-versions are '{', '.join(sorted(supported))}'. The supported locations are ''.",
    )


def invalid_resource_namespace(namespace: str) -> AzureError:
    return gateway_error(404, "InvalidResourceNamespace", f"The resource namespace '{namespace}' is invalid.")


def invalid_resource_type(kind: str, namespace: str, version: str, supported: Collection[str]) -> AzureError:
    return gateway_error(
        404,
        "InvalidResourceType",
        f"The resource type '{kind}' could not be found in the namespace '{namespace}' for api version '{version}'. "
        f"The supported api-versions are '{', '.join(sorted(supported))}'.",
    )


def missing_subscription_registration(namespace: str) -> AzureError:
    return gateway_error(
        409,
        "MissingSubscriptionRegistration",
        f"The subscription is not registered to use namespace '{namespace}'. See https://aka.ms/rps-not-found for how "
        "to register subscriptions.",
    )


def method_not_allowed(method: str, allowed: Collection[str]) -> AzureError:
    return gateway_error(
        405,
        "MethodNotAllowed",
        f"The requested resource does not support http method '{method}'.",
        {"allow": ", ".join(sorted(allowed))},
    )


def not_in_sandbox(method: str, path: str) -> AzureError:
    return gateway_error(
        404, "NotInSandbox", f"{method} {path} is not in the sandbox (see docs/sandbox-fidelity.md). Azure may have it."
    )


def invalid_request_content(reason: str) -> AzureError:
    return gateway_error(
        400,
        "InvalidRequestContent",
        f"The request content was invalid and could not be deserialized: '{reason}'.",
    )


def location_required() -> AzureError:
    return gateway_error(400, "LocationRequired", "The location property is required for this definition.")


def location_unavailable(location: str, kind: str, available: Collection[str]) -> AzureError:
    message = (
        f"The provided location '{location}' is not available for resource type '{kind}'."
        f" List of available regions for the resource type is '{','.join(available)}'."
    )
    return gateway_error(400, "LocationNotAvailableForResourceType", message)


def invalid_query(name: str, value: str) -> AzureError:
    return gateway_error(
        400, "InvalidQueryParameter", f"The value '{value}' of the query parameter '{name}' is invalid."
    )


def invalid_filter(text: str) -> AzureError:
    return gateway_error(400, "InvalidFilterInQueryString", f"Invalid $filter '{text}' specified in the query string.")


def throttled(kind: str, subscription: str, actor: str, seconds: int) -> AzureError:
    return gateway_error(
        429,
        "SubscriptionRequestsThrottled",
        f"Number of '{kind}' requests for subscription '{subscription}' actor '{actor}' exceeded. Please try again "
        f"after '{seconds}' seconds after additional tokens are available. Refer to https://aka.ms/arm-throttling for "
        "additional information.",
        {"retry-after": str(seconds)},
    )


# Missing and conflicting resources


def subscription_not_found(subscription: str) -> AzureError:
    return gateway_error(404, "SubscriptionNotFound", f"The subscription '{subscription}' could not be found.")


def invalid_subscription_id(subscription: str) -> AzureError:
    return gateway_error(
        400,
        "InvalidSubscriptionId",
        f"The provided subscription identifier '{subscription}' is malformed or invalid.",
    )


def resource_group_not_found(group: str) -> AzureError:
    return gateway_error(404, "ResourceGroupNotFound", f"Resource group '{group}' could not be found.")


def invalid_resource_group_name(group: str) -> AzureError:
    return gateway_error(
        400,
        "InvalidResourceGroup",
        f"The provided resource group name '{group}' has these invalid characters or is too long. The name can only "
        "be a letter, digit, '-', '.', '(', ')' or '_'.",
    )


def resource_group_location(group: str, present: str) -> AzureError:
    return gateway_error(
        409,
        "InvalidResourceGroupLocation",
        f"Invalid resource group location. The Resource group '{group}' already exists in location '{present}'.",
    )


def other_location(name: str, location: str, group: str, wanted: str) -> AzureError:
    """An error of the services themselves, without the gateway's header."""
    message = (
        f"The resource '{name}' already exists in location '{location}' in resource group '{group}'. A resource with"
        f" the same name cannot be created in location '{wanted}'. Please select a new resource name."
    )
    return AzureError(409, {"error": {"code": "InvalidResourceLocation", "message": message}})


def resource_not_found(type: str, name: str, group: str) -> AzureError:
    return gateway_error(
        404,
        "ResourceNotFound",
        f"The Resource '{type}/{name}' under resource group '{group}' was not found. For more details please go to "
        "https://aka.ms/ARMResourceNotFoundFix",
    )
