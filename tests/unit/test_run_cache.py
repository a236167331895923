# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What one task of a run has read, the others go by for a moment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from clocks import Clock, clock_of

from ansible_collections.azbatch.cmk.plugins.module_utils._azure import run_cache as module
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_cache import Recent
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_store import RunFiles
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.task_cache import Seen


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return clock_of(module, monkeypatch, tick=0.001)


class Shelf:
    """What a service holds, and how often it was asked."""

    def __init__(self, **held: Any) -> None:
        self.held = held
        self.asked: list[str] = []

    def read(self, name: str) -> Any:
        self.asked.append(name)
        return self.held.get(name)

    def read_all(self) -> Mapping[str, Any]:
        self.asked.append("all")
        return dict(self.held)


def task(folder: Path | None, caller: str = "me", seen: Seen | None = None) -> Recent:
    return Recent(RunFiles(str(folder) if folder else None), caller, seen or Seen())


def test_it_is_read_once_in_a_while(tmp_path: Path, clock: Clock) -> None:
    shelf = Shelf(atlas={"pages": 1})

    def read() -> Any:
        return task(tmp_path).read(lambda: shelf.read("atlas"), "book", "atlas")

    assert [read(), read()] == [{"pages": 1}] * 2
    assert shelf.asked == ["atlas"]
    shelf.held["atlas"] = {"pages": 2}
    clock.now += 19
    assert read() == {"pages": 1}
    clock.now += 2
    assert read() == {"pages": 2}


def test_that_there_is_none_is_known_too(tmp_path: Path, clock: Clock) -> None:
    shelf = Shelf()

    assert [task(tmp_path).read(lambda: shelf.read("novel"), "book", "novel") for _task in range(2)] == [None, None]
    assert shelf.asked == ["novel"]


@pytest.mark.parametrize(("kinds", "pages"), [((), 2), (("book",), 2), (("map", "book"), 2), (("map",), 1)], ids=str)
def test_a_write_of_the_run_makes_all_of_its_kind_old(
    tmp_path: Path, clock: Clock, kinds: tuple[str, ...], pages: int
) -> None:
    shelf = Shelf(atlas=1)
    task(tmp_path).read(lambda: shelf.read("atlas"), "book", "atlas")
    shelf.held["atlas"] = 2
    task(tmp_path).written(*kinds)

    assert task(tmp_path).read(lambda: shelf.read("atlas"), "book", "atlas") == pages


@pytest.mark.parametrize("other", [{"caller": "you"}, {"folder": None}], ids=["another caller", "no run to share with"])
def test_others_read_for_themselves(tmp_path: Path, clock: Clock, other: dict[str, Any]) -> None:
    shelf = Shelf(atlas=1)
    task(tmp_path).read(lambda: shelf.read("atlas"), "book")

    task(**{"folder": tmp_path, **other}).read(lambda: shelf.read("atlas"), "book")

    assert shelf.asked == ["atlas", "atlas"]


def test_a_value_is_as_old_as_the_beginning_of_its_read(tmp_path: Path, clock: Clock) -> None:
    """A write of another task while the value is read may not be in the value."""
    shelf = Shelf(atlas="before")

    def overtaken() -> Any:
        value = shelf.read("atlas")
        shelf.held["atlas"] = "after"
        task(tmp_path).written("book")
        return value

    assert task(tmp_path).read(overtaken, "book", "atlas") == "before"
    assert task(tmp_path).read(lambda: shelf.read("atlas"), "book", "atlas") == "after"


def test_a_read_in_the_very_moment_of_a_write_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock_of(module, monkeypatch)
    shelf = Shelf(atlas="before")
    task(tmp_path).read(lambda: shelf.read("atlas"), "book", "atlas")
    shelf.held["atlas"] = "after"
    task(tmp_path).written("book")

    assert task(tmp_path).read(lambda: shelf.read("atlas"), "book", "atlas") == "after"


def test_a_read_that_takes_long_is_not_kept_longer_for_it(tmp_path: Path, clock: Clock) -> None:
    shelf = Shelf(atlas=1)

    def slow() -> Any:
        clock.now += 30
        return shelf.read("atlas")

    for _task in range(2):
        task(tmp_path).read(slow, "book", "atlas")
    assert shelf.asked == ["atlas", "atlas"]


def test_an_error_is_not_kept(tmp_path: Path, clock: Clock) -> None:
    def fail() -> Any:
        raise OSError("no answer")

    with pytest.raises(OSError, match="no answer"):
        task(tmp_path).read(fail, "book")
    assert task(tmp_path).read(lambda: 1, "book") == 1


