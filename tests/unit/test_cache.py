# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads are cached for a few seconds in a task and in a run."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from clocks import Clock, clock_of

from ansible_collections.azbatch.cmk.plugins.module_utils._azure import cache as module
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.cache import JUST_NOW, RECENTLY, Cache
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_store import RunFiles
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.session import Polled, Session
from ansible_collections.azbatch.cmk.plugins.module_utils._core.concurrent import in_background
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError, NotConverged


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return clock_of(module, monkeypatch, tick=0.001)


class Shelf:
    """A service with its resources, which counts the reads."""

    def __init__(self, **held: Any) -> None:
        self.held = held
        self.asked: list[str] = []

    def read(self, name: str = "atlas") -> Any:
        self.asked.append(name)
        return self.held.get(name)

    def read_all(self) -> Mapping[str, Any]:
        self.asked.append("all")
        return dict(self.held)


def task(folder: Path | None = None, caller: str = "me") -> Cache:
    return Cache(RunFiles(str(folder) if folder else None), lambda: caller)


# The cache of a task


def test_a_resource_is_read_once_within_its_ttl(clock: Clock) -> None:
    cache, shelf = task(), Shelf(atlas={"pages": 1})

    assert [cache.get(shelf.read, "book", "atlas") for _time in range(3)] == [{"pages": 1}] * 3
    assert shelf.asked == ["atlas"]
    clock.now += 5
    cache.get(shelf.read, "book", "atlas")
    assert shelf.asked == ["atlas"] * 2


def test_a_missing_resource_is_read_each_time(clock: Clock) -> None:
    cache, shelf = task(), Shelf()

    assert [cache.get(shelf.read, "book", "atlas") for _time in range(3)] == [None] * 3
    assert shelf.asked == ["atlas"] * 3


def test_an_empty_value_is_cached(clock: Clock) -> None:
    cache, shelf = task(), Shelf(atlas=[])

    assert [cache.get(shelf.read, "books") for _time in range(3)] == [[]] * 3
    assert shelf.asked == ["atlas"]


@pytest.mark.parametrize("how", ["forget", "changed"])
@pytest.mark.parametrize(
    ("changed", "asked"),
    [(("book",), 2), (("map", "book"), 2), ((), 2), (("map",), 1)],
    ids=["its kind", "its kind among others", "all", "another kind"],
)
@pytest.mark.parametrize("not_before", [JUST_NOW, RECENTLY])
def test_a_forgotten_value_is_read_again(
    clock: Clock, how: str, changed: tuple[str, ...], asked: int, not_before: Any
) -> None:
    cache, shelf = task(), Shelf(atlas=1)
    for _time in range(2):
        cache.get(shelf.read, "book", "atlas", not_before=not_before)
    getattr(cache, how)(*changed)
    for _time in range(2):
        cache.get(shelf.read, "book", "atlas", not_before=not_before)

    assert len(shelf.asked) == asked


def test_a_value_can_be_cached_under_a_second_name(clock: Clock) -> None:
    cache = task()
    cache.keep(1, clock.monotonic(), "book", "newest")

    assert cache.get(lambda: 2, "book", "newest") == 1


def test_a_failure_is_not_kept(clock: Clock) -> None:
    cache = task()

    def fail() -> Any:
        raise OSError("no response")

    with pytest.raises(OSError, match="no response"):
        cache.get(fail, "book")
    assert cache.get(lambda: 1, "book") == 1


def test_two_concurrent_reads_are_one_request(clock: Clock) -> None:
    cache, asked = task(), []

    def read() -> str:
        asked.append(1)
        time.sleep(0.05)
        return "atlas"

    with ThreadPoolExecutor() as threads:
        answers = list(threads.map(lambda _: cache.get(read, "book", "atlas"), range(4)))

    assert (answers, asked) == (["atlas"] * 4, [1])


