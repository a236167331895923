# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report of an audit as one HTML page. Only the filters, the sorting and the Copy buttons need scripts.

This module util is private to the collection.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

from .findings import AT_RISK, BREAKS_RULES, STATES, UNKNOWN
from .page_accounts import LABELS, filters, table, tiles
from .page_assets import SCRIPT, STYLE
from .page_charts import Bar, ages, bars, expiries, timeline
from .page_findings import findings
from .page_frame import Page, framed
from .page_text import cards, count, names, prose, with_azure
from .page_vaults import others
from .report import unseen
from .rules import SEVERITIES

Report = Mapping[str, Any]
Record = Mapping[str, Any]
# The maximum number of changes of one kind on the page. The JSON report has all changes.
_MOST = 25


def as_page(report: Report) -> str:
    sections = (
        tiles(report),
        _unread(report),
        filters(report["accounts"]),
        findings(report),
        _comparison(report["comparison"]),
        table(report),
        others(report),
        _charts(report),
        _exceptions(report),
    )
    return framed(
        Page(
            title=f"Batch accounts and their keys, {report['generated_on'][:10]}",
            header=_header(report),
            main="".join(sections),
            target="accounts-title",
            skip="To the table of accounts",
            style=STYLE,
            script=SCRIPT,
        )
    )


def _header(report: Report) -> str:
    asked, summary = report["options"], report["summary"]
    if asked["account_name"]:
        where = f"the account {asked['account_name']}"
    elif asked["resource_group"]:
        where = f"the resource group {asked['resource_group']}"
    elif asked["subscriptions"]:
        where = count(len(asked["subscriptions"]), "named subscription")
    else:
        where = "all subscriptions that the caller can read"
    pools = "" if asked["pools"] else " Availability and pools of the accounts were not read."
    return (
        f'<h1>Batch accounts and their keys</h1><p class="state">{_state(report)}</p>'
        f'<p class="soft">{prose(report["generated_on"])}; '
        f"{escape(where)}. On a customer-managed key: {summary['on_customer_managed_key']:,} of "
        f"{count(summary['accounts'], 'account')}; following the latest version: {summary['following']:,}.{pools}</p>"
        '<p class="paper">The printed page does not contain the files of "Repair with Ansible".</p>'
    )


def _state(report: Report) -> str:
    """The state of all accounts in one sentence, and a link if the report does not know everything."""
    total, states = report["summary"]["accounts"], report["summary"]["states"]
    worst = next((one for one in (AT_RISK, BREAKS_RULES, UNKNOWN) if states[one]), None)
    if not total:
        return '<a href="#unread">No Batch account could be read.</a>'
    hidden = ' <a href="#unread">Not everything could be read.</a>' if unseen(report) else ""
    if worst is None:
        return f"No account is at risk or non-compliant.{hidden}"
    verb = "is" if states[worst] == 1 else "are"
    return f"{states[worst]:,} of {count(total, 'account')} {verb} {LABELS[worst]}.{hidden}"


def _unread(report: Report) -> str:
    hidden = unseen(report)
    lines = "".join(f"<div>{with_azure(one)}</div>" for one in hidden)
    return f'<div class="warning" id="unread" tabindex="-1">{lines}</div>' if hidden else ""


def _charts(report: Report) -> str:
    summary, accounts = report["summary"], report["accounts"]
    managed = summary["on_customer_managed_key"]
    drawn = (
        bars("Accounts by state", [Bar(LABELS[one], summary["states"][one], one) for one in STATES]),
        bars("Open findings by severity", [Bar(one, summary["severities"][one], one) for one in SEVERITIES]),
        bars(
            "Key source",
            [
                Bar("customer, pinned", managed - summary["following"], "ok"),
                Bar("customer, latest", summary["following"], "ok"),
                Bar("Microsoft-managed", summary["accounts"] - managed, "info"),
            ],
        ),
        bars("Expiry of the version in use", expiries(accounts)),
        bars("Age of the version in use", ages(accounts)),
    )
    title = "Versions in use by month: created (left bar) or expiring (right bar)"
    course = timeline(title, accounts, report["generated_on"])
    return f'<section><h2>Statistics of all accounts</h2><div class="charts">{"".join(drawn)}</div>{course}</section>'


def _comparison(comparison: Report | None) -> str:
    if comparison is None:
        return ""
    parts = (
        _listed("New findings", _by_rule(comparison["opened"])),
        _listed("Closed findings", _by_rule(comparison["closed"])),
        _listed("Added accounts", _names(comparison["added"])),
        _listed("Removed accounts", _names(comparison["removed"])),
        _listed("Changed accounts", _by_change(comparison["changed"])),
    )
    content = "".join(parts) or "<p>No changes.</p>"
    hidden = comparison["not_compared"]
    note = f"<p>Not compared: the subscriptions {escape(', '.join(hidden))}.</p>" if hidden else ""
    return f"<section><h2>Changes since {prose(comparison['since'])}</h2>{content}{note}</section>"


def _by_rule(found: Iterable[Record]) -> list[str]:
    grouped = _grouped(found, lambda one: (one["finding"], one["severity"]))
    return [f"{rule} ({severity}): {_accounts(of)}" for (rule, severity), of in grouped.items()]


def _names(accounts: Sequence[Record]) -> list[str]:
    return [_accounts([one["name"] for one in accounts])] if accounts else []


def _grouped(items: Iterable[Record], by: Callable[[Record], Any]) -> dict[Any, list[str]]:
    """The names of the accounts of the items, grouped by the result of `by`."""
    grouped: dict[Any, list[str]] = {}
    for one in items:
        grouped.setdefault(by(one), []).append(one["name"])
    return grouped


def _accounts(of: Sequence[str]) -> str:
    return f"{count(len(of), 'account')} ({names(of)})"


def _by_change(changes: Iterable[Record]) -> list[str]:
    grouped = _grouped(changes, lambda one: (one["field"], _value(one, "before"), _value(one, "after")))
    return [f"{field} was {before} and is {after}: {_accounts(of)}" for (field, before, after), of in grouped.items()]


def _value(change: Record, which: str) -> str:
    value = change[which]
    text = value if isinstance(value, str) else json.dumps(value)
    return prose(LABELS[text] if change["field"] == "state" else text)


def _listed(title: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    shown = "".join(f'<li class="names">{line}</li>' for line in lines[:_MOST])
    rest = len(lines) - _MOST
    more = f"<p>The JSON report has {rest:,} more.</p>" if rest > 0 else ""
    return f"<h3>{title}</h3><ul>{shown}</ul>{more}"


def _exceptions(report: Report) -> str:
    found = (
        {**one, "name": account["name"]}
        for account in report["accounts"]
        for one in account["findings"]
        if one["accepted"]
    )
    grouped = _grouped(found, lambda one: (one["id"], *one["exception"].values()))
    if not grouped:
        return ""
    rows = [[rule, _accounts(of), escape(reason), prose(until)] for (rule, reason, until), of in grouped.items()]
    heads = ("Finding", "Accounts", "Reason", "Until")
    return f"<section><h2>Accepted findings</h2>{cards('Accepted findings', heads, rows)}</section>"
