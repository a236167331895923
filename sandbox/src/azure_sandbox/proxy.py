# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The forward proxy. It accepts CONNECT, terminates TLS, and passes the requests of a tunnel to the sandbox in the same
process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

logger = logging.getLogger("azure_sandbox.proxy")

# The largest head of a CONNECT request in bytes, and how many seconds a client may take to send the head.
HEAD_LIMIT = 16 * 1024
HEAD_SECONDS = 30.0
HANDSHAKE_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 120
# How many seconds a client may take to send a whole request.
REQUEST_SECONDS = 60.0

# Only Linux has this option. On other systems, acknowledgements stay delayed.
QUICK_ACKNOWLEDGE: int | None = getattr(socket, "TCP_QUICKACK", None)

CONNECT = b"CONNECT "
CONNECT_LINE = re.compile(rb"CONNECT ([A-Za-z0-9.\-_]+):(\d{1,5}) HTTP/1\.[01]")


@dataclass(frozen=True)
class Refusal:
    """The response to a CONNECT request that is refused."""

    status: str
    message: str


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol on a transport that the proxy accepted."""

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any]) -> None:
        super().__init__(config, server_state, app_state)
        self._connected = False
        self._early = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.app_state["transport"] = transport
        super().connection_made(transport)
        self._connected = True
        if self._early:
            early, self._early = self._early, b""
            self.data_received(early)

    def data_received(self, data: bytes) -> None:
        # A request that arrives together with the end of the handshake is received before start_tls returns.
        if not self._connected:
            self._early += data
        elif self.parser is not None:
            super().data_received(data)
            if self.cycle is None or self.cycle.more_body:
                self._acknowledge()

    def _acknowledge(self) -> None:
        """Acknowledge received data at once. urllib3 enables Nagle's algorithm for proxies, and sends head and body
        separately. It would delay the body by 40 ms, until the kernel acknowledges the head."""
        open_socket = self.transport.get_extra_info("socket")
        if QUICK_ACKNOWLEDGE is not None and open_socket is not None:
            with contextlib.suppress(OSError):
                open_socket.setsockopt(socket.IPPROTO_TCP, QUICK_ACKNOWLEDGE, 1)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._timer = self.loop.call_later(REQUEST_SECONDS, self.transport.abort)

    def on_message_complete(self) -> None:
        self._stop_timer()
        super().on_message_complete()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        if self._connected:
            super().connection_lost(exc)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Keep the connection open for the response if a client closes its side after a whole request (`nc -N`)."""
        if self.scheme != "http" or self.cycle is None or self.cycle.response_complete or self.cycle.more_body:
            return None
        self.cycle.keep_alive = False
        return True


class Proxy:
    """The state that all connections share."""

    def __init__(
        self,
        app: Callable[..., Any],
        context_for: Callable[[str], ssl.SSLContext],
        refusal_for: Callable[[str, int], Awaitable[Refusal | None]],
    ) -> None:
        self.context_for = context_for
        self.refusal_for = refusal_for
        self.tasks: set[asyncio.Task[None]] = set()
        self.connections: set[asyncio.Transport] = set()
        self._config = Config(
            app,
            http=HttpProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            interface="asgi3",
        )
        self._config.load()
        self._state = ServerState()
        self._server: asyncio.Server | None = None

    async def start(self, port: int) -> int:
        """Listen on the loopback address. Returns the port, which the system chooses if `port` is 0."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), "127.0.0.1", port, backlog=1024)
        port_got: int = self._server.sockets[0].getsockname()[1]
        return port_got

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for protocol in list(self._state.connections):
            protocol.shutdown()
        if self._state.tasks:
            await asyncio.wait(list(self._state.tasks), timeout=2)
        for transport in list(self.connections):
            transport.abort()
        for task in [*self._state.tasks, *self.tasks]:
            task.cancel()

    def http(self, tunnel_host: str = "") -> HttpProtocol:
        return HttpProtocol(self._config, self._state, {"tunnel_host": tunnel_host})


class Connection(asyncio.Protocol):
    """A new connection, until its first bytes show whether the client requests a tunnel."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._head = b""
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._decided = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._proxy.connections.add(transport)
        self._timer = asyncio.get_running_loop().call_later(HEAD_SECONDS, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._decide()
        if self._transport is not None:
            self._proxy.connections.discard(self._transport)

    def _decide(self) -> None:
        self._decided = True
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        if self._decided:
            return
        self._head += data
        if not self._head.startswith(CONNECT[: len(self._head)]):
            self._plain()
        elif b"\r\n\r\n" in self._head:
            self._connect()
        elif len(self._head) > HEAD_LIMIT:
            self._refuse(Refusal("431 Request Header Fields Too Large", "The CONNECT request is too long."))

    def _plain(self) -> None:
        """Handle a plain HTTP request: to the control API, or to the metadata service, which has no TLS."""
        assert self._transport is not None
        self._decide()
        transport, protocol = self._transport, self._proxy.http()
        self._proxy.connections.discard(transport)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.data_received(self._head)

    def _connect(self) -> None:
        head, _, rest = self._head.partition(b"\r\n\r\n")
        found = CONNECT_LINE.fullmatch(head.partition(b"\r\n")[0])
        if found is None or rest:
            self._refuse(Refusal("400 Bad Request", "Only CONNECT HOST:PORT is expected, without data after the head."))
            return
        assert self._transport is not None
        self._decide()
        # No byte of the handshake may be read before start_tls has taken over the transport.
        self._transport.pause_reading()
        tunnel = self._tunnel(self._transport, found[1].decode().lower(), int(found[2]))
        task = asyncio.get_running_loop().create_task(tunnel)
        self._proxy.tasks.add(task)
        task.add_done_callback(self._proxy.tasks.discard)

    async def _tunnel(self, transport: asyncio.Transport, host: str, port: int) -> None:
        refusal = await self._proxy.refusal_for(host, port)
        if refusal is not None:
            self._refuse(refusal)
            return
        transport.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        protocol = self._proxy.http(host)
        try:
            secure = await asyncio.get_running_loop().start_tls(
                transport,
                protocol,
                self._proxy.context_for(host),
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
            )
        except Exception as error:  # the client does not trust the CA, does not use TLS, or closed the connection
            # A client may only have tried whether a tunnel can be opened.
            if not isinstance(error, ConnectionResetError):
                logger.warning("TLS with the client of %s failed: %s", host, error)
            transport.abort()
            return
        finally:
            self._proxy.connections.discard(transport)
        if secure is None or secure.is_closing():
            transport.abort()
        else:
            protocol.connection_made(secure)

    def _refuse(self, refusal: Refusal) -> None:
        assert self._transport is not None
        self._decide()
        body = refusal.message.encode()
        self._transport.write(
            f"HTTP/1.1 {refusal.status}\r\ncontent-type: text/plain; charset=utf-8\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode()
            + body
        )
        self._transport.close()
