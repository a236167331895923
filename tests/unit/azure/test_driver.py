# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How old a document may be, which tasks share a read, and how a question gets its documents.

The rules are in the docstring of driver.py. Most tests use a clock in memory, and the files of a run.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import inf
from pathlib import Path
from threading import Barrier
from typing import Any, NamedTuple

import pytest
from azure_table import Several, Table, Task, task_of
from clocks import Clock
from documents import (
    CRYPTO_OFFICER,
    ENCRYPTION_USER,
    KEY,
    NEW,
    NOW,
    OTHER,
    PRINCIPAL,
    SUBSCRIPTION,
    VAULT_ID,
    account,
    account_id,
    assignment,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.azbatch.cmk.plugins.module_utils._azure import driver as driver_module
from ansible_collections.azbatch.cmk.plugins.module_utils._azure import journal as journal_module
from ansible_collections.azbatch.cmk.plugins.module_utils._azure import rate_limit as rate_limit_module
from ansible_collections.azbatch.cmk.plugins.module_utils._azure import session as session_module
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.driver import Driver, Freshness, MaxAge, Solved
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.gateway import Answer
from ansible_collections.azbatch.cmk.plugins.module_utils._core.docs import Docs, Ref, Wait
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import (
    Denied,
    Unavailable,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import parse_key_identifier
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs

OWN, RECENT = MaxAge.OWN, MaxAge.RECENT
ACCOUNT = refs.account(account_id())
VAULT = refs.vault(VAULT_ID)
NEWEST = refs.key(parse_key_identifier(KEY, "key_identifier"))
# A document without a list, and which no other document includes.
POOLS = replace(refs.first_pools_of(account_id()), is_momentary=False)
BOOK: Ref[Any] = Ref("book", "/books/atlas", "read the atlas")
MAP: Ref[Any] = Ref("map", "/maps/europe", "read the map")


class Busy(Table):
    """`during` is called while a document is read: its response is from before the call."""

    during: Callable[[str], object] = staticmethod(lambda _place: None)

    def read(self, where: str, otherwise: Any) -> Any:
        try:
            return super().read(where, otherwise)
        finally:
            self.during(where)


def use(clock: Clock, patch: pytest.MonkeyPatch) -> Clock:
    """Use the clock for reads, writes and waits."""
    for module in (driver_module, journal_module, rate_limit_module, session_module):
        patch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return use(Clock(tick=0.001), monkeypatch)


@pytest.fixture
def table(clock: Clock) -> Busy:
    return Busy({BOOK: {"pages": 1}, MAP: {"scale": 1}})


def asked(driver: Driver, ref: Ref[Any], fresh: Freshness) -> Any:
    """The document, in the phase of a question in which this serves."""
    ref = replace(ref, lags=fresh is MaxAge.RUN)
    if isinstance(fresh, float):
        return driver.since(lambda docs: docs.get(ref), fresh)
    return driver.check(lambda docs: docs.get(ref)) if fresh is RECENT else driver.solve(lambda docs: docs.get(ref))


# The age of a document


class Seen(NamedTuple):
    """A read of a document: when, and by which task and caller."""

    at: float
    task: int
    caller: str


class Witness(Table):
    """The table of one task. Each document names its own read."""

    def __init__(self, clock: Clock, task: int, caller: str) -> None:
        super().__init__()
        self._clock = clock
        self._task = task
        self._caller = caller
        self.reads = 0

    def read(self, where: str, otherwise: Any) -> Any:
        self.reads += 1
        return {"seen": [self._clock.now, self._task, self._caller], "key": {"kid": f"{KEY}/{NEW}"}}


class Reads(NamedTuple):
    """A task reads a document. `fresh` is a rule, or a number of seconds before now."""

    task: int
    name: str
    fresh: MaxAge | float
    # If the task only wants to see whether to do something: when the host's previous task ended, in seconds before now.
    glancing: float | None = None
    solves: bool = False


class Writes(NamedTuple):
    task: int
    method: str
    ref: str
    changed: Sequence[str]


class Forgets(NamedTuple):
    task: int
    names: Sequence[str]


class Waits(NamedTuple):
    seconds: float


CALLERS = ("me", "me", "you")
DOCUMENTS: dict[str, Ref[Any]] = {"pools": POOLS, "vault": VAULT, "key": NEWEST}
ALL = tuple(DOCUMENTS)
WRITES = (
    ("PATCH", account_id(), ("pools",)),
    ("PATCH", account_id("another"), ()),
    ("PUT", f"{VAULT_ID}/accessPolicies/add", ("vault",)),
    ("PUT", VAULT_ID, ("vault", "key")),
    # A change of the rules of a vault may let the caller read what the caller could not read before.
    ("PATCH", VAULT_ID, ALL),
    ("POST", f"{KEY}/create", ("key",)),
)
TASKS = st.integers(0, len(CALLERS) - 1)
READS = st.builds(
    Reads,
    TASKS,
    st.sampled_from(ALL),
    st.sampled_from([OWN, RECENT, MaxAge.RUN, 0.0, 3.0, 30.0]),
    st.sampled_from([None, None, 2.0, 15.0, 60.0]),
    st.booleans(),
)
STEPS = st.one_of(
    READS,
    st.builds(lambda task, write: Writes(task, *write), TASKS, st.sampled_from(WRITES)),
    st.builds(Forgets, TASKS, st.sampled_from([("vault",), ALL])),
    st.builds(Waits, st.sampled_from([1.0, 4.0, 6.0, 14.0, 21.0])),
)


class Run:
    """The tasks of a run, and the rules of freshness."""

    def __init__(self, folder: str, clock: Clock) -> None:
        self._clock = clock
        self._tables = [Witness(clock, number, caller) for number, caller in enumerate(CALLERS)]
        self._tasks = [
            task_of(table, Path(folder), caller=caller) for table, caller in zip(self._tables, CALLERS, strict=True)
        ]
        self._reads: list[tuple[str, Seen]] = []
        # When the run has last written a document, and when a task has forgotten it.
        self._written: dict[str, float] = {}
        self._forgotten: dict[tuple[int, str], float] = {}
        # The documents that a task has written.
        self._changed: set[tuple[int, str]] = set()

    def take(self, step: Any) -> None:
        if isinstance(step, Waits):
            self._clock.now += step.seconds
        elif isinstance(step, Forgets):
            kinds = () if step.names is ALL else [DOCUMENTS[name].kind for name in step.names]
            self._tasks[step.task].driver.forget(*kinds)
            self._forgotten |= dict.fromkeys([(step.task, name) for name in step.names], self._clock.now)
        elif isinstance(step, Writes):
            self._tasks[step.task].gateway.write("change it", step.method, step.ref, {})
            self._written |= dict.fromkeys(step.changed, self._clock.now)
            self._changed |= {(step.task, name) for name in step.changed}
        else:
            self._check(step)

    def _check(self, step: Reads) -> None:
        table, asked_at = self._tables[step.task], self._clock.now
        before = table.reads
        found = self._read(step)
        is_read = table.reads > before
        is_own = step.fresh is OWN and step.glancing is None

        assert found.caller == CALLERS[step.task]
        assert found.task == step.task or not is_own
        assert found.at >= self._oldest(step, asked_at)
        # A document is read only if no earlier read serves.
        earlier = [
            seen.at
            for name, seen in self._reads
            if name == step.name and seen.caller == found.caller and (seen.task == step.task or not is_own)
        ]
        assert is_read is (max(earlier, default=-inf) < self._oldest(step, self._clock.now))
        if is_read:
            self._reads.append((step.name, found))

    def _read(self, step: Reads) -> Seen:
        (session, driver, _gateway), ref = self._tasks[step.task], DOCUMENTS[step.name]
        now = self._clock.now
        fresh: Freshness = step.fresh if isinstance(step.fresh, MaxAge) else now - step.fresh
        if step.glancing is not None:
            session.task_began = now - step.glancing
            found = driver.glance(lambda docs: docs.get(replace(ref, lags=fresh is MaxAge.RUN))).get()
        else:
            found = asked(driver, ref, fresh) if step.solves else driver.get(ref, fresh)
        assert found is not None
        return Seen(*found["seen"])

    def _oldest(self, step: Reads, now: float) -> float:
        """The earliest time at which a read that serves may have begun."""
        named = step.task, step.name
        out_of_date = max(self._written.get(step.name, 0.0), self._forgotten.get(named, 0.0))
        if step.fresh is MaxAge.RUN:
            return max(out_of_date, now - 600)
        if step.glancing is not None:
            return max(out_of_date, now - min(20, step.glancing))
        if isinstance(step.fresh, float):
            return max(out_of_date, now - step.fresh)
        if step.fresh is RECENT:
            return max(out_of_date, now - 20)
        return out_of_date if named in self._changed else max(out_of_date, now - 5)


@given(st.lists(STEPS, min_size=15, max_size=50))
@settings(max_examples=75)
def test_no_document_is_older_than_asked_and_no_read_is_superfluous(steps: list[Any]) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        run = Run(folder, use(Clock(tick=0.0001), patch))
        for step in steps:
            run.take(step)


# One document, and the reads of it


@pytest.mark.parametrize("solves", [False, True])
def test_a_missing_document_is_read_each_time(table: Busy, tmp_path: Path, solves: bool) -> None:
    """Another task may be creating it."""
    table[BOOK] = None
    for number in range(1, 4):
        driver = task_of(table, tmp_path).driver
        found = asked(driver, BOOK, RECENT) if solves else driver.get(BOOK, RECENT)
        assert (found, table.reads_of(BOOK)) == (None, number)


@pytest.mark.parametrize("fresh", [OWN, RECENT])
@pytest.mark.parametrize("solves", [False, True])
def test_an_error_is_given_to_no_other_task_or_question(
    table: Busy, tmp_path: Path, fresh: Freshness, solves: bool
) -> None:
    table[BOOK] = Several(Denied("You may not."), Unavailable("No response."), {"pages": 1})

    def read(task: Task) -> Any:
        return asked(task.driver, BOOK, fresh) if solves else task.driver.get(BOOK, fresh)

    task = task_of(table, tmp_path)
    for error in (Denied, Unavailable):
        with pytest.raises(error):
            read(task)
    assert read(task_of(table, tmp_path)) == {"pages": 1}


def test_a_read_in_the_very_moment_of_a_write_is_out_of_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(Clock(), monkeypatch)
    table = Table({BOOK: "before"})
    task = task_of(table, tmp_path)
    task.driver.get(BOOK)
    table[BOOK] = "after"
    task_of(table, tmp_path).session.journal.mark("book")

    assert task.driver.get(BOOK) == "after"
    assert task_of(table, tmp_path).driver.get(BOOK, RECENT) == "after"


@pytest.mark.parametrize("fresh", [OWN, RECENT])
def test_a_read_that_a_write_has_overtaken_is_out_of_date(table: Busy, tmp_path: Path, fresh: MaxAge) -> None:
    """The read may not show the write of the other task."""
    task, writer = task_of(table, tmp_path), task_of(table, tmp_path)

    def write(_place: str) -> None:
        table[BOOK] = {"pages": 2}
        writer.session.journal.mark("book")

    table.during = write
    assert task.driver.get(BOOK, fresh) == {"pages": 1}
    assert task.driver.get(BOOK, fresh) == {"pages": 2}


def test_a_wait_for_the_rate_limit_is_before_the_read(table: Busy, clock: Clock, tmp_path: Path) -> None:
    """Tasks that change something during the wait share the read, and those that change something later do not."""
    changes: list[float] = []

    def throttled(_place: str) -> None:
        clock.now += 10
        changes.append(clock.monotonic())
        rate_limit_module._note(clock.monotonic())
        changes.append(clock.monotonic())

    table.during = throttled
    began = clock.monotonic()
    task_of(table, tmp_path).driver.get(BOOK, began)
    table[BOOK] = {"pages": 2}

    assert task_of(table, tmp_path).driver.get(BOOK, changes[0]) == {"pages": 1}
    assert task_of(table, tmp_path).driver.get(BOOK, changes[1]) == {"pages": 2}


def test_a_glance_uses_reads_of_other_tasks_since_a_time(table: Busy, clock: Clock, tmp_path: Path) -> None:
    task_of(table, tmp_path).driver.get(BOOK)
    between = clock.monotonic()
    task_of(table, tmp_path).driver.get(MAP)
    table.update({BOOK: {"pages": 2}, MAP: {"scale": 2}})
    task = task_of(table, tmp_path)

    task.session.task_began = between
    assert task.driver.glance(lambda docs: docs.get(BOOK)) == Solved(False, {"pages": 2})
    assert task.driver.glance(lambda docs: docs.get(MAP)) == Solved(True, {"scale": 1})
    # The change itself is planned from the reads of the task.
    assert task.driver.get(MAP) == {"scale": 2}


# Waits


@pytest.mark.parametrize(("waits", "reads"), [(True, 5), (False, 1)])
def test_a_question_that_waits_too_long_is_its_complaint(table: Busy, clock: Clock, waits: bool, reads: int) -> None:
    task = task_of(table)

    def question(docs: Docs) -> Any:
        docs.get(BOOK)
        raise Wait(Unavailable("It is short."), "a longer book", 10)

    began = clock.now
    with pytest.raises(Unavailable):
        task.driver.since(question, clock.monotonic(), waits=waits)

    assert (clock.now - began >= 10) is waits
    assert table.reads_of(BOOK) == reads


# Threads, and tasks that wait for each other


class Gate:
    """Lets a read begin, and holds its response."""

    def __init__(self) -> None:
        self.begun, self.opened = threading.Event(), threading.Event()

    def __call__(self, _place: str) -> None:
        self.begun.set()
        assert self.opened.wait(30)


def test_threads_of_a_task_share_a_read() -> None:
    table, gate = Busy({BOOK: {"pages": 1}}), Gate()
    table.during, task = gate, task_of(table)
    with ThreadPoolExecutor(4) as threads:
        found = [threads.submit(task.driver.get, BOOK) for _thread in range(4)]
        assert gate.begun.wait(10)
        gate.opened.set()

    assert [one.result() for one in found] == [{"pages": 1}] * 4
    assert table.reads_of(BOOK) == 1


def test_tasks_that_wait_for_the_same_document_share_the_next_read(tmp_path: Path) -> None:
    """Twenty tasks cost two reads: one that has begun too early, and the next one."""
    table, gate, together = Busy({BOOK: 1}), Gate(), Barrier(21)
    table.during = gate

    def late(_number: int) -> Any:
        since = time.monotonic()
        together.wait(30)
        return task_of(table, tmp_path).driver.get(BOOK, since)

    with ThreadPoolExecutor(21) as threads:
        early = threads.submit(task_of(table, tmp_path).driver.get, BOOK, time.monotonic())
        assert gate.begun.wait(10)
        waiting = [threads.submit(late, number) for number in range(20)]
        table[BOOK] = 2
        together.wait(30)
        gate.opened.set()

    assert early.result() == 1
    assert [one.result() for one in waiting] == [2] * 20
    assert table.reads_of(BOOK) == 2


@pytest.mark.parametrize("fresh", [OWN, RECENT, "now"])
def test_a_slow_read_that_began_too_early_is_not_waited_for(tmp_path: Path, fresh: Any) -> None:
    """Otherwise one slow request would delay a rollback."""
    table, gate = Busy({BOOK: "slow"}), Gate()
    table.during, task = gate, task_of(table, tmp_path)
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(task.driver.get, BOOK, time.monotonic())
        assert gate.begun.wait(10)
        table.during = lambda _place: None
        task.driver.forget()
        table[BOOK] = "fast"
        assert task.driver.get(BOOK, time.monotonic() if fresh == "now" else fresh) == "fast"
        gate.opened.set()
    assert slow.result() == "slow"

    # The slow read has the older document.
    table[BOOK] = "again"
    assert task.driver.get(BOOK) == "fast"


# Questions


def test_all_that_is_wanted_is_read_at_once() -> None:
    wanted = [Ref[Any]("book", f"/books/{number}", "read a book") for number in range(8)]
    table, together, asked = Busy({ref: ref.id for ref in wanted}), Barrier(8), 0
    table.during = lambda _place: together.wait(10)

    def question(docs: Docs) -> list[Any]:
        nonlocal asked
        asked += 1
        docs.want(*wanted)
        return [docs.get(ref) for ref in wanted]

    assert task_of(table).driver.solve(question) == [ref.id for ref in wanted]
    assert (asked, len(table.asked)) == (2, 8)


def test_the_forms_of_a_document(table: Busy) -> None:
    missing, refused = Ref[Any]("book", "/none", "read it"), Ref[Any]("book", "/refused", "read it")
    denied = Denied("You may not.")
    table[refused] = denied
    driver = task_of(table).driver

    assert driver.solve(lambda docs: (docs.get(BOOK), docs.known(BOOK))) == ({"pages": 1}, {"pages": 1})
    assert driver.solve(lambda docs: (docs.get(missing), docs.known(missing), docs.items(missing))) == (None, None, [])
    assert str(driver.solve(lambda docs: docs.known(refused))) == str(denied)
    for ask in (Docs.get, Docs.items):
        with pytest.raises(Denied):
            driver.solve(lambda docs, ask=ask: ask(docs, refused))  # type: ignore[misc]


@pytest.mark.parametrize("response", [{"pages": 1}, None, Denied("You may not.")], ids=["there", "missing", "error"])
def test_a_question_sees_one_state_of_a_document(table: Busy, clock: Clock, tmp_path: Path, response: Any) -> None:
    """Also if another task changes the document, and reads it, while the question needs minutes for other
    documents."""
    table[BOOK] = Several(response, {"pages": 2})
    task, other, seen = task_of(table, tmp_path), task_of(table, tmp_path), []

    def meanwhile(place: str) -> None:
        if place == MAP.id:
            clock.now += 120
            other.session.journal.mark("book")
            other.driver.get(BOOK, RECENT)

    def question(docs: Docs) -> Any:
        seen.append(docs.known(BOOK))
        docs.get(MAP)
        return docs.known(BOOK)

    table.during = meanwhile
    seen.append(task.driver.check(question))

    assert len(seen) == 3
    assert {str(one) for one in seen} == {str(response)}
    # The next question sees the new state.
    assert task.driver.check(lambda docs: docs.known(BOOK)) == {"pages": 2}


@pytest.mark.parametrize("response", [{"pages": 1}, None, Denied("You may not.")], ids=["there", "missing", "error"])
def test_a_question_that_asks_for_a_later_read_gets_it(table: Busy, clock: Clock, response: Any) -> None:
    """For example, the permissions that show whether a list is complete are read after the list has ended."""
    table[BOOK] = Several(response, {"pages": 2})

    def question(docs: Docs) -> tuple[Any, Any]:
        docs.want(BOOK)
        listed = docs.of(MAP)
        return docs.known(BOOK), docs.after(listed.ended).known(BOOK)

    assert task_of(table).driver.check(question)[1] == {"pages": 2}


def both(docs: Docs) -> tuple[Any, Any]:
    return docs.get(BOOK), docs.get(MAP)


def test_what_is_to_be_changed_is_read_by_the_task_itself(table: Busy, tmp_path: Path) -> None:
    """What is only checked may be read by another task."""
    task_of(table, tmp_path).driver.solve(both)
    table.update({BOOK: {"pages": 2}, MAP: {"scale": 2}})

    found = task_of(table, tmp_path).driver.solve(both, lambda ref: ref is BOOK)

    assert found == ({"pages": 2}, {"scale": 1})


def test_a_list_that_is_to_be_changed_is_read_since_the_question_was_asked(
    table: Busy, clock: Clock, tmp_path: Path
) -> None:
    """By any task: those that wait for each other share the list of the users of a key."""
    shelf: Ref[Any] = Ref("shelf", "/shelf", "list the books", is_list=True)
    table[shelf] = Several([1], [1, 2])
    began = clock.monotonic()
    task_of(table, tmp_path).driver.get(shelf)
    task = task_of(table, tmp_path)

    assert task.driver.solve(lambda docs: docs.get(shelf), asked_at=began) == [1]
    assert task.driver.solve(lambda docs: docs.get(shelf)) == [1, 2]


def test_what_is_decided_again_or_confirmed_was_read_since_then(table: Busy, clock: Clock, tmp_path: Path) -> None:
    """Also if this task has read it a moment before. What is only checked may be older."""
    task = task_of(table, tmp_path)
    task.driver.solve(both)
    table.update({BOOK: {"pages": 2}, MAP: {"scale": 2}})

    found = task.driver.since(both, clock.monotonic(), lambda ref: ref is BOOK)

    assert found == ({"pages": 2}, {"scale": 1})


def test_a_doubt_is_asked_again_of_reads_since_the_question_was_asked(table: Busy, tmp_path: Path) -> None:
    """Before something is refused for what another task has read: it may have read that before a repair."""
    task_of(table, tmp_path).driver.solve(both)
    table.update({BOOK: {"pages": 2}, MAP: {"scale": 2}})
    doubted = list[Any]()

    def question(docs: Docs) -> Any:
        doubted.append(docs.get(MAP))
        docs.doubt()
        return docs.get(MAP)

    assert task_of(table, tmp_path).driver.check(question) == {"scale": 2}
    assert doubted[0] == {"scale": 1}
    assert table.reads_of(MAP) == 2


def test_what_is_true_only_for_a_moment_is_read_for_each_question(table: Busy, tmp_path: Path) -> None:
    ref = replace(BOOK, is_momentary=True)
    task = task_of(table, tmp_path)
    for ask in (task.driver.solve, task.driver.check, task.driver.glance, task.driver.now):
        ask(lambda docs: (docs.get(ref), docs.get(ref)))
    assert table.reads_of(BOOK) == 4


def test_the_time_of_a_question_is_that_of_the_latest_response(clock: Clock) -> None:
    table = Table({BOOK: Answer({"pages": 1}, NOW - 5.0), MAP: Answer({}, NOW, NOW - 60.0)})
    driver = task_of(table).driver

    def question(docs: Docs) -> tuple[float | None, float]:
        docs.get(BOOK)
        return docs.of(MAP).changed_at, docs.now

    assert driver.solve(question) == (NOW - 60.0, NOW)
    assert driver.solve(lambda docs: docs.now) == pytest.approx(clock.now, abs=1)


# What was read, and what a response to a write has shown


def test_what_the_run_has_read_at_any_time(table: Busy, clock: Clock, tmp_path: Path) -> None:
    task = task_of(table, tmp_path)
    assert task.driver.solve(lambda docs: docs.earlier(BOOK)) is None
    task.driver.get(BOOK)
    clock.now += 3600
    task.session.journal.mark()

    for one in (task, task_of(table, tmp_path)):
        assert one.driver.solve(lambda docs: docs.earlier(BOOK)) == {"pages": 1}
    assert task_of(table, tmp_path, caller="you").driver.solve(lambda docs: docs.earlier(BOOK)) is None
    assert table.reads_of(BOOK) == 1


def test_the_response_to_a_write_serves_as_a_read(table: Busy, clock: Clock, tmp_path: Path) -> None:
    task = task_of(table, tmp_path)
    task.session.journal.mark("book")
    task.driver.keep(BOOK, {"pages": 2})

    assert task.driver.get(BOOK) == {"pages": 2}
    assert task_of(table, tmp_path).driver.get(BOOK, RECENT) == {"pages": 2}
    assert table.reads_of(BOOK) == 0


def test_an_older_value_does_not_replace_a_newer_read(table: Busy, clock: Clock) -> None:
    began, task = clock.monotonic(), task_of(table)
    task.driver.get(BOOK)
    task.driver.keep(BOOK, {"pages": 0}, began)

    assert task.driver.get(BOOK) == {"pages": 1}


def test_a_read_of_an_account_has_its_times_too(clock: Clock) -> None:
    """The response to a write has no time of the last change."""
    table = Table({ACCOUNT: Answer(account(), NOW, NOW - 60.0)})
    dated = refs.dated_account(account_id())
    task = task_of(table)
    task.driver.get(ACCOUNT)
    assert task.driver.read(dated).changed_at == NOW - 60.0
    assert len(table.asked) == 1

    task.driver.forget()
    task.driver.keep(ACCOUNT, account())
    assert task.driver.get(ACCOUNT) == account()
    assert task.driver.read(dated).changed_at == NOW - 60.0
    assert len(table.asked) == 2


# Members of lists

ACCOUNTS = refs.accounts_of(SUBSCRIPTION)


class Fleet(Busy):
    """The accounts of a subscription."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.put(*map(account, names))

    def put(self, *accounts: Any) -> None:
        self.update({refs.account(one["id"]): one for one in accounts})
        self[ACCOUNTS] = list(accounts)

    def lists(self) -> int:
        return self.reads_of(ACCOUNTS)

    def singles(self) -> int:
        return len(self.asked) - self.lists()


NAMES = [f"Account{number}" for number in range(40)]


def one_of(table: Table, folder: Path, name: str, fresh: Freshness = RECENT, caller: str = "me") -> Any:
    return task_of(table, folder, caller=caller).driver.get(refs.account(account_id(name)), fresh)


@pytest.fixture
def fleet(clock: Clock, tmp_path: Path) -> Fleet:
    """A run that has read four accounts, so that from now on the accounts are listed."""
    fleet = Fleet(*NAMES)
    for name in NAMES[:4]:
        one_of(fleet, tmp_path, name)
    assert (fleet.singles(), fleet.lists()) == (4, 0)
    fleet.asked.clear()
    return fleet


@pytest.mark.parametrize("fresh", [OWN, 0.0], ids=str)
def test_an_account_that_is_to_be_changed_is_not_read_from_the_list(
    fleet: Fleet, tmp_path: Path, fresh: Freshness
) -> None:
    one_of(fleet, tmp_path, NAMES[5])
    fleet.asked.clear()
    one_of(fleet, tmp_path, NAMES[6], fresh)

    assert (fleet.singles(), fleet.lists()) == (1, 0)


def test_a_glance_reads_the_list(fleet: Fleet, clock: Clock, tmp_path: Path) -> None:
    task = task_of(fleet, tmp_path)
    task.session.task_began = clock.monotonic()
    assert task.driver.get(refs.account(account_id(NAMES[6])), MaxAge.GLANCE) == account(NAMES[6])
    assert (fleet.singles(), fleet.lists()) == (0, 1)
    # The list of an earlier task of the playbook does not serve.
    task.session.task_began = clock.monotonic()
    task.driver.get(refs.account(account_id(NAMES[7])), MaxAge.GLANCE)
    assert fleet.lists() == 2


@pytest.mark.parametrize("caller", ["me", "you"])
def test_an_account_that_the_run_has_changed_is_read_separately(fleet: Fleet, tmp_path: Path, caller: str) -> None:
    """A change by each caller counts. The list is not read again, because it serves for the other accounts."""
    name = NAMES[5]
    one_of(fleet, tmp_path, name)
    task_of(fleet, tmp_path, caller=caller).gateway.write("change it", "PATCH", account_id(name), {})
    fleet[refs.account(account_id(name))] = changed = account(name, key=KEY)

    assert one_of(fleet, tmp_path, name) == changed
    assert one_of(fleet, tmp_path, NAMES[6]) == account(NAMES[6])
    assert (fleet.singles(), fleet.lists()) == (1, 1)


def test_an_account_that_the_task_has_changed_is_read_separately(fleet: Fleet, clock: Clock, tmp_path: Path) -> None:
    """Also if another task has listed the accounts since: a list may lag behind the write."""
    task, ref = task_of(fleet, tmp_path), refs.account(account_id(NAMES[5]))
    task.gateway.write("change it", "PATCH", ref.id, {})
    fleet[ref] = changed = account(NAMES[5], key=KEY)
    one_of(fleet, tmp_path, NAMES[6])

    task.session.task_began = clock.now - 10
    assert task.driver.get(ref, MaxAge.GLANCE) == changed


def test_an_account_that_the_list_does_not_show_is_read(fleet: Fleet, tmp_path: Path) -> None:
    """A list may lag behind a creation."""
    fleet[refs.account(account_id("another"))] = account("another")

    assert one_of(fleet, tmp_path, "another") == account("another")
    assert one_of(fleet, tmp_path, "none") is None
    assert (fleet.singles(), fleet.lists()) == (2, 1)


def test_an_account_with_a_running_operation_is_read(fleet: Fleet, tmp_path: Path) -> None:
    """The list may be older than the end of the operation."""
    creating = account(NAMES[5])
    creating["properties"]["provisioningState"] = "Creating"
    fleet[ACCOUNTS] = [creating]

    assert one_of(fleet, tmp_path, NAMES[5]) == account(NAMES[5])


def test_a_caller_who_may_not_list_reads_one_by_one(fleet: Fleet, clock: Clock, tmp_path: Path) -> None:
    """The list is requested again after some seconds, because the right may have been granted."""
    fleet[ACCOUNTS] = Denied("You may not.")
    for name in NAMES[4:8]:
        assert one_of(fleet, tmp_path, name) == account(name)
    assert (fleet.singles(), fleet.lists()) == (4, 1)

    clock.now += 21
    one_of(fleet, tmp_path, NAMES[8])
    assert fleet.lists() == 2


def test_a_list_that_takes_long_is_read_seldom(fleet: Fleet, clock: Clock, tmp_path: Path) -> None:
    """All hosts wait for it, and it is out of date soon."""

    def take_long(place: str) -> None:
        clock.now += 30 * (place == ACCOUNTS.id.lower())

    fleet.during = take_long
    for name in NAMES[4:30]:
        assert one_of(fleet, tmp_path, name) == account(name)
        clock.now += 1
    assert (fleet.singles(), fleet.lists()) == (25, 1)

    clock.now += 600
    one_of(fleet, tmp_path, NAMES[31])
    assert fleet.lists() == 2


@pytest.mark.parametrize("is_lost", [True, False], ids=["lost", "of an earlier read"])
def test_a_large_list_of_which_a_part_is_not_stored_is_read_again(
    fleet: Fleet, clock: Clock, tmp_path: Path, is_lost: bool
) -> None:
    """For example, the task was killed while it stored the list."""
    files = set(tmp_path.glob("*.json"))
    task_of(fleet, tmp_path).driver.get(ACCOUNTS)
    parts = set(tmp_path.glob("*.json")) - files
    assert len(parts) > 1
    part = parts.pop()
    earlier = part.read_text()
    task_of(fleet, tmp_path).driver.get(ACCOUNTS, clock.monotonic())
    if is_lost:
        part.unlink()
    else:
        part.write_text(earlier)

    found = task_of(fleet, tmp_path).driver.get(ACCOUNTS, RECENT)

    assert found is not None
    assert len(found) == len(NAMES)
    assert fleet.lists() == 3


SCOPE = f"{VAULT_ID}/keys/batch"


@pytest.mark.parametrize(
    ("listed", "single"),
    [
        pytest.param([assignment(ENCRYPTION_USER, SCOPE)], 0, id="the role"),
        pytest.param([assignment(CRYPTO_OFFICER, SCOPE)], 1, id="another role"),
        pytest.param([assignment(ENCRYPTION_USER, SCOPE, principal=OTHER)], 1, id="another principal"),
    ],
)
def test_a_list_of_role_assignments_serves_a_principal_with_the_role(
    clock: Clock, tmp_path: Path, listed: list[Any], single: int
) -> None:
    """The list does not show the roles of the groups of a principal."""
    own, everyone = refs.assignments_of(SCOPE, PRINCIPAL), refs.assignments_at(SCOPE)
    table = Table({everyone: listed, own: [assignment(ENCRYPTION_USER, SCOPE, name="of a group")]})
    for number in range(refs.LISTED_FROM - 1):
        task_of(table, tmp_path).driver.get(refs.assignments_of(SCOPE, f"other{number}"), RECENT)

    found = task_of(table, tmp_path).driver.get(own, RECENT)

    assert found == (table[own] if single else listed)
    assert (table.reads_of(everyone), table.reads_of(own)) == (1, single)
