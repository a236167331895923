# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Event source of ansible-rulebook: a webhook for Azure Event Grid."""

from __future__ import annotations

DOCUMENTATION = r"""
---
short_description: Receive events of Azure Event Grid through a webhook
description:
  - An event source plugin of ansible-rulebook that receives events of Azure Event Grid through a webhook. It completes
    the handshake that Event Grid requires before it delivers events. In the Event Grid schema, the handshake is a
    validation event. In the CloudEvents schema, the handshake is an OPTIONS request.
  - The events of a few seconds are one event of the rulebook, so that one playbook runs for all of them. Its key
    C(payload) is a list of the events as Event Grid sent them. The list ends when no event has arrived for 2 seconds,
    or after 10 seconds.
  - A request with a wrong secret or token gets status 401. A body that contains no event, is compressed or has more
    than 16 levels gets status 400. Event Grid does not repeat such requests. If too many events wait for the rules, or
    a token cannot be checked now, a request gets status 503, and Event Grid repeats the request later.
  - The secret, the token and the query of a request are never part of an event or a log message.
  - A handshake without a secret or token is completed too, because a handshake delivers no event. With
    O(secret_query), a handshake must contain the secret, because Event Grid sends it to the same URL.
  - Anybody can open connections. Therefore a connection ends after one response, and after 30 seconds in any case. The
    webhook keeps at most 200 connections open. If there are more, it closes the oldest one.
requirements:
  - aiohttp
  - PyJWT with cryptography, for O(token_audience)
options:
  host:
    description: Address on which the webhook listens.
    type: str
    default: 0.0.0.0
  port:
    description: TCP port on which the webhook listens.
    type: int
    required: true
  certfile:
    description:
      - Path of a file with the TLS certificate and its chain, in PEM format. Event Grid requires HTTPS, with a
        certificate of a public certificate authority.
      - Without a certificate, the webhook uses HTTP, for example behind a reverse proxy that terminates TLS.
      - The file is read when the rulebook starts.
    type: str
  keyfile:
    description: Path of a file with the private key of the certificate. By default, O(certfile) contains the key.
    type: str
  password:
    description: Password of the private key.
    type: str
  secret:
    description:
      - Secret that each request must contain, at least 16 characters. Set the same value as a delivery property of the
        event subscription, or in the query of the URL of the webhook.
      - O(secret) or O(token_audience) is required.
    type: str
  secret_header:
    description: Name of the header that contains the secret.
    type: str
    default: X-Event-Secret
  secret_query:
    description:
      - Name of the query parameter that contains the secret. If it is set, the header is not used. Prefer the header,
        because reverse proxies write queries to their logs.
    type: str
  token_audience:
    description:
      - Audience of the token of Microsoft Entra ID that each request must contain. This is the application ID or the
        application ID URI that the event subscription names.
    type: str
  token_tenant:
    description: Id of the tenant that issues the token. Required with O(token_audience).
    type: str
  token_application:
    description:
      - Id of the application to which the token must have been issued. The default is Event Grid in the public cloud.
        Without this check, any application of the tenant could send events.
    type: str
    default: 4962773b-9cdb-44cf-a8bf-237846a00ab7
  token_issuers:
    description:
      - Issuers of the token. The default is the issuer of the tenant in the public cloud, for both versions of tokens.
    type: list
    elements: str
  token_keys_url:
    description:
      - Address of the keys that sign the tokens (JWKS). The default is the address of the tenant in the public cloud.
        For another cloud, set this option and O(token_issuers).
    type: str
  key_names:
    description:
      - Names of keys, with V(*) and V(?) as in names of files. The webhook accepts and drops the events of other keys.
        By default, it passes on the events of all keys. Events that concern no single key are always passed on.
    type: list
    elements: str
  allow_unauthenticated:
    description:
      - Accept requests without a secret and without a token. Only for trials, if O(host) is a loopback address.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Secret in a header
  azbatch.cmk.event_grid:
    port: 5000
    certfile: /etc/ssl/events/fullchain.pem
    keyfile: /etc/ssl/events/privkey.pem
    secret: "{{ cmk_event_secret }}"

- name: Token of Microsoft Entra ID, behind a reverse proxy that terminates TLS
  azbatch.cmk.event_grid:
    host: 127.0.0.1
    port: 5000
    token_tenant: 11111111-2222-3333-4444-555555555555
    token_audience: api://batch-key-events
"""

