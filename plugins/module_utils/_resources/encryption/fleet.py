# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads many Batch accounts with the documents that their keys depend on. Changes nothing.

This module util is private to the collection.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from ..._azure.driver import Driver
from ..._azure.session import Session
from ..._checks.usage import Listed
from ..._core.errors import CmkError, NotConverged
from ..._core.plan import MAX_READ_DELAY
from ..._documents import refs
from ..._questions import fleet
from ..visible import VisibleAccounts


class Fleet:
    def __init__(self, session: Session, driver: Driver, visible: VisibleAccounts) -> None:
        self._session = session
        self._driver = driver
        self._visible = visible

    def read(self, scope: Any) -> dict[str, Any]:
        """The accounts of the scope (_audit.options), and what their keys depend on (_questions/fleet.py)."""
        listed = self._shown(scope)
        tenant = self._session.caller["tenant_id"]
        question = partial(fleet.read, accounts=listed["accounts"], tenant_id=tenant, with_pools=scope.pools)
        return {**self._driver.solve(question, time.monotonic()), "unlisted": listed["unlisted"]}

    def _shown(self, scope: Any) -> Listed:
        """The accounts, once lists show the keys that the run has set, or no list can be older than these writes."""
        listed: Listed = {"accounts": [], "unlisted": []}

        def hidden() -> CmkError | None:
            nonlocal listed
            listed = self._accounts(scope)
            if not any(map(self._session.journal.may_hide_write, listed["accounts"])):
                return None
            return NotConverged("Lists of Batch accounts do not show yet which keys this run has set.")

        self._session.poll_until(hidden, time.monotonic() + MAX_READ_DELAY, "Azure to list the keys of this run")
        return listed

    def _accounts(self, scope: Any) -> Listed:
        if scope.group is None:
            return self._visible.listed(scope.subscriptions)
        own = refs.accounts_of(self._session.subscription_id, scope.group)
        listed = self._driver.get(own, time.monotonic()) or []
        named = scope.account and scope.account.lower()
        return {"accounts": [one for one in listed if not named or one["name"].lower() == named], "unlisted": []}
