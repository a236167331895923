# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read, plan, apply, read and plan again, with a resource and a service of this test."""

from __future__ import annotations

import signal
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from plain_service import Plain

from ansible_collections.azbatch.cmk.plugins.module_utils._core import placeholders, reconcile
from ansible_collections.azbatch.cmk.plugins.module_utils._core import plan as plan_module
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
from ansible_collections.azbatch.cmk.plugins.module_utils._core.plan import Outcome, Plan, SentWrites, step, together
from ansible_collections.azbatch.cmk.plugins.module_utils._core.reconcile import converge, predicted, unless_used


@pytest.fixture(autouse=True)
def signals_that_end() -> Iterator[None]:
    """Handle SIGINT as in a terminal. A shell without job control starts background processes with SIGINT ignored."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@dataclass(frozen=True)
class Goal:
    """The books that a shelf must contain, and whether one more book is added in any case. With the book "fable",
    the plan has a rollback."""

    books: frozenset[str]
    one_more: bool = False
    more_than: int = 0
    put_back: bool = False

    def described(self, current: Mapping[str, Any]) -> str:
        return f"{len(current['books'])} books are on the shelf."


class Books:
    """A planner: a step for each missing book, in alphabetical order."""

    @staticmethod
    def plan(goal: Goal, observed: frozenset[str]) -> Plan:
        if "forbidden" in goal.books - observed:
            raise Refused("That book is not wanted here.", code="forbidden")
        missing = sorted(goal.books - observed)
        steps = [step(Shelf.add, book=book) for book in missing]
        steps += [step(Shelf.remove, book=book) for book in sorted(observed - goal.books) if goal.put_back]
        if goal.one_more or len(observed) < goal.more_than:
            steps.append(step(Shelf.add, book=f"volume {len(observed) + 1}"))
        return Plan(
            replace(goal, one_more=False, more_than=len(observed) + 1) if goal.one_more else goal,
            {"books": sorted(observed)},
            {"books": sorted(observed | goal.books)},
            tuple(steps),
            warnings=tuple(f"{book} is heavy." for book in missing if book == "atlas"),
            rollback_goal=replace(goal, books=observed, put_back=True) if "fable" in goal.books else None,
            report={"shelf": "upper"} if steps else {},
        )


@dataclass
class Shelf(Plain):
    """A service. Books in `stuck` can be added, but reads do not show them. Books in `nailed` cannot be added or
    removed."""

    books: set[str] = field(default_factory=set)
    stuck: frozenset[str] = frozenset()
    nailed: frozenset[str] = frozenset()
    calls: list[Any] = field(default_factory=list)

    def read(self, goal: Goal) -> frozenset[str]:
        self.calls.append(("read", goal))
        return frozenset(self.books)

    def add(self, book: str) -> None:
        self.calls.append(("add", book))
        if book in self.nailed:
            raise Rejected(f"{book} cannot be added.")
        self.books |= {book} - self.stuck

    def remove(self, book: str) -> None:
        self.calls.append(("remove", book))
        if book in self.nailed:
            raise Rejected(f"{book} cannot be removed.")
        self.books.discard(book)

    @property
    def did(self) -> list[str]:
        return [name for name, _argument in self.calls]


def goal(*books: str, **settings: Any) -> Goal:
    return Goal(frozenset(books), **settings)


def run(wanted: Goal, shelf: Shelf) -> Outcome:
    return converge(wanted, shelf, Books)


# Plan and Outcome


def test_a_plan_changes_something_if_it_has_a_step() -> None:
    assert not Plan(None, {}, {}).changed
    assert Plan(None, {}, {}, (step(Shelf.add, book="atlas"),)).changed


def test_result_is_the_state_with_warnings_and_report() -> None:
    outcome = Outcome(True, {"size": 1}, {"size": 2}, ("It is heavy.",), {"preflight": []})

    assert outcome.result() == {
        "size": 2,
        "preflight": [],
        "changed": True,
        "diff": {"before": {"size": 1}, "after": {"size": 2}},
        "warnings": ["It is heavy."],
    }


def test_a_diff_has_only_values_that_differ() -> None:
    before = {"name": "kv", "size": 1, "tags": {"team": "a", "cost": "b"}, "keys": ["a", "b"], "old": 1, "none": None}
    after = {"name": "kv", "size": 2, "tags": {"team": "a", "cost": "c"}, "keys": ["a"], "new": {"a": 1}}

    assert Outcome(True, before, after).result()["diff"] == {
        "before": {"size": 1, "tags": {"cost": "b"}, "keys": ["a", "b"], "old": 1},
        "after": {"size": 2, "tags": {"cost": "c"}, "keys": ["a"], "new": {"a": 1}},
    }
    assert Outcome(False, before, before).result()["diff"] == {"before": {}, "after": {}}


def test_a_planned_result_has_placeholders_for_values_from_azure() -> None:
    principal, version = placeholders.principal("mybatch", "rg", 1), placeholders.version("vault", "key", 2)
    state = {
        "principal_id": principal,
        "keys": [{"version": version, "created_on": "2026-01-01T00:00:00Z", "exists": True}],
        "key_identifier": f"https://vault.vault.azure.net/keys/key/{version}",
        "created_on": "2025-01-01T00:00:00Z",
        "vault_id": str(uuid.uuid4()),
    }

    result = Outcome(True, {}, state).result(planned=True)

    new = "known after apply: new version 2 of key in vault"
    shown = {
        **state,
        "principal_id": "(known after apply: principal 1 of mybatch in rg)",
        "keys": [{"version": f"({new})", "created_on": "(known after apply)", "exists": True}],
        "key_identifier": f"https://vault.vault.azure.net/keys/key/({new})",
    }
    assert result == {**shown, "changed": True, "diff": {"before": {}, "after": shown}}
    assert Outcome(True, {}, state).result()["principal_id"] == principal


def test_result_without_warnings_has_no_such_key() -> None:
    assert "warnings" not in Outcome(False, {}, {}).result()


def one(number: int, **options: Any) -> Outcome:
    before, after = {"granted": []}, {"granted": [number]}
    return Outcome(True, before, after, ("Heed this.", f"Heed {number}."), {"in_use_by": [f"user {number}"]}, **options)


def test_outcomes_of_several_are_one_with_the_values_of_each() -> None:
    unchanged = Outcome(False, {"granted": [2]}, {"granted": [2]}, ("Heed this.",), {"in_use_by": []})

    both = together([unchanged, one(1)])

    assert both.changed
    assert both.before == {"granted": [2], "principals": [{"granted": [2]}, {"granted": []}]}
    assert both.after == {"granted": [2], "principals": [{"granted": [2]}, {"granted": [1]}]}
    assert both.warnings == ("Heed this.", "Heed 1.")
    assert both.report == {"in_use_by": ["user 1"]}
    assert together([unchanged, unchanged]).changed is False


def test_the_outcome_of_one_is_its_own_and_that_of_none_is_no_change() -> None:
    assert together([one(1)]) == one(1)
    assert together([]) == Outcome(False, {"principals": []}, {"principals": []})


# converge


def test_satisfied_goal_needs_one_read_and_no_write() -> None:
    shelf = Shelf({"atlas", "novel"})

    outcome = run(goal("novel"), shelf)

    assert shelf.did == ["read"]
    assert outcome == Outcome(False, {"books": ["atlas", "novel"]}, {"books": ["atlas", "novel"]})


def test_a_change_that_is_only_predicted_is_not_written() -> None:
    shelf = Shelf({"novel"})

    plan = predicted(goal("atlas"), shelf, Books)

    assert shelf.did == ["read"]
    assert shelf.books == {"novel"}
    assert (plan.steps, plan.before) == ((step(Shelf.add, book="atlas"),), {"books": ["novel"]})


def test_a_prediction_and_a_run_refuse_the_same_goals() -> None:
    with pytest.raises(Refused):
        predicted(goal("forbidden"), Shelf(), Books)


def test_a_change_is_written_and_read_again() -> None:
    shelf = Shelf()

    outcome = run(goal("novel", "atlas"), shelf)

    assert shelf.did == ["read", "add", "add", "read"]
    assert [argument for name, argument in shelf.calls if name == "add"] == ["atlas", "novel"]
    assert outcome == Outcome(
        True, {"books": []}, {"books": ["atlas", "novel"]}, ("atlas is heavy.",), {"shelf": "upper"}
    )


def test_the_result_is_the_state_that_was_read_and_not_the_prediction() -> None:
    class Busy(Shelf):
        def add(self, book: str) -> None:
            super().add(book)
            self.books.add("somebody's own")

    assert run(goal("novel"), Busy()).after == {"books": ["novel", "somebody's own"]}


def test_the_second_run_changes_nothing() -> None:
    shelf = Shelf()
    run(goal("novel"), shelf)
    shelf.calls.clear()

    assert run(goal("novel"), shelf).changed is False
    assert shelf.did == ["read"]


def test_new_version_is_planned_as_a_state() -> None:
    shelf = Shelf({"volume 1"})

    outcome = run(goal(one_more=True), shelf)

    assert outcome.after == {"books": ["volume 1", "volume 2"]}
    assert [wanted.one_more for name, wanted in shelf.calls if name == "read"] == [True, False]


def test_a_refusal_before_the_first_write_names_no_steps() -> None:
    shelf = Shelf()

    with pytest.raises(Refused) as refused:
        run(goal("atlas", "forbidden"), shelf)

    assert refused.value.result() == {"msg": "That book is not wanted here.", "code": "forbidden", "scope": "account"}
    assert shelf.did == ["read"]


def test_an_unconfirmed_change_is_a_failure() -> None:
    shelf = Shelf(stuck=frozenset({"novel"}))

    with pytest.raises(NotConverged) as failed:
        run(goal("atlas", "novel"), shelf)

    assert shelf.did == ["read", "add", "add", "read"]
    assert failed.value.facts == {
        "missing": {"before": {"books": ["atlas"]}, "after": {"books": ["atlas", "novel"]}},
        "applied": ["add", "add"],
    }


@dataclass
class Contested(Shelf):
    """Before this task adds a book, another task adds one of `others`."""

    others: list[str] = field(default_factory=list)

    def add(self, book: str) -> None:
        if self.others:
            self.books.add(self.others.pop(0))
            raise PlanOutdated("Somebody else was here.")
        super().add(book)


def test_resource_of_a_concurrent_creation_is_not_reported_as_changed() -> None:
    shelf = Contested(others=["atlas"])

    assert not run(goal("atlas"), shelf).changed
    assert shelf.did == ["read", "read"]


def test_after_somebody_else_created_a_resource_the_change_is_planned_again() -> None:
    shelf = Contested(others=["novel"])

    done = run(goal("atlas"), shelf)

    assert done.changed
    assert done.before == {"books": ["novel"]}
    assert shelf.did == ["read", "read", "add", "read"]


def test_a_plan_that_is_outdated_twice_is_a_failure_without_rollback() -> None:
    shelf = Contested(others=["novel", "poems"])

    with pytest.raises(PlanOutdated) as failed:
        run(goal("fable", "atlas"), shelf)

    assert failed.value.facts == {"applied": []}
    assert shelf.did == ["read", "read"]


def test_a_plan_that_is_outdated_after_a_write_is_rolled_back() -> None:
    @dataclass
    class Later(Contested):
        def add(self, book: str) -> None:
            if book == "atlas":
                Shelf.add(self, book)
            else:
                super().add(book)

    shelf = Later(others=["novel"])

    with pytest.raises(PlanOutdated) as failed:
        run(goal("fable", "atlas"), shelf)

    assert failed.value.facts["applied"] == ["add"]
    assert shelf.books == set()


def test_a_failure_has_the_steps_that_were_applied_before() -> None:
    shelf = Shelf(nailed=frozenset({"novel"}))

    with pytest.raises(Rejected) as failed:
        run(goal("atlas", "novel", "poem"), shelf)

    assert failed.value.facts == {"applied": ["add"]}
    assert shelf.books == {"atlas"}
    assert shelf.did == ["read", "add", "add"]


def test_a_failure_names_the_rights_that_only_a_check_has_warned_of() -> None:
    """In check mode, a missing right is a warning, which a result without warnings would not show."""
    with pytest.raises(Rejected) as failed:
        converge(goal("novel"), Shelf(nailed=frozenset({"novel"})), Books, rights=lambda _steps: ("You may not add.",))

    assert str(failed.value) == "novel cannot be added. You may not add."


class Broken(Shelf):
    """Adds a book and then raises an unexpected exception."""

    ends: BaseException = KeyError("spine")

    def add(self, book: str) -> None:
        super().add(book)
        raise self.ends


class Interruption(Broken):
    ends = KeyboardInterrupt()


class TaskTimeoutError(BaseException):
    """An exception with the name of Ansible's exception."""

    timeout = 3


