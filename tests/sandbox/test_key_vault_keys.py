# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keys on the data plane with plain requests: challenge, creation, changes, lists, deletion, refusals. Tests with
the SDK are in test_key_vault_sdk."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from key_vault_calls import (
    DATA,
    DAY,
    NEW,
    OLD,
    data,
    error,
    make_key,
    make_vault,
    message,
    policy,
    somebody,
    vault_path,
    version_of,
)
from sandbox_client import Control, Sandbox

from azure_sandbox.key_vault_keys.throttling import Throttle

KEYS = "https://vault-one.vault.azure.net/keys"
NOT_FOUND = (
    "A key with (name/id) {} was not found in this key vault. If you recently deleted this key you may be able to"
    " recover it using the correct recovery command. For help resolving this issue, please see"
    " https://go.microsoft.com/fwlink/?linkid=2125182"
)


@pytest.fixture(autouse=True)
def vault(sandbox: Sandbox) -> dict[str, Any]:
    return make_vault(sandbox, softDeleteRetentionInDays=7)


# The challenge


@pytest.mark.parametrize(("method", "path"), [("GET", "/keys"), ("POST", "/keys//create"), ("PUT", "/no/where")])
def test_the_challenge_precedes_all_other_checks(sandbox: Sandbox, method: str, path: str) -> None:
    response = sandbox.session().request(method, f"https://vault-one.vault.azure.net{path}", timeout=30)
    assert response.status_code == 401
    assert response.content == (
        b'{"error":{"code":"Unauthorized","message":"AKV10000: Request is missing a Bearer, PoP, or MTLS_POP token."}}'
    )
    assert response.headers["content-length"] == "108"
    assert response.headers["www-authenticate"] == (
        f'Bearer authorization="https://login.microsoftonline.com/{sandbox.tenant_id}",'
        ' resource="https://vault.azure.net"'
    )
    assert "x-ms-keyvault-rbac-assignment-id" not in response.headers


# Creation


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"kty": "oct"}, "KeyTypeNotSupported"),
        ({"kty": "RSA", "key_size": 1024}, ""),
        ({"kty": "RSA-HSM"}, ""),
        ({"kty": "EC", "crv": "P-1"}, ""),
        ({"kty": "RSA", "key_ops": ["dance"]}, ""),
        ({"kty": "EC", "key_ops": ["wrapKey"]}, ""),
        ({"kty": "RSA", "attributes": {"nbf": 2, "exp": 1}}, ""),
        ({"kty": "RSA", "attributes": {"exp": "tomorrow"}}, ""),
        ({"kty": "RSA", "tags": {"x": "y" * 257}}, ""),
    ],
)
def test_keys_that_are_refused(sandbox: Sandbox, body: dict[str, Any], code: str) -> None:
    assert error(data(sandbox, "POST", "/keys/key1/create", body)) == (400, "BadParameter", code)
    assert data(sandbox, "GET", "/keys/key1").status_code == 404


def test_resources_that_do_not_exist(sandbox: Sandbox) -> None:
    response = data(sandbox, "GET", "/keys/key1/")
    assert error(response) == (404, "KeyNotFound", "")
    assert message(response) == NOT_FOUND.format("key1")
    make_key(sandbox)
    other = "0" * 32
    assert message(data(sandbox, "GET", f"/keys/key1/{other}")) == NOT_FOUND.format(f"key1/{other}")
    assert message(data(sandbox, "DELETE", "/keys/key2")) == NOT_FOUND.format("key2")
    assert message(data(sandbox, "POST", "/deletedkeys/key2/recover")) == NOT_FOUND.format("key2")
    deleted = data(sandbox, "GET", "/deletedkeys/key2")
    assert (error(deleted)[:2], message(deleted)) == ((404, "KeyNotFound"), "Deleted Key not found: key2")
    assert data(sandbox, "GET", "/keys/key2/versions").json() == {"value": [], "nextLink": None}


# Changing


