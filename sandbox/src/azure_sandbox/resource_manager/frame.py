# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Handles all requests to a management host. It checks the token, the operation, the API version, the subscription, the
rate limit, the permission, locks, policies and the resource group, in this order, and then calls the operation."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol

from starlette.responses import Response

from ..authorization.rules import subscription_in, tidy_scope
from ..entra.rules import Directory, TokenProblem
from ..shared import clouds, errors, web
from ..shared.clouds import Cloud
from ..shared.errors import FAILURE_CAUSE
from ..shared.web import AzureError, BadJson, Route, Routes, answer, call_handler
from . import http, providers, throttling
from .providers import Provider

_public = Routes(http.PUBLIC_ROUTES)
_CHANGING = ("PUT", "PATCH", "DELETE", "POST")


class World(http.World, throttling.World, Protocol):
    directory: Directory


Call = web.Call[World]


async def handle(call: Call) -> Response:
    try:
        response = await _handle(call)
    except BadJson as error:
        response = _refusal(errors.invalid_request_content(str(error)))
    except AzureError as error:
        response = _refusal(error)
    _add_headers(call, response)
    return response


def _refusal(error: AzureError) -> Response:
    return answer(error.body, error.status, error.headers)


async def _handle(call: Call) -> Response:
    # Additional slashes are ignored: some clients join a host that ends with a slash and a path that starts with one.
    path = tidy_scope(call.url_path)
    method = call.request.method
    public, _, _ = _public.match(method, path)
    if public is not None:
        call.route = public
        return await call_handler(public, call)
    _authenticate(call, path)
    provider = _provider(path)
    route, call.path, methods = provider.routes.match(method, path)
    if route is None:
        raise _no_route(call, provider, path, methods)
    call.route = route
    _check_version(call, provider, path)
    _check_subscription(call, provider)
    throttling.check(call)
    _check_permission(call, route, path)
    if method in _CHANGING and not route.action.endswith("/read"):
        call.world.governance.check(method, path, lambda: call.json)
    _check_group(call, provider)
    return await call_handler(route, call)


# Token


@lru_cache(maxsize=64)
def _cloud(host: str) -> Cloud:
    return clouds.by_management_host(host) or clouds.PUBLIC


def _authenticate(call: Call, path: str) -> None:
    audiences = _cloud(call.host).management_audiences
    tenant = call.world.resources.tenant_of(subscription_in(path))
    try:
        call.caller = call.world.directory.authenticate(call.request.headers.get("authorization"), audiences)
    except TokenProblem as problem:
        raise _token_error(problem, tenant, audiences) from problem


def _token_error(problem: TokenProblem, tenant: str, audiences: frozenset[str]) -> AzureError:
    if problem.kind == "missing":
        return errors.authentication_missing(tenant)
    if problem.kind == "expired":
        return errors.token_expired(tenant, _clock_time(float(problem.detail)), _clock_time(time.time()))
    if problem.kind == "audience":
        return errors.token_audience(tenant, problem.detail, audiences)
    if problem.kind == "issuer":
        return errors.token_tenant(tenant, problem.detail)
    return errors.token_malformed(tenant)


def _clock_time(seconds: float) -> str:
    """`4/3/2025 9:30:10 AM`"""
    moment = datetime.fromtimestamp(seconds, UTC)
    hour = moment.hour % 12 or 12
    return f"{moment.month}/{moment.day}/{moment.year} {hour}:{moment:%M:%S} {'AM' if moment.hour < 12 else 'PM'}"


# Operation


def _provider(path: str) -> Provider:
    """The provider of the last `/providers/NAMESPACE/` in the path; Microsoft.Resources if there is none. Raises
    AzureError."""
    _, found, rest = path.lower().rpartition("/providers/")
    namespace, _, below = rest.partition("/")
    if not found or not below or below in ("register", "unregister"):
        namespace = http.PROVIDER.lower()
    provider = providers.PROVIDERS.get(namespace)
    if provider is None:
        raise errors.invalid_resource_namespace(path[len(path) - len(rest) :].partition("/")[0])
    return provider


def _is_own(provider: Provider) -> bool:
    return provider.namespace == http.PROVIDER


def _no_route(call: Call, provider: Provider, path: str, methods: set[str]) -> AzureError:
    if methods:
        return errors.method_not_allowed(call.request.method, methods)
    kind = providers.resource_type(path, provider.namespace)
    if kind and not provider.knows(kind):
        version = call.api_version
        return errors.invalid_resource_type(kind, provider.namespace, version, provider.api_versions)
    return errors.not_in_sandbox(call.request.method, path)


