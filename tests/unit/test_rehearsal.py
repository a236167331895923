# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Check mode across the tasks of a run: the response to each kind of request. No write is sent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.rehearsal import Rehearsal, _require_read
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.responses import Call, Response
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_store import RunFiles
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.session import Session
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import NotConverged
from ansible_collections.azbatch.cmk.plugins.module_utils._core.placeholders import is_placeholder, shown

requests = pytest.importorskip("requests")

ARM = "https://management.azure.com"
SUBSCRIPTION = "/subscriptions/11111111-2222-3333-4444-555555555555"
GROUP = f"{SUBSCRIPTION}/resourceGroups/Mine"
ACCOUNTS = f"{GROUP}/providers/Microsoft.Batch/batchAccounts"
VAULTS = f"{GROUP}/providers/Microsoft.KeyVault/vaults"
IDENTITY = f"{GROUP}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/one"
DELETED = f"{SUBSCRIPTION}/providers/Microsoft.KeyVault"
ROLES = "providers/Microsoft.Authorization/roleAssignments"
KEYS = "https://vault.vault.azure.net"
CALLER = {"object_id": "the-caller", "tenant_id": "the-tenant"}
NOW = 1_800_000_000
V1, V2 = "1" * 32, "2" * 32
NOT_FOUND = {"error": {"code": "ResourceNotFound"}}
SYSTEM = {"type": "SystemAssigned"}


def account(name: str = "there", **properties: Any) -> dict[str, Any]:
    encryption = {"keySource": "Microsoft.Batch"}
    return {
        "id": f"{ACCOUNTS}/{name}",
        "name": name,
        "location": "westeurope",
        "identity": {"type": "None"},
        "properties": {"provisioningState": "Succeeded", "encryption": encryption, **properties},
    }


def vault(name: str = "vault", **properties: Any) -> dict[str, Any]:
    return {
        "id": f"{VAULTS}/{name}",
        "name": name,
        "location": "westeurope",
        "properties": {"tenantId": "the-tenant", "sku": {"name": "standard"}, "accessPolicies": [], **properties},
    }


def bundle(version: str = V1, created: int = NOW - 1000, **attributes: Any) -> dict[str, Any]:
    return {
        "key": {"kid": f"{KEYS}/keys/key/{version}", "kty": "RSA", "key_ops": ["wrapKey"], "n": "A" * 342},
        "attributes": {"enabled": True, "created": created, **attributes},
    }


def item(one: Mapping[str, Any]) -> dict[str, Any]:
    return {"kid": one["key"]["kid"], "attributes": one["attributes"]}


def assignment(name: str, principal: str, scope: str = f"{VAULTS}/vault") -> dict[str, Any]:
    return {"id": f"{scope}/{ROLES}/{name}", "name": name, "properties": {"principalId": principal, "scope": scope}}


class Azure:
    """Responds to reads from `holds`, by path, and does not support writes. Each object is one task of a run."""

    def __init__(self, files: RunFiles | None = None, **holds: Any) -> None:
        self.holds: dict[str, Any] = {GROUP.lower(): {"id": GROUP}, IDENTITY.lower(): {"properties": _IDS}}
        self.asked: list[tuple[str, str]] = []
        self.rehearsal = Rehearsal(files or RunFiles(None), lambda: CALLER)

    def has(self, path: str, body: Any, status: int = 200) -> None:
        self.holds[path.lower()] = Response(status, body)

    def call(self, method: str, url: str, body: Any = None) -> Response:
        url = url if url.startswith("https://") else f"{ARM}{url}"
        parts = urlsplit(url)

        def ask(other: str | None = None) -> Response:
            sent = urlsplit(other or url)
            path = unquote(sent.path).lower()
            self.asked.append((method if other is None else "GET", path))
            found = self.holds.get(path, Response(404, NOT_FOUND))
            return found if isinstance(found, Response) else Response(200, found)

        call = Call(
            *(method, url, parts.hostname or "", unquote(parts.path), unquote(parts.query)),
            *(body or {}, NOW, ask),
        )
        return self.rehearsal.response(call)

    def get(self, url: str) -> Any:
        response = self.call("GET", url)
        return response.body if response.status == 200 else response.status

    def ids(self, url: str) -> list[str]:
        return [one.get("name") or one["kid"].rpartition("/")[2] for one in self.get(url)["value"]]


