# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gateway in check mode. A write is a prediction for the later tasks of the run, and no request.

Documents of Azure are completed with the run's predictions. Each type of resource has its own overlay, which
predicts what a write changes. A write that no overlay knows fails the task.

This module util is private to the collection.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from .._core.concurrent import value_or_error
from .._core.errors import CmkError, Denied
from . import sdk
from .cache import RECENTLY
from .gateway import LOCKS, Answer, Gateway, Operation
from .session import Session

_CLOCKS_DIFFER_SECONDS = 5


class Place(NamedTuple):
    """What a ref names: `/SCOPE/providers/NAMESPACE/TYPE/NAME`, with the namespace in lower case."""

    scope: str
    namespace: str
    parts: tuple[str, ...]

    @property
    def types(self) -> tuple[str, ...]:
        """The names of the types, in lower case."""
        return tuple(part.lower() for part in self.parts[::2])


def place(ref: str) -> Place:
    scope, _providers, rest = ref.rpartition("/providers/")
    namespace, *parts = rest.split("/")
    return Place(scope, namespace.lower(), tuple(parts))


class Reads:
    """Azure's documents for predictions. In check mode, a task reads each of them once."""

    def __init__(self, gateway: Gateway, session: Session) -> None:
        self._gateway = gateway
        self._files = session.files
        self._cache = session.cache
        self._known: dict[str, Answer] = {}
        self.list = gateway.list
        self.ask = gateway.ask

    def answer(self, what: str, ref: str) -> Answer:
        if ref.lower() not in self._known:
            self._known[ref.lower()] = answer = self._gateway.answer(what, ref)
            self._note(answer)
        return self._known[ref.lower()]

    def find(self, what: str, ref: str) -> Any:
        return self.answer(what, ref).document

    def get(self, what: str, ref: str) -> Any:
        found = self.find(what, ref)
        # The error has Azure's own message.
        return self._gateway.get(what, ref) if found is None else found

    def recent(self, what: str, ref: str) -> list[Any]:
        """A list of Azure, as a task of the run has read it some seconds ago."""
        return self._cache.get(lambda: self.list(what, ref), "recent", ref.lower(), not_before=RECENTLY)

    def documents(self, namespace: str, *types: str) -> Iterator[Any]:
        """The documents of these types that the task has read."""
        # Other threads of the task may read more documents meanwhile.
        for ref, answer in list(self._known.items()):
            if (place(ref).namespace, place(ref).types) == (namespace, types) and answer.document is not None:
                yield answer.document

    @property
    def now(self) -> float:
        """The current time by Azure's clock, from the stored clock difference: if all resources of a task are
        predicted, the task gets no time from Azure."""
        return time.time() + float(self._files.load("ahead") or 0)

    def _note(self, answer: Answer) -> None:
        if answer.at is not None:
            # The header is in whole seconds, and the response is some time old: a small difference is not one of
            # the clocks.
            ahead = answer.at - time.time()
            self._files.store(ahead if abs(ahead) > _CLOCKS_DIFFER_SECONDS else 0, "ahead")


class ResourceOverlay:
    """The predictions for one type of resource. Here, the documents are those of Azure, and no write is known."""

    def __init__(self, azure: Reads) -> None:
        self._azure = azure

    def answer(self, what: str, ref: str) -> Answer:
        return self._azure.answer(what, ref)

    def list(self, what: str, ref: str, filter: str | None) -> list[Any]:
        return self._azure.list(what, ref, filter)

    def ask(self, what: str, ref: str, body: Mapping[str, Any]) -> Any:
        return self._azure.ask(what, ref, body)

    def write(self, what: str, method: str, ref: str, body: Mapping[str, Any]) -> Any:
        """The document in the response."""
        raise not_predicted(method, ref)

    def _group_of(self, what: str, ref: str) -> str:
        """The id of the resource group of a new resource, with Azure's letter case if the caller may read the group."""
        scope = place(ref).scope
        try:
            return str(self._azure.get(what, scope)["id"])
        except Denied:
            return scope


