# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Batch accounts that the caller can see: none may be cut off from its key (invariant I2), each may be a host.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._concurrent import map_concurrent
from .._errors import Denied
from .resources import Resources


class VisibleAccounts:
    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def read(self) -> dict[str, list[Any]]:
        """Those of all subscriptions, the task's own first."""
        return self._of(self._resources.subscription_ids())

    def listed(self, subscriptions: Sequence[str]) -> dict[str, list[Any]]:
        """Those of these subscriptions; if none is named, of all that the caller sees."""
        return self._of(subscriptions or self._resources.listed_subscription_ids())

    def _of(self, subscriptions: Sequence[str]) -> dict[str, list[Any]]:
        """The `accounts`, and the subscriptions where the caller may not look (`unseen`)."""
        found = map_concurrent(self._accounts, subscriptions)
        return {
            "accounts": [account for accounts in found.values() for account in accounts or ()],
            "unseen": [f"/subscriptions/{name}" for name, accounts in found.items() if accounts is None],
        }

    def _accounts(self, subscription: str) -> list[dict[str, Any]] | None:
        try:
            return self._resources.accounts(subscription)
        except Denied:
            return None
