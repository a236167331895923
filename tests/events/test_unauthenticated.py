# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Random requests without the secret, to the event source alone and in ansible-rulebook. Only the latter needs Java.

Each request must end with a response that is no error of the receiver, or with a closed connection. SEED=N repeats the
requests of an earlier run.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from eda import PLUGINS, SECRET, event, free_port, is_listening

REQUESTS = 400
AT_ONCE = 20
# How long a receiver may take, in seconds. It closes a connection after 30 seconds.
PATIENCE = 40
SOURCE = """
import asyncio, json, runpy, sys
asyncio.run(runpy.run_path(sys.argv[1])["main"](asyncio.Queue(), json.loads(sys.argv[2])))
"""
HANDSHAKE = b"aeg-event-type: SubscriptionValidation"
VALIDATION = {
    "id": "1",
    "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
    "data": {"validationCode": "512d38b6"},
}
# By the way to authenticate, the options of the event source.
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "secret": {"secret": SECRET},
    "query": {"secret": SECRET, "secret_query": "code"},
    "token": {
        "token_audience": "api://events",
        "token_tenant": "99999999-8888-7777-6666-555555555555",
        "token_keys_url": "http://127.0.0.1:1/keys",
    },
}


@pytest.fixture(params=["source-secret", "source-query", "source-token", "rulebook-secret"])
def receiver(request: pytest.FixtureRequest) -> Iterator[tuple[int, Callable[[], int | None]]]:
    """The port, and whether the receiver has ended."""
    place, _, authentication = request.param.partition("-")
    if place == "rulebook":
        rulebook = request.getfixturevalue("rulebook")
        rulebook.variables = {"cmk_event_secret": SECRET}
        rulebook.start()
        yield rulebook.port, rulebook.process.poll
        return
    options = {"host": "127.0.0.1", "port": free_port(), **OPTIONS[authentication]}
    source = str(PLUGINS / "event_source" / "event_grid.py")
    process = subprocess.Popen([sys.executable, "-c", SOURCE, source, json.dumps(options)], stderr=subprocess.DEVNULL)
    try:
        yield options["port"], process.poll
    finally:
        process.kill()
        process.wait()


