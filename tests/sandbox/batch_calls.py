# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Helpers of the tests of Batch."""

from __future__ import annotations

from typing import Any

import requests
from sandbox_client import Sandbox

VERSION = "2025-06-01"


def account_path(sandbox: Sandbox, name: str) -> str:
    return f"{sandbox.group}/providers/Microsoft.Batch/batchAccounts/{name}"


def batch(sandbox: Sandbox, method: str, name: str, body: Any = None, below: str = "") -> requests.Response:
    return sandbox.arm(method, account_path(sandbox, name) + below, VERSION, body)


def create(sandbox: Sandbox, name: str = "account1", **body: Any) -> dict[str, Any]:
    """Create an account and return it as a GET shows it. Without --realistic, it is created at once."""
    response = batch(sandbox, "PUT", name, {"location": "westeurope", **body})
    assert response.status_code == 202, response.text
    return read(sandbox, name)


def read(sandbox: Sandbox, name: str = "account1") -> dict[str, Any]:
    response = batch(sandbox, "GET", name)
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


def refused(response: requests.Response, status: int, code: str) -> dict[str, str]:
    """The details in the message of a refusal by the service, by their labels."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["code"] == code
    summary, request_id, time = error["message"].split("\n")
    assert summary.endswith(".")
    assert request_id == f"RequestId:{response.headers['x-ms-request-id']}"
    assert time.startswith("Time:20")
    assert time.endswith("Z")
    assert error["target"] == "BatchAccount"
    assert "x-ms-failure-cause" not in response.headers
    return {detail["code"]: detail["message"] for detail in error["details"]}


def stopped_at_the_gateway(response: requests.Response, status: int, code: str) -> str:
    """The message of a refusal by the gateway, before the request reaches the service."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["code"] == code
    assert error.keys() == {"code", "message"}
    assert response.headers["x-ms-failure-cause"] == "gateway"
    assert response.headers["x-ms-request-id"] == response.headers["x-ms-correlation-request-id"]
    message: str = error["message"]
    return message


def user_assigned_identity(sandbox: Sandbox, name: str = "identity1") -> dict[str, Any]:
    path = f"{sandbox.group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
    response = sandbox.arm("PUT", path, "2023-01-31", {"location": "westeurope"})
    assert response.status_code == 201, response.text
    identity: dict[str, Any] = response.json()
    return identity
