# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The resources of other services than Batch that use a vault, as Azure Resource Graph shows them. Pure: asks for
documents.

Resource Graph leaves out what the caller may not read, without an error, and lags behind changes. Therefore its rows
only prevent a removal, and never confirm one. A list without a user counts only if the caller may read everything in
each subscription.

This module util is private to the collection.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, TypedDict

from .._azure.facts import Facts
from .._checks import usage
from .._checks.usage import GRAPH, READ_ALL, KeyUse, Unlisted, Visible
from .._core.docs import Docs
from .._core.errors import CmkError
from .._core.ids import KeyIdentifier, type_of
from .._core.summary import and_text, user_text
from .._documents import refs
from .._documents.access import allows_all_reads
from .._documents.key_references import Reference, References, references
from .users import listed_until, not_listed, searched

# The number of vaults in a query, and of subscriptions in a reason.
_MOST_VAULTS, _MOST_NAMES = 20, 3
_VAULT_NAME = re.compile(r"[a-z0-9-]+")


class OtherUsers(TypedDict):
    """The resources of other services that use a vault, as a report shows them (`_described`). None if none was found,
    and not all are known. `unknown` is why not all may be known; None if they are."""

    resources: list[dict[str, Any]] | None
    unknown: str | None


def beside(docs: Docs, facts: Facts, vault: str, visible: Visible, *, is_due: bool = True) -> tuple[Visible, list[str]]:
    """All users of keys, with the resources of other services that use keys of the vault; and the ids of the resources
    that use the vault, with a key or without. Unless something `is_due` to be removed, only the rights of the caller
    count, and no query is made."""
    name, unlisted = vault.lower(), [*visible["unlisted"], *_not_covered(docs, facts)]
    # One query a run and vault: Resource Graph lags behind for longer than a read of the run is kept.
    rows = docs.known(refs.referring_to(name, subscriptions=facts.users_in)) if is_due else []
    if isinstance(rows, CmkError):
        unlisted.append(not_listed(GRAPH, rows.reported, None))
        rows = []
    found = [one for row in rows or () if (one := references(row, name)) is not None]
    uses = [_use(one, key, KeyIdentifier(name, facts.vault_suffix, "")) for one in found for key in one.keys]
    return {**visible, "services": uses, "unlisted": unlisted}, [one.id for one in found]


def of_vault(docs: Docs, facts: Facts, vault: str, visible: Visible, *, asks: bool) -> tuple[Visible, list[str]]:
    """All users of keys, and the ids of those that use the vault. Without `asks`, only those of Batch count."""
    referring = list[str]()
    if asks:
        visible, referring = beside(docs, facts, vault, visible)
    return visible, list(dict.fromkeys([*usage.in_vault(visible, vault), *referring]))


def _not_covered(docs: Docs, facts: Facts) -> list[Unlisted]:
    """The subscriptions in which the caller may not read everything. The permissions are those that vouch for the lists
    of Batch accounts, so nothing more is read. A list that was refused is among the unlisted scopes already."""
    after, found = listed_until(docs, facts), list[Unlisted]()
    for one in searched(docs, facts)[0]:
        if isinstance(docs.known(refs.accounts_of(one)), CmkError):
            continue
        scope = f"/subscriptions/{one}"
        permissions = docs.after(after).known(refs.permissions_at(scope))
        if not isinstance(permissions, CmkError) and not allows_all_reads(permissions or ()):
            reason = f"Resources of other services may be missing, because the caller lacks {READ_ALL} at this scope."
            found.append(not_listed(scope, reason, READ_ALL))
    return found


def _use(found: References, key: Reference, vault: KeyIdentifier) -> KeyUse:
    return {
        "id": found.id,
        "key": None if key.name is None else str(KeyIdentifier(vault.vault, vault.suffix, key.name, key.version)),
        # Resource Graph does not show when. A resource that follows the key counts as a user of all versions until it
        # could use the newest for the margin.
        "changed_at": 0.0,
        "follows_latest": key.name is not None and key.version is None,
        "principals": found.principals,
    }


# Reports on many vaults


def of_vaults(docs: Docs, vaults: Iterable[str]) -> dict[str, OtherUsers]:
    """The resources of other services that use each vault, with one query for twenty vaults. `vaults` are names in
    lower case."""
    names = sorted(vaults)
    valid = [name for name in names if _VAULT_NAME.fullmatch(name)]
    parts = [valid[at : at + _MOST_VAULTS] for at in range(0, len(valid), _MOST_VAULTS)]
    docs.want(*(refs.referring_to(*part) for part in parts))
    hidden = _hidden(docs) if parts else None
    found = {name: _shown([], "This is not the name of a key vault.") for name in names}
    for part in parts:
        rows = docs.known(refs.referring_to(*part))
        if isinstance(rows, CmkError):
            found |= {name: _shown([], str(rows)) for name in part}
            continue
        # Most rows are about one of the vaults only.
        texts = [(row, json.dumps(row["properties"]).lower()) for row in rows or ()]
        for name in part:
            uses = [references(row, name) for row, text in texts if name in text]
            found[name] = _shown([_described(one) for one in uses if one], hidden)
    return found


def not_asked(vaults: Iterable[str]) -> dict[str, OtherUsers]:
    return {name: _shown([], usage.ONLY_BATCH) for name in sorted(vaults)}


def _shown(resources: list[dict[str, Any]], unknown: str | None) -> OtherUsers:
    return {"resources": None if unknown and not resources else resources, "unknown": unknown}


def _hidden(docs: Docs) -> str | None:
    """Why rows may be missing; None if the caller may read everything in each subscription."""
    listed = docs.known(refs.SUBSCRIPTIONS)
    if isinstance(listed, CmkError):
        return str(listed)
    scopes = [f"/subscriptions/{one['subscriptionId']}" for one in listed or ()]
    if not scopes:
        return "Azure lists no subscription for the caller."
    docs.want(*map(refs.permissions_at, scopes))
    lacking = [scope for scope in scopes if not _reads_all(docs, scope)]
    if not lacking:
        return None
    shown = [*lacking[:_MOST_NAMES], *([f"{len(lacking) - _MOST_NAMES} more"] if len(lacking) > _MOST_NAMES else [])]
    return f"Resources may be missing, because the caller may lack {READ_ALL} at {and_text(shown)}."


def _reads_all(docs: Docs, scope: str) -> bool:
    permissions = docs.known(refs.permissions_at(scope))
    return not isinstance(permissions, CmkError) and allows_all_reads(permissions or ())


def _described(found: References) -> dict[str, Any]:
    """The resource with its keys. None of them if it uses the vault otherwise. A key without a name may be any key."""
    names = dict.fromkeys(one.name for one in found.keys)
    keys = [one for name in names for one in _versions(name, [key for key in found.keys if key.name == name])]
    return {"id": found.id, "name": user_text(found.id), "type": type_of(found.id), "used_keys": keys}


def _versions(name: str | None, of_key: Sequence[Reference]) -> list[dict[str, Any]]:
    """A resource may follow the latest version, and show the version that it uses now."""
    follows = name is not None and any(one.version is None for one in of_key)
    pinned = [one for one in of_key if one.version]
    versions = [one.version for one in pinned or of_key[:1]]
    return [{"name": name, "version": one, "follows_latest": follows} for one in versions]
