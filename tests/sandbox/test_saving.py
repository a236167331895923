# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A sandbox that is killed loses at most the changes of the last second.

The tests of the interval use virtual time, so they do not depend on the load of the machine. `test_command.py` kills a
process.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from azure_sandbox import saving, seed, state
from azure_sandbox.saving import SAVE_SECONDS, Saver
from azure_sandbox.shared.timing import QUICK

STEP = 0.05
# Seconds of virtual time that a save takes.
WRITE = 0.2

real_sleep = asyncio.sleep


class VirtualTime:
    def __init__(self) -> None:
        self.now = 0.0
        self._waiting: list[tuple[float, asyncio.Future[None]]] = []

    async def sleep(self, seconds: float) -> None:
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((self.now + seconds, ended))
        await ended

    async def step(self) -> None:
        self.now += STEP
        due = [ended for until, ended in self._waiting if until <= self.now + STEP / 2]
        self._waiting = [(until, ended) for until, ended in self._waiting if ended not in due]
        for ended in due:
            if not ended.done():
                ended.set_result(None)
        for _ in range(20):
            await real_sleep(0)


class Recorder(Saver):
    """Records when each save began and ended, and how many changes the save contains."""

    def __init__(self, directory: Path, virtual: VirtualTime, changes: list[float]) -> None:
        self.saves: list[tuple[float, int]] = []
        self._virtual, self._changes = virtual, changes
        super().__init__(directory, lambda: state.State(seed.new_world(), b""))

    async def _write(self, descriptor: int) -> None:
        contained = len(self._changes)
        await self._virtual.sleep(WRITE)
        self.saves.append((self._virtual.now, contained))


def in_virtual_time(
    monkeypatch: pytest.MonkeyPatch,
    directory: Path,
    run: Callable[[VirtualTime, Recorder, list[float]], Awaitable[None]],
) -> tuple[list[tuple[float, int]], list[float]]:
    async def scenario() -> tuple[list[tuple[float, int]], list[float]]:
        virtual, changes = VirtualTime(), list[float]()
        monkeypatch.setattr(saving.asyncio, "sleep", virtual.sleep)
        saver = Recorder(directory, virtual, changes)
        await run(virtual, saver, changes)
        await saver.stop()
        return saver.saves, changes

    return asyncio.run(scenario())


def saved_after(saves: list[tuple[float, int]], changes: list[float]) -> list[float]:
    """The seconds between each change and the end of the first save that contains the change."""
    return [
        next(ended for ended, contained in saves if contained > index) - changed
        for index, changed in enumerate(changes)
    ]


def test_a_single_change(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def run(virtual: VirtualTime, saver: Recorder, changes: list[float]) -> None:
        while virtual.now < 4:
            await virtual.step()
            if virtual.now >= 2 and not changes:
                changes.append(virtual.now)
                saver.mark()

    saves, changes = in_virtual_time(monkeypatch, tmp_path, run)
    assert len(saves) == 2, "the first state and the change"
    assert max(saved_after(saves, changes)) <= SAVE_SECONDS + WRITE + STEP


def test_changes_without_a_pause_do_not_postpone_the_save(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def run(virtual: VirtualTime, saver: Recorder, changes: list[float]) -> None:
        while virtual.now < 10:
            await virtual.step()
            if virtual.now < 8:
                changes.append(virtual.now)
                saver.mark()

    saves, changes = in_virtual_time(monkeypatch, tmp_path, run)
    # A change during a save is in the next save.
    assert max(saved_after(saves, changes)) <= SAVE_SECONDS + 2 * WRITE + STEP < 1
    assert len(saves) < 8 / SAVE_SECONDS


def test_a_save_takes_less_time_than_is_left_of_a_second(tmp_path: Path) -> None:
    """The rest of the second is enough for two saves of a thousand accounts on keys, one of which was running."""
    current = state.State(seed.new_world(QUICK, 1000, on_key=True), b"")
    took = []
    for _ in range(5):
        descriptor = os.open(tmp_path / "state", os.O_CREAT | os.O_WRONLY)
        began = time.process_time()
        state.write(descriptor, current)
        took.append(time.process_time() - began)
        os.close(descriptor)
    assert SAVE_SECONDS + 2 * min(took) < 1
