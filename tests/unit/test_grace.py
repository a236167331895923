# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a previous key or version stays enabled, and which versions are never disabled."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from documents import DAY, KEY, MIDDLE, NEW, NOW, OLD, account, key, observed_key, visible
from goals import key_goal

from ansible_collections.azbatch.cmk.plugins.module_utils._core import placeholders
from ansible_collections.azbatch.cmk.plugins.module_utils._core.duration import instant
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import Refused
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import parse_key_identifier
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key import disabled as key_disabled
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key import document as key_document
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key import goal as key_goal_module
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key import grace as key_grace
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key import plan as key_plan

OTHER = f"{KEY}2"


def observed(
    newest_is: int = 10 * DAY, *accounts: dict[str, Any], disabled: tuple[str, ...] = (), **others: Any
) -> dict[str, Any]:
    ages = {OLD: newest_is + 200 * DAY, MIDDLE: newest_is + 100 * DAY, NEW: newest_is}
    bundles = [key(name, created=NOW - age, enabled=name not in disabled) for name, age in ages.items()]
    return observed_key(*bundles, visible=visible(*accounts), **others)


def goal(
    lasts: str = "P1D", *, version: str | None = MIDDLE, to: str | None = KEY, **more: Any
) -> key_goal_module.Goal:
    return key_goal(state="disabled", version=version, moved_to=to, grace_period=lasts, **more)


@pytest.mark.parametrize(
    ("wanted", "newest_is", "moved_in_run", "ages", "left"),
    [
        pytest.param(goal(), 10 * DAY, False, None, None, id="moved long ago"),
        pytest.param(goal(), DAY, False, None, None, id="just over"),
        pytest.param(goal(), DAY - 1, False, None, 1, id="not quite over"),
        pytest.param(goal(), 0, False, None, DAY, id="the newest was just made"),
        pytest.param(goal(to=f"{KEY}/{NEW}".upper()), 0, False, None, DAY, id="a version that was just made"),
        pytest.param(goal(), 10 * DAY, True, None, DAY, id="this run has moved an account"),
        pytest.param(goal("P2D"), 10 * DAY, True, None, 2 * DAY, id="a longer one"),
        pytest.param(goal("P0D"), 0, True, {"one": 0.0}, None, id="no grace period"),
        pytest.param(goal(to=None), 0, False, {}, None, id="no account uses another version"),
        pytest.param(goal(to=None), 0, False, None, None, id="a version that an account uses"),
        pytest.param(goal(to=None), 0, False, {"one": 60.0}, DAY - 60, id="an account may have been moved"),
        pytest.param(goal("P0D", to=None), 0, True, {"one": 0.0}, None, id="no grace period, an account was moved"),
        pytest.param(goal(to=OTHER), 0, False, None, None, id="to another key, however old the newest of this one"),
        pytest.param(goal(to=OTHER), 10 * DAY, True, None, DAY, id="to another key, now"),
        pytest.param(goal(to=OTHER), 10 * DAY, False, {}, DAY, id="to another key that no account uses any more"),
        pytest.param(goal("P0D", to=OTHER), 10 * DAY, False, {}, None, id="no grace period for such a key"),
        pytest.param(goal(), 10 * DAY, False, {"one": DAY, "two": DAY + 1}, None, id="accounts changed long ago"),
        pytest.param(goal(), 10 * DAY, False, {"one": 3 * DAY, "two": 60}, DAY - 60, id="an account changed just now"),
        pytest.param(goal(), DAY - 5, False, {"one": DAY - 9}, 9, id="the later of the two"),
        pytest.param(goal(), 10 * DAY, False, {"one": 3 * DAY, "two": None}, DAY, id="an account does not say when"),
    ],
)
def test_end_of_the_grace_period(
    wanted: key_goal_module.Goal,
    newest_is: int,
    moved_in_run: bool,
    ages: dict[str, float | None] | None,
    left: float | None,
) -> None:
    seen = observed(newest_is, moved_in_run=moved_in_run)

    assert key_grace.kept_until(wanted, seen, ages) == (None if left is None else NOW + left)


def test_a_missing_key_has_no_grace_period() -> None:
    assert key_grace.kept_until(goal(), observed_key()) is None


def test_version_is_not_disabled_within_the_grace_period() -> None:
    with pytest.raises(Refused) as refused:
        key_plan.plan(goal(), observed(10 * DAY, ages={"one": 60}))

    assert refused.value.code == "in_grace_period"
    assert refused.value.facts["kept_until"] == instant(NOW + DAY - 60)
    assert refused.value.facts["option"] == "grace_period"
    assert key_plan.plan(goal(), observed(10 * DAY, ages={"one": 2 * DAY})).steps


