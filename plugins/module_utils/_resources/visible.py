# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The users of keys (_questions/users.py), completed with what the run has written within the longest read delay.

This module util is private to the collection.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable, Sequence
from functools import partial

from .._azure.driver import Driver
from .._azure.run_store import RunFiles
from .._azure.session import Session
from .._checks.usage import DiskKey, Listed, Unlisted, Visible
from .._core.concurrent import value_or_error
from .._core.documents import Account
from .._core.errors import CmkError
from .._questions import users


class HandledAccounts:
    """The ids of the Batch accounts that tasks of this run have read, in the run's shared store. The ids are in
    several lists, so that adding one of ten thousand ids does not read and write all of them."""

    _LISTS = 256

    def __init__(self, files: RunFiles) -> None:
        self._files = files

    def ids(self) -> list[str]:
        return [one for number in range(self._LISTS) for one in self._load(number)]

    def add(self, account_id: str) -> None:
        number = zlib.crc32(account_id.lower().encode()) % self._LISTS
        if account_id.lower() in self._load(number):
            return
        with self._files.locked(*self._name(number)):
            self._files.store([*self._load(number), account_id.lower()], *self._name(number))

    def _load(self, number: int) -> list[str]:
        found: list[str] = self._files.load(*self._name(number)) or []
        return found

    @staticmethod
    def _name(number: int) -> tuple[str, str]:
        return "handled accounts", str(number)


class VisibleAccounts:
    def __init__(self, session: Session, driver: Driver, handled: HandledAccounts) -> None:
        self._session = session
        self._driver = driver
        self._handled = handled
        # Ids of the accounts that this task has listed.
        self._known: set[str] = set()
        # The time (time.monotonic()) before which no read of a user may have begun. None: now.
        self.not_before: float | None = None

    def read(self) -> Visible:
        """All accounts, and the keys of their pools' disks, for `usage.guard`."""
        found = self.everywhere()
        disks, unlisted = self.disks(found["accounts"])
        return {"accounts": found["accounts"], "disks": disks, "unlisted": [*found["unlisted"], *unlisted]}

    def disks(self, accounts: Sequence[Account]) -> tuple[list[DiskKey], list[Unlisted]]:
        """The keys of all pools of the accounts, and the subscriptions in which the caller may not list pools."""
        recently = self._session.journal.written_lately()
        return self._driver.solve(partial(users.disks, accounts=accounts, recently=recently), self._since)

    def changed_at(self, accounts: Iterable[Account]) -> tuple[dict[str, float | None], float]:
        """When the accounts were changed, by their ids, as far as that is certain; and the latest time of the
        responses."""
        changed, now = self._driver.solve(partial(users.changed_at, accounts=list(accounts)), self._since)
        return self._session.journal.dated(changed), now

    def everywhere(self) -> Listed:
        """The accounts of all subscriptions, those of the task's own subscription first. An account that the run has
        written within the longest read delay is among them as listed and as written, because Azure may show it as it
        was before."""
        question = partial(users.everywhere, own=self._session.subscription_id, seen=self._seen)
        listed = self._noted(self._driver.solve(question, time.monotonic()))
        accounts = self._session.journal.with_written(listed["accounts"])
        return {"accounts": accounts, "unlisted": listed["unlisted"]}

    def listed(self, subscriptions: Sequence[str]) -> Listed:
        """The accounts of these subscriptions, by default of all that the caller can read (users.of_subscriptions)."""
        known = value_or_error(lambda: self._session.subscription_id, CmkError)
        own = known if isinstance(known, str) else None
        question = partial(users.of_subscriptions, subscriptions=subscriptions, own=own, seen=self._seen)
        return self._noted(self._driver.solve(question, time.monotonic()))

    def _noted(self, listed: Listed) -> Listed:
        self._known |= {one["id"].lower() for one in listed["accounts"]}
        return listed

    @property
    def _since(self) -> float:
        return time.monotonic() if self.not_before is None else self.not_before

    @property
    def _seen(self) -> users.Seen:
        return users.Seen(self._handled.ids(), self._known)
