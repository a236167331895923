# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a decision returns: the change of a resource as a list of requests, and how it is confirmed and undone. The
outcome of a task.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias

from . import placeholders
from .docs import Docs, Ref
from .errors import CmkError

# A read that begins after a write was accepted shows the write within these seconds. An assumption: Microsoft documents
# no limit.
VALUE_LAG_SECONDS = 20


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


class Missing(NamedTuple):
    """The actions that the caller lacks with their scopes, and why vaults could not be found, which may be for a right
    too."""

    rights: Sequence[tuple[str, str]]
    hidden: Sequence[str]


@dataclass(frozen=True)
class Probe:
    """How a request that changes nothing is repeated: until Azure refuses it (`until_refused`), or until Azure accepts
    it. `is_refusal` is whether an error is the refusal. `complaint` is the error after the timeout."""

    is_refusal: Callable[[CmkError], bool]
    complaint: CmkError
    until_refused: bool = False


@dataclass(frozen=True)
class Request:
    """A write, with the rights that it needs. `name` is its name in results, `what` the write as an infinitive for
    errors. Without a `method`, nothing is sent, and only `shown` is waited for.

    `guard` raises an error if the write is not wanted any more. It is asked before a repetition and after a delay, and
    with `guard_first` also before the first try. In check mode, what it returns are warnings. `retries` is asked after
    a refusal that may end by itself: it raises an error if the refusal will not end. `waiting_for` completes "Waiting
    for ...".

    `operation` is whether the write is a long-running operation. `shown` waits until a read shows an effect that the
    response does not show. `shows` is the document in the response. `creates` is the resource that a PUT creates, and
    would replace if somebody else has created it. `follow_up` decides the requests that only the document in the
    response allows (None if there was no response), and is asked again until it decides none. `noted` is a name under
    which the run notes that the write was accepted. `undoes` is whether it restores the setting before an earlier
    write. `probe` is set if the request only finds out whether Azure accepts it.
    """

    name: str
    what: str
    method: str
    ref: str
    body: Mapping[str, Any] | None = None
    rights: tuple[Needed, ...] = ()
    guard: Callable[[Docs], Sequence[str] | None] | None = None
    guard_first: bool = False
    retries: Callable[[Docs], object] | None = None
    waiting_for: str = ""
    operation: bool = False
    shown: Callable[[Docs], object] | None = None
    shows: Ref[Any] | None = None
    creates: Ref[Any] | None = None
    follow_up: Callable[[Docs, Any], Change] | None = None
    noted: str = ""
    undoes: bool = False
    probe: Probe | None = None


@dataclass(frozen=True)
class Change:
    """The difference between what documents show and the goal: no requests if there is none.

    `before` and `after` have the shape of the module's return value. `report` has further values of the result.
    `confirm` decides once more after the requests, and finds no difference if Azure shows the change; by default, the
    same decision. If it raises an error, the change is undone.

    `undo` are decisions that restore the previous state, in their order: each is taken if the one before could not be
    carried out, or is refused. `undone` describes the state after that.

    `removed` is what the change disables, deletes or revokes: the versions of a key, or an empty sequence. Azure cannot
    do that on condition, so `confirm` also requires that nothing uses it, and is asked `delay` seconds after the last
    response. With `shares_delay`, the lock is released meanwhile, so that several hosts wait at the same time. None if
    the change removes nothing, or if its users do not matter.
    """

    before: Mapping[str, Any]
    after: Mapping[str, Any]
    requests: tuple[Request, ...] = ()
    warnings: tuple[str, ...] = ()
    report: Mapping[str, Any] = field(default_factory=dict)
    confirm: Decide | None = None
    undo: tuple[Decide, ...] = ()
    undone: Callable[[Mapping[str, Any]], str] = lambda _current: ""
    removed: Sequence[str] | None = None
    delay: float = 0.0
    shares_delay: bool = False

    @property
    def rights(self) -> list[Needed]:
        return [right for request in self.requests for right in request.rights]

    def unchanged(self) -> Outcome:
        """The outcome of a change without requests."""
        return Outcome(False, self.before, self.after, self.warnings, self.report)


Decide: TypeAlias = Callable[[Docs], Change]


@dataclass(frozen=True)
class Outcome:
    """The result of a task."""

    changed: bool
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    report: Mapping[str, Any] = field(default_factory=dict)

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
    for name in dict.fromkeys(name for report in reports for name in report):
        values = [report[name] for report in reports if name in report]
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
