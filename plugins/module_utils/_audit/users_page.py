# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The users of a vault as one HTML page that needs no network, no script and no other file.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from .._checks.usage import ANY, BATCH, NOT_IN_GRAPH, ONLY_BATCH
from .page_assets import STYLE
from .page_text import cards, day, prose

Report = Mapping[str, Any]
_TABLES = """
main h2 { overflow-wrap: anywhere }
h3 { margin: 1rem 0 .25rem }
tbody td:nth-child(n) { min-width: 0 }
"""


def as_page(report: Report) -> str:
    title = f"Users of the key vault {escape(report['vault_name'])}"
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}{_TABLES}</style></head>\n"
        f"<body><header><h1>{title}</h1>{_warnings(report)}"
        f'<p class="soft">{prose(report["generated_on"])}. {escape(report["reason"])}</p></header>'
        f"<main>{''.join(map(_key, report['vault_keys'])) or '<p>The vault has no key.</p>'}</main></body></html>\n"
    )


def _warnings(report: Report) -> str:
    hidden = [f"{one['scope']}: {one['reason']}" for one in report["unlisted"]]
    hidden += [report["not_listed"]] if report["not_listed"] else []
    if report["subscriptions_left_out"]:
        hidden.append(f"No user was searched for in the subscriptions {', '.join(report['subscriptions_left_out'])}.")
    hidden += [NOT_IN_GRAPH] if report["vault_used_by"] == ANY else []
    if report["vault_used_by"] == BATCH:
        hidden.append(ONLY_BATCH)
    return "".join(f'<p class="warning">{escape(one)}</p>' for one in hidden)


def _key(key: Report) -> str:
    users = [
        [
            f"<b>{escape(one['name'])}</b><small>{escape(one['id'])}</small>",
            escape(one["version"] or ("the latest" if one["follows_latest"] else "not known")),
            day(one["changed_on"]) if one["changed_on"] else "not known",
        ]
        for one in key["users"]
    ]
    versions = [
        [
            f"<code>{escape(one['version'])}</code><small>created {day(one['created_on'])}</small>",
            _when(one),
            prose(one["reason"]),
            str(len(one["in_use_by"])),
        ]
        for one in key["versions"]
    ]
    name = escape(key["name"])
    return (
        f"<section><h2>Key {name}</h2><p>{escape(key['unknown'] or key['reason'])}</p>"
        + _table(f"Versions of {name}", ("Version", "May be disabled", "Reason", "Users"), versions)
        + _table(f"Users of {name}", ("Resource", "Version", "Since"), users)
        + "</section>"
    )


def _when(version: Report) -> str:
    if not version["enabled"]:
        return '<span class="mark info">disabled</span>'
    if version["may_be_disabled"]:
        return '<span class="mark ok">now</span>'
    at = version["may_be_disabled_from"]
    return f'<span class="mark medium">from {day(at)}</span>' if at else '<span class="mark unknown">no</span>'


def _table(label: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return f"<h3>{label}</h3>{cards(label, heads, rows)}" if rows else ""
