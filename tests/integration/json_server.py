# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A server of a JSON API with bearer tokens, to emulate other services than Azure."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

# Takes the method, the path, the query and the body of a request. Returns the status and the body of the response.
Respond = Callable[[str, str, Mapping[str, str], Any], tuple[int, Any]]


@contextmanager
def serving(respond: Respond, token: str, headers: Mapping[str, str] | None = None) -> Iterator[str]:
    """Listen on loopback. Gives the address, without a slash at the end. `headers` are added to each response."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            address = urlsplit(self.path)
            query = dict(parse_qsl(address.query, keep_blank_values=True))
            if self.headers.get("Authorization") == f"Bearer {token}":
                status, response = respond(self.command, address.path, query, body)
            else:
                status, response = 401, {"detail": "Authentication credentials were not provided."}
            content = b"" if response is None else json.dumps(response).encode()
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do_DELETE = handle_one

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