_IDS = {"principalId": "p", "clientId": "c", "tenantId": "the-tenant"}


@pytest.fixture
def azure() -> Azure:
    return Azure()


# Requests that change something, and those that are not known


def test_a_read_without_a_planned_change_is_sent_to_azure(azure: Azure) -> None:
    azure.has("/subscriptions", {"value": ["one"]})

    assert azure.get("/subscriptions") == {"value": ["one"]}


@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("POST", f"{ACCOUNTS}/there/listKeys"),
        ("PUT", f"{ACCOUNTS}/there/pools/pool"),
        ("POST", f"{VAULTS}/vault"),
        ("DELETE", GROUP),
        ("PATCH", "/subscriptions"),
        ("POST", f"{KEYS}/keys/key/rotate"),
        ("DELETE", f"{KEYS}/deletedkeys/key"),
        ("PUT", f"{KEYS}/keys/key"),
    ],
)
def test_a_write_that_is_not_known_is_refused(azure: Azure, method: str, url: str) -> None:
    azure.has(f"{ACCOUNTS}/there", account())
    azure.has(f"{VAULTS}/vault", vault())

    with pytest.raises(AssertionError, match="not sent"):
        azure.call(method, url)
    assert {one for one, _path in azure.asked} <= {"GET"}


@pytest.mark.parametrize(
    ("method", "url", "body"),
    [
        ("PUT", f"{ARM}{ACCOUNTS}/new", {"location": "westeurope", "identity": SYSTEM}),
        ("PATCH", f"{ARM}{ACCOUNTS}/there", {"tags": {}}),
        ("DELETE", f"{ARM}{ACCOUNTS}/there", None),
        ("PUT", f"{ARM}{VAULTS}/new", {"location": "westeurope", "properties": vault()["properties"]}),
        ("PUT", f"{ARM}{VAULTS}/vault/accessPolicies/add", {"properties": {"accessPolicies": []}}),
        ("PUT", f"{ARM}{VAULTS}/vault/{ROLES}/name", {"properties": {"principalId": "p"}}),
        ("POST", f"{KEYS}/keys/key/create", {"kty": "RSA"}),
        ("PATCH", f"{KEYS}/keys/key/{V1}", {"attributes": {"enabled": False}}),
        ("PUT", f"{KEYS}/keys/key/rotationpolicy", {"lifetimeActions": []}),
        ("DELETE", f"{KEYS}/keys/key", None),
        ("POST", f"{KEYS}/deletedkeys/key/recover", None),
        ("POST", f"{ARM}{ACCOUNTS}/there/listKeys", "refused"),
        ("POST", f"{ARM}/checkNameAvailability", "refused"),
    ],
)
def test_no_write_is_sent(monkeypatch: pytest.MonkeyPatch, azure: Azure, method: str, url: str, body: Any) -> None:
    """The requests go through the transport of the SDKs."""
    left: list[tuple[str, str, Any]] = []

    def send(_adapter: Any, request: Any, *_args: Any, **_options: Any) -> Any:
        left.append((request.method, urlsplit(request.url).path, request.body))
        assert "Content-Length" not in request.headers
        response = requests.Response()
        response.status_code, response._content = 404, json.dumps(NOT_FOUND).encode()
        return response

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", send)
    session = azure.rehearsal.transport().session
    headers = {"Authorization": "Bearer token"}
    if body == "refused":
        with pytest.raises(AssertionError, match="not sent"):
            session.request(method, url, headers=headers)
    else:
        assert session.request(method, url, json=body, headers=headers).status_code in (200, 201, 204, 404)
    assert {(how, sent) for how, _path, sent in left} <= {("GET", None)}


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "POST"])
def test_the_function_that_sends_sends_no_write(method: str) -> None:
    with pytest.raises(AssertionError, match="not sent"):
        _require_read(method, f"{ARM}{ACCOUNTS}/there")
    _require_read("GET", f"{ARM}{ACCOUNTS}/there")