import asyncio
import contextlib
import hmac
import ipaddress
import json
import logging
import re
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

from aiohttp import ClientError, ClientSession, ClientTimeout, web

logger = logging.getLogger(__name__)

# Event Grid sends at most 1 MB in a request.
MAX_BODY_BYTES = 2 * 1024 * 1024
# The only body that is read without the secret. A handshake is a single event. Microsoft's example has 0.7 kB, and the
# longest names of a resource group, a vault and an event subscription add less than 0.5 kB.
MAX_HANDSHAKE_BYTES = 4 * 1024
# The values of an event in the body are at level 4 (array, event, data, value). A parser of JSON calls itself for each
# level, and within the process of ansible-rulebook, 8,000 levels exhaust the stack and end the process.
MAX_DEPTH = 16
# Event Grid waits at most 30 seconds for a response.
CONNECTION_SECONDS = 30
# Each connection needs a file, of usually 1024, and with TLS about 0.3 MB.
MAX_CONNECTIONS = 200
# Event Grid sends at most 5000 events in a request.
MAX_WAITING_EVENTS = 10_000
# Events that arrive together are one event of the rulebook. A script may cause an event every second.
QUIET_SECONDS = 2
COLLECT_SECONDS = 10
MIN_SECRET_LENGTH = 16
# The keys of a tenant are read again if a token names an unknown key, but not more often, because anybody can send such
# tokens.
KEYS_INTERVAL_SECONDS = 60
CLOCK_SKEW_SECONDS = 60
# Event Grid repeats requests later than that.
RETRY_AFTER_SECONDS = 30

VALIDATION = "Microsoft.EventGrid.SubscriptionValidationEvent"


@dataclass(frozen=True)
class Settings:
    """The options of the plugin, which DOCUMENTATION describes."""

    port: int = 0
    host: str = "0.0.0.0"
    certfile: str | None = None
    keyfile: str | None = None
    password: str | None = None
    secret: str | None = None
    secret_header: str = "X-Event-Secret"
    secret_query: str | None = None
    token_audience: str | None = None
    token_tenant: str | None = None
    token_application: str = "4962773b-9cdb-44cf-a8bf-237846a00ab7"
    token_issuers: list[str] = field(default_factory=list)
    token_keys_url: str | None = None
    key_names: list[str] = field(default_factory=list)
    allow_unauthenticated: bool = False


async def main(queue: asyncio.Queue[Any], args: dict[str, Any]) -> None:
    """Receive events until the rulebook ends.

    Puts dictionaries with a list of events, `payload`, into the queue. Raises ValueError with one line for each wrong
    option.
    """
    settings = checked(args)
    tls = _tls(settings)
    waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    webhook = _Webhook(waiting, _authentication(settings), settings.key_names)
    server = web.Server(webhook.respond)
    tasks: list[asyncio.Task[None]] = []
    try:
        connections = _Connections(server, tls)
        tasks += [asyncio.create_task(connections.accept(one)) for one in _listeners(settings.host, settings.port)]
        while True:
            await queue.put({"payload": await _collected(waiting)})
    finally:
        for task in tasks:
            task.cancel()
        await server.shutdown()


async def _collected(waiting: asyncio.Queue[dict[str, Any]]) -> list[dict[str, Any]]:
    """The next event, and those that arrive together with it."""
    events = [await waiting.get()]
    clock = asyncio.get_running_loop().time
    end = clock() + COLLECT_SECONDS
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(QUIET_SECONDS) as limit:
            while len(events) < MAX_WAITING_EVENTS:
                events.append(await waiting.get())
                limit.reschedule(min(clock() + QUIET_SECONDS, end))
    return events


