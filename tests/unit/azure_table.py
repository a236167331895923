# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A table of Azure's documents, and tasks whose driver reads that table.

```python
table = Table({refs.SUBSCRIPTIONS: [], refs.account(ACCOUNT): account(), refs.pools_of(ACCOUNT): Denied("No.")})
task = task_of(table)
assert task.driver.get(refs.account(ACCOUNT)) == account()
assert table.asked == [place(refs.account(ACCOUNT))]
```
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, cast

from documents import CALLER, DAY, NOW, SUBSCRIPTION, listed

from ansible_collections.azbatch.cmk.plugins.module_utils._arguments import CONNECTION
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.driver import Driver
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.executor import Executor
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.gateway import Answer, Gateway, Operation
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.sending import Sender
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.session import Session
from ansible_collections.azbatch.cmk.plugins.module_utils._checks.preflight import Evidence
from ansible_collections.azbatch.cmk.plugins.module_utils._cloud import Cloud
from ansible_collections.azbatch.cmk.plugins.module_utils._core.docs import Ref
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import Denied, NotFound, Unavailable
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs
from ansible_collections.azbatch.cmk.plugins.module_utils._documents.access import scope_of
from ansible_collections.azbatch.cmk.plugins.module_utils._questions import rights

Place: TypeAlias = "Ref[Any] | str"
# A question that does not end fails its test.
_MOST_READS = 100


def place(ref: Place, filter: str | None = None, name: str | None = None) -> str:
    """The name of an entry: the id in lower case, with the filter of a list, or what the body of a question has."""
    if isinstance(ref, Ref):
        return place(ref.id, ref.filter, _asked(ref.body))
    return f"{ref}{f'?{filter}' if filter else ''}{f'#{name}' if name else ''}".lower()


def _asked(body: Mapping[str, Any] | None) -> str | None:
    """The name in the body of a question, or the query."""
    return str(body.get("name") or body["query"]) if body else None


class Several:
    """The responses to a read, one after the other. The last one is the response to each further read."""

    def __init__(self, *responses: Any) -> None:
        self._left = list(responses)

    def next(self) -> Any:
        return self._left.pop(0) if len(self._left) > 1 else self._left[0]


class Table:
    """The documents, by their refs or ids. A value may be a document, a list, an `Answer` with its times, an error or
    an interrupt, which is raised, or `Several` of these. A document that is not in the table, or that is None, is
    missing. A list that is not in the table is empty.

    `asked` has the places of the reads and `written` the writes, in their order. `now` is the time of the responses in
    seconds since 1970.
    """

    def __init__(self, documents: Mapping[Any, Any] | None = None, *, now: float | None = None) -> None:
        self._documents: dict[str, Any] = {}
        self.asked: list[str] = []
        self.written: list[tuple[str, str, Any]] = []
        self.now = now
        self.update(documents or {})

    def __setitem__(self, ref: Place, value: Any) -> None:
        self._documents[place(ref)] = value

    def __getitem__(self, ref: Place) -> Any:
        return self._documents[place(ref)]

    def update(self, documents: Mapping[Any, Any]) -> None:
        for ref, value in documents.items():
            self[ref] = value

    def reads_of(self, *entries: Place) -> int:
        """How often these entries were read."""
        return sum(self.asked.count(one) for one in {place(entry) for entry in entries})

    def read(self, where: str, otherwise: Any) -> Any:
        """A copy of the entry."""
        self.asked.append(where)
        assert self.asked.count(where) <= _MOST_READS, f"{where} is read again and again"
        return self._response(where, otherwise)

    def write(self, method: str, ref: str, body: Any) -> Any:
        self.written.append((method, ref, copy.deepcopy(body)))
        return self._response(place(f"{method} {ref}"), None)

    def _response(self, where: str, otherwise: Any) -> Any:
        value = self._documents.get(where, otherwise)
        if isinstance(value, Several):
            value = value.next()
        if isinstance(value, BaseException):
            raise copy.copy(value)
        return copy.deepcopy(value)


