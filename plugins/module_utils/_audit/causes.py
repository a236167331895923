# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The causes of findings. If a thousand accounts use one disabled version, there are a thousand findings and one
cause.

This module util is private to the collection.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .rules import CRITICAL, IDENTITIES, KEY, RULES, VAULT, VERSION, urgency

Record = Mapping[str, Any]
Finding = Mapping[str, Any]
# This finding is a consequence of the other critical findings of the account.
_CONSEQUENCE = "account_unavailable"
# After all deadlines, which begin with a digit.
_NO_DEADLINE = "none"


class _Resource(NamedTuple):
    type: str
    name: str


def of_account(record: Record, found: Sequence[Finding]) -> list[str]:
    """The id of the cause of each finding of an account."""
    causes = [_id(one["id"], _resource(one, record)) for one in found]
    others = (
        cause
        for one, cause in zip(found, causes, strict=True)
        if one["severity"] == CRITICAL and not one["accepted"] and one["id"] != _CONSEQUENCE
    )
    known = next(others, None)
    return [known if known and one["id"] == _CONSEQUENCE else cause for one, cause in zip(found, causes, strict=True)]


def causes(accounts: Sequence[Record]) -> list[dict[str, Any]]:
    """The causes of the open findings, the most urgent first. Of equal severity, those with a deadline are first. The
    causes with the same finding are together."""
    affected: dict[str, list[Record]] = {}
    for account in accounts:
        for cause in dict.fromkeys(one["cause"] for one in account["findings"] if not one["accepted"]):
            affected.setdefault(cause, []).append(account)
    described = [_described(cause, of) for cause, of in affected.items()]
    of_finding: Counter[str] = Counter()
    first: dict[str, str] = {}
    for one in described:
        name = one["finding"]
        of_finding[name] += one["accounts"]
        first[name] = min(first.get(name, _NO_DEADLINE), one["deadline"] or _NO_DEADLINE)
    # Findings of equal urgency with the same number of accounts are in the order of repair, which is that of the
    # rules.
    rules = {name: number for number, name in enumerate(RULES)}

    def order(one: Mapping[str, Any]) -> tuple[Any, ...]:
        name = one["finding"]
        of_one = one["deadline"] or _NO_DEADLINE, -one["accounts"], one["id"]
        return *urgency(name), first[name], -of_finding[name], rules[name], *of_one

    return sorted(described, key=order)


def _described(cause: str, accounts: Sequence[Record]) -> dict[str, Any]:
    rule = cause.partition(":")[0]
    of_accounts = [one for account in accounts for one in account["findings"] if one["id"] == rule]
    found = of_accounts[0]
    resource = _resource(found, accounts[0])
    return {
        "id": cause,
        "finding": rule,
        "resource": resource._asdict() if resource else None,
        "accounts": len(accounts),
        "evidence": found["evidence"],
        "remedy": found["remedy"],
        "deadline": min((one["deadline"] for one in of_accounts if one["deadline"]), default=None),
    }


def _id(rule: str, resource: _Resource | None) -> str:
    return f"{rule}:{resource.name.casefold()}" if resource else rule


def _resource(found: Finding, record: Record) -> _Resource | None:
    shared = RULES[found["id"]].shared
    if shared == IDENTITIES:
        names = ", ".join(sorted(record["identity"]["user_assigned_identities"], key=str.casefold))
        return _Resource(IDENTITIES, names) if names else None
    if shared is None or record["vault_name"] is None:
        return None
    if shared == VAULT:
        return _Resource(VAULT, record["vault_name"])
    key, version = f"{record['vault_name']}/{record['key_name']}", record["version"] or record["key_version"]
    # An account that follows the latest version may also need the previous version. In that case the key is the
    # cause.
    is_named = shared == VERSION and version and version in found["evidence"]
    return _Resource(VERSION, f"{key}/{version}") if is_named else _Resource(KEY, key)
