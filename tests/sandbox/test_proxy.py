# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The proxy refuses unknown hosts, and a tunnel does not lead to the control API."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sandbox_client import Control, Sandbox

HOST = "management.azure.com"


@contextmanager
def connection(sandbox: Sandbox) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", int(sandbox.url.rpartition(":")[2])), timeout=10) as plain:
        yield plain


def read_head(stream: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        part = stream.recv(1)
        assert part, f"the connection ended after {head!r}"
        head += part
    return head


def read_all(stream: socket.socket) -> bytes:
    content = b""
    while part := stream.recv(4096):
        content += part
    return content


@contextmanager
def tunnel(sandbox: Sandbox) -> Iterator[ssl.SSLSocket]:
    with connection(sandbox) as plain:
        plain.sendall(f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n".encode())
        assert read_head(plain).startswith(b"HTTP/1.1 200 ")
        context = ssl.create_default_context(cafile=sandbox.environment["SSL_CERT_FILE"])
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        with context.wrap_socket(plain, server_hostname=HOST) as secure:
            yield secure


# Names


@pytest.mark.parametrize("host", ["pypi.org", "graph.microsoft.com", "localhost", "127.0.0.1", "x.azure.com"])
def test_an_unknown_host_is_refused_by_name(sandbox: Sandbox, control: Control, host: str) -> None:
    with connection(sandbox) as plain:
        plain.sendall(f"CONNECT {host}:443 HTTP/1.1\r\n\r\n".encode())
        answer = read_all(plain)
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert host.encode() in answer
    (entry,) = control.unknown()
    assert (entry["method"], entry["host"], entry["service"]) == ("CONNECT", host, "unknown")


def test_the_control_api_is_not_reached_through_a_tunnel(sandbox: Sandbox) -> None:
    with tunnel(sandbox) as secure:
        secure.sendall(f"GET /environment HTTP/1.1\r\nHost: {sandbox.url[7:]}\r\n\r\n".encode())
        assert read_head(secure).startswith(b"HTTP/1.1 403 ")