class Overlay(Gateway):
    """`overlays` are those of the resource providers, by the namespace in lower case, and of `keys`."""

    def __init__(self, session: Session, azure: Reads, keys: ResourceOverlay, overlays: Mapping[str, Any]) -> None:
        super().__init__(session)
        self._azure = azure
        self._keys = keys
        self._overlays: Mapping[str, ResourceOverlay] = overlays
        self._others = ResourceOverlay(azure)

    def answer(self, what: str, ref: str) -> Answer:
        return self._of(ref).answer(what, ref)

    def get(self, what: str, ref: str) -> Any:
        found = self.find(what, ref)
        if found is not None:
            return found
        # If Azure has the resource, its deletion is predicted.
        self._azure.get(what, ref)
        raise missing(what, ref)

    def list(self, what: str, ref: str, filter: str | None = None) -> list[Any]:
        return self._of(ref).list(what, ref, filter)

    def ask(self, what: str, ref: str, body: Mapping[str, Any]) -> Any:
        return self._of(ref).ask(what, ref, body)

    def write(
        self,
        what: str,
        method: str,
        ref: str,
        body: Mapping[str, Any] | None = None,
        *,
        if_late: Callable[[], None] | None = None,
        undoes: bool = False,
    ) -> Any:
        with self._session.journal.writing(method, ref, body, undoes=undoes) as write:
            if not self._is_in_vault(ref):
                self._require_unlocked(what, method, ref)
            write.document = self._of(ref).write(what, method, ref, body or {})
        self._session.sent.accepted += 1
        return write.document

    def begin(self, what: str, method: str, ref: str, *request: Any, **options: Any) -> Operation:
        return Operation(ref, self.write(what, method, ref, *request, **options))

    def _require_unlocked(self, what: str, method: str, ref: str) -> None:
        """Raise the error of Azure if a lock forbids the request, as far as the caller may read locks."""
        at = "/".join(ref.split("/")[:3]) + LOCKS
        listed = value_or_error(lambda: self._azure.recent("list the locks", at), CmkError)
        for lock in [] if isinstance(listed, CmkError) else listed:
            scope, level = lock["id"].rpartition(LOCKS)[0], lock["properties"]["level"]
            is_below = f"{ref.lower()}/".startswith(f"{scope.lower()}/")
            if is_below and (level == "ReadOnly" or method == "DELETE"):
                operation = "delete" if method == "DELETE" else "write"
                message = (
                    f"The scope '{ref}' cannot perform {operation} operation because following scope(s) are locked: "
                    f"'{scope}'."
                )
                raise refused(what, sdk.LOCKED, message)

    def finish(self, what: str, operation: Operation) -> bool:
        return True

    def _of(self, ref: str) -> ResourceOverlay:
        if self._is_in_vault(ref):
            return self._keys
        return self._overlays.get(place(ref).namespace, self._others)


def completed(items: list[Any], entries: Mapping[str, Mapping[str, Any]], key: Callable[[Any], str]) -> list[Any]:
    """A list of Azure with the predictions. Each of the entries, by key, has its `document`, which is None if its
    deletion is predicted. If `made` is true, its creation is predicted, and it is added to the list."""
    kept = [entries.get(key(item), {"document": item})["document"] for item in items]
    kept += [entry["document"] for entry in entries.values() if entry["made"]]
    return [item for item in kept if item is not None]


def missing(what: str, ref: str, code: str = "ResourceNotFound") -> Exception:
    return refused(what, code, f"The Resource '{ref}' was not found.", status=404)


def refused(what: str, code: str, message: str, *, status: int = 409) -> Exception:
    """The error for a request that Azure would refuse."""
    return sdk.service_error(what, {"status": status, "code": code, "inner_code": None, "message": message})


def not_predicted(method: str, ref: str) -> AssertionError:
    return AssertionError(f"check mode does not know the request {method} {ref}, so it was not sent")
