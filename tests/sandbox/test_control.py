# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The control API: request log, faults, clock, timing, principals, reset."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlencode

import pytest
import requests
from sandbox_client import LOGIN, MANAGEMENT, VAULT_SCOPE, VAULTS, Control, Sandbox

from azure_sandbox.request_log import kept_body, kept_url
from azure_sandbox.shared.behavior import POSITIONS

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


def test_fields_of_an_entry(sandbox: Sandbox, control: Control) -> None:
    response = sandbox.arm("PUT", account(sandbox), BATCH_VERSION, {"location": "westeurope"})
    assert response.status_code == 202
    (entry,) = control.requests(writes=True)
    assert entry.pop("milliseconds") > 0
    assert entry.pop("time").endswith("Z")
    assert entry.pop("number") > 0
    owner = next(p for p in control.call("GET", "/principals")["principals"] if p["name"] == "operator")
    assert entry == {
        "method": "PUT",
        "url": f"{MANAGEMENT}{account(sandbox)}?api-version={BATCH_VERSION}",
        "host": "management.azure.com",
        "body": {"location": "westeurope"},
        "status": 202,
        "principal": owner["object_id"],
        "service": "resource_manager",
        "route": (
            "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Batch/batchAccounts/{account}"
        ),
        "write": True,
        "fault": None,
    }


def test_write_requests_are_marked_in_the_log(sandbox: Sandbox, control: Control) -> None:
    path = account(sandbox)
    location = f"{sandbox.subscription}/providers/Microsoft.Batch/locations/westeurope"
    wanted = {"name": "acct", "type": "Microsoft.Batch/batchAccounts"}
    done = sandbox.arm("PUT", path, BATCH_VERSION, {"location": "westeurope"})
    while done.status_code == 202:
        done = sandbox.bearer().get(done.headers.get("location") or location, timeout=30)
    for method, where, body in (
        ("GET", path, None),
        ("POST", f"{path}/listKeys", None),
        ("POST", f"{location}/checkNameAvailability", wanted),
        ("PATCH", path, {"tags": {"a": "b"}}),
        ("PATCH", path, {"properties": {"encryption": {"keySource": "Microsoft.KeyVault"}}}),
        ("POST", f"{path}/regenerateKeys", {"keyName": "Primary"}),
        ("PUT", f"{sandbox.group}/providers/Microsoft.Nothing/things/a", {}),
        ("DELETE", path, None),
    ):
        sandbox.arm(method, where, BATCH_VERSION, body)
    made = [(entry["method"], entry["url"].partition("?")[0].rpartition("/")[2]) for entry in control.requests(0, True)]
    assert made == [("PUT", "acct"), ("PATCH", "acct"), ("POST", "regenerateKeys"), ("DELETE", "acct")]


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


def test_since_and_forget(sandbox: Sandbox, control: Control) -> None:
    for _ in range(3):
        get_group(sandbox)
    last = control.call("GET", "/requests")["last"]
    assert control.requests(since=last) == []
    get_group(sandbox)
    assert [entry["number"] for entry in control.requests(since=last)] == [last + 1]
    control.call("DELETE", "/requests")
    assert control.requests() == []
    get_group(sandbox)
    assert control.requests()[0]["number"] == last + 2


def test_missing_operations_are_logged_as_unknown(sandbox: Sandbox, control: Control) -> None:
    sandbox.arm("GET", f"{sandbox.group}/nowhere", VERSION)
    sandbox.session().get(f"{LOGIN}/{sandbox.tenant_id}/nowhere", timeout=30)
    sandbox.arm("GET", f"{sandbox.group}/nowhere", VERSION, session=sandbox.session())
    get_group(sandbox)
    assert [entry["status"] for entry in control.requests() if entry["route"] == "unauthenticated"] == [401]
    assert [(entry["service"], entry["status"]) for entry in control.unknown()] == [
        ("resource_manager", 404),
        ("entra", 404),
    ]


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


def test_a_delay(sandbox: Sandbox, control: Control) -> None:
    control.fault(delay=0.5)
    started = time.monotonic()
    assert get_group(sandbox).ok
    assert time.monotonic() - started >= 0.5


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


def test_a_fault_for_a_while(sandbox: Sandbox, control: Control) -> None:
    control.fault(seconds=60, answer={"status": 503})
    assert [get_group(sandbox).status_code for _ in range(3)] == [503] * 3
    control.advance(60)
    assert get_group(sandbox).ok


def test_tokens_that_expire_in_mid_run(sandbox: Sandbox, control: Control) -> None:
    """Tokens for Key Vault expire too, with a challenge in the response. A new token is valid at once."""
    vault = make_vault(sandbox)
    keys = sandbox.bearer(VAULT_SCOPE)
    control.fault(match={"path": "/resourceGroups/"}, skip=1, expire_tokens=True)
    assert get_group(sandbox).ok
    expired = get_group(sandbox)
    assert (expired.status_code, expired.json()["error"]["code"]) == (401, "ExpiredAuthenticationToken")
    refused = keys.get(f"{vault}/keys?api-version={KEYS_VERSION}", timeout=30)
    assert (refused.status_code, "www-authenticate" in refused.headers) == (401, True)
    sandbox.tokens.clear()
    assert get_group(sandbox).ok


