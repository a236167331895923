# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The sandbox as one ASGI application. It finds the service of a host, injects faults, logs requests, and lets Batch
check its keys after a write."""

from __future__ import annotations

import asyncio
import logging
import pickle
import time
from collections.abc import Callable
from email.utils import formatdate
from functools import lru_cache
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .control import routes as control
from .control.reading import SAFE_METHODS
from .environment import environment
from .faults import Fault, Faults
from .proxy import Refusal
from .request_log import CHALLENGE, Entry, RequestLog, is_write, kept_body, kept_url
from .services import BATCH_DATA, KEY_VAULT_KEYS, Service, service_of
from .shared.web import AzureError, BadJson, Call, answer
from .world import World

logger = logging.getLogger("azure_sandbox")

BODY_LIMIT = 16 * 1024 * 1024
# The limit of the DNS for the length of a name.
HOST_LIMIT = 253
UNKNOWN = "unknown"


class ConnectionClosed(Exception):
    """The client has closed the connection."""


class Sandbox:
    def __init__(self, world: World, *, latency: float = 0) -> None:
        self.world = world
        # The pickled world that a reset restores.
        self.beginning = pickle.dumps(world)
        self.latency = latency
        self.log = RequestLog()
        self.faults = Faults()
        self.url = ""
        self.certificate = Path()
        # Called after each request that may have changed the world.
        self.changed: Callable[[], None] = lambda: None
        # The control API, by its hosts.
        self._own_hosts: dict[str, Service] = {}
        self._control = control.service(self)

    def listens_at(self, port: int, certificate: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.certificate = certificate
        for name in ("127.0.0.1", "localhost"):
            self._own_hosts[f"{name}:{port}"] = Service("control", self._control, "http")

    @property
    def environment(self) -> dict[str, str]:
        return environment(self.url, self.certificate, self.world.operator)

    def reset(self) -> None:
        self.world = pickle.loads(self.beginning)
        self.log.clear()
        self.faults.clear()

    # Hosts and services

    def service(self, host: str) -> Service | None:
        # Not cached: to find a service takes 2 microseconds, and clients can send any number of host names.
        return self._own_hosts.get(host) or (service_of(host) if len(host) <= HOST_LIMIT else None)

    async def refusal(self, host: str, port: int) -> Refusal | None:
        """The response with which the proxy refuses a tunnel to a host; None if it opens the tunnel."""
        service = self.service(host)
        if service is None or service.scheme != "https" or port != 443:
            self._log_connect(host, port, UNKNOWN, UNKNOWN)
            return Refusal("502 Bad Gateway", f"{host}:{port} is not in the sandbox, which forwards no requests.\n")
        if not self._resolves(service, host):
            self._log_connect(host, port, "unresolved", service.name)
            return Refusal("502 Bad Gateway", f"{host} does not resolve: nothing of this name is registered.\n")
        return None

    def _resolves(self, service: Service, host: str) -> bool:
        """Whether the host is in the DNS. That of a vault is from the end of its creation, or some time later
        (`vault_name_delay`), until its deletion."""
        if service is BATCH_DATA:
            return self.world.batch.by_host(host) is not None
        if service is not KEY_VAULT_KEYS:
            return True
        vault = self.world.vaults.by_name(host.partition(".")[0])
        return vault is not None and vault.host.lower() == host and self.world.vaults.resolves(vault)

    def _log_connect(self, host: str, port: int, route: str, service: str) -> None:
        self.log.add(
            Entry(
                number=self.log.next_number(),
                time=self.world.clock.time(),
                method="CONNECT",
                url=f"{host}:{port}",
                host=host,
                body=b"",
                status=502,
                principal=None,
                service=service,
                route=route,
                write=False,
                seconds=0,
            )
        )

    # A request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        started = time.perf_counter()
        request = Request(scope)
        try:
            content = await _read(receive)
        except ConnectionClosed:
            return
        call = Call(self.world, request, content or b"")
        if not call.host and scope["state"].get("tunnel_host"):
            call.host = scope["state"]["tunnel_host"]
        service = self.service(call.host)
        fault: Fault | None = None
        if service is not None and service.name == "control":
            response: Response | None = _refused(service, call) or await self._handle(service, call)
            if request.method not in SAFE_METHODS:
                self.changed()
        else:
            fault = self._fault(request.method, call.host, _target(scope))
            response = await self._answer(service, call, fault, too_long=content is None)
            if call.world is self.world:
                self._log(service, call, response, fault, started)
            else:
                # If the sandbox was reset during a delay, the request belongs to the previous world.
                response = None
        if response is None:
            await _drop(scope, receive)
        else:
            # The time of the sandbox's clock, because a client may use the time of the service.
            response.headers["date"] = _http_date(int(self.world.clock.time()))
            if fault is None or fault.truncate is None:
                await response(scope, receive, send)
            else:
                await _send_part(scope, response, send, fault.truncate)

    def _fault(self, method: str, host: str, target: str) -> Fault | None:
        """The fault that affects the request, if any."""
        if not self.faults.any():
            return None
        fault = self.faults.apply(method, host, target, self.world.clock.time())
        if fault and fault.expire_tokens:
            self.world.directory.expire_tokens()
        return fault

    async def _answer(
        self, service: Service | None, call: Call[World], fault: Fault | None, *, too_long: bool
    ) -> Response | None:
        """The response; None if the connection is to be dropped."""
        delay = self.latency + (fault.delay if fault else 0)
        if delay:
            await asyncio.sleep(delay)
        if fault and fault.drop == "before":
            return None
        if fault and fault.answer and not fault.handled:
            return _injected_response(fault)
        if too_long:
            return answer({"error": {"code": "RequestTooLarge", "message": "The request is too large."}}, 413)
        response = _refused(service, call) or await self._handle_and_follow(service, call)
        if fault and fault.drop == "after":
            return None
        return _injected_response(fault) if fault and fault.answer else response

    async def _handle_and_follow(self, service: Service | None, call: Call[World]) -> Response:
        assert service is not None
        rotations = self.world.keys.rotations
        response = await self._handle(service, call)
        request, known = call.request, call.route is not None
        call.wrote = is_write(service.name, request.method, call.url_path, response.status_code, known)
        if call.wrote:
            self._reassess(service, call)
        if call.wrote or self.world.keys.rotations != rotations:
            self.changed()
        return response

    async def _handle(self, service: Service, call: Call[World]) -> Response:
        try:
            return await service.handle(call)
        except AzureError as error:
            return answer(error.body, error.status, error.headers)
        except BadJson as error:
            return answer({"error": {"code": "BadRequest", "message": str(error)}}, 400)
        except Exception:
            logger.exception("%s %s%s", call.request.method, call.host, call.url_path)
            message = "The sandbox failed; its log has the traceback. This is a defect of the sandbox."
            return answer({"error": {"code": "InternalServerError", "message": message}}, 500)

    def _reassess(self, service: Service, call: Call[World]) -> None:
        """Let Batch check its keys again after a change of a vault, a key, a role assignment or an identity."""
        path = call.url_path.lower()
        if service is KEY_VAULT_KEYS:
            self.world.batch.reassess(call.host.partition(".")[0])
        elif "/providers/microsoft.keyvault/" in path:
            self.world.batch.reassess(call.path.get("vault"))
        elif "/providers/microsoft.batch/" not in path:
            self.world.batch.reassess(None)

    def _log(
        self, service: Service | None, call: Call[World], response: Response | None, fault: Fault | None, started: float
    ) -> None:
        request = call.request
        name = service.name if service else UNKNOWN
        self.log.add(
            Entry(
                number=self.log.next_number(),
                time=self.world.clock.time(),
                method=request.method,
                url=kept_url(f"{request.scope['scheme']}://{call.host}{call.url_path}", _query(request.scope)),
                host=call.host,
                body=kept_body(call.content, request.headers.get("content-type", ""), name),
                status=response.status_code if response else None,
                principal=call.caller.object_id if call.caller else None,
                service=name,
                route=_route(name, call, response),
                write=call.wrote,
                seconds=time.perf_counter() - started,
                fault=fault.number if fault else None,
            )
        )


def _route(service: str, call: Call[World], response: Response | None) -> str:
    if call.route is not None:
        return call.route.path
    # Without a token, the sandbox does not check whether the operation exists, so the route is not `unknown`.
    if response is None or response.status_code != 401:
        return UNKNOWN
    # Clients of Key Vault send their first request without a token: the response names the tenant to sign in to.
    is_challenge = service == KEY_VAULT_KEYS.name and "authorization" not in call.request.headers
    return CHALLENGE if is_challenge else "unauthenticated"


@lru_cache(maxsize=4)
def _http_date(second: int) -> str:
    return formatdate(second, usegmt=True)


def _query(scope: Scope) -> str:
    return str(scope["query_string"].decode("latin-1"))


def _target(scope: Scope) -> str:
    query = _query(scope)
    return f"{scope['path']}?{query}" if query else str(scope["path"])


def _refused(service: Service | None, call: Call[World]) -> Response | None:
    if service is None:
        message = f"{call.host or 'A request without a host'} is not in the sandbox, which forwards no requests."
        return answer({"error": {"code": "UnknownHost", "message": message}}, 502)
    if service.scheme != call.request.scope["scheme"]:
        message = f"{call.host} accepts only {service.scheme}."
        return answer({"error": {"code": "HttpsRequired", "message": message}}, 403)
    return None


def _injected_response(fault: Fault) -> Response:
    assert fault.answer is not None
    body = fault.answer.body
    if isinstance(body, str):
        return Response(body, fault.answer.status, dict(fault.answer.headers))
    return answer(body, fault.answer.status, fault.answer.headers)


async def _read(receive: Receive) -> bytes | None:
    """The body of the request; None if it is longer than BODY_LIMIT. Raises ConnectionClosed."""
    parts: list[bytes] = []
    length = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionClosed
        length += len(message["body"])
        if length <= BODY_LIMIT:
            parts.append(message["body"])
        if not message["more_body"]:
            return b"".join(parts) if length <= BODY_LIMIT else None


async def _send_part(scope: Scope, response: Response, send: Send, length: int) -> None:
    """Send the head with the length of the whole body, send only a part of the body, and close the connection."""
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": bytes(response.body)[:length], "more_body": True})
    scope["state"]["transport"].close()


async def _drop(scope: Scope, receive: Receive) -> None:
    transport: Any = scope["state"]["transport"]
    transport.abort()
    while (await receive())["type"] != "http.disconnect":
        pass
