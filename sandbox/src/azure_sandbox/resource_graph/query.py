# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The subset of KQL that Resource Graph accepts here. Other queries are refused with 400.

A query is `[TABLE |] OPERATOR | ...`. The table is `resources` by default. The operators are `where`, `extend`,
`project`, `distinct`, `order by` (or `sort by`), `limit` (or `take`) and `union TABLE` or `union (QUERY)`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, ClassVar, NoReturn

Row = dict[str, Any]
Tables = Callable[[str], Iterable[Row]]

TABLES = ("resources", "batchresources", "resourcecontainers", "elasticsanresources")
_OBJECTS = ("sku", "plan", "properties", "tags", "identity", "zones", "extendedLocation")
_NAMES = (
    *("id", "name", "type", "tenantId", "kind", "location", "resourceGroup", "subscriptionId", "managedBy"),
    *_OBJECTS,
)
# The columns of every table, with their types.
COLUMNS = {name: "object" if name in _OBJECTS else "string" for name in _NAMES}
# https://learn.microsoft.com/azure/governance/resource-graph/concepts/query-language#supported-tabulartop-level-operators
MOST_UNION_LEGS = 3
# The only tables that `union` combines by documentation.
_COMBINED = {"resources", "resourcecontainers"}
DEEPEST = 64
# What the recorded ParserFailure has, whatever is missing.
_EXPECTED = "Ǐ"


class BadQuery(Exception):
    """The second detail of the refusal."""

    def __init__(self, code: str, message: str, **position: object) -> None:
        super().__init__(message)
        self.detail = {"code": code, "message": message, **position}


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


_TOKEN = re.compile(
    r"(?P<blank>\s+|//[^\n]*)"
    r"|(?P<string>@'[^']*'|@\"[^\"]*\"|'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\")"
    r"|(?P<number>\d+)"
    r"|(?P<word>!?in~|![a-z]+|[A-Za-z_]\w*)"
    r"|(?P<sign>==|!=|=~|!~|[=|(),.\[\]])"
)
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t"}


@dataclass(frozen=True)
class _Expression:
    # string, object, boolean or integer
    type: str
    value: Callable[[Row], Any]
    # The name of its column in `project`; empty if it needs an explicit one.
    name: str = ""


@dataclass
class Query:
    table: str
    columns: dict[str, str] = field(default_factory=lambda: dict(COLUMNS))
    steps: list[Callable[[list[Row], Tables], list[Row]]] = field(default_factory=list)
    # Whether an order on the id makes pages stable.
    is_ordered: bool = False
    # Whether the rows are resources, whose ids allow further pages.
    has_resources: bool = True

    @property
    def is_paged(self) -> bool:
        return self.has_resources and "id" in self.columns

    def run(self, tables: Tables) -> list[Row]:
        rows = list(tables(self.table))
        for step in self.steps:
            rows = step(rows, tables)
        return [{name: row.get(name) for name in self.columns} for row in rows]


def read(text: str, *, any_union: bool = False) -> Query:
    """Parse a query. `any_union`: `union` can combine any tables. Raises BadQuery."""
    parser = _Parser(text, any_union=any_union)
    query = parser.query()
    if parser.next.kind != "end":
        parser.fail()
    if parser.unresolved:
        name = parser.unresolved[0]
        raise BadQuery("SemanticError", f"Failed to resolve scalar expression named '{name}'")
    return query


