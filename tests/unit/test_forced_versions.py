# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The count of forced versions in a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from documents import KEY, NEW
from goals import key_goal

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_store import RunFiles
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import parse_key_identifier
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key.forced_versions import (
    ForcedVersions,
    counted_as,
)


@pytest.fixture
def forced(tmp_path: Path) -> ForcedVersions:
    return ForcedVersions(RunFiles(str(tmp_path)))


def rotate(forced: ForcedVersions, account: str, key: str = "key", **result: Any) -> bool:
    """A forced rotation in a separate process. Returns whether the process had to create a version."""
    forces: list[bool] = []

    def execute(force: bool) -> dict[str, Any]:
        forces.append(force)
        return {"changed": force, **result}

    assert forced.around(key, account, execute)["changed"] is result.get("changed", forces[0])
    return forces == [True]


def test_accounts_share_one_version_per_round(forced: ForcedVersions) -> None:
    rounds = [[rotate(forced, account) for account in ("one", "two", "three")] for _round in range(3)]

    assert rounds == [[True, False, False]] * 3
    assert forced.count("key") == 3


def test_keys_are_counted_apart(forced: ForcedVersions) -> None:
    assert [rotate(forced, "one", "key"), rotate(forced, "one", "other")] == [True, True]


def test_a_failure_does_not_count_and_its_version_does(forced: ForcedVersions) -> None:
    assert rotate(forced, "one", failed=True)
    assert not rotate(forced, "one")
    assert rotate(forced, "one")


def test_a_version_that_was_not_made_does_not_count(forced: ForcedVersions) -> None:
    assert rotate(forced, "one", failed=True, changed=False)
    assert rotate(forced, "one")


def test_each_account_has_as_many_rounds_as_the_others(forced: ForcedVersions) -> None:
    """For the n-th forced version of an account, no version is created if the run has already created n versions."""
    assert [rotate(forced, "one") for _round in range(2)] == [True, True]

    assert [rotate(forced, "two") for _round in range(3)] == [False, False, True]


def test_another_change_of_the_key_is_no_version(forced: ForcedVersions) -> None:
    rotate(forced, "one")
    rotate(forced, "two", changed=True)

    assert forced.count("key") == 1


def test_completed_moves_never_exceed_created_versions(forced: ForcedVersions) -> None:
    """A completed move counts one forced version, but only a version that was created."""
    for _move in range(3):
        forced.completed("key", "one")
    assert not forced.is_made("key", "one")
    forced.made("key")
    assert forced.is_made("key", "one")
    forced.completed("key", "one")
    assert not forced.is_made("key", "one")
    # Another account still needs the version, regardless of how often the first account is moved.
    forced.completed("key", "one")
    assert forced.is_made("key", "two")
    forced.made("key")
    assert forced.is_made("key", "one")


def test_a_version_counts_that_another_process_created_before_it_failed(forced: ForcedVersions) -> None:
    asked = []

    def execute(force: bool) -> dict[str, Any]:
        asked.append(force)
        return {"failed": True, "applied": ["create"]} if force else {"changed": False}

    forced.around("key", "one", execute)
    forced.around("key", "one", execute)

    assert asked == [True, False]


def test_every_account_is_counted_by_itself(forced: ForcedVersions) -> None:
    forced.made("key")
    forced.completed("key", "one")

    assert [forced.is_made("key", account) for account in ("one", "two")] == [False, True]


KEY_OF_RUN = parse_key_identifier(f"{KEY}/{NEW}", "key_identifier")


def test_accounts_of_the_same_name_are_counted_apart() -> None:
    """In two subscriptions, groups and accounts may have the same names."""
    params = {"resource_group": "rg", "account_name": "batch"}
    places = [
        *({**params, "subscription_id": one} for one in ("first", "second", None)),
        {**params, "subscription_id": None, "resource_group": "rg2"},
        {**params, "subscription_id": None, "account_name": "batch2"},
    ]

    assert len({counted_as(KEY_OF_RUN, place)[1] for place in places}) == 5


def test_a_key_and_an_account_are_counted_alike_whatever_they_are_named_by() -> None:
    params = {"subscription_id": "Mine", "resource_group": "RG", "account_name": "Batch"}
    others = {"subscription_id": "mine", "resource_group": "rg", "account_name": "batch"}
    named = key_goal(vault_name="MyVault", name="Batch").key

    assert counted_as(named, params) == counted_as(KEY_OF_RUN, others) == counted_as(KEY_OF_RUN.versionless, params)
    assert counted_as(parse_key_identifier(f"{KEY}2", "key"), params)[0] != counted_as(named, params)[0]
