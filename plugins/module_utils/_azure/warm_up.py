# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Prepares the SDKs for their first request before Ansible forks its workers. Otherwise each worker would do that.

The SDKs import their modules for requests, and build the deserializers of responses. No request is sent.

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

_ID = "00000000-0000-0000-0000-000000000000"
# The response of an account and of a list in one document: each reader uses its fields and ignores the others.
_ANSWER = {
    # SDKs that parse times compile their patterns when they read the first time.
    "value": [{"id": f"/subscriptions/{_ID}", "properties": {"principalId": _ID, "createdOn": "2026-01-01T00:00:00Z"}}],
    "id": f"/subscriptions/{_ID}/resourceGroups/group/providers/Microsoft.Batch/batchAccounts/account",
    "name": "account",
    "location": "westeurope",
    "identity": {"type": "UserAssigned", "userAssignedIdentities": {"identity": {"principalId": _ID}}},
    "properties": {
        "provisioningState": "Succeeded",
        "encryption": {"keySource": "Microsoft.KeyVault", "keyVaultProperties": {"keyIdentifier": "https://key"}},
    },
}


def warm_up() -> MissingSdk | None:
    """Import the SDKs, and let them read a response. Returns the error if they cannot be imported."""
    try:
        for package in sdk.FLOORS:
            sdk.load(package)
    except MissingSdk as missing:
        return missing
    # If this fails, the tasks are only slower.
    with contextlib.suppress(Exception), sdk.unlogged():
        read_answers()
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


def read_answers() -> None:
    import requests

    core = sdk.load("azure-core")

    class Nobody:
        def get_token(self, *scopes: str, **kwargs: Any) -> Any:
            return core.credentials.AccessToken("none", int(time.time()) + 3600)

    with requests.Session() as session:
        session.mount("https://", answering(_ANSWER))
        transport = core.pipeline.transport.RequestsTransport(session=session, session_owner=False)
        batch = sdk.load("azure-mgmt-batch").BatchManagementClient(Nobody(), _ID, transport=transport)
        batch.batch_account.get("group", "account")
        batch.batch_account.update("group", "account", b"{}")
        list(batch.pool.list_by_batch_account("group", "account"))
        authorization = sdk.load("azure-mgmt-authorization").AuthorizationManagementClient(
            Nobody(), _ID, api_version=sdk.AUTHORIZATION_API, transport=transport
        )
        list(authorization.role_assignments.list_for_scope("scope"))
