# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Callers with only the given permissions."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

import pytest
from service import Service


def give(service: Service, scope: str, actions: Iterable[str], data_actions: Iterable[str] = ()) -> dict[str, str]:
    """Create a custom role with these actions. Returns the description of a role assignment at the scope."""
    sandbox, guid = service.sandbox, str(uuid.uuid4())
    permission = {"actions": list(actions), "dataActions": list(data_actions)}
    properties = {"roleName": f"Role {guid}", "assignableScopes": [sandbox.subscription], "permissions": [permission]}
    path = f"{sandbox.subscription}/providers/Microsoft.Authorization/roleDefinitions/{guid}"
    assert sandbox.arm("PUT", path, "2022-04-01", {"properties": properties}).ok
    return {"role": guid, "scope": scope}


def sign_in(service: Service, monkeypatch: pytest.MonkeyPatch, roles: list[dict[str, str]]) -> str:
    """Sign in as a new principal that has these roles. Returns its object ID."""
    who = service.sandbox.control.principal("documented", roles=roles, secret_lifetime=1e9)
    monkeypatch.setenv("AZURE_CLIENT_ID", who["client_id"])
    for name in ("AZURE_SECRET", "AZURE_CLIENT_SECRET"):
        monkeypatch.setenv(name, who["secret"])
    return str(who["object_id"])
