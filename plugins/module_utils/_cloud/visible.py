# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Batch accounts that the caller can see, for whoever must not be cut off from a key (invariant I2).

This module util is private to the collection.
"""

from __future__ import annotations

from typing import Any

from .._errors import Denied
from . import _sdk
from .resources import Resources
from .session import Session


class VisibleAccounts:
    def __init__(self, session: Session, resources: Resources) -> None:
        self._session = session
        self._resources = resources

    def read(self) -> dict[str, list[Any]]:
        """Those of all subscriptions (`accounts`), and the subscriptions where the caller may not look (`unseen`)."""
        accounts: list[Any] = []
        unseen: list[str] = []
        for subscription in self._resources.subscription_ids():
            client = self._session.client("azure-mgmt-batch", "BatchManagementClient", subscription)
            try:
                with _sdk.translated(f"list the Batch accounts of the subscription {subscription}"):
                    accounts += _sdk.documents(client.batch_account.list)
            except Denied:
                unseen.append(f"/subscriptions/{subscription}")
        return {"accounts": accounts, "unseen": unseen}
