# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Saves the state soon after each change, while the sandbox continues to handle requests."""

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

# Changes within this time are saved together. A process that is killed loses about the changes of this time.
SAVE_SECONDS = 0.5
STANDARD_STREAMS = 3


class Saver:
    """Saves a state to a directory until it is stopped; `mark` reports a change."""

    def __init__(self, directory: Path, current: Callable[[], state.State]) -> None:
        self._directory = directory
        self._current = current
        self._changed = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._run())
        # A new state is saved without a change, because the next start needs its credentials.
        self.mark()

    def mark(self) -> None:
        self._changed.set()

    async def stop(self) -> None:
        """Stop, and save the state a last time."""
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
        """Write the state in a child process, which has a copy of the state. To pickle thousands of accounts takes a
        fraction of a second and would block all threads of this process. Raises OSError if the child process fails."""
        child = _fork()
        if child == 0:
            _write_and_exit(descriptor, self._current())
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        if status != 0:
            raise OSError("the process that writes it failed")


def _fork() -> int:
    """Fork a child process that blocks all signals. The parent handles the signals that are sent to both processes."""
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
        # Close the parent's sockets: a connection that the parent closes stays open until the child closes it too.
        os.closerange(STANDARD_STREAMS, descriptor)
        os.closerange(descriptor + 1, os.sysconf("SC_OPEN_MAX"))
        state.write(descriptor, current)
        status = 0
    except Exception as error:  # the child must exit after any exception, and not run the parent's code
        logger.warning("%s", error)
    finally:
        os._exit(status)
