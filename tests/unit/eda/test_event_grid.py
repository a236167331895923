# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The event source event_grid, with requests over HTTP and HTTPS as Event Grid sends them."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import logging
import ssl
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from eda import (
    PLUGINS,
    SECRET,
    Webhook,
    certificate,
    cloud_event,
    event,
    free_port,
    is_listening,
    plugin,
    webhook,
)
from hypothesis import given
from hypothesis import strategies as st

SOURCE, FILTER = plugin("event_source", "event_grid"), plugin("event_filter", "key_vault")
TENANT = "99999999-8888-7777-6666-555555555555"
EVENT_GRID = "4962773b-9cdb-44cf-a8bf-237846a00ab7"
VALIDATION = {
    "id": "2d1781af-3a4c-4d7c-bd0c-e34b19da4e66",
    "topic": "/subscriptions/xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx",
    "subject": "",
    "data": {"validationCode": "512d38b6", "validationUrl": "https://rp-eastus2.eventgrid.azure.net:553/validate"},
    "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
    "eventTime": "2018-01-25T22:12:19.4556811Z",
    "metadataVersion": "1",
    "dataVersion": "1",
}


def during(use: Callable[[Webhook], Awaitable[None]], **args: Any) -> None:
    """Run the webhook with these options while `use` sends requests."""

    async def scenario() -> None:
        async with webhook(**args) as running:
            await use(running)

    asyncio.run(scenario())


# One request

HANDSHAKE = {"headers": {"aeg-event-type": "SubscriptionValidation"}}
LARGE = [{**VALIDATION, "subject": "x" * 4096}]
GZIP = {"headers": {"Content-Encoding": "gzip"}}
OWN_HEADER, IN_QUERY = {"secret": SECRET, "secret_header": "X-Cmk"}, {"secret": SECRET, "secret_query": "code"}
NOT_JSON = "The body is not JSON of at most 16 levels."


@pytest.mark.parametrize(
    ("options", "body", "sent", "status", "text"),
    [
        # Microsoft does not document whether a handshake has the headers of the subscription.
        ({}, [VALIDATION], {"secret": None, **HANDSHAKE}, 200, '{"validationResponse": "512d38b6"}'),
        ({}, [VALIDATION], {"secret": "wrong-secret-of-somebody", **HANDSHAKE}, 401, ""),
        ({}, [{**VALIDATION, "data": {}}], HANDSHAKE, 400, ""),
        ({}, [VALIDATION, event()], {"secret": None, **HANDSHAKE}, 401, ""),
        ({}, LARGE, {"secret": None, **HANDSHAKE}, 413, ""),
        ({}, LARGE, HANDSHAKE, 200, ""),
        ({}, b"{", {}, 400, NOT_JSON),
        ({}, b"\xff", {}, 400, NOT_JSON),
        ({}, gzip.compress(json.dumps(event()).encode(), mtime=0), GZIP, 400, NOT_JSON),
        ({}, b"[]", {}, 400, "The body contains no event."),
        ({}, b"1", {}, 400, "Event 1 is not an object."),
        ({}, b'[{"eventType": "a"}, null]', {}, 400, "Event 2 is not an object."),
        ({}, b'{"type": "a"}', {}, 400, "Event 1 has neither eventType, "),
        ({}, event(padding="x" * 1_000_000), {}, 200, ""),
        ({}, event(padding="x" * 2_200_000), {}, 413, ""),
        ({}, event(), {"secret": None, "path": f"/?secret={SECRET}"}, 401, ""),
        ({}, event(), {"secret": SECRET + "x"}, 401, ""),
        ({}, event(), {"secret": SECRET.upper()}, 401, ""),
        (OWN_HEADER, event(), {}, 401, ""),
        (OWN_HEADER, event(), {"headers": {"x-cmk": SECRET}}, 200, ""),
        (IN_QUERY, event(), {}, 401, ""),
        # A handshake is sent to the URL of the subscription, so it has the query.
        (IN_QUERY, [VALIDATION], HANDSHAKE, 401, ""),
        (IN_QUERY, event(), {"secret": None, "path": f"/?code={SECRET}"}, 200, ""),
        # A trial on a loopback address needs no secret.
        ({"allow_unauthenticated": True}, event(), {"secret": None}, 200, ""),
    ],
    ids=lambda value: str(value)[:20],
)
def test_the_response_to_a_request(
    options: dict[str, Any], body: Any, sent: dict[str, Any], status: int, text: str
) -> None:
    async def use(running: Webhook) -> None:
        found, said = await running.post(body, **sent)
        assert (found, said.startswith(text)) == (status, True), said
        received = await running.events(status == 200 and isinstance(body, dict))
        assert SECRET not in json.dumps(received)

    during(use, **options)


