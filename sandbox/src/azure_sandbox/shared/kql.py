# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A subset of the Kusto Query Language (KQL), which Resource Graph and Log Analytics accept.

A query is `[TABLE |] OPERATOR | ...`. The operators are `where`, `extend`, `project`, `distinct`, `summarize`,
`order by` (or `sort by`), `limit` (or `take`) and `union`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Any, ClassVar, NoReturn

from .timing import iso

Row = dict[str, Any]
# By name, the type of each column: string, object, boolean, integer or datetime.
Columns = Mapping[str, str]
Tables = Callable[[str], Iterable[Row]]

DEEPEST = 64


@dataclass(frozen=True)
class Language:
    """What differs between the services."""

    # By the name of a table, its columns.
    tables: Mapping[str, Columns]
    # The table of a query that names none; empty if such a query begins with the tables of `union`.
    default_table: str
    any_case: bool
    # The groups of tables that `union` combines. None: all tables.
    unions: tuple[frozenset[str], ...] | None
    most_union_legs: int
    # Seconds since 1970-01-01 UTC.
    now: float


class Problem(Exception):
    """Why a query is refused."""


class SyntaxProblem(Problem):
    def __init__(self, line: int, column: int, token: str) -> None:
        super().__init__(f"line {line}, column {column}: {token}")
        self.line, self.column, self.token = line, column, token


class UnknownTable(Problem):
    def __init__(self, name: str, operator: str) -> None:
        super().__init__(name)
        self.name, self.operator = name, operator


class UnknownColumn(UnknownTable):
    pass


class NotInSandbox(Problem):
    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is not in the sandbox (see docs/sandbox-fidelity.md). Azure may have it.")


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


_TOKEN = re.compile(
    r"(?P<blank>\s+|//[^\n]*)"
    r"|(?P<string>@'[^']*'|@\"[^\"]*\"|'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\")"
    r"|(?P<number>\d+(?:\.\d+)?[a-z]*)"
    r"|(?P<word>!?in~|![a-z]+|[A-Za-z_]\w*)"
    r"|(?P<sign>==|!=|=~|!~|<=|>=|[<>=|(),.\[\]])"
)
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t"}


@dataclass(frozen=True)
class _Expression:
    type: str
    value: Callable[[Row], Any]
    # The name of its column in `project`; empty if it needs an explicit one.
    name: str = ""


@dataclass
class Query:
    table: str
    columns: dict[str, str]
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


def read(text: str, language: Language) -> Query:
    """Parse a query. Raises Problem."""
    parser = _Parser(text, language)
    query = parser.query()
    if parser.next.kind != "end":
        parser.fail()
    if parser.unresolved:
        raise parser.unresolved[0]
    return query


