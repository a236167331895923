# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""User-assigned identities, with azure-mgmt-msi and with plain requests."""

from __future__ import annotations

from key_vault_calls import assign
from sandbox_client import Control, Sandbox

VERSION = "2023-01-31"
READER = "acdd72a7-3385-48ef-bd42-f606fba81ae7"


def path(sandbox: Sandbox, name: str = "identity1") -> str:
    return f"{sandbox.group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"


def test_a_repetition_keeps_the_principal(sandbox: Sandbox) -> None:
    first = sandbox.arm("PUT", path(sandbox), VERSION, {"location": "westeurope", "tags": {"a": "1"}}).json()
    again = sandbox.arm("PUT", path(sandbox), VERSION, {"location": "westeurope"})
    assert again.status_code == 200
    assert "location" not in again.headers
    assert again.json() == {**first, "tags": {}}


def test_the_principal_is_deleted_with_the_identity(sandbox: Sandbox, control: Control) -> None:
    made = sandbox.arm("PUT", path(sandbox), VERSION, {"location": "westeurope"}).json()
    principal_id = made["properties"]["principalId"]
    assert assign(sandbox, sandbox.group, READER, principal_id).status_code == 201
    response = sandbox.arm("DELETE", path(sandbox), VERSION)
    assert (response.status_code, response.headers["content-length"]) == (200, "0")
    known = [principal["object_id"] for principal in control.call("GET", "/principals")["principals"]]
    assert principal_id not in known