def test_the_handshake_of_cloud_events_is_completed() -> None:
    async def use(running: Webhook) -> None:
        headers = {"WebHook-Request-Origin": "eventgrid.azure.net"}
        async with running.session.options(running.url, headers=headers) as response:
            assert response.status == 200
            assert response.headers["WebHook-Allowed-Origin"] == "eventgrid.azure.net"
            assert response.headers["WebHook-Allowed-Rate"] == "*"
        async with running.session.options(running.url) as response:
            assert response.status == 400
        async with running.session.put(running.url, json=event(), headers={"X-Event-Secret": SECRET}) as response:
            assert response.status == 405
        assert await running.events(0) == []

    during(use)


# Events


@pytest.mark.parametrize("make", [event, cloud_event])
def test_an_array_and_a_single_event_are_received(make: Callable[..., dict[str, Any]]) -> None:
    async def use(running: Webhook) -> None:
        assert (await running.post([make(id="1"), make(id="2")]))[0] == 200
        assert (await running.post(make(id="3")))[0] == 200

        assert await running.events(3) == [make(id="1"), make(id="2"), make(id="3")]

    during(use)


def test_events_that_arrive_together_are_one_event_of_the_rulebook() -> None:
    async def use(running: Webhook) -> None:
        await asyncio.gather(*(running.post([event(id=str(number))]) for number in range(20)))
        together = await asyncio.wait_for(running.queue.get(), 20)
        assert {one["id"] for one in together["payload"]} == {str(number) for number in range(20)}

    # Only the second limit ends the list.
    during(use, limits={"QUIET_SECONDS": 600, "COLLECT_SECONDS": 5})


@pytest.mark.parametrize("make", [event, cloud_event])
def test_events_of_other_keys_are_accepted_and_dropped(make: Callable[..., dict[str, Any]]) -> None:
    def of(key: str | None) -> dict[str, Any]:
        return make(id=str(key), data={"VaultName": "kv-one", "ObjectName ": key})

    async def use(running: Webhook) -> None:
        assert (await running.post([of("other"), of("batch"), of("Batch-2"), of("data"), of(None)]))[0] == 200
        assert (await running.post([of("my-batch-1")]))[0] == 200

        assert await running.events(3) == [of("Batch-2"), of("data"), of(None)]

    during(use, key_names=["batch-*", "DAT?"])


def nested(levels: int) -> Any:
    return [nested(levels - 1)] if levels else []


def levels_of(document: Any) -> int:
    if not isinstance(document, dict | list):
        return 0
    return 1 + max(map(levels_of, document.values() if isinstance(document, dict) else document), default=0)


@given(
    st.recursive(
        st.none() | st.integers() | st.text('[]{}"\\n é'),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text('[{"\\'), inner, max_size=2),
        max_leaves=30,
    ),
    st.integers(0, 16),
)
def test_levels_are_counted_as_a_parser_does(document: Any, outer: int) -> None:
    for _level in range(outer):
        document = [document]
    text = json.dumps(document, ensure_ascii=False)

    is_refused = levels_of(document) > 16
    for parsed, given_text in ((SOURCE["_parsed"], text.encode()), (FILTER["_parsed"], text)):
        with pytest.raises(ValueError, match="more than 16 levels") if is_refused else contextlib.nullcontext():
            assert parsed(given_text) == document


