# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the services of all resources have in common: glances, and polls after a change.

This module util is private to the collection.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

from .._core.errors import CmkError
from .._core.plan import SentWrites
from .driver import Driver
from .session import Session


class Polled:
    """Base class of services that poll after a change until Azure shows the change."""

    _session: Session
    _driver: Driver

    @property
    def warnings(self) -> Sequence[str]:
        return self._session.warnings

    @property
    def sent(self) -> SentWrites:
        return self._session.sent

    def read(self, goal: Any) -> Any:
        raise NotImplementedError

    def glance(self, goal: Any) -> Any:
        """The result of `read`, also from what other hosts have read for the same task of the playbook. None if that is
        not enough to find out whether there is something to do."""
        if self.takes_away(goal):
            return None
        self._driver.has_shared = False
        with self._driver.glancing(self._session.task_began):
            return self.read(goal)

    def takes_away(self, goal: Any) -> bool:
        """Whether the task deletes, disables or revokes something. It decides by what it reads itself."""
        return not goal.present

    @property
    def has_shared(self) -> bool:
        """Whether `glance` has used what another task has read."""
        return self._driver.has_shared

    def forget(self) -> None:
        """All later reads are from Azure."""
        self._driver.forget()

    # The time until which `until_shown` polls even if `wait_timeout` has passed. 0.0: there is no such time.
    _polls_until = 0.0

    def until_shown(self, look: Callable[[], CmkError | None], at_least_until: float = 0.0) -> CmkError | None:
        """Call `look` until it returns None, or until `wait_timeout` and the time `at_least_until` have passed, and
        return its last result. All calls but the first read from Azure."""
        session, calls = self._session, itertools.count()

        def look_again() -> CmkError | None:
            if next(calls):
                self.forget()
            return look()

        deadline = max(time.monotonic() + session.wait_timeout, self._polls_until, at_least_until)
        return session.poll_until(look_again, deadline, "Azure to show the change")
