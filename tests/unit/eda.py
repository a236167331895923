# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Loads plugins as ansible-rulebook does, runs the webhook, and makes events and certificates."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import json
import runpy
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

PLUGINS = Path(__file__).resolve().parents[2] / "extensions" / "eda" / "plugins"
SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"
VERSION = "0123456789abcdef0123456789abcdef"
SECRET = "correct-horse-battery-staple"
TOPIC = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-keys/providers/Microsoft.KeyVault/vaults/kv-one"


def plugin(kind: str, name: str) -> dict[str, Any]:
    """The names that the plugin defines. Each call is a new plugin, with a separate memory."""
    return runpy.run_path(str(PLUGINS / kind / f"{name}.py"))


def event(what: str = "KeyNewVersionCreated", **fields: Any) -> dict[str, Any]:
    """An event in the Event Grid schema, as Microsoft documents it for secrets, with the values of a key."""
    data = {
        "Id": f"https://kv-one.vault.azure.net/keys/batch-cmk/{VERSION}",
        "VaultName": "kv-one",
        "ObjectType": "Key",
        "ObjectName": "batch-cmk",
        "Version": VERSION,
        "NBF": "1559081980",
        "EXP": "1559082102",
    }
    return {
        "id": "00000000-0000-0000-0000-000000000001",
        "topic": TOPIC,
        "subject": "batch-cmk",
        "eventType": f"Microsoft.KeyVault.{what}",
        "eventTime": "2026-01-01T00:00:00Z",
        "data": data,
        "dataVersion": "1",
        "metadataVersion": "1",
        **fields,
    }


def cloud_event(**fields: Any) -> dict[str, Any]:
    """The same event in the CloudEvents schema."""
    one = event()
    return {
        "specversion": "1.0",
        "id": one["id"],
        "source": one["topic"],
        "subject": one["subject"],
        "type": one["eventType"],
        "time": one["eventTime"],
        "data": one["data"],
        **fields,
    }


def certificate(folder: Path, password: bytes | None = None) -> tuple[str, str]:
    """The paths of a self-signed certificate of 127.0.0.1 and of its key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    protection = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    encoded = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)
    (folder / "key.pem").write_bytes(encoded)
    return str(folder / "cert.pem"), str(folder / "key.pem")


@dataclass
class Webhook:
    url: str
    port: int
    queue: asyncio.Queue[Any]
    session: aiohttp.ClientSession

    async def post(self, body: Any, *, secret: str | None = SECRET, path: str = "/", **options: Any) -> tuple[int, Any]:
        """The status and the text of the response. `body` is sent as JSON, or unchanged if it is bytes."""
        headers = {"X-Event-Secret": secret} if secret else {}
        headers.update(options.pop("headers", {}))
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.session.post(self.url + path, data=data, headers=headers, **options) as response:
            return response.status, await response.text()

    async def events(self, count: int) -> list[Any]:
        """The next events that the rulebook receives. There must be no more."""
        found: list[Any] = []
        while len(found) < count:
            found += (await asyncio.wait_for(self.queue.get(), 5))["payload"]
        await asyncio.sleep(0.05)
        assert self.queue.empty()
        assert len(found) == count
        return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def is_listening(port: int) -> bool:
    try:
        _reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


@contextlib.asynccontextmanager
async def webhook(
    queue: asyncio.Queue[Any] | None = None, limits: dict[str, float] | None = None, **args: Any
) -> AsyncIterator[Webhook]:
    """The event source, running on a loopback address, by default with SECRET. It does not wait for further events."""
    port = free_port()
    queue = queue or asyncio.Queue()
    authenticated = {"secret", "token_audience", "allow_unauthenticated"} & set(args)
    options = {"host": "127.0.0.1", "port": port, **({} if authenticated else {"secret": SECRET}), **args}
    main = plugin("event_source", "event_grid")["main"]
    main.__globals__.update({"QUIET_SECONDS": 0, **(limits or {})})
    running = asyncio.create_task(main(queue, options))
    try:
        while not await is_listening(port):
            if running.done():
                running.result()
            await asyncio.sleep(0.01)
        scheme = "https" if args.get("certfile") else "http"
        async with aiohttp.ClientSession() as session:
            yield Webhook(f"{scheme}://127.0.0.1:{port}", port, queue, session)
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
