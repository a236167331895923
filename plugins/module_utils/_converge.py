# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The pipe that every module is: read, plan, stop in check mode, apply, read, plan again.

This module util is private to the collection.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Protocol

from ._concurrent import map_concurrent
from ._errors import CmkError, NotConverged, Refused
from ._plan import Outcome, Plan
from ._stages import Stage, Stages


class Noun(Protocol):
    def plan(self, goal: Any, observed: Any) -> Plan: ...


class Service(Protocol):
    """Besides `read`, it has a method for the action of each of the noun's steps."""

    def read(self, goal: Any) -> Any: ...


def converge(goal: Any, service: Service, noun: Noun, *, check_mode: bool) -> Outcome:
    todo = noun.plan(goal, service.read(goal))
    if check_mode or not todo.changed:
        for step in todo.foreseen_by:
            getattr(service, step.action)(**step.arguments)
        return Outcome(todo.changed, todo.before, todo.after, todo.warnings, todo.report, foretold=todo.changed)
    applied: list[str] = []
    try:
        _apply(todo, service, applied)
        seen = noun.plan(todo.goal, service.read(todo.goal))
        if seen.changed:
            raise NotConverged(
                "Azure accepted the change, but read again it does not show it. "
                "Run the task again; if it fails in the same way, the difference is under `missing`.",
                missing={"before": dict(seen.before), "after": dict(seen.after)},
            )
    except CmkError as failure:
        failure.facts.update(applied=applied)
        ways = (todo.former, todo.if_refused if isinstance(failure, Refused) else None)
        for way in ways:
            if way is not None and _put_back(way, todo.before, service, noun, failure):
                break
        raise
    return Outcome(True, todo.before, seen.before, tuple(dict.fromkeys(todo.warnings + seen.warnings)), todo.report)


def in_turn(stages: Stages, cloud: Any, *, check_mode: bool) -> Outcome:
    """Converge stage after stage. Each is asked for once the one before has ended; a failure may be let pass there.

    Of several that are asked for together, each comes to an outcome or to a failure.
    """

    def come_to(stage: Stage) -> Outcome | CmkError:
        try:
            return _converged(stage, cloud, check_mode=check_mode)
        except CmkError as failure:
            return failure

    def come_to_each(together: tuple[Stage, ...]) -> list[Outcome | CmkError]:
        # By number, because a stage has no hash.
        return list(map_concurrent(lambda number: come_to(together[number]), range(len(together))).values())

    try:
        wanted = next(stages)
        while True:
            if isinstance(wanted, Stage):
                came = come_to(wanted)
                wanted = stages.throw(came) if isinstance(came, CmkError) else stages.send(came)
            else:
                wanted = stages.send(come_to_each(wanted))
    except StopIteration as end:
        whole: Outcome = end.value
        return whole


def _converged(stage: Stage, cloud: Any, *, check_mode: bool) -> Outcome:
    def make() -> Outcome:
        if stage.requires:
            service, step = stage.requires
            getattr(getattr(cloud, service), step.action)(**step.arguments)
        service = getattr(cloud, stage.service)
        return converge(stage.goal, service, stage.noun, check_mode=check_mode or stage.foresee)

    if stage.once:
        outcome: Outcome = cloud.once(make, stage.service, repr(stage.goal))
        return outcome
    with cloud.turn(stage.alone) if stage.alone else contextlib.nullcontext():
        return make()


def _apply(todo: Plan, service: Service, applied: list[str]) -> None:
    for step in todo.steps:
        getattr(service, step.action)(**step.arguments)
        applied.append(step.action)


def _put_back(former: Any, before: Mapping[str, Any], service: Service, noun: Noun, failure: CmkError) -> bool:
    """Lead back to the former state; a plan like any other, so it is preflighted too and empty where nothing moved.

    The failure tells how things stand after that; what is returned, whether it was possible.
    """
    try:
        back = noun.plan(former, service.read(former))
        _apply(back, service, [])
        stands = noun.plan(former, service.read(former))
    except CmkError as obstacle:
        failure.add(f"Putting the former setting back failed as well: {obstacle.msg}")
        failure.facts.update(restored=False, restore_failure=obstacle.result())
        return False
    failure.add(former.standing(stands.before))
    failure.facts.update(restored=stands.before == before, stands=dict(stands.before))
    return True
