# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes changes between two requests of a run in this process, and replaces waits by a clock that advances at once."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import pytest
from azure.core.pipeline.transport import RequestsTransport
from sandbox_client import Control
from scheduler import Scheduler, unscheduled
from urllib3 import ProxyManager

from azure_sandbox.shared import timing

# Delays of Azure that runs wait for.
_WAITED_FOR = ("batch_create", "batch_recovery", "key_delete", "key_recover", "policy_propagation", "role_propagation")
REALISTIC = {name: getattr(timing.REALISTIC, name) for name in _WAITED_FOR}
# Seconds after which all grants and revocations have taken effect.
SETTLED = max(REALISTIC["policy_propagation"], REALISTIC["role_propagation"]) + 1


class Killed(BaseException):
    """Ends a run without any cleanup. Not an Exception, so that no handler of the run catches it."""


_OF_ACT = threading.local()


class Wire:
    """Intercepts the requests of Azure's SDKs in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._numbers = count()
        self._is_it: Callable[[int, Any], bool] = lambda _number, _request: False
        self._act: Callable[[], None] | None = None
        self._taken, self._acted = threading.Lock(), threading.Event()
        self._is_killed = False
        self._scheduler: Scheduler | None = None
        self._monkeypatch = monkeypatch
        send = RequestsTransport.send

        def counted(transport: Any, request: Any, **options: Any) -> Any:
            self._meddle(next(self._numbers), request)
            # A poller runs in a separate thread, which must end as well.
            if self._is_killed:
                raise Killed
            if self._scheduler is not None:
                self._scheduler.before_request(request)
            return send(transport, request, **options)

        monkeypatch.setattr(RequestsTransport, "send", counted)

    @contextmanager
    def meddled(self, at: int | Callable[[Any], bool], act: Callable[[], None]) -> Iterator[None]:
        """Call `act` once, before a request of the run: `at` is the number of the request, counted from 0, or a
        function that is true for the request."""
        self._numbers, self._act = count(), act
        self._acted.clear()
        self._is_it = (lambda _number, request: at(request)) if callable(at) else lambda number, _request: number == at
        try:
            yield
        finally:
            self._act, self._is_killed = None, False
            self._is_it = lambda _number, _request: False

    def _meddle(self, number: int, request: Any) -> None:
        """Act before the first request for which `_is_it` is true. Others that are sent meanwhile wait."""
        if not self._is_it(number, request):
            return
        with self._taken:
            act, self._act = self._act, None
        if act is None:
            # The act itself may send such a request.
            self._acted.wait(0 if getattr(_OF_ACT, "is_acting", False) else 5)
            return
        _OF_ACT.is_acting = True
        try:
            with unscheduled():
                act()
        finally:
            _OF_ACT.is_acting = False
            self._acted.set()

    def kill(self) -> None:
        self._is_killed = True

    def scheduled(
        self,
        choose: Callable[[list[str], str], str],
        runs: dict[str, Callable[[], None]],
        before: Callable[[str, Any], None] = lambda _run, _request: None,
    ) -> None:
        """Execute the runs in an order that `choose` decides, see Scheduler."""
        self._scheduler = Scheduler(self._monkeypatch, choose, before)
        try:
            self._scheduler.run(runs)
        finally:
            self._scheduler = None


def keep_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Share connections between all runs, because handshakes take much of a run's time. Connections to vaults are not
    shared, because the name of a deleted vault must not resolve any more."""
    manager_for = functools.cache(lambda proxy: ProxyManager(proxy, maxsize=20))
    connections = ProxyManager.connection_from_host

    def shared(manager: ProxyManager, host: str, *args: Any, **options: Any) -> Any:
        if ".vault." not in host:
            manager = manager_for(manager.proxy.url)
        return connections(manager, host, *args, **options)

    monkeypatch.setattr(ProxyManager, "connection_from_host", shared)


def pass_time(monkeypatch: pytest.MonkeyPatch, control: Control) -> None:
    """Replace `time.sleep`: it returns at once, and advances this process's monotonic clock and the sandbox's clock."""
    passed = 0.0
    monotonic = time.monotonic

    def sleep(seconds: float) -> None:
        nonlocal passed
        # The rate limit often sleeps for 0 seconds, which does not need a request to the sandbox.
        if seconds:
            passed += seconds
            control.advance(seconds)

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + passed)
