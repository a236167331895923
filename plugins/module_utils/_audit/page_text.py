# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Text of a report's page: human-readable dates, numbers, names and tables, with all text from Azure escaped.

This module util is private to the collection.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

# In English, like the rest of the page, regardless of the locale of the controller.
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_INSTANT = re.compile(r"(\d{4})-(0[1-9]|1[0-2])-(\d\d)T(\d\d:\d\d):\d\d(?:\.\d+)?Z")
# The maximum number of names of accounts in a line. The table of accounts has all names.
_MOST_NAMES = 5


def day(instant: str) -> str:
    """2026-11-24T12:00:00Z as 24 Nov 2026."""
    year, month, of_month = instant[:4], int(instant[5:7]), int(instant[8:10])
    return f'<time datetime="{escape(instant)}">{of_month} {MONTHS[month - 1][:3]} {year}</time>'


def prose(text: str) -> str:
    """A text, such as the evidence of a finding, with each timestamp shown as 24 November 2026, 12:00 UTC."""
    return _INSTANT.sub(_moment, escape(text))


def _moment(found: re.Match[str]) -> str:
    year, month, of_month, time = found.groups()
    return f'<time datetime="{found[0]}">{int(of_month)} {MONTHS[int(month) - 1]} {year}, {time} UTC</time>'


def with_azure(text: str) -> str:
    """An error (`CmkError.reported`), with the text of Azure folded."""
    said, _mark, azure = text.partition(" Azure reports: ")
    more = f"<details><summary>Azure reports</summary><div>{escape(azure)}</div></details>" if azure else ""
    return f"{escape(said)}{more}"


def count(amount: int, noun: str) -> str:
    """1 account, or 3,000 accounts."""
    return f"{amount:,} {noun}{'' if amount == 1 else 's'}"


def length(seconds: int) -> str:
    """20 min 5 s."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (rest, "s"))
    return " ".join(f"{amount:,} {unit}" for amount, unit in parts if amount) or "0 s"


def names(of: Sequence[str]) -> str:
    shown = escape(", ".join(of[:_MOST_NAMES]))
    return f"{shown} and {len(of) - _MOST_NAMES:,} more" if len(of) > _MOST_NAMES else shown


def cards(label: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of HTML cells; on a narrow screen, a card for each row, in which each cell shows its head."""
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{one}</th>' for one in heads)
    body = "".join(
        f'<tr><th scope="row">{first}</th>'
        + "".join(f'<td data-head="{name}"><div>{cell}</div></td>' for name, cell in zip(heads[1:], rest, strict=True))
        + "</tr>"
        for first, *rest in rows
    )
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{label}"><table class="cards">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
