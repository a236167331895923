# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the documents of a key and of its users show. Pure: asks for documents.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from ..._azure.facts import Facts
from ..._checks import usage
from ..._checks.versions import KeyVersions, versions_of
from ..._core.docs import Docs, Ref
from ..._core.errors import CmkError, Denied, NotFound
from ..._core.ids import KeyIdentifier, read_key_identifier
from ..._documents import key as key_document
from ..._documents import refs
from ..._documents.account import Account, key_of
from ..._documents.key import KeyBundle, KeyItem, newest_usable
from ..._documents.rotation_policy import RotationPolicy
from ..._documents.vault import Vault
from ..._questions import access, users, vaults
from ..._questions.evidence import deleted_key
from .goal import NamedKey, RemovalGoal

NOBODY: usage.Visible = {"accounts": [], "disks": [], "services": [], "unlisted": []}


@dataclass(frozen=True)
class Seen:
    identifier: KeyIdentifier
    # The newest version, or the version that the goal takes as the newest.
    key: KeyBundle | None
    # None if the caller may not list them.
    versions: Sequence[KeyItem] | None
    # By Key Vault's clock, in seconds since 1970, because the times of keys are by that clock.
    now: float
    policy: RotationPolicy | None = None
    deleted: KeyBundle | None = None
    # Who may use the key, if something may be taken away.
    visible: usage.Visible = field(default_factory=lambda: NOBODY)
    times: usage.Times = field(default_factory=usage.Times)

    @property
    def all_versions(self) -> KeyVersions:
        """Empty if there is no key, or if the caller may not list them."""
        items = self.versions or ()
        return versions_of(self.key, items, self.now) if self.key else KeyVersions(items, self.now)

    @property
    def described(self) -> dict[str, Any]:
        """The return value of the modules."""
        return key_document.describe(
            self.key, self.versions, self.policy, self.now, is_deleted=self.deleted is not None
        )


def is_subject(ref: Ref[Any]) -> bool:
    """The key and who uses it. Where its vault is, and what roles permit, is only checked."""
    return ref.kind not in ("vault", "role", "identity", "name")


def identifier(goal: NamedKey, facts: Facts) -> KeyIdentifier:
    return KeyIdentifier(goal.vault.lower(), facts.vault_suffix, goal.name)


def look(docs: Docs, goal: NamedKey, facts: Facts) -> Seen:
    """The key without its users."""
    named = identifier(goal, facts)
    docs.want(refs.key(named), refs.versions_of(named))
    key = _newest(docs, named, facts)
    now = docs.of(refs.key(named)).now or docs.now
    if key is None:
        return Seen(named, None, [], now, deleted=deleted_key(docs, named))
    return Seen(named, key, _versions(docs, named), now)


def look_for_usable(docs: Docs, goal: NamedKey, facts: Facts, *, counts_disabled: bool = False) -> Seen:
    """The key without its users. A version that Batch can use counts as the newest, if there is one (newest_usable)."""
    seen = look(docs, goal, facts)
    if seen.key is None:
        return seen
    read = partial(read_version, docs, seen)
    key = newest_usable(seen.key, seen.versions, seen.now, read, counts_disabled=counts_disabled)
    return replace(seen, key=key)


def read_version(docs: Docs, seen: Seen, version: str) -> KeyBundle | None:
    return docs.get(refs.key(replace(seen.identifier, version=version)))


def _newest(docs: Docs, named: KeyIdentifier, facts: Facts) -> KeyBundle | None:
    """The newest version. The host of a deleted vault does not respond: if the vault was deleted, that is the error."""
    found = docs.known(refs.key(named))
    if not isinstance(found, CmkError):
        return found
    if found.code == "vault_unreachable":
        require_not_deleted(docs, named.vault, facts)
    raise found


def require_not_deleted(docs: Docs, name: str, facts: Facts) -> CmkError | None:
    """Raise NotFound if the vault, whose host does not respond, was deleted. None if no vault has this name, and an
    error if one may exist that the caller cannot read."""
    docs.doubt()
    deleted = vaults.deleted(docs, {name}, {name}, facts.subscription)[name]
    if not isinstance(deleted, Mapping):
        return deleted
    until = deleted["properties"].get("scheduledPurgeDate")
    remedy = "Run azbatch.cmk.recover for its accounts, or recover the vault (azbatch.cmk.keyvault_cmk_vault)."
    text = f"The key vault {name} was deleted, and can be recovered until {until}. {remedy}"
    raise NotFound(text, code="vault_deleted", remedy=remedy)


