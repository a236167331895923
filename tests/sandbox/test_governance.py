# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Resource locks and Azure Policy: the requests that they refuse. A refused request changes nothing."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
import requests
from batch_calls import VERSION, account_path, create, stopped_at_the_gateway
from key_vault_calls import NEW, ROLES, make_vault, vault_path
from sandbox_client import Sandbox

READER = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
LOCKS, GROUPS = "2020-05-01", "2022-09-01"

TAGS = {"tags": {"a": "b"}}
ACCOUNT_PATCH, ACCOUNT_DELETE = "PATCH account", "DELETE account"
VAULT_PATCH, VAULT_DELETE = "PATCH vault", "DELETE vault"
ROLE = "PUT role assignment"
CHANGES = (ACCOUNT_PATCH, VAULT_PATCH, ROLE, ACCOUNT_DELETE, VAULT_DELETE)


def changed(sandbox: Sandbox, what: str) -> tuple[int, str]:
    """The status and the message of a refusal by the gateway; the message is empty if the change was accepted."""
    method, _space, kind = what.partition(" ")
    path, version, body = vault_path(sandbox), NEW, TAGS
    if kind == "account":
        path, version = account_path(sandbox, "account1"), VERSION
    if kind == "role assignment":
        path = f"{path}/providers/Microsoft.Authorization/roleAssignments/{uuid.uuid4()}"
        somebody = sandbox.control.principal()["object_id"]
        version, body = ROLES, {"properties": {"roleDefinitionId": f"/x/{READER}", "principalId": somebody}}
    response = sandbox.arm(method, path, version, None if method == "DELETE" else body)
    if response.ok:
        return response.status_code, ""
    if response.status_code == 403:
        return 403, denial(response)["message"]
    return response.status_code, stopped_at_the_gateway(response, 409, "ScopeLocked")


def denial(response: requests.Response) -> dict[str, Any]:
    """The error of a request that a policy has denied."""
    assert response.status_code == 403, response.text
    error: dict[str, Any] = response.json()["error"]
    assert error["code"] == "RequestDisallowedByPolicy"
    assert list(error) == ["code", "target", "message", "additionalInfo"]
    assert response.headers["x-ms-failure-cause"] == "gateway"
    return error


@pytest.fixture
def furnished(sandbox: Sandbox) -> Sandbox:
    create(sandbox)
    make_vault(sandbox)
    return sandbox


@pytest.mark.parametrize(
    ("position", "refused"),
    [
        ("none", []),
        ("accounts", [ACCOUNT_PATCH, ACCOUNT_DELETE]),
        ("vaults", [VAULT_PATCH, ROLE, VAULT_DELETE]),
        ("deletions", [ACCOUNT_DELETE, VAULT_DELETE]),
    ],
)
def test_lock_refuses_changes_of_its_position(furnished: Sandbox, position: str, refused: list[str]) -> None:
    furnished.control.behavior(resource_lock=position)
    said = {what: changed(furnished, what) for what in CHANGES}

    assert [what for what, (status, _message) in said.items() if status == 409] == refused
    for what in refused:
        operation = "delete" if what.startswith("DELETE") else "write"
        assert f"cannot perform {operation} operation because following scope(s) are locked: " in said[what][1]
    furnished.control.behavior(resource_lock="none")
    assert all(changed(furnished, what)[1] == "" for what in refused)


@pytest.mark.parametrize(
    ("position", "refused"), [("none", []), ("accounts", [ACCOUNT_PATCH]), ("vaults", [VAULT_PATCH])]
)
def test_policy_denies_changes_of_its_position(furnished: Sandbox, position: str, refused: list[str]) -> None:
    furnished.control.behavior(policy_denial=position)

    assert [what for what in CHANGES if changed(furnished, what)[0] == 403] == refused


@pytest.mark.parametrize(
    ("form", "end", "shows_details"),
    [
        ("identifiers", "}]'.", False),
        ("reasons", "Reasons: 'Ask the platform team.'. See error details for policy resource IDs.", True),
        ("neither", "disallowed by policy. See error details for policy resource IDs.", True),
    ],
)
def test_forms_of_a_denial(furnished: Sandbox, form: str, end: str, shows_details: bool) -> None:
    """The built-in policy also denies an account without the setting, but no PATCH that keeps the key."""
    furnished.control.behavior(policy_denial="accounts_without_key", policy_message=form)
    path, no_key = account_path(furnished, "account2"), {"encryption": {"keySource": "Microsoft.Batch"}}
    bodies = {"location": "westeurope"}, {"location": "westeurope", "properties": no_key}

    for error in [denial(furnished.arm("PUT", path, VERSION, body)) for body in bodies]:
        assert error["message"].endswith(end)
        info = error["additionalInfo"][0]["info"]
        assert info["policyDefinitionId"].endswith("/99e9ccd8-3db9-4592-b0d1-14b1715a4d8a")
        assert ("evaluationDetails" in info) is shows_details
    denial(furnished.arm("PATCH", account_path(furnished, "account1"), VERSION, {"properties": no_key}))
    assert changed(furnished, ACCOUNT_PATCH) == (200, "")


def test_missing_multi_factor_authentication(furnished: Sandbox) -> None:
    furnished.control.behavior(policy_denial="vaults", policy_message="mfa")
    response = furnished.arm("PATCH", vault_path(furnished), NEW, TAGS)

    assert response.status_code == 403
    assert response.json()["error"]["message"].endswith(
        "Reasons: MFA is required. See error details for policy resource IDs."
    )


@pytest.mark.parametrize("kind", ["account", "vault"])
def test_policy_modifies_a_request(furnished: Sandbox, kind: str) -> None:
    path, version = vault_path(furnished), NEW
    if kind == "account":
        path, version = account_path(furnished, "account1"), VERSION
    for position in ("network", "tags"):
        furnished.control.behavior(policy_modify=position)
        assert furnished.arm("PATCH", path, version, TAGS).ok

    document = furnished.arm("GET", path, version).json()
    assert document["properties"]["publicNetworkAccess"] == "Disabled"
    assert document["tags"] == {"a": "policy"}
