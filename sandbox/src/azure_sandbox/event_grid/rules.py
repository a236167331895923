# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The subscriptions, and the publication of events to them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..shared.world import World
from .events import Event
from .subscription import Subscription


@dataclass
class EventGrid:
    world: World
    subscriptions: dict[str, Subscription] = field(default_factory=dict)

    def publish(self, kind: str, vault_id: str, subject: str, data: dict[str, Any], moment: float) -> None:
        """Publish an event of a vault to the subscriptions that exist now."""
        if not self.subscriptions:
            return
        event = Event(kind, vault_id, subject, moment, data)
        for subscription in self.subscriptions.values():
            if subscription.wants(event):
                subscription.add(event, self.world.clock.time())
