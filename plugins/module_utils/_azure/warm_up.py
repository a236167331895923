# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Prepares the SDKs for their first request before Ansible forks its workers. Otherwise each worker would do that.

The SDKs import modules when they build a client and send their first request. No request is sent here.

This module util is private to the collection.
"""

from __future__ import annotations

import contextlib
import io
import json
import time
from typing import Any

from .._core.errors import MissingSdk
from . import sdk
from .credentials import environment_of
from .gateway import Gateway
from .sdk import transport
from .session import Session

_ACCOUNT = "/subscriptions/none/resourceGroups/none/providers/Microsoft.Batch/batchAccounts/none"


def warm_up() -> MissingSdk | None:
    """Import the SDKs, and let them read a response. Returns the error if they cannot be imported."""
    try:
        for package in sdk.FLOORS:
            sdk.load(package)
    except MissingSdk as missing:
        return missing
    # If this fails, the tasks are only slower.
    with contextlib.suppress(Exception), sdk.unlogged():
        send_requests()
    return None


def answering(document: Any) -> Any:
    """An HTTP adapter that responds to each request with the document, and sends nothing."""
    import requests

    class Answering(requests.adapters.BaseAdapter):
        def send(self, request: Any, *args: Any, **kwargs: Any) -> requests.Response:
            answer = requests.Response()
            answer.status_code, answer.request, answer.url = 200, request, request.url
            answer.headers["Content-Type"] = "application/json"
            answer.raw = io.BytesIO(json.dumps(document).encode())
            return answer

        def close(self) -> None:
            pass

    return Answering()


def send_requests() -> None:
    """Send a request through each client of the SDKs to an adapter in memory."""

    class Nobody:
        def get_token(self, *scopes: str, **kwargs: Any) -> Any:
            return sdk.load("azure-core").credentials.AccessToken("none", int(time.time()) + 3600)

    session = Session({"wait_timeout": 0})
    session.__dict__.update(
        credential=Nobody(),
        environment=environment_of("AzureCloud"),
        fingerprint="none",
        _transport=transport(lambda _to_azure: answering({"value": []})),
    )
    gateway = Gateway(session)
    gateway.find("read an account", _ACCOUNT)
    gateway.write("change an account", "PATCH", _ACCOUNT, {})
    gateway.list("list role assignments", f"{_ACCOUNT}/providers/Microsoft.Authorization/roleAssignments", "atScope()")
    gateway.find("read a key", "https://none.vault.azure.net/keys/none")
