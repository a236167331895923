# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lines that are shown while a task waits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from clocks import clock_of

from ansible_collections.azbatch.cmk.plugins.module_utils._azure import session as session_module
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.session import Session
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import (
    CmkError,
    Rejected,
)


def rejected(message: str) -> Rejected:
    return Rejected("Could not list.", azure={"code": "Conflict", "message": message})


def waited_for(
    monkeypatch: pytest.MonkeyPatch, complaints: Iterator[CmkError | None], seconds: float
) -> tuple[CmkError | None, list[str]]:
    clock = clock_of(session_module, monkeypatch)
    lines: list[str] = []
    session = Session({"wait_timeout": 600}, notify=lines.append)
    return session.poll_until(lambda: next(complaints), clock.now + seconds, "mybatch to become available"), lines


def test_a_long_wait_is_shown_with_its_times_and_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    complaints = iter([*[rejected("No key.")] * 5, rejected("Busy."), None])

    failure, lines = waited_for(monkeypatch, complaints, 600)

    assert failure is None
    assert lines == [
        "Waiting for mybatch to become available (15 of 600 s): Conflict",
        "Waiting for mybatch to become available (31 of 600 s): Conflict",
    ]
