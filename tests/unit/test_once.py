# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What one task of a run does for all of them."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ansible_collections.azbatch.cmk.plugins.module_utils._cloud.cloud import Cloud
from ansible_collections.azbatch.cmk.plugins.module_utils._errors import Denied, Refused
from ansible_collections.azbatch.cmk.plugins.module_utils._plan import Outcome


class Maker:
    """Makes a version, once it gets to it."""

    def __init__(self, folder: Path | None, takes: float = 0) -> None:
        self.folder = folder
        self.takes = takes
        self.made = 0
        # How many accounts are in the way.
        self.users = 0
        # Until when accounts that were moved are in the way.
        self.until: str | None = None

    def task(self, name: str = "key", *, rehearse: bool = False) -> Outcome:
        cloud = Cloud({"wait_timeout": 1}, str(self.folder) if self.folder else None, rehearse=rehearse)
        return cloud.once(self.make, name)

    def make(self) -> Outcome:
        time.sleep(self.takes)
        self.made += 1
        if self.users:
            raise Refused("In use.", code="in_use", accounts=["account"] * self.users)
        if self.until:
            raise Refused("Wait.", code="in_grace", kept_until=self.until)
        return Outcome(True, {"version": 1}, {"version": 2})


def test_one_of_many_makes_it(tmp_path: Path) -> None:
    maker = Maker(tmp_path, takes=0.05)
    with ThreadPoolExecutor(8) as tasks:
        outcomes = list(tasks.map(lambda _number: maker.task(), range(8)))

    assert maker.made == 1
    assert sorted(outcome.changed for outcome in outcomes) == [*[False] * 7, True]
    assert all(outcome.after == {"version": 2} for outcome in outcomes)


def test_different_things_are_made_apart(tmp_path: Path) -> None:
    maker = Maker(tmp_path)

    assert [maker.task(name).changed for name in ("one", "other", "one")] == [True, True, False]


def test_in_a_process_of_its_own_everyone_makes_it() -> None:
    maker = Maker(None)

    assert [maker.task().changed for _task in range(2)] == [True, True]


def test_what_was_rehearsed_is_not_made(tmp_path: Path) -> None:
    maker = Maker(tmp_path)

    assert [maker.task(rehearse=rehearse).changed for rehearse in (True, True, False, False)] == [
        *(True, False),
        *(True, False),
    ]


def test_a_failure_is_everyones_own(tmp_path: Path) -> None:
    maker = Maker(tmp_path)

    def fail() -> Outcome:
        raise Denied("You may not.")

    for _task in range(2):
        with pytest.raises(Denied):
            Cloud({"wait_timeout": 1}, str(tmp_path)).once(fail, "key")
    assert maker.task().changed


def test_what_was_refused_for_a_time_is_not_tried_again_in_the_run(tmp_path: Path) -> None:
    maker = Maker(tmp_path)
    maker.until = "2026-01-02T00:00:00Z"
    for _task in range(3):
        with pytest.raises(Refused) as refused:
            maker.task()
        assert (refused.value.code, refused.value.facts["kept_until"]) == ("in_grace", maker.until)
    assert maker.made == 1


def test_what_is_in_use_is_tried_again_when_its_users_may_have_gone(tmp_path: Path) -> None:
    maker = Maker(tmp_path)
    maker.users = 3
    for made in (1, 1, 1, 2):
        with pytest.raises(Refused) as refused:
            maker.task()
        assert refused.value.code == "in_use"
        assert maker.made == made
    maker.users = 0
    with pytest.raises(Refused):
        maker.task()
    with pytest.raises(Refused):
        maker.task()
    assert maker.task().changed
    assert maker.made == 3
