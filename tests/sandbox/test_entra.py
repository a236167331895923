# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Entra ID: azure-identity's credentials against the sandbox."""

from __future__ import annotations

from azure.identity import ClientSecretCredential
from sandbox_client import MANAGEMENT_SCOPE, Sandbox


def test_a_secret_is_worth_a_token_that_resource_manager_takes(sandbox: Sandbox) -> None:
    credential = ClientSecretCredential(sandbox.tenant_id, sandbox.client_id, sandbox.secret)
    session = sandbox.session()
    session.headers["authorization"] = f"Bearer {credential.get_token(MANAGEMENT_SCOPE).token}"
    assert sandbox.arm("GET", sandbox.group, "2022-09-01", session=session).json()["name"] == "rg-sandbox"
