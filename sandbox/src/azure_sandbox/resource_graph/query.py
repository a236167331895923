# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The part of the Kusto Query Language (KQL) that the collection and the recordings use.

A query is `[resources |] OPERATOR | ...`. The operators are `where`, `extend`, `project`, `distinct` and `order by`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, ClassVar, NoReturn

Row = dict[str, Any]

_OBJECTS = ("sku", "plan", "properties", "tags", "identity", "zones", "extendedLocation")
_NAMES = (
    *("id", "name", "type", "tenantId", "kind", "location", "resourceGroup", "subscriptionId", "managedBy"),
    *_OBJECTS,
)
# The columns of the table, with their types.
COLUMNS = {name: "object" if name in _OBJECTS else "string" for name in _NAMES}
_TABLE = "resources"
_DEEPEST = 64
# The recorded ParserFailure has this, whatever is missing.
_EXPECTED = "Ǐ"


class BadQuery(Exception):
    """The second detail of the refusal."""

    def __init__(self, code: str, message: str, **position: object) -> None:
        super().__init__(message)
        self.detail = {"code": code, "message": message, **position}


def _not_in_sandbox(what: str) -> BadQuery:
    message = f"{what} is not in the sandbox (see docs/sandbox-fidelity.md). Azure may have it."
    return BadQuery("NotInSandbox", message)


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


_TOKEN = re.compile(
    r"(?P<blank>\s+)"
    r"|(?P<string>'(?:[^'\\\n]|\\.)*')"
    r"|(?P<word>[A-Za-z_]\w*)"
    r"|(?P<sign>==|!=|=~|[=|(),])"
)
_ESCAPE = re.compile(r"\\(.)")


@dataclass(frozen=True)
class _Expression:
    type: str
    value: Callable[[Row], Any]
    # The name of its column in `project`; empty if it needs an explicit one.
    name: str = ""


@dataclass
class Query:
    columns: dict[str, str] = field(default_factory=COLUMNS.copy)
    steps: list[Callable[[list[Row]], list[Row]]] = field(default_factory=list)
    # Whether an order on the id makes pages stable.
    is_ordered: bool = False
    # Whether the rows are resources, whose ids allow further pages.
    has_resources: bool = True

    @property
    def is_paged(self) -> bool:
        return self.has_resources and "id" in self.columns

    def run(self, rows: Iterable[Row]) -> list[Row]:
        found = list(rows)
        for step in self.steps:
            found = step(found)
        return [{name: row.get(name) for name in self.columns} for row in found]


def read(text: str) -> Query:
    """Parse a query. Raises BadQuery."""
    parser = _Parser(text)
    query = parser.query()
    if parser.unresolved:
        message = f"Failed to resolve scalar expression named '{parser.unresolved[0]}'"
        raise BadQuery("SemanticError", message)
    return query