def text_of(value: Any) -> str:
    """`tostring`: compact JSON of an object, and an empty string for null."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) or text_of(one) == text_of(other)


def _is_less(one: Any, other: Any) -> bool:
    """Numbers are compared with numbers, and times with times. Null is neither less nor greater."""
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return one < other
    return isinstance(one, str) and isinstance(other, str) and one < other


def _alike(one: Any, other: Any) -> bool:
    return text_of(one).lower() == text_of(other).lower()


def _rank(value: Any) -> tuple[float, str]:
    """Numbers are sorted before texts."""
    return (value, "") if isinstance(value, (int, float)) else (float("inf"), text_of(value))


_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": _same,
    "!=": lambda one, other: not _same(one, other),
    "=~": _alike,
    "!~": lambda one, other: not _alike(one, other),
    "<": _is_less,
    ">": lambda one, other: _is_less(other, one),
    "<=": lambda one, other: _is_less(one, other) or _same(one, other),
    ">=": lambda one, other: _is_less(other, one) or _same(one, other),
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
    "toint": ("", "integer", lambda value: _integer(value)),
    "isempty": ("", "boolean", lambda value: text_of(value) == ""),
    "isnotempty": ("", "boolean", lambda value: text_of(value) != ""),
}


# The type of the result (empty: that of the argument), and the function.
_AGGREGATES: dict[str, tuple[str, Callable[[list[Any]], Any]]] = {
    "count": ("integer", len),
    "max": ("", lambda values: max((one for one in values if one is not None), key=_rank, default=None)),
    "min": ("", lambda values: min((one for one in values if one is not None), key=_rank, default=None)),
}
_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def _integer(value: Any) -> int | None:
    try:
        return int(float(value))
    except (TypeError, ValueError, OverflowError):
        return None


class _Parser:
    def __init__(self, text: str, language: Language) -> None:
        self._text = text
        self._language = language
        self._tokens = [*self._split(), *[_Token("end", "<EOF>", len(text))] * 2]
        self._at = 0
        self._legs = 0
        self._columns: Columns = {}
        self._operator_name = ""
        # Names that are no columns. They are errors only if the query is well-formed.
        self.unresolved: list[UnknownColumn] = []
        if max(accumulate(({"(": 1, ")": -1}.get(token.text, 0) for token in self._tokens), initial=0)) > DEEPEST:
            raise NotInSandbox(f"A query with more than {DEEPEST} nested parentheses")

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
        column = token.at - (before.rfind("\n") + 1)
        raise SyntaxProblem(before.count("\n") + 1, column, token.text)

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
        if self.next.text in self._OPERATORS:
            query = self._of(self._language.default_table)
            self._operator(query)
        else:
            query = self._table()
        while self._skip("|"):
            self._operator(query)
        return query

    def _table(self) -> Query:
        name = self._word()
        if self._language.any_case:
            name = next((one for one in self._language.tables if one.lower() == name.lower()), name)
        if name not in self._language.tables:
            following = self._tokens[self._at + 1].text if self.next.text == "|" else ""
            raise UnknownTable(name, following)
        return self._of(name)

    def _of(self, table: str) -> Query:
        return Query(table, dict(self._language.tables.get(table, {})))

    def _operator(self, query: Query) -> None:
        name = self._word()
        if name not in self._OPERATORS:
            raise NotInSandbox(f"The operator '{name}'")
        self._columns, self._operator_name = query.columns, name
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
                raise NotInSandbox("A computed column without a name")
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
                raise NotInSandbox("An order by a column that is not a string")
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
        if self.next.kind != "number" or not self.next.text.isdigit():
            self.fail()
        most = int(self._take().text)
        query.steps.append(lambda rows, _tables: rows[:most])

    def _union(self, query: Query) -> None:
        is_fuzzy = self._skip("isfuzzy") and self._is_fuzzy()
        columns, legs = query.columns, [self._leg(query, is_fuzzy=is_fuzzy)]
        while self._language.unions is None and self._skip(","):
            legs.append(self._leg(query, is_fuzzy=is_fuzzy))

        def union(rows: list[Row], tables: Tables) -> list[Row]:
            return rows + [row for leg in legs if leg for row in leg.run(tables)]

        query.steps.append(union)
        for leg in filter(None, legs):
            columns = {**columns, **leg.columns}
        query.columns, query.is_ordered = columns, False

    def _is_fuzzy(self) -> bool:
        self._need("=")
        is_fuzzy = self._skip("true")
        if not is_fuzzy:
            self._need("false")
        return is_fuzzy

    def _leg(self, query: Query, *, is_fuzzy: bool) -> Query | None:
        """One leg of `union`. None if its table does not exist and `union` ignores that."""
        self._legs += 1
        if self._legs > self._language.most_union_legs:
            raise NotInSandbox(f"A query with more than {self._language.most_union_legs} union legs")
        in_parentheses = self._skip("(")
        try:
            leg = self.query() if in_parentheses else self._table()
        except UnknownTable:
            if not is_fuzzy:
                raise
            self._skip_leg(in_parentheses=in_parentheses)
            return None
        if in_parentheses:
            self._need(")")
        unions = self._language.unions
        if unions is not None and leg.table != query.table and {leg.table, query.table} not in unions:
            raise UnknownTable(leg.table, "union")
        return leg

    def _skip_leg(self, *, in_parentheses: bool) -> None:
        depth = int(in_parentheses)
        while depth and self.next.kind != "end":
            depth += {"(": 1, ")": -1}.get(self._take().text, 0)

    def _summarize(self, query: Query) -> None:
        made: dict[str, tuple[str, Callable[[list[Any]], Any], _Expression | None]] = {}
        while not made or self._skip(","):
            name = ""
            if self._tokens[self._at + 1].text == "=":
                name = self._word()
                self._need("=")
            aggregate = self._word()
            if aggregate not in _AGGREGATES:
                raise NotInSandbox(f"The aggregate '{aggregate}'")
            kind, function = _AGGREGATES[aggregate]
            self._need("(")
            argument = None if aggregate == "count" else self._scalar()
            self._need(")")
            if argument and argument.type == "object":
                raise NotInSandbox(f"{aggregate}() of an object")
            name = name or f"{aggregate}_{argument.name if argument else ''}"
            made[name] = (kind or (argument.type if argument else ""), function, argument)
        keys = self._named(needs_names=False) if self._skip("by") else {}

        def summarize(rows: list[Row], _tables: Tables) -> list[Row]:
            groups: dict[tuple[str, ...], list[Row]] = {} if keys else {(): []}
            for row in rows:
                groups.setdefault(tuple(text_of(one.value(row)) for one in keys.values()), []).append(row)
            return [
                {
                    **(_computed(keys, group[0]) if group else {}),
                    **{
                        name: function([argument.value(row) if argument else row for row in group])
                        for name, (_kind, function, argument) in made.items()
                    },
                }
                for group in groups.values()
            ]

        query.steps.append(summarize)
        columns = {name: one.type for name, one in keys.items()}
        query.columns = {**columns, **{name: kind for name, (kind, _function, _argument) in made.items()}}
        query.has_resources = False

    _OPERATORS: ClassVar[dict[str, Callable[[_Parser, Query], None]]] = {
        "where": _where,
        "extend": _extend,
        "project": _project,
        "distinct": _distinct,
        "order": _order,
        "sort": _order,
        "summarize": _summarize,
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
            raise NotInSandbox(f"The operator '{name}'")
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
            if not token.text.isdigit():
                self._fail_at(token)
            number = int(token.text)
            return _Expression("integer", lambda _row: number)
        if token.kind != "word":
            self._fail_at(token)
        if self._skip("("):
            return self._call(token.text)
        self._resolve(token.text)
        return self._path(token.text)

    def _call(self, name: str) -> _Expression:
        if name == "ago":
            return self._ago()
        if name == "column_ifexists":
            return self._column_if_exists()
        if name not in _FUNCTIONS:
            raise NotInSandbox(f"The function '{name}'")
        wanted, result, function = _FUNCTIONS[name]
        argument = self._scalar()
        self._need(")")
        if wanted and argument.type != wanted:
            raise NotInSandbox(f"{name}() of a value that is not a {wanted}")
        return _Expression(result, lambda row: function(argument.value(row)))

    def _ago(self) -> _Expression:
        span = self._take()
        if span.kind != "number" or span.text[-1] not in _UNITS or not span.text[:-1].isdigit():
            self._fail_at(span)
        self._need(")")
        seconds = min(int(span.text[:-1]) * _UNITS[span.text[-1]], self._language.now)
        moment = iso(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=self._language.now - seconds))
        return _Expression("datetime", lambda _row: moment)

    def _column_if_exists(self) -> _Expression:
        if self.next.kind != "string":
            self.fail()
        name = _unquoted(self._take().text)
        self._need(",")
        default = self._scalar()
        self._need(")")
        if name not in self._columns:
            return default
        return _Expression(self._columns[name], lambda row: row.get(name), name)

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
            self.unresolved.append(UnknownColumn(name, self._operator_name))


def _unquoted(text: str) -> str:
    if text[0] == "@":
        return text[2:-1]
    return _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[1]), text[1:-1])


def _computed(made: dict[str, _Expression], row: Row) -> Row:
    return {name: one.value(row) for name, one in made.items()}


def _sorted(rows: list[Row], name: str, is_ascending: bool) -> list[Row]:
    return sorted(rows, key=lambda row: _rank(row.get(name)), reverse=not is_ascending)
