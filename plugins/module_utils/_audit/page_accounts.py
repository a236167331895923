# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table of accounts of a report's page, and its filters.

All rows are in the file, so that the table can be read without scripts. The script reads its data from the rows.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from .._documents.account import UNDER_WAY
from .findings import AT_RISK, BREAKS_RULES, CHANGING, OK, STATES, UNKNOWN
from .page_text import count, day
from .rules import SEVERITIES

Record = Mapping[str, Any]
LABELS = {
    AT_RISK: "at risk",
    BREAKS_RULES: "non-compliant",
    UNKNOWN: "unknown",
    CHANGING: "being created or deleted",
    OK: "ok",
}
# The value of the filter `available`.
_YES_NO = {True: "yes", False: "no", None: ""}
_COLUMNS = ("Account", "Subscription", "Region", "State", "Key", "Age", "Expires", "Findings")
_NUMBERS = ("Age",)
_NOTHING = "&ndash;"


def tiles(report: Mapping[str, Any]) -> str:
    summary = report["summary"]
    found = "".join(
        f'<li class="{state}">{_tile(f"state={state}", summary["states"][state], LABELS[state])}'
        f"{_unavailable(report) if state == AT_RISK else ''}</li>"
        for state in STATES
        if state != CHANGING or summary["states"][state]
    )
    return (
        f'<nav aria-label="Accounts by state"><ul class="tiles"><li>{_tile("all", summary["accounts"], "all accounts")}'
        f"</li>{found}</ul></nav>"
    )


def _tile(filters: str, amount: int, label: str) -> str:
    return f'<a href="#{filters}"><b>{amount:,}</b> <span>{label}</span></a>'


def _unavailable(report: Mapping[str, Any]) -> str:
    """The accounts that are unavailable now, within the tile of those at risk. Only pools show that."""
    known = [one["available"] for one in report["accounts"] if one["available"] is not None]
    return _tile("available=no", known.count(False), "unavailable now") if known else ""


def filters(accounts: Iterable[Record]) -> str:
    subscriptions = {one["subscription_id"]: _named(one) for one in accounts}
    vaults = {one["vault_name"] for one in accounts if one["vault_name"]}
    tags = {f"{name}={value}" for one in accounts for name, value in one["tags"].items()}
    choices = "".join(f'<option value="{escape(tag)}">' for tag in sorted(tags, key=str.casefold))
    return (
        '<details id="filters" hidden open><summary>Filters</summary><form role="search">'
        '<label>Text<input name="text" type="search" placeholder="Name, group, key"></label>'
        f"{_select('subscription', 'Subscription', subscriptions)}"
        f"{_select('region', 'Region', _same(one['location'] for one in accounts))}"
        f"{_select('vault', 'Vault', _same(vaults))}{_select('severity', 'Severity', _same(SEVERITIES))}"
        '<label>Tag<input name="tag" type="search" list="tags" placeholder="name=value"></label>'
        f'<datalist id="tags">{choices}</datalist></form></details>'
        '<p id="shown" role="status" hidden></p><ul id="chips" aria-label="Filters in use" hidden></ul>'
    )


def _named(account: Record) -> str:
    name, guid = account["subscription_name"], account["subscription_id"]
    return f"{name} ({guid})" if name else guid


def _same(values: Iterable[str]) -> dict[str, str]:
    return {value: value for value in values}


def _select(name: str, label: str, values: Mapping[str, str]) -> str:
    ordered = values.items() if name == "severity" else sorted(values.items(), key=lambda one: one[1].casefold())
    options = "".join(f'<option value="{escape(value)}">{escape(text)}</option>' for value, text in ordered)
    return f'<label>{label}<select name="{name}"><option value="">all</option>{options}</select></label>'


def table(report: Mapping[str, Any]) -> str:
    heads = "".join(_head(name) for name in _COLUMNS)
    numbers = {one["id"]: number for number, one in enumerate(report["causes"])}
    rows = "\n".join(_row(account, numbers) for account in report["accounts"])
    return (
        '<section><h2 id="accounts-title" tabindex="-1">Accounts</h2>'
        '<div class="pager" hidden><button type="button" id="back">Previous</button>'
        '<button type="button" id="on">Next</button><span id="part"></span></div>'
        '<div class="wide" tabindex="0" role="region" aria-label="Accounts">'
        '<table id="accounts" class="cards"><thead><tr>'
        f'{heads}</tr></thead><tbody id="rows">{rows}</tbody></table></div></section>'
    )


def _head(name: str) -> str:
    kind = ' class="number"' if name in _NUMBERS else ""
    return f'<th scope="col"{kind}><span>{name}</span></th>'


def _row(account: Record, numbers: Mapping[str, int]) -> str:
    causes = dict.fromkeys(numbers[one["cause"]] for one in account["findings"] if not one["accepted"])
    state, age = account["state"], account["version_age_days"]
    tags = " ".join(f"<i>{escape(f'{name}={value}')}</i>" for name, value in account["tags"].items())
    cells = (
        _subscription(account),
        escape(account["location"]),
        f'<span class="mark {state}">{_label(account)}</span>',
        _key(account),
        _NOTHING if age is None else count(age, "day"),
        _expiry(account),
        "\n".join(_found(one) for one in account["findings"]) or _NOTHING,
    )
    # A line break separates the texts of a cell, because the script searches the text of the cell.
    head = [f"<b>{escape(account['name'])}</b>", f"<small>{escape(account['resource_group'])}</small>"]
    head += [f"<small>{tags}</small>"] if tags else []
    return (
        f'<tr data-state="{state}" data-available="{_YES_NO[account["available"]]}" '
        f'data-causes="{" ".join(map(str, causes))}">'
        '<th scope="row">' + "\n".join(head) + f"</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    )


def _subscription(account: Record) -> str:
    guid = escape(account["subscription_id"])
    return f'{escape(account["subscription_name"] or "")}<small class="id" title="{guid}">{guid}</small>'


def _label(account: Record) -> str:
    state: str = account["state"]
    return UNDER_WAY[account["provisioning_state"]].removeprefix("is ") if state == CHANGING else LABELS[state]


def _key(account: Record) -> str:
    if not account["key_name"]:
        return "Microsoft-managed"
    if account["follows_latest"]:
        used = "<small>follows the latest version</small>"
    else:
        version = escape(account["key_version"] or "")
        used = f'<small class="id" title="{version}">{version}</small>'
    return f"<div><i>{escape(account['vault_name'])}</i>/{escape(account['key_name'])}</div>\n{used}"


def _expiry(account: Record) -> str:
    if account["expires_on"] is None:
        return "never" if account["version"] else _NOTHING
    left = account["days_left"]
    when = f"in {count(left, 'day')}" if left >= 0 else f"{count(-left, 'day')} ago"
    return f"{day(account['expires_on'])}<small>{when}</small>"


def _found(found: Record) -> str:
    name = found["id"]
    if found["accepted"]:
        return f"<div>{name} (accepted)</div>"
    # The link leads to the finding with its causes, which explain it.
    rule = found["cause"].partition(":")[0]
    return f'<div class="{found["severity"]}"><a href="#{rule}">{name}</a></div>'
