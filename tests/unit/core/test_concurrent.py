# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Concurrent calls: results in order, errors as they are, and nothing waits for a call once it is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.azbatch.cmk.plugins.module_utils._core import concurrent
from ansible_collections.azbatch.cmk.plugins.module_utils._core.concurrent import (
    in_background,
    map_concurrent,
    settled,
    value_or_error,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError, Denied, NotFound, Unavailable


class Interrupted(BaseException):
    """Like Ansible's TaskTimeoutError, which is not a subclass of Exception."""


@pytest.fixture
def hung() -> Iterator[threading.Event]:
    """The event that a hanging request waits for. It is set after the test."""
    released = threading.Event()
    yield released
    released.set()


def test_the_error_of_the_first_item_is_raised_and_no_call_begins_after_it() -> None:
    begun: list[int] = []

    def fail(number: int) -> int:
        begun.append(number)
        raise Denied(f"not {number}")

    with pytest.raises(Denied, match="not 0"):
        map_concurrent(fail, range(1000))
    assert len(begun) < 1000


def test_calls_that_run_are_waited_for_after_an_error() -> None:
    failed, ended = threading.Event(), threading.Event()

    def one(name: str) -> None:
        if name == "fails":
            failed.set()
            raise Denied("no")
        failed.wait(30)
        # Whether or not the failure is known yet, the error is raised only after this call has ended.
        ended.set()

    with pytest.raises(Denied):
        map_concurrent(one, ["writes", "fails"])
    assert ended.is_set()


def test_an_interruption_is_raised_at_once(hung: threading.Event) -> None:
    """The signal is sent when all calls run. The calls end only after the test."""
    begun: list[int] = []

    def hang(number: int) -> bool:
        begun.append(number)
        if len(begun) == 8:
            os.kill(os.getpid(), signal.SIGUSR1)
        return hung.wait(60)

    def interrupt(*_signal: Any) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(Interrupted):
            map_concurrent(hang, range(20))
        assert not hung.is_set()
        hung.set()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert sorted(begun) == list(range(8))


def test_the_interpreter_does_not_wait_for_a_call_when_it_exits() -> None:
    code = f"""
import sys, time
sys.path.insert(0, {str(concurrent.__file__).partition("ansible_collections")[0]!r})
from {concurrent.__name__} import in_background
in_background(time.sleep, 600)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("error", [Denied("d"), NotFound("n"), Unavailable("u")])
def test_an_error_in_place_of_a_value(error: CmkError) -> None:
    def read() -> None:
        raise error

    assert value_or_error(read) is error


def test_other_errors_are_raised_unless_named() -> None:
    def read() -> None:
        in_background(lambda: {}["other"]).result()

    with pytest.raises(KeyError):
        value_or_error(read)
    assert isinstance(value_or_error(read, KeyError), KeyError)


# The end of a task


@pytest.mark.parametrize("error", [None, Denied("No.")])
def test_a_task_ends_after_its_calls(error: CmkError | None) -> None:
    """Also after calls that a call has started."""
    ended: list[int] = []
    released = threading.Event()

    def inner() -> None:
        assert released.wait(30)
        ended.append(2)

    def outer() -> None:
        in_background(inner)
        ended.append(1)

    def task() -> None:
        with settled():
            in_background(outer)
            threading.Timer(0.2, released.set).start()
            if error:
                raise error

    assert value_or_error(task) is error
    assert sorted(ended) == [1, 2]


def test_an_interrupted_task_does_not_wait_for_its_calls(hung: threading.Event) -> None:
    def task() -> None:
        with settled():
            in_background(hung.wait, 30)
            raise Interrupted

    with pytest.raises(Interrupted):
        task()
    assert not hung.is_set()


def test_a_task_leaves_a_hanging_call_alone(monkeypatch: pytest.MonkeyPatch, hung: threading.Event) -> None:
    monkeypatch.setattr(concurrent, "_SETTLE_SECONDS", 0.1)
    with settled():
        in_background(hung.wait, 30)

    assert not hung.is_set()
