# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A change that takes several nouns, stage by stage, and what its stages have come to.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from . import _account, _usage
from ._errors import CmkError
from ._interrupts import as_failure
from ._plan import Outcome, Step


@dataclass(frozen=True)
class Newest:
    """Of a key whose newest version is wanted for an account."""

    # What the run counts the key's forced versions by, and the account's forced rotations.
    key: str
    account: str
    # The version that the account is pinned to.
    used: str | None


@dataclass(frozen=True)
class Stage:
    """One noun's part."""

    # Of the cloud, by its name.
    service: str
    noun: Any
    goal: Any
    # The change is planned, with all checks, and not made.
    foresee: bool = False
    # Something is taken away that no task of the run needs more than another: one does it, by a name that they share.
    once: tuple[str, ...] = ()
    # By whose name it is locked: one task of the run at a time.
    alone: str | None = None
    # Of a key: the newest version is wanted, which the tasks of a run share.
    newest: Newest | None = None
    # A service's read that fails where a change must not be begun.
    requires: tuple[str, Step] | None = None
    # What stages after it may write: a service and a step of it. This stage is not begun if the caller lacks the rights
    # for that.
    later: tuple[tuple[str, Step], ...] = ()


# One at a time, or several that do not wait for each other.
Stages = Generator["Stage | tuple[Stage, ...]", Any, Any]


@dataclass
class Done:
    """`steps` are the parts of the whole that are reported, each of one stage or several."""

    steps: tuple[str, ...]
    outcomes: dict[str, list[Outcome]] = field(default_factory=dict)
    # What was there before the first of them, by what it is.
    before: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    # By what was left as it is, the ids of the accounts for whose sake it was.
    kept_for: dict[str, list[str]] = field(default_factory=dict)
    # By what was left as it is for a while, until when.
    kept_until: dict[str, str] = field(default_factory=dict)
    # Beside those of the outcomes.
    warnings: list[str] = field(default_factory=list)

    def add(self, step: str, outcome: Outcome) -> Outcome:
        self.outcomes.setdefault(step, []).append(outcome)
        return outcome

    def add_each(self, steps: Iterable[str], came_to: Sequence[Outcome | CmkError]) -> None:
        """Of stages that did not wait for each other. What was done is noted before a failure is raised."""
        for step, came in zip(steps, came_to, strict=True):
            if isinstance(came, Outcome):
                self.add(step, came)
        succeeded(came_to)

    def last(self, step: str) -> Outcome | None:
        return self.outcomes.get(step, [None])[-1]

    def keep(self, what: str, failure: CmkError) -> None:
        """What was refused because accounts use it, or did a moment ago, stays; any other failure goes on."""
        if failure.code == "in_grace":
            self.kept_until[what] = max(failure.facts["kept_until"], self.kept_until.get(what, ""))
        elif failure.code == "in_use":
            self.kept_for.setdefault(what, []).extend(failure.facts["accounts"])
        else:
            raise failure

    @property
    def changed_steps(self) -> dict[str, bool]:
        return {step: any(outcome.changed for outcome in self.outcomes.get(step, ())) for step in self.steps}

    @property
    def _all(self) -> list[Outcome]:
        return [outcome for outcomes in self.outcomes.values() for outcome in outcomes]

    def whole(self, report: Mapping[str, Any]) -> Outcome:
        changed = {step: outcomes[-1] for step, outcomes in self.outcomes.items() if outcomes[-1].changed}
        return Outcome(
            any(self.changed_steps.values()),
            {step: outcome.before for step, outcome in changed.items()},
            {step: outcome.after for step, outcome in changed.items()},
            tuple(dict.fromkeys([*(one for outcome in self._all for one in outcome.warnings), *self.warnings])),
            {**report, "changed_steps": self.changed_steps},
        )


def whole(stages: Stages, done: Done, report: Callable[[], Mapping[str, Any]]) -> Stages:
    """The stages, and what all of them come to; a failure tells what had been changed before it, and where it led."""
    try:
        yield from stages
    except Exception as ended:
        failure = as_failure(ended)
        failure.facts.update(changed_steps=done.changed_steps)
        if "encryption" in done.outcomes:
            failure.facts.update(so_far=done.whole(report()).report)
        raise failure from failure.__cause__
    return done.whole(report())


def of_account(
    goal: Any,
    account: Mapping[str, Any] | None,
    steps: tuple[str, ...],
    each: Callable[[Any, Mapping[str, Any], Done], Stages],
    report: Callable[[Any, Mapping[str, Any], Done], Mapping[str, Any]],
) -> Stages:
    """The whole of what is done with an account that has to be there, unless the goal lets it be missing."""
    if account is None and goal.may_be_missing:
        return _account.gone(goal.group, goal.account)
    there = _account.required(account, goal.group, goal.account)
    done = Done(steps)
    return (yield from whole(each(goal, there, done), done, lambda: report(goal, there, done)))


def succeeded(came_to: Sequence[Outcome | CmkError]) -> list[Outcome]:
    """The outcomes of stages that did not wait for each other, or the first failure, with what the others say."""
    failures = [came for came in came_to if isinstance(came, CmkError)]
    for other in failures[1:]:
        failures[0].add(other.msg)
    if failures:
        raise failures[0]
    return [came for came in came_to if isinstance(came, Outcome)]


def all_users_listed(what: str, otherwise: str, vault: str | None) -> Stage:
    """A stage that refuses `what` if Batch accounts on a key of the vault may exist that the caller cannot list. It is
    for the beginning: the account would have moved to another key before what it has left behind is refused."""
    return Stage("listing", _usage, _usage.AllListed(what, otherwise, vault), foresee=True)


def key_that_keeps_its_expiry(wanted: Stage, done: Done) -> Stages:
    """Accounts on a version that would expire earlier than it does now keep its expiry; the next version has the one
    that is asked for. So do accounts that may exist where they cannot be listed."""
    try:
        return (yield wanted)
    except CmkError as failure:
        if failure.code == "users_unknown":
            done.kept_for["expiry"] = [one["scope"] for one in failure.facts["unlisted"]]
        else:
            done.keep("expiry", failure)
    return (yield replace(wanted, goal=replace(wanted.goal, expires_in=None)))
