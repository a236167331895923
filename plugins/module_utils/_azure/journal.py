# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The writes of a task, with their outcomes. For all tasks of the run, when it has changed which kinds of resources:
earlier reads of them are out of date.

This module util is private to the collection.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from math import inf, nextafter
from typing import Any

from .._core import interrupts
from .._core.errors import Denied, NotFound, PlanOutdated, Rejected
from .._core.sent_writes import SentWrites
from .._documents.refs import ANY_KIND, kinds_changed, noted
from .run_store import RunFiles

_NOTES = "notes"
_REFUSALS = (Denied, NotFound, PlanOutdated, Rejected)


class WriteOutcome(Enum):
    # There is no response, or a server error, so the write may have taken effect.
    UNKNOWN = "unknown"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    # A check just before the request has failed.
    NOT_SENT = "not sent"


@dataclass
class Write:
    method: str
    body: Mapping[str, Any]
    # Whether it restores the setting before an earlier write.
    undoes: bool
    outcome: WriteOutcome = WriteOutcome.UNKNOWN
    # When the response was received, or the wait for it has ended (time.monotonic()).
    answered_at: float = 0.0

    @property
    def may_have_taken_effect(self) -> bool:
        return self.outcome in (WriteOutcome.ACCEPTED, WriteOutcome.UNKNOWN)


class Journal:
    def __init__(self, files: RunFiles, sent: SentWrites) -> None:
        self._files = files
        self._sent = sent
        self._writes: dict[str, list[Write]] = {}
        # When this task has last changed a kind, also if the run's store cannot be written.
        self._changed: dict[str, float] = {}

    def of(self, ref: str) -> Sequence[Write]:
        """The writes of this task to the resource."""
        return self._writes.get(ref.lower(), ())

    def last(self, ref: str) -> Write | None:
        return next(reversed(self.of(ref)), None)

    def is_in_doubt(self, ref: str) -> bool:
        """Whether it is not known if the last write has taken effect."""
        last = self.last(ref)
        return last is not None and last.outcome is WriteOutcome.UNKNOWN

    @property
    def resources_changed(self) -> list[str]:
        """The refs, in lower case, of resources that a write of this task may have changed, also if it was undone."""
        return [ref for ref in self._writes if self.last_effect(ref)]

    def last_effect(self, ref: str) -> Write | None:
        """The last write that may have taken effect."""
        return next((one for one in reversed(self.of(ref)) if one.may_have_taken_effect), None)

    def may_be_in_effect(self, ref: str) -> bool:
        """Whether a write of this task may have taken effect, and Azure has not accepted one that undoes it."""
        last = self.last_effect(ref)
        return last is not None and not (last.undoes and last.outcome is WriteOutcome.ACCEPTED)

    @contextmanager
    def writing(self, method: str, ref: str, body: Mapping[str, Any] | None, *, undoes: bool) -> Iterator[None]:
        """Note the write, and its outcome when the block ends."""
        if not self._writes:
            self._files.require_usable()
        write, in_doubt = Write(method, body or {}, undoes), self._sent.in_doubt
        self._writes.setdefault(ref.lower(), []).append(write)
        try:
            with self.changing(method, ref):
                yield
        except BaseException as failure:
            # An SDK sends a write again if there was no response, or a server error. The first try may have taken
            # effect, whatever the last try says.
            if isinstance(failure, _REFUSALS) and self._sent.in_doubt == in_doubt:
                is_sent = not isinstance(failure, PlanOutdated)
                write.outcome = WriteOutcome.REFUSED if is_sent else WriteOutcome.NOT_SENT
            raise
        finally:
            write.answered_at = time.monotonic()
            if write.may_have_taken_effect and (name := noted(method, ref)):
                self.note(name)
        write.outcome = WriteOutcome.ACCEPTED

    # What was read before a write is out of date

    @contextmanager
    def changing(self, method: str, ref: str) -> Iterator[None]:
        """At the end of the block, also if it fails, what was read before is out of date."""
        try:
            yield
        finally:
            # A rollback must not use what was read before the change, so an interrupt waits here.
            with interrupts.deferred():
                self.mark(*kinds_changed(method, ref))

    def mark(self, *kinds: str) -> None:
        """The run has changed resources of these kinds, or of all kinds: no earlier read of any task serves."""
        for kind in kinds or (ANY_KIND,):
            with self._files.locked("written", kind):
                self._changed[kind] = now = time.monotonic()
                self._files.store(now, "written", kind)

    def has_changed(self, kind: str) -> bool:
        """Whether this task has changed resources of this kind."""
        return kind in self._changed or ANY_KIND in self._changed

    def has_written(self, kind: str) -> bool:
        """Whether a task of the run has changed resources of exactly this kind."""
        return kind in self._changed or self._files.load("written", kind) is not None

    def readable_since(self, kind: str, at: float) -> float:
        """The earliest time, after `at`, at which a read may have begun that the run's last write to this kind has not
        made out of date."""
        return nextafter(max(at, self._written(kind)), inf)

    def _written(self, kind: str) -> float:
        kinds = kind, ANY_KIND
        return max(max(self._files.load("written", one) or 0.0, self._changed.get(one, 0.0)) for one in kinds)

    # What the run has done once for all tasks

    def note(self, name: str, at: float | None = None) -> None:
        """Note that the run has done this at this time (time.monotonic()), by default now."""
        with self._files.locked(_NOTES):
            self._files.store({**self._notes(), name: at or time.monotonic()}, _NOTES)

    def noted_at(self, name: str) -> float | None:
        return self._notes().get(name)

    def _notes(self) -> dict[str, float]:
        found: dict[str, float] = self._files.load(_NOTES) or {}
        return found

    # Tasks in other processes

    def handed_over(self) -> dict[str, Any]:
        """The name of the run and its notes, for a task in another process, or from that task. Times are ages in
        seconds, because clocks of machines differ."""
        now = time.monotonic()
        return {"run": self._files.run, "notes": {name: now - at for name, at in self._notes().items()}}

    def merge(self, handed: Mapping[str, Any]) -> None:
        """Add the notes that were handed over, none by a task that has failed before it signed in."""
        now = time.monotonic()
        for name, age in handed.get("notes", {}).items():
            self.note(name, now - age)
