# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lines that are shown while a task waits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

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


def test_a_line_has_the_elapsed_and_the_total_time_and_the_reason_once(monkeypatch: pytest.MonkeyPatch) -> None:
    complaints = iter([rejected("No key."), rejected("No key."), rejected("Busy."), rejected("Busy."), None])

    failure, lines = waited_for(monkeypatch, complaints, 600)

    assert failure is None
    assert lines == [
        "Waiting for mybatch to become available (0 of 600 s). Azure reports: (Conflict) No key.",
        "Waiting for mybatch to become available (1 of 600 s)",
        "Waiting for mybatch to become available (3 of 600 s). Azure reports: (Conflict) Busy.",
        "Waiting for mybatch to become available (7 of 600 s)",
    ]


@pytest.mark.parametrize(("tasks", "times"), [(["one", "one"], 1), (["one", "other"], 2), ([None, None], 2)])
def test_hosts_that_wait_at_the_same_time_do_not_repeat_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tasks: list[str | None], times: int
) -> None:
    clock_of(session_module, monkeypatch)
    lines: list[str] = []
    for task in tasks:
        session = Session({"wait_timeout": 600}, str(tmp_path), lines.append, task=task)
        complaints = iter([rejected("No key."), rejected("Busy."), rejected("No key."), None])
        session.poll_until(lambda these=complaints: next(these), session_module.time.monotonic() + 60, "it")

    assert len(lines) == 6
    assert sum("No key." in line for line in lines) == sum("Busy." in line for line in lines) == times