def test_a_change_is_looked_for_in_azure_and_not_in_the_cache(clock: Clock) -> None:
    """Only the first call may use a cached read, which is from after the change."""
    shelf = Shelf(atlas="stale")
    session = Session({"wait_timeout": 60})
    session.__dict__.update(fingerprint="me")
    service = Polled()
    service._session = session

    def look() -> CmkError | None:
        found = session.cache.get(shelf.read, "book", "atlas")
        shelf.held["atlas"] = "new"
        return NotConverged("It does not show.") if found == "stale" else None

    session.poll_until = lambda ask, _deadline, _waiting_for: next((one for one in (ask(), ask()) if one is None), None)

    session.cache.get(shelf.read, "book", "atlas")
    assert service.until_shown(look) is None
    assert len(shelf.asked) == 2


def test_a_value_is_as_old_as_the_beginning_of_its_read_by_this_task(clock: Clock) -> None:
    cache = task()

    def slow() -> str:
        clock.now += 6
        return "slow"

    cache.get(slow, "book", "atlas")
    assert cache.get(lambda: "again", "book", "atlas") == "again"


# The cache of a run


def test_later_tasks_use_cached_reads(tmp_path: Path, clock: Clock) -> None:
    task(tmp_path).get(lambda: 1, "book", "atlas")

    assert task(tmp_path).get(lambda: 2, "book", "atlas", not_before=RECENTLY) == 1
    # A task that waits for a change does not use it.
    assert task(tmp_path).get(lambda: 2, "book", "atlas") == 2


def test_a_change_is_planned_from_the_reads_of_the_task(tmp_path: Path, clock: Clock) -> None:
    """The task may have waited for a lock since the other task has read."""
    waiting = task(tmp_path)
    task(tmp_path).get(lambda: "of the other", "book", "atlas")

    assert waiting.get(lambda: "own", "book", "atlas") == "own"
    task(tmp_path).changed("book")
    assert waiting.get(lambda: "after the write", "book", "atlas") == "after the write"


def test_reads_that_begin_before_a_look_for_changes_are_not_bound_by_it(tmp_path: Path, clock: Clock) -> None:
    task(tmp_path).get(lambda: "of an earlier task", "book", "atlas", not_before=RECENTLY)
    cache, looks = task(tmp_path), threading.Event()

    def read() -> Any:
        assert looks.wait(10)
        return cache.get(lambda: "own", "book", "atlas", not_before=RECENTLY)

    early = in_background(read)
    with cache.shared_since(clock.monotonic()):
        looks.set()
        assert early.result(10) == "of an earlier task"
        assert in_background(read).result(10) == "own"


def test_what_a_task_of_the_run_has_read_some_seconds_ago(tmp_path: Path, clock: Clock) -> None:
    assert task(tmp_path).recent("book", "atlas") is None
    task(tmp_path).get(lambda: "read", "book", "atlas")

    assert task(tmp_path).recent("book", "atlas") == "read"
    clock.now += 21
    assert task(tmp_path).recent("book", "atlas") is None


@pytest.mark.parametrize("not_before", [JUST_NOW, RECENTLY, "since"])
def test_a_slow_read_that_began_too_early_is_not_waited_for(tmp_path: Path, not_before: Any) -> None:
    """Otherwise one slow request would delay a rollback."""
    cache, begun, ends = task(tmp_path), threading.Event(), threading.Event()

    def slow() -> str:
        begun.set()
        ends.wait(30)
        return "slow"

    thread = threading.Thread(target=lambda: cache.get(slow, "book", "atlas", not_before=time.monotonic()))
    thread.start()
    assert begun.wait(10)
    cache.forget()
    fresh = time.monotonic() if not_before == "since" else not_before
    assert cache.get(lambda: "fast", "book", "atlas", not_before=fresh) == "fast"
    ends.set()
    thread.join(10)
    # The slow read has the older data.
    assert cache.get(lambda: "again", "book", "atlas") == "fast"


