# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Signals that end a task during a change, and the conversion of exceptions to errors of this collection.

Ansible ends a task with an exception that its handler of SIGALRM raises (the keyword `timeout`). It ends a worker
with SIGINT or SIGTERM, whose handler exits at once. A change that has begun has to be rolled back first. Therefore
these signals raise an exception during a change, and are deferred during a write request and during a rollback.
Only the main thread handles signals. In other threads, these functions have no effect.

This module util is private to the collection.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .errors import CmkError, TimedOut

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# How long an interrupt waits for the response to a request that has been sent.
REQUEST_SECONDS = 10.0
# The received signals of each active `raised` block, the innermost last; and one item for each active `deferred` block.
_raising: list[list[int]] = []
_deferring: list[bool] = []


class Interrupted(BaseException):
    """The process has received a signal that ends it during a change."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


@contextmanager
def raised() -> Iterator[None]:
    """The first of SIGINT, SIGTERM and SIGHUP raises `Interrupted`, so that a change can be rolled back.

    Later signals take effect at the end of the block, because ansible-playbook sends SIGINT and right after it
    SIGTERM to a worker.
    """
    came: list[int] = []

    def interrupt(signum: int, _frame: Any) -> None:
        came.append(signum)
        if len(came) == 1:
            raise Interrupted(signum)

    restore = _install(interrupt, *_ENDING)
    _raising.append(came)
    try:
        yield
    finally:
        _raising.pop()
        restore()
        for signum in came[1:]:
            signal.raise_signal(signum)


def raise_lost() -> None:
    """Raise the signal's exception again if Python has dropped it.

    Python drops an exception that is raised in a finalizer or in the callback of a weak reference, which an import
    may run. Without this function, the change would continue.
    """
    if _is_main_thread() and not _deferring and _raising and _raising[-1]:
        raise Interrupted(_raising[-1][0])


@contextmanager
def deferred(seconds: float | None = None) -> Iterator[None]:
    """The same signals and SIGALRM take effect at the end of the block or, if `seconds` is set, that time after the
    first signal."""
    came: list[int] = []

    def note(signum: int, _frame: Any) -> None:
        if signum == signal.SIGALRM and came and seconds is not None:
            deliver()
        elif signum not in came:
            came.append(signum)
            if seconds is not None and len(came) == 1:
                signal.setitimer(signal.ITIMER_REAL, seconds)

    def deliver() -> None:
        if came and seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
        restore()
        for signum in (*came,):
            came.remove(signum)
            signal.raise_signal(signum)

    restore = _install(note, *_ENDING, signal.SIGALRM)
    if _is_main_thread():
        _deferring.append(True)
    try:
        yield
    finally:
        if _is_main_thread():
            _deferring.pop()
        deliver()


def as_failure(ended: BaseException) -> CmkError:
    """Convert the exception that ended a task to an error with a code."""
    if isinstance(ended, CmkError):
        return ended
    failure = _failure(ended)
    failure.__cause__ = ended
    return failure


def pass_on(failure: CmkError) -> None:
    """Let an interrupt of the process take effect after the rollback."""
    cause = failure.__cause__
    if isinstance(cause, Interrupted):
        signal.raise_signal(cause.signum)
    if isinstance(cause, KeyboardInterrupt | SystemExit):
        raise cause


def _failure(ended: BaseException) -> CmkError:
    name = type(ended).__name__
    # Ansible's exception is recognized by its name, because ansible-core 2.19 moved the class. Before, it has no
    # `timeout`.
    if name == "TaskTimeoutError":
        period = getattr(ended, "timeout", None)
        limit = f" of {period} s" if period else ""
        return TimedOut(
            f"The task's timeout{limit} ended the task before it was finished.",
            option="timeout",
            value=period,
            timedout={"period": period},
            remedy="Run the task again, with a longer timeout.",
        )
    if isinstance(ended, Exception):
        return CmkError(
            f"Unexpected error: {name}: {ended}. This is a bug in azbatch.cmk: report it, with the output of -vvv.",
            code="internal_error",
            remedy="Report it, and run the task again.",
        )
    return CmkError(
        f"The task was interrupted ({name if not str(ended) else ended}).",
        code="interrupted",
        remedy="Run the task again.",
    )


def _install(handler: Callable[[int, Any], None], *signums: int) -> Callable[[], None]:
    """Handle these signals, unless they are ignored. Returns a function that restores their previous handlers."""
    if not _is_main_thread():
        return lambda: None
    previous = {one: signal.getsignal(one) for one in signums}
    taken = {one: by for one, by in previous.items() if by not in (None, signal.SIG_IGN)}
    for one in taken:
        signal.signal(one, handler)

    def restore() -> None:
        for one, by in taken.items():
            signal.signal(one, by)

    return restore


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
