# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A sandbox in the process of the test, with a clock that advances only by requests and waits. Clients send requests
without a network, and a test reads the state of the emulated Azure without requests."""

from __future__ import annotations

import io
import itertools
import pickle
import random
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.client import RemoteDisconnected
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import pytest
import requests
import urllib3
from azure.keyvault.keys._shared import http_challenge_cache
from requests.adapters import HTTPAdapter
from sandbox_client import Control, Sandbox

from azure_sandbox import seed, server
from azure_sandbox.key_vault_keys import material, rules
from azure_sandbox.shared.timing import Clock
from azure_sandbox.world import World

PORT = 4431
# 1 June 2026. A fixed time, so that no test depends on the second in which it runs.
BEGINNING = 1780272000.0
REQUEST_SECONDS = 0.1
# By how much a look at the monotonic clock advances it: no two moments of a task are the same.
TICK_SECONDS = 1e-6
_PRIVATE_KEYS = 4


class Dropped(Exception):
    """The sandbox has closed the connection without a response."""


class _Sandbox(Sandbox):
    """Keeps no token for longer than some minutes."""

    def token(self, *arguments: str, **options: str) -> str:
        # The clock may also have been set back, to the beginning of a sequence.
        if not 0 <= time.time() - self._since < 600:
            self.tokens.clear()
            self._since = time.time()
        return super().token(*arguments, **options)

    _since = 0.0


@dataclass
class LocalAzure:
    """`now` is the time by every clock, in seconds since 1970."""

    now: float = BEGINNING
    server: server.Sandbox = field(init=False)
    sandbox: Sandbox = field(init=False)
    # Called after each request that has changed something, with its method and its URL without the query.
    after: Callable[[str, str], None] = lambda _method, _url: None
    # For random names.
    chances: random.Random = field(default_factory=lambda: random.Random(1))
    _turn: threading.RLock = field(default_factory=threading.RLock)

    def begin(self) -> None:
        """Create the sandbox. To be called with patches (`installed`)."""
        self.server = server.Sandbox(seed.new_world())
        self.server.listens_at(PORT, Path("unused"))
        no_process = cast("subprocess.Popen[str]", None)
        self.sandbox = _Sandbox(self.server.environment, Control(self.server.url), no_process)

    @property
    def world(self) -> World:
        return self.server.world

    @contextmanager
    def later(self, seconds: float) -> Iterator[World]:
        """A copy of the world after this time, if nobody sends a request until then. The clock is ahead meanwhile."""
        copied: World = pickle.loads(pickle.dumps(self.world))
        now = self.now
        try:
            copied.advance(seconds)
            yield copied
        finally:
            self.now = now

    # Requests

    def send(self, request: requests.PreparedRequest) -> urllib3.HTTPResponse:
        """Send a request, which takes REQUEST_SECONDS."""
        url = urlsplit(request.url or "")
        host = url.netloc.removesuffix(":443").lower()
        with self._turn:
            if host != f"127.0.0.1:{PORT}":
                self.now += REQUEST_SECONDS
                if url.scheme == "https" and _completed(self.server.refusal(host, 443)) is not None:
                    raise _proxy_error(request)
            number = self.server.log.last
            try:
                return _answered(self.server, request, host)
            except Dropped:
                ended = RemoteDisconnected("Remote end closed connection without response")
                raise requests.ConnectionError(
                    urllib3.exceptions.ProtocolError("Connection aborted.", ended), request=request
                ) from None
            finally:
                if any(self.server.log.entries(number, writes=True)):
                    self.after(str(request.method), (request.url or "").partition("?")[0])

    def sleep(self, seconds: float) -> None:
        with self._turn:
            self.world.advance(seconds)


def _proxy_error(request: requests.PreparedRequest) -> requests.exceptions.ProxyError:
    refused = OSError("Tunnel connection failed: 502 Bad Gateway")
    reason = urllib3.exceptions.ProxyError("Unable to connect to proxy", refused)
    pool = cast("urllib3.connectionpool.ConnectionPool", None)
    return requests.exceptions.ProxyError(
        urllib3.exceptions.MaxRetryError(pool, request.url or "", reason), request=request
    )


class _Transport:
    is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True

    def close(self) -> None:
        pass


def _answered(application: Any, request: requests.PreparedRequest, host: str) -> urllib3.HTTPResponse:
    url = urlsplit(request.url or "")
    transport = _Transport()
    headers = [(name.lower().encode("latin-1"), _bytes(value)) for name, value in request.headers.items()]
    if "host" not in request.headers:
        headers.append((b"host", host.encode()))
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": request.method,
        "scheme": url.scheme,
        "path": unquote(url.path or "/"),
        "raw_path": url.path.encode(),
        "query_string": url.query.encode(),
        "headers": headers,
        "state": {"tunnel_host": host, "transport": transport},
        "client": None,
        "server": None,
    }
    received = iter([{"type": "http.request", "body": _bytes(request.body or b""), "more_body": False}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(received, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        sent.append(message)

    _completed(application(scope, receive, send))
    if transport.is_aborted:
        raise Dropped
    start, *parts = sent
    return urllib3.HTTPResponse(
        body=io.BytesIO(b"".join(part["body"] for part in parts)),
        headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"]],
        status=start["status"],
        reason="",
        preload_content=False,
        request_method=request.method,
    )


def _bytes(value: Any) -> bytes:
    return value.encode("latin-1") if isinstance(value, str) else bytes(value)


def _completed(coroutine: Any) -> Any:
    """Run a coroutine that waits for nothing. Returns its result."""
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    return ended.value.value


@cache
def _private_key(number: int, family: str, size: int | None, curve: str | None, exponent: int) -> bytes:
    return _generate(family, size, curve, exponent)


_generate = material.generate


@contextmanager
def installed(azure: LocalAzure) -> Iterator[None]:
    """Let all clients in this process send their requests to the sandbox, and use its clock."""
    numbers = itertools.count()

    def generate(family: str, size: int | None, curve: str | None, exponent: int = 65537) -> bytes:
        """One of a few private keys, because the generation of a key takes long."""
        return _private_key(next(numbers) % _PRIVATE_KEYS, family, size, curve, exponent)

    async def to_thread(call: Any, *arguments: Any) -> Any:
        return call(*arguments)

    async def sleep(seconds: float) -> None:
        azure.sleep(seconds)

    def send(adapter: HTTPAdapter, request: requests.PreparedRequest, **_options: Any) -> requests.Response:
        return adapter.build_response(request, azure.send(request))

    def advance(_clock: Clock, seconds: float) -> None:
        azure.now += seconds

    def monotonic() -> float:
        azure.now += TICK_SECONDS
        return azure.now - BEGINNING + 1

    def random_uuid() -> uuid.UUID:
        return uuid.UUID(int=azure.chances.getrandbits(128), version=4)

    patches: list[tuple[Any, str, Any]] = [
        (HTTPAdapter, "send", send),
        (requests.sessions, "get_environ_proxies", lambda *_url, **_options: {}),
        (material, "generate", generate),
        (rules, "asyncio", SimpleNamespace(to_thread=to_thread)),
        (server, "asyncio", SimpleNamespace(sleep=sleep)),
        (Clock, "time", lambda _clock: azure.now),
        (Clock, "advance", advance),
        (time, "time", lambda: azure.now),
        (time, "monotonic", monotonic),
        (time, "sleep", azure.sleep),
        (uuid, "uuid4", random_uuid),
    ]
    with pytest.MonkeyPatch.context() as monkeypatch:
        for target, name, value in patches:
            monkeypatch.setattr(target, name, value)
        # Key Vault's SDK keeps the tenant of a vault until the process ends. Another sandbox has another tenant.
        http_challenge_cache.clear()
        yield
        http_challenge_cache.clear()
