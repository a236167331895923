# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rotation policies: when Key Vault rotates a key automatically."""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from . import errors

_DURATION = re.compile(
    r"P(?=.)(?:(\d{1,5})Y)?(?:(\d{1,5})M)?(?:(\d{1,5})W)?(?:(\d{1,5})D)?(?:T(?:(\d{1,5})H)?(?:(\d{1,5})M)?(?:(\d{1,5})S)?)?"
)
_DAY = timedelta(days=1)
_LONGEST = 36500 * _DAY
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class LifetimeAction:
    # Rotate or Notify
    kind: str
    # timeAfterCreate or timeBeforeExpiry
    trigger: str
    duration: str


NOTIFY = LifetimeAction("Notify", "timeBeforeExpiry", "P30D")


@dataclass
class RotationPolicy:
    actions: tuple[LifetimeAction, ...] = (NOTIFY,)
    expiry_time: str | None = None
    created: int | None = None
    updated: int | None = None

    def expires(self, created: int) -> int | None:
        return add(created, self.expiry_time) if self.expiry_time else None

    def due(self, created: int, expires: int | None, now: float) -> int | None:
        """When the version should have been rotated last, in seconds since 1970; None if rotation is not due.

        If several rotations are due, the result is the time of the last rotation. `created` and `expires` belong to the
        version.
        """
        moment = self.next(created, expires)
        if moment is None or moment > now:
            return None
        while (later := self.next(moment, self.expires(moment))) is not None and moment < later <= now:
            moment = later
        return moment

    def near_expiry(self, created: int, expires: int | None) -> int | None:
        """When the policy notifies about the version, in seconds since 1970; None if it does not."""
        notify = next((action for action in self.actions if action.kind == "Notify"), NOTIFY)
        if notify.trigger == "timeAfterCreate":
            return add(created, notify.duration)
        return None if expires is None else add(expires, notify.duration, -1)

    def next(self, created: int, expires: int | None) -> int | None:
        """When the version should be rotated, in seconds since 1970; None if the policy does not rotate the key."""
        rotate = next((action for action in self.actions if action.kind == "Rotate"), None)
        if rotate is None:
            return None
        if rotate.trigger == "timeAfterCreate":
            return add(created, rotate.duration)
        end = expires if expires is not None else self.expires(created)
        return None if end is None else add(end, rotate.duration, -1)


def add(moment: int, duration: str, sign: int = 1) -> int:
    """The time after a duration, or before it if `sign` is -1. Years and months follow the calendar."""
    years, months, weeks, days, hours, minutes, seconds = _parts(duration)
    start = _EPOCH + timedelta(seconds=moment)
    month = start.year * 12 + start.month - 1 + sign * (years * 12 + months)
    day = min(start.day, monthrange(month // 12, month % 12 + 1)[1])
    shifted = start.replace(year=month // 12, month=month % 12 + 1, day=day)
    rest = timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
    return int((shifted + sign * rest - _EPOCH).total_seconds())


def read(document: dict[str, Any], previous: RotationPolicy | None, now: int) -> RotationPolicy:
    """The policy in a request. Key Vault adds a notification if the policy has none. Raises AzureError."""
    entries = document.get("lifetimeActions") or []
    if not isinstance(entries, list):
        raise errors.invalid_policy("The lifetime actions are not a list.")
    actions = tuple(_action(entry) for entry in entries)
    if len({action.kind for action in actions}) != len(actions):
        raise errors.invalid_policy("There may be one lifetime action of each type.")
    if not any(action.kind == "Notify" for action in actions):
        actions = (*actions, NOTIFY)
    expiry = _mapping(document.get("attributes")).get("expiryTime") or None
    policy = RotationPolicy(actions, expiry, previous.created if previous and previous.created else now, now)
    _check(policy)
    return policy


def _mapping(value: Any) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise errors.invalid_policy("Lifetime actions, their parts and the attributes are objects.")
    return value or {}


def _action(document: Any) -> LifetimeAction:
    entry = _mapping(document)
    kind = str(_mapping(entry.get("action")).get("type")).title()
    triggers = {name: value for name, value in _mapping(entry.get("trigger")).items() if value is not None}
    if kind not in ("Rotate", "Notify") or len(triggers) != 1:
        raise errors.invalid_policy("A lifetime action takes a type, Rotate or Notify, and one trigger.")
    ((trigger, duration),) = triggers.items()
    if trigger not in ("timeAfterCreate", "timeBeforeExpiry"):
        raise errors.invalid_policy("A trigger is timeAfterCreate or timeBeforeExpiry.")
    _parts(duration)
    return LifetimeAction(kind, trigger, duration)


def _check(policy: RotationPolicy) -> None:
    life = _length(policy.expiry_time) if policy.expiry_time else None
    if life is not None and not 28 * _DAY <= life <= _LONGEST:
        raise errors.invalid_policy("The expiry time must be at least 28 days, and no more than 100 years.")
    for action in policy.actions:
        length = _length(action.duration)
        if not 7 * _DAY <= length <= _LONGEST:
            raise errors.invalid_policy(
                f"The time of {action.kind} must be at least 7 days, and no more than 100 years."
            )
        if action.kind == "Notify":
            continue
        if action.trigger == "timeBeforeExpiry" and life is None:
            raise errors.invalid_policy("Rotate by timeBeforeExpiry needs an expiry time.")
        if life is not None and life - length < 7 * _DAY:
            raise errors.invalid_policy("Rotate must be at least 7 days after creation and before expiry.")


def _length(duration: str) -> timedelta:
    years, months, weeks, days, hours, minutes, seconds = _parts(duration)
    return timedelta(days=years * 365 + months * 30 + weeks * 7 + days, hours=hours, minutes=minutes, seconds=seconds)


def _parts(duration: Any) -> list[int]:
    found = _DURATION.fullmatch(duration) if isinstance(duration, str) else None
    if found is None or not any(found.groups()):
        raise errors.invalid_policy(f"{duration} is not an ISO 8601 duration.")
    return [int(part or 0) for part in found.groups()]