def post(body: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join([b"POST / HTTP/1.1", b"Host: a", *headers, b"Content-Length: %d" % len(body), b"", body])


def bearer(header: bytes) -> bytes:
    return b"Authorization: Bearer " + base64.urlsafe_b64encode(header).rstrip(b"=") + b".e30.e30"


# Sent in each run.
ALWAYS = (
    post(b"[" * 4000, HANDSHAKE),
    post(b"[" * 8000, HANDSHAKE),
    post(b"[" * 1_900_000, b"X-Event-Secret: " + SECRET.encode()),
    post(b'{"a":' * 300_000, b"X-Event-Secret: " + SECRET.encode()),
    post(b"[]", bearer(b"[" * 6000)),
    post(b"[]", b"Expect: \xff"),
)


def body(rng: random.Random) -> bytes:
    size = rng.choice((0, 1, 20, 700, 3000, 4096, 4097, 9000, 150_000))
    code = rng.choice((None, "", 1, [], {}, "x" * size, [[[[]]]], "\ud800", "\r\n"))
    found: bytes = rng.choice(
        (
            rng.choice((b"[", b"{", b'{"a":', b'[{"a":', b'"\\', b"\\", b"]", b"9", b"\x00", b"[1e999,", b'"')) * size,
            rng.randbytes(size),
            json.dumps([{**VALIDATION, "data": {"validationCode": code}}] * rng.choice((1, 2))).encode(),
            json.dumps([event(), {**VALIDATION, "data": code}]).encode(rng.choice(("utf-8", "utf-16", "utf-32"))),
            gzip.compress(b"[" * size),
            b"\xef\xbb\xbf[]",
        )
    )
    return found[: rng.randrange(len(found) + 1)] if rng.random() < 0.2 else found


def framed(rng: random.Random, body: bytes) -> tuple[list[bytes], bytes]:
    """The headers that say where the body ends, and how it is sent."""
    length = len(body)
    match rng.randrange(6):
        case 0:
            sizes = rng.choice(
                (b"%x" % length, b"-1", b"", b"f" * 17, b"%x" % (length + 1), b"%x;x=%s" % (length, b"a" * 9000))
            )
            return [b"Transfer-Encoding: " + rng.choice((b"chunked", b"gzip, chunked", b"x"))], b"".join(
                (sizes, b"\r\n", body, b"\r\n0\r\n\r\n")
            )
        case 1:
            lengths = (b"-1", b"1e3", b"", b"9" * 30, b"%d" % (length + 5), b"%d" % max(length - 5, 0), b"0x10")
            return [b"Content-Length: " + rng.choice(lengths)], body
        case 2:
            return [b"Content-Length: %d" % length] * 2 + [b"Transfer-Encoding: chunked"], body
    return [b"Content-Length: %d" % length], body


def header(rng: random.Random) -> bytes:
    value = rng.choice((b"", b"a", b"\xff\xfe", b"\xed\xa0\x80", b"a\x00b", b"a" * 9000, rng.randbytes(20), b"a\rb"))
    made: bytes = rng.choice(
        (
            HANDSHAKE,
            HANDSHAKE,
            bearer(rng.choice((b"[", b"{", b'{"a":', b"\xff")) * rng.choice((1, 1000, 6000))),
            bearer(json.dumps({"alg": rng.choice(("RS256", "none", 1)), "kid": rng.choice((1, [], "x"))}).encode()),
            b"Content-Encoding: gzip",
            b"Expect: 100-continue",
            b"Expect: " + value,
            b"Upgrade: websocket\r\nConnection: Upgrade",
            b"a: a\r\n" * 200 + b"a: a",
            *(
                name + b": " + value
                for name in (b"X-Event-Secret", b"Authorization", b"WebHook-Request-Origin", b"Host")
            ),
            *(name + value for name in (b"Authorization: Bearer ", b"Authorization: Bearer a.b.", b"Content-Type: ")),
        )
    )
    return made


def wild(rng: random.Random) -> bytes:
    """A request, of which any part may be malformed."""
    methods = (
        b"POST",
        b"POST",
        b"POST",
        b"POST",
        b"OPTIONS",
        b"OPTIONS",
        b"GET",
        b"HEAD",
        b"PUT",
        b"CONNECT",
        b"PRI",
        b"\xff",
    )
    paths = (
        b"/",
        b"/",
        b"/?code=a",
        b"/?code=%ED%A0%80",
        b"/?code=\xff",
        b"/%",
        b"*",
        b"http://[",
        b"a:1",
        b"/" * 9000,
    )
    versions = (b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"x")
    headers, sent = framed(rng, body(rng))
    line = b" ".join((rng.choice(methods), rng.choice(paths), rng.choice(versions)))
    all_headers = [line, b"Host: a", *headers, *(header(rng) for _ in range(rng.randrange(4)))]
    return b"\r\n".join([*all_headers, b"", sent])


async def response(port: int, request: bytes, rng: random.Random) -> bytes:
    """What the receiver sends until it closes the connection. A request that is not complete ends after 2 seconds."""
    received = b""
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(ConnectionError):
            if rng.random() < 0.1:
                # Slowly.
                for piece in (request[:10], request[10:60], request[60:]):
                    writer.write(piece)
                    await asyncio.sleep(0.2)
            else:
                writer.write(request)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2):
                    received = await reader.read(65536)
            with contextlib.suppress(OSError):
                writer.write_eof()
            while more := await reader.read(65536):
                received += more
        writer.close()
    return received


def test_a_request_without_the_secret_neither_ends_nor_blocks_the_receiver(
    receiver: tuple[int, Callable[[], int | None]],
) -> None:
    port, has_ended = receiver
    seed = int(os.environ.get("SEED") or random.randrange(2**32))
    rng = random.Random(seed)
    requests = [*ALWAYS, *(wild(rng) for _ in range(REQUESTS))]

    async def check(limit: asyncio.Semaphore, request: bytes) -> None:
        async with limit:
            where = f"SEED={seed}, the request is {request[:2000]!r}"
            try:
                received = await response(port, request, random.Random(seed))
            except (OSError, TimeoutError) as error:
                raise AssertionError(f"{error!r}; ended: {has_ended()}; {where}") from error
            assert has_ended() is None, where
            statuses = [int(one) for one in re.findall(rb"^HTTP/\S+ (\d+) ", received, re.MULTILINE)]
            # 503 means that a token cannot be checked now.
            assert all(one < 500 or one == 503 for one in statuses), f"{received[:300]!r}; {where}"
            assert statuses or not received, f"{received[:300]!r}; {where}"

    async def scenario() -> None:
        async with asyncio.timeout(PATIENCE):
            while not await is_listening(port):
                await asyncio.sleep(0.1)
        limit = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(*(check(limit, one) for one in requests))
        assert (await response(port, post(b"[]"), rng)).startswith(b"HTTP/1.1 401 ")

    asyncio.run(scenario())