def checked(args: Mapping[str, Any]) -> Settings:
    """The options. Null and empty values count as not set. Raises ValueError with one line for each wrong option."""
    known = {one.name for one in fields(Settings)}
    given = {name: value for name, value in args.items() if value is not None and value != ""}
    problems = [f"{name} is not an option. Options: {', '.join(sorted(known))}." for name in sorted({*given} - known)]
    if isinstance(given.get("port"), str) and given["port"].isdecimal():
        given["port"] = int(given["port"])
    port = given.get("port")
    if port is None:
        problems.append("port is missing. Set the TCP port on which the webhook listens.")
    elif not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= 65535:
        problems.append("port is not a number from 1 to 65535.")
    if not isinstance(given.get("allow_unauthenticated", False), bool):
        problems.append("allow_unauthenticated is neither true nor false.")
    lists = ("key_names", "token_issuers")
    for name in lists:
        values = given.get(name, [])
        if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
            problems.append(f"{name} is not a list of strings.")
    others = sorted(known - {"port", "allow_unauthenticated", *lists})
    # The message does not contain the value, because it may be a secret.
    problems += [
        f"{name} is not a string. If a variable contains only digits, put the value in quotes twice: \"'12'\"."
        for name in others
        if not isinstance(given.get(name, ""), str)
    ]
    if not problems:
        problems += _contradictions(Settings(**given))
    if problems:
        raise ValueError("\n".join(problems))
    return Settings(**given)


def _contradictions(settings: Settings) -> list[str]:
    problems = []
    if settings.keyfile and not settings.certfile:
        problems.append("keyfile has no meaning without certfile. Set certfile too.")
    if settings.password and not settings.certfile:
        problems.append("password has no meaning without certfile. Set certfile too.")
    if settings.secret and len(settings.secret) < MIN_SECRET_LENGTH:
        problems.append(f"secret is shorter than {MIN_SECRET_LENGTH} characters. Use a longer random value.")
    if settings.secret_header.lower().startswith("aeg-"):
        problems.append("secret_header begins with 'aeg-', which Event Grid reserves. Use another name.")
    if settings.token_audience and not settings.token_tenant:
        problems.append("token_tenant is missing. Set the id of the tenant that issues the tokens.")
    if settings.token_tenant and not settings.token_audience:
        problems.append("token_audience is missing. Set the application that the event subscription names.")
    url = urlsplit(settings.token_keys_url or "https://")
    if url.scheme != "https" and not (url.scheme == "http" and _is_loopback(url.hostname or "")):
        problems.append("token_keys_url does not begin with https://.")
    if not settings.secret and not settings.token_audience:
        if not settings.allow_unauthenticated:
            problems.append(
                "Neither secret nor token_audience is set, so anybody could send events. Set secret or token_audience."
            )
        elif not _is_loopback(settings.host):
            problems.append("allow_unauthenticated requires a loopback address as host, such as 127.0.0.1.")
    elif settings.allow_unauthenticated:
        problems.append("allow_unauthenticated contradicts secret and token_audience. Leave it out.")
    return problems


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if not settings.certfile:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without a password, OpenSSL would ask for the password of an encrypted key on the terminal.
        context.load_cert_chain(settings.certfile, settings.keyfile, settings.password or "")
    except OSError as error:
        files = " and ".join(filter(None, (settings.certfile, settings.keyfile)))
        raise ValueError(
            f"The certificate in {files} cannot be loaded: {error}. Check certfile, keyfile and password."
        ) from None
    return context


# Connections


