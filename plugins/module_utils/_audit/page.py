# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A report as one page that needs nothing else: no network, no other file.

This module util is private to the collection.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from .._checks.usage import not_listed
from .findings import AT_RISK, BREAKS_RULES, OK, STATES, UNKNOWN
from .page_assets import SCRIPT, STYLE
from .page_charts import Bar, ages, bars, expiries, timeline
from .remedies import ready
from .report import open_findings
from .rules import SEVERITIES

Report = Mapping[str, Any]
Record = Mapping[str, Any]
_STATES = {AT_RISK: "at risk", BREAKS_RULES: "breaks rules", UNKNOWN: "not all seen", OK: "ok"}
_COLUMNS = (
    "Account",
    "Resource group",
    "Subscription",
    "State",
    "Key",
    "Version",
    "Age, days",
    "Days left",
    "Findings",
)
_NUMBERS = ("Age, days", "Days left")
# More make a page that nobody reads; the table has all of them.
_MOST = 25
_ANCHOR = "https://github.com/azbatch/azbatch.cmk/blob/main/docs/audit.md"


def as_page(report: Report) -> str:
    affected = {name: _affected(report, name) for name in report["rules"]}
    sections = (
        _summary(report),
        _at_risk(report),
        _charts(report),
        _comparison(report["comparison"]),
        _table(report),
        _findings(report, affected),
        _exceptions(report),
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{_policy()}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Batch accounts and their keys, {report['generated_on'][:10]}</title><style>{STYLE}</style></head>\n"
        f'<body><a class="skip" href="#accounts-title">To the table of accounts</a>{_header(report)}'
        f"<main>{''.join(sections)}</main>\n"
        f'<script type="application/json" id="data">{_data(report)}</script>\n<script>{SCRIPT}</script></body></html>\n'
    )


def _policy() -> str:
    """Whatever an account is called, this page runs its own script only and loads nothing."""
    allowed = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    rules = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'"
    return f'<meta http-equiv="Content-Security-Policy" content="{rules}">'


def _header(report: Report) -> str:
    asked = report["asked"]
    if asked["account_name"]:
        where = f"the account {asked['account_name']}"
    elif asked["resource_group"]:
        where = f"the resource group {asked['resource_group']}"
    elif asked["subscriptions"]:
        where = f"{len(asked['subscriptions'])} named subscriptions"
    else:
        where = "all subscriptions that the caller can read"
    asked_each = "" if asked["pools"] else " Availability and pools of the accounts were not read."
    hidden = "".join(f"<p>{escape(not_listed(one))}</p>" for one in report["unlisted"])
    return (
        f'<header><h1>Batch accounts and their keys</h1><p class="soft">As of {report["generated_on"]}, '
        f"{escape(where)}.{asked_each}</p>{hidden}</header>"
    )


def _summary(report: Report) -> str:
    summary = report["summary"]
    cards = "".join(f'<li class="{state}"><b>{summary["states"][state]}</b>{_STATES[state]}</li>' for state in STATES)
    others = (
        ("accounts", "accounts"),
        ("on_customer_managed_key", "on a customer-managed key"),
        ("following", "follow the newest version"),
        ("accepted", "findings accepted"),
    )
    more = "".join(f"<li><b>{summary[name]}</b>{label}</li>" for name, label in others)
    return f'<section aria-label="Summary"><ul class="cards">{cards}{more}</ul></section>'


def _charts(report: Report) -> str:
    summary, accounts = report["summary"], report["accounts"]
    managed = summary["on_customer_managed_key"]
    drawn = (
        bars("Accounts by state", [Bar(_STATES[one], summary["states"][one], one) for one in STATES]),
        bars("Open findings by severity", [Bar(one, summary["severities"][one], one) for one in SEVERITIES]),
        bars(
            "Key source",
            [
                Bar("customer-managed, pinned", managed - summary["following"], "ok"),
                Bar("customer-managed, following", summary["following"], "ok"),
                Bar("Microsoft-managed", summary["accounts"] - managed, "info"),
            ],
        ),
        bars("When the version in use expires", expiries(accounts)),
        bars("Age of the version in use", ages(accounts)),
    )
    course = timeline("Versions in use, by the month of their creation or expiry", accounts, report["generated_on"])
    return f'<section><h2>At a glance</h2><div class="charts">{"".join(drawn)}</div>{course}</section>'


