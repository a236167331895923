# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The newest version of a key for the accounts of a run that share it, made by one of their tasks if that is due.

No task works with a version that the run remembers: others, or another run, may make a newer one at any time.

This module util is private to the collection.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .. import _stages
from .._errors import CmkError
from .._key_goal import Goal
from .._plan import Outcome
from .forced_versions import ForcedVersions
from .session import Session
from .turns import refused_lately, turn

# Plans a goal, and in the case of the second reaches it.
Look = Callable[[Goal], Outcome]
Read = Callable[[], dict[str, Any]]


class Newest:
    def __init__(self, session: Session) -> None:
        self._session = session
        self._forced = ForcedVersions(session.files)

    def version(self, goal: Goal, wanted: _stages.Newest, look: Look, make: Look) -> Outcome:
        """What is said of the key, with a version made if one is due or forced.

        For an account that is on the newest version already, what the run read a moment ago is good enough. For an
        account that is to be moved, the newest version is read again.
        """
        began = time.monotonic()
        if goal.new_version:
            forced = self._forced_version(goal, wanted, make)
            if forced is not None:
                return forced
            goal = replace(goal, new_version=False)
        known = self._known(goal, wanted, look, make)
        if known.changed or wanted.used in (None, known.after.get("version")):
            return known
        return self._since(began, replace(goal, at_least=wanted.used), look, make)

    def _forced_version(self, goal: Goal, wanted: _stages.Newest, make: Look) -> Outcome | None:
        """None if the run has made the version that this rotation of the account wants."""
        with turn(self._session.files, goal.vault):
            if self._forced.is_made(wanted.key, wanted.account):
                return None
            self._session.seen.forget("key")
            try:
                outcome = make(goal)
            except CmkError as failure:
                if "create" in failure.facts.get("applied", ()):
                    self._forced.made(wanted.key)
                raise
            self._forced.made(wanted.key)
            return outcome

    def _known(self, goal: Goal, wanted: _stages.Newest, look: Look, make: Look) -> Outcome:
        """What a task of the run read a moment ago, after the run's own last write to a key."""
        # For another principal too, nothing from before the run's last forced version.
        name = ("newest", repr(goal), str(self._forced.count(wanted.key)))

        def shared(read: Read) -> Any:
            with refused_lately(self._session.files, *name):
                return self._session.recent.read(read, "key", *name)

        return self._shared(shared, goal, look, make)

    def _since(self, began: float, goal: Goal, look: Look, make: Look) -> Outcome:
        """As Key Vault has it since this task began. Tasks that wait for that share a read."""

        def shared(read: Read) -> Any:
            return self._session.recent.read_since(read, began, "newest", repr(goal))

        return self._shared(shared, goal, look, make)

    def _shared(self, shared: Callable[[Read], Any], goal: Goal, look: Look, make: Look) -> Outcome:
        """What `shared` has, or what this task reads for others as well."""
        own: list[Outcome] = []

        def read() -> dict[str, Any]:
            own.append(self._now(goal, look, make))
            return dict(own[0].after)

        kept = shared(read)
        return own[0] if own else Outcome(False, kept, kept)

    def _now(self, goal: Goal, look: Look, make: Look) -> Outcome:
        """As Key Vault has it now. Only a task that finds something to do waits for the others, and looks again."""
        self._session.seen.forget("key")
        outcome = look(goal)
        if not outcome.changed:
            return outcome
        with turn(self._session.files, goal.vault):
            self._session.seen.forget("key")
            return make(goal)
