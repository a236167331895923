# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Charts of a report, as SVG within the page.

This module util is private to the collection.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from .page_text import MONTHS

_WIDTH, _LABEL, _ROW = 360, 140, 24
# Of the timeline: the months before and after the current one; in SVG units, the width and the lower end of
# columns.
_MONTHS, _COLUMN, _FLOOR = 12, 44, 120


class Bar(NamedTuple):
    label: str
    amount: int
    # A class of the style sheet, which sets the color.
    tone: str = ""


def bars(title: str, of: Sequence[Bar]) -> str:
    """Horizontal bars, one below the other, with the numbers as text for screen readers."""
    most = max((one.amount for one in of), default=0) or 1
    drawn = "".join(_bar(one, number, most) for number, one in enumerate(of))
    labels = ", ".join(f"{one.label}: {one.amount:,}" for one in of)
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_ROW * len(of)}" role="img" aria-label="{escape(labels)}">{drawn}</svg></figure>'
    )


def _bar(one: Bar, number: int, most: int) -> str:
    length = round((_WIDTH - _LABEL - 50) * one.amount / most) if one.amount else 0
    top = number * _ROW
    return (
        f'<g class="{one.tone}"><text x="0" y="{top + 16}">{escape(one.label)}</text>'
        f'<rect x="{_LABEL}" y="{top + 4}" width="{length}" height="{_ROW - 8}" rx="2"/>'
        f'<text class="count" x="{_LABEL + length + 6}" y="{top + 16}">{one.amount:,}</text></g>'
    )


def expiries(accounts: Iterable[Mapping[str, Any]]) -> list[Bar]:
    """The numbers of accounts by the days until their version expires."""
    days = [account["days_left"] for account in accounts if account["version"]]
    return [
        Bar("has expired", _between(days, None, 0), "critical"),
        Bar("within 7 days", _between(days, 0, 7), "critical"),
        Bar("8 to 30 days", _between(days, 7, 30), "high"),
        Bar("31 to 90 days", _between(days, 30, 90), "medium"),
        Bar("91 to 180 days", _between(days, 90, 180), "ok"),
        Bar("181 to 365 days", _between(days, 180, 365), "ok"),
        Bar("later", _between(days, 365, None), "ok"),
        Bar("never", sum(1 for one in days if one is None), "unknown"),
    ]


def ages(accounts: Iterable[Mapping[str, Any]]) -> list[Bar]:
    """Count accounts by the age of the key version in use."""
    days = [account["version_age_days"] for account in accounts if account["version"]]
    return [
        Bar("up to 30 days", _between(days, None, 31)),
        Bar("31 to 90 days", _between(days, 31, 91)),
        Bar("91 to 180 days", _between(days, 91, 181)),
        Bar("181 to 365 days", _between(days, 181, 366)),
        Bar("more than a year", _between(days, 366, None)),
    ]


def timeline(title: str, accounts: Sequence[Mapping[str, Any]], today: str) -> str:
    """For each month of the past and of the next year, the number of accounts whose version was created or expires
    in that month."""
    this = _month(today)
    made = Counter(_month(one["version_created_on"]) - this for one in accounts if one["version_created_on"])
    ends = Counter(_month(one["expires_on"]) - this for one in accounts if one["expires_on"])
    most = max((*made.values(), *ends.values(), 1))
    columns = [
        drawn
        for month in range(-_MONTHS, _MONTHS + 1)
        for drawn in (
            _column(this + month, month, made[month], most, "low", 0),
            _column(this + month, month, ends[month], most, "high" if month > 0 else "critical", 1),
            f'<text x="{_left(month) + 2}" y="{_FLOOR + 14}">{_name(this + month)[:3]}</text>',
            _year(this + month, month),
        )
    ]
    labels = [f"{made[month]:,} created in {_name(this + month)}" for month in sorted(made) if abs(month) <= _MONTHS]
    labels += [f"{ends[month]:,} expire in {_name(this + month)}" for month in sorted(ends) if abs(month) <= _MONTHS]
    now = _left(0) - 3
    size, text = f"0 0 {_left(_MONTHS + 1)} {_FLOOR + 34}", escape(", ".join(labels) or "none")
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(title)}">'
        f'<svg viewBox="{size}" role="img" aria-label="{text}">'
        f'<line class="now" x1="{now}" y1="0" x2="{now}" y2="{_FLOOR}"/>{"".join(columns)}</svg></div></figure>'
    )


def _left(month: int) -> int:
    return (month + _MONTHS) * _COLUMN


def _column(number: int, month: int, amount: int, most: int, tone: str, place: int) -> str:
    if not amount:
        return ""
    height = max(2, round((_FLOOR - 16) * amount / most))
    left, width = _left(month) + place * (_COLUMN // 2), _COLUMN // 2 - 3
    return (
        f'<g class="{tone}"><title>{_name(number)}: {amount}</title>'
        f'<rect x="{left}" y="{_FLOOR - height}" width="{width}" height="{height}"/>'
        f'<text class="count" x="{left}" y="{_FLOOR - height - 3}">{amount:,}</text></g>'
    )


def _month(instant: str) -> int:
    """Months since the year 0."""
    return int(instant[:4]) * 12 + int(instant[5:7]) - 1


def _name(month: int) -> str:
    return f"{MONTHS[month % 12]} {month // 12}"


def _year(number: int, month: int) -> str:
    """The year as a label below the first month and below each January."""
    if number % 12 and month > -_MONTHS:
        return ""
    return f'<text x="{_left(month) + 2}" y="{_FLOOR + 28}">{number // 12}</text>'


def _between(days: Iterable[int | None], least: int | None, below: int | None) -> int:
    return sum(
        1 for one in days if one is not None and (least is None or one >= least) and (below is None or one < below)
    )
