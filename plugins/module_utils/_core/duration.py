# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Durations and points in time. A duration is an ISO 8601 duration, as Key Vault's rotation policies use it, or a
number with the unit `w`, `d` or `h`.

This module util is private to the collection.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from .errors import InvalidOption

# A month and a year have no fixed length. These are the lengths in Key Vault's documentation.
_DAYS = {"years": 365, "months": 30, "weeks": 7, "days": 1}
_DURATION = re.compile(
    r"P(?=.)(?:(?P<years>\d+)Y)?(?:(?P<months>\d+)M)?(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?"
    r"(?:T(?=.)(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+)S)?)?",
    re.ASCII,
)
_SHORT = re.compile(r"(?P<count>\d+)\s*(?P<unit>[wdh])", re.ASCII | re.IGNORECASE)
# Key Vault has no dates after the year 9999, and a longer duration is certainly a mistake.
_LONGEST_YEARS = 100


def iso(duration: str) -> str:
    """The duration as an ISO 8601 duration: `90d` is P90D, `12h` is PT12H."""
    found = _SHORT.fullmatch(duration.strip())
    if found is None:
        return duration.strip()
    return f"P{'T' if found['unit'] in 'hH' else ''}{found['count']}{found['unit'].upper()}"


def seconds(duration: str | None, option: str, *, or_none: bool = False) -> int | None:
    """The length of a duration such as 90d, P90D, PT12H or P1Y6M in seconds. Blanks around the duration are ignored.
    With `or_none`, it may be 0, such as P0D."""
    if duration is None:
        return None
    found = _DURATION.fullmatch(iso(duration))
    if found is None:
        raise InvalidOption(
            option, duration, "this is not a duration.", "Use for example 90d, 12h, or the ISO 8601 duration P18M."
        )
    # Python refuses to convert thousands of digits to a number.
    if any(len(count or "") > 12 for count in found.groups()):
        raise _too_long(duration, option)
    parts = {unit: int(count or 0) for unit, count in found.groupdict().items()}
    days = sum(length * parts[unit] for unit, length in _DAYS.items())
    length = days * 86400 + parts["hours"] * 3600 + parts["minutes"] * 60 + parts["seconds"]
    if not length and not or_none:
        raise InvalidOption(option, duration, "this duration is zero.", "Use for example 90d.")
    if length > _LONGEST_YEARS * 365 * 86400:
        raise _too_long(duration, option)
    return length


def _too_long(duration: str, option: str) -> InvalidOption:
    return InvalidOption(
        option, duration, f"this is longer than {_LONGEST_YEARS} years.", "Use for example 90d, P18M or P2Y."
    )


def instant(timestamp: float | None) -> str | None:
    """Seconds since 1970 as 2026-11-24T12:00:00Z."""
    if timestamp is None:
        return None
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(text: str | None) -> float | None:
    """The time in a response of Azure, in seconds since 1970. None if the response has no time."""
    if not text:
        return None
    # The time may have seven decimal places of a second, which Python cannot parse.
    return datetime.fromisoformat(text[:19]).replace(tzinfo=UTC).timestamp()