def _text(value: Any) -> str:
    """`tostring`: compact JSON of an object, and an empty string for null."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


_COMPARISONS: dict[str, Callable[[str, str], bool]] = {
    "==": lambda one, other: one == other,
    "!=": lambda one, other: one != other,
    "=~": lambda one, other: one.lower() == other.lower(),
    "contains": lambda one, other: other.lower() in one.lower(),
    "startswith": lambda one, other: one.lower().startswith(other.lower()),
}


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = [*self._split(), *[_Token("end", "<EOF>", len(text))] * 2]
        self._at = 0
        self._columns: dict[str, str] = {}
        # Names that are no columns. They are errors only if the query is well-formed.
        self.unresolved: list[str] = []
        if max(accumulate(({"(": 1, ")": -1}.get(token.text, 0) for token in self._tokens), initial=0)) > _DEEPEST:
            raise _not_in_sandbox(f"A query with more than {_DEEPEST} nested parentheses")

    def _split(self) -> Iterable[_Token]:
        at = 0
        while at < len(self._text):
            found = _TOKEN.match(self._text, at)
            if found is None:
                self._fail_at(_Token("sign", self._text[at], at))
            if found.lastgroup != "blank":
                yield _Token(str(found.lastgroup), found[0], at)
            at = found.end()

    # Tokens

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _fail_at(self, token: _Token) -> NoReturn:
        before = self._text[: token.at]
        raise BadQuery(
            "ParserFailure",
            "ParserFailure",
            line=before.count("\n") + 1,
            characterPositionInLine=token.at - (before.rfind("\n") + 1),
            token=token.text,
            expectedToken=_EXPECTED,
        )

    def _take(self) -> _Token:
        token = self._next
        self._at += token.kind != "end"
        return token

    def _skip(self, text: str) -> bool:
        """Take the next token if it is the text."""
        found = self._next.kind in ("word", "sign") and self._next.text == text
        if found:
            self._take()
        return found

    def _need(self, text: str) -> None:
        if not self._skip(text):
            self._fail_at(self._next)

    def _word(self) -> str:
        if self._next.kind != "word":
            self._fail_at(self._next)
        return self._take().text

    # Operators

    def query(self) -> Query:
        query = Query()
        if self._next.text in self._OPERATORS:
            self._operator(query)
        elif (table := self._word()).lower() != _TABLE:
            message = f"Table {table} is invalid, unsupported or disallowed."
            raise BadQuery("DisallowedLogicalTableName", message)
        while self._skip("|"):
            self._operator(query)
        if self._next.kind != "end":
            self._fail_at(self._next)
        return query

    def _operator(self, query: Query) -> None:
        name = self._word()
        if name not in self._OPERATORS:
            raise _not_in_sandbox(f"The operator '{name}'")
        self._columns = query.columns
        self._OPERATORS[name](self, query)

    def _where(self, query: Query) -> None:
        condition = self._condition()
        query.steps.append(lambda rows: [row for row in rows if condition(row)])

    def _extend(self, query: Query) -> None:
        made = self._named()
        query.steps.append(lambda rows: [{**row, **_computed(made, row)} for row in rows])
        query.columns = {**query.columns, **{name: one.type for name, one in made.items()}}

    def _project(self, query: Query) -> None:
        made = self._named()
        query.steps.append(lambda rows: [_computed(made, row) for row in rows])
        query.columns = {name: one.type for name, one in made.items()}

    def _named(self) -> dict[str, _Expression]:
        """`NAME = EXPRESSION, ...`; a column needs no name."""
        found: dict[str, _Expression] = {}
        while not found or self._skip(","):
            name = ""
            if self._tokens[self._at + 1].text == "=":
                name = self._word()
                self._need("=")
            expression = self._scalar()
            if not name and not expression.name:
                raise _not_in_sandbox("A computed column without a name")
            found[name or expression.name] = expression
        return found

    def _distinct(self, query: Query) -> None:
        name = self._column()
        query.steps.append(lambda rows: [{name: value} for value in {_text(row.get(name)): None for row in rows}])
        query.columns = {name: "string"}
        query.has_resources = False

    def _order(self, query: Query) -> None:
        self._need("by")
        name = self._column()
        if query.columns.get(name) == "object":
            raise _not_in_sandbox("An order by a column that is not a string")
        # The direction without `asc`, which is descending, is not needed.
        self._need("asc")
        query.steps.append(lambda rows: sorted(rows, key=lambda row: _text(row.get(name))))
        query.is_ordered = name == "id"

    _OPERATORS: ClassVar[dict[str, Callable[[_Parser, Query], None]]] = {
        "where": _where,
        "extend": _extend,
        "project": _project,
        "distinct": _distinct,
        "order": _order,
    }

    # Conditions

    def _condition(self) -> Callable[[Row], bool]:
        parts = [self._conjunction()]
        while self._skip("or"):
            parts.append(self._conjunction())
        return lambda row: any(part(row) for part in parts)

    def _conjunction(self) -> Callable[[Row], bool]:
        parts = [self._comparison()]
        while self._skip("and"):
            parts.append(self._comparison())
        return lambda row: all(part(row) for part in parts)

    def _comparison(self) -> Callable[[Row], bool]:
        if self._skip("("):
            inside = self._condition()
            self._need(")")
            return inside
        if self._next.text == "not" and self._tokens[self._at + 1].text == "(":
            self._take()
            refused = self._comparison()
            return lambda row: not refused(row)
        left = self._scalar()
        name = self._next.text if self._next.kind in ("word", "sign") else ""
        if name in _COMPARISONS:
            self._take()
            compare, right = _COMPARISONS[name], self._scalar()
            return lambda row: compare(_text(left.value(row)), _text(right.value(row)))
        if self._next.kind == "word" and name not in ("and", "or"):
            raise _not_in_sandbox(f"The operator '{name}'")
        self._fail_at(self._next)

    # Scalars

    def _scalar(self) -> _Expression:
        token = self._take()
        if token.kind == "string":
            text = _ESCAPE.sub(r"\1", token.text[1:-1])
            return _Expression("string", lambda _row: text)
        if token.kind != "word":
            self._fail_at(token)
        if self._skip("("):
            if token.text != "tostring":
                raise _not_in_sandbox(f"The function '{token.text}'")
            argument = self._scalar()
            self._need(")")
            return _Expression("string", lambda row: _text(argument.value(row)))
        self._resolve(token.text)
        return _Expression(self._columns.get(token.text, "string"), lambda row: row.get(token.text), token.text)

    def _column(self) -> str:
        name = self._word()
        self._resolve(name)
        return name

    def _resolve(self, name: str) -> None:
        if name not in self._columns:
            self.unresolved.append(name)


def _computed(made: dict[str, _Expression], row: Row) -> Row:
    return {name: one.value(row) for name, one in made.items()}