def test_questions_for_a_name_are_sent(monkeypatch: pytest.MonkeyPatch, azure: Azure) -> None:
    sent: list[tuple[str, Any]] = []

    def send(_adapter: Any, request: Any, *_args: Any, **_options: Any) -> Any:
        sent.append((request.method, json.loads(request.body)))
        response = requests.Response()
        response.status_code, response._content = 200, b'{"nameAvailable": true}'
        return response

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", send)
    session = azure.rehearsal.transport().session
    answer = session.post(f"{ARM}{DELETED}/checkNameAvailability", json={"name": "new"})

    assert (answer.json(), sent) == ({"nameAvailable": True}, [("POST", {"name": "new"})])


# Accounts


def test_an_account_that_is_made(azure: Azure) -> None:
    azure.has(ACCOUNTS, {"value": [account()]})
    azure.has(f"{SUBSCRIPTION}/providers/Microsoft.Batch/batchAccounts", {"value": [account()]})

    made = azure.call("PUT", f"{ACCOUNTS.replace('Mine', 'mine')}/new", {"location": "West Europe", "identity": SYSTEM})

    assert made.status == 200
    assert made.body["id"] == f"{ACCOUNTS}/new"
    assert is_placeholder(made.body["identity"]["principalId"])
    assert azure.get(f"{ACCOUNTS}/new") == made.body
    assert azure.ids(ACCOUNTS) == azure.ids(f"{SUBSCRIPTION}/providers/Microsoft.Batch/batchAccounts")
    assert azure.ids(ACCOUNTS) == ["there", "new"]
    assert azure.get(f"{ACCOUNTS}/new/pools") == {"value": []}
    names = f"{SUBSCRIPTION}/providers/Microsoft.Batch/locations/{made.body['location']}/checkNameAvailability"
    assert azure.call("POST", names, {"name": "NEW"}).body["nameAvailable"] is False


def test_an_account_in_a_group_that_is_missing(azure: Azure) -> None:
    gone = GROUP.replace("Mine", "gone")
    azure.has(gone, {"error": {"code": "ResourceGroupNotFound"}}, 404)

    made = azure.call("PUT", f"{ACCOUNTS.replace(GROUP, gone)}/new", {"location": "westeurope", "identity": SYSTEM})

    assert (made.status, made.body["error"]["code"]) == (404, "ResourceGroupNotFound")


def test_a_list_has_pages(azure: Azure) -> None:
    azure.has(ACCOUNTS, {"value": [account("one")], "nextLink": f"{ARM}{ACCOUNTS}?$skiptoken=2"})
    azure.call("PUT", f"{ACCOUNTS}/new", {"location": "westeurope", "identity": SYSTEM})

    assert azure.ids(ACCOUNTS) == ["one"]


def test_an_account_that_is_changed(azure: Azure) -> None:
    azure.has(f"{ACCOUNTS}/there", account())
    azure.has(f"{ACCOUNTS}/there/pools", {"value": ["a pool"]})
    azure.has(ACCOUNTS, {"value": [account()]})
    key = {"keySource": "Microsoft.KeyVault", "keyVaultProperties": {"keyIdentifier": f"{KEYS}/keys/key"}}
    identity = {"type": "UserAssigned", "userAssignedIdentities": {IDENTITY: {}}}

    azure.call("PATCH", f"{ACCOUNTS}/there", {"properties": {"encryption": key}, "identity": identity})

    changed = azure.get(f"{ACCOUNTS}/THERE")
    assert changed["properties"] == {"provisioningState": "Succeeded", "encryption": key}
    assert changed["identity"]["userAssignedIdentities"] == {IDENTITY: {"principalId": "p", "clientId": "c"}}
    assert azure.get(ACCOUNTS)["value"] == [changed]
    assert azure.get(f"{ACCOUNTS}/there/pools") == {"value": ["a pool"]}


