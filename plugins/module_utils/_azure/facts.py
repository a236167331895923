# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a decision knows beside documents: the connection, the timeout, and what the run has written.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .session import Session


class Facts:
    def __init__(self, session: Session) -> None:
        self._session = session
        self.journal = session.journal
        # The timeout of a change, in seconds.
        self.wait_timeout = session.wait_timeout
        # When the task began (time.monotonic()).
        self.began_at = session.began_at
        # A name of the run. None if the task is alone.
        self.run = session.run

    @property
    def subscription(self) -> str:
        """The task's own subscription."""
        return self._session.subscription_id

    @property
    def vaults_in(self) -> str:
        """The subscription in which vaults are searched for first."""
        return self._session.vault_subscription_id

    @property
    def users_in(self) -> Sequence[str]:
        """The subscriptions of all users of keys, in lower case. Empty: all that Azure lists for the caller."""
        return self._session.users_in

    @property
    def vault_suffix(self) -> str:
        return self._session.environment.vault_suffix

    @property
    def caller(self) -> Mapping[str, str]:
        """The object id and the tenant of the caller."""
        return self._session.caller
