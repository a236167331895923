# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The login hosts: discovery and tokens."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import parse_qsl

from starlette.responses import Response

from ..shared import clouds, web
from ..shared import world as shared
from ..shared.clouds import Cloud
from ..shared.web import AzureError, Route, Routes, answer, call_handler
from . import assertions, errors, tokens
from .rules import Directory, Principal

ANY_TENANT = frozenset({"common", "organizations"})
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
GUID = re.compile(r"[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")


class World(shared.World, Protocol):
    directory: Directory


Call = web.Call[World]


def _cloud(call: Call) -> Cloud:
    return clouds.by_login_host(call.host) or clouds.PUBLIC


def _tenant(call: Call) -> str:
    tenant = call.path["tenant"].lower()
    directory = call.world.directory
    if tenant in ANY_TENANT:
        return directory.tenant_id
    if tenant not in directory.tenants:
        raise errors.unknown_tenant(call.path["tenant"])
    return tenant


def instance_discovery(call: Call) -> Response:
    asked = call.query("authorization_endpoint").removeprefix("https://").partition("/")[0].partition(":")[0]
    if clouds.by_login_host(asked.lower()) is None:
        raise errors.unknown_instance()
    metadata = [
        {
            "preferred_network": cloud.login_hosts[0],
            "preferred_cache": cloud.login_hosts[0] if cloud is not clouds.PUBLIC else "login.windows.net",
            "aliases": list(cloud.login_hosts),
        }
        for cloud in clouds.CLOUDS
    ]
    return answer(
        {
            "tenant_discovery_endpoint": (
                f"{_cloud(call).authority}/{call.world.directory.tenant_id}/v2.0/.well-known/openid-configuration"
            ),
            "api-version": call.api_version or "1.1",
            "metadata": metadata,
        }
    )


def openid_configuration(call: Call) -> Response:
    _tenant(call)
    asked = call.path["tenant"].lower()
    version = "/v2.0" if "/v2.0/" in call.url_path.lower() else ""
    cloud = _cloud(call)
    # With "common" and "organizations" the tenant is not known yet, so the document has a placeholder.
    issuer_tenant = "{tenantid}" if asked in ANY_TENANT else asked
    base = f"{cloud.authority}/{asked}"
    oauth2 = f"{base}/oauth2{version}"
    return answer(
        {
            "token_endpoint": f"{oauth2}/token",
            "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt", "client_secret_basic"],
            "jwks_uri": f"{base}/discovery{version}/keys",
            "response_modes_supported": ["query", "fragment", "form_post"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
            "scopes_supported": ["openid", "profile", "email", "offline_access"],
            "issuer": f"{base}/v2.0".replace(asked, issuer_tenant) if version else cloud.issuer(issuer_tenant),
            "request_uri_parameter_supported": False,
            "userinfo_endpoint": "https://graph.microsoft.com/oidc/userinfo",
            "authorization_endpoint": f"{oauth2}/authorize",
            "device_authorization_endpoint": f"{oauth2}/devicecode",
            "http_logout_supported": True,
            "frontchannel_logout_supported": True,
            "end_session_endpoint": f"{oauth2}/logout",
            "claims_supported": ["sub", "iss", "aud", "exp", "iat", "tid", "ver", "oid", "appid", "appidacr"],
            "tenant_region_scope": None if asked in ANY_TENANT else "EU",
            "cloud_instance_name": cloud.instance_name,
            "cloud_graph_host_name": "graph.windows.net",
            "msgraph_host": "graph.microsoft.com",
            "rbac_url": "https://pas.windows.net",
        }
    )


def signing_keys(call: Call) -> Response:
    tenant = _tenant(call)
    issuer = f"{_cloud(call).authority}/{tenant}/v2.0"
    return answer({"keys": [tokens.jwk(call.world.directory.signing_key, issuer)]})


