# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Role assignments: new principals, lists, and access to the data plane."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from key_vault_calls import (
    ENCRYPTION_USER,
    ROLES,
    assign,
    data,
    error,
    make_key,
    make_vault,
    somebody,
    vault_path,
)
from sandbox_client import Control, Sandbox

GUID = "11111111-0000-4000-8000-000000000001"
READER = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
CONTRIBUTOR = "b24988ac-6180-42a0-ab88-20f7382dd24c"


def held(sandbox: Sandbox, scope: str, name_filter: str = "") -> list[dict[str, Any]]:
    path = f"{scope}/providers/Microsoft.Authorization/roleAssignments"
    response = sandbox.arm("GET", f"{path}?$filter={name_filter}" if name_filter else path, ROLES)
    assert response.status_code == 200, response.text
    assert list(response.json()) == ["value"]
    found: list[dict[str, Any]] = response.json()["value"]
    return found


# Assignments


@pytest.mark.parametrize("position", ["unknown", "known"])
def test_a_new_principal(sandbox: Sandbox, position: str) -> None:
    """A role assignment without a principal type, for a managed identity that was just created."""
    sandbox.control.behavior(new_principal=position)
    path = f"{sandbox.group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/identity1"
    made = sandbox.arm("PUT", path, "2023-01-31", {"location": "westeurope"}).json()
    wanted = {"roleDefinitionId": f"/x/{READER}", "principalId": made["properties"]["principalId"]}
    assignment = f"{sandbox.group}/providers/Microsoft.Authorization/roleAssignments/{GUID}"

    def put() -> int:
        return sandbox.arm("PUT", assignment, "2022-04-01", {"properties": wanted}).status_code

    assert put() == (400 if position == "unknown" else 201)
    sandbox.control.advance(61)
    assert put() in (200, 201)


def test_lists_include_inherited_assignments(sandbox: Sandbox, control: Control) -> None:
    who = somebody(control, roles=[{"scope": "/", "role": "Reader"}])
    mine = f"principalId eq '{who['object_id']}'"
    (inherited,) = held(sandbox, sandbox.group, mine)
    assert inherited["properties"]["scope"] == "/"
    assert inherited["id"].startswith("/providers/Microsoft.Authorization/roleAssignments/")
    # The role id has the prefix of the subscription in the request.
    assert inherited["properties"]["roleDefinitionId"].startswith(sandbox.subscription)
    below = assign(sandbox, sandbox.group, CONTRIBUTOR, who["object_id"]).json()
    assert below["id"] in [found["id"] for found in held(sandbox, sandbox.subscription, mine)]
    at_scope = [found["id"] for found in held(sandbox, sandbox.subscription, "atScope()")]
    assert below["id"] not in at_scope
    assert inherited["id"] in at_scope
    assert {found["id"] for found in held(sandbox, sandbox.group, f"assignedTo('{who['object_id']}')")} == {
        inherited["id"],
        below["id"],
    }
    assert held(sandbox, sandbox.group, f"principalId eq '{uuid.uuid4()}'") == []
    unsupported = sandbox.arm(
        "GET", f"{sandbox.group}/providers/Microsoft.Authorization/roleAssignments?$filter=x eq 'y'", ROLES
    )
    assert error(unsupported)[:2] == (400, "UnsupportedQuery")


# The effects of assignments


@pytest.mark.parametrize("place", ["group", "vault", "key"])
def test_the_data_plane_at_every_scope(sandbox: Sandbox, control: Control, place: str) -> None:
    make_vault(sandbox)
    make_key(sandbox)
    make_key(sandbox, "key2")
    who, vault = somebody(control), vault_path(sandbox)
    scope = {"group": sandbox.group, "vault": vault.upper(), "key": f"{vault}/keys/key1"}[place]
    assert assign(sandbox, scope, ENCRYPTION_USER, who["object_id"]).status_code == 201
    response = data(sandbox, "GET", "/keys/key1", who=who)
    assert response.status_code == 200
    assert response.headers["x-ms-keyvault-rbac-assignment-id"] == GUID.replace("-", "")
    assert data(sandbox, "GET", "/keys/key2", who=who).status_code == (403 if place == "key" else 200)
    # This role allows only to read, wrap and unwrap.
    assert data(sandbox, "POST", "/keys/key1/rotate", who=who).status_code == 403
