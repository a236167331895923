# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The log of requests to the sandbox, without secrets."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from . import redaction
from .shared.web import BadJson, read_json

# The limit for all entries together. The oldest entries are deleted first.
KEPT_BYTES = 128 * 1024 * 1024
# The measured size of an entry without its URL and body.
ENTRY_BYTES = 500
BODY_KEPT = 64 * 1024

# The route of a request without a token, to which Key Vault responds with the tenant to sign in to.
CHALLENGE = "challenge"

# The last path segments of POST requests that change nothing.
READING_POSTS = frozenset(
    {
        "listkeys",
        "checknameavailability",
        "wrapkey",
        "unwrapkey",
        "encrypt",
        "decrypt",
        "sign",
        "verify",
        "backup",
        "release",
        "checkpolicyrestrictions",
        # A query of logs
        "logs",
        # A query of Resource Graph
        "resources",
    }
)
WRITING_SERVICES = frozenset({"resource_manager", "key_vault_keys"})


def is_write(service: str, method: str, path: str, status: int, known: bool) -> bool:
    """Whether the request changed, or could have changed, the state of Azure."""
    if service not in WRITING_SERVICES or not known or status >= 400 or method in ("GET", "HEAD"):
        return False
    return not (method == "POST" and path.rstrip("/").rpartition("/")[2].lower() in READING_POSTS)


@dataclass(frozen=True, slots=True)
class Entry:
    number: int
    # By the sandbox's clock.
    time: float
    method: str
    # `url` and `body` are results of `kept_url` and `kept_body`, which remove secrets.
    url: str
    host: str
    body: bytes
    status: int | None
    principal: str | None
    service: str
    route: str
    write: bool
    seconds: float
    fault: int | None = None

    @property
    def size(self) -> int:
        """The approximate size of the entry in memory, in bytes."""
        return ENTRY_BYTES + len(self.url) + len(self.host) + len(self.body)

    def document(self) -> dict[str, Any]:
        moment = datetime.fromtimestamp(self.time, UTC)
        return {
            "number": self.number,
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "method": self.method,
            "url": self.url,
            "host": self.host,
            "body": json.loads(self.body) if self.body else None,
            "status": self.status,
            "principal": self.principal,
            "service": self.service,
            "route": self.route,
            "write": self.write,
            "milliseconds": round(self.seconds * 1000, 2),
            "fault": self.fault,
        }


class RequestLog:
    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        self._bytes = 0
        self._last = 0

    def next_number(self) -> int:
        self._last += 1
        return self._last

    def add(self, entry: Entry) -> None:
        self._entries.append(entry)
        self._bytes += entry.size
        while self._bytes > KEPT_BYTES:
            self._bytes -= self._entries.popleft().size

    def clear(self) -> None:
        """Delete all entries. The numbering continues, so that `since` keeps its meaning."""
        self._entries.clear()
        self._bytes = 0

    @property
    def last(self) -> int:
        return self._last

    def newest_first(self) -> Iterator[Entry]:
        return reversed(self._entries)

    def entries(self, since: int = 0, writes: bool = False) -> Iterator[Entry]:
        return (e for e in self._entries if e.number > since and (e.write or not writes))


def kept_url(address: str, query: str) -> str:
    scheme, mark, rest = address.partition("://")
    address = f"{scheme}{mark}{redaction.text_without_secrets(rest)}"
    parts = parse_qsl(query)
    shown = redaction.parts_without_secrets(parts, redaction.PARAMETERS)
    if shown != parts:
        query = redaction.encoded(shown)
    return f"{address}?{query}" if query else address


def kept_body(content: bytes, content_type: str, service: str) -> bytes:
    """The body as JSON without secrets; empty if there is no body. If the body is longer than BODY_KEPT or not JSON,
    only its length is kept."""
    if not content:
        return b""
    if len(content) > BODY_KEPT:
        return _json(f"({len(content)} bytes)")
    if "x-www-form-urlencoded" in content_type:
        parts = parse_qsl(content.decode("utf-8", "replace"))
        return _json(redaction.encoded(redaction.parts_without_secrets(parts, redaction.FORM_FIELDS)))
    try:
        document = read_json(content)
    except BadJson:
        # Any part of such a body could be a secret.
        return _json(f"({len(content)} bytes, not JSON)")
    members = redaction.VAULT_MEMBERS if service == "key_vault_keys" else redaction.MEMBERS
    return _json(redaction.document_without_secrets(document, members))


def _json(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
