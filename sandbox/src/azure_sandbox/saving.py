# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Saves the state soon after each change, while the sandbox goes on with requests."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path

from . import state

logger = logging.getLogger("azure_sandbox")

# All changes of this time are saved together, and a process that is killed loses about as much.
SAVE_SECONDS = 0.5
STANDARD_STREAMS = 3


class Saver:
    """Saves a state to a directory until it is stopped; `mark` reports a change."""

    def __init__(self, directory: Path, current: Callable[[], state.State]) -> None:
        self._directory = directory
        self._current = current
        self._changed = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._run())
        # A new state has credentials that the next start needs.
        self.mark()

    def mark(self) -> None:
        self._changed.set()

    async def stop(self) -> None:
        """Saves a last time."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        with state.replaced(self._directory) as descriptor:
            state.write(descriptor, self._current())

    async def _run(self) -> None:
        while True:
            await self._changed.wait()
            await asyncio.sleep(SAVE_SECONDS)
            self._changed.clear()
            try:
                with state.replaced(self._directory) as descriptor:
                    await self._write(descriptor)
            except OSError as error:
                logger.warning("The state could not be saved in %s: %s", self._directory, error)

    async def _write(self, descriptor: int) -> None:
        """In a child process, which has its own copy of the state: to pickle thousands of accounts takes part of a
        second, in which no other thread of this process runs. Raises OSError."""
        child = _fork()
        if child == 0:
            _write_and_exit(descriptor, self._current())
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        if status != 0:
            raise OSError("the process that writes it failed")


def _fork() -> int:
    """A child in which no signal is handled: the parent handles those that are sent to both."""
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    child = -1
    try:
        child = os.fork()
        return child
    finally:
        if child != 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def _write_and_exit(descriptor: int, current: state.State) -> None:
    status = 1
    try:
        # A connection that the parent closes stays open for as long as a child has it.
        os.closerange(STANDARD_STREAMS, descriptor)
        os.closerange(descriptor + 1, os.sysconf("SC_OPEN_MAX"))
        state.write(descriptor, current)
        status = 0
    except Exception as error:  # whatever it is, the parent's code must not run in the child
        logger.warning("%s", error)
    finally:
        os._exit(status)
