# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs several runs in this process so that only one thread proceeds at a time, in an order that the test decides."""

from __future__ import annotations

import fcntl
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from contextlib import contextmanager, suppress
from typing import Any

import pytest

# The primitives as they are without the patches.
_start, _join, _result, _wait, _flock, _lock = (
    threading.Thread.start,
    threading.Thread.join,
    futures.Future.result,
    futures.wait,
    fcntl.flock,
    threading.Lock,
)
_COLLECTION = "ansible_collections.azbatch.cmk."
# A run that sleeps so often without a request in between probably waits for another run.
_SLEEPS = 20


class _Stop:
    """A place where a thread has stopped: before a request, or until something is done."""

    def __init__(self, scheduler: Scheduler, run: str, number: int) -> None:
        self.scheduler, self.run, self.number = scheduler, run, number
        self.is_ready: Callable[[], bool] = lambda: True
        # By time.monotonic, when the thread proceeds although it is not ready.
        self.deadline: float | None = None
        # By time.monotonic, until when the thread sleeps.
        self.wakes_at = 0.0
        self.go = threading.Semaphore(0)


class Scheduler:
    """The threads of the runs stop before each request, during each wait for another thread or a lock, and before each
    `time.sleep`. Then `choose` gets the names of the runs of which a thread can proceed, in the order in which they
    were started, with the name of the run that has stopped last, and returns the name of the run that proceeds. So the
    same choices always have the same results.

    `before` is called before each request, with the name of the run and the request, in the thread that sends it.
    """

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        choose: Callable[[list[str], str], str],
        before: Callable[[str, Any], None] = lambda _run, _request: None,
    ) -> None:
        self._choose, self._before = choose, before
        self._stops: dict[int, _Stop] = {}
        # How often runs have slept since their last request.
        self._sleeps = Counter[str]()
        self._numbers = 0
        self._last = ""
        self._failure: BaseException | None = None
        self._ended = threading.Event()
        self._patched = monkeypatch
        self._sleep = time.sleep

    def run(self, runs: dict[str, Callable[[], None]]) -> None:
        """Execute the runs. Raises the first error of a run."""
        failures: list[BaseException] = []

        def whole(one: Callable[[], None]) -> Callable[[], None]:
            def call() -> None:
                try:
                    one()
                except BaseException as failure:
                    failures.append(failure)

            return call

        with self._patched.context() as patches:
            self._patch(patches)
            threads = [self._thread(name, whole(one)) for name, one in runs.items()]
            for thread in threads:
                _start(thread)
            self._next()
            self._ended.wait()
        if self._failure is not None:
            raise self._failure
        if failures:
            raise failures[0]

    def before_request(self, request: Any) -> None:
        stop = _current()
        if stop is not None:
            self._park(stop, lambda: True)
            self._sleeps[stop.run] = 0
            self._before(stop.run, request)

    # Threads

    def _thread(self, run: str, call: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=call, daemon=True)
        self._adopt(thread, run)
        return thread

    def _adopt(self, thread: threading.Thread, run: str) -> None:
        """Let the thread begin when it is chosen, and choose another one when it ends."""
        self._numbers += 1
        stop = _Stop(self, run, self._numbers)
        self._stops[stop.number] = stop
        target = thread.run

        def begin() -> None:
            thread.stop = stop  # type: ignore[attr-defined]
            stop.go.acquire()
            try:
                target()
            finally:
                del self._stops[stop.number]
                thread.has_ended = True  # type: ignore[attr-defined]
                self._last = run
                self._next()

        thread.run = begin  # type: ignore[method-assign]

    def _park(self, stop: _Stop, is_ready: Callable[[], bool], deadline: float | None = None) -> None:
        stop.is_ready, stop.deadline = is_ready, deadline
        self._last = stop.run
        self._next()
        stop.go.acquire()

    def _next(self) -> None:
        """Let the thread proceed that is chosen. Of one run, that is the thread that has started first or, if all of
        them sleep, the thread that wakes first."""
        if not self._stops:
            self._ended.set()
            return
        ready = [stop for stop in self._stops.values() if stop.is_ready()]
        if not ready and (deadlines := [stop.deadline for stop in self._stops.values() if stop.deadline is not None]):
            self._sleep(max(min(deadlines) - time.monotonic(), 0))
            ready = [stop for stop in self._stops.values() if stop.deadline == min(deadlines)]
        if not ready:
            self._failure = AssertionError(f"deadlock of {sorted({one.run for one in self._stops.values()})}")
            self._ended.set()
            return
        names = list(dict.fromkeys(stop.run for stop in ready))
        names = [name for name in names if self._sleeps[name] < _SLEEPS] or names
        name = names[0] if len(names) == 1 else self._choose(names, self._last)
        min((stop for stop in ready if stop.run == name), key=lambda stop: stop.wakes_at).go.release()

    # Waits

    def _patch(self, patches: pytest.MonkeyPatch) -> None:
        scheduler = self

        def start(thread: threading.Thread) -> None:
            stop = _current()
            if stop is not None and not hasattr(thread, "stop"):
                scheduler._adopt(thread, stop.run)
            _start(thread)

        def until(is_ready: Callable[[], bool], timeout: float | None = None) -> None:
            stop = _current()
            if stop is not None and not is_ready():
                scheduler._park(stop, is_ready, None if timeout is None else time.monotonic() + timeout)

        def join(thread: threading.Thread, timeout: float | None = None) -> None:
            if _current() is None or not hasattr(thread, "stop"):
                _join(thread, timeout)
                return
            until(lambda: hasattr(thread, "has_ended"), timeout)
            if hasattr(thread, "has_ended"):
                _join(thread)

        def result(future: futures.Future[Any], timeout: float | None = None) -> Any:
            until(future.done, timeout)
            return _result(future, timeout)

        def wait(these: Iterable[futures.Future[Any]], timeout: float | None = None, **options: Any) -> Any:
            these = list(these)
            until(lambda: all(one.done() for one in these), timeout)
            return _wait(these, 0 if _current() else timeout, **options)

        def flock(file: Any, operation: int) -> None:
            stop = _current()
            if stop is None or operation & (fcntl.LOCK_NB | fcntl.LOCK_UN):
                _flock(file, operation)
                return
            until(lambda: _can_lock(file, operation))
            _flock(file, operation | fcntl.LOCK_NB)

        self._sleep = time.sleep

        def sleep(seconds: float) -> None:
            """Other threads proceed before this time has passed, if they are chosen."""
            stop, wakes_at = _current(), time.monotonic() + seconds
            if stop is not None and seconds > 0:
                scheduler._sleeps[stop.run] += 1
                stop.wakes_at = wakes_at
                scheduler._park(stop, lambda: True)
                stop.wakes_at = 0.0
                seconds = wakes_at - time.monotonic()
            if seconds > 0:
                scheduler._sleep(seconds)

        class Lock:
            def __init__(self) -> None:
                self._lock = _lock()

            def __enter__(self) -> None:
                until(lambda: not self._lock.locked())
                self._lock.acquire()

            def __exit__(self, *error: object) -> None:
                self._lock.release()

        patches.setattr(threading.Thread, "start", start)
        patches.setattr(threading.Thread, "join", join)
        patches.setattr(futures.Future, "result", result)
        patches.setattr(fcntl, "flock", flock)
        patches.setattr(time, "sleep", sleep)
        # Modules of the collection import these by name.
        for module in [one for name, one in sys.modules.items() if name.startswith(_COLLECTION)]:
            for original, patched in ((_wait, wait), (_lock, Lock)):
                for name in [name for name, value in vars(module).items() if value is original]:
                    patches.setattr(module, name, patched)


@contextmanager
def unscheduled() -> Iterator[None]:
    """What the thread does meanwhile does not stop it, so no other thread proceeds."""
    thread: Any = threading.current_thread()
    stop = thread.__dict__.pop("stop", None)
    try:
        yield
    finally:
        if stop is not None:
            thread.stop = stop


def current_run() -> str | None:
    """The name of the run of this thread; None outside a run and while `unscheduled`."""
    stop = _current()
    return stop and stop.run


def wait_until(is_ready: Callable[[], bool]) -> None:
    """Let other runs proceed until the condition is true."""
    stop = _current()
    if stop is not None and not is_ready():
        stop.scheduler._park(stop, is_ready)


def _current() -> _Stop | None:
    return getattr(threading.current_thread(), "stop", None)


def _can_lock(file: Any, operation: int) -> bool:
    with suppress(BlockingIOError):
        _flock(file, operation | fcntl.LOCK_NB)
        _flock(file, fcntl.LOCK_UN)
        return True
    return False
