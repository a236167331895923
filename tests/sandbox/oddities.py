# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hypothesis strategies for invalid requests: valid requests with a few changes, and meaningless requests."""

from __future__ import annotations

import copy
import functools
import json
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from hypothesis import strategies as st

from azure_sandbox.shared.web import Route

Draw = Callable[[st.SearchStrategy[Any]], Any]
# The path to a value in a document: names of members and indexes of lists.
Place = tuple[Any, ...]

# Values that Python's JSON writer cannot write. They replace the text in the document.
RAW = {
    "<too much>": "1e400",
    "<too little>": "-1e400",
    "<long>": "9" * 5000,
    "<deep>": "[" * 5000 + "]" * 5000,
    "<deeper>": '{"a":' * 100_000 + "1" + "}" * 100_000,
}
TEXTS = (
    "",
    " ",
    "a",
    "..",
    "/",
    "null",
    "a" * 300,
    "\x00",
    "\r\nx: y",
    "é",
    "☃",
    "\ud800",
    "'",
    '"',
    "%2F",
    "P1Y",
    "2099-01-01",
    "00000000-0000-0000-0000-000000000000",
    "@subscription@",
    "@operator@",
    "@tenant@",
    "@key@",
    "@identity@",
    "Enabled",
    "None",
    "RSA",
    "AQAB",
)
NUMBERS = (0, -1, 1, 3, 7, 90, 2048, 2048.0, 2**31, 2**63, -(2**63), 10**30, 0.5, float("nan"), float("inf"))
SCALARS = st.sampled_from((None, True, False, *NUMBERS, *TEXTS, *RAW))
JUNK = st.one_of(
    SCALARS,
    st.text(max_size=20),
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(TEXTS), inner, max_size=3),
        max_leaves=4,
    ),
)
NAMES = st.sampled_from(TEXTS) | st.text(max_size=8)


@dataclass(frozen=True)
class Ask:
    """A request. `@name@` is replaced by the value of that name after the sandbox has started."""

    method: str
    # Empty for a plain connection.
    tunnel: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    chunked: bool = False

    def bytes(self, known: Mapping[str, str]) -> bytes:
        body = filled(self.body, known)
        framing = ("transfer-encoding", "chunked") if self.chunked else ("content-length", str(len(body)))
        lines = [f"{self.method} {self.target} HTTP/1.1", *(f"{name}: {value}" for name, value in self.headers)]
        head = "\r\n".join([*lines, ": ".join(framing), "", ""]).encode("latin-1")
        return filled(head, known) + (_chunks(body) if self.chunked else body)


def filled(content: bytes, known: Mapping[str, str]) -> bytes:
    """Replace `@name@` by the value of that name. A name in capitals is replaced by the value in capitals."""

    def value(found: re.Match[bytes]) -> bytes:
        name = found[1].decode()
        return known[name].encode() if name in known else known.get(name.lower(), "").upper().encode() or found[0]

    return re.sub(rb"@([\w-]+)@", value, content)


def _chunks(body: bytes) -> bytes:
    parts = [body[start : start + 7] for start in range(0, len(body), 7)] if len(body) < 1000 else [body]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in [*parts, b""])


def rarely(draw: Draw, times: int) -> bool:
    """True about once in `times` examples, and never in the simplest example."""
    return bool(draw(st.integers(0, times - 1)) == times // 2)


# Bodies

# Values of each type, for every place in a document.
PLAIN_JUNK: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2048.0,
    10**30,
    "",
    "\u2603",
    "a" * 300,
    [],
    {},
    ["a"],
    [None],
    {"a": None},
    {"a": {}},
)


def every_change(document: Any, junk: Iterable[Any]) -> Iterator[Any]:
    """The document with one change: a value is replaced, or a member is removed, duplicated or added."""
    yield document
    for place in _places(document):
        for value in junk:
            yield _with(document, place, _replace(value))
        yield _with(document, place, operator.delitem)
        yield _with(document, place, _double)