@pytest.mark.parametrize(("kind", "found"), [("book", "shown"), ("map", "again")])
def test_after_its_write_a_task_uses_its_reads_until_it_forgets_them(clock: Clock, kind: str, found: str) -> None:
    """A wait for the rate limit, before the change is confirmed, may take a minute."""
    cache = task()
    cache.changed(kind)
    cache.keep("shown", clock.monotonic(), "book", "atlas")
    clock.now += 60

    assert cache.get(lambda: "again", "book", "atlas") == found
    cache.forget("book")
    assert cache.get(lambda: "again", "book", "atlas") == "again"


def test_a_waiting_task_ignores_reads_of_other_tasks(tmp_path: Path, clock: Clock) -> None:
    waiting = task(tmp_path)
    waiting.forget()
    assert waiting.get(lambda: "stale", "book", "atlas", not_before=RECENTLY) == "stale"
    waiting.forget()
    assert waiting.get(lambda: "shown", "book", "atlas", not_before=RECENTLY) == "shown"


def test_a_resource_is_read_once_by_the_tasks_of_a_run(tmp_path: Path, clock: Clock) -> None:
    shelf = Shelf(atlas={"pages": 1})

    def read() -> Any:
        return task(tmp_path).get(lambda: shelf.read("atlas"), "book", "atlas", not_before=RECENTLY)

    assert [read(), read()] == [{"pages": 1}] * 2
    assert shelf.asked == ["atlas"]
    shelf.held["atlas"] = {"pages": 2}
    clock.now += 19
    assert read() == {"pages": 1}
    clock.now += 2
    assert read() == {"pages": 2}


def test_a_missing_resource_is_read_again(tmp_path: Path, clock: Clock) -> None:
    shelf = Shelf()

    for _task in range(2):
        assert task(tmp_path).get(lambda: shelf.read("novel"), "book", "novel", not_before=RECENTLY) is None
    assert shelf.asked == ["novel", "novel"]


@pytest.mark.parametrize(("kinds", "pages"), [((), 2), (("book",), 2), (("map", "book"), 2), (("map",), 1)], ids=str)
def test_a_write_of_the_run_invalidates_reads_of_the_same_kind(
    tmp_path: Path, clock: Clock, kinds: tuple[str, ...], pages: int
) -> None:
    shelf = Shelf(atlas=1)
    task(tmp_path).get(lambda: shelf.read("atlas"), "book", "atlas", not_before=RECENTLY)
    shelf.held["atlas"] = 2
    task(tmp_path).changed(*kinds)

    assert task(tmp_path).get(lambda: shelf.read("atlas"), "book", "atlas", not_before=RECENTLY) == pages


def test_a_write_invalidates_the_reads_of_all_callers(tmp_path: Path, clock: Clock) -> None:
    shelf = Shelf(atlas=1)

    def read(caller: str) -> Any:
        return task(tmp_path, caller).get(lambda: shelf.read("atlas"), "book", "atlas", not_before=RECENTLY)

    assert (read("me"), read("you")) == (1, 1)
    before = clock.now
    shelf.held["atlas"] = 2
    task(tmp_path, "you").changed("book")

    assert (read("me"), read("you")) == (2, 2)
    assert task(tmp_path, "me").is_written_since(before, "book")


@pytest.mark.parametrize("other", [{"caller": "you"}, {"folder": None}], ids=["another caller", "no run to share with"])
def test_other_callers_do_not_share_reads(tmp_path: Path, clock: Clock, other: dict[str, Any]) -> None:
    shelf = Shelf(atlas=1)
    task(tmp_path).get(lambda: shelf.read("atlas"), "book", not_before=RECENTLY)

    task(**{"folder": tmp_path, **other}).get(lambda: shelf.read("atlas"), "book", not_before=RECENTLY)

    assert shelf.asked == ["atlas", "atlas"]


