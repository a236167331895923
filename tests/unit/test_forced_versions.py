# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A forced version of a key is created once for the tasks of a run, also if tasks run in other processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_store import RunFiles
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key.forced_versions import ForcedVersions


@pytest.fixture
def forced(tmp_path: Path) -> ForcedVersions:
    return ForcedVersions(RunFiles(str(tmp_path)))


def rotate(forced: ForcedVersions, key: str = "key", **result: Any) -> bool:
    """A forced rotation in a separate process. Returns whether the process had to create a version."""
    forces: list[bool] = []

    def execute(force: bool) -> dict[str, Any]:
        forces.append(force)
        return {"changed": force, **result}

    assert forced.around(key, execute)["changed"] is result.get("changed", forces[0])
    return forces == [True]


def test_the_tasks_of_a_run_share_one_version(forced: ForcedVersions) -> None:
    assert [rotate(forced) for _task in range(4)] == [True, False, False, False]
    assert forced.is_made("key")


def test_each_key_has_its_own_version(forced: ForcedVersions) -> None:
    assert [rotate(forced, "key"), rotate(forced, "other")] == [True, True]


def test_a_version_of_this_process_counts_in_other_processes(forced: ForcedVersions) -> None:
    forced.made("key")

    assert not rotate(forced)


@pytest.mark.parametrize(
    ("result", "is_made"),
    [
        ({"failed": True, "changed": False, "applied": ["create"]}, True),
        ({"failed": True, "changed": True}, True),
        ({"failed": True, "changed": False, "applied": ["update"]}, False),
        ({"failed": True, "changed": False}, False),
    ],
)
def test_a_version_that_a_failed_task_has_created_counts(
    forced: ForcedVersions, result: dict[str, Any], is_made: bool
) -> None:
    assert rotate(forced, **result)
    assert rotate(forced) is not is_made
