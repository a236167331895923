# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A forward proxy that passes requests on to their real hosts, and records them."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import logging
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies, select_proxy
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from ..certificates import Authority
from ..proxy import Proxy, Refusal
from .placeholders import Placeholders, key_of
from .recording import UNFINISHED, Recording, finish
from .secrets import SecretFound, Secrets

logger = logging.getLogger("azure_sandbox.recorder")

SOURCE = "azure-sandbox record, requests of the azbatch.cmk project to Azure"
# How many seconds the real host may take to send its next bytes.
ANSWER_SECONDS = 120.0
# The header of a response of the recorder if the host did not respond.
NO_RESPONSE = "azure-sandbox-no-response"
# Headers that belong to one connection. `requests` sets and evaluates them itself.
_OF_CONNECTION = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "host",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


class RecordingProblem(Exception):
    """A recording could not be written. The message says why."""


class Recorder:
    """The proxy. It sends requests through the proxy in `environment`, if one is named, and trusts the certificates in
    it. `into` names the recording that the requests belong to; outside of it, requests are sent and not recorded."""

    def __init__(self, folder: Path, environment: Mapping[str, str], *, source: str = SOURCE) -> None:
        self._folder = folder
        self._source = source
        self._secrets = Secrets(environment)
        self._recording: Recording | None = None
        self._problem: RecordingProblem | None = None
        self._lock = threading.Lock()
        self._threads = threading.local()
        self._stack = contextlib.ExitStack()
        self._proxy: Proxy | None = None
        # The hosts that could be reached.
        self._reached: set[str] = set()
        # The environment variables for a command whose requests are recorded.
        self.environment: dict[str, str] = {}
        # How many requests are recorded.
        self.count = 0

    async def start(self) -> Recorder:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for unfinished in self._folder.glob(f"*{UNFINISHED}"):
                # Its process was killed.
                finish(unfinished, self._source)
            self._placeholders = Placeholders(key_of(self._folder))
            directory = Path(tempfile.mkdtemp(prefix="azure-sandbox-"))
            self._stack.callback(shutil.rmtree, directory, ignore_errors=True)
            authority = Authority()
            certificate = str(authority.save_certificate(directory))
            self._proxy = Proxy(self, authority.context, self._refusal)
            url = f"http://127.0.0.1:{await self._proxy.start(0)}"
        except BaseException:
            self._stack.close()
            raise
        self.environment = {
            "HTTPS_PROXY": url,
            # The metadata service, which has no TLS, is not recorded.
            "NO_PROXY": "127.0.0.1,localhost,169.254.169.254",
            "REQUESTS_CA_BUNDLE": certificate,
            "SSL_CERT_FILE": certificate,
            "CURL_CA_BUNDLE": certificate,
        }
        return self

    async def stop(self) -> None:
        with self._stack:
            if self._proxy is not None:
                await self._proxy.stop()

    @contextmanager
    def into(self, name: str) -> Iterator[Path]:
        """Record the requests of the block in the file `NAME.json`. Raises RecordingProblem if the file exists, or if
        it would contain a secret."""
        path = self._folder / f"{name}.json"
        if path.exists():
            raise RecordingProblem(f"{path} exists. Use another folder or name.")
        with self._lock:
            unfinished = path.with_suffix(UNFINISHED)
            self._recording = Recording(unfinished, self._placeholders, self._secrets)
            self._problem = None
        try:
            yield path
        finally:
            with self._lock:
                self._recording = None
            if unfinished.exists():
                finish(unfinished, self._source)
        if self._problem is not None:
            raise self._problem

    def public(self, document: Any) -> Any:
        """A JSON document with placeholders instead of ids, names and addresses. Raises RecordingProblem if it contains
        a secret of this run."""
        with self._lock:
            kept = self._placeholders.document(document)
            try:
                self._secrets.require_none(json.dumps(kept, ensure_ascii=False), self._placeholders.replaced)
            except SecretFound as error:
                raise RecordingProblem(f"nothing is written: {error}") from error
        return kept

    # A request

    async def _refusal(self, host: str, port: int) -> Refusal | None:
        if port != 443:
            return Refusal("502 Bad Gateway", f"{host}:{port} is not recorded: only the port 443 is.\n")
        if host not in self._reached:
            # Otherwise a client that waits until the name of a new vault resolves would get a response of the recorder.
            problem = await asyncio.to_thread(unreachable, host)
            if problem:
                return Refusal("502 Bad Gateway", f"{host} cannot be reached: {problem}\n")
            self._reached.add(host)
        return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        host = scope["state"].get("tunnel_host", "")
        if host:
            content = await request.body()
            response = await asyncio.to_thread(self._answer, request, host, content)
        else:
            response = PlainTextResponse("The recorder accepts HTTPS only, through CONNECT.\n", 403)
        await response(scope, receive, send)

    def _answer(self, request: Request, host: str, content: bytes) -> Response:
        query = request.scope["query_string"].decode("latin-1")
        # As the client has sent it: decoding and encoding could change it.
        path = request.scope.get("raw_path", request.scope["path"].encode()).decode("latin-1")
        url = f"https://{host}{path}{f'?{query}' if query else ''}"
        headers = {name: value for name, value in request.headers.items() if name not in _OF_CONNECTION}
        began, started = datetime.now(UTC), time.monotonic()
        try:
            answer = self._session().request(
                request.method, url, data=content, headers=headers, allow_redirects=False, timeout=ANSWER_SECONDS
            )
        except requests.RequestException as error:
            logger.warning("%s %s: %s", request.method, host, error)
            self._reached.discard(host)
            return PlainTextResponse(f"{host} did not respond: {type(error).__name__}\n", 502, {NO_RESPONSE: "true"})
        seconds = time.monotonic() - started
        self._record(request, url, content, answer, began, seconds)
        response = Response(answer.content, answer.status_code)
        for name, value in answer.raw.headers.items():
            if name.lower() not in _OF_CONNECTION:
                response.headers.append(name, value)
        return response

    def _session(self) -> requests.Session:
        """The session of the thread, because a session may not be used by two threads."""
        if not hasattr(self._threads, "session"):
            session = requests.Session()
            # Otherwise a file .netrc could replace the token of the client.
            session.auth = lambda prepared: prepared
            self._threads.session = session
        found: requests.Session = self._threads.session
        return found

    def _record(
        self,
        request: Request,
        url: str,
        content: bytes,
        answer: requests.Response,
        began: datetime,
        seconds: float,
    ) -> None:
        with self._lock:
            claims = self._learn(request, url, content, answer)
            kept = self._kept(request.method, url, content, answer)
            if kept is None or self._recording is None or self._problem is not None:
                return
            try:
                self._recording.add(
                    request.method,
                    url,
                    content,
                    request.headers.get("content-type", ""),
                    answer.status_code,
                    answer.headers,
                    kept,
                    claims=claims,
                    began=began,
                    seconds=seconds,
                )
            except SecretFound as error:
                self._leave_out(error)
            except OSError as error:
                self._end(error)
            else:
                self.count += 1

    def _kept(self, method: str, url: str, content: bytes, answer: requests.Response) -> bytes | None:
        """The body of the response as it is recorded; None if the request is not recorded."""
        return answer.content

    def _leave_out(self, error: SecretFound) -> None:
        """A request is not recorded, because the recording would contain a secret."""
        self._end(error)

    def _end(self, error: Exception) -> None:
        # The requests go on, because a job that stops in the middle would leave more behind.
        self._problem = RecordingProblem(f"nothing is recorded after {self.count} requests: {error}")

    def _learn(self, request: Request, url: str, content: bytes, answer: requests.Response) -> dict[str, Any]:
        """Note the secrets and the names in a request and its response. Returns the claims of the request's token."""
        authorization = request.headers.get("authorization", "")
        self._secrets.add_authorization(authorization)
        claims = self._placeholders.learn(authorization.partition(" ")[2])
        self._secrets.add_query(url)
        if "x-www-form-urlencoded" in request.headers.get("content-type", ""):
            self._secrets.add_form(content)
        for body in (content, answer.content):
            with contextlib.suppress(ValueError):
                document = json.loads(body)
                self._secrets.add_document(document)
                if isinstance(document, dict) and isinstance(document.get("access_token"), str):
                    self._placeholders.learn(document["access_token"])
        return claims


def unreachable(host: str) -> str:
    """Why no connection to a host can be opened, directly or through the proxy of the environment; empty if one can."""
    url = f"https://{host}"
    proxy = select_proxy(url, get_environ_proxies(url))
    try:
        if proxy is None:
            socket.create_connection((host, 443), ANSWER_SECONDS).close()
        elif proxy.startswith("http://"):
            parts = urlsplit(proxy)
            tunnel = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=ANSWER_SECONDS)
            tunnel.set_tunnel(host, 443, HTTPAdapter().proxy_headers(proxy))
            with contextlib.closing(tunnel):
                tunnel.connect()
    except OSError as error:
        return str(error)
    return ""