def _at_risk(report: Report) -> str:
    lost = [account for account in report["accounts"] if account["state"] == AT_RISK]
    if not lost:
        return "<section><h2>Accounts at risk</h2><p>None.</p></section>"
    rows = "".join(_risk(account) for account in lost[:_MOST])
    return (
        f'<section><h2>Accounts at risk</h2><div class="wide" tabindex="0" role="region" aria-label="Accounts at risk">'
        '<table><thead><tr><th scope="col">Account</th><th scope="col">Cause</th>'
        f'<th scope="col">Remedy</th></tr></thead><tbody>{rows}</tbody></table></div>{_rest(lost)}</section>'
    )


def _risk(account: Record) -> str:
    first = open_findings(account)[0]
    return (
        f'<tr><th scope="row">{escape(account["name"])}</th>'
        f'<td class="names"><a href="#{first["id"]}">{first["id"]}</a>: {escape(first["evidence"])}</td>'
        f"<td>{escape(first['remedy'])}</td></tr>"
    )


def _rest(items: Sequence[Any]) -> str:
    return f"<p>And {len(items) - _MOST} more.</p>" if len(items) > _MOST else ""


def _comparison(comparison: Report | None) -> str:
    if comparison is None:
        return ""
    parts = (
        _listed("Findings that are new", comparison["opened"], _one_finding),
        _listed("Findings that are gone", comparison["closed"], _one_finding),
        _listed("Accounts that are new", comparison["appeared"], lambda one: escape(one["name"])),
        _listed("Accounts that are gone", comparison["vanished"], lambda one: escape(one["name"])),
        _listed("Accounts that have changed", comparison["changed"], _one_change),
    )
    content = "".join(parts) or "<p>Nothing has changed.</p>"
    hidden = comparison["not_compared"]
    note = f"<p>Not compared: the subscriptions {escape(', '.join(hidden))}.</p>" if hidden else ""
    return f"<section><h2>What has changed since {comparison['since']}</h2>{content}{note}</section>"


def _listed(title: str, items: Sequence[Record], line: Callable[[Record], str]) -> str:
    if not items:
        return ""
    lines = "".join(f'<li class="names">{line(one)}</li>' for one in items[:_MOST])
    return f"<h3>{title} ({len(items)})</h3><ul>{lines}</ul>{_rest(items)}"


def _one_finding(one: Record) -> str:
    return f"{escape(one['name'])}: {one['finding']} ({one['severity']}). {escape(one['evidence'])}"


def _one_change(one: Record) -> str:
    return f"{escape(one['name'])}: {one['field']} was {_short(one['before'])} and is {_short(one['after'])}"


def _short(value: Any) -> str:
    return escape(value if isinstance(value, str) else json.dumps(value))


def _table(report: Report) -> str:
    heads = "".join(_head(name) for name in _COLUMNS)
    states = "".join(f'<option value="{number}">{_STATES[one]}</option>' for number, one in enumerate(STATES))
    rules = "".join(f'<option value="{number}">{name}</option>' for number, name in enumerate(report["rules"]))
    return (
        '<section><h2 id="accounts-title">All accounts</h2>'
        "<noscript><p>This table needs JavaScript. The reports in CSV and JSON have all of it.</p></noscript>"
        '<div class="tools" role="search">'
        '<div><label for="text">Name, group, key</label><input id="text" type="search"></div>'
        f'<div><label for="state">State</label><select id="state"><option value="">all</option>{states}</select></div>'
        f'<div><label for="finding">Finding</label><select id="finding"><option value="">all</option>{rules}</select>'
        '</div><button type="button" id="back">Previous</button><button type="button" id="on">Next</button>'
        '<span id="shown" role="status"></span></div>'
        '<div class="wide" tabindex="0" role="region" aria-label="All accounts"><table id="accounts"><thead><tr>'
        f'{heads}</tr></thead><tbody id="rows"></tbody></table></div></section>'
    )