def test_a_value_is_as_old_as_the_beginning_of_its_read(tmp_path: Path, clock: Clock) -> None:
    """The value may not contain a write that another task made during the read."""
    shelf = Shelf(atlas="before")

    def overtaken() -> Any:
        value = shelf.read("atlas")
        shelf.held["atlas"] = "after"
        task(tmp_path).changed("book")
        return value

    assert task(tmp_path).get(overtaken, "book", "atlas", not_before=RECENTLY) == "before"
    assert task(tmp_path).get(lambda: shelf.read("atlas"), "book", "atlas", not_before=RECENTLY) == "after"


def test_a_read_in_the_very_moment_of_a_write_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock_of(module, monkeypatch)
    shelf = Shelf(atlas="before")
    task(tmp_path).get(lambda: shelf.read("atlas"), "book", "atlas", not_before=RECENTLY)
    shelf.held["atlas"] = "after"
    task(tmp_path).changed("book")

    assert task(tmp_path).get(lambda: shelf.read("atlas"), "book", "atlas", not_before=RECENTLY) == "after"


def test_a_read_that_takes_long_is_not_kept_longer_for_it(tmp_path: Path, clock: Clock) -> None:
    shelf = Shelf(atlas=1)

    def slow() -> Any:
        clock.now += 30
        return shelf.read("atlas")

    for _task in range(2):
        task(tmp_path).get(slow, "book", "atlas", not_before=RECENTLY)
    assert shelf.asked == ["atlas", "atlas"]


def test_an_error_is_not_kept(tmp_path: Path, clock: Clock) -> None:
    def fail() -> Any:
        raise OSError("no response")

    with pytest.raises(OSError, match="no response"):
        task(tmp_path).get(fail, "book", not_before=RECENTLY)
    assert task(tmp_path).get(lambda: 1, "book", not_before=RECENTLY) == 1


def one_of(shelf: Shelf, folder: Path, name: str) -> Any:
    return task(folder).one_of_many(shelf.read_all, name, "books")


def test_a_few_are_read_one_by_one_and_many_at_once(tmp_path: Path, clock: Clock) -> None:
    names = [f"book{number}" for number in range(40)]
    shelf = Shelf(**dict.fromkeys(names, 1))

    assert [one_of(shelf, tmp_path, name) for name in names] == [*[None] * 4, *[1] * 36]
    assert shelf.asked == ["all"]


def test_a_read_that_is_out_of_date_is_not_cached_for_other_tasks(tmp_path: Path, clock: Clock) -> None:
    """Another task may have changed the resource since."""
    shelf, cache = Shelf(vault="without grant"), task(tmp_path)

    assert cache.get(lambda: shelf.read("vault"), "vault", "v") == "without grant"
    shelf.held["vault"] = "with grant"
    task(tmp_path).changed("vault")

    assert cache.get(lambda: shelf.read("vault"), "vault", "v", not_before=RECENTLY) == "with grant"
    assert task(tmp_path).get(lambda: shelf.read("vault"), "vault", "v", not_before=RECENTLY) == "with grant"


@pytest.fixture
def busy(tmp_path: Path, clock: Clock) -> Path:
    """The folder of a run that has read so many books that they are listed from now on."""
    for number in range(4):
        assert one_of(Shelf(), tmp_path, f"novel{number}") is None
    return tmp_path


@pytest.mark.parametrize("caller", ["me", "you"])
def test_a_changed_member_is_read_separately(busy: Path, caller: str) -> None:
    """A change by each caller counts."""
    shelf = Shelf(atlas=1)
    assert one_of(shelf, busy, "atlas") == 1
    task(busy, caller).changed_one("atlas", "books")

    assert one_of(shelf, busy, "atlas") is None
    # The list is not read again either.
    assert shelf.asked == ["all"]


def test_a_list_that_was_begun_before_a_change_does_not_undo_it(busy: Path) -> None:
    def listed() -> Mapping[str, Any]:
        task(busy).changed_one("atlas", "books")
        return {"atlas": 1}

    assert task(busy).one_of_many(listed, "atlas", "books") is None


