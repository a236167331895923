# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a previous key or version stays enabled, and which versions are never disabled."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from documents import DAY, KEY, MIDDLE, NEW, NOW, OLD, account, key, observed_key, visible
from wishes import key_goal

from ansible_collections.azbatch.cmk.plugins.module_utils import _grace, _key, _key_goal, _key_withdrawn
from ansible_collections.azbatch.cmk.plugins.module_utils._errors import Refused
from ansible_collections.azbatch.cmk.plugins.module_utils._ids import parse_key_identifier
from ansible_collections.azbatch.cmk.plugins.module_utils._plan import Plan

THIS = parse_key_identifier(KEY, "key")
OTHER = parse_key_identifier(f"{KEY}2", "key")


def observed(newest_is: int = 10 * DAY, *accounts: dict[str, Any], **others: Any) -> dict[str, Any]:
    ages = {OLD: newest_is + 200 * DAY, MIDDLE: newest_is + 100 * DAY, NEW: newest_is}
    bundles = [key(name, created=NOW - age) for name, age in ages.items()]
    return observed_key(*bundles, visible=visible(*accounts), **others)


def goal(
    lasts: int = DAY, *, version: str | None = MIDDLE, moved_now: bool = False, to: Any = THIS, **more: Any
) -> _key_goal.Goal:
    grace = _key_goal.Grace(lasts, moved_now, to)
    return replace(key_goal(state="disabled", version=version), grace=grace, **more)


@pytest.mark.parametrize(
    ("wish", "newest_is", "ages", "left"),
    [
        pytest.param(goal(), 10 * DAY, None, None, id="moved long ago"),
        pytest.param(goal(), DAY, None, None, id="just over"),
        pytest.param(goal(), DAY - 1, None, 1, id="not quite over"),
        pytest.param(goal(), 0, None, DAY, id="the newest was just made"),
        pytest.param(goal(moved_now=True), 10 * DAY, None, DAY, id="this run has moved an account"),
        pytest.param(goal(0, moved_now=True), 0, {"one": 0.0}, None, id="no grace"),
        pytest.param(goal(to=OTHER), 0, None, None, id="to another key, however old the newest version of this one"),
        pytest.param(goal(to=OTHER, moved_now=True), 10 * DAY, None, DAY, id="to another key, now"),
        pytest.param(goal(), 10 * DAY, {"one": DAY, "two": DAY + 1}, None, id="accounts changed long ago"),
        pytest.param(goal(), 10 * DAY, {"one": 3 * DAY, "two": 60}, DAY - 60, id="an account changed a moment ago"),
        pytest.param(goal(), 10 * DAY, {"one": 3 * DAY, "two": None}, DAY, id="an account does not say when"),
    ],
)
def test_how_long_it_lasts(
    wish: _key_goal.Goal, newest_is: int, ages: dict[str, float | None] | None, left: float | None
) -> None:
    until = _grace.kept_until(wish, observed(newest_is), ages)

    assert until == (None if left is None else NOW + left)


def test_nothing_is_disabled_within_it() -> None:
    with pytest.raises(Refused) as refused:
        _key.plan(goal(), observed(10 * DAY, ages={"one": 60}))

    assert refused.value.code == "in_grace"
    assert refused.value.facts["kept_until"].endswith("Z")
    assert _key.plan(goal(), observed(10 * DAY, ages={"one": 2 * DAY})).steps


def test_what_is_disabled_already_has_no_grace_time() -> None:
    seen = observed(0)
    seen["versions"] = [{**v, "attributes": {**v["attributes"], "enabled": False}} for v in seen["versions"]]

    assert _key.plan(goal(moved_now=True), seen) == Plan(goal(moved_now=True), *[_key.describe(seen)] * 2)


def test_the_second_look_does_not_count_its_own_time() -> None:
    plan = _key.plan(goal(), observed())

    assert _key.plan(plan.goal, {**observed(), "ages": {"one": 0}}).goal.withdrawn


@pytest.mark.parametrize(
    ("version", "not_after", "disabled"),
    [
        pytest.param(OLD, NEW, True, id="older"),
        pytest.param(OLD, MIDDLE, True, id="older than the one in between"),
        pytest.param(NEW, NEW, False, id="the newest"),
        pytest.param(NEW, MIDDLE, False, id="newer"),
        pytest.param(OLD, "f" * 32, False, id="than one that is not there"),
        pytest.param(NEW, None, True, id="whatever its age"),
    ],
)
def test_no_newer_version_is_disabled(version: str, not_after: str | None, disabled: bool) -> None:
    plan = _key.plan(goal(0, version=version, not_after=not_after), observed())

    assert plan.changed is disabled
    assert (plan.warnings == ()) is disabled


def test_a_version_of_the_same_second_is_not_newer() -> None:
    """Key Vault itself says which of the two is the newest."""
    seen = observed_key(key(OLD, created=NOW - DAY), key(NEW, created=NOW - DAY), visible=visible())

    assert _key.plan(goal(0, version=OLD, not_after=NEW), seen).changed


@pytest.mark.parametrize(
    ("seen", "version", "would"),
    [
        pytest.param(observed(), MIDDLE, True, id="nobody is on it"),
        pytest.param(observed(10 * DAY, account(key=f"{KEY}/{MIDDLE}")), MIDDLE, False, id="an account is on it"),
        pytest.param(observed(10 * DAY, account(key=f"{KEY}/{NEW}")), None, False, id="one is on the key"),
        pytest.param(observed(10 * DAY, account(key=f"{KEY}2/{NEW}")), None, True, id="one is on another key"),
        pytest.param({**observed(), "versions": None}, MIDDLE, False, id="versions cannot be listed"),
        pytest.param({**observed(), "key": None}, MIDDLE, False, id="no key"),
    ],
)
def test_whether_a_look_at_each_account_is_worth_it(seen: dict[str, Any], version: str | None, would: bool) -> None:
    assert _key_withdrawn.would_disable(goal(version=version), seen) is would