def token_v2(call: Call) -> Response:
    form = _form(call)
    resource = _default_scope(_needed(form, "scope"))
    token, seconds = _token(call, form, resource)
    return _token_answer(
        call, {"token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds, "access_token": token}
    )


def token_v1(call: Call) -> Response:
    """The v1.0 endpoint, which has `resource` instead of `scope`, and strings instead of numbers."""
    form = _form(call)
    resource = _needed(form, "resource")
    token, seconds = _token(call, form, resource)
    now = int(time.time())
    return _token_answer(
        call,
        {
            "token_type": "Bearer",
            "expires_in": str(seconds),
            "ext_expires_in": str(seconds),
            "expires_on": str(now + seconds),
            "not_before": str(now),
            "resource": resource,
            "access_token": token,
        },
    )


def _form(call: Call) -> Mapping[str, str]:
    form = dict(parse_qsl(call.content.decode("utf-8", "replace")))
    _needed(form, "grant_type")
    if form["grant_type"] != "client_credentials":
        raise errors.unsupported_grant(form["grant_type"])
    _needed(form, "client_id")
    return form


def _needed(form: Mapping[str, str], name: str) -> str:
    if not form.get(name):
        raise errors.missing_parameter(name)
    return form[name]


def _default_scope(scope: str) -> str:
    """The audience in a scope. The audience in `https://management.azure.com//.default` ends with a slash. Raises
    AzureError."""
    if not scope.endswith("/.default") or " " in scope.strip():
        raise errors.bad_scope(scope)
    return scope.removesuffix("/.default")


def _token(call: Call, form: Mapping[str, str], resource: str) -> tuple[str, int]:
    tenant, cloud, directory = _tenant(call), _cloud(call), call.world.directory
    principal = directory.by_app_id(form["client_id"])
    if principal is None or principal.tenant_id != tenant or _is_bare(directory, principal):
        raise errors.unknown_application(form["client_id"], tenant)
    call.caller = principal
    credential = _authenticate(call, form, principal, cloud)
    if not tokens.is_audience(resource, cloud):
        raise errors.unknown_resource(resource, tenant)
    return directory.issue(principal, cloud, resource, credential)


def _is_bare(directory: Directory, principal: Principal) -> bool:
    """Whether the principal is a managed identity without a federated credential, which cannot request a token here."""
    return principal.kind == "ManagedIdentity" and not directory.credentials(principal).federated


def _authenticate(call: Call, form: Mapping[str, str], principal: Principal, cloud: Cloud) -> str:
    """Check the credential in a token request. Returns the value of the claim appidacr: 1 for a secret, 2 for an
    assertion. Raises AzureError."""
    directory = call.world.directory
    assertion = form.get("client_assertion")
    if assertion:
        if form.get("client_assertion_type") != ASSERTION_TYPE:
            raise errors.missing_parameter("client_assertion_type")
        assertions.check(directory, principal, assertion, _endpoints(call, cloud))
        return "2"
    secret = form.get("client_secret")
    if not secret:
        raise errors.no_credential()
    state = directory.secret_state(principal, secret)
    if state == "expired":
        raise errors.expired_secret(principal.app_id)
    if state == "wrong":
        raise errors.wrong_secret(principal.app_id)
    return "1"


def _endpoints(call: Call, cloud: Cloud) -> frozenset[str]:
    """The audiences that an assertion signed with a certificate may have at this token endpoint."""
    tenants = (call.path["tenant"], _tenant(call))
    paths = ("/oauth2/v2.0/token", "/oauth2/token", "/v2.0", "")
    hosts = {call.host, *cloud.login_hosts}
    return frozenset(f"https://{host}/{tenant}{path}" for host in hosts for tenant in tenants for path in paths)


def _token_answer(call: Call, document: dict[str, Any]) -> Response:
    return answer(document, headers=headers(call))


def headers(call: Call) -> dict[str, str]:
    common = {
        "cache-control": "no-store, no-cache",
        "pragma": "no-cache",
        "expires": "-1",
        "strict-transport-security": "max-age=31536000; includeSubDomains",
        "x-content-type-options": "nosniff",
        "x-ms-request-id": str(uuid.uuid4()),
        "x-ms-ests-server": "2.1.0 - sandbox ProdSlices",
        "x-ms-clitelem": "1,0,0,,",
    }
    asked = call.request.headers.get("client-request-id", "")
    if GUID.fullmatch(asked):
        common["client-request-id"] = asked
    return common


ROUTES: tuple[Route, ...] = (
    Route("POST", "/{tenant}/oauth2/v2.0/token", token_v2),
    Route("POST", "/{tenant}/oauth2/token", token_v1),
    Route("GET", "/{tenant}/v2.0/.well-known/openid-configuration", openid_configuration),
    Route("GET", "/{tenant}/.well-known/openid-configuration", openid_configuration),
    Route("GET", "/{tenant}/discovery/v2.0/keys", signing_keys),
    Route("GET", "/{tenant}/discovery/keys", signing_keys),
    Route("GET", "/{tenant}/discovery/instance", instance_discovery),
)


_routes = Routes(ROUTES)


async def handle(call: Call) -> Response:
    path = call.url_path.rstrip("/")
    call.route, call.path, methods = _routes.match(call.request.method, path)
    try:
        if call.route is None:
            raise _not_here(call, path, methods)
        return await call_handler(call.route, call)
    except AzureError as error:
        return answer(error.body, error.status, {**headers(call), **error.headers})


def _not_here(call: Call, path: str, methods: set[str]) -> AzureError:
    if methods:
        error = errors.entra_error(405, "invalid_request", 900561, "The endpoint only accepts other methods.")
        error.headers["allow"] = ", ".join(sorted(methods))
        return error
    return errors.entra_error(
        404, "not_found", 90014, f"{call.request.method} {path} is not in the sandbox (see docs/sandbox-fidelity.md)."
    )
