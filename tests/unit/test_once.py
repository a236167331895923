# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changes that one task of a run makes for all tasks."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.journal import Journal
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_store import RunFiles
from ansible_collections.azbatch.cmk.plugins.module_utils._cloud import Cloud
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError, Denied, Refused, Unavailable
from ansible_collections.azbatch.cmk.plugins.module_utils._core.plan import Outcome, SentWrites

CONNECTION = {
    **dict.fromkeys(("subscription_id", "tenant", "client_id", "secret", "x509_certificate_path", "profile")),
    "auth_source": "env",
    "cloud_environment": "AzureCloud",
    "wait_timeout": 1,
}


class Maker:
    """Disables a version, unless accounts use the version or the margin has not ended."""

    def __init__(self, folder: Path | None, takes: float = 0) -> None:
        self.folder = folder
        self.takes = takes
        self.looks = 0
        self.users: list[str] = []
        self.until: str | None = None
        self.failures: list[CmkError] = []

    @property
    def cloud(self) -> Cloud:
        """Each task of a run has a separate Cloud."""
        return Cloud(CONNECTION, str(self.folder) if self.folder else None)

    def task(self, name: str = "key") -> Outcome:
        return self.cloud.run_once(self.look, name)

    def first_task(self, name: str = "key") -> Outcome:
        return self.cloud.once(self.look, name)

    def look(self) -> Outcome:
        time.sleep(self.takes)
        self.looks += 1
        if self.failures:
            raise self.failures.pop()
        is_kept = bool(self.users or self.until)
        before, after = {"enabled": True}, {"enabled": is_kept}
        report = {"in_use_by": list(self.users), "kept_until": self.until}
        return Outcome(not is_kept, before, after, ("Heed this.",), report)


def test_one_task_makes_the_change_for_all(tmp_path: Path) -> None:
    maker = Maker(tmp_path, takes=0.05)
    with ThreadPoolExecutor(8) as tasks:
        outcomes = list(tasks.map(lambda _number: maker.task(), range(8)))

    assert maker.looks == 1
    assert sorted(outcome.changed for outcome in outcomes) == [*[False] * 7, True]
    assert all(outcome.after == {"enabled": False} for outcome in outcomes)


def test_a_change_of_another_task_is_reported_as_the_current_state(tmp_path: Path) -> None:
    maker = Maker(tmp_path)
    first, second = maker.task(), maker.task()

    assert (first.changed, first.before) == (True, {"enabled": True})
    # One warning in a run is enough.
    assert second == Outcome(False, {"enabled": False}, {"enabled": False}, (), first.report)


def test_the_outcome_of_one_caller_is_not_returned_to_another(tmp_path: Path) -> None:
    maker = Maker(tmp_path)
    maker.users = ["one", "two"]
    maker.task()
    other = Cloud({**CONNECTION, "client_id": "other"}, str(tmp_path))

    with pytest.raises(Denied):
        other.run_once(refuse, "key")


def refuse() -> Outcome:
    raise Denied("You may not.")


def test_different_names_are_separate_changes(tmp_path: Path) -> None:
    maker = Maker(tmp_path)

    assert [maker.task(name).changed for name in ("one", "other", "one")] == [True, True, False]


def test_a_task_in_a_separate_process_makes_the_change() -> None:
    maker = Maker(None)

    assert [maker.task().changed for _task in range(2)] == [True, True]


def test_a_change_is_checked_again_after_a_task_in_another_process(tmp_path: Path) -> None:
    """It may have enabled the version."""
    maker = Maker(tmp_path)
    assert [maker.task().changed for _task in range(2)] == [True, False]
    Journal(RunFiles(str(tmp_path)), SentWrites()).mark("vault")
    assert not maker.task().changed
    Journal(RunFiles(str(tmp_path)), SentWrites()).mark()

    assert maker.task().changed


