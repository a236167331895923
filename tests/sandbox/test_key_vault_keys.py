# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keys on the data plane: challenge, changes, deletion, rotation, permissions, limits."""

from __future__ import annotations

from typing import Any

import pytest
from key_vault_calls import (
    DAY,
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

KEYS = "https://vault-one.vault.azure.net/keys"


@pytest.fixture(autouse=True)
def vault(sandbox: Sandbox) -> dict[str, Any]:
    return make_vault(sandbox, softDeleteRetentionInDays=7)


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


# Rotation


def rotate_after(days: int, **attributes: str) -> dict[str, Any]:
    action = {"trigger": {"timeAfterCreate": f"P{days}D"}, "action": {"type": "rotate"}}
    return {"lifetimeActions": [action], "attributes": attributes}


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


# Permissions


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
