# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""sandbox/fidelity has a row for each route, delay and switch. Rows that are `recorded` name recorded requests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Any
from urllib.parse import urlsplit

import pytest
from fidelity_page import KINDS, LABELS, Row, citations, documents, labels, name, page, rows
from recorded import RECORDINGS

from azure_sandbox.authorization import http as authorization
from azure_sandbox.batch import data_plane
from azure_sandbox.batch import http as batch
from azure_sandbox.entra import http as entra
from azure_sandbox.entra import metadata
from azure_sandbox.key_vault import http as key_vault
from azure_sandbox.key_vault_keys import http as key_vault_keys
from azure_sandbox.managed_identity import http as managed_identity
from azure_sandbox.resource_graph import http as resource_graph
from azure_sandbox.resource_manager import http as resource_manager
from azure_sandbox.shared.behavior import POSITIONS
from azure_sandbox.shared.timing import REALISTIC, Timing

DOCUMENTS = documents()
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
        metadata,
        resource_graph,
        resource_manager,
    )
    for route in module.ROUTES
] + [*resource_manager.PUBLIC_ROUTES]
CASES = {f"{name} #{case['number']}": case for name, recording in RECORDINGS.items() for case in recording["cases"]}


def of(*kinds: str) -> list[Row]:
    return [row for document in DOCUMENTS.values() for row in rows(document, *kinds)]


LABELED = of(*(kind for kind in KINDS if kind != "differences"))


def operations(row: Row) -> Iterator[tuple[str, str]]:
    """The methods and paths of the row. `GET, PUT /path` means both methods."""
    for request in row.get("requests", ()):
        methods, path = request.rsplit(" ", 1)
        yield from ((method, path) for method in methods.split(", "))


def test_every_route_has_a_row_and_every_row_has_a_route() -> None:
    described = {one for row in of("operations") for one in operations(row)}

    assert described == {(route.method, route.path) for route in ROUTES}


def test_every_row_has_its_source() -> None:
    for row in LABELED:
        [members] = [members for members in KINDS.values() if members[0] in row]

        assert {*members} <= row.keys() <= {*members, "source", "note", *LABELS}, name(row)
        assert labels(row), name(row)
        # `recorded` needs requests; a label has either the whole row or a part.
        assert row.get("source", LABELS[1]) in LABELS[1:], name(row)
        assert row.get("source") not in row, name(row)
        parts = [value for key, value in row.items() if key not in (*members, "recorded")]
        assert all(isinstance(part, str) and part for part in parts), name(row)


def test_no_label_is_hidden_in_a_text() -> None:
    """An invented part has the label `invented`, so that it is counted."""
    for row in LABELED:
        texts = [value for key, value in row.items() if key != "source" and isinstance(value, str)]

        assert not re.search(r"\b(recorded|inferred|invented)\b", " ".join(texts)), name(row)


def test_every_delay_is_explained() -> None:
    explained = {row["delay"]: row["realistic"] for row in of("delays")}

    assert explained == {field.name: getattr(REALISTIC, field.name) for field in fields(Timing)}


def test_every_switch_is_explained() -> None:
    """With its values, the default first."""
    assert {row["switch"]: tuple(row["values"]) for row in of("switches")} == dict(POSITIONS)


def is_of(case: dict[str, Any], method: str, path: str) -> bool:
    pattern = re.sub(r"\\\{(\w+(?::path)?)\\\}", lambda name: ".+" if ":" in name[1] else "[^/]+", re.escape(path))
    return bool(case["method"] == method and re.fullmatch(pattern, urlsplit(case["path"]).path, re.IGNORECASE))


@pytest.mark.parametrize("row", [row for row in LABELED if "recorded" in row], ids=lambda row: name(row)[:60])
def test_recorded_row_names_a_compared_case(row: Row) -> None:
    assert citations(row)
    for cited in citations(row):
        assert cited in CASES, f"recorded.json does not have {cited}."
        if named := list(operations(row)):
            assert any(is_of(CASES[cited], *operation) for operation in named), f"{cited} is of another operation."


def test_the_page_has_every_row_and_every_recording() -> None:
    made = page()
    shown = [f"{row['status']}: {row['when']}" if "code" in row else name(row)[1:] for row in of()]
    shown += [row["note"] for row in of() if "note" in row]
    shown += [f"- {one}\\\n  `{recording['source']}`" for one, recording in RECORDINGS.items()]

    assert [row for row in shown if row not in made] == []