def _versions(docs: Docs, key: KeyIdentifier) -> list[KeyItem] | None:
    """All versions; None if the caller may read the key but not list its versions."""
    found = docs.known(refs.versions_of(key))
    if isinstance(found, Denied):
        return None
    if isinstance(found, CmkError):
        raise found
    return found or []


def vault_of(docs: Docs, name: str, facts: Facts) -> Vault | CmkError | None:
    """The vault, None if there is none, or why the caller cannot read it."""
    try:
        return vaults.find(docs, name, facts.vaults_in, None)
    except CmkError as hidden:
        return hidden


def unseen_vault(docs: Docs, name: str, facts: Facts) -> list[usage.Unlisted]:
    """The subscription of the vault, if the caller cannot read it and the option `users_in` does not say where users
    are."""
    return [] if facts.users_in else vaults.unseen(vault_of(docs, name, facts), name)


def visible_users(docs: Docs, vault: str, facts: Facts) -> usage.Visible:
    """The accounts and pools that may use keys of the vault."""
    visible = users.visible(docs, facts)
    return {**visible, "unlisted": [*visible["unlisted"], *unseen_vault(docs, vault, facts)]}


def with_users(
    docs: Docs,
    goal: RemovalGoal,
    seen: Seen,
    facts: Facts,
    may_be_free: Callable[[Seen], bool],
    known: Collection[str] = (),
) -> Seen:
    """Add the accounts and pools that may use the key, and the times that show which versions they may use.

    The accounts are listed first. Their times, which need a request for each account, are read only if no account
    certainly uses what is to be disabled or deleted (`may_be_free`), and the pools only if no account may use it. After
    the change, the same is read again.
    """
    found = usage.without(users.everywhere(docs, facts, known), goal.canary)
    accounts = found["accounts"]
    unlisted = [*found["unlisted"], *unseen_vault(docs, goal.vault, facts)]
    visible: usage.Visible = {**NOBODY, "accounts": accounts, "unlisted": unlisted}
    settled = usage.Times(changed_at={account["id"]: 0.0 for account in accounts})
    seen = replace(seen, visible=visible, times=settled)
    is_free = may_be_free(seen)
    if is_free and not goal.force:
        seen = replace(seen, times=_times(docs, seen, facts, accounts, may_have_left=goal.may_have_left))
        is_free = may_be_free(seen)
    if is_free:
        visible = users.with_disks(docs, facts, visible)
        times = seen.times if goal.force else _with_pools(docs, seen, facts, visible["disks"])
        seen = replace(seen, visible=visible, times=times)
    return seen


def with_latest_versions(docs: Docs, seen: Seen, facts: Facts) -> Seen:
    """The versions as they were after the accounts were listed: an account that is not listed with the key any more has
    updated its version before it has left."""
    return replace(seen, versions=_versions(docs.after(users.listed_until(docs, facts)), seen.identifier))


def _times(docs: Docs, seen: Seen, facts: Facts, accounts: Sequence[Account], *, may_have_left: bool) -> usage.Times:
    """When the accounts were changed that use the key and, with `may_have_left`, those that have access to it; and
    since when they have access."""
    key = seen.identifier
    uses = {one["id"] for one in accounts if key.same_key(key_of(one))}
    counted = accounts if may_have_left else [one for one in accounts if one["id"] in uses]
    named = {one["id"]: (usage.principals(one), one["id"] in uses) for one in counted}
    since = access.since_when(docs, key, facts.vaults_in, named, seen.now)
    asked = [account for account in accounts if account["id"] in since]
    # Each host of a play that takes a key away names the same times, so they are read.
    changed_at = users.dated(docs, facts, asked, reads_all=may_have_left)
    left_key = [name for name in changed_at if name not in uses and may_have_left]
    return usage.Times(changed_at, since, left_key)


def _with_pools(docs: Docs, seen: Seen, facts: Facts, disks: Sequence[usage.KeyUse]) -> usage.Times:
    """The times, with those since when the pools have access that use the key."""
    used = ((disk, disk["key"]) for disk in disks)
    pools = {
        disk["id"]: (disk["principals"], True)
        for disk, name in used
        if name and read_key_identifier(name).same_key(seen.identifier)
    }
    since = access.since_when(docs, seen.identifier, facts.vaults_in, pools, seen.now) if pools else {}
    return replace(seen.times, access_since={**seen.times.access_since, **since})


def times_of(docs: Docs, seen: Seen, facts: Facts) -> usage.Times:
    """The times of all accounts and pools that use the key, and of the accounts that have access to it."""
    with_accounts = _times(docs, seen, facts, seen.visible["accounts"], may_have_left=True)
    return _with_pools(docs, replace(seen, times=with_accounts), facts, seen.visible["disks"])
