# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Signals during a write and during a rollback: they are deferred until the response, but for ten seconds at most."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from ansible_collections.azbatch.cmk.plugins.module_utils._core import interrupts
from ansible_collections.azbatch.cmk.plugins.module_utils._core.interrupts import REQUEST_SECONDS

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)


@pytest.fixture
def received() -> Iterator[list[int]]:
    """The signals that have taken effect."""
    found: list[int] = []
    previous = {one: signal.signal(one, lambda number, _frame: found.append(number)) for one in SIGNALS}
    yield found
    signal.setitimer(signal.ITIMER_REAL, 0)
    for one, handler in previous.items():
        signal.signal(one, handler)


def left() -> float:
    """The seconds until the next SIGALRM."""
    return signal.getitimer(signal.ITIMER_REAL)[0]


@pytest.mark.parametrize("first", SIGNALS, ids=lambda one: one.name)
def test_a_second_signal_also_waits_for_the_response(received: list[int], first: int) -> None:
    """ansible-playbook sends SIGINT and right after it SIGTERM to a worker."""
    with interrupts.deferred(REQUEST_SECONDS):
        signal.raise_signal(first)
        signal.raise_signal(signal.SIGTERM)
        assert received == []
        assert REQUEST_SECONDS - 5 < left() <= REQUEST_SECONDS
    assert received == list(dict.fromkeys((first, signal.SIGTERM)))
    assert left() == 0


def test_signals_take_effect_before_the_response_after_ten_seconds(received: list[int]) -> None:
    with interrupts.deferred(REQUEST_SECONDS):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        # The timer ends.
        signal.raise_signal(signal.SIGALRM)
        assert received == [signal.SIGINT, signal.SIGTERM]
        assert left() == 0
        signal.raise_signal(signal.SIGHUP)
        assert received[2:] == [signal.SIGHUP]
    assert len(received) == 3


def test_a_timeout_of_ansible_waits_for_the_response(received: list[int]) -> None:
    """The signal of the timeout is the signal of the timer."""
    with interrupts.deferred(REQUEST_SECONDS):
        signal.raise_signal(signal.SIGALRM)
        assert received == []
        assert REQUEST_SECONDS - 5 < left() <= REQUEST_SECONDS
        signal.raise_signal(signal.SIGALRM)
        assert received == [signal.SIGALRM]
    assert received == [signal.SIGALRM]


def test_during_a_rollback_signals_wait_until_its_end(received: list[int]) -> None:
    with interrupts.deferred():
        for one in (signal.SIGALRM, signal.SIGINT, signal.SIGALRM, signal.SIGTERM):
            signal.raise_signal(one)
        assert received == []
        assert left() == 0
    assert received == [signal.SIGALRM, signal.SIGINT, signal.SIGTERM]


def test_a_timer_of_others_is_kept_without_a_signal(received: list[int]) -> None:
    """Ansible's timeout is such a timer."""
    signal.setitimer(signal.ITIMER_REAL, 1000)
    with interrupts.deferred(REQUEST_SECONDS):
        pass
    assert left() > 900
    assert received == []
