# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Entra ID: tokens for secrets, and errors. Other credentials: tests/integration/test_credentials.py."""

from __future__ import annotations

import time
from typing import Any

import jwt
import pytest
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import (
    ClientSecretCredential,
)
from sandbox_client import LOGIN, MANAGEMENT_SCOPE, VAULT_SCOPE, Sandbox


def claims_of(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})


def ask(sandbox: Sandbox, tenant: str = "", version: str = "/v2.0", **fields: str | None) -> Any:
    form = {
        "grant_type": "client_credentials",
        "client_id": sandbox.client_id,
        "client_secret": sandbox.secret,
        "scope": MANAGEMENT_SCOPE,
        **fields,
    }
    wanted = {name: value for name, value in form.items() if value is not None}
    return sandbox.session().post(f"{LOGIN}/{tenant or sandbox.tenant_id}/oauth2{version}/token", wanted, timeout=30)


# Secrets


@pytest.mark.parametrize("scope", [MANAGEMENT_SCOPE, VAULT_SCOPE])
def test_a_secret_gets_a_token(sandbox: Sandbox, scope: str) -> None:
    before = time.time()
    token = ClientSecretCredential(sandbox.tenant_id, sandbox.client_id, sandbox.secret).get_token(scope)
    claims = claims_of(token.token)
    assert claims["aud"] == scope.removesuffix("/.default")
    assert claims["iss"] == f"https://sts.windows.net/{sandbox.tenant_id}/"
    assert claims["tid"] == sandbox.tenant_id
    assert claims["appid"] == sandbox.client_id
    assert claims["appidacr"] == "1"
    assert claims["oid"] == claims["sub"] != sandbox.client_id
    assert claims["ver"] == "1.0"
    assert before - 30 < claims["exp"] - 3599 < time.time() + 30
    assert "xms_mirid" not in claims


@pytest.mark.parametrize(
    ("fields", "status", "error", "code"),
    [
        ({"client_secret": "wrong"}, 401, "invalid_client", 7000215),
        ({"client_secret": None}, 401, "invalid_client", 7000218),
        ({"client_id": "11111111-1111-1111-1111-111111111111"}, 400, "unauthorized_client", 700016),
        ({"client_id": None}, 400, "invalid_request", 900144),
        ({"grant_type": None}, 400, "invalid_request", 900144),
        ({"scope": None}, 400, "invalid_request", 900144),
        ({"grant_type": "password"}, 400, "unsupported_grant_type", 70003),
        ({"scope": "https://management.azure.com/user_impersonation"}, 400, "invalid_scope", 1002012),
        ({"scope": "https://nowhere.example/.default"}, 400, "invalid_resource", 500011),
        ({"tenant": "22222222-2222-2222-2222-222222222222"}, 400, "invalid_tenant", 90002),
    ],
)
def test_an_error_has_the_text_of_entra(
    sandbox: Sandbox, fields: dict[str, Any], status: int, error: str, code: int
) -> None:
    response = ask(sandbox, **fields)
    document = response.json()
    assert (response.status_code, document["error"], document["error_codes"]) == (status, error, [code])
    assert document["error_description"].startswith(f"AADSTS{code}: ")
    assert document["error_uri"].endswith(str(code))
    assert "Correlation ID" in document["error_description"]


def test_the_errors_of_the_sdk(sandbox: Sandbox) -> None:
    """After an error, MSAL also requests the instance discovery, which the sandbox must support."""
    with pytest.raises(ClientAuthenticationError, match="AADSTS7000215"):
        ClientSecretCredential(sandbox.tenant_id, sandbox.client_id, "wrong").get_token(MANAGEMENT_SCOPE)
    with pytest.raises(ClientAuthenticationError, match="Unable to get authority configuration"):
        ClientSecretCredential("2" * 8, sandbox.client_id, sandbox.secret).get_token(MANAGEMENT_SCOPE)
    assert sandbox.control.unknown() == []
