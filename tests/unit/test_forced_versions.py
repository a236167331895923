# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a run counts the versions that it was asked to make whatever the age of the newest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.azbatch.cmk.plugins.module_utils._cloud.forced_versions import ForcedVersions
from ansible_collections.azbatch.cmk.plugins.module_utils._cloud.run_files import RunFiles


@pytest.fixture
def forced(tmp_path: Path) -> ForcedVersions:
    return ForcedVersions(RunFiles(str(tmp_path)))


def rotate(forced: ForcedVersions, account: str, key: str = "key", *, counts: bool = True, **result: Any) -> bool:
    """Whether the module was to make a version."""
    told: list[bool] = []

    def execute(force: bool) -> dict[str, Any]:
        told.append(force)
        return {"changed_steps": {"key": force}, **result}

    forced.around(key, account, execute, counts=counts)
    return told == [True]


def test_all_accounts_share_a_version_and_each_round_has_its_own(forced: ForcedVersions) -> None:
    rounds = [[rotate(forced, account) for account in ("one", "two", "three")] for _round in range(3)]

    assert rounds == [[True, False, False]] * 3


def test_keys_are_counted_apart(forced: ForcedVersions) -> None:
    assert [rotate(forced, "one", "key"), rotate(forced, "one", "other")] == [True, True]


def test_a_failure_does_not_count_and_its_version_does(forced: ForcedVersions) -> None:
    assert rotate(forced, "one", failed=True)
    assert not rotate(forced, "one")
    assert rotate(forced, "one")


def test_a_version_that_was_not_made_does_not_count(forced: ForcedVersions) -> None:
    assert rotate(forced, "one", failed=True, changed_steps={})
    assert rotate(forced, "one")


def test_a_prediction_counts_as_nothing(forced: ForcedVersions) -> None:
    assert rotate(forced, "one", counts=False)
    assert rotate(forced, "one")
    assert not rotate(forced, "two", counts=False)
    assert not rotate(forced, "two")
