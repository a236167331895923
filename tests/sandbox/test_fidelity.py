# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fidelity tables have a row for each route, and rows with the source `recorded` name cases of recordings."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from contributed import cases
from recorded import RECORDINGS

from azure_sandbox.authorization import http as authorization
from azure_sandbox.batch import data_plane
from azure_sandbox.batch import http as batch
from azure_sandbox.entra import http as entra
from azure_sandbox.key_vault import http as key_vault
from azure_sandbox.key_vault_keys import http as key_vault_keys
from azure_sandbox.managed_identity import http as managed_identity
from azure_sandbox.resource_manager import http as resource_manager
from azure_sandbox.shared.behavior import POSITIONS
from azure_sandbox.shared.timing import Timing
from azure_sandbox.shared.web import Route

TABLE = (Path(__file__).resolve().parents[2] / "docs" / "sandbox-fidelity.md").read_text()
ROWS = [line for line in TABLE.splitlines() if line.startswith("|")]
ROUTES = [
    route
    for module in (
        authorization,
        batch,
        data_plane,
        entra,
        key_vault,
        key_vault_keys,
        managed_identity,
        resource_manager,
    )
    for route in module.ROUTES
]
CASES = {
    **{f"{name} #{case['number']}": case for name, recording in RECORDINGS.items() for case in recording["cases"]},
    **cases(),
}
# "recorded: one-recording #2, another #5" names recordings and the numbers of their requests.
CITED = re.compile(r"recorded: ([\w-]+ #\d+(?:, [\w-]+ #\d+)*)")
RECORDED = [row for row in ROWS if re.search(r"\brecorded\b", row) and not row.startswith("| recorded |")]
SOURCES = ("recorded", "specification", "documentation", "reported", "inferred", "*invented*", "seen in")


def rows_of(route: Route) -> list[str]:
    path = re.escape(route.path)
    return [row for row in ROWS if route.method in row and re.search(rf"[` ]{path}`", row)]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_route_has_a_row_with_its_source(route: Route) -> None:
    rows = rows_of(route)

    assert rows, f"docs/sandbox-fidelity.md has no row for {route.method} {route.path}"
    assert any(source in row for row in rows for source in SOURCES)


def test_a_missing_route_is_detected() -> None:
    assert not rows_of(Route("GET", "/keys/{key}/nothing", lambda call: None))  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize("name", [field.name for field in fields(Timing)])
def test_every_delay_is_explained(name: str) -> None:
    assert any(f"`{name}`" in row for row in ROWS)


@pytest.mark.parametrize("name", POSITIONS)
def test_every_switch_is_explained(name: str) -> None:
    rows = [row for row in ROWS if row.startswith(f"| `{name}` |")]
    assert any(all(f"`{position}`" in row for position in POSITIONS[name]) for row in rows)


def cited(row: str) -> list[str]:
    return [name for names in CITED.findall(row) for name in names.split(", ")]


def operations(row: str) -> list[tuple[str, str]]:
    """The methods and paths in the row. Paths are patterns."""
    # "`GET`, `PUT` `/path`" means both methods on the path.
    row = re.sub(r"`(\w+)`(?=(?:, `\w+`)* `(/[^`]+)`)", r"`\1 \2`", row)
    found = re.findall(r"`(GET|HEAD|PUT|PATCH|POST|DELETE) ([^`]+)`", row)
    return [(method, _pattern(path)) for method, path in found]


def _pattern(path: str) -> str:
    return re.sub(r"\\\{(\w+(?::path)?)\\\}", lambda name: ".+" if ":" in name[1] else "[^/]+", re.escape(path))


def is_of(case: dict[str, Any], method: str, pattern: str) -> bool:
    path = urlsplit(case["path"]).path
    return bool(case["method"] == method and re.fullmatch(pattern, path, re.IGNORECASE))


@pytest.mark.parametrize("row", RECORDED, ids=lambda row: row.split("|")[1].strip()[:60])
def test_recorded_row_names_a_compared_case(row: str) -> None:
    without = CITED.sub("", row)
    assert not re.search(r"\brecorded\b", without), "The row says recorded, but does not name a recording and a number."
    for name in cited(row):
        assert name in CASES, f"Neither recorded.json nor a contributed recording has {name}."
        if named := operations(row):
            assert any(is_of(CASES[name], *operation) for operation in named), f"{name} is of another operation."


def test_a_case_of_another_operation_is_detected() -> None:
    (operation,) = operations("| x | `GET /keys/{key}` | |")
    assert is_of({"method": "GET", "path": "https://v.vault.azure.net/keys/k?api-version=7.4"}, *operation)
    assert not is_of({"method": "PUT", "path": "https://v.vault.azure.net/keys/k?api-version=7.4"}, *operation)
    assert not is_of({"method": "GET", "path": "https://v.vault.azure.net/keys/k/1?api-version=7.4"}, *operation)


@pytest.mark.parametrize("name", RECORDINGS)
def test_every_recording_has_a_row_with_its_source(name: str) -> None:
    assert any(row.startswith(f"| {name} | {RECORDINGS[name]['source']} |") for row in ROWS)
