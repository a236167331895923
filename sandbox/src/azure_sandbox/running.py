# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Starts and stops a sandbox with its world, certificates and proxy."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from . import seed
from .certificates import Authority
from .deliveries import Deliveries
from .proxy import Proxy
from .server import Sandbox
from .shared.behavior import DEFAULT, Behavior
from .shared.timing import QUICK, REALISTIC


@dataclass(frozen=True)
class Options:
    port: int = 0
    realistic: bool = False
    # The delay of every response, in seconds.
    latency: float = 0
    accounts: int = 0
    # Whether these accounts use a customer-managed key.
    on_key: bool = False
    # Otherwise, each thousand accounts are in a separate subscription.
    one_subscription: bool = False
    behavior: Behavior = DEFAULT


class Running:
    """Runs a sandbox in the current event loop."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._stack = contextlib.ExitStack()
        self._proxy: Proxy | None = None
        self._deliveries: Deliveries | None = None
        self.sandbox: Sandbox

    async def start(self) -> Sandbox:
        try:
            return await self._start()
        except BaseException:
            self._stack.close()
            raise

    async def _start(self) -> Sandbox:
        options = self._options
        directory = Path(tempfile.mkdtemp(prefix="azure-sandbox-"))
        self._stack.callback(shutil.rmtree, directory, ignore_errors=True)
        world = seed.new_world(
            REALISTIC if options.realistic else QUICK,
            options.accounts,
            on_key=options.on_key,
            one_subscription=options.one_subscription,
            behavior=options.behavior,
        )
        self.sandbox = Sandbox(world, latency=options.latency)
        authority = Authority()
        certificate = authority.save_certificate(directory)
        self._proxy = Proxy(self.sandbox, authority.context, self.sandbox.refusal)
        self.sandbox.listens_at(await self._proxy.start(options.port), certificate)
        self._deliveries = Deliveries(lambda: self.sandbox.world)
        self.sandbox.changed = self._deliveries.wake
        return self.sandbox

    async def stop(self) -> None:
        with self._stack:
            if self._proxy is not None:
                await self._proxy.stop()
            if self._deliveries is not None:
                await self._deliveries.stop()


Started = TypeVar("Started", covariant=True)


class Server(Protocol[Started]):
    async def start(self) -> Started: ...

    async def stop(self) -> None: ...


class InThread(Generic[Started]):
    """Runs a server in a separate thread with its own event loop."""

    def __init__(self, server: Server[Started]) -> None:
        self._server = server
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="azure-sandbox", daemon=True)

    def __enter__(self) -> Started:
        self._thread.start()
        try:
            return asyncio.run_coroutine_threadsafe(self._server.start(), self._loop).result()
        except BaseException:
            self._end_loop()
            raise

    def __exit__(self, *exc: object) -> None:
        try:
            asyncio.run_coroutine_threadsafe(self._server.stop(), self._loop).result()
        finally:
            self._end_loop()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