def _check_version(call: Call, provider: Provider, path: str) -> None:
    version = call.api_version
    taken = provider.versions(call.world.clock.time(), call.world.behavior)
    if version in taken:
        return
    if not version:
        raise errors.missing_api_version()
    if _is_own(provider):
        raise errors.invalid_api_version(version, taken)
    group = call.world.resources.group(call.path.get("subscription", ""), call.path.get("group", ""))
    location = call.path.get("location") or (group.location if group else "")
    kind = providers.resource_type(path, provider.namespace)
    raise errors.no_registered_provider(location, version, kind, taken)


# Subscription, permission, group


def _check_subscription(call: Call, provider: Provider) -> None:
    id = call.path.get("subscription") or subscription_in(call.path.get("scope", ""))
    if not id:
        return
    subscription = call.world.resources.subscription(id)
    if subscription is None:
        raise _no_subscription(id)
    assert call.caller is not None
    if subscription.tenant_id != call.caller.tenant_id:
        raise errors.token_tenant(subscription.tenant_id, _cloud(call.host).issuer(call.caller.tenant_id))
    if call.request.method == "PUT" and subscription.registration(provider.namespace) != "Registered":
        raise errors.missing_subscription_registration(provider.namespace)


def _no_subscription(id: str) -> AzureError:
    try:
        uuid.UUID(id)
    except ValueError:
        return errors.invalid_subscription_id(id)
    return errors.subscription_not_found(id)


def _check_permission(call: Call, route: Route, path: str) -> None:
    if not route.action:
        return
    assert call.caller is not None
    scope = scope_of(path)
    if not call.world.authorization.allows(call.caller, route.action, scope):
        raise errors.authorization_failed(call.caller.app_id, call.caller.object_id, route.action, scope)


def scope_of(path: str) -> str:
    """The innermost resource, resource group or subscription in a path, at which the permission is checked.

    The name of a list or an action is omitted, because it is not the name of a resource.
    """
    above, found, rest = path.rpartition("/providers/")
    if not found:
        parts = path.split("/")
        named = 5 if len(parts) > 4 and parts[3].lower() == "resourcegroups" else 3
        return "/".join(parts[:named]) if len(parts) >= named and parts[1].lower() == "subscriptions" else "/"
    parts = rest.split("/")
    if len(parts) % 2 == 0:
        parts = parts[:-1]
    if len(parts) > 1:
        return f"{above}{found}{'/'.join(parts)}"
    return above or "/"


def _check_group(call: Call, provider: Provider) -> None:
    name = call.path.get("group")
    if not name or _is_own(provider):
        return
    if call.world.resources.group(call.path["subscription"], name) is None:
        raise errors.resource_group_not_found(name)


_FIXED_HEADERS = (
    ("cache-control", "no-cache"),
    ("pragma", "no-cache"),
    ("expires", "-1"),
    ("strict-transport-security", "max-age=31536000; includeSubDomains"),
    ("x-content-type-options", "nosniff"),
    ("x-cache", "CONFIG_NOCACHE"),
)
_REGION = "westeurope"


def _add_headers(call: Call, response: Response) -> None:
    """Add the headers of all responses of Resource Manager. Headers that the handler has set do not change."""
    present = {name for name, _ in response.raw_headers}
    gateway = FAILURE_CAUSE.encode() in present
    has_limits = any(name.startswith(b"x-ms-ratelimit-remaining-tenant-") for name in present)
    for name, value in _headers(call, gateway=gateway, has_limits=has_limits):
        if (encoded := name.encode()) not in present:
            response.raw_headers.append((encoded, value.encode("latin-1")))


def _headers(call: Call, *, gateway: bool, has_limits: bool) -> Iterator[tuple[str, str]]:
    yield from _FIXED_HEADERS
    correlation = str(uuid.uuid4())
    # In the gateway's own responses, both ids are the same.
    yield "x-ms-request-id", correlation if gateway else str(uuid.uuid4())
    yield "x-ms-correlation-request-id", correlation
    now = time.gmtime()
    yield "x-ms-routing-request-id", f"{_REGION.upper()}:{time.strftime('%Y%m%dT%H%M%SZ', now)}:{correlation}"
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", now)
    yield "x-msedge-ref", f"Ref A: {correlation.replace('-', '').upper()} Ref B: SANDBOX Ref C: {moment}"
    asked = call.request.headers
    if asked.get("x-ms-return-client-request-id", "").lower() == "true":
        own = asked.get("x-ms-client-request-id", "")
        if own.isascii() and own.isprintable():
            yield "x-ms-client-request-id", own
    if call.caller is not None:
        if not has_limits:
            yield from throttling.remaining(call)
        if not gateway:
            who = f"tenantId={call.caller.tenant_id},objectId={call.caller.object_id}"
            yield "x-ms-operation-identifier", f"{who}/{_REGION}/{correlation}"