@pytest.mark.parametrize(
    "description",
    [
        {},
        {"answer": {"status": 99}},
        {"answer": {"status": 200, "headers": {"x": "a\r\ny: b"}}},
        {"answer": "500"},
        {"delay": -1},
        {"drop": "sometimes"},
        {"drop": "before", "times": -1},
        {"drop": "before", "often": 3},
        {"drop": "before", "match": {"path": "("}},
        {"drop": "before", "match": {"url": "x"}},
    ],
)
def test_a_fault_that_makes_no_sense(control: Control, description: dict[str, Any]) -> None:
    assert control.call("POST", "/faults", description, status=400)["error"]["code"] == "BadRequest"
    assert control.call("GET", "/faults") == {"faults": []}


# Clock and timing


def test_the_clock(sandbox: Sandbox, control: Control) -> None:
    began = time.time()
    before = control.call("GET", "/clock")["time"]
    after = control.call("POST", "/clock/advance", {"seconds": 86400})["time"]
    ended = time.time()
    assert began <= before <= after - 86400 <= ended
    assert get_group(sandbox).ok, "the validity of tokens depends on the machine's clock"
    for wrong in ({}, {"seconds": -1}, {"seconds": "1"}, {"seconds": True}, {"seconds": 10**10}, {"seconds": 1e300}):
        control.call("POST", "/clock/advance", wrong, status=400)


def test_timing(control: Control) -> None:
    quick = control.call("GET", "/timing")
    assert (quick["retry_after"], quick["batch_create"], quick["throttling"]) == (1, 0, False)
    control.timing(batch_create=9.5, throttling=True)
    assert control.call("GET", "/timing") == {**quick, "batch_create": 9.5, "throttling": True}
    for wrong in (
        {"nothing": 1},
        {"batch_create": "1"},
        {"batch_create": -1},
        {"throttling": 1},
        {"vault_dns": 10**400},
    ):
        control.call("PATCH", "/timing", wrong, status=400)


def test_behavior(control: Control) -> None:
    control.reset()
    hardest = {name: positions[0] for name, positions in POSITIONS.items()}
    assert control.call("GET", "/behavior") == hardest
    control.behavior(subscription_list="denied")
    assert control.call("GET", "/behavior") == {**hardest, "subscription_list": "denied"}
    for wrong in ({"nothing": "denied"}, {"subscription_list": "maybe"}, {"subscription_list": ["denied"]}):
        control.call("PATCH", "/behavior", wrong, status=400)
    control.reset()
    assert control.call("GET", "/behavior") == hardest


# Reset and others


def test_reset(sandbox: Sandbox, control: Control) -> None:
    environment = control.call("GET", "/environment")
    group = f"{sandbox.subscription}/resourceGroups/new"
    assert sandbox.arm("PUT", group, VERSION, {"location": "westeurope"}).ok
    make_vault(sandbox)
    control.advance(3600)
    control.timing(retry_after=5)
    control.fault(match={"path": "nowhere"}, delay=1)
    control.reset()
    assert control.requests() == []
    assert control.call("GET", "/faults") == {"faults": []}
    assert control.call("GET", "/clock")["time"] - time.time() < 60
    assert control.call("GET", "/timing")["retry_after"] == 1
    assert sandbox.arm("GET", group, VERSION).status_code == 404
    assert sandbox.arm("GET", f"{sandbox.subscription}/resources", VERSION).json()["value"] == []
    assert control.call("GET", "/environment") == environment
    assert get_group(sandbox).ok, "tokens from before stay good"


def test_a_reset_drops_delayed_requests(sandbox: Sandbox, control: Control) -> None:
    """A client that has disconnected must not leave entries in the log of the next test."""
    group = f"{sandbox.subscription}/resourceGroups/delayed"
    control.fault(match={"method": "PUT", "path": "delayed"}, delay=2)
    with ThreadPoolExecutor() as pool:
        delayed = pool.submit(sandbox.arm, "PUT", group, VERSION, {"location": "westeurope"})
        while not control.call("GET", "/faults")["faults"][0]["applied"]:
            time.sleep(0.05)
        control.reset()
        with pytest.raises(requests.ConnectionError):
            delayed.result()
    assert control.requests() == []
    assert sandbox.arm("GET", group, VERSION).status_code == 404


def test_responses_are_dated_by_the_sandboxs_clock(sandbox: Sandbox, control: Control) -> None:
    """A client may use the time of the service, because its own clock may be wrong."""

    def dated() -> float:
        return parsedate_to_datetime(sandbox.arm("GET", sandbox.group, "2021-04-01").headers["Date"]).timestamp()

    began = time.time()
    before = dated()
    control.advance(90 * 86400)

    # The header has whole seconds.
    assert int(began) <= before <= dated() - 90 * 86400 <= time.time()
