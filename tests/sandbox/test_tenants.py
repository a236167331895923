# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several tenants: tokens are valid only in their tenant, and no tenant sees the resources of another."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
import requests
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import ClientSecretCredential
from key_vault_calls import ENCRYPTION_USER, ROLES, make_vault
from sandbox_client import LOGIN, MANAGEMENT, MANAGEMENT_SCOPE, VAULT_SCOPE, Control, Sandbox

VERSION = "2022-09-01"
BATCH = "2024-07-01"
IDENTITIES = "2023-01-31"


@pytest.fixture
def other(control: Control) -> dict[str, Any]:
    """A second tenant with a separate subscription."""
    tenant: dict[str, Any] = control.call("POST", "/tenants", {"name": "Elsewhere"}, status=201)
    return tenant


def group(other: dict[str, Any]) -> str:
    return f"/subscriptions/{other['subscription_id']}/resourceGroups/{other['resource_group']}"


def session(sandbox: Sandbox, other: dict[str, Any], scope: str = MANAGEMENT_SCOPE) -> requests.Session:
    credential = ClientSecretCredential(other["tenant_id"], other["client_id"], other["secret"])
    signed_in = sandbox.session()
    signed_in.headers["authorization"] = f"Bearer {credential.get_token(scope).token}"
    return signed_in


def error(response: requests.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def test_each_principal_sees_its_tenant_only(sandbox: Sandbox, other: dict[str, Any]) -> None:
    theirs = session(sandbox, other)
    for whose, tenant_id, name in (
        (theirs, other["tenant_id"], "Elsewhere"),
        (sandbox.bearer(), sandbox.tenant_id, "Sandbox (not Azure)"),
    ):
        tenants = sandbox.arm("GET", "/tenants", VERSION, session=whose).json()["value"]
        subscriptions = sandbox.arm("GET", "/subscriptions", VERSION, session=whose).json()["value"]
        assert [one["tenantId"] for one in tenants] == [tenant_id]
        assert [(one["tenantId"], one["displayName"]) for one in subscriptions] == [(tenant_id, name)]


def test_a_token_of_another_tenant_is_refused(sandbox: Sandbox, other: dict[str, Any]) -> None:
    refused = sandbox.arm("GET", group(other), VERSION)
    assert error(refused) == (401, "InvalidAuthenticationTokenTenant")
    assert f"https://sts.windows.net/{sandbox.tenant_id}/" in refused.json()["error"]["message"]
    assert other["tenant_id"] in refused.headers["www-authenticate"]
    assert error(sandbox.arm("GET", sandbox.group, VERSION, session=session(sandbox, other))) == (
        401,
        "InvalidAuthenticationTokenTenant",
    )
    assert sandbox.arm("GET", group(other), VERSION, session=session(sandbox, other)).ok


def test_the_response_to_a_request_without_a_token_names_the_tenant(sandbox: Sandbox, other: dict[str, Any]) -> None:
    """This is how tools find a subscription's tenant."""
    response = sandbox.session().get(f"{MANAGEMENT}{group(other)}?api-version={VERSION}", timeout=30)
    assert f'authorization_uri="https://login.windows.net/{other["tenant_id"]}"' in response.headers["www-authenticate"]


def test_an_application_is_known_in_its_tenant_only(sandbox: Sandbox, other: dict[str, Any]) -> None:
    with pytest.raises(ClientAuthenticationError, match="AADSTS700016"):
        ClientSecretCredential(sandbox.tenant_id, other["client_id"], other["secret"]).get_token(MANAGEMENT_SCOPE)
    with pytest.raises(ClientAuthenticationError, match="AADSTS700016"):
        ClientSecretCredential(other["tenant_id"], sandbox.client_id, sandbox.secret).get_token(MANAGEMENT_SCOPE)
    document = sandbox.session().get(f"{LOGIN}/{other['tenant_id']}/v2.0/.well-known/openid-configuration", timeout=30)
    assert other["tenant_id"] in document.json()["issuer"]


def test_a_vault_takes_tokens_of_its_tenant_only(sandbox: Sandbox, other: dict[str, Any]) -> None:
    make_vault(sandbox, enableRbacAuthorization=True)
    url = "https://vault-one.vault.azure.net/keys?api-version=7.4"
    refused = session(sandbox, other, VAULT_SCOPE).get(url, timeout=30)
    assert error(refused) == (401, "Unauthorized")
    assert refused.json()["error"]["message"].startswith("AKV10032")
    assert sandbox.bearer(VAULT_SCOPE).get(url, timeout=30).ok


def test_a_principal_of_another_tenant_gets_no_role(sandbox: Sandbox, control: Control, other: dict[str, Any]) -> None:
    role = f"{sandbox.subscription}/providers/Microsoft.Authorization/roleDefinitions/{ENCRYPTION_USER}"
    properties = {"roleDefinitionId": role, "principalId": other["object_id"], "principalType": "ServicePrincipal"}
    path = f"{sandbox.group}/providers/Microsoft.Authorization/roleAssignments/{uuid.uuid4()}"
    assert error(sandbox.arm("PUT", path, ROLES, {"properties": properties})) == (400, "PrincipalNotFound")
    wanted = {"name": "x", "tenant_id": other["tenant_id"], "roles": [{"role": "Reader", "scope": sandbox.group}]}
    control.call("POST", "/principals", wanted, status=400)


def test_reset_removes_other_tenants(sandbox: Sandbox, control: Control, other: dict[str, Any]) -> None:
    control.reset()
    with pytest.raises(ClientAuthenticationError, match="Unable to get authority configuration"):
        ClientSecretCredential(other["tenant_id"], other["client_id"], other["secret"]).get_token(MANAGEMENT_SCOPE)
