# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The newest version of a key. The tasks of a run share reads of it, but never use a version that is out of date.

The tests use the real decisions, a key in memory, and the files of a run.
"""

from __future__ import annotations

import fcntl
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
from azure_table import Table, executor_of, place, task_of
from documents import DAY, KEY, NOW, key, listed
from goals import key_goal
from key_table import IDENTIFIER, VERSIONS

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.facts import Facts
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_store import _hash
from ansible_collections.azbatch.cmk.plugins.module_utils._core.outcome import Outcome
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key import requests
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key.present import KeyPresent

DUE: dict[str, Any] = {"max_version_age": "P90D"}
FORCED: dict[str, Any] = {"new_version": True}
NEWEST = refs.key(IDENTIFIER)


def version(number: int) -> str:
    return f"{number:032x}"


def number(outcome: Outcome) -> int:
    return int(outcome.after["version"], 16)


class KeyVault(Table):
    """A key whose first version is older than 90 days, and its new versions."""

    def __init__(self, folder: Path) -> None:
        super().__init__(now=NOW)
        self.folder = folder
        # How many versions a replica of the vault does not show yet, as the newest one and in the list.
        self._hidden = 0, 0
        self._lock = Lock()
        self.versions = [key(version(1), created=NOW - 100 * DAY)]
        self._show()

    @property
    def count(self) -> int:
        return len(self.versions)

    def hide(self, newest: int, in_list: int | None = None) -> None:
        self._hidden = newest, newest if in_list is None else in_list
        self._show()

    def add(self, *, created: int | None = None, tags: Any = None) -> None:
        """Create a version, like another task or user."""
        made = NOW - DAY + self.count if created is None else created
        self.versions.append(key(version(self.count + 1), created=made, tags=tags))
        self._show()

    def _show(self) -> None:
        newest, in_list = (max(1, self.count - hidden) for hidden in self._hidden)
        self[NEWEST] = self.versions[newest - 1]
        self[VERSIONS] = [listed(one) for one in self.versions[:in_list]]
        self.update({f"{KEY}/{version(number)}": one for number, one in enumerate(self.versions, 1)})

    def read(self, where: str, otherwise: Any) -> Any:
        with self._lock:
            return super().read(where, otherwise)

    def write(self, method: str, ref: str, body: Any) -> Any:
        with self._lock:
            assert (method, ref) == ("POST", f"{KEY}/create")
            assert self.is_locked()
            self.add(created=NOW - 60 + self.count, tags=body.get("tags"))
            return self.versions[-1]

    def task(self, used: int | None = None, began: float | None = None, **wanted: Any) -> int:
        """The version that a host's task for an account returns. The playbook's task `began` now by default."""
        return number(self.look(used, began, **wanted))

    def look(self, used: int | None = None, began: float | None = None, **wanted: Any) -> Outcome:
        """What the module keyvault_cmk_key does for an account that uses this version of the key."""
        task = task_of(self, self.folder, wait_timeout=0)
        task.session.task_began = time.monotonic() if began is None else began
        facts, goal = Facts(task.session), key_goal(**wanted)
        purpose = goal.purpose or facts.run if goal.new_version else None
        goal = replace(goal, at_least=version(used) if used else None, is_shared=True, purpose=purpose)
        return executor_of(task).ensure(KeyPresent(goal, facts))

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


def test_a_version_that_another_task_makes_meanwhile_is_returned(
    vault: KeyVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task has read the key before, and finds then that the run has made the forced version."""
    read, journal = vault.read, task_of(vault, vault.folder).session.journal

    def read_before(where: str, otherwise: Any) -> Any:
        found = read(where, otherwise)
        if where == place(NEWEST) and vault.count == 1:
            vault.add()
            journal.note(requests.made_version(IDENTIFIER))
        return found

    monkeypatch.setattr(vault, "read", read_before)

    assert (vault.task(1, **FORCED), vault.count) == (2, 2)


@pytest.mark.parametrize("wanted", [DUE, FORCED], ids=["due", "forced"])
def test_one_task_makes_the_change_for_all(vault: KeyVault, wanted: dict[str, Any]) -> None:
    with ThreadPoolExecutor(8) as tasks:
        outcomes = list(tasks.map(lambda number: vault.look(1, **wanted), range(8)))

    assert vault.count == 2
    assert sorted(outcome.changed for outcome in outcomes) == [*[False] * 7, True]
    assert {number(outcome) for outcome in outcomes} == {2}


def test_an_account_on_a_newer_version_than_the_shared_one_stays_there(vault: KeyVault) -> None:
    began = time.monotonic()
    vault.task(used=1, began=began)
    vault.add()

    assert vault.task(2, began=began) == 2


@pytest.mark.parametrize("in_list", [0, 1], ids=["the list shows it", "the list does not show it either"])
def test_an_account_on_a_version_that_the_vault_does_not_show_yet_stays_there(vault: KeyVault, in_list: int) -> None:
    vault.add()
    vault.hide(1, in_list)

    assert vault.task(used=2) == 2
    assert vault.task(1) == 1
