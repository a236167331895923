# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The writes of a task, with their outcomes, and the last key that the tasks of the run have set for each account.

This module util is private to the collection.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any

from .._core.errors import Denied, NotFound, PlanOutdated, Rejected
from .._core.plan import SentWrites
from .run_store import RunFiles


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
    # When the response was received (time.monotonic()).
    answered_at: float = 0.0
    # Whether a read has shown the change.
    is_shown: bool = False
    # Whether the resource was usable after the write, and what was read to confirm that.
    is_confirmed: bool = False
    evidence: Any = None

    @property
    def may_have_taken_effect(self) -> bool:
        return self.outcome in (WriteOutcome.ACCEPTED, WriteOutcome.UNKNOWN)


class Journal:
    def __init__(self, files: RunFiles, sent: SentWrites) -> None:
        self._files = files
        self._sent = sent
        self._writes: dict[str, list[Write]] = {}

    def of(self, ref: str) -> Sequence[Write]:
        """The writes of this task to the resource."""
        return self._writes.get(ref.lower(), ())

    def last(self, ref: str) -> Write | None:
        return next(reversed(self.of(ref)), None)

    def is_in_doubt(self, ref: str) -> bool:
        """Whether it is not known if the last write has taken effect."""
        last = self.last(ref)
        return last is not None and last.outcome is WriteOutcome.UNKNOWN

    def last_effect(self, ref: str) -> Write | None:
        """The last write that may have taken effect."""
        return next((one for one in reversed(self.of(ref)) if one.may_have_taken_effect), None)

    @contextmanager
    def writing(self, method: str, ref: str, body: Mapping[str, Any] | None, *, undoes: bool) -> Iterator[None]:
        write, in_doubt = Write(method, body or {}, undoes), self._sent.in_doubt
        self._writes.setdefault(ref.lower(), []).append(write)
        try:
            yield
        except (Denied, NotFound, PlanOutdated, Rejected) as refused:
            # An SDK sends a write again if there was no response, or a server error. The first try may have taken
            # effect, whatever the last try says.
            if self._sent.in_doubt == in_doubt:
                is_sent = not isinstance(refused, PlanOutdated)
                write.outcome = WriteOutcome.REFUSED if is_sent else WriteOutcome.NOT_SENT
            raise
        write.outcome, write.answered_at = WriteOutcome.ACCEPTED, time.monotonic()
        if "encryption" in write.body.get("properties", {}):
            noted = {"body": write.body, "at": write.answered_at}
            self._files.store(noted, "key set by the run", ref.lower())

    def key_set_by_run(self, ref: str) -> tuple[Mapping[str, Any], float] | None:
        """The body of the last write of the run that has set the account's key, and its time (time.monotonic())."""
        noted = self._files.load("key set by the run", ref.lower())
        return None if noted is None else (noted["body"], noted["at"])