def test_a_full_queue_makes_event_grid_repeat_the_request() -> None:
    """As in ansible-rulebook, the queue of the rules has one place."""

    async def use(running: Webhook) -> None:
        batch = [{"eventType": "Microsoft.KeyVault.KeyExpired"}] * 5000
        statuses = [(await running.post(batch))[0] for _number in range(8)]
        accepted = statuses.count(200)
        assert statuses == [200] * accepted + [503] * (8 - accepted)
        assert 2 <= accepted < 8

        received = 0
        while received < accepted * 5000:
            received += len((await asyncio.wait_for(running.queue.get(), 5))["payload"])
        assert (await running.post(batch))[0] == 200

    during(use, queue=asyncio.Queue(1))


# Connections without a request or without the secret


REQUEST = b"POST / HTTP/1.1\r\nHost: a\r\n"
AUTHENTICATED = REQUEST + f"X-Event-Secret: {SECRET}\r\nContent-Length: 100\r\n\r\n".encode()
# The beginning of a TLS record of 512 bytes with a ClientHello.
CLIENT_HELLO = b"\x16\x03\x01\x02\x00\x01"


@pytest.mark.parametrize(
    ("tls", "sent"),
    [(True, REQUEST), (True, AUTHENTICATED + b"[{"), (False, CLIENT_HELLO)],
    ids=["headers", "body", "handshake"],
)
def test_a_connection_that_does_not_end_is_closed(tmp_path: Path, tls: bool, sent: bytes) -> None:
    certfile, keyfile = certificate(tmp_path)
    trusted = ssl.create_default_context(cafile=certfile) if tls else None

    async def use(running: Webhook) -> None:
        # On a slow machine, the handshake itself may take too long.
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(20):
                reader, writer = await asyncio.open_connection("127.0.0.1", running.port, ssl=trusted)
                writer.write(sent)
                assert await reader.read() == b""

    during(use, limits={"CONNECTION_SECONDS": 1}, certfile=certfile, keyfile=keyfile)


def test_a_connection_ends_with_its_response() -> None:
    async def use(running: Webhook) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(REQUEST + b"Content-Length: 2\r\n\r\n[]" + REQUEST)
        responses = await asyncio.wait_for(reader.read(), 20)
        assert responses.startswith(b"HTTP/1.1 401 ")
        assert responses.count(b"HTTP/1.1") == responses.count(b"Connection: close") == 1

    during(use)


# The event source with fewer files than connections are opened. Its queue prints the ids of the events.
FEW_FILES = """
import asyncio, json, resource, runpy, sys

class Printing(asyncio.Queue):
    async def put(self, item):
        print(*(event["id"] for event in item["payload"]), flush=True)

resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
main = runpy.run_path(sys.argv[1])["main"]
main.__globals__["QUIET_SECONDS"] = 0
asyncio.run(main(Printing(), json.loads(sys.argv[2])))
"""


def test_events_are_accepted_while_strangers_hold_connections(tmp_path: Path) -> None:
    certfile, keyfile = certificate(tmp_path)
    trusted = ssl.create_default_context(cafile=certfile)
    port = free_port()
    options = {"host": "127.0.0.1", "port": port, "certfile": certfile, "keyfile": keyfile, "secret": SECRET}
    source = PLUGINS / "event_source" / "event_grid.py"

    async def stranger() -> asyncio.StreamWriter:
        """A connection whose TLS handshake does not end."""
        _reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(CLIENT_HELLO)
        return writer

    async def scenario() -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", FEW_FILES, str(source), json.dumps(options)), stdout=asyncio.subprocess.PIPE
        )
        running = Webhook(f"https://127.0.0.1:{port}", port, asyncio.Queue(), aiohttp.ClientSession())
        held = []
        try:
            # Less than the time after which asyncio ends a handshake.
            async with asyncio.timeout(40), running.session:
                while not await is_listening(port):
                    await asyncio.sleep(0.1)
                for number in range(400):
                    held.append(await stranger())
                    if number % 50 == 49:
                        assert (await running.post(event(id=str(number)), ssl=trusted))[0] == 200
                        assert process.stdout
                        assert await process.stdout.readline() == f"{number}\n".encode()
        finally:
            process.kill()
            await process.wait()
            for writer in held:
                writer.close()

    asyncio.run(scenario())


# Secrets


