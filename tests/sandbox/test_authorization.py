# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Role assignments and definitions, with azure-mgmt-authorization and with plain requests."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.identity import DefaultAzureCredential
from azure.mgmt.authorization import AuthorizationManagementClient
from key_vault_calls import (
    ENCRYPTION_USER,
    ROLES,
    assign,
    data,
    error,
    make_key,
    make_vault,
    message,
    put_vault,
    somebody,
    unassign,
    vault_path,
)
from sandbox_client import VAULTS, Control, Sandbox

GUID = "11111111-0000-4000-8000-000000000001"
OTHER_GUID = "11111111-0000-4000-8000-000000000002"
READER = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
CONTRIBUTOR = "b24988ac-6180-42a0-ab88-20f7382dd24c"


@pytest.fixture
def client(sandbox: Sandbox) -> AuthorizationManagementClient:
    return AuthorizationManagementClient(DefaultAzureCredential(), sandbox.subscription_id)


def held(sandbox: Sandbox, scope: str, name_filter: str = "") -> list[dict[str, Any]]:
    path = f"{scope}/providers/Microsoft.Authorization/roleAssignments"
    response = sandbox.arm("GET", f"{path}?$filter={name_filter}" if name_filter else path, ROLES)
    assert response.status_code == 200, response.text
    assert list(response.json()) == ["value"]
    found: list[dict[str, Any]] = response.json()["value"]
    return found


# Assignments


def test_the_same_again(sandbox: Sandbox, control: Control) -> None:
    who = somebody(control)
    assign(sandbox, sandbox.group, READER, who["object_id"])
    assert assign(sandbox, sandbox.group, READER, who["object_id"]).status_code == 200
    twin = assign(sandbox, sandbox.group, READER, who["object_id"], OTHER_GUID)
    assert error(twin) == (409, "RoleAssignmentExists", "")
    assert message(twin) == (
        "The role assignment already exists. The ID of the existing role assignment is"
        " 11111111000040008000000000000001."
    )


def test_a_guid_is_used_for_one_grant(sandbox: Sandbox, control: Control) -> None:
    who = somebody(control)
    assign(sandbox, sandbox.group, READER, who["object_id"])
    for scope, role in ((sandbox.group, CONTRIBUTOR), (sandbox.subscription, READER)):
        changed = assign(sandbox, scope, role, who["object_id"])
        assert error(changed) == (400, "RoleAssignmentUpdateNotPermitted", "")


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


def test_the_control_plane_checks_the_actions_of_roles(sandbox: Sandbox, control: Control) -> None:
    make_vault(sandbox)
    who = somebody(control, roles=[{"scope": sandbox.group, "role": "Contributor"}])
    session = sandbox.bearer(client_id=who["client_id"], secret=who["secret"])
    assert sandbox.arm("GET", vault_path(sandbox), VAULTS, session=session).status_code == 200
    path = f"{sandbox.group}/providers/Microsoft.Authorization/roleAssignments"
    assert sandbox.arm("GET", path, ROLES, session=session).status_code == 200
    # The notActions of Contributor include this action.
    refused = sandbox.arm("PUT", f"{path}/{GUID}", ROLES, {"properties": {}}, session)
    assert error(refused) == (403, "AuthorizationFailed", "")
    assert "'Microsoft.Authorization/roleAssignments/write'" in message(refused)
    outside = sandbox.arm("GET", sandbox.subscription, "2022-09-01", session=session)
    assert outside.status_code == 403


def permissions(sandbox: Sandbox, scope: str, session: Any = None) -> Any:
    response = sandbox.arm("GET", f"{scope}/providers/Microsoft.Authorization/permissions", ROLES, session=session)
    assert response.status_code == 200, response.text
    return response.json()


def test_permissions_of_the_caller(sandbox: Sandbox, control: Control, client: AuthorizationManagementClient) -> None:
    """The permissions of the roles that are assigned at the scope or above."""
    everything = {"actions": ["*"], "notActions": [], "dataActions": [], "notDataActions": []}
    assert everything in permissions(sandbox, sandbox.subscription)["value"]
    assert next(one.actions for one in client.permissions.list_for_resource_group("rg-sandbox")) == ["*"]

    who = somebody(control, roles=[{"scope": sandbox.group, "role": "Contributor"}])
    session = sandbox.bearer(client_id=who["client_id"], secret=who["secret"])
    (contributor,) = permissions(sandbox, sandbox.group, session)["value"]
    assert contributor["actions"] == ["*"]
    assert "Microsoft.Authorization/*/Write" in contributor["notActions"]
    assert permissions(sandbox, vault_path(sandbox), session)["value"] == [contributor]
    above = f"{sandbox.subscription}/providers/Microsoft.Authorization/permissions"
    refused = sandbox.arm("GET", above, ROLES, session=session)
    assert error(refused) == (403, "AuthorizationFailed", "")
    assert "'Microsoft.Authorization/permissions/read'" in message(refused)


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


def test_assignments_on_a_vault_are_deleted_with_the_vault(sandbox: Sandbox, control: Control) -> None:
    make_vault(sandbox)
    who = somebody(control)
    assign(sandbox, f"{vault_path(sandbox)}/keys/key1", ENCRYPTION_USER, who["object_id"])
    sandbox.arm("DELETE", vault_path(sandbox), VAULTS)
    assert put_vault(sandbox, createMode="recover").status_code == 200
    assert held(sandbox, sandbox.subscription, f"principalId eq '{who['object_id']}'") == []


# Definitions


def test_a_custom_role(sandbox: Sandbox, control: Control, client: AuthorizationManagementClient) -> None:
    make_vault(sandbox)
    make_key(sandbox)
    wanted = {
        "role_name": "Key Watcher",
        "description": "sees keys, and may do all to them but wrap",
        "assignable_scopes": [sandbox.subscription],
        "permissions": [
            {
                "data_actions": ["Microsoft.KeyVault/vaults/keys/*"],
                "not_data_actions": ["Microsoft.KeyVault/vaults/keys/wrap/action"],
            }
        ],
    }
    role = client.role_definitions.create_or_update(sandbox.subscription, OTHER_GUID, wanted)
    assert role.role_type == "CustomRole"
    who = somebody(control)
    assign(sandbox, vault_path(sandbox), OTHER_GUID, who["object_id"])
    wrap = {"alg": "RSA-OAEP", "value": "AAAA"}
    assert data(sandbox, "POST", "/keys/key1/encrypt", wrap, who=who).status_code == 200
    assert data(sandbox, "POST", "/keys/key1/wrapkey", wrap, who=who).status_code == 403
    with pytest.raises(HttpResponseError) as refusal:
        client.role_definitions.delete(sandbox.subscription, OTHER_GUID)
    assert refusal.value.error.code == "RoleDefinitionHasAssignments"
    unassign(sandbox, vault_path(sandbox))
    assert client.role_definitions.delete(sandbox.subscription, OTHER_GUID).role_name == "Key Watcher"
    with pytest.raises(HttpResponseError):
        client.role_definitions.create_or_update(sandbox.subscription, READER, wanted)
