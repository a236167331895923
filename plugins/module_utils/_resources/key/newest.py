# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The newest version of a key, for a Batch account that is about to be moved to the version.

No version is stored for the rest of the run, because other tasks or runs may create a newer version at any time.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from ..._azure.driver import Driver
from ..._azure.run_store import vault_lock
from ..._azure.session import Session
from ..._core.errors import CmkError
from ..._core.ids import key_in_vault
from ..._core.plan import Outcome
from . import plan as key_plan
from .client import Keys
from .forced_versions import ForcedVersions
from .goal import Goal, KeyWrites

# Brings the key to the state of a goal.
Make = Callable[[Goal], Outcome]


class Newest:
    def __init__(self, session: Session, driver: Driver, keys: Keys) -> None:
        self._session = session
        self._driver = driver
        self._keys = keys
        self._forced = ForcedVersions(session.files)

    def version(self, goal: Goal, used: str | None, make: Make) -> Outcome:
        """The key. If rotation is due or forced, a new version is created, once for all tasks of the run.

        `used` is the version that the account is pinned to. If another host has read the newest version for the same
        task of the playbook some seconds ago, that version is used, unless the account uses a newer one.
        """
        goal = replace(goal, at_least=used)
        if goal.new_version:
            # The tag of the version shows that the run has made it, even if the notes of the run are lost.
            goal = replace(goal, new_version_for=goal.new_version_for or self._session.run)
            made = self._forced_version(goal, make)
            if made is not None:
                return made
            goal = replace(goal, new_version=False)
        return self._known(goal, make)

    def _forced_version(self, goal: Goal, make: Make) -> Outcome | None:
        """Create the forced version. None if the run has already created it. A version that another run has created
        for the same purpose counts too."""
        key = key_in_vault(goal.vault, goal.name)
        with vault_lock(self._session.files, goal.vault):
            if self._forced.is_made(key):
                return None
            try:
                outcome = make(goal)
            except CmkError as failure:
                if KeyWrites.create.__name__ in failure.facts.get("applied", ()):
                    self._forced.made(key)
                raise
            self._forced.made(key)
            return outcome

    def _known(self, goal: Goal, make: Make) -> Outcome:
        """The key as a host has read it for the same task of the playbook, if there is nothing to change. Otherwise
        wait for the lock of the vault, and read again."""
        with suppress(CmkError), self._driver.glancing(self._session.task_began):
            plan = key_plan.plan(goal, self._keys.read(goal))
            if not plan.changed:
                return plan.unchanged()
        with vault_lock(self._session.files, goal.vault):
            self._driver.forget("key")
            return make(goal)
