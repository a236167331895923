# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report of a drill as one HTML page, with a timeline, and with earlier drills of the account.

This module util is private to the collection.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from .._documents.drill import DONE
from .page_charts import Bar, bars
from .page_frame import Page, framed
from .page_text import cards, length, prose

# What the playbook writes: the module's `drill`, and `summary`, `job` and `user`.
Report = Mapping[str, Any]
# What makes a file a report.
_FIELDS = {"account_id", "kind", "started_at", "passed", "seconds_until_refused", "seconds_until_recovered"}
# The maximum number of drills in the trend.
_MOST = 12
_NOT_SEEN = "not seen"
_REFUSED, _RECOVERED = "Batch refused the account", "Batch accepted changes of the account again"

_STYLE = """
#course { list-style: none; margin: .75rem 0; padding: 0 }
#course li { position: relative; border-left: .2rem solid var(--line); margin-left: .5rem; padding: 0 0 1.25rem 1.5rem }
#course li:last-child { border-color: transparent; padding-bottom: 0 }
#course li::before { content: ""; position: absolute; left: -.6rem; top: .15rem; width: 1rem; height: 1rem;
  border-radius: 50%; background: var(--paper); border: .2rem solid var(--tone) }
#course b { display: block }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.5rem; margin: 0 }
dt { color: var(--soft) }
dd { margin: 0; overflow-wrap: anywhere }
.charts { margin-top: 1rem }
.charts svg { max-width: 28rem }
@media screen and (max-width: 48rem) { dl { display: block } dd { margin-bottom: .5rem } }
"""


def as_page(report: Report, earlier: Sequence[Report] = ()) -> str:
    """`earlier` are the reports of earlier drills of the account, the earliest first."""
    name = _name(report)
    heading = f"Drill of {escape(name)}"
    return framed(
        Page(
            title=f"Drill of {name}, {report['started_at'][:10]}",
            header=f'<h1>{heading}</h1><p class="state">{_result(report)}</p><p>{prose(report["summary"])}</p>',
            main=_course(report) + _facts(report) + _trend([*earlier, report]),
            target="course-title",
            skip="To the timeline",
            style=_STYLE,
        )
    )


def earlier(report: Report, folder: Path) -> list[Report]:
    """The reports of earlier drills of the account in the folder, the earliest first. Other files are left out."""
    found = (one for one in reports(folder) if one["account_id"] == report["account_id"])
    return [one for one in found if one["started_at"] < report["started_at"]]


def reports(folder: Path) -> list[Report]:
    """The reports of drills in the folder, the earliest first. Other files are left out."""
    found = []
    for file in folder.glob("*.json"):
        try:
            read = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(read, dict) and read.keys() >= _FIELDS:
            found.append(read)
    return sorted(found, key=lambda one: str(one["started_at"]))


def _name(report: Report) -> str:
    return str(report["account_id"].rpartition("/")[2])


def _result(report: Report) -> str:
    return f'<span class="mark {"ok" if report["passed"] else "critical"}">{_passed(report)}</span>'


def _passed(report: Report) -> str:
    return "passed" if report["passed"] else "not passed"


def _course(report: Report) -> str:
    done = DONE[report["kind"]]
    refusal = f" ({report['refusal']})" if report["refusal"] else ""
    steps = (
        ("medium", report["started_at"], f"{done[0].upper()}{done[1:]}", None),
        ("critical", report["refused_at"], f"{_REFUSED}{refusal}", report["seconds_until_refused"]),
        ("ok", report["recovered_at"], _RECOVERED, report["seconds_until_recovered"]),
    )
    items = "".join(
        f'<li class="{tone if at else "unknown"}"><b>{escape(what)}</b>'
        f"{prose(at) if at else _NOT_SEEN}{f', {length(after)} later' if after is not None else ''}</li>"
        for tone, at, what, after in steps
    )
    return (
        f'<section><h2 id="course-title" tabindex="-1">Timeline</h2><ol id="course">{items}</ol>'
        '<p class="soft">A time is up to 30 seconds too long, because Batch is asked at intervals.</p></section>'
    )


def _facts(report: Report) -> str:
    facts = {
        "Account": report["account_id"],
        "Key": report["key_identifier"],
        "Kind": report["kind"],
        "Principal that began the drill": report["started_by"],
        "Job and user of AWX": " ".join(str(report[one]) for one in ("job", "user") if report[one]),
    }
    shown = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in facts.items() if value)
    return f"<section><h2>The drill</h2><dl>{shown}</dl></section>"


def _trend(drills: Sequence[Report]) -> str:
    """All drills of the account, the latest first, if there are several."""
    if len(drills) == 1:
        return ""
    shown = drills[-_MOST:]
    rows = [
        [
            prose(one["started_at"]),
            f"<code>{escape(one['kind'])}</code>",
            _after(one["seconds_until_refused"]),
            _after(one["seconds_until_recovered"]),
            _result(one),
        ]
        for one in reversed(shown)
    ]
    heads = ("Began", "Kind", "Refused after", "Recovered after", "Result")
    charts = "".join(
        bars(
            title,
            [Bar(one["started_at"][:16].replace("T", " "), one[name], tone) for one in shown if one[name] is not None],
        )
        for title, name, tone in (
            (f"Seconds until {_REFUSED}", "seconds_until_refused", "medium"),
            ("Seconds until the account was recovered", "seconds_until_recovered", "ok"),
        )
    )
    return (
        f"<section><h2>Drills of this account</h2>{cards('Drills of this account', heads, rows)}"
        f'<div class="charts">{charts}</div></section>'
    )


def _after(seconds: int | None) -> str:
    return _NOT_SEEN if seconds is None else length(seconds)
