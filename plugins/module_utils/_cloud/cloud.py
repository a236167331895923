# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Azure's services as one caller sees them, each made when it is first asked for.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

from .._errors import CmkError, Refused
from .._plan import Outcome
from .access import Access
from .accounts import Accounts
from .diagnosis import Diagnosis
from .encryption import Encryption
from .evidence import Evidence
from .fleet import Fleet
from .identities import Identities
from .keys import Keys
from .resources import Resources
from .session import Session, silent
from .vaults import Vaults
from .visible import VisibleAccounts


class Cloud:
    """`connection`, `folder` and `notify` are those of a Session."""

    def __init__(
        self,
        connection: Mapping[str, Any],
        folder: str | None = None,
        notify: Callable[[str], None] = silent,
    ) -> None:
        self._session = Session(connection, folder, notify)

    def once(self, make: Callable[[], Outcome], *name: str) -> Outcome:
        """What one task of the run has done for all of them, with the lock that lets it be just one.

        What was refused for the sake of its users is not tried again before as many tasks have come by as there were
        users, for until then it is hardly worth the look.
        """
        files = self._session.files
        with files.locked("once", *name):
            kept = files.load("once", *name) or {}
            if "after" in kept:
                return Outcome(False, kept["after"], kept["after"])
            if kept.get("users", 0) > 1:
                files.store({"users": kept["users"] - 1}, "once", *name)
                raise Refused("It is still in use.", code="in_use", accounts=[])
            try:
                outcome = make()
            except CmkError as failure:
                if failure.code == "in_use":
                    files.store({"users": len(failure.facts["accounts"])}, "once", *name)
                raise
            if not outcome.foretold:
                files.store({"after": dict(outcome.after)}, "once", *name)
        return outcome

    def turn(self, name: str) -> AbstractContextManager[None]:
        """While the other tasks of the run wait that want theirs at the same thing."""
        return self._session.files.locked("turn", name)

    @cached_property
    def accounts(self) -> Accounts:
        return Accounts(self._session, self._resources, self._identities, self._evidence)

    @cached_property
    def vaults(self) -> Vaults:
        return Vaults(self._session, self._resources, self.visible, lambda: self.access)

    @cached_property
    def access(self) -> Access:
        return Access(self._session, self.vaults, self._identities, self.visible)

    @cached_property
    def keys(self) -> Keys:
        return Keys(self._session, self.visible)

    @cached_property
    def visible(self) -> VisibleAccounts:
        return VisibleAccounts(self._resources)

    @cached_property
    def encryption(self) -> Encryption:
        return Encryption(self._session, self.accounts, self._evidence, self._diagnosis)

    @cached_property
    def fleet(self) -> Fleet:
        return Fleet(
            self._session, self._resources, self.visible, self.vaults, self.keys, self.access, self._identities
        )

    @cached_property
    def _diagnosis(self) -> Diagnosis:
        return Diagnosis(self._evidence, self.vaults, self.keys, self._identities)

    @cached_property
    def _resources(self) -> Resources:
        return Resources(self._session)

    @cached_property
    def _identities(self) -> Identities:
        return Identities(self._session)

    @cached_property
    def _evidence(self) -> Evidence:
        return Evidence(self._session, self.vaults, self.keys, self.access)