@pytest.mark.parametrize("version", [MIDDLE, None])
def test_kept_version_within_the_grace_period_is_no_failure_with_in_use_keep(version: str | None) -> None:
    seen = observed(10 * DAY, ages={"one": 60})
    to = KEY if version else OTHER
    plan = key_plan.plan(goal(version=version, to=to, in_use="keep"), seen)

    assert not plan.changed
    assert plan.before == plan.after == key_document.describe(seen)
    assert plan.report == {"in_use_by": [], "kept_until": instant(NOW + DAY - 60)}
    with pytest.raises(Refused) as refused:
        key_plan.plan(goal(version=version, to=to), seen)
    assert f"version {version}" in refused.value.msg if version else "the key batch" in refused.value.msg


def test_force_is_not_for_the_grace_period() -> None:
    """`force` allows that accounts lose their key. Only `grace_period: P0D` ends the grace period."""
    with pytest.raises(Refused):
        key_plan.plan(goal(force=True), observed(10 * DAY, ages={"one": 60}))
    assert key_plan.plan(goal("P0D"), observed(10 * DAY, ages={"one": 60})).steps


@pytest.mark.parametrize(
    ("lasts", "newest_is", "moved_in_run", "ages", "until"),
    [
        pytest.param("P0D", DAY - 60, False, None, 60, id="none, and a new version"),
        pytest.param("P0D", 10 * DAY, True, None, DAY, id="none, and this run has moved an account"),
        pytest.param("PT1H", 10 * DAY, False, {"one": 7200}, DAY - 7200, id="a short one"),
        pytest.param("P0D", DAY, False, None, None, id="none, long after the move"),
        pytest.param("P1D", 10 * DAY, False, {"one": DAY}, None, id="a whole day"),
    ],
)
def test_a_warning_names_how_long_batch_may_need_a_disabled_version(
    lasts: str, newest_is: int, moved_in_run: bool, ages: dict[str, float] | None, until: float | None
) -> None:
    plan = key_plan.plan(goal(lasts), observed(newest_is, moved_in_run=moved_in_run, ages=ages))

    assert plan.changed
    assert [instant(NOW + until) in one for one in plan.warnings] == [True] if until else plan.warnings == ()
    assert key_plan.plan(plan.goal, {**observed(newest_is, moved_in_run=moved_in_run)}).warnings == ()


def test_a_disabled_version_has_no_grace_period() -> None:
    seen = observed(0)
    seen["versions"] = [{**v, "attributes": {**v["attributes"], "enabled": False}} for v in seen["versions"]]

    plan = key_plan.plan(goal(), {**seen, "moved_in_run": True})

    assert not plan.changed
    assert plan.before == plan.after == key_document.describe(seen)
    assert plan.report == {"in_use_by": [], "kept_until": None}


def test_the_second_check_ignores_the_grace_period() -> None:
    plan = key_plan.plan(goal(), observed())

    assert key_plan.plan(plan.goal, {**observed(), "moved_in_run": True, "ages": {"one": 0}}).goal.taken_away


@pytest.mark.parametrize(
    ("version", "to", "disabled"),
    [
        pytest.param(OLD, f"{KEY}/{NEW}", True, id="older"),
        pytest.param(OLD, f"{KEY}/{MIDDLE}", True, id="older than the one in between"),
        pytest.param(MIDDLE, KEY, True, id="older than the newest, which the accounts follow"),
        pytest.param(NEW, f"{KEY}/{NEW}", False, id="the one that is used"),
        pytest.param(NEW, KEY, False, id="the newest, which the accounts follow"),
        pytest.param(NEW, f"{KEY}/{MIDDLE}".upper(), False, id="newer"),
        pytest.param(OLD, f"{KEY}/{'f' * 32}", False, id="than a missing version"),
        pytest.param(NEW, None, True, id="nothing was moved"),
        pytest.param(NEW, f"{OTHER}/{OLD}", True, id="a version of another key has no age beside it"),
        pytest.param(None, f"{OTHER}/{OLD}", True, id="the whole key, after a move to another one"),
    ],
)
def test_no_version_is_disabled_that_is_not_older_than_the_one_that_is_used(
    version: str | None, to: str | None, disabled: bool
) -> None:
    plan = key_plan.plan(goal("P0D", version=version, to=to), observed())

    assert plan.changed is disabled
    assert (plan.warnings == ()) is disabled
    if not disabled:
        assert plan.before == plan.after
        assert plan.report == {"in_use_by": [], "kept_until": None}
        assert str(version) in plan.warnings[0]


@pytest.mark.parametrize("to", [KEY, f"{KEY}/{NEW}"])
def test_the_whole_key_is_not_disabled_after_a_move_to_a_version_of_it(to: str) -> None:
    plan = key_plan.plan(goal("P0D", version=None, to=to), observed())

    assert not plan.changed
    assert plan.before == plan.after
    assert "moved to a version of the key" in plan.warnings[0]


