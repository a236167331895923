# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The proxy: tunnels, certificates, persistent connections, and requests that are not HTTP."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import requests
from sandbox_client import VAULTS, Control, Sandbox

HOST = "management.azure.com"
VERSION = "2022-09-01"


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


def read_answer(stream: socket.socket) -> tuple[int, bytes]:
    head = read_head(stream).lower()
    length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    body = b""
    while len(body) < length:
        body += stream.recv(length - len(body))
    return int(head.split()[1]), body


def read_all(stream: socket.socket) -> bytes:
    content = b""
    while part := stream.recv(4096):
        content += part
    return content


@contextmanager
def tunnel(sandbox: Sandbox, host: str = HOST) -> Iterator[ssl.SSLSocket]:
    with connection(sandbox) as plain:
        plain.sendall(f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n".encode())
        assert read_head(plain).startswith(b"HTTP/1.1 200 ")
        context = ssl.create_default_context(cafile=sandbox.environment["SSL_CERT_FILE"])
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        with context.wrap_socket(plain, server_hostname=host) as secure:
            yield secure


def request(sandbox: Sandbox, method: str = "GET", body: bytes = b"") -> bytes:
    head = (
        f"{method} {sandbox.group}?api-version={VERSION} HTTP/1.1\r\nHost: {HOST}\r\n"
        f"Authorization: Bearer {sandbox.token()}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def answers(sandbox: Sandbox) -> bool:
    return sandbox.arm("GET", sandbox.group, VERSION).ok


# Names


@pytest.mark.parametrize("host", [HOST, "login.microsoftonline.com", "westeurope.management.azure.com"])
def test_a_certificate_for_each_host(sandbox: Sandbox, host: str) -> None:
    with tunnel(sandbox, host) as secure:
        certificate = secure.getpeercert()
        assert certificate is not None
        assert certificate["subjectAltName"] == (("DNS", host),)
        assert secure.selected_alpn_protocol() is None


@pytest.mark.parametrize("host", ["pypi.org", "graph.microsoft.com", "localhost", "127.0.0.1", "x.azure.com"])
def test_an_unknown_host_is_refused_by_name(sandbox: Sandbox, control: Control, host: str) -> None:
    with connection(sandbox) as plain:
        plain.sendall(f"CONNECT {host}:443 HTTP/1.1\r\n\r\n".encode())
        answer = read_all(plain)
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert host.encode() in answer
    (entry,) = control.unknown()
    assert (entry["method"], entry["host"], entry["service"]) == ("CONNECT", host, "unknown")


def test_a_missing_vault_does_not_resolve(sandbox: Sandbox, control: Control) -> None:
    with pytest.raises(requests.exceptions.ProxyError, match="502"):
        sandbox.session().get("https://nobodys-vault.vault.azure.net/keys", timeout=10)
    assert [entry["route"] for entry in control.requests()] == ["unresolved"]
    assert control.unknown() == []


def test_a_vaults_name_resolves_once_it_is_registered(sandbox: Sandbox, control: Control) -> None:
    control.timing(vault_dns=31)
    path = f"{sandbox.group}/providers/Microsoft.KeyVault/vaults/new-vault"
    properties = {"tenantId": sandbox.tenant_id, "sku": {"family": "A", "name": "standard"}, "accessPolicies": []}
    assert sandbox.arm("PUT", path, VAULTS, {"location": "westeurope", "properties": properties}).ok
    url = "https://new-vault.vault.azure.net/keys?api-version=7.4"
    with pytest.raises(requests.exceptions.ProxyError):
        sandbox.session().get(url, timeout=10)
    control.advance(32)
    assert sandbox.session().get(url, timeout=10).status_code == 401
    assert sandbox.arm("DELETE", path, VAULTS).ok
    with pytest.raises(requests.exceptions.ProxyError):
        sandbox.session().get(url, timeout=10)


def test_plain_http_to_a_host_with_https_only(sandbox: Sandbox) -> None:
    response = sandbox.session().get(f"http://{HOST}/subscriptions", timeout=10)
    assert (response.status_code, response.json()["error"]["code"]) == (403, "HttpsRequired")
    response = sandbox.session().get("http://example.com/", timeout=10)
    assert (response.status_code, response.json()["error"]["code"]) == (502, "UnknownHost")


def test_the_control_api_is_not_reached_through_a_tunnel(sandbox: Sandbox) -> None:
    with tunnel(sandbox) as secure:
        secure.sendall(f"GET /environment HTTP/1.1\r\nHost: {sandbox.url[7:]}\r\n\r\n".encode())
        assert read_answer(secure)[0] == 403


# Requests that clients should not send


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00" * 64,
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"CONNECT \r\n\r\n",
        b"CONNECT nowhere HTTP/1.1\r\n\r\n",
        b"CONNECT management.azure.com:443 HTTP/1.1\r\n\r\nand then some",
        b"CONNECT " + b"a" * 20_000,
    ],
)
def test_bytes_that_are_not_http(sandbox: Sandbox, garbage: bytes) -> None:
    with connection(sandbox) as plain:
        plain.sendall(garbage)
        plain.shutdown(socket.SHUT_WR)
        answer = read_all(plain)
    assert not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 502"))
    assert answers(sandbox)
