# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A subscription: the webhook that receives events, and the events that are not delivered yet.

Source of the rules: https://learn.microsoft.com/azure/event-grid/delivery-and-retry
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from .events import EVENT_GRID, Event, iso

# How long Event Grid waits before the next attempt, in seconds. After the last value, it waits LAST_RETRY_SECONDS.
RETRY_SECONDS = (10, 30, 60, 300, 600, 1800, 3600, 3 * 3600, 6 * 3600)
LAST_RETRY_SECONDS = 12 * 3600
# After these status codes, Event Grid waits longer than that.
LEAST_SECONDS = {408: 120, 503: 30}
# An event is dropped if it cannot be delivered within this time.
TIME_TO_LIVE_SECONDS = 24 * 3600
# Bad Request, Unauthorized, Forbidden, Not Found, Request Entity Too Large. The sandbox stores no such events.
NOT_RETRIED = frozenset({400, 401, 403, 404, 413})
ACCEPTED = range(200, 205)
# With `reorder`, the events of this time are delivered in reverse order.
REORDER_SECONDS = 1.0


# Two deliveries of one event are different, so they are compared by identity.
@dataclass(eq=False)
class Pending:
    """An event that is to be delivered. Times are seconds of the sandbox's clock since 1970-01-01 UTC."""

    event: Event
    due_at: float
    expires_at: float
    attempts: int = 0
    is_duplicate: bool = False


@dataclass
class Subscription:
    endpoint: str
    schema: str = EVENT_GRID
    # Headers of each delivery. Their values are secret.
    headers: dict[str, str] = field(default_factory=dict)
    # The vault whose events are delivered, in lower case; empty: all vaults.
    vault: str = ""
    duplicates: bool = False
    reorder: bool = False
    # The certificates, in PEM format, that an https endpoint may use; empty: those that the system trusts.
    certificate: str = ""
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    pending: list[Pending] = field(default_factory=list)
    delivered: int = 0
    dropped: int = 0
    failed_attempts: int = 0
    last_failure: str = ""

    @property
    def shown_endpoint(self) -> str:
        """The endpoint without its query, which may contain a secret."""
        return urlsplit(self.endpoint)._replace(query="", fragment="").geturl()

    def wants(self, event: Event) -> bool:
        return self.vault in ("", event.vault_name.lower())

    def add(self, event: Event, now: float) -> None:
        due_at = now + REORDER_SECONDS if self.reorder else now
        self.pending.append(Pending(event, due_at, now + TIME_TO_LIVE_SECONDS))

    def due(self, now: float) -> Pending | None:
        """The event of the next request; None if no event is due."""
        due = [one for one in self.pending if one.due_at <= now]
        return due[-1 if self.reorder else 0] if due else None

    def next_due(self) -> float:
        return min((one.due_at for one in self.pending), default=float("inf"))

    def record(self, one: Pending, status: int | None, failure: str, now: float) -> None:
        """Record the result of a request. `status` is None if there was no response; `failure` then says why."""
        if status in ACCEPTED:
            self.pending.remove(one)
            self.delivered += 1
            if self.duplicates and not one.is_duplicate:
                self.pending.append(Pending(one.event, now, one.expires_at, is_duplicate=True))
            return
        self.last_failure = failure or f"the endpoint responded with {status}"
        self.failed_attempts += 1
        number, one.attempts = one.attempts, one.attempts + 1
        wait = RETRY_SECONDS[number] if number < len(RETRY_SECONDS) else LAST_RETRY_SECONDS
        one.due_at = now + max(wait, LEAST_SECONDS.get(status or 0, 0))
        if status in NOT_RETRIED or one.due_at > one.expires_at:
            self.pending.remove(one)
            self.dropped += 1

    def document(self) -> dict[str, Any]:
        """The subscription without its secrets: the query of the endpoint and the values of the headers."""
        return {
            "id": self.id,
            "state": "active",
            "endpoint": self.shown_endpoint,
            "schema": self.schema,
            "header_names": [*self.headers],
            "vault": self.vault,
            "duplicates": self.duplicates,
            "reorder": self.reorder,
            "delivered": self.delivered,
            "pending": len(self.pending),
            "next_attempt": iso(self.next_due()) if self.pending else None,
            "dropped": self.dropped,
            "failed_attempts": self.failed_attempts,
            "last_failure": self.last_failure,
        }
