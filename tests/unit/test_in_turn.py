# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stages that run one after the other or side by side: with locks, once in a run, in check mode, and after failures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.azbatch.cmk.plugins.module_utils._converge import converge, in_turn
from ansible_collections.azbatch.cmk.plugins.module_utils._errors import CmkError, Denied, Refused, Rejected
from ansible_collections.azbatch.cmk.plugins.module_utils._plan import Outcome, Plan, Step
from ansible_collections.azbatch.cmk.plugins.module_utils._stages import Stage, Stages, succeeded


@dataclass(frozen=True)
class Goal:
    """The lamp of that name is on."""

    name: str
    lit: bool = True
    former: Goal | None = None
    if_refused: Goal | None = None

    def standing(self, _stands: Any) -> str:
        return "The lamp is as it was."


class Lamps:
    """A resource: one write switches it."""

    @staticmethod
    def plan(goal: Goal, lit: bool) -> Plan:
        if goal.name == "forbidden":
            raise Refused("Not this lamp.", code="forbidden")
        steps = () if lit == goal.lit else (Step("switch", {"name": goal.name, "on": goal.lit}),)
        ways = {"former": goal.former, "if_refused": goal.if_refused}
        return Plan(goal, {"lit": lit}, {"lit": goal.lit}, steps, **ways)


@dataclass
class Cloud:
    """Its one service is `lamps`. `did` has what was called, with the locks that were held then."""

    lit: dict[str, bool] = field(default_factory=dict)
    did: list[tuple[Any, ...]] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    denied: bool = False
    # Lamps that cannot be switched on, or not off again.
    stuck: tuple[str, ...] = ()
    fails_once_on: type[CmkError] | None = None

    @property
    def lamps(self) -> Cloud:
        return self

    @property
    def rights(self) -> SimpleNamespace:
        """Nothing is missing."""
        return SimpleNamespace(require=lambda *_steps: None)

    def read(self, goal: Goal) -> bool:
        if self.fails_once_on and self.lit.get(goal.name):
            failing, self.fails_once_on = self.fails_once_on, None
            raise failing("It is dark.")
        return self.lit.get(goal.name, False)

    def switch(self, name: str, on: bool) -> None:
        self.did.append(("switch", name, on, *self.held))
        if name in self.stuck and not on:
            raise Rejected("It is stuck.")
        self.lit[name] = on

    def require_power(self, place: str) -> None:
        self.did.append(("require", place))
        if self.denied:
            raise Denied("There is no power.")

    def once(self, make: Callable[[], Outcome], *name: str) -> Outcome:
        self.did.append(("once",))
        return make()

    @contextmanager
    def turn(self, name: str) -> Iterator[None]:
        self.held.append(name)
        yield
        self.held.remove(name)


def lamp(name: str = "red", **options: Any) -> Stage:
    return Stage("lamps", Lamps, Goal(name), **options)


def only(stage: Stage | tuple[Stage, ...]) -> Stages:
    return (yield stage)


def run(stage: Stage | tuple[Stage, ...], cloud: Cloud) -> Any:
    return in_turn(only(stage), cloud)


def test_a_stage_is_converged() -> None:
    cloud = Cloud()

    outcome = run(lamp(), cloud)

    assert (outcome.changed, outcome.before, outcome.after) == (True, {"lit": False}, {"lit": True})
    assert cloud.did == [("switch", "red", True)]


def test_a_stage_is_only_planned() -> None:
    cloud = Cloud()

    outcome = run(lamp(foresee=True), cloud)

    assert (outcome.changed, cloud.did) == (True, [])


def test_a_stage_holds_its_lock_while_it_writes() -> None:
    cloud = Cloud()
    run(lamp(alone="house"), cloud)

    assert cloud.did == [("switch", "red", True, "house")]
    assert cloud.held == []


def test_a_stage_for_all_tasks_of_a_run_is_made_once() -> None:
    cloud = Cloud()
    run(lamp(once=("red lamp",)), cloud)

    assert cloud.did == [("once",), ("switch", "red", True)]


@pytest.mark.parametrize("denied", [False, True])
def test_a_stage_begins_only_if_its_requirement_holds(denied: bool) -> None:
    cloud = Cloud(denied=denied)
    stage = lamp(requires=("lamps", Step("require_power", {"place": "house"})))

    if denied:
        with pytest.raises(Denied):
            run(stage, cloud)
        assert cloud.did == [("require", "house")]
        return
    assert run(stage, cloud).changed
    assert cloud.did == [("require", "house"), ("switch", "red", True)]


def test_stages_follow_each_other_and_the_last_result_is_the_whole() -> None:
    def stages() -> Stages:
        first = yield lamp("red")
        second = yield lamp("green")
        return [first.changed, second.changed]

    cloud = Cloud()

    assert in_turn(stages(), cloud) == [True, True]
    assert [call[1] for call in cloud.did] == ["red", "green"]


def test_a_failure_ends_the_stages_unless_they_allow_it() -> None:
    def stages(*, allowed: bool) -> Stages:
        try:
            yield lamp("forbidden")
        except Refused:
            if not allowed:
                raise
        return (yield lamp("green"))

    cloud = Cloud()
    with pytest.raises(Refused):
        in_turn(stages(allowed=False), cloud)
    assert cloud.did == []
    assert in_turn(stages(allowed=True), cloud).changed


def test_of_stages_side_by_side_each_comes_to_an_outcome_or_a_failure() -> None:
    cloud = Cloud()

    red, forbidden, green = tuple(run((lamp("red"), lamp("forbidden"), lamp("green")), cloud))

    assert red.changed
    assert green.changed
    assert isinstance(forbidden, Refused)
    assert cloud.lit == {"red": True, "green": True}
    with pytest.raises(Refused):
        succeeded([red, forbidden, green])


# Which way a failed change is undone


FORMER, FALLBACK = Goal("red", lit=False), Goal("blue")


def undone(cloud: Cloud, **ways: Goal) -> CmkError:
    with pytest.raises(CmkError) as failed:
        converge(replace(Goal("red"), **ways), cloud, Lamps)
    return failed.value


@pytest.mark.parametrize("failure", [Denied, Refused])
def test_the_previous_setting_is_restored_and_nothing_else(failure: type[CmkError]) -> None:
    cloud = Cloud(fails_once_on=failure)

    assert undone(cloud, former=FORMER, if_refused=FALLBACK).facts["restored"] is True
    assert cloud.lit == {"red": False}


@pytest.mark.parametrize(("failure", "lit"), [(Refused, {"red": True, "blue": True}), (Denied, {"red": True})])
def test_the_fallback_is_for_a_refused_change_whose_previous_setting_cannot_be_restored(
    failure: type[CmkError], lit: dict[str, bool]
) -> None:
    cloud = Cloud(fails_once_on=failure, stuck=("red",))
    undone(cloud, former=FORMER, if_refused=FALLBACK)

    assert cloud.lit == lit


@pytest.mark.parametrize("failure", [Denied, Refused])
def test_without_a_way_back_nothing_is_undone(failure: type[CmkError]) -> None:
    cloud = Cloud(fails_once_on=failure)

    assert "restored" not in undone(cloud).facts
    assert cloud.lit == {"red": True}