def test_no_log_contains_the_secret_or_the_query(caplog: pytest.LogCaptureFixture) -> None:
    """Also if a request is wrong, and with the most detailed log."""
    caplog.set_level(logging.DEBUG)

    async def use(running: Webhook) -> None:
        await running.post(event(), path=f"/?code={SECRET}")
        await running.post([VALIDATION], path=f"/?code={SECRET}")
        await running.post(b"{", path=f"/?code={SECRET}")
        await running.post(event(), path="/?code=wrong-secret-of-somebody")
        await running.session.get(f"{running.url}/?code={SECRET}")
        await running.events(1)

    during(use, secret=SECRET, secret_query="code")

    assert "Refused a request of 127.0.0.1: The secret is wrong." in caplog.text
    assert SECRET not in caplog.text
    assert "wrong-secret" not in caplog.text


# Tokens


class Tenant:
    """A tenant that signs tokens, with its keys on a loopback address."""

    def __init__(self) -> None:
        self.port = free_port()
        self.reads = 0
        self.keys = {"key-1": rsa.generate_private_key(public_exponent=65537, key_size=2048)}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/keys"

    async def start(self) -> web.AppRunner:
        async def keys(_request: web.Request) -> web.Response:
            self.reads += 1
            found = [
                {**jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig"}
                for kid, key in self.keys.items()
            ]
            return web.json_response({"keys": found})

        application = web.Application()
        application.router.add_get("/keys", keys)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        return runner

    def token(self, kid: str = "key-1", key: Any = None, **claims: Any) -> str:
        now = int(time.time())
        known = {
            "iss": f"https://sts.windows.net/{TENANT}/",
            "aud": "api://events",
            "appid": EVENT_GRID,
            "iat": now,
            "nbf": now,
            "exp": now + 600,
        }
        wanted = {name: value for name, value in {**known, **claims}.items() if value is not None}
        return jwt.encode(wanted, key or self.keys[kid], "RS256", headers={"kid": kid})


def with_tenant(use: Callable[[Webhook, Tenant], Awaitable[None]], **args: Any) -> None:
    async def scenario() -> None:
        tenant = Tenant()
        runner = await tenant.start()
        options = {"token_audience": "api://events", "token_tenant": TENANT, "token_keys_url": tenant.url, **args}
        try:
            async with webhook(**options) as running:
                await use(running, tenant)
        finally:
            await runner.cleanup()

    asyncio.run(scenario())


async def sent(running: Webhook, token: str) -> tuple[int, str]:
    return await running.post(event(), secret=None, headers={"Authorization": f"Bearer {token}"})


def test_tokens_of_both_versions_are_accepted() -> None:
    async def use(running: Webhook, tenant: Tenant) -> None:
        second = {"iss": f"https://login.microsoftonline.com/{TENANT}/v2.0", "azp": EVENT_GRID, "appid": None}
        assert (await sent(running, tenant.token()))[0] == 200
        assert (await sent(running, tenant.token(**second)))[0] == 200
        await running.events(2)
        assert tenant.reads == 1

    with_tenant(use)


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "api://other"},
        {"iss": "https://sts.windows.net/00000000-0000-0000-0000-000000000000/"},
        {"exp": 1},
        {"exp": None},
        {"appid": "00000000-0000-0000-0000-000000000000"},
        {"appid": None},
    ],
)
def test_a_token_with_another_claim_is_refused(claims: dict[str, Any]) -> None:
    async def use(running: Webhook, tenant: Tenant) -> None:
        assert (await sent(running, tenant.token(**claims)))[0] == 401
        assert await running.events(0) == []

    with_tenant(use)


def test_a_token_with_another_signature_is_refused() -> None:
    async def use(running: Webhook, tenant: Tenant) -> None:
        other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        unsigned = jwt.encode({"aud": "api://events"}, "", "none", headers={"kid": "key-1"})
        assert (await sent(running, tenant.token(key=other)))[0] == 401
        assert (await sent(running, unsigned))[0] == 401
        assert (await sent(running, "no-token"))[0] == 401
        many_levels = jwt.encode({}, tenant.keys["key-1"], "RS256", headers={"kid": "key-1", "x": nested(16)})
        status, reason = await sent(running, many_levels)
        assert (status, reason) == (401, "The token is not valid: ValueError.")
        assert (await running.post(event()))[0] == 401
        assert await running.events(0) == []

    with_tenant(use)


