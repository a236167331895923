# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Batch accounts: the key source, the key version that is in use, and whether the account is available."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ..batch.account import AVAILABLE, UNAVAILABLE, Account, Health, Protection
from ..batch.key_check import KeyCheck, KeyIdentifier
from ..world import World
from . import shown
from .query import HEALTHS, SOURCES, PageQuery
from .shown import Rows


def facts(world: World, key_check: KeyCheck, page_query: PageQuery) -> dict[str, Any]:
    counts: Counter[tuple[str, str]] = Counter()
    found: list[tuple[Account, Health]] = []
    for account in world.batch.existing():
        source, health = _source(account), key_check.health(account)
        counts[source, health.kind] += 1
        wanted = page_query.source in ("", source) and page_query.health in ("", health.kind)
        if wanted and page_query.finds(*_texts(account)):
            found.append((account, health))
    found.sort(key=lambda one: one[1].kind != UNAVAILABLE)
    start = (page_query.page - 1) * page_query.accounts
    rows = [
        _row(world, account, health, _reason(key_check, account, health))
        for account, health in found[start : start + page_query.accounts]
    ]
    return {
        "counts": _counts(counts),
        "unavailable": sum(number for (_source, health), number in counts.items() if health == UNAVAILABLE),
        "rows": Rows(rows, len(found), counts.total()),
        "pages": _pages(page_query, start, len(rows), len(found)),
    }


def _source(account: Account) -> str:
    if account.protection is None:
        return "batch"
    key = KeyIdentifier.parse(account.protection.key_identifier)
    return "pinned" if key and key.version else "following"


def _texts(account: Account) -> tuple[str, ...]:
    protection = account.protection
    keys = (protection.key_identifier, protection.version) if protection else ()
    return (
        account.name,
        account.id,
        account.location,
        *keys,
        *(f"{name}={value}" for name, value in account.tags.items()),
    )


def _counts(counts: Counter[tuple[str, str]]) -> list[dict[str, Any]]:
    """A row for each key source, with a number for each health."""
    rows = [(name, [counts[source, health] for health in HEALTHS]) for source, name in SOURCES.items()]
    return [{"source": name, "numbers": numbers, "all": sum(numbers)} for name, numbers in rows]


def _pages(page_query: PageQuery, start: int, number: int, found: int) -> dict[str, Any]:
    here = f"{start + 1:,} to {start + number:,} of {found:,}" if number else f"none of {found:,}"
    return {
        "several": found > page_query.accounts or page_query.page > 1,
        "here": here,
        "previous": page_query.link(page=page_query.page - 1) if page_query.page > 1 else "",
        "next": page_query.link(page=page_query.page + 1) if start + number < found and number else "",
    }


def _reason(key_check: KeyCheck, account: Account, health: Health) -> str:
    unusable = key_check.unusable(account) if health.kind == AVAILABLE and account.protection else ""
    return f"Batch has not noticed this yet: {unusable}" if unusable else health.reason


def _row(world: World, account: Account, health: Health, reason: str) -> dict[str, Any]:
    return {
        "name": account.name,
        "group": account.group,
        "subscription": account.subscription,
        "location": account.location,
        "tags": account.tags,
        "identity": [shown.principal(world, object_id)["name"] for object_id in account.identity.principal_ids],
        "identity_type": account.identity.type,
        "key": _key(world, account.protection) if account.protection else None,
        "health": HEALTHS[health.kind],
        "health_kind": health.kind,
        "reason": reason,
    }


def _key(world: World, protection: Protection) -> dict[str, Any]:
    used = KeyIdentifier.parse(protection.version)
    named = KeyIdentifier.parse(protection.key_identifier)
    assert used is not None
    vault = world.vaults.by_name(used.vault)
    newest = world.keys.peek(vault, used.name) if vault else None
    return {
        "vault": used.vault,
        "name": used.name,
        "follows": not (named and named.version),
        "version": used.version,
        "outdated": newest is not None and newest[1].version != used.version,
    }
