# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
import requests

from ansible_collections.azbatch.cmk.plugins.module_utils._azure import sdk

SETTINGS = {"stream": True, "verify": True, "cert": None}


@pytest.fixture
def proxies(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("https_proxy", "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/bundle.pem")
    return monkeypatch


def merged(session: requests.Session, host: str, **settings: Any) -> Any:
    return session.merge_environment_settings(f"https://{host}/path", {}, *{**SETTINGS, **settings}.values())


def test_the_environment_is_read_once_for_each_host(proxies: pytest.MonkeyPatch) -> None:
    session = sdk.transport().session
    first = merged(session, "management.azure.com")
    proxies.setenv("HTTPS_PROXY", "http://127.0.0.1:2")

    assert (first["proxies"]["https"], first["verify"]) == ("http://127.0.0.1:1", "/bundle.pem")
    assert merged(session, "management.azure.com")["proxies"]["https"] == "http://127.0.0.1:1"
    assert merged(session, "vault.azure.net")["proxies"]["https"] == "http://127.0.0.1:2"
    assert merged(sdk.transport().session, "management.azure.com")["proxies"]["https"] == "http://127.0.0.1:2"


def test_a_host_may_need_no_proxy(proxies: pytest.MonkeyPatch) -> None:
    proxies.setenv("NO_PROXY", ".vault.azure.net")
    session = sdk.transport().session

    assert "https" in merged(session, "management.azure.com")["proxies"]
    assert "https" not in merged(session, "kv.vault.azure.net")["proxies"]


def test_requests_are_sent_once() -> None:
    """Only the SDKs retry."""
    sent: list[Any] = []

    class Adapter(requests.adapters.BaseAdapter):
        def __init__(self, to_azure: Any) -> None:
            sent.append(to_azure.max_retries)

    transport = sdk.transport(Adapter)

    assert isinstance(transport.session.get_adapter("https://management.azure.com"), Adapter)
    assert [(one.total, one.redirect, one.raise_on_status) for one in sent] == [(False, 0, False)]
