# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Versions of Key Vault's management API before 2026-02-01 retire on 27 February 2027. Requests have a later version,
with any release of the SDK."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cases import AT_ONCE
from one_process import OneProcess
from role_runs import VARS
from service import Service

from ansible_collections.azbatch.cmk.plugins.module_utils._azure import gateway

MARCH = datetime(2027, 3, 1, tzinfo=UTC).timestamp()


KEY_VAULT = "microsoft.keyvault"
KEY_VAULT_API = gateway._PROVIDERS[KEY_VAULT].api_version


@pytest.mark.parametrize("version", [KEY_VAULT_API, "2026-05-15"])
def test_an_account_is_available_after_the_retirement_of_versions(
    runner: OneProcess, service: Service, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """The second version shows that the collection sets the API version, and not the SDK."""
    monkeypatch.setitem(gateway._PROVIDERS, KEY_VAULT, gateway._PROVIDERS[KEY_VAULT]._replace(api_version=version))
    control = service.sandbox.control
    control.advance(max(0, MARCH - control.call("GET", "/clock")["time"]))
    since = control.last

    def run(role: str, **wanted: Any) -> None:
        report = runner.role(role, {**VARS, **wanted})
        assert not report.get("failed"), report

    run("provision", cmk_vault_authorization="access_policy", cmk_key_version_mode="follow")
    run("rotate", cmk_key_new_version=True)
    service.delete_vault()
    assert not service.is_available()
    run("recover", cmk_wait_timeout=600)
    assert service.is_available()
    run("audit", cmk_audit_folder=str(runner.tokens))
    run("revert", cmk_unused_key="delete", cmk_unused_access="revoke", **AT_ONCE)

    asked = [urlsplit(one["url"]) for one in control.requests(since)]
    stated = {parse_qs(one.query)["api-version"][0] for one in asked if "/Microsoft.KeyVault/" in one.path}
    # The helper `service` sends requests too, with KEY_VAULT_API.
    assert stated == {version, KEY_VAULT_API}