def test_a_changed_member_is_taken_from_a_later_list(busy: Path, clock: Clock) -> None:
    shelf = Shelf(atlas=1)
    task(busy).changed_one("atlas", "books")
    clock.now += 21

    assert one_of(shelf, busy, "atlas") == 1


def test_value_missing_from_the_list_is_read_again(busy: Path, clock: Clock) -> None:
    shelf = Shelf(atlas=1)
    assert one_of(shelf, busy, "atlas") == 1
    del shelf.held["atlas"]
    clock.now += 21

    assert one_of(shelf, busy, "atlas") is None
    assert shelf.asked == ["all", "all"]


# A read that is not older than a change


def test_a_read_since_a_change_is_shared(tmp_path: Path, clock: Clock) -> None:
    shelf = Shelf(atlas=1)

    def read(since: float) -> Any:
        return task(tmp_path).get(lambda: shelf.read("atlas"), "book", "atlas", not_before=since)

    changed = clock.monotonic()
    assert read(changed) == 1
    shelf.held["atlas"] = 2
    assert read(changed) == 1
    assert read(clock.monotonic()) == 2
    assert shelf.asked == ["atlas", "atlas"]


def test_a_read_that_began_before_the_change_does_not_count(tmp_path: Path, clock: Clock) -> None:
    """It does not count even if it ends after the change."""
    shelf, changed = Shelf(atlas=1), 0.0

    def slowly() -> Any:
        nonlocal changed
        found = shelf.read("atlas")
        shelf.held["atlas"] = 2
        changed = clock.monotonic()
        return found

    assert task(tmp_path).get(slowly, "book", not_before=0) == 1
    assert task(tmp_path).get(lambda: shelf.read("atlas"), "book", not_before=changed) == 2


@pytest.mark.parametrize("other", [{"caller": "you"}, {"folder": None}], ids=["another caller", "no run to share with"])
def test_others_read_for_themselves_since_a_change(tmp_path: Path, clock: Clock, other: dict[str, Any]) -> None:
    shelf = Shelf(atlas=1)
    for who in ({"folder": tmp_path}, {"folder": tmp_path, **other}):
        task(**who).get(lambda: shelf.read("atlas"), "book", not_before=0)
    assert shelf.asked == ["atlas", "atlas"]


def test_a_wait_for_the_rate_limit_is_not_a_part_of_a_read(tmp_path: Path, clock: Clock) -> None:
    """Tasks that change something during the wait share the read, and those that change something later do not."""
    shelf, changes = Shelf(atlas=1), list[float]()

    def throttled() -> Any:
        clock.now += 10
        changes.append(clock.monotonic())
        module.request_sent()
        changes.append(clock.monotonic())
        return shelf.read()

    cache = task(tmp_path)
    assert cache.get(throttled, "book", not_before=clock.monotonic()) == 1
    shelf.held["atlas"] = 2
    assert task(tmp_path).get(shelf.read, "book", not_before=changes[0]) == 1
    assert task(tmp_path).get(shelf.read, "book", not_before=changes[1]) == 2


@pytest.mark.parametrize("inner", ["read", "since"])
def test_a_read_is_as_old_as_its_oldest_data(tmp_path: Path, clock: Clock, inner: str) -> None:
    shelf, cache = Shelf(atlas=1), task(tmp_path)

    def of_inner() -> Any:
        return cache.get(shelf.read, "inner") if inner == "read" else cache.get(shelf.read, "inner", not_before=0)

    def outer() -> Any:
        found = of_inner()
        module.request_sent()
        return found

    of_inner()
    changed = clock.monotonic()
    shelf.held["atlas"] = 2
    assert cache.get(outer, "outer", not_before=changed) == 1
    cache.forget("inner")
    assert task(tmp_path).get(shelf.read, "outer", not_before=changed) == 2
