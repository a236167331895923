# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Check mode across the tasks of a run: what each kind of write predicts. No write is sent."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping
from email.utils import formatdate
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from ansible_collections.azbatch.cmk.plugins.module_utils._arguments import CONNECTION
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.gateway import Gateway
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.sdk import transport
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.session import Session
from ansible_collections.azbatch.cmk.plugins.module_utils._cloud import Cloud
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import (
    CmkError,
    NotConverged,
    NotFound,
)

requests = pytest.importorskip("requests")
pytest.importorskip("azure.mgmt.core")

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
    """The gateway of one task in check mode. Reads get what Azure `holds`, by path, and no write may be sent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.holds: dict[str, Any] = {GROUP.lower(): {"id": GROUP}, IDENTITY.lower(): {"properties": _IDS}}
        self.asked: list[tuple[str, str]] = []
        self.failed_checks: list[str] = []
        azure = self

        class Adapter(requests.adapters.BaseAdapter):
            def send(self, request: Any, *_args: Any, **_options: Any) -> Any:
                return azure._respond(request)

            def close(self) -> None:
                pass

        given = {"auth_source": "msi", "cloud_environment": "AzureCloud", "wait_timeout": 0}
        self.cloud = Cloud({**dict.fromkeys(CONNECTION), **given}, predicts=True)
        session = self.cloud._session
        session.__dict__.update(
            credential=Credential(), caller=CALLER, _transport=transport(lambda _to_azure: Adapter())
        )
        monkeypatch.setattr(self.cloud, "_failed_checks", lambda _account: self.failed_checks)
        self.gateway = self.cloud._gateway

    def _respond(self, request: Any) -> Any:
        path = unquote(urlsplit(request.url).path).lower()
        self.asked.append((request.method, path))
        assert request.method == "GET" or path.endswith("/checknameavailability")
        held = self.holds.get(path, (404, NOT_FOUND))
        status, document = held if isinstance(held, tuple) else (200, held)
        response = requests.Response()
        response.status_code, response.request, response.url = status, request, request.url
        response.headers.update({"Content-Type": "application/json", "Date": formatdate(NOW, usegmt=True)})
        response.raw = io.BytesIO(json.dumps(document).encode())
        return response

    def has(self, path: str, body: Any, status: int = 200) -> None:
        """Azure has the document, from now on also for this task."""
        self.holds[path.lower()] = (status, body)
        self.gateway._known.clear()

    def get(self, ref: str) -> Any:
        """The document, or the status of the error."""
        try:
            return self.gateway.get("read it", ref)
        except CmkError as error:
            return error.facts["azure"]["status"]

    def list(self, ref: str, filter: str | None = None) -> list[Any]:
        return self.gateway.list("list them", ref, filter)

    def ids(self, ref: str, filter: str | None = None) -> list[str]:
        return [one.get("name") or one["kid"].rpartition("/")[2] for one in self.list(ref, filter)]

    def write(self, method: str, ref: str, body: Any = None) -> Any:
        return self.gateway.write("change it", method, ref, body)

    def refusal(self, method: str, ref: str, body: Any = None) -> tuple[int, str]:
        """The status and the code of the error that is predicted."""
        with pytest.raises(CmkError) as refused:
            self.write(method, ref, body)
        return refused.value.facts["azure"]["status"], refused.value.facts["azure"]["code"]

    def is_free(self, ref: str, name: str) -> bool:
        return bool(self.gateway.ask("ask", f"{ref}/checkNameAvailability", {"name": name})["nameAvailable"])


class Credential:
    def get_token(self, *_scopes: str, **_options: Any) -> Any:
        from azure.core.credentials import AccessToken

        return AccessToken("token", 2**31)


_IDS = {"principalId": "p", "clientId": "c", "tenantId": "the-tenant"}


@pytest.fixture
def azure(monkeypatch: pytest.MonkeyPatch) -> Azure:
    return Azure(monkeypatch)


# Requests that change something, and those that are not known


@pytest.mark.parametrize(
    ("method", "ref"),
    [
        ("POST", f"{ACCOUNTS}/there/listKeys"),
        ("PUT", f"{ACCOUNTS}/there/pools/pool"),
        ("PATCH", "/subscriptions"),
        ("PUT", f"{KEYS}/keys/key"),
    ],
)
def test_a_write_that_is_not_known_is_refused(azure: Azure, method: str, ref: str) -> None:
    azure.has(f"{ACCOUNTS}/there", account())
    azure.has(f"{VAULTS}/vault", vault())

    with pytest.raises(AssertionError, match="not sent"):
        azure.write(method, ref)


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "POST"])
def test_in_check_mode_the_gateway_sends_no_write(azure: Azure, method: str) -> None:
    """Not even a write without an effect on documents."""
    gateway = Gateway(azure.cloud._session)

    with pytest.raises(AssertionError, match="sends no write"):
        gateway.write("change it", method, f"{ACCOUNTS}/there", {})
    assert azure.asked == []


# Accounts


@pytest.mark.parametrize(
    ("level", "scope", "refused"),
    [
        ("ReadOnly", GROUP, ["PATCH", "DELETE"]),
        ("ReadOnly", f"{ACCOUNTS}/There", ["PATCH", "DELETE"]),
        ("CanNotDelete", GROUP, ["DELETE"]),
        ("ReadOnly", f"{ACCOUNTS}/the", []),
    ],
)
def test_a_lock_forbids_changes(azure: Azure, level: str, scope: str, refused: list[str]) -> None:
    azure.has(f"{ACCOUNTS}/there", account())
    azure.has(f"{ACCOUNTS}/there/pools", {"value": []})
    lock = {"id": f"{scope}/providers/Microsoft.Authorization/locks/one", "properties": {"level": level}}
    azure.has(f"{SUBSCRIPTION}/providers/Microsoft.Authorization/locks", {"value": [lock]})

    for method in ("PATCH", "DELETE"):
        if method in refused:
            assert azure.refusal(method, f"{ACCOUNTS}/there", {}) == (409, "ScopeLocked")
        else:
            azure.write(method, f"{ACCOUNTS}/there", {})


def test_an_account_that_is_not_available_takes_no_change(azure: Azure) -> None:
    azure.has(f"{ACCOUNTS}/there", account())
    azure.has(f"{ACCOUNTS}/there/pools", {"error": {"code": "KeyVaultKeyNotAccessible"}}, 409)

    assert azure.refusal("PATCH", f"{ACCOUNTS}/there", {"tags": {}}) == (409, "KeyVaultKeyNotAccessible")
    assert azure.get(f"{ACCOUNTS}/there") == account()


@pytest.mark.parametrize(
    ("failed", "status", "pools"),
    [
        ([], 409, {"value": []}),
        # Batch may respond with a server error as long as it cannot use the key.
        ([], 500, {"value": []}),
        (["key_enabled"], 409, 409),
    ],
)
def test_preflight_decides_whether_an_account_is_available(
    azure: Azure, monkeypatch: pytest.MonkeyPatch, failed: list[str], status: int, pools: Any
) -> None:
    """They decide if the predictions affect the checks."""
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    encryption = {"keySource": "Microsoft.KeyVault", "keyVaultProperties": {"keyIdentifier": f"{KEYS}/keys/key/{V1}"}}
    azure.has(f"{ACCOUNTS}/there", account(encryption=encryption))
    azure.has(f"{ACCOUNTS}/there/pools", {"error": {"code": "InternalError"}}, status)
    azure.has("/keys/key/" + V1, bundle())
    azure.failed_checks = failed
    assert azure.get(f"{ACCOUNTS}/there/pools") == status

    azure.write("PATCH", f"{KEYS}/keys/key/{V1}", {"attributes": {"enabled": True}})

    assert azure.get(f"{ACCOUNTS}/there/pools") == pools


def test_check_mode_keeps_a_missing_right_to_list_pools(azure: Azure) -> None:
    azure.has(f"{ACCOUNTS}/there", account())
    azure.has(f"{ACCOUNTS}/there/pools", {"error": {"code": "AuthorizationFailed"}}, 403)
    azure.write("PATCH", f"{ACCOUNTS}/there", {"tags": {}})

    assert azure.get(f"{ACCOUNTS}/there/pools") == 403


@pytest.mark.parametrize(("state", "after"), [("Creating", "Succeeded"), ("Deleting", None)])
def test_an_operation_that_a_task_waits_for_is_complete(azure: Azure, state: str, after: str | None) -> None:
    """A task that does not wait, such as a report, gets what Azure shows."""
    azure.has(f"{ACCOUNTS}/there", account(provisioningState=state))
    azure.has(ACCOUNTS, {"value": [account(provisioningState=state)]})

    def states() -> list[str]:
        read = azure.gateway.find("read it", f"{ACCOUNTS}/there")
        return [one["properties"]["provisioningState"] for one in (*([read] if read else ()), *azure.list(ACCOUNTS))]

    def not_yet() -> CmkError | None:
        return None if states() != [state] * 2 else NotConverged("Not yet.")

    assert states() == [state] * 2
    assert azure.cloud._session.poll_until(not_yet, time.monotonic() + 60, "it") is None
    assert states() == ([after] * 2 if after else [])


# Vaults


def made_vault(azure: Azure, name: str = "vault", **properties: Any) -> Any:
    body = {"location": "westeurope", "properties": {**vault()["properties"], **properties}}
    return azure.write("PUT", f"{VAULTS}/{name}", body)


def test_a_vault_that_is_recovered(azure: Azure) -> None:
    """The vault has the requested keys, and no role assignments."""
    deleted = {"vaultId": f"{VAULTS}/vault", "location": "westeurope", "purgeProtectionEnabled": True}
    listed = [
        {"id": f"{DELETED}/locations/westeurope/deletedVaults/{name}", "name": name} for name in ("other", "vault")
    ]
    azure.has(f"{DELETED}/deletedVaults", {"value": [listed[0], {**listed[1], "properties": deleted}]})
    azure.has(VAULTS, {"value": []})
    azure.has(f"{GROUP}/{ROLES}", {"value": [assignment("above", "p", GROUP)]})
    azure.cloud.resolved({"name": "vault", "authorization": "access_policy"})

    made_vault(azure, createMode="recover")

    properties = azure.get(f"{VAULTS}/vault")["properties"]
    assert properties["enablePurgeProtection"] is True
    assert properties["enableRbacAuthorization"] is False
    assert azure.ids(f"{DELETED}/deletedVaults") == ["other"]
    assert azure.ids(VAULTS) == ["vault"]
    assert azure.get(f"{KEYS}/keys/key/{V2}")["attributes"]["enabled"] is True
    assert azure.ids(f"{VAULTS}/vault/{ROLES}") == ["above"]


# Role assignments


def test_role_assignments(azure: Azure) -> None:
    scope = f"{VAULTS}/vault"
    azure.has(f"{scope}/{ROLES}", {"value": [assignment("old", "p"), assignment("other", "q")]})
    azure.has(f"{scope}/{ROLES}/old", assignment("old", "p"))
    new = f"{scope}/{ROLES}/new"

    azure.write("PUT", new, {"properties": {"principalId": "p", "roleDefinitionId": "r"}})
    assert azure.refusal("PUT", new, {"properties": {"principalId": "p"}}) == (409, "RoleAssignmentExists")
    azure.write("DELETE", f"{scope}/{ROLES}/old")

    assert azure.ids(f"{scope}/{ROLES}", "atScope()") == ["other", "new"]
    assert azure.get(new)["properties"]["scope"] == scope
    assert azure.get(f"{scope}/{ROLES}/old") == 404
    azure.has(f"{scope}/keys/key/{ROLES}", {"value": []})
    assert azure.ids(f"{scope}/keys/key/{ROLES}", "atScope() and assignedTo('p')") == ["new"]
    assert azure.ids(f"{scope}/keys/key/{ROLES}", "atScope() and assignedTo('q')") == []
    azure.has(f"{GROUP}/{ROLES}", {"value": []})
    assert azure.ids(f"{GROUP}/{ROLES}", "atScope()") == []
    assert azure.ids(f"{GROUP}/{ROLES}") == ["new"]


# Keys


@pytest.fixture
def with_key(azure: Azure) -> Azure:
    azure.has("/keys/key", bundle(V2, NOW))
    azure.has(f"/keys/key/{V1}", bundle())
    azure.has(f"/keys/key/{V2}", bundle(V2, NOW))
    azure.has("/keys/key/versions", {"value": [item(bundle()), item(bundle(V2, NOW))], "nextLink": None})
    return azure


def test_a_deleted_key_and_its_recovery(with_key: Azure) -> None:
    with_key.write("DELETE", f"{KEYS}/keys/key")

    assert with_key.get(f"{KEYS}/keys/key") == with_key.get(f"{KEYS}/keys/key/{V1}") == 404
    with pytest.raises(NotFound):
        with_key.list(f"{KEYS}/keys/key/versions")
    assert with_key.get(f"{KEYS}/deletedkeys/key")["key"] == bundle(V2)["key"]
    assert with_key.refusal("POST", f"{KEYS}/keys/key/create", {"kty": "RSA"}) == (409, "Conflict")

    with_key.write("POST", f"{KEYS}/deletedkeys/key/recover")
    assert with_key.get(f"{KEYS}/keys/key")["key"] == bundle(V2)["key"]
    assert with_key.get(f"{KEYS}/keys/key/{V1}") == bundle()
    assert with_key.ids(f"{KEYS}/keys/key/versions") == [V1, V2]
    assert with_key.get(f"{KEYS}/deletedkeys/key") == 404


def test_a_key_that_was_deleted_before_is_recovered(azure: Azure) -> None:
    azure.has("/deletedkeys/key", {**bundle(V2), "recoveryId": "r"})

    azure.write("POST", f"{KEYS}/deletedkeys/key/recover")

    assert azure.get(f"{KEYS}/keys/key") == bundle(V2)
    assert azure.get(f"{KEYS}/keys/key/{V1}")["attributes"]["enabled"] is True
    assert azure.ids(f"{KEYS}/keys/key/versions") == [V2]
    assert azure.gateway.find("read it", f"{KEYS}/deletedkeys/key") is None


# The predictions and the run


def test_check_mode_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: pytest.fail("it waits"))
    complaint = NotConverged("Not yet.")

    assert Session({"wait_timeout": 600}, predicts=True).poll_until(lambda: complaint, 1e12, "it") is complaint


def test_predictions_are_not_in_the_cache_of_other_tasks(tmp_path: Any) -> None:
    predicting = Session({"wait_timeout": 1}, str(tmp_path), predicts=True)
    predicting.files.store("predicted", "name")

    assert Session({"wait_timeout": 1}, str(tmp_path)).files.load("name") is None
    assert Session({"wait_timeout": 1}, str(tmp_path), predicts=True).files.load("name") == "predicted"