def test_an_account_that_is_not_available_takes_no_change(azure: Azure) -> None:
    azure.has(f"{ACCOUNTS}/there", account())
    azure.has(f"{ACCOUNTS}/there/pools", {"error": {"code": "KeyVaultKeyNotAccessible"}}, 409)

    assert azure.call("PATCH", f"{ACCOUNTS}/there", {"tags": {}}).status == 409
    assert azure.get(f"{ACCOUNTS}/there") == account()


@pytest.mark.parametrize(("failed", "pools"), [([], {"value": []}), (["key_enabled"], 409)])
def test_preflight_decides_whether_an_account_is_available(azure: Azure, failed: list[str], pools: Any) -> None:
    """They decide if the planned changes affect the checks."""
    encryption = {"keySource": "Microsoft.KeyVault", "keyVaultProperties": {"keyIdentifier": f"{KEYS}/keys/key/{V1}"}}
    azure.has(f"{ACCOUNTS}/there", account(encryption=encryption))
    azure.has(f"{ACCOUNTS}/there/pools", {"error": {}}, 409)
    azure.has("/keys/key/" + V1, bundle())
    azure.rehearsal.accounts.failed_checks = lambda _account: failed
    assert azure.get(f"{ACCOUNTS}/there/pools") == 409

    azure.call("PATCH", f"{KEYS}/keys/key/{V1}", {"attributes": {"enabled": True}})

    assert azure.get(f"{ACCOUNTS}/there/pools") == pools


def test_batch_decides_if_only_another_key_of_the_vault_changes(azure: Azure) -> None:
    """Batch may list the pools of an account that has lost its key."""
    encryption = {"keySource": "Microsoft.KeyVault", "keyVaultProperties": {"keyIdentifier": f"{KEYS}/keys/key/{V1}"}}
    azure.has(f"{ACCOUNTS}/there", account(encryption=encryption))
    azure.has(f"{ACCOUNTS}/there/pools", {"value": ["a pool"]})
    azure.has("/keys/other/" + V1, bundle())
    azure.rehearsal.accounts.failed_checks = lambda _account: ["key_exists"]

    azure.call("PATCH", f"{KEYS}/keys/other/{V1}", {"attributes": {"enabled": False}})

    assert azure.get(f"{ACCOUNTS}/there/pools") == {"value": ["a pool"]}


def test_check_mode_keeps_a_missing_right_to_list_pools(azure: Azure) -> None:
    azure.has(f"{ACCOUNTS}/there", account())
    azure.has(f"{ACCOUNTS}/there/pools", {"error": {"code": "AuthorizationFailed"}}, 403)
    azure.call("PATCH", f"{ACCOUNTS}/there", {"tags": {}})

    assert azure.get(f"{ACCOUNTS}/there/pools") == 403


def test_an_account_that_is_deleted(azure: Azure) -> None:
    azure.has(f"{ACCOUNTS}/there", account())
    azure.has(ACCOUNTS, {"value": [account(), account("other")]})

    assert azure.call("DELETE", f"{ACCOUNTS}/there").status == 200
    assert azure.get(f"{ACCOUNTS}/there") == azure.get(f"{ACCOUNTS}/there/pools") == 404
    assert azure.ids(ACCOUNTS) == ["other"]
    assert azure.call("DELETE", f"{ACCOUNTS}/there").status == 204


@pytest.mark.parametrize(("state", "shown"), [("Creating", "Succeeded"), ("Deleting", None)])
def test_an_operation_that_is_under_way_is_complete(azure: Azure, state: str, shown: str | None) -> None:
    azure.has(f"{ACCOUNTS}/there", account(provisioningState=state))
    azure.has(ACCOUNTS, {"value": [account(provisioningState=state)]})

    read, listed = azure.get(f"{ACCOUNTS}/there"), azure.get(ACCOUNTS)["value"]

    assert [one["properties"]["provisioningState"] for one in listed] == ([shown] if shown else [])
    assert (read["properties"]["provisioningState"] if shown else read) == (shown or 404)


# Vaults


def made_vault(azure: Azure, name: str = "vault", **properties: Any) -> Response:
    body = {"location": "westeurope", "properties": {**vault()["properties"], **properties}}
    return azure.call("PUT", f"{VAULTS}/{name}", body)


