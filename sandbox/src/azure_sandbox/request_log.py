# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What was asked of the sandbox, without what was secret in it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any
from urllib.parse import parse_qsl, urlencode

from .web import BadJson, read_json

# The oldest ones are forgotten first.
KEPT = 200_000
BODY_KEPT = 64 * 1024

HIDDEN = "(hidden)"
SECRET_FIELDS = frozenset({"client_secret", "client_assertion", "assertion", "password", "refresh_token", "code"})
# Private parts of a JSON Web Key, and what else of that kind a body can hold.
SECRET_MEMBERS = frozenset(
    {"d", "p", "q", "dp", "dq", "qi", "k", "key_hsm", "primary", "secondary", "secret", "client_secret", "password"}
)
# On a vault's host: backups, wrapped and plain data, secrets.
VAULT_SECRET_MEMBERS = SECRET_MEMBERS | {"value", "iv", "tag", "aad"}

# POSTs that change nothing, by the last segment of the path.
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
    }
)
WRITING_SERVICES = frozenset({"resource_manager", "key_vault_keys"})


def is_write(service: str, method: str, path: str, status: int, known: bool) -> bool:
    """Whether the request changed, or could have changed, what Azure holds."""
    if service not in WRITING_SERVICES or not known or status >= 400 or method in ("GET", "HEAD"):
        return False
    return not (method == "POST" and path.rstrip("/").rpartition("/")[2].lower() in READING_POSTS)


@dataclass(frozen=True)
class Entry:
    number: int
    # By the sandbox's clock.
    time: float
    method: str
    url: str
    host: str
    # The body as it came; what is secret goes when it is shown.
    content: bytes
    content_type: str
    status: int | None
    principal: str | None
    service: str
    route: str
    write: bool
    seconds: float
    fault: int | None = None

    def document(self) -> dict[str, Any]:
        moment = datetime.fromtimestamp(self.time, timezone.utc)
        return {
            "number": self.number,
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "method": self.method,
            "url": self.url,
            "host": self.host,
            "body": shown_body(self.content, self.content_type, self.service),
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
        self._entries: deque[Entry] = deque(maxlen=KEPT)
        self._last = 0

    def next_number(self) -> int:
        self._last += 1
        return self._last

    def add(self, entry: Entry) -> None:
        self._entries.append(entry)

    def clear(self) -> None:
        """The numbers go on, so that `since` keeps its meaning."""
        self._entries.clear()

    @property
    def last(self) -> int:
        return self._last

    def newest_first(self) -> Iterator[Entry]:
        return reversed(self._entries)

    def entries(self, since: int = 0, writes: bool = False) -> Iterator[Entry]:
        return (e for e in self._entries if e.number > since and (e.write or not writes))


def shown_body(content: bytes, content_type: str, service: str) -> Any:
    """The body as JSON or text, or none; never a secret in it."""
    if not content:
        return None
    if "x-www-form-urlencoded" in content_type:
        fields = parse_qsl(content.decode("utf-8", "replace"))
        return urlencode([(name, HIDDEN if name in SECRET_FIELDS else value) for name, value in fields], safe="()/:")
    if len(content) > BODY_KEPT:
        return f"({len(content)} bytes)"
    try:
        document = read_json(content)
    except BadJson:
        # Nothing is known about it, so nothing of it is shown.
        return f"({len(content)} bytes, not JSON)"
    return hidden(document, VAULT_SECRET_MEMBERS if service == "key_vault_keys" else SECRET_MEMBERS)


def hidden(document: Any, members: frozenset[str]) -> Any:
    if isinstance(document, dict):
        return {
            name: HIDDEN if name.lower() in members and not isinstance(value, (dict, list)) else hidden(value, members)
            for name, value in document.items()
        }
    if isinstance(document, list):
        return [hidden(item, members) for item in document]
    return document
