# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Paging of long lists: up to `$top` items on a page, and a `nextLink` if there are more items."""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, urlencode

from . import errors
from .web import AzureError, Call

PAGE = 1000


class HasId(Protocol):
    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=HasId)
E = TypeVar("E")
Pairs = Sequence[tuple[str, str]]


def _invalid_token(token: str) -> AzureError:
    return errors.invalid_query("$skiptoken", token)


def after(
    entries: Sequence[E], mark: Callable[[E], Any], last: Any | None, size: int
) -> tuple[Sequence[E], Any | None]:
    """One page of entries that are sorted by their marks, and the mark of its last entry if there are more entries.

    The page has up to `size` entries, and starts after the mark `last`, or at the beginning if `last` is None. The
    entry of this mark may have been deleted in the meantime.
    """
    start = 0 if last is None else bisect_right(entries, last, key=mark)
    shown = entries[start : start + size]
    return shown, mark(shown[-1]) if len(entries) > start + size else None


def last_mark(call: Call[Any], invalid: Callable[[str], AzureError] = _invalid_token) -> str | None:
    """The mark in the `$skiptoken` of a request; None if the request is for the first page. If the token is not one of
    `next_link`, raises the AzureError that `invalid` returns for the token."""
    token = call.query("$skiptoken")
    if not token:
        return None
    try:
        return base64.b64decode(token, b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError, ValueError) as error:
        raise invalid(token) from error


def next_link(call: Call[Any], mark: str, before: Pairs, after: Pairs = (), port: str = "") -> str:
    """The URL of the page after a mark. Its query has the pairs `before`, the `$skiptoken`, and the pairs `after`."""
    token = base64.urlsafe_b64encode(mark.encode()).decode()
    query = urlencode([*before, ("$skiptoken", token), *after], safe="$")
    return f"https://{call.host}{port}{quote(call.url_path)}?{query}"


def page(
    call: Call[Any], items: Sequence[T], document: Callable[[T], Any], *, ends_empty: bool = False
) -> dict[str, Any]:
    """The body of a list's response. With `ends_empty`, each page that is not empty has a nextLink, even the last one.
    Raises AzureError for an invalid `$top` or `$skiptoken`."""
    ordered = sorted(items, key=_mark)
    size = min(PAGE, _top(call.query("$top"), PAGE))
    shown, more = after(ordered, _mark, last_mark(call), size)
    found: dict[str, Any] = {"value": [document(item) for item in shown]}
    if more is not None or (ends_empty and shown):
        asked = [(name, value) for name, value in call.request.query_params.items() if name.lower() != "$skiptoken"]
        found["nextLink"] = next_link(call, _mark(shown[-1]), asked)
    return found


def _top(text: str, default: int) -> int:
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise errors.invalid_query("$top", text)
    return int(text)


def _mark(item: HasId) -> str:
    return item.id.lower()