def test_a_vault_that_is_made(azure: Azure) -> None:
    azure.has(VAULTS, {"value": [vault("other")]})

    made = made_vault(azure, enableRbacAuthorization=False)

    assert made.body["properties"]["vaultUri"] == f"{KEYS}/"
    assert azure.get(f"{VAULTS}/vault") == made.body
    assert azure.ids(VAULTS) == ["other", "vault"]
    name = azure.call("POST", f"{DELETED}/checkNameAvailability", {"name": "Vault"})
    assert name.body["nameAvailable"] is False
    assert azure.get(f"{KEYS}/keys/key") == 404
    assert ("GET", "/keys/key") not in azure.asked


def test_a_vault_that_is_changed_and_deleted(azure: Azure) -> None:
    there = {**vault(), "systemData": {"lastModifiedAt": "2020-01-01T00:00:00Z"}}
    azure.has(f"{VAULTS}/vault", there)
    azure.has(VAULTS, {"value": [there]})
    azure.has(f"{DELETED}/deletedVaults", {"value": []})

    azure.call("PATCH", f"{VAULTS}/vault", {"properties": {"enablePurgeProtection": True}})
    # The run changes the vault later.
    assert "systemData" not in azure.get(f"{VAULTS}/vault")
    assert azure.get(VAULTS)["value"][0]["properties"]["enablePurgeProtection"] is True
    assert azure.call("DELETE", f"{VAULTS}/vault").status == 200

    assert azure.get(f"{VAULTS}/vault") == 404
    assert azure.ids(VAULTS) == []
    assert azure.ids(f"{DELETED}/deletedVaults") == ["vault"]
    with pytest.raises(requests.exceptions.ConnectionError):
        azure.get(f"{KEYS}/keys/key")

    recovered = azure.call("PUT", f"{VAULTS}/vault", {"properties": {"createMode": "recover"}})
    assert recovered.body["properties"]["enablePurgeProtection"] is True
    assert azure.ids(f"{DELETED}/deletedVaults") == []
    assert azure.ids(VAULTS) == ["vault"]


@pytest.mark.parametrize("authorization", [None, "access_policy"])
def test_a_vault_that_is_recovered(azure: Azure, authorization: str | None) -> None:
    """The vault has the requested keys, and no role assignments."""
    deleted = {"vaultId": f"{VAULTS}/vault", "location": "westeurope", "purgeProtectionEnabled": True}
    azure.has(f"{DELETED}/deletedVaults", {"value": [{"name": "other"}, {"name": "vault", "properties": deleted}]})
    azure.has(VAULTS, {"value": []})
    azure.has(f"{GROUP}/{ROLES}", {"value": [assignment("above", "p", GROUP)]})
    azure.rehearsal.resolved({"name": "vault", "authorization": authorization})

    made_vault(azure, createMode="recover")

    properties = azure.get(f"{VAULTS}/vault")["properties"]
    assert properties["enablePurgeProtection"] is True
    assert properties["enableRbacAuthorization"] is (authorization is None)
    assert azure.ids(f"{DELETED}/deletedVaults") == ["other"]
    assert azure.ids(VAULTS) == ["vault"]
    assert azure.get(f"{KEYS}/keys/key/{V2}")["attributes"]["enabled"] is True
    assert azure.ids(f"{VAULTS}/vault/{ROLES}") == ["above"]


@pytest.mark.parametrize(
    ("operation", "sent", "after"),
    [
        ("add", ["wrapKey"], [("one", ["get", "wrapKey"]), ("two", ["get"])]),
        ("replace", ["wrapKey"], [("one", ["wrapKey"]), ("two", ["get"])]),
        ("remove", ["GET"], [("two", ["get"])]),
    ],
)
def test_access_policies_of_others_stay(azure: Azure, operation: str, sent: list[str], after: Any) -> None:
    entries = [{"objectId": one, "permissions": {"keys": ["get"]}} for one in ("one", "two")]
    azure.has(f"{VAULTS}/vault", vault(accessPolicies=entries))
    entry = {"objectId": "ONE", "permissions": {"keys": sent}}

    azure.call("PUT", f"{VAULTS}/vault/accessPolicies/{operation}", {"properties": {"accessPolicies": [entry]}})

    policies = azure.get(f"{VAULTS}/vault")["properties"]["accessPolicies"]
    assert [(one["objectId"].lower(), one["permissions"]["keys"]) for one in policies] == after


