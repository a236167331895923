# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A planned change, its steps, the write requests that a task has sent, and the outcome of a task.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeAlias, TypeVar

from . import placeholders
from .errors import CmkError

P = ParamSpec("P")
# No read of Azure is out of date by more seconds. An assumption: Microsoft documents no limit.
MAX_READ_DELAY = 180


class Service(Protocol):
    """Reads and writes a resource. The writes are methods of a protocol of the resource (in its `goal.py`)."""

    @property
    def warnings(self) -> Sequence[str]:
        """The warnings of its writes."""

    @property
    def sent(self) -> SentWrites:
        """The writes that the task has sent."""

    @property
    def has_shared(self) -> bool:
        """Whether `glance` has used what another task has read."""

    def read(self, goal: Any) -> Any:
        """The observed state."""

    def glance(self, goal: Any) -> Any:
        """What `read` returns, also from reads of other tasks. None if that is not enough to find out whether there is
        something to do."""

    def forget(self) -> None:
        """All later reads are from Azure."""

    def until_shown(self, look: Callable[[], CmkError | None], at_least_until: float = 0.0) -> CmkError | None:
        """Call `look` until it returns None, or until a timeout and this time (time.monotonic()) have passed. Returns
        its last result. All calls but the first read from Azure."""


# The writes that the steps of a plan use. A service that has these and more can apply the steps.
W = TypeVar("W", bound=Service)


@dataclass(frozen=True)
class Right:
    """A right that a write needs: an action at the resource id `scope`. A scope from `rights.in_group` is in the task's
    own subscription."""

    action: str
    scope: str


@dataclass(frozen=True)
class VaultRight:
    """A right at the vault of this name. With Azure RBAC it is `action`. With access policies it is the key permission
    `permission` or, if that is not set, the action `policy_action`."""

    action: str
    vault: str
    permission: str | None = None
    policy_action: str | None = None
    # The resource group in which the vault is searched for first.
    looked_for_in: str | None = None
    # Whether the right is missing if the caller may not read the vault.
    reads_vault: bool = False


Needed: TypeAlias = "Right | VaultRight"


@dataclass(frozen=True)
class Step(Generic[W]):
    """One write with its arguments, and the rights that it needs. The write is a method of the protocol that the
    resource's service implements.

    Create it with the function `step`, so that mypy checks the arguments.
    """

    write: Callable[Concatenate[W, ...], None]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    # They follow from the write and its arguments.
    rights: tuple[Needed, ...] = field(default=(), compare=False)

    def needing(self, *rights: Needed) -> Step[W]:
        return replace(self, rights=rights)

    @property
    def name(self) -> str:
        return self.write.__name__

    def apply(self, service: W) -> None:
        # The method of the protocol has no body, so the service's method of the same name is called.
        getattr(service, self.name)(**self.arguments)


def step(write: Callable[Concatenate[W, P], None], *_keywords_only: P.args, **arguments: P.kwargs) -> Step[W]:
    """The step that calls `write` with these arguments. The methods of the protocols accept only keyword arguments."""
    return Step(write, arguments)


@dataclass(frozen=True)
class Plan(Generic[W]):
    """The difference between the observed state and the goal.

    `before` and `after` have the shape of the module's return value. `goal` is the desired state, without options
    such as `new_version` that would change the resource in each run, so that a plan after the steps is empty.
    `rollback_goal` is the previous state, for resources that are restored if a change fails. `if_refused` is the
    goal if there is no `rollback_goal` or the rollback to it fails, and a check refuses the change. `report` has
    further values of the result.
    """

    goal: Any
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    steps: tuple[Step[W], ...] = ()
    warnings: tuple[str, ...] = ()
    rollback_goal: Any = None
    if_refused: Any = None
    report: Mapping[str, Any] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        return bool(self.steps)

    @property
    def rights(self) -> list[Needed]:
        """The rights that the steps need."""
        return [right for step in self.steps for right in step.rights]

    def unchanged(self) -> Outcome:
        """The outcome of a plan without steps."""
        return Outcome(False, self.before, self.after, self.warnings, self.report)


@dataclass(frozen=True)
class Removed:
    """What a task has disabled, deleted or revoked. `goal` requires that nothing uses it, `back` restores it. `at` is
    the time of the last response (time.monotonic())."""

    goal: Any
    back: Any
    at: float


@dataclass(frozen=True)
class Outcome:
    """The result of a task. `removed` is what has to be asked for again once reads can be trusted."""

    changed: bool
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    report: Mapping[str, Any] = field(default_factory=dict)
    removed: Removed | None = None

    def summarized(self, summary: str) -> Outcome:
        """The outcome with a one-line summary."""
        return replace(self, report={**self.report, "summary": summary})

    def result(self, *, planned: bool = False) -> dict[str, Any]:
        """The task's result. For a `planned` change, values that only Azure can assign are `(known after apply)`."""
        result = {
            **self.after,
            **self.report,
            "changed": self.changed,
            "diff": {"before": _differing(self.before, self.after), "after": _differing(self.after, self.before)},
            **({"warnings": list(self.warnings)} if self.warnings else {}),
        }
        if planned and self.changed and "summary" in result:
            result["summary"] = f"Predicted: {result['summary']}"
        returned: dict[str, Any] = placeholders.shown(result) if planned else result
        return returned


def _differing(values: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """The values that differ from the others. Of a mapping in both, the values of it that differ."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        other = others.get(name)
        if isinstance(value, Mapping) and isinstance(other, Mapping) and value != other:
            found[name] = _differing(value, other)
        elif value != other:
            found[name] = value
    return found


def together(outcomes: Sequence[Outcome]) -> Outcome:
    """Combine the outcomes of several principals. If there are several, `principals` has the values of each
    outcome, and the other values are those of the first outcome."""
    if len(outcomes) == 1:
        return outcomes[0]
    first = outcomes[0] if outcomes else Outcome(False, {}, {})
    return Outcome(
        any(one.changed for one in outcomes),
        {**first.before, "principals": [dict(one.before) for one in outcomes]},
        {**first.after, "principals": [dict(one.after) for one in outcomes]},
        tuple(dict.fromkeys(warning for one in outcomes for warning in one.warnings)),
        _together([one.report for one in outcomes]),
    )


def _together(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Lists of several reports together. Whether something holds for all. Of other values the greatest, such as the
    latest time."""
    combined: dict[str, Any] = {}
    for name in reports[0] if reports else ():
        values = [report[name] for report in reports]
        if isinstance(values[0], list):
            combined[name] = [one for value in values for one in value]
        elif isinstance(values[0], bool):
            combined[name] = all(values)
        else:
            combined[name] = max(filter(None, values), default=None)
    return combined


@dataclass
class SentWrites:
    accepted: int = 0
    # Writes that may have taken effect, although Azure has sent no response, or a server error.
    in_doubt: int = 0
    # Whether an interrupt has ended the wait for a response. The write may still take effect.
    is_abandoned: bool = False

    @property
    def may_have_changed(self) -> bool:
        return self.accepted + self.in_doubt > 0

    def send(self, send: Callable[[], Any]) -> Any:
        """Call `send`, which returns the response of azure-core's pipeline."""
        self.in_doubt += 1
        try:
            response = send()
        except BaseException as ended:
            self.is_abandoned |= not isinstance(ended, Exception)
            raise
        status = response.http_response.status_code
        if status < 500:
            self.in_doubt -= 1
        if status < 400:
            self.accepted += 1
        return response
