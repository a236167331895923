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


# Parts of requests, from which the random requests are made.
PARTS = (
    *(b"POST / HTTP/1.1\r\n", b"OPTIONS /?code=%ED%A0%80 HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n", b"GET http://[ x\r\n"),
    *(b"Host: a\r\n", HANDSHAKE + b"\r\n", b"Content-Encoding: gzip\r\n", b"a: a\r\n" * 200, b"\r\n", b"\r\n\r\n"),
    *(b"Content-Length: %s\r\n" % one for one in (b"2", b"-1", b"1e3", b"", b"9" * 30, b"0x10")),
    *(b"Transfer-Encoding: %s\r\n" % one for one in (b"chunked", b"gzip, chunked", b"x")),
    *(b"%s\r\n[]\r\n0\r\n\r\n" % one for one in (b"2", b"-1", b"", b"f" * 17, b"3", b"2;x=" + b"a" * 9000)),
    *(b"Expect: 100-continue\r\n", b"Expect: \xff\r\n", b"Upgrade: websocket\r\nConnection: Upgrade\r\n"),
    *(bearer(one) + b"\r\n" for one in (b"[" * 6000, b'{"a":' * 1000, b"\xff", b'{"alg": 1, "kid": []}')),
    *(b"Authorization: Bearer a.b.\r\n", b"X-Event-Secret: \xed\xa0\x80\r\n", b"WebHook-Request-Origin: a\x00b\r\n"),
    *(gzip.compress(b"[" * 9000), b"\xef\xbb\xbf[]", b'[{"a":' * 700, b"[1e999,", b'"\\', b"\x00" * 4097),
    *(
        json.dumps([{**VALIDATION, "data": {"validationCode": code}}, event()]).encode(encoding)
        for code in (None, [], "x" * 150_000, [[[[]]]], "\ud800", "\r\n")
        for encoding in ("utf-8", "utf-16")
    ),
)


def wild(rng: random.Random) -> bytes:
    """A request, of which any part may be malformed."""
    parts = [
        PARTS[0],
        PARTS[4],
        *rng.choices(PARTS, k=rng.randrange(6)),
        b"\r\n",
        *rng.choices(PARTS, k=rng.randrange(3)),
    ]
    if rng.random() < 0.3:
        rng.shuffle(parts)
    made = b"".join(parts)
    if rng.random() < 0.3:
        place = rng.randrange(len(made))
        made = made[:place] + rng.randbytes(rng.randrange(20)) + made[place + rng.randrange(20) :]
    return made[: rng.randrange(len(made))] if rng.random() < 0.1 else made


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