class TableGateway:
    """The methods of gateway.Gateway for one task. A write is noted in the table and in the task's journal, and changes
    no document. Its response is the entry `"METHOD id"`, None if there is no such entry. The entry `"POLL id"` is the
    end of a long-running operation: the document that the poll shows, True (the default) for none, and False if Azure
    does not show the new resource yet."""

    def __init__(self, table: Table, session: Session) -> None:
        self._table = table
        self._session = session

    def answer(self, _what: str, ref: str) -> Answer:
        found = self._table.read(place(ref), None)
        return found if isinstance(found, Answer) else Answer(found, self._table.now)

    def find(self, what: str, ref: str) -> Any:
        return self.answer(what, ref).document

    def get(self, what: str, ref: str) -> Any:
        found = self.find(what, ref)
        if found is None:
            raise NotFound(f"Could not {what}: {ref} was not found.")
        # The first page of a list.
        return {"value": found} if isinstance(found, list) else found

    def list(self, _what: str, ref: str, filter: str | None = None) -> Any:
        return self._table.read(place(ref, filter), [])

    def ask(self, _what: str, ref: str, body: Mapping[str, Any]) -> Any:
        return self._table.read(place(ref, name=_asked(body)), None)

    def query(self, _what: str, ref: str, body: Mapping[str, Any]) -> Any:
        return self._table.read(place(ref, name=_asked(body)), [])

    def write(
        self, _what: str, method: str, ref: str, body: Any = None, *, undoes: bool = False, **_options: Any
    ) -> Any:
        sent = self._session.sent
        with self._session.journal.writing(method, ref, body, undoes=undoes):
            try:
                document = self._table.write(method, ref, body)
            except Unavailable:
                sent.in_doubt += 1
                raise
        sent.accepted += 1
        return document

    def begin(self, what: str, method: str, ref: str, body: Any = None, **options: Any) -> Operation:
        return Operation(method, ref, self.write(what, method, ref, body, **options))

    def finish(self, _what: str, operation: Operation) -> bool:
        with self._session.journal.changing(operation.method, operation.ref):
            found = self._table.read(place(f"POLL {operation.ref}"), True)
        operation.polled = found if isinstance(found, dict) else None
        return bool(found)


def documents_of(found: Evidence) -> dict[Any, Any]:
    """The entries from which preflight reads this evidence."""
    key, vault, bundle = found.key, found.vault, found.bundle
    entries: dict[Any, Any] = {
        refs.permissions_at(f"/subscriptions/{SUBSCRIPTION}"): [{"actions": ["*"], "notActions": []}],
        refs.vaults_of(SUBSCRIPTION): [vault] if isinstance(vault, Mapping) else vault,
        refs.key(key): bundle,
        refs.versions_of(key): [listed(dict(bundle))] if isinstance(bundle, Mapping) else bundle,
    }
    if isinstance(vault, Mapping):
        entries[refs.vault(vault["id"])] = vault
        scope, given = scope_of(vault, key.name), found.assignments
        for principal in found.principals:
            of_one = given.get(principal, []) if isinstance(given, Mapping) else given
            entries[refs.assignments_of(scope, principal)] = entries[refs.assignments_at(scope)] = of_one
        entries |= {
            refs.role(vault["id"], guid): {"name": guid, "properties": role} for guid, role in found.definitions.items()
        }
    return entries


class Task(NamedTuple):
    session: Session
    driver: Driver
    gateway: Gateway


def task_of(
    table: Table,
    folder: Path | None = None,
    *,
    caller: str = "me",
    subscription: str | None = SUBSCRIPTION,
    wait_timeout: int = 60,
    predicts: bool = False,
    task: str | None = None,
) -> Task:
    """A task of a run, which reads the table. Tasks with the same `folder` are of the same run. `caller` is a managed
    identity. For `predicts` and `task` see Session."""
    connection = _connection(caller, subscription, wait_timeout)
    session = Session(connection, str(folder) if folder else None, predicts=predicts, task=task)
    # Instead of the claims of a token.
    session.caller = CALLER
    gateway = cast(Gateway, TableGateway(table, session))
    return Task(session, Driver(session, gateway), gateway)


def _connection(caller: str, subscription: str | None, wait_timeout: int) -> dict[str, Any]:
    return {
        **dict.fromkeys(CONNECTION),
        "auth_source": "msi",
        "client_id": caller,
        "cloud_environment": "AzureCloud",
        "subscription_id": subscription,
        "wait_timeout": wait_timeout,
    }


def executor_of(task: Task) -> Executor:
    return Executor(task.session, task.driver, task.gateway, rights.missing)


def sender_of(task: Task) -> Sender:
    return Sender(task.session, task.driver, task.gateway)


def cloud_of(table: Table, folder: Path | None = None, *, task: str | None = None) -> Cloud:
    """What a module gets for a task that reads and writes the table."""
    cloud = Cloud(_connection("me", SUBSCRIPTION, 60), str(folder) if folder else None, task=task)
    cloud._session.caller = CALLER
    cloud.__dict__["_gateway"] = TableGateway(table, cloud._session)
    return cloud


def listing(*accounts: dict[str, Any], hidden: Collection[str] = (), **ages: float | None) -> dict[Any, Any]:
    """The documents that list these accounts in the task's own subscription, in which the caller may read everything.

    `hidden` are other subscriptions, whose accounts the caller may not list. `ages` are the seconds since accounts were
    last changed, by their names; None if that is not known. By default, they were changed long ago.
    """
    found: dict[Any, Any] = {
        refs.SUBSCRIPTIONS: [{"subscriptionId": one} for one in (SUBSCRIPTION, *hidden)],
        refs.accounts_of(SUBSCRIPTION): list(accounts),
        refs.permissions_at(f"/subscriptions/{SUBSCRIPTION}"): [{"actions": ["*/read"]}],
        **{refs.accounts_of(one): Denied("The list was refused.") for one in hidden},
    }
    for one in accounts:
        age = ages.get(one["name"], 999 * DAY)
        found[refs.dated_account(one["id"])] = Answer(one, NOW, None if age is None else NOW - age)
    return found
