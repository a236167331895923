# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The progress line of a run over many hosts."""

from __future__ import annotations

import pytest

from ansible_collections.azbatch.cmk.plugins.plugin_utils._progress import PlayProgress, duration


def test_finished_waves_are_counted() -> None:
    """One host, the canary, is no basis for an estimate."""
    progress = PlayProgress(total=100, began=50.0)
    progress.next_wave(1)
    assert progress.line(60.0) == "0 of 100 hosts done"
    progress.next_task("Rotate")
    progress.finished.add("canary")
    assert progress.line(60.0) == "0 of 100 hosts done; wave 1: 1 of 1 finished 'Rotate'"

    progress.end_wave(0)
    progress.next_wave(19)
    assert progress.line(60.0) == "1 of 100 hosts done"
    progress.next_task("azbatch.cmk.rotate : Rotate")
    progress.finished.update(["host1", "host2"])
    progress.failed.add("host2")
    assert progress.line(60.0).startswith("1 of 100 hosts done, 1 failed; wave 2: 2 of 19 finished 'Rot")

    progress.end_wave(0)
    assert progress.line(70.0) == "20 of 100 hosts done, 1 failed; 1 hosts/s; about 80 s left"


def test_a_wave_in_which_the_play_ends_is_not_over() -> None:
    progress = PlayProgress(total=4, began=0.0)
    progress.next_wave(1)
    progress.end_wave(0)
    progress.next_wave(2)
    progress.next_task("Rotate")
    progress.finished.add("host2")
    progress.failed.add("host2")
    progress.stopped = True
    progress.end_wave(0)
    expected = "1 of 4 hosts done, 1 failed; stopped in wave 2: 1 of 2 finished 'Rotate'"
    assert progress.line(2.0) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(89, "89 s"), (90, "2 min"), (5400, "1 h 30 min")],
)
def test_durations(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected
