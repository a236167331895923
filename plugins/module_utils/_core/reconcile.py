# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The steps of every module: read, plan, apply, read and plan again.

This module util is private to the collection.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from . import interrupts
from .concurrent import map_concurrent
from .errors import CmkError, Denied, NotConverged, NotFound, PlanOutdated, Refused, Unavailable
from .interrupts import as_failure
from .plan import MAX_READ_DELAY, Needed, Outcome, Plan, Removed, Service, W


class Planner(Protocol[W]):
    def plan(self, goal: Any, observed: Any) -> Plan[W]:
        """The steps from the observed state to the goal."""


@dataclass(frozen=True)
class Removal:
    """Something that a task disables, deletes or revokes. `name` is its name for later tasks of the run, `vault` the
    vault whose lock is held, and `of` makes the removal of noted values: the versions and the time. With `keeps_used`,
    what is in use is kept. `confirm` notes in Azure that nothing uses what was removed. `delay` is the time in seconds
    after which the lists of Azure show each user that has not seen the removal."""

    name: tuple[str, ...]
    vault: str
    service: Any
    planner: Planner[Any]
    of: Callable[[Sequence[str], float], Removed]
    keeps_used: bool
    confirm: Callable[[Removed], None] = lambda _removed: None
    delay: float = MAX_READ_DELAY


Check = Callable[[], None]
# Errors that end a rollback at once: the rollback has already waited, Azure requires a wait longer than the
# timeout, or another task or user has deleted the resource.
_NOT_RETRIED = (
    "account_unavailable",
    "throttled",
    "account_not_found",
    "resource_group_not_found",
    "subscription_not_found",
)
# Refuses the steps if the caller lacks a right, or returns warnings.
Rights = Callable[[Sequence[Needed]], tuple[str, ...]]


def converge(
    goal: Any,
    service: W,
    planner: Planner[W],
    *,
    before_change: Check = lambda: None,
    rights: Rights = lambda _needed: (),
) -> Outcome:
    """Read, plan, apply and confirm. If a change fails or is interrupted, the previous setting is restored if the
    plan has a goal for that.

    `before_change` is called if there is something to change, and raises an error if the change must not begin. If
    another task or user has created the resource or moved the account since it was read, the change is planned a
    second time.
    """
    try:
        return _converge(goal, service, planner, before_change, rights)
    except PlanOutdated as outdated:
        if outdated.facts["applied"]:
            raise
        return _converge(goal, service, planner, before_change, rights)


def _converge(goal: Any, service: W, planner: Planner[W], before_change: Check, rights: Rights) -> Outcome:
    todo = _first_plan(goal, service, planner)
    if not todo.changed:
        return todo.unchanged()
    checks: tuple[Callable[[], Any], ...] = (before_change, lambda: rights(todo.rights))
    _nothing, lacking = map_concurrent(lambda check: check(), checks).values()
    todo = replace(todo, warnings=(*todo.warnings, *lacking))
    applied: list[str] = []
    with interrupts.raised():
        try:
            _apply(todo, service, applied)
            applied_at = time.monotonic()
            # A removal counts as confirmed only after the longest read delay, whatever the timeout is.
            at_least_until = applied_at + MAX_READ_DELAY if _is_removal(todo) else 0.0
            latest, missing = _look_until_shown(todo.goal, service, planner, at_least_until)
            if missing is not None:
                raise missing
        except BaseException as ended:
            failure = as_failure(ended)
            failure.facts.update(applied=applied)
            # In check mode, where missing rights are only warnings: the change also fails for a caller who has them.
            for warning in lacking:
                failure.add(warning)
            if isinstance(failure, PlanOutdated) and not applied:
                # Nothing was written, so there is nothing to restore.
                raise
            try:
                with interrupts.deferred():
                    _restore(todo, service, planner, failure)
                    if service.sent.is_abandoned:
                        _add_doubt(failure)
            except BaseException as interrupt:
                # A signal that was deferred during the rollback. The rollback has ended.
                failure.__cause__ = interrupt
            raise failure from failure.__cause__
    warnings = dict.fromkeys((*todo.warnings, *latest.warnings, *service.warnings))
    removed = None
    if _is_removal(todo):
        removed = Removed(todo.goal, todo.if_refused, applied_at)
    return Outcome(True, todo.before, latest.before, tuple(warnings), todo.report, removed)


def _first_plan(goal: Any, service: W, planner: Planner[W]) -> Plan[W]:
    """The plan. What other hosts have read for the same task may show that there is nothing to do. Before a change or a
    refusal, the task reads itself."""
    try:
        seen = service.glance(goal)
        if seen is not None:
            todo = planner.plan(goal, seen)
            if not (todo.changed and service.has_shared):
                return todo
    except CmkError:
        if not service.has_shared:
            raise
    return planner.plan(goal, service.read(goal))


