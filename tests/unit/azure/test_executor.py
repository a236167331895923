# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changes are sent, confirmed and undone, with a resource of this test: a shelf of books."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from azure_table import Table, task_of
from clocks import clock_of_all

from ansible_collections.azbatch.cmk.plugins.module_utils._azure import executor as executor_module
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.executor import Executor
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.gateway import Answer, Gateway
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.session import Session
from ansible_collections.azbatch.cmk.plugins.module_utils._core.docs import Docs, Ref
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import (
    CmkError,
    Denied,
    NotConverged,
    NotFound,
    PlanOutdated,
    Refused,
    Rejected,
    Unavailable,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._core.interrupts import Interrupted, as_failure, pass_on
from ansible_collections.azbatch.cmk.plugins.module_utils._core.outcome import Outcome
from ansible_collections.azbatch.cmk.plugins.module_utils._core.rights import Missing, Needed, Right
from ansible_collections.azbatch.cmk.plugins.module_utils._core.tasks import Change, Decided, Removal, Request, Task

SHELF: Ref[dict[str, Any]] = Ref("any", "/shelf", "read the shelf")
READERS: Ref[dict[str, Any]] = Ref("readers", "/readers", "list the readers")
RIGHT = Right("Shelf/write", "/shelf")
POLLS = 5


@pytest.fixture(autouse=True)
def signals_that_end() -> Iterator[None]:
    """Handle SIGINT as in a terminal. A shell without job control starts background processes with SIGINT ignored."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


class Shelf:
    """The gateway to the shelf. `reads` and `writes` are called before a read or a write, and may raise an error or
    change something. A read shows the `stale` books as often as they are repeated there."""

    def __init__(self, *books: str) -> None:
        self.books = set(books)
        self.available: bool | None = None
        self.readers: list[str] = []
        self.stale: list[set[str]] = []
        self.did: list[str] = []
        self.reads: list[Callable[[], object]] = []
        self.writes: Callable[[str, str], object] = lambda _method, _book: None
        self.after: Callable[[str, str], object] = lambda _method, _book: None
        self.session: Session

    def answer(self, _what: str, ref: str) -> Answer:
        if ref == READERS.id:
            return Answer({"readers": list(self.readers)})
        self.did.append("read")
        if self.reads:
            self.reads.pop(0)()
        books = self.stale.pop(0) if self.stale else self.books
        return Answer({"books": sorted(books), "available": self.available})

    def write(self, _what: str, method: str, ref: str, body: Any = None, *, undoes: bool = False, **_more: Any) -> Any:
        with self.session.journal.writing(method, ref, body, undoes=undoes):
            book = ref.rpartition("/")[2]
            self.did.append({"POST": "add", "DELETE": "remove"}[method])
            self.writes(method, book)
            self.session.sent.accepted += 1
            (self.books.add if method == "POST" else self.books.discard)(book)
            self.after(method, book)


@dataclass(frozen=True)
class Goal:
    """The books that the shelf must have and, if it is `exact`, no others. `undo` is whether a failure is undone."""

    books: frozenset[str]
    exact: bool = False
    undo: bool = False


def goal(*books: str, **options: bool) -> Goal:
    return Goal(frozenset(books), **options)


def put(book: str, **options: Any) -> Request:
    return Request("add", f"add {book}", "POST", f"/shelf/{book}", rights=(RIGHT,), **options)


def remove(book: str) -> Request:
    return Request("remove", f"remove {book}", "DELETE", f"/shelf/{book}", rights=(RIGHT,))


@dataclass(frozen=True)
class Fill(Task):
    """The books are added in alphabetical order."""

    goal: Goal
    lock: str | None = None
    later: Sequence[Needed] = ()

    def decide(self, docs: Docs) -> Change:
        found, goal = docs.get(SHELF) or {}, self.goal
        has, more = set(found["books"]), {} if found["available"] is None else {"available": found["available"]}
        requests = [put(book) for book in sorted(goal.books - has)]
        if goal.exact:
            requests += [remove(book) for book in sorted(has - goal.books)]
        back = [Goal(frozenset(has), exact=True)] if goal.undo else []
        before, after = {"books": sorted(has), **more}, {"books": sorted(has | goal.books), **more}
        return Filled(before, after, tuple(requests), task=self, back_to=back)


@dataclass(frozen=True, kw_only=True)
class Filled(Decided):
    back_to: Sequence[Goal]

    def back(self) -> Sequence[Task]:
        return [*map(Fill, self.back_to)]

    def undone(self, current: Mapping[str, Any]) -> str:
        return f"{len(current['books'])} books are on the shelf."


class Librarian(Executor):
    """An executor that reads and writes the shelf, and polls without a pause. `lacks` are missing rights."""

    def __init__(
        self, shelf: Shelf, folder: Path | None = None, *, lacks: Sequence[Right] = (), **options: Any
    ) -> None:
        session = task_of(Table(), folder, **options).session
        shelf.session = session
        session.poll_until = self._poll  # type: ignore[method-assign]
        self.lacks = lacks
        gateway = cast(Gateway, shelf)
        super().__init__(session, executor_module.Driver(session, gateway), gateway, self._find)

    def _find(self, _docs: Docs, _needed: Sequence[Needed], _own: str, _vaults_in: str) -> Missing:
        return Missing([(one.action, one.scope) for one in self.lacks], [])

    def _poll(self, ask: Callable[[], CmkError | None], _deadline: float, _waiting_for: str) -> CmkError | None:
        complaint = None
        for _time in range(POLLS):
            complaint = ask()
            if complaint is None:
                return None
        return complaint


def run(wanted: Goal, shelf: Shelf) -> Outcome:
    return Librarian(shelf).ensure(Fill(wanted))


def fails(wanted: Goal, shelf: Shelf, kind: type[CmkError] = CmkError) -> CmkError:
    with pytest.raises(kind) as failed:
        run(wanted, shelf)
    return failed.value


def refusing(*books: str, method: str = "POST", error: type[CmkError] = Rejected) -> Callable[[str, str], None]:
    def refuse(sent: str, book: str) -> None:
        if sent == method and book in books:
            raise error(f"{book} is nailed.", azure={"code": "Nailed"})

    return refuse


def raising(error: BaseException) -> Callable[..., None]:
    def fail(*_arguments: Any) -> None:
        raise error

    return fail


def nothing(*_arguments: Any) -> None:
    pass


# A change


def test_the_change_is_decided_again_once_the_lock_is_held(tmp_path: Path) -> None:
    shelf = Shelf()
    librarian = Librarian(shelf, tmp_path, task="one")

    def others(_vault: str) -> Any:
        shelf.books.add("novel")
        shelf.session.journal.mark()
        return nullcontext(False)

    librarian._locked = others  # type: ignore[method-assign]

    assert not librarian.ensure(Fill(goal("novel"), lock="vault")).changed
    assert shelf.did == ["read", "read"]


# Rights


def test_a_failure_names_the_rights_that_only_a_check_has_warned_of() -> None:
    """In check mode, a missing right is a warning, which a result without warnings would not show."""
    shelf = Shelf()
    shelf.writes = refusing("novel")

    with pytest.raises(Rejected) as failed:
        Librarian(shelf, lacks=[RIGHT], predicts=True).ensure(Fill(goal("novel")))

    said = "The caller lacks Shelf/write on /shelf. A run by this caller would be refused."
    assert str(failed.value) == f"novel is nailed. {said}"


# Somebody else changes the resource


def test_a_decision_that_is_outdated_after_a_write_is_rolled_back() -> None:
    shelf = Shelf()
    shelf.writes = refusing("fable", error=PlanOutdated)

    failed = fails(goal("fable", "atlas", undo=True), shelf, PlanOutdated)

    assert failed.facts["applied"] == ["add"]
    assert shelf.books == set()


# Interruptions


class TaskTimeoutError(BaseException):
    """An exception with the name of Ansible's exception."""

    timeout = 3


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        pytest.param(raising(KeyError("spine")), "internal_error", id="bug"),
        pytest.param(raising(TaskTimeoutError()), "timed_out", id="timeout"),
        pytest.param(lambda *_call: signal.raise_signal(signal.SIGTERM), "interrupted", id="signal"),
    ],
)
def test_a_change_that_is_interrupted_is_rolled_back(ended: Callable[..., None], code: str) -> None:
    handler, shelf = signal.getsignal(signal.SIGTERM), Shelf("atlas")

    def once(method: str, book: str) -> None:
        shelf.after = nothing
        ended(method, book)

    shelf.after = once
    failed = fails(goal("fable", "novel", undo=True), shelf)

    assert shelf.books == {"atlas"}
    assert failed.code == code
    assert failed.facts["restored"] is True
    assert failed.facts["current_state"] == {"books": ["atlas"]}
    assert signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.parametrize("is_abandoned", [True, False])
