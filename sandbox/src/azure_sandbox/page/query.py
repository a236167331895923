# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The query of the page: filters, and numbers of rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import urlencode

from ..batch.account import AVAILABLE, IN_PROGRESS, UNAVAILABLE

MOST_ROWS = 1000

SOURCES = {
    "batch": "Microsoft.Batch",
    "pinned": "Microsoft.KeyVault, pinned to a version",
    "following": "Microsoft.KeyVault, following the latest version",
}
HEALTHS = {AVAILABLE: "available", UNAVAILABLE: "unavailable", IN_PROGRESS: "in progress"}
SHOWN = {"": "all", "writes": "writes", "unknown": "unknown", "faults": "with a fault"}


@dataclass(frozen=True)
class PageQuery:
    """The query parameters of the page."""

    filter: str = ""
    source: str = ""
    health: str = ""
    # The number of accounts on a page, the number of the page, and the number of requests.
    accounts: int = 200
    page: int = 1
    requests: int = 20
    show: str = ""

    @classmethod
    def read(cls, query: Mapping[str, str]) -> PageQuery:
        """Read the query parameters. Malformed values are ignored."""
        wanted = cls(
            query.get("filter", "").strip(),
            _one_of(query.get("source"), SOURCES),
            _one_of(query.get("health"), HEALTHS),
            _count(query.get("accounts"), cls.accounts),
            _count(query.get("page"), cls.page, 1_000_000),
            _count(query.get("requests"), cls.requests),
            _one_of(query.get("show"), SHOWN),
        )
        return wanted

    def link(self, **changes: Any) -> str:
        """The address of the page with changed query parameters."""
        changed = replace(self, **changes)
        summary = {field.name: getattr(changed, field.name) for field in fields(self)}
        return "/?" + urlencode({name: value for name, value in summary.items() if value != getattr(PageQuery, name)})

    def finds(self, *texts: object) -> bool:
        """Whether one of the texts contains the text of the filter, in any letter case."""
        if not self.filter:
            return True
        wanted = self.filter.lower()
        return any(wanted in str(text).lower() for text in texts)


def _one_of(text: str | None, known: Mapping[str, str]) -> str:
    return text if text is not None and text in known else ""


def _count(text: str | None, default: int, most: int = MOST_ROWS) -> int:
    # str.isdigit accepts superscripts, which int refuses.
    return min(int(text), most) if text and text.isdecimal() and int(text) else default
