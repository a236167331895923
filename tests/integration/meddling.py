# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What happens to a run in this process between two of its requests, and time that passes without being waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from azure.core.pipeline.transport import RequestsTransport
from sandbox_client import Control

from azure_sandbox import timing

# Azure's own pace, as far as runs wait for it.
_WAITED_FOR = ("batch_create", "batch_recovery", "key_delete", "key_recover", "policy_propagation", "role_propagation")
REALISTIC = {name: getattr(timing.REALISTIC, name) for name in _WAITED_FOR}
# Seconds after which all that was granted or withdrawn has taken effect.
SETTLED = max(REALISTIC["policy_propagation"], REALISTIC["role_propagation"]) + 1


class Killed(BaseException):
    """Nothing of the run is done any more, no clearing up either."""


class Wire:
    """Every request of Azure's SDKs in this process, counted while a run is on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._count = 0
        self._is_it: Callable[[Any], bool] = lambda _request: False
        self._act: Callable[[], None] | None = None
        self._is_dead = False
        send = RequestsTransport.send

        def counted(transport: Any, request: Any, **options: Any) -> Any:
            self._count += 1
            if self._act is not None and self._is_it(request):
                act, self._act = self._act, None
                act()
            # A poller runs in a thread of its own, and outlives whoever started it.
            if self._is_dead:
                raise Killed
            return send(transport, request, **options)

        monkeypatch.setattr(RequestsTransport, "send", counted)

    @contextmanager
    def meddled(self, at: int | Callable[[Any], bool], act: Callable[[], None]) -> Iterator[None]:
        """Do something before the run's request of that number, the first being 0, or before the first of that kind;
        once."""
        self._count, self._act = 0, act
        self._is_it = at if callable(at) else lambda _request: self._count > at
        try:
            yield
        finally:
            self._act, self._is_dead = None, False

    def kill(self) -> None:
        self._is_dead = True


def pass_time(monkeypatch: pytest.MonkeyPatch, control: Control) -> None:
    """Sleeping takes no time here and as long as it should at the sandbox."""
    passed = 0.0
    monotonic = time.monotonic

    def sleep(seconds: float) -> None:
        nonlocal passed
        passed += seconds
        control.advance(seconds)

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + passed)
