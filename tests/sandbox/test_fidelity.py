# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fidelity table and the routes are one list, told twice."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from azure_sandbox.authorization import routes as authorization
from azure_sandbox.batch import routes as batch
from azure_sandbox.behavior import POSITIONS
from azure_sandbox.entra import routes as entra
from azure_sandbox.key_vault import routes as key_vault
from azure_sandbox.key_vault_keys import routes as key_vault_keys
from azure_sandbox.managed_identity import routes as managed_identity
from azure_sandbox.resource_manager import routes as resource_manager
from azure_sandbox.timing import Timing
from azure_sandbox.web import Route

TABLE = (Path(__file__).resolve().parents[2] / "docs" / "sandbox-fidelity.md").read_text()
ROWS = [line for line in TABLE.splitlines() if line.startswith("|")]
ROUTES = [
    route
    for module in (authorization, batch, entra, key_vault, key_vault_keys, managed_identity, resource_manager)
    for route in module.ROUTES
]
SOURCES = ("recorded", "specification", "documentation", "reported", "inferred", "*invented*", "seen in")


def rows_of(route: Route) -> list[str]:
    path = re.escape(route.path)
    return [row for row in ROWS if route.method in row and re.search(rf"[` ]{path}`", row)]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_route_has_a_row_with_its_source(route: Route) -> None:
    rows = rows_of(route)

    assert rows, f"docs/sandbox-fidelity.md does not tell of {route.method} {route.path}"
    assert any(source in row for row in rows for source in SOURCES)


def test_a_route_that_is_not_there_is_missed() -> None:
    assert not rows_of(Route("GET", "/keys/{key}/nothing", lambda call: None))  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize("name", [field.name for field in fields(Timing)])
def test_every_delay_is_explained(name: str) -> None:
    assert any(f"`{name}`" in row for row in ROWS)


@pytest.mark.parametrize("name", POSITIONS)
def test_every_switch_is_explained(name: str) -> None:
    rows = [row for row in ROWS if row.startswith(f"| `{name}` |")]
    assert any(all(f"`{position}`" in row for position in POSITIONS[name]) for row in rows)