def _head(name: str) -> str:
    kind = ' class="number"' if name in _NUMBERS else ""
    return f'<th scope="col"{kind}><button type="button">{name}</button></th>'


def _findings(report: Report, affected: Mapping[str, Sequence[Record]]) -> str:
    content = "".join(_finding(number, name, report, affected[name]) for number, name in enumerate(report["rules"]))
    return f"<section><h2>Findings</h2>{content or '<p>None.</p>'}</section>"


def _affected(report: Report, rule: str) -> list[Record]:
    return [account for account in report["accounts"] if any(found["id"] == rule for found in open_findings(account))]


def _finding(number: int, name: str, report: Report, accounts: Sequence[Record]) -> str:
    rule = report["rules"][name]
    repair = ready(name, accounts, report["asked"])
    names = ", ".join(escape(account["name"]) for account in accounts[:_MOST])
    code = (
        f"<p>The inventory, <code>repair.batch_accounts.yml</code>:</p>{_copied(repair.inventory)}"
        f"<p>The playbook, <code>repair.yml</code>:</p>{_copied(repair.playbook)}"
        "<p><code>ansible-playbook -i repair.batch_accounts.yml repair.yml</code></p>"
        if repair
        else ""
    )
    return (
        f'<section class="finding" aria-labelledby="{name}"><h3 id="{name}"><span class="mark {rule["severity"]}">'
        f"{rule['severity']}</span> {escape(rule['title'])}</h3>"
        f'<p class="soft"><a href="{_ANCHOR}#{name}">{name}</a></p><p>{escape(rule["why"])}</p>'
        f'<p class="names"><b>Accounts ({len(accounts)}):</b> {names or "all of them accepted"}</p>{_rest(accounts)}'
        f"<p><b>Remedy:</b> {escape(rule['remedy'])}</p>{code} "
        f'<button type="button" data-finding="{number}">Show them in the table</button></section>'
    )


def _copied(text: str) -> str:
    return f'<pre tabindex="0">{escape(text)}</pre><button type="button" data-copy>Copy</button>'


def _exceptions(report: Report) -> str:
    rows = "".join(_accepted(report))
    if not rows:
        return ""
    heads = "".join(f'<th scope="col">{name}</th>' for name in ("Account", "Finding", "Reason", "Until"))
    return (
        "<section><h2>Accepted findings</h2>"
        '<div class="wide" tabindex="0" role="region" aria-label="Accepted findings"><table>'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div></section>"
    )


def _accepted(report: Report) -> Iterator[str]:
    for account in report["accounts"]:
        for found in account["findings"]:
            if found["accepted"]:
                reason, until = escape(found["exception"]["reason"]), found["exception"]["expires_on"]
                yield (
                    f'<tr><th scope="row">{escape(account["name"])}</th><td>{found["id"]}</td><td>{reason}</td>'
                    f"<td>{until}</td></tr>"
                )


def _data(report: Report) -> str:
    """The data of the table, in few bytes: text that many accounts share is stored once."""
    words: dict[str | None, int] = {}
    rules = {name: number for number, name in enumerate(report["rules"])}
    rows = [_row(account, words, rules) for account in report["accounts"]]
    data = {
        "states": [[state, _STATES[state]] for state in STATES],
        "rules": [[name, rule["severity"]] for name, rule in report["rules"].items()],
        "words": list(words),
        "rows": rows,
    }
    # No text may end the script that it stands in.
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def _row(account: Record, words: dict[str | None, int], rules: Mapping[str, int]) -> list[Any]:
    def word(text: str | None) -> int:
        return words.setdefault(text, len(words))

    key = f"{account['vault_name']}/{account['key_name']}" if account["key_name"] else "Microsoft-managed"
    version = "follows the newest" if account["follows_latest"] else account["key_version"]
    return [
        account["name"],
        word(account["resource_group"]),
        word(account["subscription_id"]),
        STATES.index(account["state"]),
        word(key),
        word(version),
        account["version_age_days"],
        account["days_left"],
        [[rules[found["id"]], int(found["accepted"])] for found in account["findings"]],
        account["id"],
    ]
