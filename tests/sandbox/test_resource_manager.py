# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Resource Manager: what a reader and others can see."""

from __future__ import annotations

import requests
from sandbox_client import Control, Sandbox

VERSION = "2022-09-01"
BATCH_VERSION = "2024-07-01"


def error(response: requests.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


# Permissions


def test_a_reader_reads(sandbox: Sandbox, control: Control) -> None:
    reader = control.principal(roles=[{"role": "Reader", "scope": sandbox.group}])
    session = sandbox.bearer(client_id=reader["client_id"], secret=reader["secret"])
    assert sandbox.arm("GET", sandbox.group, VERSION, session=session).ok
    for position, count in (("readable", 0), ("any_role", 1)):
        control.behavior(listed_subscriptions=position)
        assert len(sandbox.arm("GET", "/subscriptions", "2022-12-01", session=session).json()["value"]) == count
    tags = {"location": "westeurope", "tags": {"a": "b"}}
    assert error(sandbox.arm("PUT", sandbox.group, VERSION, tags, session)) == (403, "AuthorizationFailed")
    account = f"{sandbox.group}/providers/Microsoft.Batch/batchAccounts/acct"
    refusal = sandbox.arm("DELETE", account, BATCH_VERSION, session=session)
    assert f"'Microsoft.Batch/batchAccounts/delete' over scope '{account}'" in refusal.json()["error"]["message"]


def test_a_refusal_does_not_reveal_which_resources_exist(sandbox: Sandbox, control: Control) -> None:
    somebody = control.principal()
    session = sandbox.bearer(client_id=somebody["client_id"], secret=somebody["secret"])
    for group in ("rg-sandbox", "nobodys"):
        path = f"{sandbox.subscription}/resourceGroups/{group}/providers/Microsoft.Batch/batchAccounts"
        response = sandbox.arm("GET", path, BATCH_VERSION, session=session)
        assert error(response) == (403, "AuthorizationFailed")
        assert f"over scope '{sandbox.subscription}/resourceGroups/{group}'" in response.json()["error"]["message"]