def text_of(value: Any) -> str:
    """`tostring`: compact JSON of an object, and an empty string for null."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _same(one: Any, other: Any) -> bool:
    return text_of(one) == text_of(other)


def _alike(one: Any, other: Any) -> bool:
    return text_of(one).lower() == text_of(other).lower()


_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": _same,
    "!=": lambda one, other: not _same(one, other),
    "=~": _alike,
    "!~": lambda one, other: not _alike(one, other),
    "contains": lambda one, other: text_of(other).lower() in text_of(one).lower(),
    "!contains": lambda one, other: text_of(other).lower() not in text_of(one).lower(),
    "startswith": lambda one, other: text_of(one).lower().startswith(text_of(other).lower()),
    "endswith": lambda one, other: text_of(one).lower().endswith(text_of(other).lower()),
}
_MEMBERSHIPS: dict[str, Callable[[Any, list[Any]], bool]] = {
    "in": lambda one, others: any(_same(one, other) for other in others),
    "!in": lambda one, others: not any(_same(one, other) for other in others),
    "in~": lambda one, others: any(_alike(one, other) for other in others),
    "!in~": lambda one, others: not any(_alike(one, other) for other in others),
}
# Type of the argument (empty: any), type of the result, function.
_FUNCTIONS: dict[str, tuple[str, str, Callable[[Any], Any]]] = {
    "tostring": ("", "string", text_of),
    "tolower": ("string", "string", lambda value: text_of(value).lower()),
    "isempty": ("", "boolean", lambda value: text_of(value) == ""),
    "isnotempty": ("", "boolean", lambda value: text_of(value) != ""),
}


class _Parser:
    def __init__(self, text: str, *, any_union: bool) -> None:
        self._text = text
        self._any_union = any_union
        self._tokens = [*self._split(), *[_Token("end", "<EOF>", len(text))] * 2]
        self._at = 0
        self._legs = 0
        self._columns: dict[str, str] = {}
        # Names that are no columns. They are errors only if the query is well-formed.
        self.unresolved: list[str] = []
        if max(accumulate(({"(": 1, ")": -1}.get(token.text, 0) for token in self._tokens), initial=0)) > DEEPEST:
            raise _not_here(f"A query with more than {DEEPEST} nested parentheses")

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
    def next(self) -> _Token:
        return self._tokens[self._at]

    def fail(self) -> NoReturn:
        self._fail_at(self.next)

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
        token = self.next
        self._at += token.kind != "end"
        return token

    def _skip(self, *texts: str) -> bool:
        """Take the next token if it is one of the texts."""
        found = self.next.kind in ("word", "sign") and self.next.text in texts
        if found:
            self._take()
        return found

    def _need(self, *texts: str) -> None:
        if not self._skip(*texts):
            self.fail()

    def _word(self) -> str:
        if self.next.kind != "word":
            self.fail()
        return self._take().text

    # Operators

    def query(self) -> Query:
        query = Query("resources")
        if self.next.text in self._OPERATORS:
            self._operator(query)
        else:
            query.table = self._table()
        while self._skip("|"):
            self._operator(query)
        return query

    def _table(self) -> str:
        name = self._word()
        if name.lower() not in TABLES:
            raise _disallowed(name)
        return name.lower()

    def _operator(self, query: Query) -> None:
        name = self._word()
        if name not in self._OPERATORS:
            raise _not_here(f"The operator '{name}'")
        self._columns = query.columns
        self._OPERATORS[name](self, query)

    def _where(self, query: Query) -> None:
        condition = self._condition()
        query.steps.append(lambda rows, _tables: [row for row in rows if condition(row)])

    def _extend(self, query: Query) -> None:
        made = self._named(needs_names=True)
        query.steps.append(lambda rows, _tables: [{**row, **_computed(made, row)} for row in rows])
        query.columns = {**query.columns, **{name: one.type for name, one in made.items()}}

    def _project(self, query: Query) -> None:
        made = self._named(needs_names=False)
        query.steps.append(lambda rows, _tables: [_computed(made, row) for row in rows])
        query.columns = {name: one.type for name, one in made.items()}

    def _named(self, *, needs_names: bool) -> dict[str, _Expression]:
        """`NAME = EXPRESSION, ...`; in `project`, a column needs no name."""
        found: dict[str, _Expression] = {}
        while True:
            name = ""
            if self._tokens[self._at + 1].text == "=":
                name = self._word()
                self._need("=")
            expression = self._scalar()
            if not name and (needs_names or not expression.name):
                raise _not_here("A computed column without a name")
            found[name or expression.name] = expression
            if not self._skip(","):
                return found

    def _distinct(self, query: Query) -> None:
        names = [self._column()]
        while self._skip(","):
            names.append(self._column())

        def distinct(rows: list[Row], _tables: Tables) -> list[Row]:
            found = {tuple(text_of(row.get(name)) for name in names): row for row in reversed(rows)}
            return [{name: row.get(name) for name in names} for row in reversed(found.values())]

        query.steps.append(distinct)
        query.columns = {name: query.columns.get(name, "string") for name in names}
        query.has_resources = False

    def _order(self, query: Query) -> None:
        self._need("by")
        keys: list[tuple[str, bool]] = []
        while not keys or self._skip(","):
            name = self._column()
            if query.columns.get(name) == "object":
                raise _not_here("An order by a column that is not a string")
            is_ascending = self._skip("asc")
            self._skip("desc")
            keys.append((name, is_ascending))

        def order(rows: list[Row], _tables: Tables) -> list[Row]:
            for name, is_ascending in reversed(keys):
                rows = _sorted(rows, name, is_ascending)
            return rows

        query.steps.append(order)
        query.is_ordered = any(name == "id" for name, _is_ascending in keys)

    def _limit(self, query: Query) -> None:
        if self.next.kind != "number":
            self.fail()
        most = int(self._take().text)
        query.steps.append(lambda rows, _tables: rows[:most])

    def _union(self, query: Query) -> None:
        columns, legs = query.columns, [self._leg(query)]
        while self._any_union and self._skip(","):
            legs.append(self._leg(query))

        def union(rows: list[Row], tables: Tables) -> list[Row]:
            return rows + [row for leg in legs for row in leg.run(tables)]

        query.steps.append(union)
        for leg in legs:
            columns = {**columns, **leg.columns}
        query.columns, query.is_ordered = columns, False

    def _leg(self, query: Query) -> Query:
        self._legs += 1
        if self._legs > MOST_UNION_LEGS:
            raise _not_here(f"A query with more than {MOST_UNION_LEGS} union legs")
        if self._skip("("):
            leg = self.query()
            self._need(")")
        else:
            leg = Query(self._table())
        if not self._any_union and leg.table != query.table and {leg.table, query.table} != _COMBINED:
            raise _disallowed(leg.table)
        return leg

    _OPERATORS: ClassVar[dict[str, Callable[[_Parser, Query], None]]] = {
        "where": _where,
        "extend": _extend,
        "project": _project,
        "distinct": _distinct,
        "order": _order,
        "sort": _order,
        "limit": _limit,
        "take": _limit,
        "union": _union,
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
        if self.next.text == "not" and self._tokens[self._at + 1].text == "(":
            self._take()
            refused = self._comparison()
            return lambda row: not refused(row)
        left = self._scalar()
        if left.type == "boolean":
            return left.value
        name = self.next.text if self.next.kind in ("word", "sign") else ""
        if name in _COMPARISONS:
            self._take()
            compare, right = _COMPARISONS[name], self._scalar()
            return lambda row: compare(left.value(row), right.value(row))
        if name in _MEMBERSHIPS:
            self._take()
            is_member, members = _MEMBERSHIPS[name], self._members()
            return lambda row: is_member(left.value(row), [member.value(row) for member in members])
        if self.next.kind == "word" and name not in ("and", "or"):
            raise _not_here(f"The operator '{name}'")
        self.fail()

    def _members(self) -> list[_Expression]:
        self._need("(")
        members = [self._scalar()]
        while self._skip(","):
            members.append(self._scalar())
        self._need(")")
        return members

    # Scalars

    def _scalar(self) -> _Expression:
        token = self._take()
        if token.kind == "string":
            text = _unquoted(token.text)
            return _Expression("string", lambda _row: text)
        if token.kind == "number":
            number = int(token.text)
            return _Expression("integer", lambda _row: number)
        if token.kind != "word":
            self._fail_at(token)
        if self._skip("("):
            return self._call(token.text)
        self._resolve(token.text)
        return self._path(token.text)

    def _call(self, name: str) -> _Expression:
        if name not in _FUNCTIONS:
            raise _not_here(f"The function '{name}'")
        wanted, result, function = _FUNCTIONS[name]
        argument = self._scalar()
        self._need(")")
        if wanted and argument.type != wanted:
            raise _not_here(f"{name}() of a value that is not a {wanted}")
        return _Expression(result, lambda row: function(argument.value(row)))

    def _path(self, column: str) -> _Expression:
        """`properties.encryption.keySource` or `properties['encryption']`."""
        names: list[str] = []
        while True:
            if self._skip("."):
                names.append(self._word())
            elif self._skip("["):
                if self.next.kind != "string":
                    self.fail()
                names.append(_unquoted(self._take().text))
                self._need("]")
            else:
                break
        if not names:
            return _Expression(self._columns.get(column, "string"), lambda row: row.get(column), column)

        def value(row: Row) -> Any:
            found: Any = row.get(column)
            for name in names:
                found = found.get(name) if isinstance(found, dict) else None
            return found

        return _Expression("object", value, "_".join((column, *names)))

    def _column(self) -> str:
        name = self._word()
        self._resolve(name)
        return name

    def _resolve(self, name: str) -> None:
        if name not in self._columns:
            self.unresolved.append(name)


def _unquoted(text: str) -> str:
    if text[0] == "@":
        return text[2:-1]
    return _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[1]), text[1:-1])


def _computed(made: dict[str, _Expression], row: Row) -> Row:
    return {name: one.value(row) for name, one in made.items()}


def _sorted(rows: list[Row], name: str, is_ascending: bool) -> list[Row]:
    return sorted(rows, key=lambda row: text_of(row.get(name)), reverse=not is_ascending)


def _disallowed(table: str) -> BadQuery:
    return BadQuery("DisallowedLogicalTableName", f"Table {table} is invalid, unsupported or disallowed.")


def _not_here(what: str) -> BadQuery:
    return BadQuery("NotInSandbox", f"{what} is not in the sandbox (see docs/sandbox-fidelity.md). Azure may have it.")