def predicted(goal: Any, service: W, planner: Planner[W]) -> Plan[W]:
    """The plan that `converge` would apply. Nothing is changed. Raises the same refusals as `converge`."""
    return planner.plan(goal, service.read(goal))


def unless_used(make: Callable[[], Outcome], *, keeps_used: bool) -> Outcome:
    """Call `make`, which disables, deletes or revokes something and reports if accounts use it. If accounts began to
    use it meanwhile, so that the change was undone, that is a failure. If what is used has to be kept (`keeps_used`),
    it is an outcome with a warning."""
    try:
        return make()
    except CmkError as failure:
        if not keeps_used:
            raise
        return kept(failure)


def kept(failure: CmkError) -> Outcome:
    """The outcome if accounts began to use what the task has removed, so that the removal was undone. Raises other
    errors. The removal is not tried again: reads may still show the state before the accounts were moved."""
    facts = failure.facts
    if failure.code != "in_use" or not facts.get("restored"):
        raise failure
    report = {"in_use_by": [*facts["accounts"], *facts["pools"]], "kept_until": None}
    if facts.get("restored_versions") is not None:
        report |= {"kept_versions": facts["restored_versions"], "disabled_versions": []}
    return Outcome(False, facts["current_state"], facts["current_state"], (failure.msg,), report)


def require_unused(
    removed: Removed,
    service: W,
    planner: Planner[W],
    wait: Callable[[Callable[[], CmkError | None]], CmkError | None],
    lock: Callable[[], AbstractContextManager[None]],
) -> None:
    """Ask again whether something uses what was removed. If something does, or if that cannot be found out, undo the
    removal and raise the error. After an interrupt, ask once.

    `wait` calls its argument until no read can be older than the removal, and returns the last result."""
    todo: Plan[W] = Plan(removed.goal, {}, {}, if_refused=removed.back)

    def used() -> CmkError | None:
        try:
            planner.plan(removed.goal, _read_again(service, removed.goal))
        except (Denied, NotFound, NotConverged, Unavailable) as unread:
            return unread
        return None

    with interrupts.raised():
        try:
            unread = wait(used)
            if unread is not None:
                raise unread
        except BaseException as ended:
            failure = as_failure(ended)
            failure.facts.update(applied=[])
            try:
                with interrupts.deferred(), lock():
                    if _is_refused(todo, service, planner, failure) and _put_back(
                        removed.back, None, service, planner, failure, removed_at=removed.at
                    ):
                        failure.facts.update(restored_versions=_versions(removed.goal))
            except BaseException as interrupt:
                failure.__cause__ = interrupt
            raise failure from failure.__cause__


def _versions(goal: Any) -> list[str] | None:
    """The versions of a key that were disabled; None if something else was removed."""
    return list(goal.taken_away) if isinstance(goal.taken_away, tuple) else None


def _is_removal(todo: Plan[Any]) -> bool:
    """Whether the plan disables, deletes or revokes something (usage.removal)."""
    return todo.rollback_goal is None and todo.if_refused is not None and bool(todo.steps)


def _apply(todo: Plan[W], service: W, applied: list[str]) -> None:
    for step in todo.steps:
        accepted = service.sent.accepted
        try:
            step.apply(service)
        except BaseException:
            # A step also waits until its write has taken effect, and may fail then.
            if service.sent.accepted > accepted:
                applied.append(step.name)
            raise
        applied.append(step.name)


def _add_doubt(failure: CmkError) -> None:
    failure.add(
        "The task did not wait any longer for the response to its request. The request may still take effect. Wait ten "
        "minutes before you run the task again."
    )
    if "restored" in failure.facts:
        failure.facts.update(restored=False)


def _look_until_shown(
    goal: Any, service: W, planner: Planner[W], at_least_until: float = 0.0
) -> tuple[Plan[W], CmkError | None]:
    """The last plan, and the error that describes the difference if the timeout has passed.

    Azure is eventually consistent, so it may not show a change, or a new resource, at once. A refusal is raised at
    once.
    """
    latest: Plan[W] | None = None

    def look() -> CmkError | None:
        nonlocal latest
        try:
            latest = planner.plan(goal, service.read(goal))
        except (NotFound, NotConverged) as missing:
            latest = None
            return missing
        return _not_shown(latest) if latest.changed else None

    missing = service.until_shown(look, at_least_until)
    if latest is None:
        raise missing or AssertionError
    return latest, missing


def _not_shown(latest: Plan[Any]) -> CmkError:
    return NotConverged(
        "Azure accepted the change, but a later read does not show it. Run the task again. If the task fails in the "
        "same way, see `missing` for the difference.",
        missing={"before": dict(latest.before), "after": dict(latest.after)},
    )