class Timeout(Broken):
    ends = TaskTimeoutError()


class Signal(Shelf):
    """Receives a signal while a book is added."""

    def add(self, book: str) -> None:
        super().add(book)
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(
    ("shelf", "code"),
    [(Broken, "internal_error"), (Interruption, "interrupted"), (Timeout, "timed_out"), (Signal, "interrupted")],
)
def test_a_change_that_is_interrupted_is_rolled_back(shelf: type[Shelf], code: str) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    ended = shelf({"atlas"})

    with pytest.raises(CmkError) as failed:
        run(goal("fable", "novel"), ended)

    assert ended.books == {"atlas"}
    assert failed.value.code == code
    assert failed.value.facts["applied"] == []
    assert failed.value.facts["restored"] is True
    assert failed.value.facts["current_state"] == {"books": ["atlas"]}
    assert signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.parametrize("is_accepted", [True, False])
@pytest.mark.parametrize("is_abandoned", [True, False])
def test_an_interrupted_write_is_reported_as_far_as_it_is_known(is_accepted: bool, is_abandoned: bool) -> None:
    class Interrupted(Timeout):
        def __init__(self, books: set[str]) -> None:
            super().__init__(books)
            self.sent = SentWrites()

        def add(self, book: str) -> None:
            self.sent.accepted += is_accepted
            self.sent.is_abandoned |= is_abandoned
            super().add(book)

    with pytest.raises(CmkError) as failed:
        run(goal("fable", "novel"), Interrupted({"atlas"}))

    assert failed.value.facts["applied"] == ["add"] * is_accepted
    assert failed.value.facts["restored"] is not is_abandoned
    assert ("may still take effect" in str(failed.value)) is is_abandoned


