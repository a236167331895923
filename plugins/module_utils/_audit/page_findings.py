# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The findings of a report's page with their causes, the most urgent first, and last those that nobody can repair.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Any
from urllib.parse import quote

from .findings import UNKNOWN
from .page_text import count, names, prose
from .remedies import Ready, ready
from .report import open_findings, unseen
from .rules import CRITICAL, MANUAL, RULES, VERSION

Record = Mapping[str, Any]
# The number of causes of a finding that are shown before "more" is opened.
_MOST = 5


def findings(report: Mapping[str, Any]) -> str:
    affected: dict[str, list[Record]] = {}
    for account in report["accounts"]:
        for cause in dict.fromkeys(one["cause"] for one in open_findings(account)):
            affected.setdefault(cause, []).append(account)
    described = {
        rule: _finding(rule, list(causes), affected, report)
        for rule, causes in groupby(report["causes"], key=lambda one: one["finding"])
    }
    lost = [one for rule, one in described.items() if RULES[rule].is_permanent]
    first = [one for rule, one in described.items() if not RULES[rule].is_permanent]
    # The script shows the text if no finding is shown.
    if report["causes"]:
        nothing = "The filters match no open finding. Other accounts have open findings, which are not shown."
    elif not report["accounts"]:
        nothing = "The findings are not known, because no account could be read."
    elif unseen(report) or report["summary"]["states"][UNKNOWN]:
        nothing = "The data that could be read has no open findings. Other findings are not known."
    else:
        nothing = "No open findings."
    return (
        f'<section id="findings" aria-labelledby="findings-title"{" hidden" if lost and not first else ""}>'
        '<h2 id="findings-title">What to do first</h2>'
        f'<p id="no-finding"{" hidden" if report["causes"] else ""}>{nothing}</p>{"".join(first)}</section>'
        f'<section id="lost" aria-labelledby="lost-title"{"" if lost else " hidden"}>'
        f'<h2 id="lost-title">Lost keys and accounts</h2>{"".join(lost)}</section>'
    )


def _finding(
    name: str, causes: Sequence[Record], affected: Mapping[str, Sequence[Record]], report: Mapping[str, Any]
) -> str:
    rule, repair = report["rules"][name], ready(name, report)
    # A rule of the diagnosis has a remedy for each cause.
    remedies = {one["remedy"] for one in causes}
    remedy = remedies.pop() if len(remedies) == 1 else rule["remedy"]
    lines = [_cause(one, affected[one["id"]], remedy) for one in causes]
    rest = lines[_MOST:]
    more = f"<details><summary>{len(rest):,} more</summary><ul>{''.join(rest)}</ul></details>" if rest else ""
    is_urgent = rule["severity"] == CRITICAL or causes[0]["deadline"] or causes[0] is report["causes"][0]
    total = len({account["id"] for one in causes for account in affected[one["id"]]})
    return (
        f'<details class="finding {rule["severity"]}" id="{name}" data-severity="{rule["severity"]}"'
        f'{" open" if is_urgent else ""}><summary><h3><span class="mark">{rule["severity"]}</span> '
        f'{escape(rule["title"])}</h3><span class="total">{count(total, "account")}</span></summary>'
        f'<p>{escape(rule["why"])} <b>Remedy:</b> {prose(remedy)} <a href="{MANUAL}#{name}">About {name}</a></p>'
        f"<ul>{''.join(lines[:_MOST])}</ul>{more}{_repair(name, repair) if repair else ''}</details>"
    )


def _cause(cause: Record, accounts: Sequence[Record], remedy: str) -> str:
    other = f" <b>Remedy:</b> {prose(cause['remedy'])}" if cause["remedy"] != remedy else ""
    return (
        f'<li data-cause="{escape(cause["id"])}"><a class="count" href="#cause={quote(cause["id"])}" '
        f'data-to="accounts-title">{count(len(accounts), "account")}</a>'
        f"<div>{_title(cause['resource'])}{prose(cause['evidence'])}{other}"
        f'<div class="names">{names([one["name"] for one in accounts])}</div></div></li>'
    )


def _title(resource: Mapping[str, str] | None) -> str:
    """The resource of a cause: of a version, vault and key only, because the evidence names the version."""
    if resource is None:
        return ""
    parts = resource["name"].split("/")
    return f"<b>{escape('/'.join(parts[:2]) if resource['type'] == VERSION else resource['name'])}</b>: "


def _repair(name: str, repair: Ready) -> str:
    return (
        '<details class="repair"><summary>Repair with Ansible</summary><p>Two files, for all accounts with an open '
        f"finding <code>{name}</code>, whatever the filters of this page. Replace names in capitals.</p>"
        f"<p>The inventory, <code>repair.batch_accounts.yml</code>:</p>{_copied(repair.inventory)}"
        f"<p>The playbook, <code>repair.yml</code>:</p>{_copied(repair.playbook)}"
        "<p>First, show the planned changes:</p>"
        f"{_copied('ansible-playbook -i repair.batch_accounts.yml repair.yml --check')}</details>"
    )


def _copied(text: str) -> str:
    return f'<pre tabindex="0">{escape(text)}</pre><button type="button" data-copy hidden>Copy</button>'