# Role assignments


def test_role_assignments(azure: Azure) -> None:
    scope = f"{VAULTS}/vault"
    azure.has(f"{scope}/{ROLES}", {"value": [assignment("old", "p"), assignment("other", "q")]})
    azure.has(f"{scope}/{ROLES}/old", assignment("old", "p"))
    url = f"{scope}/{ROLES}/new"

    assert azure.call("PUT", url, {"properties": {"principalId": "p", "roleDefinitionId": "r"}}).status == 201
    assert azure.call("PUT", url, {"properties": {"principalId": "p"}}).status == 409
    assert azure.call("DELETE", f"{scope}/{ROLES}/old").status == 200

    assert azure.ids(f"{scope}/{ROLES}?$filter=atScope()") == ["other", "new"]
    assert azure.get(url)["properties"]["scope"] == scope
    assert azure.get(f"{scope}/{ROLES}/old") == 404
    azure.has(f"{scope}/keys/key/{ROLES}", {"value": []})
    assert azure.ids(f"{scope}/keys/key/{ROLES}?$filter=atScope()+and+assignedTo('p')") == ["new"]
    assert azure.ids(f"{scope}/keys/key/{ROLES}?$filter=atScope()+and+assignedTo('q')") == []
    azure.has(f"{GROUP}/{ROLES}", {"value": []})
    assert azure.ids(f"{GROUP}/{ROLES}?$filter=atScope()") == []
    assert azure.ids(f"{GROUP}/{ROLES}") == ["new"]


def test_permissions_of_a_planned_resource_are_read_at_its_group(azure: Azure) -> None:
    made_vault(azure)
    azure.call("PUT", f"{ACCOUNTS}/new", {"location": "westeurope", "identity": SYSTEM})
    azure.has(f"{GROUP}/providers/Microsoft.Authorization/permissions", {"value": ["all"]})
    azure.has(f"{GROUP}/{ROLES}", {"value": [assignment("above", "p", GROUP)]})

    for resource in (f"{VAULTS}/vault", f"{VAULTS}/vault/keys/key", f"{ACCOUNTS}/new"):
        assert azure.get(f"{resource}/providers/Microsoft.Authorization/permissions") == {"value": ["all"]}
        assert azure.ids(f"{resource}/{ROLES}?$filter=atScope()") == ["above"]


# Keys


@pytest.fixture
def with_key(azure: Azure) -> Azure:
    azure.has("/keys", {"value": [{"kid": f"{KEYS}/keys/key", "attributes": {}}]})
    azure.has("/deletedkeys", {"value": []})
    azure.has("/keys/key", bundle(V2, NOW))
    azure.has(f"/keys/key/{V1}", bundle())
    azure.has(f"/keys/key/{V2}", bundle(V2, NOW))
    azure.has("/keys/key/versions", {"value": [item(bundle()), item(bundle(V2, NOW))], "nextLink": None})
    return azure


def test_a_new_version(with_key: Azure) -> None:
    body = {"kty": "RSA", "key_size": 3072, "key_ops": ["wrapKey"], "attributes": {"enabled": True, "exp": NOW + 9}}

    first, second = (with_key.call("POST", f"{KEYS}/keys/key/create", body).body for _time in range(2))

    version = second["key"]["kid"].rpartition("/")[2]
    assert is_placeholder(version)
    assert first["key"]["kid"] != second["key"]["kid"]
    assert second["attributes"]["created"] > first["attributes"]["created"] > NOW
    assert second["attributes"]["exp"] == NOW + 9
    assert len(second["key"]["n"]) == 512
    assert with_key.get(f"{KEYS}/keys/key") == with_key.get(f"{KEYS}/keys/key/{version}") == second
    assert with_key.ids(f"{KEYS}/keys/key/versions") == [V1, V2, first["key"]["kid"].rpartition("/")[2], version]
    assert with_key.get(f"{KEYS}/keys/key/{V1}") == bundle()
    assert with_key.ids(f"{KEYS}/keys") == ["key"]
    for bundle_of in (first, second):
        named = {"key_identifier": shown(bundle_of["key"]["kid"])}
        assert "(known after apply: new version " in named["key_identifier"]
        assert with_key.rehearsal.resolved(named) == {"key_identifier": bundle_of["key"]["kid"]}


