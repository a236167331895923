# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report: all accounts, their number by state, and the policy. Plain data that can be written as JSON.

This module util is private to the collection.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from .._checks.usage import not_listed
from .._core.duration import instant
from .._core.summary import and_text, some_text
from .assessment import FleetData, assessed
from .causes import causes
from .findings import STATES, with_findings
from .key_records import keys
from .policy import Policy
from .rules import RULES, SEVERITIES, is_at_least

# The version of the documented format, docs/audit.schema.json. An incompatible change increases the number.
FORMAT = "azbatch.cmk/audit/1"
# The maximum number of names of accounts in a line.
_MOST_NAMES = 5


def whole(fleet: FleetData, policy: Policy, options: Mapping[str, Any]) -> dict[str, Any]:
    """The report of an audit. `options` are those of the task for the scope and the policy."""
    now = fleet["now"]
    accounts = [with_findings(assessed(account, fleet), policy, now) for account in fleet["accounts"]]
    accounts.sort(key=lambda one: (STATES.index(one["state"]), _worst(one), one["name"].lower(), one["id"].lower()))
    return {
        "format": FORMAT,
        "generated_on": instant(now),
        "options": dict(options),
        "unlisted_subscriptions": [one["scope"].rpartition("/")[2] for one in fleet["unlisted"]],
        "unlisted": [dict(one) for one in fleet["unlisted"]],
        "summary": _summary(accounts),
        "rules": _rules(accounts),
        "causes": causes(accounts),
        "accounts": accounts,
        "keys": keys(fleet, accounts),
        "vaults": [{"vault_name": name, **of} for name, of in fleet["other_users"].items()],
        "unused_exceptions": _unused(accounts, policy),
    }


def open_findings(account: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The findings that no exception accepts."""
    return [one for one in account["findings"] if not one["accepted"]]


def unseen(report: Mapping[str, Any]) -> list[str]:
    """What the report says nothing about, as human-readable lines: accounts that could not be listed, and accounts of
    which not all is known, unless an exception accepts that. Also if there is no account at all."""
    hidden = [not_listed(one) for one in report["unlisted"]]
    accounts, unread = report["accounts"], not_read(report)
    if unread:
        rights = sorted({right for one in unread for right in one["missing_rights"]})
        reasons = [f"The caller lacks {and_text(rights)}."] if rights else []
        other = next((one for one in unread if not one["missing_rights"]), None)
        if other:
            what, why = next(iter(other["unknown"].items()))
            reasons.append(f"{other['name']}: {what}: {why}")
        hidden.append(" ".join([f"Not all data of {_part(unread, accounts)} is known.", *reasons]))
    if not accounts and not hidden:
        hidden.append("The caller can read no Batch account in this scope.")
    return hidden


def not_read(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The accounts of which not all is known, unless an exception accepts that."""
    return [one for one in report["accounts"] if any(found["id"] == "not_read" for found in open_findings(one))]


def _part(some: Sequence[Mapping[str, Any]], accounts: Sequence[Mapping[str, Any]]) -> str:
    """2 of 10 Batch accounts (account1, account2)."""
    names = [one["name"] for one in some]
    total = f"{len(accounts)} Batch account{'' if len(accounts) == 1 else 's'}"
    return f"{len(some)} of {total} ({some_text(names, _MOST_NAMES)})"


def at_least(report: Mapping[str, Any], severity: str) -> list[str]:
    """The open findings of this severity or higher, as human-readable lines, the most urgent first."""
    found = [
        (account["name"], one)
        for account in report["accounts"]
        for one in open_findings(account)
        if is_at_least(one["severity"], severity)
    ]
    # By the cause: a repair does not make an account available whose key was purged.
    order = {one["id"]: number for number, one in enumerate(report["causes"])}
    found.sort(key=lambda named: order[named[1]["cause"]])
    return [f"{name}: {one['id']} ({one['severity']}): {one['evidence']}" for name, one in found]


def _worst(account: Mapping[str, Any]) -> int:
    return min((SEVERITIES.index(one["severity"]) for one in open_findings(account)), default=len(SEVERITIES))


def _summary(accounts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    opened = [one for account in accounts for one in open_findings(account)]
    states = Counter(account["state"] for account in accounts)
    severities = Counter(one["severity"] for one in opened)
    used = {(account["vault_name"], account["key_name"].casefold()) for account in accounts if account["key_name"]}
    return {
        "accounts": len(accounts),
        "on_customer_managed_key": sum(1 for account in accounts if account["key_identifier"]),
        "following": sum(1 for account in accounts if account["follows_latest"]),
        "vaults": len({account["vault_name"] for account in accounts} - {None}),
        "keys": len(used),
        "states": {state: states[state] for state in STATES},
        "severities": {severity: severities[severity] for severity in SEVERITIES},
        "findings": dict(sorted(Counter(one["id"] for one in opened).items(), key=_by_severity)),
        "accepted": sum(1 for account in accounts for one in account["findings"] if one["accepted"]),
    }


def _by_severity(counted: tuple[str, int]) -> tuple[int, int, str]:
    name, count = counted
    return SEVERITIES.index(RULES[name].severity), -count, name


def _rules(accounts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The rules that have findings, the most severe first."""
    found = {one["id"] for account in accounts for one in account["findings"]}
    ordered = sorted(found, key=lambda name: (SEVERITIES.index(RULES[name].severity), name))
    return {
        name: {
            "severity": RULES[name].severity,
            "title": RULES[name].title,
            "why": RULES[name].why,
            "remedy": RULES[name].remedy,
        }
        for name in ordered
    }


def _unused(accounts: Sequence[Mapping[str, Any]], policy: Policy) -> list[dict[str, Any]]:
    """Exceptions that match no finding: the finding was repaired, or the exception is misspelled."""
    return [
        {"finding": one.finding, "accounts": list(one.accounts), **one.describe()}
        for one in policy.exceptions
        if not any(one.is_for(account, finding=found["id"]) for account in accounts for found in account["findings"])
    ]
