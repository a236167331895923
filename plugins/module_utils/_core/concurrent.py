# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Concurrent calls, because a request to Azure takes far longer than the work of this collection.

They run in daemon threads. Python waits for the threads of concurrent.futures.ThreadPoolExecutor at the end of the
block and again when the interpreter exits. With these, a task with a `timeout` would run until its slowest request
ends.

This module util is private to the collection.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from .errors import CmkError, Denied, NotFound, Unavailable

T = TypeVar("T")
R = TypeVar("R")
_LIMIT = 8
_SETTLE_SECONDS = 10
# The calls of the task that run in the background.
_running: ContextVar[set[Future[Any]] | None] = ContextVar("_running", default=None)


def in_background(call: Callable[..., R], *arguments: Any) -> Future[R]:
    """Start the call in a daemon thread, and return its future. Only `Future.result` waits for the call."""
    future: Future[R] = Future()
    if (running := _running.get()) is not None:
        running.add(future)
        future.add_done_callback(running.discard)
    _start(future, call, arguments)
    return future


def unawaited(call: Callable[..., object], *arguments: Any) -> None:
    """Start the call in a daemon thread that nothing waits for, not even `settled`. Its result and its errors are
    ignored."""
    _start(Future(), call, arguments)


@contextmanager
def settled() -> Iterator[None]:
    """Wait at the end until no call of the block runs in the background, unless the block is interrupted (Ansible's
    `timeout`, SIGINT).

    A thread that opens a connection while the process changes its environment for the next task would read the
    environment of that task, or crash the interpreter. A call that does not end within ten seconds is left alone.
    """
    running: set[Future[Any]] = set()
    token = _running.set(running)
    try:
        yield
    except CmkError:
        _settle(running)
        raise
    else:
        _settle(running)
    finally:
        _running.reset(token)


def _settle(running: set[Future[Any]]) -> None:
    deadline = time.monotonic() + _SETTLE_SECONDS
    # A call may start another call.
    while (pending := running.copy()) and (left := deadline - time.monotonic()) > 0:
        wait(pending, left)


def map_concurrent(call: Callable[[T], R], items: Iterable[T]) -> dict[T, R]:
    """The result of the call for each item, in the order of the items. Eight calls run at a time.

    If a call fails, no further call starts, those that run are waited for, and the error of the first item that failed
    is raised. If the wait itself is interrupted (Ansible's `timeout`, SIGINT), no further call starts, and the
    interruption is raised at once.
    """
    futures: dict[T, Future[R]] = {item: Future() for item in items}
    pending: SimpleQueue[tuple[Future[R], T]] = SimpleQueue()
    for item, future in futures.items():
        pending.put((future, item))
    try:
        wait([in_background(_work, pending, call) for _thread in range(min(_LIMIT, len(futures)))])
    finally:
        _discard(pending)
    # A call that did not start has no result, so errors are raised first.
    for future in futures.values():
        if future.done():
            future.result()
    return {item: future.result() for item, future in futures.items()}


def value_or_error(read: Callable[[], Any], *more: type[CmkError]) -> Any:
    """The value of `read`, or the error with the reason: the caller's permissions, a missing
    resource, a service that is unavailable, or one of the kinds in `more`."""
    reasons: tuple[type[CmkError], ...] = (Denied, NotFound, Unavailable, *more)
    try:
        return read()
    except reasons as reason:
        return reason


def _work(pending: SimpleQueue[tuple[Future[R], T]], call: Callable[[T], R]) -> None:
    while True:
        try:
            future, item = pending.get_nowait()
        except Empty:
            return
        _complete(future, call, (item,))
        if future.exception():
            _discard(pending)


def _start(future: Future[R], call: Callable[..., R], arguments: tuple[Any, ...]) -> None:
    Thread(target=copy_context().run, args=(_complete, future, call, arguments), daemon=True).start()


def _complete(future: Future[R], call: Callable[..., R], arguments: tuple[Any, ...]) -> None:
    try:
        result = call(*arguments)
    # `Future.result` raises it.
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)


def _discard(pending: SimpleQueue[Any]) -> None:
    while True:
        try:
            pending.get_nowait()
        except Empty:
            return
