# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Requests through the SDKs' own pipelines, with an HTTP adapter in memory."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.azbatch.cmk.plugins.module_utils._arguments import CONNECTION
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.gateway import Gateway, _moment
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.sdk import transport
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.session import Session
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError, NotFound, TimedOut

pytest.importorskip("azure.mgmt.core")

GROUP = "/subscriptions/s/resourceGroups/g"
ACCOUNT = f"{GROUP}/providers/Microsoft.Batch/batchAccounts/a"
MANAGEMENT = "https://management.azure.com"


class Credential:
    def get_token(self, *_scopes: str, **_options: Any) -> Any:
        from azure.core.credentials import AccessToken

        return AccessToken("token", 2**31)


class Azure:
    """The responses to all requests, one after the other: status, document or text, and headers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *responses: Any, wait_timeout: int = 600) -> None:
        import requests

        left, sent = list(responses), list[Any]()

        class Adapter(requests.adapters.BaseAdapter):
            def send(self, request: Any, *_args: Any, **_options: Any) -> Any:
                sent.append(request)
                status, document, *headers = left.pop(0)
                response = requests.Response()
                response.status_code, response.request, response.url = status, request, request.url
                response.headers.update({"Content-Type": "application/json", **dict(*headers)})
                text = document if isinstance(document, str) else json.dumps(document)
                response.raw = io.BytesIO(text.encode())
                return response

            def close(self) -> None:
                pass

        given = {"auth_source": "msi", "cloud_environment": "AzureCloud", "wait_timeout": wait_timeout}
        session = Session({**dict.fromkeys(CONNECTION), **given})
        monkeypatch.setattr(Session, "credential", Credential())
        monkeypatch.setattr(Session, "_transport", transport(lambda _to_azure: Adapter()))
        self.session, self.gateway = session, Gateway(session)
        self._sent = sent

    @property
    def sent(self) -> list[str]:
        return [f"{one.method} {one.url.removeprefix(MANAGEMENT).partition('?')[0]}" for one in self._sent]


def error(code: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": "It says so."}}


def test_a_missing_group_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound):
        Azure(monkeypatch, (404, error("ResourceGroupNotFound"))).gateway.find("read it", ACCOUNT)


def test_the_page_of_a_proxy_is_no_failed_sign_in(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CmkError) as failed:
        Azure(monkeypatch, (200, "<html>Welcome</html>")).gateway.find("read it", ACCOUNT)

    assert failed.value.code == "service_unavailable"


OPERATION = {"Location": f"{MANAGEMENT}/subscriptions/s/operations/1?api-version=2025-06-01", "Retry-After": "1"}


@pytest.mark.parametrize(("status", "is_shown"), [(200, True), (404, False)])
def test_a_long_running_operation(monkeypatch: pytest.MonkeyPatch, status: int, is_shown: bool) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    azure = Azure(monkeypatch, (202, "", OPERATION), (202, "", OPERATION), (status, {"name": "a"}))

    operation = azure.gateway.begin("create it", "PUT", ACCOUNT, {"location": "westeurope"})

    assert azure.gateway.finish("create it", operation) is is_shown
    assert (operation.document, operation.polled) == (None, {"name": "a"} if is_shown else None)
    assert azure.sent == [f"PUT {ACCOUNT}", *["GET /subscriptions/s/operations/1"] * 2]


def test_an_operation_that_does_not_end_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    azure = Azure(monkeypatch, *[(202, "", {**OPERATION, "Retry-After": "60"})] * 2, wait_timeout=0)

    with pytest.raises(TimedOut) as failed:
        azure.gateway.finish("delete it", azure.gateway.begin("delete it", "DELETE", ACCOUNT))

    assert failed.value.facts["option"] == "wait_timeout"
    assert "InProgress" in str(failed.value)


# Times in headers


@pytest.mark.parametrize(
    ("headers", "moment"),
    [
        ({}, None),
        ({"Date": "Thu, 28 May 2026 20:26:40 GMT"}, 1_780_000_000.0),
        ({"Date": "Thu, 28 May 2026 22:26:40 +0200"}, 1_780_000_000.0),
        ({"Date": "0"}, None),
        ({"Date": "Thu, 99 May 2026 20:26:40 GMT"}, None),
    ],
)
def test_a_header_without_a_time_is_no_error(headers: dict[str, Any], moment: float | None) -> None:
    assert _moment(SimpleNamespace(headers=headers), "Date") == moment