def _restore(todo: Plan[W], service: W, planner: Planner[W], failure: CmkError) -> None:
    way = todo.rollback_goal
    if way is not None and (
        _may_stay(todo, service, planner, failure) or _put_back(way, todo.before, service, planner, failure)
    ):
        return
    if todo.if_refused is not None and _is_refused(todo, service, planner, failure):
        is_removed = _is_removal(todo) and len(failure.facts["applied"]) == len(todo.steps)
        removed_at = time.monotonic() if is_removed else None
        if _put_back(todo.if_refused, todo.before, service, planner, failure, removed_at=removed_at):
            failure.facts.update(restored_versions=_versions(todo.goal))


def _may_stay(todo: Plan[W], service: W, planner: Planner[W], failure: CmkError) -> bool:
    """Whether the change has taken effect and can be used. Then it stays, although the task fails: another run may have
    made the same change and confirmed it. The current state is added to the failure."""
    if isinstance(failure, Refused):
        return False
    try:
        current = planner.plan(todo.goal, _read_again(service, todo.goal))
    except Exception:
        return False
    if current.changed or not current.before.get("available"):
        return False
    failure.add(f"The change took effect, and stays. {todo.rollback_goal.described(current.before)}")
    failure.facts.update(restored=False, current_state=dict(current.before))
    return True


def _is_refused(todo: Plan[W], service: W, planner: Planner[W], failure: CmkError) -> bool:
    """Whether the second check refuses the change, even if the change has failed before for another reason. If it
    does not, the current state is added to the failure."""
    if isinstance(failure, Refused):
        return True
    try:
        current = planner.plan(todo.goal, _read_again(service, todo.goal))
    except Exception as ended:
        found = as_failure(ended)
        failure.add(found.msg)
        # If a setting could be neither confirmed nor rolled back, it stays, unless a check refuses it.
        return todo.rollback_goal is None or isinstance(found, Refused)
    if todo.rollback_goal is not None:
        failure.add(todo.rollback_goal.described(current.before))
        failure.facts.update(current_state=dict(current.before))
    return False


def _write_back(previous: Any, service: W, planner: Planner[W], *, removed_at: float | None) -> None:
    """Write the previous setting. Repeat that while Azure does not respond, or does not show the resource: a key
    that is being deleted can be recovered only once its deletion is complete. If the run has certainly removed
    something (`removed_at`), a read that shows the previous setting may be out of date. Therefore wait until a read
    shows the removal, or until no read is out of date: then somebody else has restored the setting."""

    def attempt() -> CmkError | None:
        began = time.monotonic()
        try:
            plan = planner.plan(previous, _read_again(service, previous))
            if removed_at is not None and not plan.steps and began < removed_at + MAX_READ_DELAY:
                return _removal_not_shown()
            _apply(plan, service, [])
        except (NotFound, PlanOutdated, Unavailable) as obstacle:
            if obstacle.code in _NOT_RETRIED:
                raise
            return obstacle
        return None

    obstacle = service.until_shown(attempt, 0.0 if removed_at is None else removed_at + MAX_READ_DELAY)
    if obstacle is not None:
        raise obstacle


def _removal_not_shown() -> CmkError:
    return NotConverged(
        "Azure accepted the change, but later reads do not show it, so it is not known whether the previous setting "
        "was restored. Run azbatch.cmk.recover for the accounts."
    )


def _read_again(service: Service, goal: Any) -> Any:
    """Read from Azure, because another task or user may have changed the resource. A rollback must not undo that
    change."""
    service.forget()
    return service.read(goal)


def _put_back(
    previous: Any,
    before: Mapping[str, Any] | None,
    service: W,
    planner: Planner[W],
    failure: CmkError,
    *,
    removed_at: float | None = None,
) -> bool:
    """Restore the previous state with a plan, so that the rollback is also checked in advance, and writes nothing
    if nothing has changed.

    `before` is the previous state, if it is known. Adds the resulting state to the failure. Returns whether the
    rollback was completed.
    """
    try:
        _write_back(previous, service, planner, removed_at=removed_at)
        at_least_until = 0.0 if removed_at is None else time.monotonic() + MAX_READ_DELAY
        current, _missing = _look_until_shown(previous, service, planner, at_least_until)
    except Exception as ended:
        obstacle = as_failure(ended)
        failure.add(f"Restoring the previous setting also failed: {obstacle.msg}")
        if failure.facts["applied"]:
            failure.add("Azure had accepted the change, so it may be in effect.")
        failure.facts.update(restored=False, restore_failure=obstacle.result())
        return False
    restored = not current.changed if before is None else current.before == before
    if restored and failure.facts["applied"]:
        failure.add("The change was rolled back.")
    failure.add(previous.described(current.before))
    failure.facts.update(restored=restored, current_state=dict(current.before))
    return True