def test_keys_are_read_again_after_a_rollover_but_not_for_every_token() -> None:
    """Event Grid does not repeat a request with status 401, but it does with 503."""

    async def use(running: Webhook, tenant: Tenant) -> None:
        assert (await sent(running, tenant.token()))[0] == 200
        other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        statuses = [(await sent(running, tenant.token(f"unknown-{n}", other)))[0] for n in range(5)]
        assert statuses == [503] * 5
        assert tenant.reads == 1
        await running.events(1)

    with_tenant(use)


def test_event_grid_repeats_the_request_while_the_keys_cannot_be_read() -> None:
    async def use(running: Webhook, tenant: Tenant) -> None:
        assert (await sent(running, tenant.token()))[0] == 503

    with_tenant(use, token_keys_url=f"http://127.0.0.1:{free_port()}/keys")


# TLS


@pytest.mark.parametrize("password", [None, "password-of-the-key"])
def test_tls_with_a_certificate_from_files(tmp_path: Path, password: str | None) -> None:
    certfile, keyfile = certificate(tmp_path, password.encode() if password else None)

    async def use(running: Webhook) -> None:
        trusted = ssl.create_default_context(cafile=certfile)
        assert (await running.post(event(), ssl=trusted))[0] == 200
        await running.events(1)
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await running.post(event())

    during(use, certfile=certfile, keyfile=keyfile, password=password)


# Options


def start(**args: Any) -> None:
    """Start the source, which has to fail."""
    main = plugin("event_source", "event_grid")["main"]
    asyncio.run(asyncio.wait_for(main(asyncio.Queue(), {"host": "127.0.0.1", "port": free_port(), **args}), 5))


@pytest.mark.parametrize(
    ("args", "lines"),
    [
        ({}, ["Neither secret nor token_audience is set"]),
        ({"secret": None, "port": None}, ["port is missing"]),
        ({"port": 0, "secret": SECRET}, ["port is not a number"]),
        ({"secret": 1234567890123456}, ["secret is not a string"]),
        ({"secret": "short"}, ["secret is shorter than 16 characters"]),
        ({"secret": SECRET, "keyfile": "key.pem"}, ["keyfile has no meaning without certfile"]),
        ({"secret": SECRET, "certfile": "/nowhere.pem"}, ["The certificate in /nowhere.pem cannot be loaded"]),
        ({"secret": SECRET, "secret_header": "aeg-secret"}, ["secret_header begins with 'aeg-'"]),
        ({"allow_unauthenticated": "yes"}, ["allow_unauthenticated is neither true nor false"]),
        ({"token_audience": "a"}, ["token_tenant is missing"]),
        ({"token_tenant": "a", "secret": SECRET}, ["token_audience is missing"]),
        (
            {"token_tenant": "a", "token_audience": "a", "token_keys_url": "http://example.com/keys"},
            ["token_keys_url does not begin with https"],
        ),
        ({"allow_unauthenticated": True, "host": "0.0.0.0"}, ["allow_unauthenticated requires a loopback address"]),
        ({"allow_unauthenticated": True, "secret": SECRET}, ["allow_unauthenticated contradicts secret"]),
        ({"key_names": [1], "secret": SECRET}, ["key_names is not a list of strings"]),
        ({"hosts": "0.0.0.0", "port": 0, "host": 1}, ["hosts is not an option", "port is not", "host is not a string"]),
    ],
)
def test_each_wrong_option_is_one_line(args: dict[str, Any], lines: list[str]) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        start(**args)

    found = str(raised.value).splitlines()
    assert len(found) == len(lines)
    assert all(line.startswith(start) for line, start in zip(found, lines, strict=True))
    assert "1234567890123456" not in str(raised.value)


def test_the_source_ends_with_the_error_of_a_filter() -> None:
    """ansible-rulebook runs the filters when an event is put into the queue. The source must not continue without a
    receiver of its events."""

    class Broken(asyncio.Queue[Any]):
        async def put(self, item: Any) -> None:
            raise RuntimeError("the filter is broken")

    async def scenario() -> None:
        async with webhook(Broken()) as running:
            await running.post(event())
            await asyncio.sleep(0.2)

    with pytest.raises(RuntimeError, match="the filter is broken"):
        asyncio.run(scenario())
