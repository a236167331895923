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
from sandbox_client import MANAGEMENT_SCOPE, VAULT_SCOPE, Sandbox


def claims_of(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})


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


def test_the_errors_of_the_sdk(sandbox: Sandbox) -> None:
    """After an error, MSAL also requests the instance discovery, which the sandbox must support."""
    with pytest.raises(ClientAuthenticationError, match="AADSTS7000215"):
        ClientSecretCredential(sandbox.tenant_id, sandbox.client_id, "wrong").get_token(MANAGEMENT_SCOPE)
    with pytest.raises(ClientAuthenticationError, match="Unable to get authority configuration"):
        ClientSecretCredential("2" * 8, sandbox.client_id, sandbox.secret).get_token(MANAGEMENT_SCOPE)
    assert sandbox.control.unknown() == []
