# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sends a changed form of each valid body to each route. Each response must have the form of the service, and an error
must change nothing.

`make test` makes one in twenty of the changes, and `make fuzz` all of them, with more values.
"""

from __future__ import annotations

import copy
import functools
import itertools
import json
import logging
import operator
import os
import pickle
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import requests
from furnished import KNOWN, PLANES, Plane, furnished
from sandbox_client import Control, Sandbox

from azure_sandbox.running import InThread, Options, Running
from azure_sandbox.server import Sandbox as Server
from azure_sandbox.shared.web import Route

ALL = bool(os.environ.get("FUZZ_ALL"))
# Values that Python's JSON writer cannot write. They replace the text in the document.
RAW = {"<too much>": "1e400", "<long>": "9" * 5000, "<deep>": "[" * 5000 + "]" * 5000}
JUNK: tuple[Any, ...] = (
    *(None, True, 0, -1, 2048.0, 10**30, "", "\u2603", "a" * 300, [], {}, ["a"], [None], {"a": None}, {"a": {}}),
)
MORE = (*RAW, "\ud800", "\x00", "\r\nx: y", "..", "P1Y", "@operator@", "@key@", 2**63, 0.5)
# The path to a value in a document: names of members and indexes of lists.
Place = tuple[Any, ...]
# Attributes that are not compared: caches, and the results of Batch's checks of its keys.
UNSEEN = {
    *("world", "_world", "throttle", "key_vault_throttle", "_revoked", "_windows"),
    *("lost", "back_at", "unusable_since", "version", "wrapped"),
}


class Target(logging.Handler):
    """The tested sandbox. It runs in this process, so that tests can read its state and the errors that it logs."""

    def __init__(self, server: Server) -> None:
        super().__init__(logging.ERROR)
        self.server = server
        self.complaints: list[str] = []
        control = Control(server.url)
        sandbox = Sandbox(control.call("GET", "/environment"), control, None)  # type: ignore[arg-type]
        self.known = furnished(server, sandbox)
        self.session = sandbox.session()
        server.beginning = pickle.dumps(server.world)

    def emit(self, record: logging.LogRecord) -> None:
        self.complaints.append(logging.Formatter().format(record))

    def filled(self, text: str) -> str:
        return re.sub(r"@([\w-]+)@", lambda found: self.known.get(found[1], found[0]), text)

    def ask(self, plane: Plane, method: str, path: str, body: bytes = b"") -> requests.Response:
        """Send the request, and check the response."""
        url, content = self.filled(plane.url + path), self.filled(body.decode("utf-8", "surrogatepass"))
        headers = {"authorization": f"Bearer {self.filled(plane.token)}"} if plane.token else {}
        direct = {"http": "", "https": ""} if url.startswith("http://127") else None
        data = content.encode("utf-8", "surrogatepass")
        response = self.session.request(method, url, data=data, headers=headers, proxies=direct, timeout=30)
        said = f"{method} {url} {content[:500]}\n{response.status_code} {response.text[:1000]}\n{self.complaints}"
        assert not self.complaints, said
        assert response.status_code < 500 or response.status_code == 502, said
        if response.content and "text/html" not in response.headers["content-type"]:
            document = json.loads(response.content, parse_constant=lambda constant: pytest.fail(f"{constant}: {said}"))
            if response.status_code >= 400:
                error = document["error"]
                assert all(isinstance(error[name], str) and error[name] for name in ("code", "message")), said
        else:
            assert response.status_code < 400 or method == "HEAD", said
        return response


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    with InThread(Running(Options())) as server:
        one = Target(server)
        logging.getLogger().addHandler(one)
        yield one
        logging.getLogger().removeHandler(one)


def facts(thing: Any) -> Any:
    """All data of the sandbox's world, for a comparison."""
    if isinstance(thing, dict):
        return {key: facts(value) for key, value in thing.items()}
    if isinstance(thing, (list, tuple, set)):
        return [facts(value) for value in thing]
    if not hasattr(thing, "__dict__"):
        return thing
    # An empty safe is ignored, because the first read of a vault creates it.
    held = {name: facts(value) for name, value in vars(thing).items() if name not in UNSEEN}
    held["_safes"] = {uid: safe for uid, safe in held.get("_safes", {}).items() if safe["live"] or safe["deleted"]}
    return held


def settled(target: Target) -> Any:
    """The data of the world, after resources whose time has ended were removed, which any read does."""
    world = target.server.world
    list(world.batch.contents(""))
    world.vaults.deleted("")
    return facts(world)


def changes(document: Any) -> Iterator[Any]:
    """The document with one change: a value is replaced, or a member is removed or duplicated."""
    if ALL:
        return every_change(document, (*JUNK, *MORE))
    return itertools.islice(every_change(document, JUNK), 0, None, 20)


def every_change(document: Any, junk: Iterable[Any]) -> Iterator[Any]:
    yield document
    for place in places(document):
        for value in junk:
            yield changed(document, place, functools.partial(_set, value))
        yield changed(document, place, operator.delitem)
        yield changed(document, place, _double)


def places(document: Any, above: Place = ()) -> Iterator[Place]:
    """The paths to all values in the document."""
    if isinstance(document, (dict, list)):
        for name, value in document.items() if isinstance(document, dict) else enumerate(document):
            yield (*above, name)
            yield from places(value, (*above, name))


def changed(document: Any, place: Place, change: Callable[[Any, Any], None]) -> Any:
    document = copy.deepcopy(document)
    *above, last = place
    change(functools.reduce(operator.getitem, above, document), last)
    return document


def _set(value: Any, holder: Any, last: Any) -> None:
    holder[last] = value


def _double(holder: Any, last: Any) -> None:
    if isinstance(holder, list):
        holder.append(copy.deepcopy(holder[last]))
    else:
        holder[str(last).swapcase()] = copy.deepcopy(holder[last])


def written(document: Any) -> bytes:
    text = json.dumps(document)
    for name, raw in RAW.items():
        text = text.replace(f'"{name}"', raw)
    return text.encode()


def where_accepted(target: Target, plane: Plane, route: Route, document: Any) -> str:
    """The first known path that accepts the document."""
    parts = [KNOWN[part.strip("{}").partition(":")[0]] if "{" in part else (part,) for part in route.path.split("/")]
    for place in itertools.product(*parts):
        path = f"{'/'.join(place)}?api-version={plane.version(route)}"
        target.server.reset()
        if target.ask(plane, route.method, path, written(document)).status_code < 400:
            return path
    pytest.fail(f"nowhere is {document} accepted by {route.method} {route.path}")


@pytest.mark.parametrize("name", PLANES)
def test_a_change_in_each_place_of_each_valid_body(target: Target, name: str) -> None:
    plane = PLANES[name]
    for route in plane.routes:
        for document in plane.documents(route):
            path = where_accepted(target, plane, route, document)
            target.server.reset()
            for one in changes(document):
                before = settled(target)
                response = target.ask(plane, route.method, path, written(one))
                if response.status_code >= 400:
                    assert settled(target) == before, one
                    continue
                # Each resource that was accepted can be read, and so can the log.
                target.ask(plane, "GET", path)
                target.ask(PLANES["control"], "GET", "/requests")
                target.server.reset()


def test_a_changed_document_is_detected(target: Target) -> None:
    target.server.reset()
    before = facts(target.server.world)
    assert facts(target.server.world) == before
    target.server.world.resources.group(target.known["subscription"], "rg-sandbox").tags["a"] = "b"  # type: ignore[union-attr]
    assert facts(target.server.world) != before
