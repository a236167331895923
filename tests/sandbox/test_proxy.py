# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The proxy refuses unknown hosts."""

from __future__ import annotations

import socket

import pytest
from sandbox_client import Control, Sandbox


@pytest.mark.parametrize("host", ["pypi.org", "graph.microsoft.com", "localhost", "127.0.0.1", "x.azure.com"])
def test_an_unknown_host_is_refused_by_name(sandbox: Sandbox, control: Control, host: str) -> None:
    answer = b""
    with socket.create_connection(("127.0.0.1", int(sandbox.url.rpartition(":")[2])), timeout=10) as plain:
        plain.sendall(f"CONNECT {host}:443 HTTP/1.1\r\n\r\n".encode())
        while part := plain.recv(4096):
            answer += part
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert host.encode() in answer
    (entry,) = control.unknown()
    assert (entry["method"], entry["host"], entry["service"]) == ("CONNECT", host, "unknown")
