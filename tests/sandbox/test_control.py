# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The control API: the request log has no secrets; faults; reset."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest
import requests
from sandbox_client import MANAGEMENT, VAULT_SCOPE, VAULTS, Control, Sandbox

from azure_sandbox.request_log import kept_body, kept_url

VERSION = "2022-09-01"
BATCH_VERSION = "2024-07-01"
KEYS_VERSION = "7.4"


def account(sandbox: Sandbox, name: str = "acct") -> str:
    return f"{sandbox.group}/providers/Microsoft.Batch/batchAccounts/{name}"


def get_group(sandbox: Sandbox) -> requests.Response:
    return sandbox.arm("GET", sandbox.group, VERSION)


def make_vault(sandbox: Sandbox) -> str:
    path = f"{sandbox.group}/providers/Microsoft.KeyVault/vaults/control-vault"
    properties = {
        "tenantId": sandbox.tenant_id,
        "sku": {"family": "A", "name": "standard"},
        "accessPolicies": [],
        "enableRbacAuthorization": True,
    }
    assert sandbox.arm("PUT", path, VAULTS, {"location": "westeurope", "properties": properties}).ok
    return "https://control-vault.vault.azure.net"


# The request log

# Each part of this pool that starts with "private-" is a secret.
SECRETIVE_POOL: dict[str, Any] = {
    "metadata": [{"name": "owner", "value": "visible-one"}, {"name": "storageAccountKey", "value": "private-setting"}],
    "userAccounts": [{"name": "a", "password": "private-password"}],
    "startTask": {
        "commandLine": "mount --password private-argument 'AccountName=a;AccountKey=private-connection=='",
        "resourceFiles": [{"httpUrl": "https://a.blob/visible-two?sv=2024&sig=private-signature&se=2027"}],
        "containerSettings": {"registry": {"username": "a", "password": ["private-list"]}},
    },
    "mountConfiguration": [{"azureFileShareConfiguration": {"accountKey": {"value": "private-container"}}}],
}


def test_no_secret_is_in_the_log(sandbox: Sandbox, control: Control) -> None:
    sandbox.tokens.clear()
    token = sandbox.token()
    vault = make_vault(sandbox)
    private = {"kty": "RSA", "n": "public-part", "e": "AQAB", **{part: f"private-{part}" for part in "dpq"}}
    session = sandbox.bearer(VAULT_SCOPE)
    session.put(f"{vault}/keys/k2?api-version={KEYS_VERSION}", json={"key": private}, timeout=30)
    session.post(f"{vault}/keys/restore?api-version={KEYS_VERSION}", json={"value": "private-backup"}, timeout=30)
    session.post(f"{vault}/keys/restore?api-version={KEYS_VERSION}", data=b"private {", timeout=30)
    pool = f"{account(sandbox)}/pools/secretive"
    sandbox.arm("PUT", pool, BATCH_VERSION, {"properties": SECRETIVE_POOL})
    for path in ("x", "x%3F", "x%23"):
        session.get(f"{MANAGEMENT}/{path}?a=b&client_secret={sandbox.secret}&Sig=private-signature", timeout=30)
    log = control._session.get(f"{control.url}/requests", timeout=30).text
    assert "client_secret=(hidden)" in log
    assert log.count("?a=b&client_secret=(hidden)&Sig=(hidden)") == 3
    assert "public-part" in log
    (kept,) = [entry["body"]["properties"] for entry in control.requests() if pool in entry["url"]]
    assert kept["metadata"][0] == {"name": "owner", "value": "visible-one"}
    assert kept["startTask"]["resourceFiles"][0]["httpUrl"] == "https://a.blob/visible-two?sv=2024&sig=(hidden)&se=2027"
    for secret in (sandbox.secret, token, token.rpartition(".")[2], "private-", "private {"):
        assert secret not in log


@pytest.mark.parametrize(
    "text",
    [
        "DefaultEndpointsProtocol=https;AccountName=shown;AccountKey=private+/==;EndpointSuffix=core.windows.net",
        "SharedAccessSignature=sv=2024&sig=private%2Bpart&se=2027",
        "next=https%3A%2F%2Fx%3Fa%3Db%26sig%3Dprivate%26se%3D2027",
        "Server=x;User Id=a;Password = 'private part';Encrypt=True",
        "az login --service-principal -u x --password private",
        '{"client_secret": "private", "scope": "x"}',
        "https://somebody:private@example.com/path",
        "curl -H 'Authorization: Bearer private'",
        "-----BEGIN RSA PRIVATE KEY-----\nprivate\n-----END RSA PRIVATE KEY-----\nrest",
    ],
)
def test_secrets_in_texts_are_hidden(text: str) -> None:
    kept = kept_body(json.dumps({"a": [text], text: 1}).encode(), "application/json", "resource_manager").decode()
    assert "private" not in kept
    assert "(hidden)" in kept
    assert len(kept) > len(text)
    assert "private" not in kept_url("https://x/y", urlencode({"q": text}))


# Faults


def test_a_fault_with_a_response(sandbox: Sandbox, control: Control) -> None:
    control.fault(
        match={"method": "get", "host": "management", "path": "/resourceGroups/"},
        skip=1,
        times=2,
        answer={"status": 418, "headers": {"retry-after": "7"}, "body": {"error": {"code": "Teapot"}}},
    )
    responses = [get_group(sandbox) for _ in range(4)]
    assert [response.status_code for response in responses] == [200, 418, 418, 200]
    assert responses[1].headers["retry-after"] == "7"
    assert responses[1].json() == {"error": {"code": "Teapot"}}
    (fault,) = control.call("GET", "/faults")["faults"]
    assert (fault["matched"], fault["applied"], fault["skip"]) == (4, 2, 1)
    faulted = [entry for entry in control.requests() if entry["fault"]]
    assert [entry["status"] for entry in faulted] == [418, 418]
    control.call("DELETE", "/faults")
    assert control.call("GET", "/faults") == {"faults": []}


@pytest.mark.parametrize(("drop", "written"), [("before", False), ("after", True)])
def test_a_dropped_connection(sandbox: Sandbox, control: Control, drop: str, written: bool) -> None:
    control.fault(match={"method": "PATCH"}, drop=drop)
    with pytest.raises(requests.exceptions.ConnectionError):
        sandbox.arm("PATCH", sandbox.group, VERSION, {"tags": {"a": "b"}})
    assert (get_group(sandbox).json().get("tags") == {"a": "b"}) is written
    (entry,) = [entry for entry in control.requests() if entry["method"] == "PATCH"]
    assert (entry["status"], entry["write"]) == (None, written)


def test_a_write_that_is_handled_with_another_response(sandbox: Sandbox, control: Control) -> None:
    control.fault(match={"method": "PATCH"}, handled=True, answer={"status": 500})
    assert sandbox.arm("PATCH", sandbox.group, VERSION, {"tags": {"a": "b"}}).status_code == 500
    assert get_group(sandbox).json()["tags"] == {"a": "b"}
    assert [entry["status"] for entry in control.requests(writes=True)] == [500]


def test_a_truncated_response(sandbox: Sandbox, control: Control) -> None:
    control.fault(match={"method": "PATCH"}, truncate=10)
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="10 bytes read"):
        sandbox.arm("PATCH", sandbox.group, VERSION, {"tags": {"a": "b"}})
    assert get_group(sandbox).json()["tags"] == {"a": "b"}
