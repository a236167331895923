# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The seam between the decisions and the executor: a task decides a change, and a change knows how it ends.

| method | when the executor asks it | a read serves |
|---|---|---|
| `Task.glance` | first: whether nothing is to be done | of any task since this host's previous task ended |
| `Task.decide` | then; raises all refusals | the subject: of this task; others: 20 s old |
| `Change.first` | before the change | the same |
| `Change.wanted` | before a repetition, and after a delay | now |
| `Change.will_end`, `Change.heard` | after a refusal, and after the response to a probe | now |
| `Change.shown`, `Change.follow_up` | after a response | now |
| `Change.confirm` | after the last request, until it finds no difference; a refusal undoes the change | \
the subject: since the response to the last request; others: 20 s old |
| `Change.back` | after a failure | now |

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .docs import Docs, Ref
from .errors import CmkError
from .outcome import Outcome
from .rights import Needed

# A read that begins after a write was accepted shows the write within these seconds. An assumption: Microsoft documents
# no limit.
VALUE_LAG_SECONDS = 20


@dataclass(frozen=True)
class Request:
    """A write, with the rights that it needs. `name` is its name in results, `what` the write as an infinitive for
    errors. Without a `method`, nothing is sent, and only its effect is waited for. `waiting_for` completes "Waiting for
    ...".

    `operation` is whether the write is a long-running operation. `shows` is the document in the response. `creates` is
    the resource that a PUT creates, and would replace if somebody else has created it. `noted` is a name under which
    the run notes that the write was accepted. `undoes` is whether it restores the setting before an earlier write. With
    `wanted_first`, `Change.wanted` is also asked before the first try. `is_probe` is set if the request only finds out
    whether Azure accepts it.
    """

    name: str
    what: str
    method: str
    ref: str
    body: Mapping[str, Any] | None = None
    rights: tuple[Needed, ...] = ()
    waiting_for: str = ""
    operation: bool = False
    shows: Ref[Any] | None = None
    creates: Ref[Any] | None = None
    noted: str = ""
    undoes: bool = False
    wanted_first: bool = False
    is_probe: bool = False


class Task:
    """What `Executor.ensure` makes true."""

    @property
    def lock(self) -> str | None:
        """The vault whose lock is held during the change."""
        return None

    @property
    def later(self) -> Sequence[Needed]:
        """Rights that the next task needs."""
        return ()

    def is_subject(self, ref: Ref[Any]) -> bool:
        """Whether the document is what is to be changed, or shows who uses that. Others are only checked."""
        return True

    def glance(self, docs: Docs) -> Change | None:
        """A change without requests if there is nothing to do; None if that is not known."""
        return self.decide(docs)

    def decide(self, docs: Docs) -> Change:
        """The difference between the documents and the goal."""
        raise NotImplementedError


@dataclass(frozen=True)
class Change:
    """The difference between what documents show and the goal: no requests if there is none. `before` and `after` have
    the shape of the module's return value, and `report` has further values of the result."""

    before: Mapping[str, Any]
    after: Mapping[str, Any]
    requests: tuple[Request, ...] = ()
    warnings: tuple[str, ...] = ()
    report: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rights(self) -> list[Needed]:
        """Those of the requests, and those that only the rollback needs."""
        return [right for request in self.requests for right in request.rights]

    @property
    def delay(self) -> float:
        """The seconds between the last response and `confirm`."""
        return 0.0

    @property
    def shares_delay(self) -> bool:
        """Whether the lock is released during the delay, so that several hosts wait at the same time."""
        return False

    def first(self, docs: Docs) -> Sequence[Task]:
        """What is done before the change. Raises an error if the change must not begin."""
        return ()

    def excuse(self, docs: Docs, failure: CmkError) -> str:
        """The warning if `first` has failed. Raises the failure if the change must not begin."""
        raise failure

    def wanted(self, docs: Docs, request: Request) -> Sequence[str] | None:
        """Raises an error if the request is not wanted any more. In check mode, what it returns are warnings."""
        return None

    def will_end(self, docs: Docs, request: Request, refusal: CmkError) -> None:
        """Raises an error if the refusal will not end by itself."""
        raise refusal

    def heard(self, request: Request, refusal: CmkError | None) -> CmkError | None:
        """What follows from the response to a probe (None: Azure has accepted it): None if that was waited for, or the
        error after the timeout. Raises a refusal that says something else."""
        raise NotImplementedError

    def shown(self, docs: Docs, request: Request) -> None:
        """Waits until a read shows an effect that the response does not show, and that the next request needs."""

    def is_subject(self, ref: Ref[Any]) -> bool:
        """Whether the document shows the change, or must not have changed since. `confirm` only checks the others."""
        return True

    def follow_up(self, request: Request, document: Any) -> Task | None:
        """What only the document in the response allows (None if there was no response). It is decided again until
        nothing is left to do."""
        return None

    def confirm(self, docs: Docs) -> Change:
        """The change that is left: no requests once Azure shows the change. Raises an error if it must be undone."""
        if self.requests:
            raise NotImplementedError
        return self

    def back(self) -> Sequence[Task]:
        """What restores the previous state: each is taken if the one before could not be carried out, or is refused."""
        return ()

    def undone(self, current: Mapping[str, Any]) -> str:
        """A sentence on the state after that."""
        return ""

    def failed(self, failure: CmkError) -> Outcome:
        """The outcome if the change has failed, and was undone as far as possible. Raises the failure if it is one."""
        raise failure from failure.__cause__

    def unchanged(self) -> Outcome:
        """The outcome of a change without requests."""
        return Outcome(False, self.before, self.after, self.warnings, self.report)


@dataclass(frozen=True, kw_only=True)
class Decided(Change):
    """A change that the same decision confirms."""

    task: Task

    def is_subject(self, ref: Ref[Any]) -> bool:
        return self.task.is_subject(ref)

    def confirm(self, docs: Docs) -> Change:
        return self.task.decide(docs)


@dataclass(frozen=True)
class Removal(Change):
    """Disables, deletes or revokes what nothing uses. Azure cannot do that on condition, so `confirm` asks again who
    uses it. `versions` are those that are disabled."""

    versions: Sequence[str] = ()

    @property
    def keeps_used(self) -> bool:
        """Whether it is a success with a warning if accounts began to use it meanwhile, so that it was restored."""
        return False

    def failed(self, failure: CmkError) -> Outcome:
        """It is not tried again: reads may still show the state before the accounts were moved."""
        facts = failure.facts
        if not self.keeps_used or failure.code != "in_use" or not facts.get("restored"):
            raise failure from failure.__cause__
        users = [*facts["accounts"], *facts["pools"]]
        report = {"in_use_by": users, "kept_until": facts.get("kept_until"), "restored": True}
        if self.versions:
            report |= {"kept_versions": list(self.versions), "disabled_versions": []}
        return Outcome(False, facts["current_state"], facts["current_state"], (failure.msg,), report)