def _listeners(host: str, port: int) -> list[socket.socket]:
    """A listening socket for each address of the host."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listeners = [socket.create_server(one[-1][:2], family=one[0], backlog=128) for one in found]
    for listener in listeners:
        listener.setblocking(False)
    return listeners


class _Connection(web.RequestHandler):
    """The HTTP protocol of a connection, which also knows whether the connection was closed."""

    def __init__(self, server: web.Server) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            # The log would contain the query.
            access_log=None,  # type: ignore[arg-type]
            # aiohttp would decompress the body of a request without the secret too, which takes much longer than
            # sending the body.
            auto_decompress=False,
        )
        self.closed = asyncio.Event()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self.closed.set()


class _Connections:
    """Accepts connections, and limits their number and their duration.

    asyncio limits no number of connections, and aiohttp limits no time of headers and bodies. If there are too many
    connections, the oldest one is closed. The connection of a sender that has the secret is too short to become the
    oldest one.
    """

    def __init__(self, server: web.Server, tls: ssl.SSLContext | None) -> None:
        self._server = server
        self._tls = tls
        # The tasks of the open connections, the oldest first.
        self._open: dict[asyncio.Task[None], None] = {}

    async def accept(self, listener: socket.socket) -> None:
        """Accept the connections of a listening socket until the source ends."""
        try:
            while True:
                try:
                    connection, _peer = await asyncio.get_running_loop().sock_accept(listener)
                except OSError as error:
                    logger.warning("A connection cannot be accepted: %s", error)
                    await asyncio.sleep(1)
                    continue
                if len(self._open) >= MAX_CONNECTIONS:
                    self._end(next(iter(self._open)))
                task = asyncio.create_task(self._serve(connection))
                self._open[task] = None
                task.add_done_callback(lambda ended: self._open.pop(ended, None))
                # If connections wait, sock_accept returns at once. Other tasks must run too.
                await asyncio.sleep(0)
        finally:
            listener.close()
            for task in [*self._open]:
                self._end(task)

    def _end(self, task: asyncio.Task[None]) -> None:
        del self._open[task]
        task.cancel()

    async def _serve(self, connection: socket.socket) -> None:
        """Serve a connection until one end or the time limit closes it."""
        protocol = _Connection(self._server)
        with contextlib.suppress(OSError):
            async with asyncio.timeout(CONNECTION_SECONDS):
                transport, _protocol = await asyncio.get_running_loop().connect_accepted_socket(
                    lambda: protocol, connection, ssl=self._tls
                )
                try:
                    await protocol.closed.wait()
                finally:
                    transport.abort()


# Authentication


class _Refused(Exception):
    """A request with a wrong secret or token. The message is the reason."""


class _Missing(_Refused):
    """A request without a secret or token."""


class _Unavailable(Exception):
    """A token cannot be checked now. The message is the reason."""


def _authentication(settings: Settings) -> _Secret | _Token | None:
    if settings.token_audience:
        return _Token(settings)
    return _Secret(settings) if settings.secret else None


class _Secret:
    def __init__(self, settings: Settings) -> None:
        self._expected = (settings.secret or "").encode()
        self._header = settings.secret_header
        self._query = settings.secret_query

    async def check(self, request: web.BaseRequest) -> None:
        """Raises _Refused."""
        given = request.query.get(self._query) if self._query else request.headers.get(self._header)
        if given is None and self._query:
            # A handshake has the query too, because it is sent to the URL of the event subscription.
            raise _Refused(f"The query parameter {self._query} is missing.")
        if given is None:
            raise _Missing(f"The header {self._header} is missing.")
        if not hmac.compare_digest(given.encode(errors="surrogateescape"), self._expected):
            raise _Refused("The secret is wrong.")


class _Token:
    """Checks tokens of Microsoft Entra ID.

    Source of the issuers: https://learn.microsoft.com/entra/identity-platform/access-tokens. Entra ID issues tokens of
    version 1 unless the registration of the application requests version 2.
    """

    def __init__(self, settings: Settings) -> None:
        # Only this way to authenticate requires PyJWT.
        try:
            import jwt
        except ImportError:
            raise ValueError("token_audience requires PyJWT. Run: pip install 'PyJWT[crypto]'") from None
        self._jwt = jwt
        tenant = settings.token_tenant
        self._audience = settings.token_audience
        self._application = settings.token_application
        self._issuers = settings.token_issuers or [
            f"https://sts.windows.net/{tenant}/",
            f"https://login.microsoftonline.com/{tenant}/v2.0",
        ]
        self._keys_url = settings.token_keys_url or f"https://login.microsoftonline.com/{tenant}/discovery/v2.0/keys"
        self._keys: dict[str, Any] = {}
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    async def check(self, request: web.BaseRequest) -> None:
        """Raises _Refused or _Unavailable."""
        scheme, _blank, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise _Missing("The header Authorization contains no bearer token.")
        try:
            # PyJWT parses the header of a token before it checks the signature.
            _parsed(self._jwt.utils.base64url_decode(token.partition(".")[0]))
            key = await self._key(str(self._jwt.get_unverified_header(token).get("kid")))
            claims = self._jwt.decode(
                token,
                key,
                algorithms=["RS256"],
                audience=self._audience,
                issuer=self._issuers,
                leeway=CLOCK_SKEW_SECONDS,
                options={"require": ["exp", "iss", "aud"]},
            )
        except (self._jwt.PyJWTError, ValueError) as error:
            raise _Refused(f"The token is not valid: {type(error).__name__}.") from None
        # The claim is `appid` in version 1 of tokens, and `azp` in version 2.
        if self._application not in (claims.get("appid"), claims.get("azp")):
            raise _Refused("The token was issued to another application than Event Grid.")

    async def _key(self, kid: str) -> Any:
        async with self._reading:
            if kid not in self._keys:
                if time.monotonic() - self._read_at < KEYS_INTERVAL_SECONDS:
                    raise _Unavailable("The key of the token is not known yet.")
                self._read_at = time.monotonic()
                self._keys = await self._read_keys()
        if kid not in self._keys:
            raise _Refused("The tenant does not have the key of the token.")
        return self._keys[kid]

    async def _read_keys(self) -> dict[str, Any]:
        try:
            async with (
                ClientSession(trust_env=True, timeout=ClientTimeout(total=10)) as session,
                session.get(self._keys_url, raise_for_status=True) as response,
            ):
                found = self._jwt.PyJWKSet.from_dict(await response.json(content_type=None))
        except (ClientError, TimeoutError, ValueError, self._jwt.PyJWTError) as error:
            logger.warning("The keys of the tenant at %s cannot be read: %s", self._keys_url, error)
            raise _Unavailable("The keys of the tenant cannot be read.") from None
        return {str(key.key_id): key for key in found.keys}


# The requests


class _Webhook:
    def __init__(
        self, waiting: asyncio.Queue[dict[str, Any]], authentication: _Secret | _Token | None, key_names: list[str]
    ) -> None:
        self._waiting = waiting
        self._authentication = authentication
        self._key_names = [one.lower() for one in key_names]

    async def respond(self, request: web.BaseRequest) -> web.Response:
        if request.method == "POST":
            response = await self._receive(request)
        elif request.method == "OPTIONS":
            response = self._allow(request)
        else:
            response = _refusal(request, 405, "The method is neither POST nor OPTIONS.")
        response.force_close()
        return response

    def _allow(self, request: web.BaseRequest) -> web.Response:
        """The handshake of CloudEvents.

        Source: https://github.com/cloudevents/spec/blob/v1.0/http-webhook.md, section 4.
        """
        origin = request.headers.get("WebHook-Request-Origin")
        if not origin:
            return _refusal(request, 400, "The header WebHook-Request-Origin is missing.")
        headers = {"WebHook-Allowed-Origin": origin, "WebHook-Allowed-Rate": "*", "Allow": "OPTIONS, POST"}
        return web.Response(headers=headers)

    async def _receive(self, request: web.BaseRequest) -> web.Response:
        missing = ""
        try:
            if self._authentication:
                await self._authentication.check(request)
        except _Missing as reason:
            missing = str(reason)
        except _Refused as reason:
            return _refusal(request, 401, str(reason))
        except _Unavailable as reason:
            return _later(request, str(reason))
        # A handshake needs no secret, because it gives no right: each event is authenticated. Microsoft does not
        # document whether the headers of the subscription are part of a handshake.
        if missing and request.headers.get("aeg-event-type") != "SubscriptionValidation":
            return _refusal(request, 401, missing)
        try:
            bounded = request.clone(client_max_size=MAX_HANDSHAKE_BYTES if missing else MAX_BODY_BYTES)
            events = _events(await bounded.read())
        except web.HTTPRequestEntityTooLarge:
            return _refusal(request, 413, "The body is too large.")
        except ValueError as reason:
            return _refusal(request, 400, str(reason))
        if len(events) == 1 and _text(events[0], "eventType").lower() == VALIDATION.lower():
            code = _text(_data(events[0]), "validationCode")
            if not code:
                return _refusal(request, 400, "The validation event has no validationCode.")
            return web.json_response({"validationResponse": code})
        if missing:
            return _refusal(request, 401, missing)
        events = [one for one in events if self._is_wanted(one)]
        # A single request is always accepted if no other event waits.
        if not self._waiting.empty() and self._waiting.qsize() + len(events) > MAX_WAITING_EVENTS:
            return _later(request, f"{self._waiting.qsize()} events wait for the rules.")
        for event in events:
            self._waiting.put_nowait(event)
        return web.Response()

    def _is_wanted(self, event: Mapping[str, Any]) -> bool:
        key = _text(_data(event), "ObjectName").lower()
        return not key or not self._key_names or any(fnmatchcase(key, one) for one in self._key_names)


def _events(body: bytes) -> list[dict[str, Any]]:
    """The events in the body: one, or an array of them. Raises ValueError with the reason if it has none."""
    try:
        document = _parsed(body)
    except ValueError:
        raise ValueError(f"The body is not JSON of at most {MAX_DEPTH} levels.") from None
    events = document if isinstance(document, list) else [document]
    if not events:
        raise ValueError("The body contains no event.")
    for number, event in enumerate(events, 1):
        if not isinstance(event, dict):
            raise ValueError(f"Event {number} is not an object.")
        if not _text(event, "eventType") and not (_text(event, "specversion") and _text(event, "type")):
            raise ValueError(
                f"Event {number} has neither eventType, as in the Event Grid schema, nor specversion and type, as in "
                "the CloudEvents schema."
            )
    return events


def _parsed(body: bytes) -> Any:
    """The JSON document. Raises ValueError if there is none, or if it has more than MAX_DEPTH levels."""
    text = body.decode()
    depth = 0
    # The brackets outside of strings.
    for bracket in re.findall(r"[][{}]", re.sub(r'"[^"]*"?', "", re.sub(r"(?s)\\.", "", text))):
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_DEPTH:
            raise ValueError(f"It has more than {MAX_DEPTH} levels.")
    return json.loads(text)


def _text(event: Mapping[str, Any], name: str) -> str:
    """The field as text, or an empty string. Microsoft's examples and specifications differ in the case of names."""
    value = next((value for key, value in event.items() if key.strip().lower() == name.lower()), None)
    return value.strip() if isinstance(value, str) else ""


def _data(event: Mapping[str, Any]) -> dict[str, Any]:
    data = next((value for key, value in event.items() if key.strip().lower() == "data"), None)
    return data if isinstance(data, dict) else {}


def _refusal(request: web.BaseRequest, status: int, reason: str) -> web.Response:
    logger.warning("Refused a request of %s: %s", request.remote, reason)
    return web.Response(status=status, text=reason)


def _later(request: web.BaseRequest, reason: str) -> web.Response:
    response = _refusal(request, 503, reason)
    response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response