def test_a_new_key(azure: Azure) -> None:
    azure.has("/keys", {"value": []})

    azure.call("POST", f"{KEYS}/keys/key/create", {"kty": "RSA"})

    assert azure.ids(f"{KEYS}/keys") == ["key"]
    assert len(azure.ids(f"{KEYS}/keys/key/versions")) == 1
    assert azure.get(f"{KEYS}/keys/key/rotationpolicy")["lifetimeActions"]


def test_a_changed_version(with_key: Azure) -> None:
    change = {"attributes": {"enabled": False}, "key_ops": ["wrapKey", "unwrapKey"]}
    with_key.call("PATCH", f"{KEYS}/keys/key/{V2.upper()}", change)
    with_key.call("PATCH", f"{KEYS}/keys/key/{V2}", {"attributes": {"exp": NOW + 9, "enabled": None}})

    newest = with_key.get(f"{KEYS}/keys/key")
    assert newest == with_key.get(f"{KEYS}/keys/key/{V2}")
    assert (newest["attributes"]["enabled"], newest["attributes"]["exp"]) == (False, NOW + 9)
    assert newest["key"]["key_ops"] == ["wrapKey", "unwrapKey"]
    listed = with_key.get(f"{KEYS}/keys/key/versions")["value"]
    assert [one["attributes"]["enabled"] for one in listed] == [True, False]
    assert with_key.call("PATCH", f"{KEYS}/keys/key/{'3' * 32}", {}).status == 404


def test_a_rotation_policy(with_key: Azure) -> None:
    with_key.has("/keys/key/rotationpolicy", {"id": "of Azure", "lifetimeActions": [], "attributes": {}})
    rotate = {"trigger": {"timeAfterCreate": "P90D", "timeBeforeExpiry": None}, "action": {"type": "Rotate"}}

    with_key.call("PUT", f"{KEYS}/keys/key/rotationpolicy", {"lifetimeActions": [rotate], "attributes": {}})

    [action] = with_key.get(f"{KEYS}/keys/key/rotationpolicy")["lifetimeActions"]
    assert action == {"trigger": {"timeAfterCreate": "P90D"}, "action": {"type": "Rotate"}}


def test_a_deleted_key_and_its_recovery(with_key: Azure) -> None:
    assert with_key.call("DELETE", f"{KEYS}/keys/key").status == 200

    assert with_key.get(f"{KEYS}/keys/key") == with_key.get(f"{KEYS}/keys/key/{V1}") == 404
    assert with_key.get(f"{KEYS}/keys/key/versions") == 404
    assert with_key.get(f"{KEYS}/deletedkeys/key")["key"] == bundle(V2)["key"]
    assert with_key.ids(f"{KEYS}/keys") == []
    assert with_key.ids(f"{KEYS}/deletedkeys") == ["key"]
    assert with_key.call("POST", f"{KEYS}/keys/key/create", {"kty": "RSA"}).status == 409

    assert with_key.call("POST", f"{KEYS}/deletedkeys/key/recover").status == 200
    assert with_key.get(f"{KEYS}/keys/key")["key"] == bundle(V2)["key"]
    assert with_key.get(f"{KEYS}/deletedkeys/key") == 404


def test_a_key_that_was_deleted_before_is_recovered(azure: Azure) -> None:
    azure.has("/deletedkeys/key", {**bundle(V2), "recoveryId": "r"})

    azure.call("POST", f"{KEYS}/deletedkeys/key/recover")

    assert azure.get(f"{KEYS}/keys/key") == bundle(V2)
    assert azure.get(f"{KEYS}/keys/key/{V1}")["attributes"]["enabled"] is True
    assert azure.ids(f"{KEYS}/keys/key/versions") == [V2]
    assert azure.get(f"{KEYS}/deletedkeys/key") == 404