def _with(document: Any, place: Place, change: Callable[[Any, Any], None]) -> Any:
    document = copy.deepcopy(document)
    *above, last = place
    change(functools.reduce(operator.getitem, above, document), last)
    return document


def _double(holder: Any, last: Any) -> None:
    if isinstance(holder, list):
        holder.append(copy.deepcopy(holder[last]))
    else:
        holder[str(last).swapcase()] = copy.deepcopy(holder[last])


@st.composite
def mutated(draw: Draw, document: Any) -> Any:
    for _ in range(draw(st.integers(0, 3))):
        places = [*_places(document)]
        if not places or rarely(draw, 30):
            return draw(JUNK)
        document = _with(document, draw(st.sampled_from(places)), draw(CHANGES))
    return document


def _replace(value: Any) -> Callable[[Any, Any], None]:
    return lambda holder, last: operator.setitem(holder, last, value)


def _add(name: str, value: Any) -> Callable[[Any, Any], None]:
    return lambda holder, last: (
        holder.append(value) if isinstance(holder, list) else operator.setitem(holder, name, value)
    )


CHANGES = st.one_of(
    JUNK.map(_replace),
    JUNK.map(_replace),
    st.builds(_add, NAMES, JUNK),
    st.sampled_from((operator.delitem, _double)),
)


def _places(document: Any, above: Place = ()) -> Iterator[Place]:
    """The paths to all values in the document."""
    if isinstance(document, (dict, list)):
        for name, value in document.items() if isinstance(document, dict) else enumerate(document):
            yield (*above, name)
            yield from _places(value, (*above, name))


def written(document: Any, *, escaped: bool = True) -> bytes:
    text = json.dumps(document, ensure_ascii=escaped)
    for name, raw in RAW.items():
        text = text.replace(f'"{name}"', raw)
    return text.encode("utf-8", "surrogatepass")


@dataclass(frozen=True)
class Form:
    """The fields of a valid form."""

    fields: Mapping[str, str]


def bodies(*documents: Any) -> st.SearchStrategy[bytes]:
    """Most of the bodies are one of the documents with one to three changes."""
    if documents and isinstance(documents[0], Form):
        return forms(documents[0].fields)
    return _texts(st.sampled_from(documents).flatmap(mutated) if documents else JUNK)


@st.composite
def _texts(draw: Draw, documents: st.SearchStrategy[Any]) -> bytes:
    if rarely(draw, 20):
        return bytes(draw(st.binary(max_size=40)))
    content = written(draw(documents), escaped=draw(st.booleans()))
    if not rarely(draw, 12):
        return content
    start = draw(st.integers(0, len(content)))
    return content[:start] + draw(st.binary(max_size=3)) + content[start + draw(st.integers(0, 5)) :]


def forms(fields: Mapping[str, Any]) -> st.SearchStrategy[bytes]:
    """Forms of token requests."""
    texts = st.sampled_from(TEXTS) | st.text(max_size=20)
    entry = st.sampled_from(sorted(fields.items())).flatmap(
        lambda one: st.tuples(st.just(one[0]), st.one_of(st.just(one[1]), st.just(one[1]), texts))
    )
    some = st.lists(entry, max_size=6)
    whole = st.builds(lambda more: [*fields.items(), *more], st.lists(entry, max_size=2))
    return (whole | some).map(lambda pairs: urlencode(pairs, safe="@", errors="surrogatepass").encode()) | st.binary(
        max_size=40
    )


# Targets

