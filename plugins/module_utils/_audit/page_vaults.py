# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The resources of other services that use the vaults, for a report's page.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from .._checks.usage import ANY, BATCH, NOT_IN_GRAPH
from .page_text import cards, count, names

Record = Mapping[str, Any]
# The maximum number of rows. The JSON report has all resources.
_MOST = 200
_NO_KEY: Record = {"name": "none", "version": "none", "follows_latest": False}


def others(report: Mapping[str, Any]) -> str:
    vaults, used_by = report["vaults"], report["options"]["vault_used_by"]
    if not vaults or used_by == BATCH:
        return ""
    rows = [row for vault in vaults for one in vault["resources"] or () for row in _rows(vault["vault_name"], one)]
    label, heads = "Resources of other services", ("Resource", "Vault", "Key", "Version")
    more = f"<p>The JSON report has {len(rows) - _MOST:,} more.</p>" if len(rows) > _MOST else ""
    note = f'<p class="soft">{NOT_IN_GRAPH}</p>' if used_by == ANY else ""
    return (
        f"<section><h2>Other services that use the vaults</h2>{_unknown(vaults)}{_unused(vaults)}"
        f"{cards(label, heads, rows[:_MOST])}{more}{note}</section>"
    )


def _unknown(vaults: Sequence[Record]) -> str:
    """Each reason with its vaults."""
    by_reason: dict[str, list[str]] = {}
    for one in vaults:
        if one["unknown"]:
            by_reason.setdefault(one["unknown"], []).append(one["vault_name"])
    return "".join(
        f'<p class="warning names">Not known for {count(len(of), "vault")} ({names(of)}): {escape(reason)}</p>'
        for reason, of in by_reason.items()
    )


def _unused(vaults: Sequence[Record]) -> str:
    unused = [one["vault_name"] for one in vaults if one["resources"] == []]
    found = f"No resource of another service uses {count(len(unused), 'vault')} ({names(unused)})."
    return f'<p class="names">{found}</p>' if unused else ""


def _rows(vault: str, resource: Record) -> list[list[str]]:
    title = f"<b>{escape(resource['name'])}</b><small>{escape(resource['id'])}</small>"
    return [
        [title, escape(vault), escape(one["name"] or "not known"), escape(_version(one))]
        for one in resource["used_keys"] or [_NO_KEY]
    ]


def _version(key: Record) -> str:
    if not key["follows_latest"]:
        return key["version"] or "not known"
    return f"{key['version']}, follows the latest" if key["version"] else "the latest"