def test_a_patch_keeps_omitted_properties(sandbox: Sandbox, control: Control) -> None:
    made = make_key(sandbox, tags={"a": "1", "b": "2"})
    control.advance(10)
    exp = made["attributes"]["created"] + DAY
    changed = data(sandbox, "PATCH", "/keys/key1/", {"attributes": {"exp": exp, "enabled": False}}).json()
    assert changed["key"] == made["key"]
    assert changed["tags"] == made["tags"]
    assert changed["attributes"]["updated"] >= made["attributes"]["created"] + 10
    assert changed["attributes"]["created"] == made["attributes"]["created"]
    assert (changed["attributes"]["exp"], changed["attributes"]["enabled"]) == (exp, False)
    # A disabled key can be read and updated.
    assert data(sandbox, "GET", "/keys/key1").json() == changed
    wanted = {"tags": {"c": "3"}, "key_ops": ["decrypt", "encrypt"], "attributes": {"enabled": True}}
    updated = data(sandbox, "PATCH", f"/keys/key1/{version_of(made)}", wanted).json()
    assert updated["tags"] == {"c": "3"}
    assert updated["key"]["key_ops"] == ["decrypt", "encrypt"]
    assert updated["attributes"]["exp"] == exp


def test_a_patch_without_version_is_for_the_latest(sandbox: Sandbox) -> None:
    first = make_key(sandbox)
    make_key(sandbox)
    data(sandbox, "PATCH", "/keys/key1", {"attributes": {"enabled": False}})
    assert data(sandbox, "GET", f"/keys/key1/{version_of(first)}").json()["attributes"]["enabled"] is True
    assert data(sandbox, "GET", "/keys/key1").json()["attributes"]["enabled"] is False


# Deleting


def test_deletion_and_recovery_take_time(sandbox: Sandbox, control: Control) -> None:
    control.timing(key_delete=20, key_recover=5)
    make_key(sandbox)
    data(sandbox, "DELETE", "/keys/key1")
    assert data(sandbox, "GET", "/keys/key1").status_code == 404
    assert data(sandbox, "GET", "/deletedkeys/key1").status_code == 404
    assert data(sandbox, "GET", "/deletedkeys").json()["value"] == []
    made = data(sandbox, "POST", "/keys/key1/create", {"kty": "RSA"})
    assert error(made) == (409, "Conflict", "ObjectIsBeingDeleted")
    assert message(made) == "Key key1 is currently being deleted and cannot be re-created; retry later."
    for method, path in (("DELETE", "/deletedkeys/key1"), ("POST", "/deletedkeys/key1/recover")):
        early = data(sandbox, method, path)
        assert early.json() == {
            "error": {
                "code": "Conflict",
                "message": "Key is currently being deleted.",
                "innererror": {"code": "ObjectIsBeingDeleted"},
            }
        }
        assert (early.status_code, "retry-after" in early.headers) == (409, False)
    control.advance(21)
    assert data(sandbox, "GET", "/deletedkeys/key1").status_code == 200
    assert data(sandbox, "POST", "/deletedkeys/key1/recover").status_code == 200
    assert data(sandbox, "GET", "/keys/key1").status_code == 404
    assert error(data(sandbox, "POST", "/keys/key1/create", {"kty": "RSA"}))[2] == "ObjectIsBeingRecovered"
    control.advance(6)
    assert data(sandbox, "GET", "/keys/key1").status_code == 200


def test_purging(sandbox: Sandbox, control: Control) -> None:
    make_key(sandbox)
    assert message(data(sandbox, "DELETE", "/deletedkeys/key1")) == "Deleted Key not found: key1"
    data(sandbox, "DELETE", "/keys/key1")
    purged = data(sandbox, "DELETE", "/deletedkeys/key1")
    assert (purged.status_code, purged.content) == (204, b"")
    make_key(sandbox)
    data(sandbox, "DELETE", "/keys/key1")
    control.advance(7 * DAY + 1)
    assert data(sandbox, "GET", "/deletedkeys/key1").status_code == 404
    make_key(sandbox)


def test_purge_protection(sandbox: Sandbox) -> None:
    sandbox.arm("PATCH", vault_path(sandbox), NEW, {"properties": {"enablePurgeProtection": True}})
    assert make_key(sandbox)["attributes"]["recoveryLevel"] == "CustomizedRecoverable"
    data(sandbox, "DELETE", "/keys/key1")
    response = data(sandbox, "DELETE", "/deletedkeys/key1")
    assert error(response)[:2] == (403, "Forbidden")
    assert message(response) == (
        'Operation "purge" is not allowed because purge protection is enabled for this vault. Key Vault service will'
        " automatically purge it after the retention period has passed.\r\nVault: Vault-One;location=westeurope"
    )


# Rotation


def rotate_after(days: int, **attributes: str) -> dict[str, Any]:
    action = {"trigger": {"timeAfterCreate": f"P{days}D"}, "action": {"type": "rotate"}}
    return {"lifetimeActions": [action], "attributes": attributes}


