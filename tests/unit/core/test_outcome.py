# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The outcome of a task, and its result."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from ansible_collections.azbatch.cmk.plugins.module_utils._core import placeholders
from ansible_collections.azbatch.cmk.plugins.module_utils._core.outcome import Outcome, together


def test_a_diff_has_only_values_that_differ() -> None:
    before = {"name": "kv", "size": 1, "tags": {"team": "a", "cost": "b"}, "keys": ["a", "b"], "old": 1, "none": None}
    after = {"name": "kv", "size": 2, "tags": {"team": "a", "cost": "c"}, "keys": ["a"], "new": {"a": 1}}

    assert Outcome(True, before, after).result()["diff"] == {
        "before": {"size": 1, "tags": {"cost": "b"}, "keys": ["a", "b"], "old": 1},
        "after": {"size": 2, "tags": {"cost": "c"}, "keys": ["a"], "new": {"a": 1}},
    }
    assert Outcome(False, before, before).result()["diff"] == {"before": {}, "after": {}}


def test_a_planned_result_has_placeholders_for_values_from_azure() -> None:
    principal, version = placeholders.principal("mybatch", "rg", 1), placeholders.version("vault", "key", 2)
    state = {
        "principal_id": principal,
        "keys": [{"version": version, "created_on": "2026-01-01T00:00:00Z", "exists": True}],
        "key_identifier": f"https://vault.vault.azure.net/keys/key/{version}",
        "created_on": "2025-01-01T00:00:00Z",
        "vault_id": str(uuid.uuid4()),
    }

    result = Outcome(True, {}, state).result(planned=True)

    new = "known after apply: new version 2 of key in vault"
    shown = {
        **state,
        "principal_id": "(known after apply: principal 1 of mybatch in rg)",
        "keys": [{"version": f"({new})", "created_on": "(known after apply)", "exists": True}],
        "key_identifier": f"https://vault.vault.azure.net/keys/key/({new})",
    }
    assert result == {**shown, "changed": True, "diff": {"before": {}, "after": shown}}
    assert Outcome(True, {}, state).result()["principal_id"] == principal


def one(number: int, **options: Any) -> Outcome:
    before, after = {"granted": []}, {"granted": [number]}
    return Outcome(True, before, after, ("Heed this.", f"Heed {number}."), {"in_use_by": [f"user {number}"]}, **options)


def test_outcomes_of_several_are_one_with_the_values_of_each() -> None:
    unchanged = Outcome(False, {"granted": [2]}, {"granted": [2]}, ("Heed this.",), {"in_use_by": []})

    both = together([unchanged, one(1)])

    assert both.changed
    assert both.before == {"granted": [2], "principals": [{"granted": [2]}, {"granted": []}]}
    assert both.after == {"granted": [2], "principals": [{"granted": [2]}, {"granted": [1]}]}
    assert both.warnings == ("Heed this.", "Heed 1.")
    assert both.report == {"in_use_by": ["user 1"]}
    assert together([unchanged, unchanged]).changed is False


def test_the_outcome_of_one_is_its_own_and_that_of_none_is_no_change() -> None:
    assert together([one(1)]) == one(1)
    assert together([]) == Outcome(False, {"principals": []}, {"principals": []})


# Reports of several principals


@pytest.mark.parametrize(
    ("reports", "combined"),
    [
        pytest.param([{"confirmed": True}, {"confirmed": False}], {"confirmed": False}, id="not all"),
        pytest.param([{"confirmed": False}, {"confirmed": False}], {"confirmed": False}, id="none is confirmed"),
        pytest.param([{"kept_until": None}, {"kept_until": "2026"}], {"kept_until": "2026"}, id="the latest time"),
        pytest.param([{"kept_until": None}, {"kept_until": None}], {"kept_until": None}, id="no time"),
    ],
)
def test_reports_of_several_principals_are_one(reports: list[dict[str, Any]], combined: dict[str, Any]) -> None:
    outcomes = [Outcome(False, {}, {}, report=report) for report in reports]

    assert together(outcomes).report == combined