def test_check_mode_keeps_a_missing_right_to_list_versions_of_a_recovered_key(azure: Azure) -> None:
    azure.has("/deletedkeys/key", {**bundle(V2), "recoveryId": f"{KEYS}/deletedkeys/key"})
    azure.has("/keys/key/versions", {"error": {"code": "Forbidden", "message": "No."}}, 403)
    azure.call("POST", f"{KEYS}/deletedkeys/key/recover")

    assert azure.get(f"{KEYS}/keys/key/versions") == 403
    assert azure.get(f"{KEYS}/keys/key")["key"]["kid"].endswith(V2)


def test_check_mode_keeps_a_missing_right_to_read_a_key(with_key: Azure) -> None:
    with_key.call("POST", f"{KEYS}/keys/key/create", {"kty": "RSA"})
    with_key.has("/keys/key", {"error": {"code": "Forbidden"}}, 403)

    assert with_key.get(f"{KEYS}/keys/key") == 403


# The planned changes and the run


def test_later_tasks_of_a_run_have_its_planned_changes_until_the_run_ends(tmp_path: Any) -> None:
    def task() -> Azure:
        azure = Azure(RunFiles(str(tmp_path)).for_rehearsal())
        azure.has(VAULTS, {"value": []})
        return azure

    made_vault(task())

    assert task().ids(VAULTS) == ["vault"]
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}
    RunFiles(str(tmp_path)).end_rehearsal()
    assert task().ids(VAULTS) == []


def test_a_module_in_a_separate_process_has_separate_planned_changes() -> None:
    one, other = Azure(), Azure()
    made_vault(one)

    assert (one.get(f"{VAULTS}/vault") == 404, other.get(f"{VAULTS}/vault") == 404) == (False, True)


def test_value_known_after_apply_is_resolved(azure: Azure) -> None:
    principals = [
        azure.call("PUT", f"{ACCOUNTS}/{name}", {"location": "westeurope", "identity": SYSTEM}).body["identity"]
        for name in ("one", "two")
    ]
    asked = [{"principal_id": shown(one["principalId"]), "force": False} for one in principals]

    resolved = [azure.rehearsal.resolved(one)["principal_id"] for one in asked]

    assert resolved == [one["principalId"] for one in principals]
    assert len(set(resolved)) == 2
    # A module in a separate process resolves the same text.
    assert Azure().rehearsal.resolved(asked[0])["principal_id"] == resolved[0]
    assert azure.rehearsal.resolved({"name": "(known"}) == {"name": "(known"}


def test_check_mode_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: pytest.fail("it waits"))
    complaint = NotConverged("Not yet.")

    assert Session({"wait_timeout": 600}, rehearse=True).poll_until(lambda: complaint, 1e12, "it") is complaint


def test_planned_changes_are_not_in_the_cache_of_other_tasks(tmp_path: Any) -> None:
    rehearsing = Session({"wait_timeout": 1}, str(tmp_path), rehearse=True)
    rehearsing.files.store("rehearsed", "name")

    assert Session({"wait_timeout": 1}, str(tmp_path)).files.load("name") is None
    assert Session({"wait_timeout": 1}, str(tmp_path), rehearse=True).files.load("name") == "rehearsed"


def test_clients_have_the_transport_of_the_rehearsal() -> None:
    connection = {
        **dict.fromkeys(("tenant", "client_id", "secret", "x509_certificate_path", "profile")),
        **{"auth_source": "cli", "cloud_environment": "AzureCloud", "wait_timeout": 1},
    }

    def adapter(session: Session) -> Any:
        return session.policies["transport"].session.adapters["https://"]

    assert isinstance(adapter(Session(connection)), requests.adapters.HTTPAdapter)
    assert adapter(Session(connection, rehearse=True)).__module__.endswith("_azure.rehearsal")