@pytest.mark.parametrize(
    "body",
    [
        rotate_after(6),
        rotate_after(60, expiryTime="P27D"),
        rotate_after(25, expiryTime="P28D"),
        rotate_after(60, expiryTime="a month"),
        {"lifetimeActions": [{"trigger": {"timeBeforeExpiry": "P30D"}, "action": {"type": "Rotate"}}]},
        {"lifetimeActions": [{"trigger": {"timeAfterCreate": "P30D"}, "action": {"type": "Dance"}}]},
    ],
)
def test_policies_that_are_refused(sandbox: Sandbox, body: dict[str, Any]) -> None:
    make_key(sandbox)
    assert error(data(sandbox, "PUT", "/keys/key1/rotationpolicy", body)) == (400, "BadParameter", "")


def test_a_policy_creates_new_versions_when_due(sandbox: Sandbox, control: Control) -> None:
    first = make_key(sandbox, tags={"a": "1"})
    data(sandbox, "PUT", "/keys/key1/rotationpolicy", rotate_after(30, expiryTime="P60D"))
    control.advance(29 * DAY)
    assert data(sandbox, "GET", "/keys/key1").json()["key"] == first["key"]
    control.advance(2 * DAY)
    second = data(sandbox, "GET", "/keys/key1").json()
    assert second["key"]["kid"] != first["key"]["kid"]
    assert second["tags"] == {"a": "1"}
    created = first["attributes"]["created"] + 30 * DAY
    assert second["attributes"]["created"] == created
    assert second["attributes"]["exp"] == created + 60 * DAY
    assert data(sandbox, "GET", "/keys/key1").json() == second
    # After the clock is advanced, the newest version is the one of the last due date.
    control.advance(100 * DAY)
    third = data(sandbox, "GET", "/keys/key1").json()
    assert third["attributes"]["created"] == first["attributes"]["created"] + 120 * DAY
    assert len(data(sandbox, "GET", "/keys/key1/versions").json()["value"]) == 3


def test_a_policy_can_count_from_the_end(sandbox: Sandbox, control: Control) -> None:
    now = make_key(sandbox)["attributes"]["created"]
    data(sandbox, "PATCH", "/keys/key1", {"attributes": {"exp": now + 20 * DAY}})
    action = {"trigger": {"timeBeforeExpiry": "P10D"}, "action": {"type": "Rotate"}}
    policy = {"lifetimeActions": [action], "attributes": {"expiryTime": "P2M"}}
    assert data(sandbox, "PUT", "/keys/key1/rotationpolicy", policy).status_code == 200
    control.advance(9 * DAY)
    assert data(sandbox, "GET", "/keys/key1").json()["attributes"]["created"] == now
    control.advance(2 * DAY)
    assert data(sandbox, "GET", "/keys/key1").json()["attributes"]["created"] == now + 10 * DAY


# Permissions


def test_refusals_by_role(sandbox: Sandbox, control: Control) -> None:
    who = somebody(control)
    response = data(sandbox, "GET", "/keys/Key-One", who=who)
    # The response does not reveal whether the key exists.
    assert error(response) == (403, "Forbidden", "ForbiddenByRbac")
    assert "x-ms-keyvault-rbac-assignment-id" not in response.headers
    resource = f"{vault_path(sandbox)}/keys/key-one".lower()
    assert message(response) == (
        "Caller is not authorized to perform action on resource.\r\nIf role assignments, deny assignments or role"
        " definitions were changed recently, please observe propagation time.\r\nCaller:"
        f" appid={who['client_id']};oid={who['object_id']};iss=https://sts.windows.net/{sandbox.tenant_id}/\r\n"
        f"Action: 'Microsoft.KeyVault/vaults/keys/read'\r\nResource: '{resource}'\r\nAssignment: (not found)\r\n"
        "DenyAssignmentId: null\r\nDecisionReason: null \r\nVault: Vault-One;location=westeurope\r\n"
    )