def test_an_abandoned_request_may_still_take_effect(is_abandoned: bool) -> None:
    shelf = Shelf("atlas")

    def end(_method: str, _book: str) -> None:
        shelf.writes = nothing
        shelf.session.sent.is_abandoned |= is_abandoned
        raise TaskTimeoutError

    shelf.writes = end
    failed = fails(goal("fable", "novel", undo=True), shelf)

    assert failed.facts["applied"] == []
    assert failed.facts["restored"] is not is_abandoned
    assert ("may still take effect" in str(failed)) is is_abandoned
    assert failed.facts["timedout"] == {"period": 3}


def test_a_second_signal_waits_for_the_rollback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ansible sends two signals to a worker, one right after the other."""

    def interrupted_again(ended: BaseException) -> CmkError:
        signal.raise_signal(signal.SIGINT)
        return as_failure(ended)

    monkeypatch.setattr(executor_module, "as_failure", interrupted_again)
    shelf = Shelf("atlas")

    def once(_method: str, _book: str) -> None:
        shelf.after = nothing
        signal.raise_signal(signal.SIGTERM)

    shelf.after = once
    with pytest.raises(KeyboardInterrupt):
        run(goal("fable", "novel", undo=True), shelf)

    assert shelf.books == {"atlas"}


def test_a_signal_does_not_end_the_rollback() -> None:
    """The signal ends the process after the rollback."""
    shelf = Shelf("atlas")
    # Reads do not show that the novel was added.
    shelf.after = lambda _method, _book: shelf.books.discard("novel")
    shelf.writes = lambda method, _book: signal.raise_signal(signal.SIGINT) if method == "DELETE" else None

    failed = fails(goal("fable", "novel", undo=True), shelf, NotConverged)

    assert shelf.books == {"atlas"}
    assert failed.facts["restored"] is True
    assert isinstance(failed.__cause__, Interrupted)
    with pytest.raises(KeyboardInterrupt):
        pass_on(failed)


# Azure is eventually consistent


def test_a_resource_that_a_change_seems_to_have_removed_is_a_failure() -> None:
    shelf = Shelf("atlas")

    def hide(method: str, book: str) -> None:
        if (method, book) == ("POST", "novel"):
            shelf.reads = [raising(NotFound("There is no shelf."))] * POLLS

    shelf.after = hide
    failed = fails(goal("novel", "fable", undo=True), shelf)

    assert (failed.code, failed.facts["applied"]) == ("not_found", ["add", "add"])
    assert shelf.books == {"atlas"}


def test_what_no_read_shows_is_named() -> None:
    shelf = Shelf("atlas")
    shelf.after = lambda _method, _book: shelf.books.discard("novel")

    failed = fails(goal("novel"), shelf, NotConverged)

    assert "a later read does not show books. Run the task again." in failed.msg
    assert failed.facts["missing"] == {"before": {"books": ["atlas"]}, "after": {"books": ["atlas", "novel"]}}


# The rollback


def test_without_an_applied_request_nothing_is_rolled_back() -> None:
    shelf = Shelf("atlas")
    shelf.writes = refusing("fable")

    failed = fails(goal("fable", undo=True), shelf, Rejected)

    assert failed.facts["applied"] == []
    assert (failed.facts["restored"], failed.facts["current_state"]) == (True, {"books": ["atlas"]})
    assert "remove" not in shelf.did
    assert "rolled back" not in str(failed)


@pytest.mark.parametrize(
    ("failure", "available", "stays"),
    [
        pytest.param(Unavailable, True, True, id="available"),
        pytest.param(Denied, True, True, id="another error"),
        pytest.param(Refused, True, False, id="refused"),
        pytest.param(Unavailable, False, False, id="unavailable"),
        pytest.param(Unavailable, None, False, id="not known"),
    ],
)
def test_a_change_that_took_effect_stays_if_the_resource_is_available(
    failure: type[CmkError], available: bool | None, stays: bool
) -> None:
    shelf = Shelf()
    shelf.available = available

    def dark(method: str, _book: str) -> None:
        if method == "POST":
            shelf.reads = [raising(failure("It is dark."))]

    shelf.after = dark
    failed = fails(goal("novel", undo=True), shelf, failure)

    assert ("novel" in shelf.books) is stays
    assert failed.facts["restored"] is not stays
    assert ("The change took effect, and stays." in str(failed)) is stays
    assert failed.facts["current_state"]["books"] == (["novel"] if stays else [])


@dataclass(frozen=True)
class WithFallback(Fill):
    """The novel is added, and not confirmed. If it cannot be removed after that, a fable is added."""

    found: type[CmkError] = CmkError

    def decide(self, docs: Docs) -> Change:
        ways = [goal(exact=True), goal("fable")]
        return Unconfirmed(**{**vars(super().decide(docs)), "back_to": ways}, found=self.found)


@dataclass(frozen=True, kw_only=True)
class Unconfirmed(Filled):
    found: type[CmkError]

    def confirm(self, docs: Docs) -> Change:
        docs.get(SHELF)
        raise self.found("It is dark.")


@pytest.mark.parametrize(
    ("found", "is_stuck", "books"),
    [
        (Refused, True, {"novel", "fable"}),
        # If a change was neither confirmed nor rolled back, it stays, unless the confirmation refuses it.
        (Denied, True, {"novel"}),
        (Refused, False, set()),
    ],
)
def test_the_second_rollback_is_for_a_refused_change_that_cannot_be_undone(
    found: type[CmkError], is_stuck: bool, books: set[str]
) -> None:
    shelf = Shelf()
    shelf.writes = refusing("novel", method="DELETE") if is_stuck else nothing

    with pytest.raises(found) as failed:
        Librarian(shelf).ensure(WithFallback(goal("novel"), found=found))

    assert shelf.books == books
    assert failed.value.facts["restored"] is not is_stuck


def test_a_run_notes_a_request_that_was_accepted(tmp_path: Path) -> None:
    shelf = Shelf()
    shelf.writes = refusing("poem")
    send = Librarian(shelf, tmp_path)._sender.send

    send(Change({}, {}, (put("novel", noted="a novel"),)), [])
    with pytest.raises(Rejected):
        send(Change({}, {}, (put("poem", noted="a poem"),)), [])

    later = task_of(Table(), tmp_path).session.journal
    assert (later.noted_at("a novel") is None, later.noted_at("a poem") is None) == (False, True)


# Removals


@dataclass(frozen=True)
class Remove(Task):
    """The novel is removed. No reader may have it."""

    delay: float = 0.0
    shares_delay: bool = True
    keeps_used: bool = False
    lock = "vault"

    def glance(self, docs: Docs) -> None:
        pass

    def decide(self, docs: Docs) -> Change:
        readers = (docs.get(READERS) or {})["readers"]
        books = (docs.get(SHELF) or {})["books"]
        if readers:
            raise Refused(f"In use by {readers}.", code="in_use", accounts=list(readers), pools=[])
        requests = (remove("novel"),) if "novel" in books else ()
        return Removed({"books": books}, {"books": []}, requests, versions=("spine",), task=self)


@dataclass(frozen=True, kw_only=True)
class Removed(Removal):
    task: Remove

    @property
    def delay(self) -> float:
        return self.task.delay

    @property
    def shares_delay(self) -> bool:
        return self.task.shares_delay

    @property
    def keeps_used(self) -> bool:
        return self.task.keeps_used

    def confirm(self, docs: Docs) -> Change:
        return self.task.decide(docs)

    def back(self) -> Sequence[Task]:
        return [Fill(goal("novel"))]


def removed(shelf: Shelf, task: Remove | None = None) -> Outcome:
    return Librarian(shelf).ensure(task or Remove())


def test_what_is_used_is_kept_with_a_warning() -> None:
    shelf = Shelf("novel")
    shelf.after = lambda method, _book: setattr(shelf, "readers", ["a newcomer"] if method == "DELETE" else [])

    outcome = removed(shelf, Remove(keeps_used=True))

    assert (outcome.changed, shelf.books) == (False, {"novel"})
    assert outcome.report == {
        "in_use_by": ["a newcomer"],
        "kept_until": None,
        "kept_versions": ["spine"],
        "disabled_versions": [],
        "restored": True,
    }


def test_a_removal_whose_users_cannot_be_found_out_is_undone() -> None:
    shelf = Shelf("novel")

    def dark(method: str, _book: str) -> None:
        if method == "DELETE":
            shelf.reads = [raising(Unavailable("It is dark."))] * 2

    shelf.after = dark
    with pytest.raises(Unavailable) as failed:
        removed(shelf)

    assert (failed.value.facts["restored"], shelf.books) == (True, {"novel"})


@pytest.mark.parametrize(("times", "restored"), [(2, True), (5, False)])
def test_a_removal_is_undone_although_reads_lag(times: int, restored: bool) -> None:
    """A read that shows the previous setting does not show the removal yet, so it is no proof."""
    shelf = Shelf("novel")

    def come(method: str, _book: str) -> None:
        if method == "DELETE":
            shelf.readers, shelf.stale = ["a newcomer"], [set[str](), *[{"novel"}] * times]

    shelf.after = come
    with pytest.raises(Refused) as failed:
        removed(shelf)

    assert failed.value.facts["restored"] is restored
    assert shelf.books == ({"novel"} if restored else set())


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> Callable[[Shelf, Callable[[], object]], None]:
    """Note in `did` of a shelf when the lock is taken and released. The function is called during the delay."""

    def watch(shelf: Shelf, during: Callable[[], object]) -> None:
        @contextmanager
        def locked(_executor: Executor, vault: str) -> Iterator[bool]:
            shelf.did.append(f"lock {vault}")
            try:
                yield False
            finally:
                shelf.did.append("unlock")

        clock = clock_of_all(monkeypatch)

        def sleep(seconds: float) -> None:
            shelf.did.append(f"wait {seconds:.0f}")
            during()
            clock.now += seconds

        monkeypatch.setattr(Librarian, "_locked", locked)
        monkeypatch.setattr("time.sleep", sleep)

    return watch


@pytest.mark.parametrize(
    ("shares_delay", "ends"), [(True, ["unlock", "wait 40", "read"]), (False, ["wait 40", "read", "unlock"])]
)
def test_the_lock_is_released_while_hosts_wait_together(
    waiting: Callable[..., None], shares_delay: bool, ends: list[str]
) -> None:
    """They revoke the access of different accounts. Of a key, another host would report what is restored later."""
    shelf = Shelf("novel")
    waiting(shelf, nothing)

    assert removed(shelf, Remove(delay=40.0, shares_delay=shares_delay)).changed
    assert shelf.did == ["lock vault", "read", "remove", *ends]


def test_a_user_that_appears_during_the_wait_undoes_the_removal_under_the_lock(waiting: Callable[..., None]) -> None:
    shelf = Shelf("novel")
    waiting(shelf, lambda: shelf.readers.append("a newcomer") if "add" not in shelf.did else None)
    shelf.after = lambda method, _book: shelf.readers.clear() if method == "POST" else None

    with pytest.raises(Refused) as failed:
        removed(shelf, Remove(delay=40.0))

    assert (failed.value.facts["restored"], shelf.books) == (True, {"novel"})
    asked = shelf.did[shelf.did.index("wait 40") :]
    assert asked == ["wait 40", "read", "lock vault", "read", "add", "read", "unlock"]


def test_an_interrupted_removal_is_undone_without_asking(waiting: Callable[..., None]) -> None:
    shelf = Shelf("novel")

    def interrupt() -> None:
        raise KeyboardInterrupt

    waiting(shelf, interrupt)
    with pytest.raises(CmkError) as failed:
        removed(shelf, Remove(delay=40.0))

    assert (failed.value.code, failed.value.facts["restored"]) == ("interrupted", True)
    assert shelf.books == {"novel"}


def test_a_check_of_a_removal_does_not_wait(waiting: Callable[..., None]) -> None:
    shelf = Shelf("novel")
    waiting(shelf, nothing)

    assert Librarian(shelf, predicts=True).ensure(Remove(delay=40.0)).changed
    assert "wait 40" not in shelf.did


def in_use(**facts: Any) -> Refused:
    current = {"current_state": {"books": []}, "accounts": ["a newcomer"], "pools": ["its pool"]}
    return Refused("In use.", code="in_use", **{**current, **facts})


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(in_use(restored=False), id="not restored"),
        pytest.param(Refused("No.", code="users_unknown", restored=True), id="refused for another reason"),
        pytest.param(Denied("No.", restored=True), id="failed"),
    ],
)
def test_only_what_was_restored_is_kept(failure: CmkError) -> None:
    removal = Removed({}, {}, task=Remove(keeps_used=True))
    with pytest.raises(CmkError) as failed:
        removal.failed(failure)
    assert failed.value is failure
    users = ["a newcomer", "its pool"]
    assert removal.failed(in_use(restored=True)).report == {
        "in_use_by": users,
        "kept_until": None,
        "restored": True,
    }


# A request that only finds out whether Azure accepts it


@dataclass(frozen=True, kw_only=True)
class Probing(Change):
    until_refused: bool

    def heard(self, request: Request, refusal: CmkError | None) -> CmkError | None:
        if isinstance(refusal, Rejected) and refusal.facts["azure"]["code"] != "Nailed":
            raise refusal
        is_refused = isinstance(refusal, Rejected)
        return None if is_refused is self.until_refused and not isinstance(refusal, Unavailable) else CmkError("Late.")


@pytest.mark.parametrize(
    ("until_refused", "responses", "sent"),
    [
        (True, [None, None, "Nailed"], 3),
        (False, ["Nailed", "Nailed", None], 3),
        # An error of the service says nothing.
        (True, [None, "busy", "Nailed"], 3),
        (True, [None] * POLLS, "Late."),
        (False, ["Nailed"] * POLLS, "Late."),
        # Another refusal ends it.
        (True, [None, "Locked"], "Locked"),
        (False, ["Locked"], "Locked"),
    ],
)
def test_a_probe_is_repeated(until_refused: bool, responses: list[str | None], sent: int | str) -> None:
    shelf, left = Shelf(), list(responses)

    def respond(_method: str, _book: str) -> None:
        said = left.pop(0)
        if said == "busy":
            raise Unavailable("Busy.")
        if said:
            raise Rejected(said, azure={"code": said})

    shelf.writes = respond
    change = Probing({}, {}, (put("atlas", is_probe=True),), until_refused=until_refused)
    send = partial(Librarian(shelf)._sender.send, change, [])
    if isinstance(sent, int):
        send()
        assert shelf.did == ["add"] * sent
        return
    with pytest.raises(CmkError) as ended:
        send()
    assert ended.value.msg == sent
