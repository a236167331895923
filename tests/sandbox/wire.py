# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""HTTP over plain sockets, for requests that HTTP clients refuse to send."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

from azure_sandbox.proxy import KEEP_ALIVE_SECONDS

# The maximum time in seconds for a response: creating a large RSA key on a busy machine.
PATIENCE = 20
# The maximum time in seconds that the sandbox may keep a connection open after the other side has closed it.
CLOSING = 5


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        """The body as strict JSON: no NaN, no infinity, and text that can be encoded."""
        document = json.loads(self.body, parse_constant=_refuse)
        json.dumps(document, ensure_ascii=False).encode()
        return document


# The response to a request that is not HTTP. It can be lost if the server does not wait for the end of a long request.
NO_HTTP = b"Invalid HTTP request received."
HUNG_UP = Answer(400, http.client.HTTPMessage(), NO_HTTP)
LONG = 4096


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


class NoTunnel(Exception):
    """The sandbox's proxy does not connect to a host."""


@dataclass
class Wire:
    """Connections to a sandbox: tunnels through its proxy to Azure's hosts, and plain connections."""

    port: int
    context: ssl.SSLContext
    _open: dict[str, socket.socket] = field(default_factory=dict)
    _used: dict[str, float] = field(default_factory=dict)

    def plain(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def tunnel(self, host: str) -> ssl.SSLSocket:
        connection = self.plain()
        connection.sendall(f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n".encode())
        answer = http.client.HTTPResponse(connection, method="CONNECT")
        answer.begin()
        if answer.status != 200:
            connection.close()
            raise NoTunnel(f"no tunnel to {host}: {answer.status}")
        return self.context.wrap_socket(connection, server_hostname=host)

    def ask(self, tunnel_host: str, method: str, request: bytes) -> Answer:
        """The response to a complete request. If no host is given, the request is sent without a tunnel."""
        connection = self._connection(tunnel_host)
        response = http.client.HTTPResponse(connection, method=method)
        try:
            connection.sendall(request)
            response.begin()
            answer = Answer(response.status, response.headers, response.read())
        except BaseException as error:
            self._forget(tunnel_host)
            no_response = isinstance(error, (TimeoutError, http.client.RemoteDisconnected))
            if isinstance(error, OSError) and not no_response and len(request) > LONG:
                return HUNG_UP
            raise
        # After a request with an upgrade, the server reads its body as another request, and closes the connection.
        if response.will_close or b"upgrade" in request.partition(b"\r\n\r\n")[0].lower():
            self._forget(tunnel_host)
        return answer

    def _connection(self, tunnel_host: str) -> socket.socket:
        """The open connection. If it has been idle for so long that the sandbox may close it, a new connection."""
        now = time.monotonic()
        if tunnel_host in self._open and now - self._used[tunnel_host] > KEEP_ALIVE_SECONDS / 2:
            self._forget(tunnel_host)
        if tunnel_host not in self._open:
            self._open[tunnel_host] = self.tunnel(tunnel_host) if tunnel_host else self.plain()
        self._used[tunnel_host] = now
        return self._open[tunnel_host]

    def _forget(self, tunnel_host: str) -> None:
        self._open.pop(tunnel_host).close()

    def close(self) -> None:
        for name in [*self._open]:
            self._forget(name)


def last_words(connection: socket.socket, content: bytes) -> bytes:
    """Send the content, and return all bytes that are received until the sandbox closes the connection within
    CLOSING seconds."""
    with connection, suppress(ConnectionError):
        connection.settimeout(CLOSING)
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))
    return b""