def test_a_failure_is_not_shared(tmp_path: Path) -> None:
    maker = Maker(tmp_path)
    maker.failures = [Denied("You may not."), Refused("In use.", code="in_use", accounts=["a user"])]

    for _task in range(2):
        with pytest.raises(CmkError):
            maker.task()
    assert maker.task().changed
    assert maker.looks == 3


def test_a_version_that_is_kept_inside_the_margin_is_not_checked_again_in_the_run(tmp_path: Path) -> None:
    maker = Maker(tmp_path)
    maker.until = "2026-01-02T00:00:00Z"

    outcomes = [maker.task() for _task in range(4)]

    assert maker.looks == 1
    assert {(one.changed, one.report["kept_until"]) for one in outcomes} == {(False, maker.until)}


@pytest.mark.parametrize(
    ("users", "looks"),
    [
        # After each task, the number of checks so far.
        pytest.param(0, [1, 1, 1, 1, 1, 1], id="none: there is nothing to check again"),
        pytest.param(1, [1, 2, 3, 4, 5, 6], id="one: the next task may be that account's"),
        pytest.param(2, [1, 1, 2, 2, 3, 3], id="two"),
        pytest.param(3, [1, 1, 1, 2, 2, 2], id="three"),
    ],
)
def test_a_version_in_use_is_checked_again_when_its_users_may_have_moved(
    tmp_path: Path, users: int, looks: list[int]
) -> None:
    maker = Maker(tmp_path)
    maker.users = [f"user {number}" for number in range(users)]

    seen = []
    for _task in range(6):
        outcome = maker.task()
        seen.append(maker.looks)
        assert outcome.report["in_use_by"] == maker.users
        assert outcome.after == {"enabled": bool(users)}

    assert seen == looks


def test_the_change_is_made_after_the_users_have_moved(tmp_path: Path) -> None:
    maker = Maker(tmp_path)
    maker.users = ["one", "two"]
    assert not maker.task().changed
    maker.users = ["two"]

    assert [maker.task().changed for _task in range(2)] == [False, False]
    maker.users = []
    assert [maker.task().changed for _task in range(2)] == [True, False]
    assert maker.looks == 3


# The first task of the run makes the change, and later tasks never check again.


def test_the_first_of_several_tasks_makes_the_change(tmp_path: Path) -> None:
    maker = Maker(tmp_path, takes=0.05)
    with ThreadPoolExecutor(8) as tasks:
        outcomes = list(tasks.map(lambda _number: maker.first_task(), range(8)))

    assert maker.looks == 1
    assert sorted(outcome.changed for outcome in outcomes) == [*[False] * 7, True]


def test_later_tasks_return_the_outcome_without_its_change(tmp_path: Path) -> None:
    maker = Maker(tmp_path)
    maker.users = ["one"]
    first, second = maker.first_task(), maker.first_task()

    assert first.report["in_use_by"] == ["one"]
    assert second == Outcome(False, first.after, first.after, (), first.report)
    # Also if the accounts have moved meanwhile: the next run disables the version.
    maker.users = []
    assert maker.first_task() == second
    assert (maker.first_task("other").changed, maker.looks) == (True, 2)


@pytest.mark.parametrize("refusal", [Denied("You may not."), Refused("No list.", code="users_unknown", unlisted=["x"])])
def test_a_refusal_is_shared(tmp_path: Path, refusal: CmkError) -> None:
    maker = Maker(tmp_path)
    maker.failures = [refusal]

    for _task in range(3):
        with pytest.raises(CmkError) as failed:
            maker.first_task()
        assert failed.value.result() == refusal.result()
    assert maker.looks == 1


def test_another_error_is_not_shared(tmp_path: Path) -> None:
    maker = Maker(tmp_path)
    maker.failures = [Unavailable("Azure does not respond.")]

    with pytest.raises(Unavailable):
        maker.first_task()
    assert [maker.first_task().changed for _task in range(2)] == [True, False]


def test_without_a_run_each_task_is_the_first() -> None:
    maker = Maker(None)

    assert [maker.first_task().changed for _task in range(2)] == [True, True]
