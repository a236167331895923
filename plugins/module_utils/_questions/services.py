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

from .._azure.facts import Facts
from .._checks import usage
from .._checks.usage import GRAPH, READ_ALL, KeyUse, Unlisted, Visible
from .._core.docs import Docs, Rule
from .._core.errors import CmkError
from .._core.ids import KeyIdentifier
from .._documents import refs
from .._documents.access import allows_all_reads
from .._documents.key_references import Reference, References, references
from .users import listed_until, not_listed, searched


def beside(docs: Docs, facts: Facts, vault: str, visible: Visible, *, is_due: bool = True) -> tuple[Visible, list[str]]:
    """All users of keys, with the resources of other services that use keys of the vault; and the ids of the resources
    that use the vault, with a key or without. Unless something `is_due` to be removed, only the rights of the caller
    count, and no query is made."""
    name, unlisted = vault.lower(), [*visible["unlisted"], *_not_covered(docs, facts)]
    # One query a run and vault: Resource Graph lags behind for longer than a read of the run is kept.
    rows = docs.known(refs.referring_to(name), Rule.RUN) if is_due else []
    if isinstance(rows, CmkError):
        unlisted.append(not_listed(GRAPH, str(rows), None))
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
    for one in searched(docs, facts.subscription)[0]:
        if isinstance(docs.known(refs.accounts_of(one)), CmkError):
            continue
        scope = f"/subscriptions/{one}"
        permissions = docs.known(refs.permissions_at(scope), after)
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
