# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The events of Key Vault, and their documents in both schemas."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ..shared import timing

# Values of the member `schema` of a subscription.
EVENT_GRID = "event_grid"
CLOUD_EVENTS = "cloud_events"

KEY_NEW_VERSION = "Microsoft.KeyVault.KeyNewVersionCreated"
KEY_NEAR_EXPIRY = "Microsoft.KeyVault.KeyNearExpiry"
KEY_EXPIRED = "Microsoft.KeyVault.KeyExpired"
ACCESS_POLICY_CHANGED = "Microsoft.KeyVault.VaultAccessPolicyChanged"

DATA_VERSION = "1"
METADATA_VERSION = "1"
SPEC_VERSION = "1.0"


@dataclass(frozen=True)
class Event:
    type: str
    # The resource id of the vault.
    topic: str
    subject: str
    # Seconds since 1970-01-01 UTC.
    time: float
    data: dict[str, Any]
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def vault_name(self) -> str:
        return self.topic.rpartition("/")[2]

    def document(self, schema: str) -> dict[str, Any]:
        if schema == CLOUD_EVENTS:
            return {
                "id": self.id,
                "source": self.topic,
                "subject": self.subject,
                "type": self.type,
                "time": iso(self.time),
                "data": self.data,
                "specversion": SPEC_VERSION,
            }
        return {
            "id": self.id,
            "topic": self.topic,
            "subject": self.subject,
            "eventType": self.type,
            "eventTime": iso(self.time),
            "data": self.data,
            "dataVersion": DATA_VERSION,
            "metadataVersion": METADATA_VERSION,
        }


def iso(moment: float) -> str:
    """A time in seconds since 1970-01-01 UTC, as Azure writes it."""
    return timing.iso(datetime.fromtimestamp(moment, UTC))
