# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The data plane of Batch accounts: the list of pools."""

from __future__ import annotations

import pytest
import requests
from batch_calls import create
from encrypted_account import Vault, disable, enable, protected
from sandbox_client import MANAGEMENT_SCOPE, Sandbox

SCOPE = "https://batch.core.windows.net/.default"
URL = "https://account1.westeurope.batch.azure.com/pools?api-version=2024-07-01.20.0"


def listed(sandbox: Sandbox, scope: str = SCOPE, **principal: str) -> requests.Response:
    return sandbox.bearer(scope, **principal).get(URL, timeout=30)


def test_pools_are_listed(sandbox: Sandbox) -> None:
    create(sandbox)
    response = listed(sandbox)
    assert (response.status_code, response.json()["value"]) == (200, [])


def test_an_account_without_its_key_refuses_the_list(vault: Vault) -> None:
    key = protected(vault, versioned=True)
    disable(vault, key)
    response = listed(vault.sandbox)
    assert (response.status_code, response.json()["code"]) == (409, "KeyVaultKeyNotAccessible")
    assert "RequestId:" in response.json()["message"]["value"]
    enable(vault, key)
    assert listed(vault.sandbox).ok


def test_a_token_for_resource_manager_is_refused(sandbox: Sandbox) -> None:
    create(sandbox)
    response = listed(sandbox, MANAGEMENT_SCOPE)
    assert (response.status_code, response.json()["code"]) == (401, "AuthenticationFailed")


def test_a_caller_without_the_right_is_refused(sandbox: Sandbox) -> None:
    create(sandbox)
    nobody = sandbox.control.principal("nobody")
    response = listed(sandbox, client_id=nobody["client_id"], secret=nobody["secret"])
    assert (response.status_code, response.json()["code"]) == (403, "PermissionDenied")


def test_the_host_of_a_missing_account_does_not_resolve(sandbox: Sandbox) -> None:
    with pytest.raises(requests.exceptions.ProxyError):
        sandbox.session().get(URL, timeout=30)
