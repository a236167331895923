# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ISO 8601 durations and points in time."""

from __future__ import annotations

import pytest

from ansible_collections.azbatch.cmk.plugins.module_utils._core.duration import instant, seconds
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import InvalidOption

DAY = 86400


@pytest.mark.parametrize(
    ("duration", "length"),
    [
        (None, None),
        ("P1D", DAY),
        ("P1Y6M2W3D", (365 + 180 + 14 + 3) * DAY),
        ("PT12H", DAY // 2),
        ("PT1H1M1S", 3661),
        (" P90D\n", 90 * DAY),
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
        "P1DT",
        "90",
        "0d",
        "p90d",
        "P1.5D",
        "P1H",
        "P0D",
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


@pytest.mark.parametrize(
    ("timestamp", "written"),
    [
        (None, None),
        (1_780_000_000.9, "2026-05-28T20:26:40Z"),
    ],
)
def test_point_in_time(timestamp: float | None, written: str | None) -> None:
    assert instant(timestamp) == written