def test_a_version_of_the_same_second_is_not_newer() -> None:
    """Key Vault's response decides which of the two versions is the newest."""
    seen = observed_key(key(OLD, created=NOW - DAY), key(NEW, created=NOW - DAY), visible=visible())

    assert key_plan.plan(goal("P0D", version=OLD, to=f"{KEY}/{NEW}"), seen).changed


@pytest.mark.parametrize("version", [OLD, NEW])
def test_the_second_check_ignores_which_version_is_the_newest(version: str) -> None:
    """An unused version stays disabled, also if another version became the newest meanwhile."""
    plan = key_plan.plan(goal("P0D", version=MIDDLE, to=f"{KEY}/{NEW}"), observed())
    moved_back = replace(plan.goal, version=version, moved_to=parse_key_identifier(f"{KEY}/{OLD}", "key"))
    seen = observed()
    seen["versions"] = [{**v, "attributes": {**v["attributes"], "enabled": False}} for v in seen["versions"]]

    assert key_plan.plan(moved_back, seen).warnings == ()


@pytest.mark.parametrize(
    ("seen", "version", "would"),
    [
        pytest.param(observed(), MIDDLE, True, id="nobody is on it"),
        pytest.param(observed(10 * DAY, account(key=f"{KEY}/{MIDDLE}")), MIDDLE, False, id="an account is on it"),
        pytest.param(observed(10 * DAY, account(key=f"{KEY}/{NEW}")), None, False, id="one is on the key"),
        pytest.param(observed(10 * DAY, account(key=f"{KEY}2/{NEW}")), None, True, id="one is on another key"),
        pytest.param({**observed(), "versions": None}, MIDDLE, False, id="versions cannot be listed"),
        pytest.param({**observed(), "key": None}, MIDDLE, False, id="no key"),
        pytest.param(observed(10 * DAY, disabled=(MIDDLE,)), MIDDLE, False, id="it is disabled already"),
        pytest.param(observed(DAY - 1, account(key=KEY)), MIDDLE, False, id="one may follow, and be on it still"),
        pytest.param(observed(10 * DAY, account(key=KEY)), MIDDLE, True, id="one follows, and is on the newest"),
    ],
)
def test_prediction_of_a_disabled_version(seen: dict[str, Any], version: str | None, would: bool) -> None:
    assert key_disabled.would_disable(goal(version=version), seen) is would


@pytest.mark.parametrize("force", [False, True])
def test_a_version_that_an_account_may_have_been_moved_from(force: bool) -> None:
    """It is not named which key accounts were moved to."""
    wanted, seen = goal(to=None, force=force), observed(ages={"one": 3600.0})
    if not force:
        with pytest.raises(Refused) as refused:
            key_plan.plan(wanted, seen)
        assert (refused.value.code, refused.value.facts["kept_until"]) == ("in_grace_period", instant(NOW + 23 * 3600))
        assert not key_plan.plan(replace(wanted, keeps_used=True), seen).changed
        return
    plan = key_plan.plan(wanted, seen)
    assert plan.changed
    assert [f"until {instant(NOW + 23 * 3600)}, but force allows" in one for one in plan.warnings] == [True]


def test_force_does_not_shorten_the_grace_period_of_a_named_move() -> None:
    with pytest.raises(Refused):
        key_plan.plan(goal(force=True), observed(ages={"one": 3600.0}))


@pytest.mark.parametrize(
    ("to", "is_kept"),
    [(OLD, True), (MIDDLE, True), (NEW, False), (placeholders.version("batch"), False), ("1" * 32, True)],
    ids=["older", "the same", "newer", "known after apply", "not listed"],
)
def test_a_version_that_is_not_older_than_the_one_in_use_is_kept(to: str, is_kept: bool) -> None:
    plan = key_plan.plan(goal("P0D", version=MIDDLE, to=f"{KEY}/{to}"), observed())

    assert ["is not older than" in one for one in plan.warnings if "Batch may need" not in one] == [True] * is_kept
    assert bool(plan.steps) is not is_kept


@pytest.mark.parametrize(
    ("wanted", "moved_to"),
    [
        (goal(to=f"{KEY}/{NEW}"), KEY),
        (goal(to=OTHER), OTHER),
        (goal(to=None), KEY),
        (goal(to=None, version=None), None),
    ],
)
def test_the_key_that_accounts_may_have_been_moved_to(wanted: key_goal_module.Goal, moved_to: str | None) -> None:
    found = key_grace.moved_to(wanted, observed()["key"])

    assert (None if found is None else str(found)) == moved_to
    assert key_grace.moved_to(replace(wanted, moved_to=None), None) is None
