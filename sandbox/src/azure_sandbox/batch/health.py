# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether an account is available: the rules that Batch and the page share. They change nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .account import Account

ANSWERS, REFUSES, BUSY = "answers", "refuses", "busy"


@dataclass(frozen=True)
class Health:
    kind: str
    reason: str = ""


def health(account: Account, unusable: Callable[[Account], str], now: float, recovery_seconds: float) -> Health:
    """`unusable` says why the account's key cannot be used, or nothing."""
    state = account.state(now)
    if state == "Failed":
        return Health(REFUSES, "The creation of the account has failed.")
    if state != "Succeeded":
        return Health(BUSY, state)
    protection = account.protection
    if protection is None:
        return Health(ANSWERS)
    reason = unusable(account)
    if reason:
        return Health(REFUSES, reason)
    if not protection.lost:
        return Health(ANSWERS)
    # Batch waits from the moment at which it notices; that moment is yet to come where back_at is none.
    back_at = now if protection.back_at is None else protection.back_at
    if now >= back_at + recovery_seconds:
        return Health(ANSWERS)
    was = protection.lost
    return Health(REFUSES, f"The key is accessible again, but the account has not recovered yet. It was: {was}")
