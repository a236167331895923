# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A webhook on the loopback address that records its requests."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECONDS = 10.0


@dataclass
class Received:
    method: str
    path: str
    # By names in lower case.
    headers: dict[str, str]
    body: bytes

    @property
    def kind(self) -> str:
        return self.headers.get("aeg-event-type", "")

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[dict[str, Any]]:
        document = self.json
        return document if isinstance(document, list) else [document]


# The status, headers and body of a response to a handshake; None for the correct response.
Handshake = Callable[[Received], "tuple[int, dict[str, str], bytes] | None"]


class Webhook:
    """Completes both handshakes, unless `handshake` returns another response, and responds to deliveries with the
    values of `statuses`, and then with 200."""

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self.statuses: list[int] = []
        self.handshake: Handshake = lambda _received: None
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers.get("content-length", 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                received = Received(self.command, self.path, headers, self.rfile.read(length))
                status, sent, body = webhook.response(received)
                webhook.requests.append(received)
                self.send_response(status)
                for name, value in {**sent, "content-length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_OPTIONS = do_POST

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/events"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def response(self, received: Received) -> tuple[int, dict[str, str], bytes]:
        if received.method == "OPTIONS":
            return self.handshake(received) or (200, {"WebHook-Allowed-Origin": "eventgrid.azure.net"}, b"")
        if received.kind == "SubscriptionValidation":
            code = received.json[0]["data"]["validationCode"]
            return self.handshake(received) or (200, {}, json.dumps({"validationResponse": code}).encode())
        return (self.statuses.pop(0) if self.statuses else 200), {}, b""

    @property
    def deliveries(self) -> list[Received]:
        return [one for one in self.requests if one.kind == "Notification"]

    @property
    def events(self) -> list[dict[str, Any]]:
        return [event for one in self.deliveries for event in one.events]

    def wait(self, events: int) -> list[dict[str, Any]]:
        """Wait until this number of events is received, and return all events."""
        end = time.monotonic() + SECONDS
        while len(self.events) < events:
            assert time.monotonic() < end, f"{len(self.events)} of {events} events are received"
            time.sleep(0.01)
        return self.events
