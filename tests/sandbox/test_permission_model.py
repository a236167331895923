# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The permission model of a vault, there and back: who may change it, when it takes effect, and what happens to the
access policies."""

from __future__ import annotations

from typing import Any

import pytest
from key_vault_calls import (
    CRYPTO_OFFICER,
    NEW,
    OLD,
    assign,
    data,
    make_vault,
    policy,
    vault_body,
    vault_path,
)
from sandbox_client import Control, Sandbox

CONTRIBUTOR, ASSIGNER = "Key Vault Contributor", "User Access Administrator"


@pytest.fixture
def reader(control: Control) -> dict[str, Any]:
    """A principal whose access is by an access policy of the vault only."""
    return control.principal("reader")


@pytest.fixture
def vault(sandbox: Sandbox, reader: dict[str, Any]) -> dict[str, Any]:
    policies = [policy(sandbox, reader["object_id"], "get", "list")]
    return make_vault(sandbox, version=OLD, accessPolicies=policies)


def change(sandbox: Sandbox, *, rbac: bool, who: dict[str, Any] | None = None, method: str = "PATCH") -> Any:
    other = {"client_id": who["client_id"], "secret": who["secret"]} if who else {}
    body = {"properties": {"enableRbacAuthorization": rbac}}
    if method == "PUT":
        body = vault_body(sandbox, enableRbacAuthorization=rbac, accessPolicies=[])
    return sandbox.arm(method, vault_path(sandbox), NEW, body, sandbox.bearer(**other))


def may_list(sandbox: Sandbox, who: dict[str, Any]) -> bool:
    return data(sandbox, "GET", "/keys", who=who).ok


@pytest.mark.parametrize(("position", "is_kept"), [("dropped", False), ("kept", True)])
def test_access_policies_there_and_back(
    sandbox: Sandbox, vault: dict[str, Any], reader: dict[str, Any], position: str, is_kept: bool
) -> None:
    sandbox.control.behavior(policies_after_change=position)
    policies = vault["properties"]["accessPolicies"]
    assert may_list(sandbox, reader)

    assert change(sandbox, rbac=True).json()["properties"]["accessPolicies"] == (policies if is_kept else [])
    assert not may_list(sandbox, reader)
    assert change(sandbox, rbac=False).json()["properties"]["accessPolicies"] == (policies if is_kept else [])
    assert may_list(sandbox, reader) is is_kept


@pytest.mark.parametrize("position", ["60", "600"])
def test_data_plane_applies_the_change_late(
    sandbox: Sandbox, vault: dict[str, Any], reader: dict[str, Any], control: Control, position: str
) -> None:
    control.behavior(permission_model_delay=position, policies_after_change="kept")
    officer = control.principal("officer")
    assert assign(sandbox, vault["id"], CRYPTO_OFFICER, officer["object_id"]).ok

    def access() -> tuple[bool, bool]:
        return may_list(sandbox, reader), may_list(sandbox, officer)

    for rbac in (True, False):
        before = access()
        assert before == (rbac, not rbac)
        assert change(sandbox, rbac=rbac).json()["properties"]["enableRbacAuthorization"] is rbac
        assert access() == before
        control.advance(int(position))
        assert access() == (not rbac, rbac)


@pytest.mark.parametrize(("position", "status"), [("accepted", 200), ("refused", 400)])
def test_access_policies_of_a_vault_with_azure_rbac(
    sandbox: Sandbox, reader: dict[str, Any], position: str, status: int
) -> None:
    sandbox.control.behavior(policies_of_rbac_vault=position)
    make_vault(sandbox)
    body = {"properties": {"accessPolicies": [policy(sandbox, reader["object_id"], "list")]}}

    assert sandbox.arm("PUT", f"{vault_path(sandbox)}/accessPolicies/add", NEW, body).status_code == status
    assert not may_list(sandbox, reader)