SEGMENTS = st.one_of(
    st.sampled_from(
        [
            *". .. % %zz %00 %2F %2e%2e %0a %0d%0ax:y %ff %C3%A9 %E2%98%83 %3F %23 ;a=b - * $batch ' a,b ~".split(),
            *"a+b null %25 %E4%BD%A0%E5%A5%BD a%20b %5B %7Bkey%7D providers subscriptions Microsoft.Batch".split(),
            *("", "x" * 24, "x" * 127, "a" * 300, "a" * 5000),
        ]
    ),
    st.text(min_size=1, max_size=12).map(lambda text: quote(text, safe="", errors="surrogatepass")),
)
QUERY_NAMES = ("api-version", "API-Version", "$filter", "$top", "$skiptoken", "maxresults", "since", "resource", "x")
QUERY_VALUES = st.one_of(
    st.sampled_from(
        [
            *(
                "atScope()",
                "assignedTo('x')",
                "principalId eq '@operator@'",
                "roleName eq 'Owner'",
                "roleName eq 'O''r'",
            ),
            *("resourceType eq 'Microsoft.Batch/batchAccounts'", "name eq 'x' and location eq 'y'"),
            *"0 -1 25 \u0663 e30= eyJOZXh0TWFya2VyIjogWzFdfQ== W1tbW1tbW1tb YS9iL2M /w \x00".split(" "),
            *("", "9" * 5000, "a" * 20_000),
        ]
    ),
    st.sampled_from(TEXTS),
    st.text(max_size=20),
)


@st.composite
def paths(draw: Draw, template: str, known: Mapping[str, tuple[str, ...]]) -> str:
    """A path of the route. Its parameters exist in the sandbox, or one of its segments is invalid."""
    parts = [draw(_segments(part, known)) for part in template.split("/")]
    if rarely(draw, 6):
        parts[draw(st.integers(1, len(parts) - 1))] = draw(SEGMENTS)
    path = "/".join(parts)
    return f"{path}//" if rarely(draw, 30) else path


def _segments(part: str, known: Mapping[str, tuple[str, ...]]) -> st.SearchStrategy[str]:
    parameter = re.fullmatch(r"\{(\w+)(:path)?\}", part)
    if parameter is None:
        return st.just(part)
    values = known.get(parameter[1], ("x",))
    return st.sampled_from((*values[:1] * 10, *values, values[0].swapcase()))


@st.composite
def queries(draw: Draw, version: str) -> str:
    pairs = [("api-version", version)] if version and not rarely(draw, 20) else []
    values = st.tuples(st.sampled_from(QUERY_NAMES), QUERY_VALUES)
    more = draw(st.lists(values, max_size=3)) if rarely(draw, 5) else []
    query = urlencode([*pairs, *more], safe="@'()$,", errors="surrogatepass")
    return draw(st.sampled_from((f"?{query}&&=&%", f"?{query};x", "?"))) if rarely(draw, 30) else f"?{query}"


# Headers

HEADER_TEXTS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=40)
HEADERS = st.one_of(
    st.sampled_from(
        (
            ("x-ms-return-client-request-id", "true"),
            ("metadata", "true"),
            ("metadata", "no"),
            ("content-type", "application/json"),
            ("content-type", "application/x-www-form-urlencoded"),
            ("content-type", "text/plain; charset=utf-7"),
            ("content-encoding", "gzip"),
            ("expect", "100-continue"),
            ("connection", "close"),
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("upgrade", "h2c"),
            ("if-match", "*"),
            ("accept", "application/xml"),
            ("accept", "text/html"),
            ("origin", "null"),
            ("origin", "http://["),
            ("x-http-method-override", "DELETE"),
            ("x-forwarded-host", "example.com"),
            ("x-long", "a" * 60_000),
            ("range", "bytes=0-1"),
        )
    ),
    st.tuples(
        st.sampled_from(
            ("x-ms-client-request-id", "client-request-id", "content-type", "accept", "user-agent", "cookie")
        ),
        HEADER_TEXTS,
    ),
)
TOKENS = st.one_of(
    st.sampled_from(
        [
            *"a.b.c .. @arm-token@ @vault-token@ @stranger-token@ @arm-token@x eyJhbGciOiJub25lIn0.e30.".split(),
            *("", " ", "W10.W10.W10", "@arm-token@, Bearer @arm-token@", "\xff.\xff.\xff", "a" * 60_000),
        ]
    ),
    HEADER_TEXTS,
)
AUTHORIZATIONS = st.sampled_from(["", "Bearer", "Basic dTpw", "bearer @arm-token@"]) | TOKENS.map("Bearer {}".format)
HOSTS = [
    *"[ ] [::1] a]b a@b x/y \xe9.management.azure.com [.management.azure.com ].vault.azure.net".split(),
    *"management.azure.com:443 MANAGEMENT.AZURE.COM management.azure.com. management.azure.com:x".split(),
    *"x.management.azure.com ?.management.azure.com x.login.microsoft.com:443 login.microsoftonline.com".split(),
    *"nobody.vault.azure.net vault-two.vault.azure.net:443 vault-gone.vault.azure.net".split(),
    *"169.254.169.254 127.0.0.1:@port@ localhost:@port@ example.com".split(),
    *("", "a b", "a" * 5000),
]


