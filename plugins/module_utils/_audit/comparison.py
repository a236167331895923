# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The changes between two reports. Pure: reads no files.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .._core.summary import some_text
from .report import open_findings
from .rules import SEVERITIES

Report = Mapping[str, Any]
Account = Mapping[str, Any]
# The fields whose changes are reported. Numbers of days change for every account; findings are compared separately.
_FIELDS = (
    *("state", "key_source", "key_identifier", "version", "newest_version", "expires_on", "available", "access"),
    *("rotation_policy", "vault", "identity", "location", "tags", "pools"),
)


def compared(previous: Report, report: Report) -> dict[str, Any]:
    """The differences between the two reports. If one report could not read a subscription, an account of it that
    is only in the other report counts as neither added nor removed."""
    before, after = _by_id(previous), _by_id(report)
    hidden = {*previous["unlisted_subscriptions"], *report["unlisted_subscriptions"]}
    both = [name for name in after if name in before]
    return {
        "since": previous["generated_on"],
        "added": [_place(after[name]) for name in after if name not in before and _is_visible(after[name], hidden)],
        "removed": [_place(before[name]) for name in before if name not in after and _is_visible(before[name], hidden)],
        "changed": [change for name in both for change in _changes(before[name], after[name])],
        "opened": [one for name in after for one in _more(after[name], before.get(name), hidden)],
        "closed": [one for name in before for one in _more(before[name], after.get(name), hidden)],
        "not_compared": sorted(hidden),
    }


def summary(found: Report) -> str:
    """One line for a person. `found` are the differences."""
    opened = sorted(found["opened"], key=lambda one: SEVERITIES.index(one["severity"]))
    parts = (
        _part("new finding", [f"{one['finding']} of {one['name']}" for one in opened]),
        _part("closed finding", [f"{one['finding']} of {one['name']}" for one in found["closed"]]),
        _part("added account", [one["name"] for one in found["added"]]),
        _part("removed account", [one["name"] for one in found["removed"]]),
    )
    return f"Since {found['since']}: {', '.join(filter(None, parts)) or 'no new or closed finding'}."


def _part(noun: str, names: Sequence[str]) -> str:
    return f"{len(names)} {noun}{'' if len(names) == 1 else 's'} ({some_text(names)})" if names else ""


def _by_id(report: Report) -> dict[str, Account]:
    return {account["id"].lower(): account for account in report["accounts"]}


def _is_visible(account: Account, hidden: set[str]) -> bool:
    return account["subscription_id"] not in hidden


def _place(account: Account) -> dict[str, Any]:
    return {name: account[name] for name in ("id", "name", "state", "key_identifier")}


def _changes(before: Account, after: Account) -> Iterator[dict[str, Any]]:
    for name in _FIELDS:
        if before.get(name) != after[name]:
            yield {
                "id": after["id"],
                "name": after["name"],
                "field": name,
                "before": before.get(name),
                "after": after[name],
            }


def _more(account: Account, other: Account | None, hidden: set[str]) -> Iterator[dict[str, Any]]:
    """The open findings of an account that the account does not have in the other report."""
    if other is None and not _is_visible(account, hidden):
        return
    known = {one["id"] for one in open_findings(other)} if other else set()
    for one in open_findings(account):
        if one["id"] not in known:
            details = {name: one[name] for name in ("severity", "evidence")}
            yield {"id": account["id"], "name": account["name"], "finding": one["id"], **details}
