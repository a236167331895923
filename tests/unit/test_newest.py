# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The newest version of a key, which the tasks of a run share without ever working with one that is out of date."""

from __future__ import annotations

import fcntl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from wishes import key_goal

from ansible_collections.azbatch.cmk.plugins.module_utils import _key_goal, _stages
from ansible_collections.azbatch.cmk.plugins.module_utils._cloud.newest import Newest
from ansible_collections.azbatch.cmk.plugins.module_utils._cloud.recent import Recent
from ansible_collections.azbatch.cmk.plugins.module_utils._cloud.run_files import RunFiles, _hash
from ansible_collections.azbatch.cmk.plugins.module_utils._cloud.seen import Seen
from ansible_collections.azbatch.cmk.plugins.module_utils._errors import CmkError, NotConverged, Refused
from ansible_collections.azbatch.cmk.plugins.module_utils._plan import Outcome


class KeyVault:
    """A key with as many versions as were made, of which each goal with max_version_age wants one more than one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.newest = 1
        self.looks = 0
        self.failures: list[CmkError] = []
        self.in_use = 0
        self.at_least: str | None = None

    def task(self, account: str = "one", used: str | None = None, caller: str = "me", **wish: Any) -> Outcome:
        """One task of the run, with what it remembers by itself."""
        files, seen = RunFiles(str(self.folder)), Seen()
        session: Any = SimpleNamespace(files=files, seen=seen, recent=Recent(files, caller, seen))
        recent = session.recent

        def look(goal: _key_goal.Goal) -> Outcome:
            self.looks += 1
            self.at_least = goal.at_least
            if self.in_use:
                raise Refused("In use.", code="in_use", accounts=["account"] * self.in_use)
            return self._outcome(goal)

        def make(goal: _key_goal.Goal) -> Outcome:
            assert self.is_locked()
            outcome = self._outcome(goal)
            if outcome.changed:
                self.newest += 1
                recent.written("key")
            for failure in self.failures:
                raise failure
            return outcome

        wanted = _stages.Newest("key", account, used)
        return Newest(session).version(key_goal(**wish), wanted, look, make)

    def _outcome(self, goal: _key_goal.Goal) -> Outcome:
        due = goal.new_version or (goal.max_version_age is not None and self.newest == 1)
        before = {"version": str(self.newest)}
        after = {"version": str(self.newest + 1)} if due else before
        return Outcome(due, before, after)

    def is_locked(self) -> bool:
        with open(self.folder / f"{_hash(('turn', 'myvault'))}.lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False


@pytest.fixture
def vault(tmp_path: Path) -> KeyVault:
    return KeyVault(tmp_path)


@pytest.mark.parametrize("wish", [{"max_version_age": "P90D"}, {"new_version": True}], ids=["due", "forced"])
def test_one_of_many_makes_it(vault: KeyVault, wish: dict[str, Any]) -> None:
    with ThreadPoolExecutor(8) as tasks:
        outcomes = list(tasks.map(lambda number: vault.task(f"account{number}", **wish), range(8)))

    assert vault.newest == 2
    assert sorted(outcome.changed for outcome in outcomes) == [*[False] * 7, True]
    assert {outcome.after["version"] for outcome in outcomes} == {"2"}


def test_an_account_on_the_newest_needs_no_look_of_its_own(vault: KeyVault) -> None:
    for _task in range(3):
        vault.task(used="1")

    assert vault.looks == 1


@pytest.mark.parametrize("wish", [{}, {"new_version": True}], ids=["not forced", "forced"])
def test_an_account_on_another_version_gets_the_newest_as_it_is_now(vault: KeyVault, wish: dict[str, Any]) -> None:
    vault.task("one", **wish)
    vault.newest = 7

    assert vault.task("two", used="6", **wish).after["version"] == "7"
    assert vault.at_least == "6"
    assert vault.task("three", used="7", **wish).after["version"] == "7"


def test_another_caller_does_not_work_with_what_was_read_before_a_forced_version(vault: KeyVault) -> None:
    vault.task("two", caller="other")
    vault.task("one", new_version=True)

    assert vault.task("two", caller="other", new_version=True).after["version"] == "2"


def test_a_failure_after_the_version_was_made_makes_no_second_one(vault: KeyVault) -> None:
    vault.failures = [NotConverged("No.", applied=["create"])]
    with pytest.raises(NotConverged):
        vault.task(new_version=True)
    vault.failures = []
    vault.task(new_version=True)

    assert vault.newest == 2


def test_a_failure_before_it_does(vault: KeyVault) -> None:
    vault.failures = [NotConverged("No.", applied=["something"])]
    with pytest.raises(NotConverged):
        vault.task(new_version=True)
    vault.failures = []
    vault.task(new_version=True)

    assert vault.newest == 3


def test_accounts_that_are_in_the_way_are_not_listed_by_every_task(vault: KeyVault) -> None:
    vault.in_use = 3
    for looks in (1, 1, 1, 2):
        with pytest.raises(Refused):
            vault.task()
        assert vault.looks == looks