@st.composite
def header_lists(draw: Draw, host: str, token: str) -> tuple[tuple[str, str], ...]:
    hosts = [draw(st.sampled_from(HOSTS))] if rarely(draw, 20) else [host]
    if rarely(draw, 100):
        hosts = draw(st.sampled_from(([], [*hosts, host])))
    usual = f"Bearer {token}" if token else ""
    authorization = draw(AUTHORIZATIONS) if rarely(draw, 20) else usual
    more = draw(st.lists(HEADERS, max_size=2)) if rarely(draw, 5) else []
    named = [*(("host", one) for one in hosts), *([("authorization", authorization)] if authorization else [])]
    return (*named, *more)


# Whole requests


@dataclass(frozen=True)
class Plane:
    """A host, and the properties of a valid request to it."""

    host: str
    routes: tuple[Route, ...]
    # The API version for a route.
    versions: Callable[[Route], str]
    token: str = ""
    tunnelled: bool = True


def documents_for(route: Route, known: Mapping[str, tuple[Any, ...]]) -> tuple[Any, ...]:
    """The valid bodies for the route, by its method and the end of its path."""
    for place, documents in known.items():
        method, _, end = place.partition(" ")
        if route.method == method and route.path.endswith(end):
            return documents
    return ()


def good(plane: Plane, method: str, path: str, body: bytes = b"") -> Ask:
    """A valid request, as a correct client sends it."""
    headers = (("host", plane.host), ("authorization", f"Bearer {plane.token}"), ("metadata", "true"))
    return Ask(method, plane.host if plane.tunnelled else "", path, headers, body)


METHODS = ("GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS", "TRACE", "MERGE", "LOCK", "PROPFIND")


@st.composite
def asks(
    draw: Draw,
    plane: Plane,
    known: Mapping[str, tuple[str, ...]],
    documents: Mapping[str, tuple[Any, ...]],
) -> Ask:
    # Routes that accept a body are more frequent, because most errors are in the body.
    writing = [route for route in plane.routes if documents_for(route, documents)]
    route = draw(st.sampled_from([*plane.routes, *writing * 3]))
    method = draw(st.sampled_from(METHODS)) if rarely(draw, 30) else route.method
    target = draw(paths(route.path, known)) + draw(queries(plane.versions(route)))
    if rarely(draw, 60):
        target = draw(st.sampled_from((f"https://{plane.host}{target}", f"//{target}", "*", "/", target[1:] or "x")))
    has_body = method not in ("GET", "HEAD") or rarely(draw, 10)
    body = draw(bodies(*documents_for(route, documents))) if has_body else b""
    return Ask(
        method,
        plane.host if plane.tunnelled else "",
        target,
        draw(header_lists(plane.host, plane.token)),
        body,
        rarely(draw, 10),
    )


# Bytes


@st.composite
def garbled(draw: Draw, *requests: bytes) -> bytes:
    """A request with some bytes changed, removed or inserted, or an incomplete request."""
    content: bytes = draw(st.sampled_from(requests))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(content)))
        end = start + draw(st.integers(0, 12))
        inserted = draw(st.one_of(st.binary(max_size=4), st.sampled_from((b"\r\n", b"\r\n\r\n", b"\x00", b":", b" "))))
        content = content[:start] + inserted + content[end:]
    return content if draw(st.booleans()) else content[: draw(st.integers(0, len(content)))]


NOISE = st.one_of(
    st.binary(max_size=200), st.sampled_from((b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x80.\x01"))
)