OPERATIONS = {
    "create": ("POST", "/keys/key1/create"),
    "import": ("PUT", "/keys/key1"),
    "get": ("GET", "/keys/key1"),
    "list": ("GET", "/keys/key1/versions"),
    "update": ("PATCH", "/keys/key1"),
    "delete": ("DELETE", "/keys/key1"),
    "recover": ("POST", "/deletedkeys/key1/recover"),
    "purge": ("DELETE", "/deletedkeys/key1"),
    "rotate": ("POST", "/keys/key1/rotate"),
    "getrotationpolicy": ("GET", "/keys/key1/rotationpolicy"),
    "setrotationpolicy": ("PUT", "/keys/key1/rotationpolicy"),
    "backup": ("POST", "/keys/key1/backup"),
    "restore": ("POST", "/keys/restore"),
    "encrypt": ("POST", "/keys/key1/encrypt"),
    "decrypt": ("POST", "/keys/key1/decrypt"),
    "wrapKey": ("POST", "/keys/key1/wrapkey"),
    "unwrapKey": ("POST", "/keys/key1/unwrapkey"),
    "sign": ("POST", "/keys/key1/sign"),
    "verify": ("POST", "/keys/key1/verify"),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_needs_a_separate_permission(sandbox: Sandbox, control: Control, name: str) -> None:
    who, (method, path) = somebody(control), OPERATIONS[name]
    others = [other for other in OPERATIONS if other != name]
    make_vault(sandbox, "vault-two", version=OLD, accessPolicies=[policy(sandbox, who["object_id"], *others)])
    refused = data(sandbox, method, path, {}, vault="vault-two", who=who)
    assert error(refused) == (403, "Forbidden", "ForbiddenByPolicy" if name == "purge" else "AccessDenied")
    assert f"does not have keys {name} permission" in message(refused)
    grant = {"properties": {"accessPolicies": [policy(sandbox, who["object_id"], name.lower())]}}
    sandbox.arm("PATCH", vault_path(sandbox, "vault-two"), OLD, grant)
    assert data(sandbox, method, path, {}, vault="vault-two", who=who).status_code != 403


def test_access_policies_have_no_effect_with_azure_rbac(sandbox: Sandbox, control: Control) -> None:
    who = somebody(control)
    grant = {"properties": {"accessPolicies": [policy(sandbox, who["object_id"], "list")]}}
    sandbox.arm("PATCH", vault_path(sandbox), NEW, grant)
    assert data(sandbox, "GET", "/keys", who=who).status_code == 403
    sandbox.arm("PATCH", vault_path(sandbox), NEW, {"properties": {"enableRbacAuthorization": False}})
    assert data(sandbox, "GET", "/keys", who=who).status_code == 200
    # With access policies, the operator's role has no effect either.
    assert data(sandbox, "GET", "/keys").status_code == 403


def test_keys_of_a_deleted_vault_are_not_available(sandbox: Sandbox) -> None:
    session = sandbox.bearer("https://vault.azure.net/.default")
    assert session.get(f"{KEYS}?api-version={DATA}", timeout=30).status_code == 200
    sandbox.arm("DELETE", vault_path(sandbox), NEW)
    # An open connection still works, but no new connection is accepted.
    assert error(session.get(f"{KEYS}?api-version={DATA}", timeout=30))[:2] == (404, "VaultNotFound")
    with pytest.raises(requests.exceptions.ProxyError):
        data(sandbox, "GET", "/keys")


# Limits


def begin_window(control: Control) -> None:
    """Begin a new period of ten seconds, in which requests are counted together."""
    control.timing(throttling=True)
    control.advance(10 - control.call("GET", "/clock")["time"] % 10)


@pytest.mark.parametrize(("kty", "taken"), [("EC", 20), ("EC-HSM", 10)])
def test_creations_of_keys_are_limited_in_ten_seconds(sandbox: Sandbox, control: Control, kty: str, taken: int) -> None:
    make_vault(sandbox, "vault-two", sku={"family": "A", "name": "premium"})
    begin_window(control)
    asked = [data(sandbox, "POST", "/keys/one/create", {"kty": kty}, vault="vault-two") for _ in range(taken + 1)]
    assert [one.status_code for one in asked] == [200] * taken + [429]
    refused = asked[-1]
    assert error(refused)[1] == "Throttled"
    assert refused.headers["content-length"] == "146"
    assert "retry-after" not in refused.headers
    assert data(sandbox, "GET", "/keys/one", vault="vault-two").ok, "reads are counted apart"
    assert data(sandbox, "POST", "/keys/one/create", {"kty": "EC"}).ok, "so are other vaults"
    control.advance(10)
    assert data(sandbox, "POST", "/keys/one/create", {"kty": kty}, vault="vault-two").ok


def test_requests_to_a_vault_are_limited_in_ten_seconds() -> None:
    throttle = Throttle()
    assert all(throttle.take("vault", "other", 1, 19.9) for _ in range(4000))
    assert not throttle.take("vault", "other", 1, 19.9)
    assert throttle.take("another", "other", 1, 19.9)
    assert throttle.take("vault", "other", 1, 20)
