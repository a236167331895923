# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The sandbox's clock, and the durations of Azure's operations."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


class Clock:
    def __init__(self) -> None:
        self._advanced = 0.0

    def advance(self, seconds: float) -> None:
        self._advanced += seconds

    def time(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        return time.time() + self._advanced

    def now(self) -> datetime:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=self.time())

    def iso(self, fraction_digits: int = 7) -> str:
        return iso(self.now(), fraction_digits)


def iso(moment: datetime, fraction_digits: int = 7) -> str:
    """The time as `2025-04-03T09:30:10.7797806Z`. Azure's services differ in the number of fraction digits."""
    fraction = f"{moment.microsecond:06d}0"[:fraction_digits]
    return f"{moment:%Y-%m-%dT%H:%M:%S}{'.' if fraction else ''}{fraction}Z"


@dataclass(frozen=True)
class Timing:
    """Durations in seconds of the sandbox's clock. The defaults are the quick setting. If a duration is 0, the
    operation is complete at the next request."""

    # azure-core treats a Retry-After of 0 as missing, and waits for its default of 30 s.
    retry_after: int = 1
    # Until a deleted resource group no longer exists. Its resources are deleted at once.
    group_delete: float = 0
    batch_create: float = 0
    batch_delete: float = 0
    pool_delete: float = 0
    # Until an account is available again, after Batch can use its key again.
    batch_recovery: float = 0
    vault_dns: float = 0
    vault_purge: float = 0
    key_delete: float = 0
    key_recover: float = 0
    # Seconds until the data plane applies a new or a deleted role assignment.
    role_propagation: float = 0
    policy_propagation: float = 0
    # Whether Resource Manager and Key Vault respond to too many requests with 429.
    throttling: bool = False


QUICK = Timing()

# Sources: sandbox/fidelity/timing.yml.
REALISTIC = Timing(
    retry_after=15,
    group_delete=30,
    batch_create=8,
    batch_delete=12,
    pool_delete=15,
    batch_recovery=600,
    vault_dns=31,
    vault_purge=600,
    key_delete=20,
    key_recover=5,
    role_propagation=60,
    policy_propagation=5,
    throttling=True,
)
