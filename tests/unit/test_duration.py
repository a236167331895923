# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ISO 8601 durations and points in time."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ansible_collections.azbatch.cmk.plugins.module_utils._core.duration import instant, seconds
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import InvalidOption

DAY = 86400


@pytest.mark.parametrize(
    ("duration", "length"),
    [
        (None, None),
        ("P1D", DAY),
        ("P90D", 90 * DAY),
        ("P2W", 14 * DAY),
        ("P1M", 30 * DAY),
        ("P18M", 540 * DAY),
        ("P1Y", 365 * DAY),
        ("P1Y6M2W3D", (365 + 180 + 14 + 3) * DAY),
        ("PT12H", DAY // 2),
        ("PT1M", 60),
        ("PT1H1M1S", 3661),
        ("P1DT1S", DAY + 1),
        (" P90D\n", 90 * DAY),
        ("90d", 90 * DAY),
        (" 90 D ", 90 * DAY),
        ("12h", DAY // 2),
        ("2w", 14 * DAY),
    ],
)
def test_length_in_seconds(duration: str | None, length: int | None) -> None:
    assert seconds(duration, "expires_in") == length


@pytest.mark.parametrize(
    "duration",
    [
        "",
        "P",
        "PT",
        "P1DT",
        "90",
        "90m",
        "90dd",
        "d",
        "-1d",
        "0d",
        "P90",
        "p90d",
        "P1.5D",
        "-P1D",
        "P1H",
        "PT1D",
        "P1D1Y",
        "P0D",
        "PT0S",
        "P101Y",
        "P36501D",
        f"P{'9' * 5000}D",
        "P\u0669D",
    ],
)
def test_invalid_durations_are_refused(duration: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        seconds(duration, "expires_in")

    assert refused.value.code == "invalid_option"
    assert refused.value.facts["option"] == "expires_in"
    assert refused.value.facts["value"] == duration


COUNT = st.integers(min_value=0, max_value=9999)


@given(COUNT, COUNT, COUNT, COUNT)
def test_parts_add_up(days: int, hours: int, minutes: int, rest: int) -> None:
    assume(days or hours or minutes or rest)

    written = seconds(f"P{days}DT{hours}H{minutes}M{rest}S", "expires_in")

    assert written == days * DAY + hours * 3600 + minutes * 60 + rest


@pytest.mark.parametrize(
    ("timestamp", "written"),
    [
        (None, None),
        (0, "1970-01-01T00:00:00Z"),
        (1_780_000_000, "2026-05-28T20:26:40Z"),
        (1_780_000_000.9, "2026-05-28T20:26:40Z"),
    ],
)
def test_point_in_time(timestamp: float | None, written: str | None) -> None:
    assert instant(timestamp) == written
