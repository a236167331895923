# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Long lists come page by page: `$top` to a page, and a `nextLink` while there is more."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, urlencode

from ..web import Call
from . import errors

PAGE = 1000


class HasId(Protocol):
    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=HasId)


def page(call: Call, items: Sequence[T], document: Callable[[T], Any], *, ends_empty: bool = False) -> dict[str, Any]:
    """The list's document. An item that has gone since does not hide those after it. With `ends_empty` each page that
    holds anything has a link, also the last one."""
    ordered = sorted(items, key=lambda item: item.id.lower())
    after = _after(call.query("$skiptoken"))
    rest = [item for item in ordered if item.id.lower() > after]
    shown = rest[: min(PAGE, _top(call.query("$top"), PAGE))]
    found: dict[str, Any] = {"value": [document(item) for item in shown]}
    if len(rest) > len(shown) or (ends_empty and shown):
        found["nextLink"] = _link(call, shown[-1].id)
    return found


def _top(text: str, default: int) -> int:
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise errors.invalid_query("$top", text)
    return int(text)


def _after(token: str) -> str:
    try:
        return base64.b64decode(token, b"-_", validate=True).decode().lower()
    except (binascii.Error, UnicodeError, ValueError) as error:
        raise errors.invalid_query("$skiptoken", token) from error


def _link(call: Call, last_id: str) -> str:
    asked = [(name, value) for name, value in call.request.query_params.items() if name.lower() != "$skiptoken"]
    token = base64.urlsafe_b64encode(last_id.encode()).decode()
    return f"https://{call.host}{quote(call.url_path)}?{urlencode([*asked, ('$skiptoken', token)], safe='$')}"
