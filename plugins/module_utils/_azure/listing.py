# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether all Batch accounts and pools that may use a key can be listed.

This module util is private to the collection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._checks.usage import Listed
from .session import Session
from .visible import VisibleAccounts

if TYPE_CHECKING:
    from .._resources.vault.client import Vaults


class Listing:
    """The service of `usage.plan`. The tasks of a run share the reads."""

    def __init__(self, session: Session, visible: VisibleAccounts, vaults: Vaults) -> None:
        self._session = session
        self._visible = visible
        self._vaults = vaults

    def read(self, goal: Any) -> Listed:
        def unlisted() -> Any:
            return self._visible.read()["unlisted"]

        found = self._session.cache.recent(unlisted, "unlisted")
        unseen = self._vaults.unseen(goal.vault) if goal.vault else []
        return {"accounts": [], "unlisted": [*found, *unseen]}