def one_of(shelf: Shelf, folder: Path, name: str) -> Any:
    return task(folder).among_many(shelf.read_all, name, "books")


def test_a_few_are_read_one_by_one_and_many_at_once(tmp_path: Path, clock: Clock) -> None:
    names = [f"book{number}" for number in range(40)]
    shelf = Shelf(**dict.fromkeys(names, 1))

    assert [one_of(shelf, tmp_path, name) for name in names] == [*[None] * 25, *[1] * 15]
    assert shelf.asked == ["all"]


def test_what_a_task_has_by_heart_is_not_told_to_others(tmp_path: Path, clock: Clock) -> None:
    """Another may have changed it since this task has read it."""
    shelf, seen = Shelf(vault="without grant"), Seen()

    def by_heart() -> Any:
        return seen.read(lambda: shelf.read("vault"), "vault", "v")

    by_heart()
    shelf.held["vault"] = "with grant"
    task(tmp_path).written("vault")

    assert task(tmp_path, seen=seen).read(by_heart, "vault", "v") == "without grant"
    assert task(tmp_path).read(lambda: shelf.read("vault"), "vault", "v") == "with grant"


@pytest.fixture
def busy(tmp_path: Path, clock: Clock) -> Path:
    """The folder of a run that has asked for so many books that a list pays."""
    for _task in range(25):
        assert one_of(Shelf(), tmp_path, "novel") is None
    return tmp_path


def test_one_that_was_changed_is_read_by_itself(busy: Path) -> None:
    shelf = Shelf(atlas=1)
    assert one_of(shelf, busy, "atlas") == 1
    task(busy).forget("atlas", "books")

    assert one_of(shelf, busy, "atlas") is None
    # Nor is it listed anew for that.
    assert shelf.asked == ["all"]


def test_a_list_that_was_begun_before_a_change_does_not_undo_it(busy: Path) -> None:
    def listed() -> Mapping[str, Any]:
        task(busy).forget("atlas", "books")
        return {"atlas": 1}

    assert task(busy).among_many(listed, "atlas", "books") is None


def test_one_that_is_no_longer_listed_is_asked_for(busy: Path, clock: Clock) -> None:
    shelf = Shelf(atlas=1)
    assert one_of(shelf, busy, "atlas") == 1
    del shelf.held["atlas"]
    clock.now += 21

    assert one_of(shelf, busy, "atlas") is None
    assert shelf.asked == ["all", "all"]


def test_nobody_to_share_with(clock: Clock) -> None:
    shelf = Shelf(atlas=1)
    alone = task(None)

    assert [alone.among_many(shelf.read_all, "atlas", "books") for _time in range(30)] == [None] * 30
    assert shelf.asked == []


# A read that is not older than a change


def test_a_read_since_a_change_is_shared(tmp_path: Path, clock: Clock) -> None:
    shelf = Shelf(atlas=1)

    def read(since: float) -> Any:
        return task(tmp_path).read_since(lambda: shelf.read("atlas"), since, "book", "atlas")

    changed = clock.monotonic()
    assert read(changed) == 1
    shelf.held["atlas"] = 2
    assert read(changed) == 1
    assert read(clock.monotonic()) == 2
    assert shelf.asked == ["atlas", "atlas"]


def test_a_read_that_began_before_the_change_does_not_count(tmp_path: Path, clock: Clock) -> None:
    """However late it ends."""
    shelf, changed = Shelf(atlas=1), 0.0

    def slowly() -> Any:
        nonlocal changed
        found = shelf.read("atlas")
        shelf.held["atlas"] = 2
        changed = clock.monotonic()
        return found

    assert task(tmp_path).read_since(slowly, 0, "book") == 1
    assert task(tmp_path).read_since(lambda: shelf.read("atlas"), changed, "book") == 2


@pytest.mark.parametrize("other", [{"caller": "you"}, {"folder": None}], ids=["another caller", "no run to share with"])
def test_others_read_for_themselves_since_a_change(tmp_path: Path, clock: Clock, other: dict[str, Any]) -> None:
    shelf = Shelf(atlas=1)
    for who in ({"folder": tmp_path}, {"folder": tmp_path, **other}):
        task(**who).read_since(lambda: shelf.read("atlas"), 0, "book")
    assert shelf.asked == ["atlas", "atlas"]
