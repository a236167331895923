# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tables of Resource Graph, and the detail with which a query is refused."""

from __future__ import annotations

from ..shared import kql
from ..shared.kql import Language, NotInSandbox, Problem, Query, SyntaxProblem, UnknownColumn, UnknownTable

_OBJECTS = ("sku", "plan", "properties", "tags", "identity", "zones", "extendedLocation")
_NAMES = (
    *("id", "name", "type", "tenantId", "kind", "location", "resourceGroup", "subscriptionId", "managedBy"),
    *_OBJECTS,
)
# The columns of every table, with their types.
COLUMNS = {name: "object" if name in _OBJECTS else "string" for name in _NAMES}
_TABLES = dict.fromkeys(("resources", "batchresources", "resourcecontainers", "elasticsanresources"), COLUMNS)
# https://learn.microsoft.com/azure/governance/resource-graph/concepts/query-language#supported-tabulartop-level-operators
_COMBINED = (frozenset({"resources", "resourcecontainers"}),)
_MOST_UNION_LEGS = 3
# The recorded ParserFailure has this, whatever is missing.
_EXPECTED = "Ǐ"


class BadQuery(Exception):
    """The second detail of the refusal."""

    def __init__(self, code: str, message: str, **position: object) -> None:
        super().__init__(message)
        self.detail = {"code": code, "message": message, **position}


def read(text: str, *, any_union: bool = False, now: float = 0) -> Query:
    """Parse a query. `any_union`: `union` can combine any tables. Raises BadQuery."""
    unions = None if any_union else _COMBINED
    try:
        return kql.read(text, Language(_TABLES, "resources", True, unions, _MOST_UNION_LEGS, now))
    except Problem as problem:
        raise _refused(problem) from problem


def _refused(problem: Problem) -> BadQuery:
    if isinstance(problem, SyntaxProblem):
        return BadQuery(
            "ParserFailure",
            "ParserFailure",
            line=problem.line,
            characterPositionInLine=problem.column,
            token=problem.token,
            expectedToken=_EXPECTED,
        )
    if isinstance(problem, UnknownColumn):
        return BadQuery("SemanticError", f"Failed to resolve scalar expression named '{problem.name}'")
    if isinstance(problem, UnknownTable):
        message = f"Table {problem.name} is invalid, unsupported or disallowed."
        return BadQuery("DisallowedLogicalTableName", message)
    assert isinstance(problem, NotInSandbox)
    return BadQuery("NotInSandbox", str(problem))