def test_a_second_signal_waits_for_the_rollback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ansible sends two signals to a worker, one right after the other."""

    def interrupted_again(ended: BaseException) -> CmkError:
        signal.raise_signal(signal.SIGINT)
        return as_failure(ended)

    monkeypatch.setattr(reconcile, "as_failure", interrupted_again)
    shelf = Signal({"atlas"})

    with pytest.raises(KeyboardInterrupt):
        run(goal("fable", "novel"), shelf)

    assert shelf.books == {"atlas"}


def test_the_timeout_of_ansible_is_reported() -> None:
    with pytest.raises(CmkError) as failed:
        run(goal("fable"), Timeout())

    assert failed.value.facts["timedout"] == {"period": 3}
    assert "3 s" in str(failed.value)


def test_a_bug_in_the_rollback_does_not_hide_the_failure() -> None:
    class Twice(Shelf):
        def remove(self, book: str) -> None:
            raise KeyError(book)

    with pytest.raises(NotConverged) as failed:
        run(goal("fable", "novel"), Twice({"atlas"}, stuck=frozenset({"novel"})))

    assert failed.value.facts["restored"] is False
    assert failed.value.facts["restore_failure"]["code"] == "internal_error"


def test_a_signal_does_not_end_the_rollback() -> None:
    """The signal ends the process after the rollback."""

    class Impatient(Shelf):
        def remove(self, book: str) -> None:
            signal.raise_signal(signal.SIGINT)
            super().remove(book)

    shelf = Impatient({"atlas"}, stuck=frozenset({"novel"}))

    with pytest.raises(NotConverged) as failed:
        run(goal("fable", "novel"), shelf)

    assert shelf.books == {"atlas"}
    assert failed.value.facts["restored"] is True
    assert isinstance(failed.value.__cause__, Interrupted)
    with pytest.raises(KeyboardInterrupt):
        pass_on(failed.value)


# Azure is eventually consistent


class Polled:
    """A service that polls five times."""

    def until_shown(self, look: Any, at_least_until: float = 0.0) -> CmkError | None:
        for _time in range(5):
            missing: CmkError | None = look()
            if missing is None:
                return None
        return missing


class Late(Polled, Shelf):
    """After a write, the next `stale` reads show the previous books."""

    stale = 2

    def read(self, goal: Goal) -> frozenset[str]:
        now = super().read(goal)
        if "add" in self.did and self.stale:
            self.stale -= 1
            return self.shown
        self.shown = now
        return now


class Missing(Late):
    """The first reads after a write do not find the shelf."""

    def read(self, goal: Goal) -> frozenset[str]:
        if "add" in self.did and self.stale:
            self.stale -= 1
            raise NotFound("There is no shelf.")
        return super().read(goal)


@pytest.mark.parametrize("shelf", [Late, Missing])
def test_a_change_is_polled_until_azure_shows_it(shelf: type[Late]) -> None:
    late = shelf({"atlas"})

    assert run(goal("novel", "fable"), late).after == {"books": ["atlas", "fable", "novel"]}
    assert "remove" not in late.did


@pytest.mark.parametrize(("shelf", "code"), [(Late, "not_confirmed"), (Missing, "not_found")])
def test_a_change_that_never_shows_is_a_failure(shelf: type[Late], code: str) -> None:
    late = shelf({"atlas"})
    late.stale = 5

    with pytest.raises(CmkError) as failed:
        run(goal("novel", "fable"), late)

    assert failed.value.code == code
    assert failed.value.facts["applied"] == ["add", "add"]
    assert late.books == {"atlas"}


def test_a_refusal_counts_at_once() -> None:
    class Newcomer(Late):
        stale = 0

        def read(self, goal: Goal) -> frozenset[str]:
            if "add" in self.did and "remove" not in self.did and not goal.put_back:
                self.calls.append(("look", goal))
                raise Refused("Somebody reads it.", code="in_use")
            return super().read(goal)

    shelf = Newcomer({"atlas"})

    with pytest.raises(Refused):
        run(goal("novel", "fable"), shelf)

    assert shelf.did.count("look") == 1
    assert shelf.books == {"atlas"}


def test_a_rollback_reads_the_current_state() -> None:
    """The rollback does not use the earlier reads of the task, because another task may have changed the resource
    since."""

    class Remembering(Late):
        stale = 0
        remembered: frozenset[str] | None = None

        def read(self, goal: Goal) -> frozenset[str]:
            if self.remembered is None:
                self.remembered = super().read(goal)
            return self.remembered

        def add(self, book: str) -> None:
            super().add(book)
            self.remembered = frozenset(self.books)
            # Another task removes the book at once.
            self.books.discard("novel")

        def forget(self) -> None:
            self.remembered = None

    shelf = Remembering({"atlas"}, nailed=frozenset({"poem"}))

    with pytest.raises(Rejected):
        run(goal("fable", "novel", "poem"), shelf)

    # The book that does not exist any more is not removed again.
    assert shelf.did.count("remove") == 1


def test_a_rollback_that_is_outdated_is_planned_again() -> None:
    class Taken(Late):
        stale = 0

        def remove(self, book: str) -> None:
            if book in self.books:
                self.books.discard(book)
                raise PlanOutdated("Somebody else was here.")

    shelf = Taken({"atlas"}, nailed=frozenset({"poem"}))

    with pytest.raises(Rejected) as failed:
        run(goal("fable", "novel", "poem"), shelf)

    assert failed.value.facts["restored"] is True
    assert shelf.books == {"atlas"}


def test_a_rollback_is_confirmed_although_reads_lag() -> None:
    class Slow(Late):
        stale = 0

        def remove(self, book: str) -> None:
            super().remove(book)
            self.stale = 2

    shelf = Slow({"atlas"}, stuck=frozenset({"novel"}))

    with pytest.raises(NotConverged) as failed:
        run(goal("novel", "fable"), shelf)

    assert failed.value.facts["restored"] is True


# The rollback


def test_a_failed_change_is_rolled_back() -> None:
    shelf = Shelf({"atlas"}, stuck=frozenset({"novel"}))

    with pytest.raises(NotConverged) as failed:
        run(goal("fable", "novel"), shelf)

    assert shelf.books == {"atlas"}
    assert failed.value.facts["applied"] == ["add", "add"]
    assert failed.value.facts["restored"] is True
    assert failed.value.facts["current_state"] == {"books": ["atlas"]}
    assert str(failed.value).endswith("1 books are on the shelf.")
    # Write, read; a read that shows whether the change can stay; then the rollback: read, write, read.
    assert shelf.did == ["read", "add", "add", "read", "read", "read", "remove", "read"]


def test_without_an_applied_step_nothing_is_rolled_back() -> None:
    shelf = Shelf({"atlas"}, nailed=frozenset({"fable"}))

    with pytest.raises(Rejected) as failed:
        run(goal("fable"), shelf)

    assert failed.value.facts == {"applied": [], "restored": True, "current_state": {"books": ["atlas"]}}
    assert "remove" not in shelf.did


def test_a_failed_rollback_is_reported_with_the_first_failure() -> None:
    class Jammed(Shelf):
        def remove(self, book: str) -> None:
            raise Rejected(f"{book} cannot be removed.", azure={"code": "Stuck"})

    shelf = Jammed({"atlas"}, stuck=frozenset({"novel"}))

    with pytest.raises(NotConverged) as failed:
        run(goal("fable", "novel"), shelf)

    assert failed.value.facts["restored"] is False
    assert failed.value.facts["restore_failure"] == {
        "msg": "fable cannot be removed.",
        "code": "rejected_by_service",
        "scope": "account",
        "azure": {"code": "Stuck"},
    }
    assert "current_state" not in failed.value.facts
    assert str(failed.value).endswith(
        "Restoring the previous setting also failed: fable cannot be removed. "
        "Azure had accepted the change, so it may be in effect."
    )


def test_a_rollback_is_confirmed() -> None:
    class Deaf(Shelf):
        def remove(self, book: str) -> None:
            self.calls.append(("remove", book))

    shelf = Deaf({"atlas"}, stuck=frozenset({"novel"}))

    with pytest.raises(NotConverged) as failed:
        run(goal("fable", "novel"), shelf)

    assert failed.value.facts["restored"] is False
    assert failed.value.facts["current_state"] == {"books": ["atlas", "fable"]}


def test_the_first_failure_is_the_one_that_is_raised() -> None:
    class Unreadable(Shelf):
        def read(self, goal: Goal) -> frozenset[str]:
            if "remove" in self.did or self.did.count("read") == 2:
                raise CmkError("It is dark.", code="service_unavailable")
            return super().read(goal)

    with pytest.raises(NotConverged) as failed:
        run(goal("fable", "novel"), Unreadable(stuck=frozenset({"novel"})))

    assert failed.value.facts["restored"] is False
    assert failed.value.facts["restore_failure"]["code"] == "service_unavailable"


# The setting after a failed change


@dataclass(frozen=True)
class Lamp:
    """The goal that the lamp of this name is on (`lit`) or off."""

    name: str = "red"
    lit: bool = True
    rollback_goal: Lamp | None = None
    if_refused: Lamp | None = None
    taken_away: bool | None = None

    def described(self, _stands: Any) -> str:
        return "The lamp is as it was."


@dataclass
class Lamps(Plain):
    """A resource and its service. The first read of a lit lamp fails. Lamps in `stuck` cannot be switched off."""

    fails: type[CmkError]
    stuck: tuple[str, ...] = ()
    lit: dict[str, bool] = field(default_factory=dict)
    failed: bool = False

    @staticmethod
    def plan(goal: Lamp, lit: bool) -> Plan:
        steps = () if lit == goal.lit else (step(Lamps.switch, name=goal.name, on=goal.lit),)
        ways = {"rollback_goal": goal.rollback_goal, "if_refused": goal.if_refused}
        return Plan(goal, {"lit": lit}, {"lit": goal.lit}, steps, **ways)

    def read(self, goal: Lamp) -> bool:
        if self.lit.get(goal.name) and not self.failed:
            self.failed = True
            raise self.fails("It is dark.")
        return self.lit.get(goal.name, False)

    def switch(self, name: str, on: bool) -> None:
        if name in self.stuck and not on:
            raise Rejected("It is stuck.")
        self.lit[name] = on


BEFORE, FALLBACK = Lamp(lit=False), Lamp("blue")


def undone(lamps: Lamps, **ways: Lamp) -> CmkError:
    with pytest.raises(CmkError) as failed:
        converge(Lamp(**ways), lamps, Lamps)  # type: ignore[arg-type]
    return failed.value


@pytest.mark.parametrize("failure", [Denied, Refused])
def test_the_previous_setting_is_restored_and_nothing_else(failure: type[CmkError]) -> None:
    lamps = Lamps(failure)

    assert undone(lamps, rollback_goal=BEFORE, if_refused=FALLBACK).facts["restored"] is True
    assert lamps.lit == {"red": False}


@pytest.mark.parametrize(("failure", "lit"), [(Refused, {"red": True, "blue": True}), (Denied, {"red": True})])
def test_the_fallback_is_for_a_refused_change_whose_previous_setting_cannot_be_restored(
    failure: type[CmkError], lit: dict[str, bool]
) -> None:
    lamps = Lamps(failure, stuck=("red",))
    undone(lamps, rollback_goal=BEFORE, if_refused=FALLBACK)

    assert lamps.lit == lit


@pytest.mark.parametrize("rollback", [BEFORE, None], ids=["with a rollback", "without a rollback"])
@pytest.mark.parametrize("found", [Refused, Denied, Unavailable])
def test_the_fallback_after_a_failed_rollback_is_for_a_change_that_is_refused_when_it_is_read_again(
    found: type[CmkError], rollback: Any
) -> None:
    """If a change was neither confirmed nor rolled back, it stays, unless a check refuses it. For a change without
    a rollback, the fallback is always applied."""

    class Dark(Lamps):
        def read(self, goal: Lamp) -> bool:
            if goal.lit and self.lit.get("red") and goal.name == "red":
                raise found("It is dark.")
            return self.lit.get(goal.name, False)

    lamps = Dark(Denied, stuck=("red",))
    undone(lamps, rollback_goal=rollback, if_refused=FALLBACK)

    assert lamps.lit == ({"red": True, "blue": True} if rollback is None or found is Refused else {"red": True})


class SwitchedOff(Polled, Lamps):
    """Somebody needs the lamp when it is off, and the next `stale` reads show that it is on."""

    stale = 2

    def read(self, goal: Lamp) -> bool:
        if self.lit[goal.name]:
            return True
        if not goal.lit:
            raise Refused("Somebody needs it.", code="in_use")
        self.stale -= 1
        return self.stale >= 0


@pytest.mark.parametrize(("stale", "restored"), [(0, True), (2, True), (4, True), (5, False)])
def test_a_removal_is_undone_although_reads_lag(stale: int, restored: bool) -> None:
    """A read that shows the previous setting does not show the removal yet, so it is no proof."""
    lamps = SwitchedOff(Refused, lit={"red": True})
    lamps.stale = stale
    with pytest.raises(CmkError) as failed:
        converge(Lamp(lit=False, if_refused=Lamp(lit=True)), lamps, Lamps)  # type: ignore[arg-type]

    assert failed.value.code == "in_use"
    assert (failed.value.facts["restored"], lamps.lit) == (restored, {"red": restored})


@pytest.mark.parametrize("failure", [Denied, Refused])
def test_without_a_rollback_nothing_is_undone(failure: type[CmkError]) -> None:
    lamps = Lamps(failure)

    assert "restored" not in undone(lamps).facts
    assert lamps.lit == {"red": True}


# A change begins only if it may


def test_a_change_begins_only_if_its_requirement_holds() -> None:
    def refuse() -> None:
        raise Denied("There is no power.")

    shelf = Shelf({"novel"})
    with pytest.raises(Denied):
        converge(goal("atlas"), shelf, Books, before_change=refuse)
    assert shelf.books == {"novel"}
    # If there is nothing to change, the requirement is not checked.
    assert not converge(goal("novel"), shelf, Books, before_change=refuse).changed


# A change that has taken effect stays


class Available(Lamps):
    """A lamp whose state has the availability. The first read of a lit lamp fails."""

    available: bool | None = True

    def plan(self, goal: Lamp, lit: bool) -> Plan:  # type: ignore[override]
        plan = Lamps.plan(goal, lit)
        return replace(plan, before={"lit": lit, "available": self.available})


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
    lamps = Available(failure)
    lamps.available = available

    with pytest.raises(failure) as failed:
        converge(Lamp(rollback_goal=BEFORE), lamps, lamps)  # type: ignore[arg-type]

    assert lamps.lit == {"red": stays}
    assert failed.value.facts["restored"] is not stays
    assert ("The change took effect, and stays." in str(failed.value)) is stays
    assert failed.value.facts["current_state"]["lit"] is stays


# Resources that accounts started to use during the removal


def in_use(**facts: Any) -> Refused:
    current = {"current_state": {"lit": True}, "accounts": ["a newcomer"], "pools": ["its pool"]}
    return Refused("In use.", code="in_use", **{"restored_versions": None, **current, **facts})


@pytest.mark.parametrize(
    ("failure", "keeps_used", "is_kept"),
    [
        pytest.param(in_use(restored=True), True, True, id="restored"),
        pytest.param(in_use(restored=True), False, False, id="restored, but a failure is requested"),
        pytest.param(in_use(restored=False), True, False, id="not restored"),
        pytest.param(in_use(), True, False, id="refused before the removal"),
        pytest.param(Refused("No.", code="users_unknown", restored=True), True, False, id="refused for another reason"),
        pytest.param(Denied("No.", restored=True), True, False, id="failed"),
    ],
)
def test_a_restored_resource_is_reported_as_in_use(failure: CmkError, keeps_used: bool, is_kept: bool) -> None:
    calls = []

    def make() -> Outcome:
        calls.append(failure)
        raise failure

    if is_kept:
        report = {"in_use_by": ["a newcomer", "its pool"], "kept_until": None}
        expected = Outcome(False, {"lit": True}, {"lit": True}, ("In use.",), report)
        assert unless_used(make, keeps_used=keeps_used) == expected
    else:
        with pytest.raises(CmkError) as failed:
            unless_used(make, keeps_used=keeps_used)
        assert failed.value is failure
    # The removal is not tried again: reads may still show the state before the accounts were moved.
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("restored_versions", "more"),
    [
        pytest.param(["one", "two"], {"kept_versions": ["one", "two"], "disabled_versions": []}, id="versions"),
        pytest.param([], {"kept_versions": [], "disabled_versions": []}, id="a deleted key"),
        pytest.param(None, {}, id="access"),
    ],
)
def test_the_versions_that_were_enabled_again_are_kept(
    restored_versions: list[str] | None, more: dict[str, list[str]]
) -> None:
    outcome = reconcile.kept(in_use(restored=True, restored_versions=restored_versions))

    assert {name: value for name, value in outcome.report.items() if name.endswith("_versions")} == more


# The users of a removed resource are asked for again


OFF, ON = Lamp(lit=False, taken_away=True), Lamp(lit=True)


class Removed(Lamps):
    """A lamp that was switched off. Each read takes the next of `finds`: the error that the plan raises, or None if
    nobody needs the lamp. The last one is repeated."""

    def __init__(self, *finds: CmkError | BaseException | None) -> None:
        super().__init__(Denied, lit={"red": False})
        self.finds = list(finds)
        self.locked = self.waited = 0

    def read(self, goal: Lamp) -> bool:
        found = self.finds.pop(0) if len(self.finds) > 1 else self.finds[0]
        if not goal.lit and found is not None:
            raise found
        return self.lit[goal.name]

    def switch(self, name: str, on: bool) -> None:
        assert self.locked
        super().switch(name, on)

    @contextmanager
    def lock(self) -> Iterator[None]:
        self.locked += 1
        yield
        self.locked -= 1

    def wait(self, used: Any) -> CmkError | None:
        """Ask twice, like a task that waits until no list is out of date."""
        used()
        self.waited += 1
        found: CmkError | None = used()
        return found


def require(lamps: Removed, at: float = 0.0) -> None:
    removed = plan_module.Removed(OFF, ON, at)
    reconcile.require_unused(removed, lamps, Lamps, lamps.wait, lamps.lock)  # type: ignore[arg-type]


NEEDED = Refused("Somebody needs it.", code="in_use", accounts=["a newcomer"], pools=[])


@pytest.mark.parametrize(
    ("finds", "code"),
    [
        pytest.param([None], None, id="unused"),
        pytest.param([Unavailable("It is dark."), None], None, id="not readable at first"),
        pytest.param([NotFound("There is no lamp yet."), None], None, id="not found at first"),
        pytest.param([None, NEEDED], "in_use", id="used in the end"),
        pytest.param([NEEDED], "in_use", id="used from the start"),
        pytest.param([Denied("You may not look.")], "permission_denied", id="not readable"),
        pytest.param([Refused("Who knows.", code="users_unknown")], "users_unknown", id="not known"),
    ],
)
def test_a_removal_is_undone_if_somebody_uses_the_resource_or_that_cannot_be_found_out(
    finds: list[CmkError | None], code: str | None
) -> None:
    lamps = Removed(*finds)

    if code is None:
        require(lamps)
    else:
        with pytest.raises(CmkError) as failed:
            require(lamps)
        assert failed.value.code == code
        assert failed.value.facts["restored"] is True
        assert failed.value.facts["current_state"] == {"lit": True}
    assert lamps.lit == {"red": code is not None}


@pytest.mark.parametrize(("age", "restored"), [(plan_module.MAX_READ_DELAY, True), (0, False)], ids=["old", "new"])
def test_what_somebody_else_has_restored_is_believed_once_no_read_is_out_of_date(age: float, restored: bool) -> None:
    lamps = Removed(NEEDED)
    lamps.lit["red"] = True

    with pytest.raises(Refused) as failed:
        require(lamps, time.monotonic() - age)

    assert failed.value.facts["restored"] is restored


def test_a_user_that_is_found_ends_the_wait() -> None:
    lamps = Removed(NEEDED)

    with pytest.raises(Refused):
        require(lamps)

    assert lamps.waited == 0


@pytest.mark.parametrize(("finds", "is_undone"), [(None, False), (NEEDED, True)], ids=["unused", "used"])
def test_an_interrupt_of_the_wait_asks_once_more(finds: CmkError | None, is_undone: bool) -> None:
    lamps = Removed(KeyboardInterrupt(), finds)

    with pytest.raises(CmkError) as failed:
        require(lamps)

    assert failed.value.code == "interrupted"
    assert lamps.lit == {"red": is_undone}


def test_the_outcome_of_a_removal_has_the_goal_that_restores_the_resource() -> None:
    lamps = Lamps(Denied, lit={"red": True}, failed=True)
    goal = Lamp(lit=False, if_refused=ON)

    outcome = converge(goal, lamps, Lamps)  # type: ignore[arg-type]

    assert outcome.removed is not None
    assert (outcome.removed.goal, outcome.removed.back) == (goal, ON)
    # A second run removes nothing.
    assert converge(goal, lamps, Lamps).removed is None  # type: ignore[arg-type]


# Reports of several principals


@pytest.mark.parametrize(
    ("reports", "combined"),
    [
        pytest.param([], {}, id="none"),
        pytest.param([{"confirmed": True}, {"confirmed": True}], {"confirmed": True}, id="all"),
        pytest.param([{"confirmed": True}, {"confirmed": False}], {"confirmed": False}, id="not all"),
        pytest.param([{"confirmed": False}, {"confirmed": False}], {"confirmed": False}, id="none is confirmed"),
        pytest.param([{"in_use_by": ["a"]}, {"in_use_by": []}], {"in_use_by": ["a"]}, id="lists"),
        pytest.param([{"kept_until": None}, {"kept_until": "2026"}], {"kept_until": "2026"}, id="the latest time"),
        pytest.param([{"kept_until": None}, {"kept_until": None}], {"kept_until": None}, id="no time"),
    ],
)
def test_reports_of_several_principals_are_one(reports: list[dict[str, Any]], combined: dict[str, Any]) -> None:
    outcomes = [Outcome(False, {}, {}, report=report) for report in reports]

    assert together(outcomes).report == combined
