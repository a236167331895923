# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a task has seen it does not ask for again, for a moment and until it changes it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from clocks import Clock, clock_of

from ansible_collections.azbatch.cmk.plugins.module_utils._azure import task_cache as module
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.session import Polled, Session
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.task_cache import Seen
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError, NotConverged


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return clock_of(module, monkeypatch)


class Shelf:
    def __init__(self, value: Any) -> None:
        self.value = value
        self.asked = 0

    def read(self) -> Any:
        self.asked += 1
        return self.value


def test_it_is_asked_for_once_in_a_moment(clock: Clock) -> None:
    seen, shelf = Seen(), Shelf({"pages": 1})

    assert [seen.read(shelf.read, "book", "atlas") for _time in range(3)] == [{"pages": 1}] * 3
    assert shelf.asked == 1
    clock.now += 5
    seen.read(shelf.read, "book", "atlas")
    assert shelf.asked == 2


def test_what_is_not_there_is_asked_for_each_time(clock: Clock) -> None:
    seen, shelf = Seen(), Shelf(None)

    assert [seen.read(shelf.read, "book", "novel") for _time in range(3)] == [None] * 3
    assert shelf.asked == 3


def test_an_empty_answer_is_one(clock: Clock) -> None:
    seen, shelf = Seen(), Shelf([])

    assert [seen.read(shelf.read, "books") for _time in range(3)] == [[]] * 3
    assert shelf.asked == 1


@pytest.mark.parametrize(
    ("changed", "asked"),
    [(("book",), 2), (("map", "book"), 2), ((), 2), (("map",), 1)],
    ids=["its kind", "its kind among others", "all", "another kind"],
)
def test_a_change_makes_its_kind_unseen(clock: Clock, changed: tuple[str, ...], asked: int) -> None:
    seen, shelf = Seen(), Shelf(1)
    seen.read(shelf.read, "book", "atlas")
    seen.forget(*changed)
    seen.read(shelf.read, "book", "atlas")

    assert shelf.asked == asked


def test_what_is_known_by_another_name(clock: Clock) -> None:
    seen = Seen()
    seen.keep(1, "book", "newest")

    assert seen.read(Shelf(2).read, "book", "newest") == 1


def test_a_failure_is_not_kept(clock: Clock) -> None:
    seen = Seen()

    def fail() -> Any:
        raise OSError("no answer")

    with pytest.raises(OSError, match="no answer"):
        seen.read(fail, "book")
    assert seen.read(Shelf(1).read, "book") == 1


def test_two_who_ask_at_once_ask_once(clock: Clock) -> None:
    seen, asked = Seen(), []

    def read() -> str:
        asked.append(1)
        time.sleep(0.05)
        return "atlas"

    with ThreadPoolExecutor() as threads:
        answers = list(threads.map(lambda _: seen.read(read, "book", "atlas"), range(4)))

    assert (answers, asked) == (["atlas"] * 4, [1])


def test_a_change_is_looked_for_in_azure_and_not_in_the_cache(clock: Clock) -> None:
    """Only the first look may use what was read right after the change."""
    shelf = Shelf("stale")
    session = Session({"wait_timeout": 60})
    service = Polled()
    service._session = session

    def look() -> CmkError | None:
        found = session.seen.read(shelf.read, "book", "atlas")
        shelf.value = "new"
        return NotConverged("It does not show.") if found == "stale" else None

    session.until_none = lambda ask, _deadline, _waiting_for: next((one for one in (ask(), ask()) if one is None), None)

    session.seen.read(shelf.read, "book", "atlas")
    assert service.until_shown(look) is None
    assert shelf.asked == 2
