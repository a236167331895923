# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Resource Manager: the order of the gateway's checks, subscriptions, groups, providers and lists."""

from __future__ import annotations

import re
from typing import Any

import pytest
import requests
from sandbox_client import MANAGEMENT, VAULTS, Control, Sandbox

VERSION = "2022-09-01"
BATCH_VERSION = "2024-07-01"
ELSEWHERE = "33333333-3333-3333-3333-333333333333"
GUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


def error(response: requests.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def signed_in(sandbox: Sandbox, token: str) -> requests.Session:
    session = sandbox.session()
    session.headers["authorization"] = f"Bearer {token}"
    return session


# Tokens


def test_no_token(sandbox: Sandbox) -> None:
    response = sandbox.arm("GET", sandbox.group, VERSION, session=sandbox.session())
    assert error(response) == (401, "AuthenticationFailed")
    assert response.headers["www-authenticate"] == (
        f'Bearer authorization_uri="https://login.windows.net/{sandbox.tenant_id}", error="invalid_token", '
        "error_description=\"The authentication failed because of missing 'Authorization' header.\""
    )


def test_a_token_that_was_changed(sandbox: Sandbox) -> None:
    header, claims, signature = sandbox.token().split(".")
    for forged in (f"{header}.{claims}.{signature[::-1]}", f"{header}.{claims}."):
        response = sandbox.arm("GET", sandbox.group, VERSION, session=signed_in(sandbox, forged))
        assert error(response) == (401, "InvalidAuthenticationToken")


def test_a_token_that_has_expired(sandbox: Sandbox, control: Control) -> None:
    somebody = control.principal(token_lifetime=-10)
    session = sandbox.bearer(client_id=somebody["client_id"], secret=somebody["secret"])
    response = sandbox.arm("GET", sandbox.group, VERSION, session=session)
    assert error(response) == (401, "ExpiredAuthenticationToken")
    moment = r"\d{1,2}/\d{1,2}/\d{4} \d{1,2}:\d{2}:\d{2} [AP]M"
    pattern = f"The access token expiry UTC time '{moment}' is earlier than current UTC time '{moment}'."
    assert re.fullmatch(pattern, response.json()["error"]["message"])


# Operation and version


@pytest.mark.parametrize(
    ("method", "path", "version", "expected"),
    [
        ("GET", "{group}", "", (400, "MissingApiVersionParameter")),
        ("GET", "{group}", "1999-01-01", (400, "InvalidApiVersionParameter")),
        ("GET", "{group}/providers/Microsoft.Batch/batchAccounts/a", "1999-01-01", (400, "NoRegisteredProviderFound")),
        ("GET", "{group}/providers/Microsoft.Nothing/things/a", VERSION, (404, "InvalidResourceNamespace")),
        ("GET", "{group}/providers/Microsoft.Batch/things/a", BATCH_VERSION, (404, "InvalidResourceType")),
        ("POST", "{group}", VERSION, (405, "MethodNotAllowed")),
        ("GET", "{group}/nowhere", VERSION, (404, "NotInSandbox")),
        ("GET", "/subscriptions/nonsense/resourceGroups/g", VERSION, (400, "InvalidSubscriptionId")),
        ("GET", f"/subscriptions/{ELSEWHERE}/resourceGroups/g", VERSION, (404, "SubscriptionNotFound")),
        ("GET", "{subscription}/resourceGroups/nobodys", VERSION, (404, "ResourceGroupNotFound")),
        (
            "GET",
            "{subscription}/resourceGroups/nobodys/providers/Microsoft.Batch/batchAccounts/a",
            BATCH_VERSION,
            (404, "ResourceGroupNotFound"),
        ),
        ("GET", "{group}/providers/Microsoft.Batch/batchAccounts/a", BATCH_VERSION, (404, "ResourceNotFound")),
    ],
)
def test_gateway_refuses_malformed_requests(
    sandbox: Sandbox, method: str, path: str, version: str, expected: tuple[int, str]
) -> None:
    path = path.format(group=sandbox.group, subscription=sandbox.subscription)
    response = sandbox.arm(method, path, version)
    assert error(response) == expected
    assert response.headers["x-ms-failure-cause"] == "gateway"
    assert response.headers["x-ms-request-id"] == response.headers["x-ms-correlation-request-id"]
    assert set(response.json()["error"]) == {"code", "message"}


def test_paths_and_parameters_in_any_letter_case(sandbox: Sandbox) -> None:
    session = sandbox.bearer()
    path = sandbox.group.upper()
    response = session.get(f"{MANAGEMENT}/{path}/?API-Version={VERSION}", timeout=30)
    assert response.json()["id"] == sandbox.group


# Permissions


def test_a_caller_without_a_role(sandbox: Sandbox, control: Control) -> None:
    somebody = control.principal()
    session = sandbox.bearer(client_id=somebody["client_id"], secret=somebody["secret"])
    response = sandbox.arm("GET", sandbox.group, VERSION, session=session)
    assert error(response) == (403, "AuthorizationFailed")
    assert response.json()["error"]["message"] == (
        f"The client '{somebody['client_id']}' with object id '{somebody['object_id']}' does not have authorization to "
        f"perform action 'Microsoft.Resources/subscriptions/resourceGroups/read' over scope '{sandbox.group}' or the "
        "scope is invalid. If access was recently granted, please refresh your credentials."
    )
    assert sandbox.arm("GET", "/subscriptions", "2022-12-01", session=session).json()["value"] == []


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


# Tenants, subscriptions, the cloud


def test_subscriptions_and_tenants(sandbox: Sandbox) -> None:
    listed = sandbox.arm("GET", "/subscriptions", "2022-12-01").json()["value"]
    assert [(s["subscriptionId"], s["tenantId"], s["state"]) for s in listed] == [
        (sandbox.subscription_id, sandbox.tenant_id, "Enabled")
    ]
    assert sandbox.arm("GET", sandbox.subscription, "2022-12-01").json() == listed[0]
    tenants = sandbox.arm("GET", "/tenants", "2022-12-01").json()["value"]
    assert [tenant["tenantId"] for tenant in tenants] == [sandbox.tenant_id]
    assert sandbox.arm("GET", f"{sandbox.subscription}/locations", "2022-12-01").json()["value"]


# Resource groups


def test_a_group_is_created_changed_and_deleted(sandbox: Sandbox) -> None:
    path = f"{sandbox.subscription}/resourceGroups/New"
    assert sandbox.arm("HEAD", path, VERSION).status_code == 404
    created = sandbox.arm("PUT", path, VERSION, {"location": "West Europe", "tags": {"a": "b"}})
    assert created.status_code == 201
    assert created.json() == {
        "id": path,
        "name": "New",
        "type": "Microsoft.Resources/resourceGroups",
        "location": "westeurope",
        "tags": {"a": "b"},
        "properties": {"provisioningState": "Succeeded"},
    }
    assert sandbox.arm("HEAD", path.lower(), VERSION).status_code == 204
    again = sandbox.arm("PUT", path.lower(), VERSION, {"location": "westeurope"})
    assert (again.status_code, again.json()["name"], again.json().get("tags")) == (200, "New", None)
    assert sandbox.arm("PATCH", path, VERSION, {"tags": {"c": "d"}}).json()["tags"] == {"c": "d"}
    listed = sandbox.arm("GET", f"{sandbox.subscription}/resourceGroups", VERSION).json()["value"]
    assert [group["name"] for group in listed] == ["New", "rg-sandbox"]
    deleted = sandbox.arm("DELETE", path, VERSION)
    assert deleted.status_code == 202
    done = sandbox.bearer().get(deleted.headers["location"], timeout=30)
    assert (done.status_code, done.content) == (200, b"")
    assert error(sandbox.arm("GET", path, VERSION)) == (404, "ResourceGroupNotFound")


def test_deleting_a_group_takes_a_while(sandbox: Sandbox, control: Control) -> None:
    control.timing(group_delete=30)
    deleted = sandbox.arm("DELETE", sandbox.group, VERSION)
    session = sandbox.bearer()
    running = session.get(deleted.headers["location"], timeout=30)
    assert (running.status_code, running.headers["retry-after"]) == (202, "1")
    control.advance(31)
    assert session.get(running.headers["location"], timeout=30).status_code == 200


# Providers


def test_a_provider_that_is_not_registered(sandbox: Sandbox) -> None:
    provider = f"{sandbox.subscription}/providers/Microsoft.Batch"
    assert sandbox.arm("POST", f"{provider}/unregister", VERSION).json()["registrationState"] == "NotRegistered"
    account = f"{sandbox.group}/providers/Microsoft.Batch/batchAccounts/acct"
    refused = sandbox.arm("PUT", account, BATCH_VERSION, {"location": "westeurope"})
    assert error(refused) == (409, "MissingSubscriptionRegistration")
    assert sandbox.arm("POST", f"{provider}/register", VERSION).json()["registrationState"] == "Registered"
    assert sandbox.arm("PUT", account, BATCH_VERSION, {"location": "westeurope"}).status_code == 202


# Resources of all providers


def fill(sandbox: Sandbox, *names: str) -> None:
    for name in names:
        path = f"{sandbox.group}/providers/Microsoft.KeyVault/vaults/{name}"
        properties: dict[str, Any] = {
            "tenantId": sandbox.tenant_id,
            "sku": {"family": "A", "name": "standard"},
            "accessPolicies": [],
        }
        body = {"location": "westeurope", "tags": {"name": name}, "properties": properties}
        assert sandbox.arm("PUT", path, VAULTS, body).ok
    account = f"{sandbox.group}/providers/Microsoft.Batch/batchAccounts/acct"
    assert sandbox.arm("PUT", account, BATCH_VERSION, {"location": "westeurope"}).ok
    identity = f"{sandbox.group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id1"
    assert sandbox.arm("PUT", identity, "2023-01-31", {"location": "westeurope"}).ok


def test_lists_contain_readable_resources_only(sandbox: Sandbox, control: Control) -> None:
    fill(sandbox, "vault-one")
    role = {"role": "Key Vault Contributor", "scope": sandbox.group}
    reader = control.principal(roles=[role])
    session = sandbox.bearer(client_id=reader["client_id"], secret=reader["secret"])
    listed = sandbox.arm("GET", f"{sandbox.subscription}/resources", VERSION, session=session).json()["value"]
    assert [resource["name"] for resource in listed] == ["vault-one"]


@pytest.mark.parametrize(
    "path", ["resources", "resourceGroups/rg-sandbox/resources", "providers/Microsoft.KeyVault/vaults"]
)
def test_lists_have_pages(sandbox: Sandbox, path: str) -> None:
    names = [f"vault-{number}" for number in range(5)]
    body = {"tenantId": sandbox.tenant_id, "sku": {"family": "A", "name": "standard"}, "enableRbacAuthorization": True}
    for name in names:
        vault = f"{sandbox.group}/providers/Microsoft.KeyVault/vaults/{name}"
        assert sandbox.arm("PUT", vault, VAULTS, {"location": "westeurope", "properties": body}).ok
    version = VAULTS if "KeyVault" in path else VERSION
    found: list[list[str]] = []
    document = sandbox.arm("GET", f"{sandbox.subscription}/{path}?$top=2", version).json()
    while True:
        found.append([one["name"] for one in document["value"]])
        if "nextLink" not in document:
            break
        assert document["nextLink"].startswith(MANAGEMENT)
        document = sandbox.bearer().get(document["nextLink"], timeout=30).json()
    # A list of vaults ends with an empty page.
    assert found == [names[:2], names[2:4], names[4:], *([[]] if "KeyVault" in path else [])]


def test_a_group_is_deleted_with_its_resources(sandbox: Sandbox) -> None:
    fill(sandbox, "vault-one")
    assert sandbox.arm("DELETE", sandbox.group, VERSION).status_code == 202
    assert sandbox.arm("GET", f"{sandbox.subscription}/resources", VERSION).json()["value"] == []
    path = f"{sandbox.subscription}/providers/Microsoft.KeyVault/deletedVaults"
    assert [vault["name"] for vault in sandbox.arm("GET", path, VAULTS).json()["value"]] == ["vault-one"]


# Throttling


def test_too_many_requests(sandbox: Sandbox, control: Control) -> None:
    control.timing(throttling=True)
    session = sandbox.bearer()

    def patch() -> requests.Response:
        return sandbox.arm("PATCH", sandbox.group, VERSION, {"tags": {}}, session=session)

    assert [patch().status_code for _ in range(200)] == [200] * 200
    # The bucket gains ten tokens a second, which have to be used too.
    refused = next(response for response in iter(patch, None) if not response.ok)
    assert error(refused) == (429, "SubscriptionRequestsThrottled")
    assert int(refused.headers["retry-after"]) >= 1
    assert sandbox.arm("GET", sandbox.group, VERSION, session=session).ok, "reads are counted apart"
    control.advance(10)
    assert patch().ok


def test_the_remaining_number_of_requests_of_the_caller(sandbox: Sandbox, control: Control) -> None:
    """With throttling, the documented limits apply."""
    control.timing(throttling=True)
    session = sandbox.bearer()

    def left(method: str, kind: str) -> int:
        response = sandbox.arm(
            method, sandbox.group, VERSION, {"tags": {}} if method == "PATCH" else None, session=session
        )
        return int(response.headers[f"x-ms-ratelimit-remaining-subscription-{kind}"])

    assert (left("PATCH", "writes"), left("PATCH", "writes")) == (199, 198)
    assert left("GET", "reads") == 249


@pytest.mark.parametrize(
    "tags",
    [
        b'{"a": NaN}',
        b'{"a": "\\ud800"}',
        '{"a": "\ud800"}'.encode("utf-8", "surrogatepass"),
        b"[" * 64 + b"]" * 64,
    ],
)
def test_json_that_cannot_be_returned_is_refused(sandbox: Sandbox, control: Control, tags: bytes) -> None:
    session = sandbox.bearer()
    url = f"{MANAGEMENT}{sandbox.group}?api-version={VERSION}"
    assert error(session.patch(url, data=b'{"tags": %s}' % tags, timeout=30)) == (400, "InvalidRequestContent")
    assert re.fullmatch(r"\(\d+ bytes(, not JSON)?\)", control.requests()[-1]["body"])
