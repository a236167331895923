# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Batch accounts, pools and resources of other services that use a key.

Azure has no request that disables or deletes a key only if the key is unused. An account may begin to use the key
between the check and the change. Therefore the accounts are checked again after the change, and the change is
undone if an account uses the key.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, NamedTuple, TypedDict

from .._core.duration import instant
from .._core.errors import CmkError, Refused
from .._core.ids import KeyIdentifier, is_of_batch, is_pool, place_of, read_key_identifier, type_of
from .._core.summary import and_text, counted, scope_text, some_text, user_text, users_text
from .._documents.account import POOLS_READ, Account, key_of
from .._documents.identity import UNKNOWN_IDENTITY, principals_of
from .._documents.key import updated_at, version_of
from .versions import KeyVersions, VersionUser, margin_ends, versions_possibly_in_use

# The number of subscriptions in a warning.
_MOST_NAMES = 3
_FORCE = "O(force=true)"


class Unlisted(TypedDict):
    """A scope that may have more Batch accounts, or more pools, than could be listed."""

    scope: str
    reason: str
    # The action that the caller lacks there; None if no right is missing.
    action: str | None


class Listed(TypedDict):
    """The Batch accounts that the caller can read, and the scopes that may have more accounts."""

    accounts: list[Account]
    unlisted: list[Unlisted]


class KeyUse(TypedDict):
    """A key that a pool encrypts its disks with, or that a resource of another service uses."""

    # The id of the pool or of the resource. The id of the account, if Batch does not list its pools, for example
    # because the account is not available.
    id: str
    # None if the key is not known and may be any key: of an unavailable account, or of a disk encryption set.
    key: str | None
    # When the pool was last changed, in seconds since 1970; None if that is not known.
    changed_at: float | None
    follows_latest: bool
    # The principals of the identities. None if they are not known and may be any principals.
    principals: list[str] | None


class Visible(Listed):
    """All users of keys: the Batch accounts with the keys of their pools' disks, and the resources of other services,
    as far as the question is about a vault and they were asked for."""

    disks: list[KeyUse]
    services: list[KeyUse]


# The services that use a vault (option `vault_used_by`): all of them, or Batch.
ANY, BATCH = "any", "batch"
ONLY_BATCH = "Only Batch accounts and their pools were read."
# Source: Microsoft's list of the tables and types of Azure Resource Graph.
NOT_IN_GRAPH = (
    "Azure Resource Graph does not show encryption protectors of SQL, encryption scopes of storage accounts, volume "
    "groups of Elastic SAN and search indexes."
)
NOT_SHOWN = f"{NOT_IN_GRAPH} Make sure that none of them uses what is disabled, deleted or revoked."
READ_ALL = "*/read"
# The scope of what could not be found at all.
GRAPH = "Azure Resource Graph"


class Users(NamedTuple):
    """The accounts, pools and other resources that may use a key or a version of it. An account that has left a
    version is not known, but it has updated the version (encryption/decide.py)."""

    ids: list[str]
    # If they may use it only because of the margin: when the margin ends, in seconds since 1970. None if one of them
    # certainly uses it, or if there are none.
    until: float | None

    @property
    def exist(self) -> bool:
        return bool(self.ids) or self.until is not None


def together(of_each: Iterable[Users]) -> Users:
    """All of these users, and the end of the latest margin unless one of them certainly uses it."""
    found = [one for one in of_each if one.exist]
    ends = [one.until for one in found if one.until is not None]
    ids = dict.fromkeys(name for one in found for name in one.ids)
    return Users(list(ids), max(ends) if ends and len(ends) == len(found) else None)


@dataclass(frozen=True)
class Times:
    """Times of accounts and pools by their ids, in seconds since 1970."""

    # When the account was last changed; None if that could not be read.
    changed_at: Mapping[str, float | None] = field(default_factory=dict)
    # Since when the account or the pool has access to the key, as far as that is known.
    access_since: Mapping[str, float] = field(default_factory=dict)
    # The ids of accounts that use another key now, and may have used this key before they were last changed. None for
    # unused versions, because in a shared vault some account is changed every day.
    may_have_left: Collection[str] = ()


def without(listed: Listed, canary: str | None) -> Listed:
    """The accounts except the canary (its id), which may lose its key."""
    kept = [one for one in listed["accounts"] if one["id"].lower() != (canary or "").lower()]
    return {"accounts": kept, "unlisted": listed["unlisted"]}


def accounts_on_key(visible: Listed, key: KeyIdentifier) -> list[Account]:
    """The accounts that use any version of this key."""
    return [account for account in visible["accounts"] if key.same_key(key_of(account))]


def users_of_key(visible: Visible, key: KeyIdentifier, times: Times, now: float, margin: float) -> Users:
    """The users of any version of this key. An account that has left the key may use it inside the margin."""
    named = [account["id"] for account in accounts_on_key(visible, key)]
    pools = _pools(visible, key.same_key)
    left = recently_left(times, now, margin)
    users = list(dict.fromkeys([*named, *pools, *left]))
    return Users(users, None if named or pools else max(left.values(), default=None))


def users_of_version(visible: Visible, key: KeyIdentifier, versions: KeyVersions, times: Times, margin: float) -> Users:
    """The users of this version of a key (`versions_possibly_in_use`).

    Before an account leaves a key, the versions that it may use are updated without a change. Therefore a version that
    was updated inside the margin may be in use."""
    users: dict[str, float | None] = {}

    item = next((one for one in versions.items if version_of(one) == key.version), None)

    def add(name: str, user: VersionUser) -> None:
        possible = versions_possibly_in_use(versions, user, margin)
        if key.version in possible:
            is_own = possible[0] == key.version
            until = margin_ends(versions, user, margin, item)
            known = users.get(name, 0)
            users[name] = None if is_own or until == inf or known is None else max(until, known)

    for account in accounts_on_key(visible, key):
        name, used = account["id"], key_of(account)
        user = VersionUser(used.version if used else None, times.changed_at.get(name), times.access_since.get(name, 0))
        add(name, user)
    for disk in _beside_accounts(visible):
        if disk["key"] is None:
            users[disk["id"]] = None
            continue
        used = read_key_identifier(disk["key"])
        if used.same_key(key):
            for version in dict.fromkeys((used.version, None if disk["follows_latest"] else used.version)):
                add(disk["id"], VersionUser(version, disk["changed_at"], times.access_since.get(disk["id"], 0)))
    # An account that has left the key may use it in pools that are not known.
    users = {**recently_left(times, versions.now, margin), **users}
    found = [Users([name], until) for name, until in users.items()]
    if item is not None and (until := updated_at(item) + margin) > versions.now:
        found.append(Users([], until))
    return together(found)


def recently_left(times: Times, now: float, margin: float) -> dict[str, float]:
    """The accounts that may have left the key inside the margin, with the time when the margin ends."""
    changed = {name: times.changed_at.get(name) for name in times.may_have_left}
    ends = {name: (now if at is None else at) + margin for name, at in changed.items()}
    return {name: until for name, until in ends.items() if until > now}


def _users(visible: Visible, uses: Callable[[KeyIdentifier | None], bool]) -> list[str]:
    """The ids of the accounts and pools for whose key `uses` is true. An id occurs once."""
    accounts = [account["id"] for account in visible["accounts"] if uses(key_of(account))]
    return list(dict.fromkeys([*accounts, *_pools(visible, uses)]))


def _pools(visible: Visible, uses: Callable[[KeyIdentifier], bool], principal: str | None = None) -> list[str]:
    """The ids of the pools and resources of other services for whose key `uses` is true and, if `principal` is set,
    that access the key as this principal."""

    def may_use(disk: KeyUse) -> bool:
        holders = disk["principals"]
        is_holder = principal is None or holders is None or principal.lower() in map(str.lower, holders)
        return is_holder and (disk["key"] is None or uses(read_key_identifier(disk["key"])))

    return [disk["id"] for disk in _beside_accounts(visible) if may_use(disk)]


def _beside_accounts(visible: Visible) -> list[KeyUse]:
    return [*visible["disks"], *visible["services"]]


def following(visible: Visible, key: KeyIdentifier) -> list[str]:
    """The ids of the accounts and pools that follow the latest version of this key."""
    follows = [
        disk["id"]
        for disk in visible["disks"]
        if disk["key"] is None or (disk["follows_latest"] and key.same_key(read_key_identifier(disk["key"])))
    ]
    return list(dict.fromkeys([*_users(visible, key.versionless.same), *follows]))


def in_vault(visible: Visible, vault: str) -> list[str]:
    """The ids of the accounts whose key is in this vault, or that refer to the vault because their pools are in the
    user's subscription (`keyVaultReference`); and of the pools whose key is in the vault."""
    referring = [account["id"] for account in visible["accounts"] if _refers_to(account, vault)]
    users = _users(visible, lambda used: used is not None and used.vault == vault.lower())
    return list(dict.fromkeys([*referring, *users]))


def _refers_to(account: Account, vault: str) -> bool:
    reference = account["properties"].get("keyVaultReference")
    return reference is not None and place_of(reference["id"])[2].lower() == vault.lower()


def with_applications(services: Iterable[KeyUse]) -> list[KeyUse]:
    """The uses of keys, for a principal that no Batch account has: a resource without an identity reads the key as an
    application of its service, which may be that principal."""
    return [{**one, "principals": one["principals"] or None} for one in services]


def through_principal(visible: Visible, vault: str, principal: str, key_name: str | None) -> list[str]:
    """The ids of the accounts and pools that access a key of this vault as this principal."""

    def is_reached(key: KeyIdentifier | None) -> bool:
        if key is None or key.vault != vault.lower():
            return False
        return key_name is None or key.name.casefold() == key_name.casefold()

    holders = with_principal(visible, principal)
    accounts = [one["id"] for one in visible["accounts"] if one["id"] in holders and is_reached(key_of(one))]
    return list(dict.fromkeys([*accounts, *_pools(visible, is_reached, principal)]))


def with_principal(visible: Listed, principal: str) -> list[str]:
    """The ids of the accounts that have this principal, or may have it."""

    def may_have(account: Account) -> bool:
        known = principals(account)
        return known is None or principal.lower() in map(str.lower, known)

    return list(dict.fromkeys(account["id"] for account in visible["accounts"] if may_have(account)))


def is_system_assigned(visible: Listed, principal: str) -> bool:
    """Whether the principal is the system-assigned identity of one of the accounts."""
    own = (account.get("identity", {}).get("principalId") or "" for account in visible["accounts"])
    return principal.lower() in map(str.lower, own)


def principals(account: Account) -> tuple[str, ...] | None:
    """The object ids of the account's identities; None if they are not known. The response to a creation may not have
    the id of a system-assigned identity yet."""
    identity = account.get("identity", {})
    kind = identity.get("type", "")
    is_known = kind != UNKNOWN_IDENTITY and ("SystemAssigned" not in kind or identity.get("principalId"))
    return principals_of(identity) if is_known else None


def guard(
    users: list[str], visible: Visible, what: str, *, force: bool, until: float | None = None, **facts: Any
) -> tuple[str, ...]:
    """Refuse a change after which an account or a pool, also one that could not be listed, may lose its key. With
    `force`, return warnings that name the users and the scopes. `what` is the change as an infinitive. `until` is when
    the margin of the users ends that have left the key, None if one of them uses it. `facts` are ids of the change."""
    if users and not force:
        raise _in_use(what, users, visible, until, facts)
    if not force:
        require_whole(visible, what, _FORCE, **facts)
    unknown = (*pools_unknown(users, visible), *map(not_listed, visible["unlisted"]))
    if not users:
        return unknown
    their = "its" if len(users) == 1 else "their"
    return (f"{counted(users)} may lose {their} key, because O(force) allows to {what}: {users_text(users)}.", *unknown)


def pools_unknown(users: Sequence[str], visible: Visible) -> tuple[str, ...]:
    """The warnings that name the users whose keys are not known, so that they may use any key."""
    pools, others = (
        users_text(user for user in users if user in {one["id"] for one in of if one["key"] is None})
        for of in (visible["disks"], visible["services"])
    )
    of_pools = (
        f"The keys of pools or of disk encryption sets of these are not known, and may be any: {pools}. Recover or "
        "delete unavailable accounts."
    )
    of_others = f"Azure Resource Graph does not show which key of the vault these use: {others}."
    return (*([of_pools] if pools else []), *([of_others] if others else []))


def require_whole(visible: Listed, what: str, otherwise: str, **facts: Any) -> None:
    """Refuse `what` if accounts or pools may exist that could not be listed. `otherwise` is the alternative to
    granting the right."""
    unlisted = visible["unlisted"]
    if not unlisted:
        return
    remedy = remedy_for(unlisted, otherwise)
    scopes = some_text([scope_text(one["scope"]) for one in unlisted], 1)
    raise Refused(
        f"Refused to {what}: users in {scopes} are unknown. {remedy}",
        code="users_unknown",
        unlisted=list(unlisted),
        remedy=remedy,
        **facts,
    )


def remedy_for(unlisted: Sequence[Unlisted], otherwise: str = "") -> str:
    """How all users can be found. `otherwise` is a further alternative."""
    grant = "Assign Reader" if any(one["action"] for one in unlisted) else "Run the task again"
    options = ["O(vault_used_by=batch)"] if any(map(_is_of_services, unlisted)) else []
    options += ["O(users_in)"] if any(one["scope"] != GRAPH for one in unlisted) else []
    options += [otherwise] if otherwise else []
    *most, last = options or [""]
    alternatives = f"{', '.join(most)} or {last}" if most else last
    return f"{grant}{', or set ' if options else ''}{alternatives}."


def not_listed(unlisted: Unlisted) -> str:
    """A sentence that names the scope and the reason."""
    if _is_of_services(unlisted):
        return f"Not all users of the vault in {unlisted['scope']} could be found: {unlisted['reason']}"
    what = "pools" if unlisted["action"] == POOLS_READ else "Batch accounts"
    return f"Not all {what} of {unlisted['scope']} could be listed: {unlisted['reason']}"


def _is_of_services(unlisted: Unlisted) -> bool:
    return unlisted["scope"] == GRAPH or unlisted["action"] == READ_ALL


def recently_used(what: str, ids: Sequence[str], until: float, **facts: Any) -> Refused:
    """The refusal inside the margin. `what` is the change as an infinitive, and `facts` are its ids."""
    remedy = "Run the task again then or, if the key has leaked, set O(unused_for=P0D)."
    who = some_text([user_text(one) for one in ids]) if ids else "an account that has left it"
    return Refused(
        f"Refused to {what} before {instant(until)}: {who} may need it. {remedy}",
        code="recently_used",
        kept_until=instant(until),
        accounts=list(ids),
        option="unused_for",
        remedy=remedy,
        **facts,
    )


def lost(what: str, ids: Sequence[str]) -> Refused:
    """The error that accounts use what was removed, perhaps by a run that ended before it has asked again. `what` is
    the removal as an infinitive."""
    remedy = "Run azbatch.cmk.recover for these accounts."
    return Refused(
        f"Did not {what}: that is done already, but {counted(ids)} {'uses' if len(ids) == 1 else 'use'} it: "
        f"{some_text([user_text(one) for one in ids])}. {remedy}",
        code="in_use",
        accounts=list(ids),
        pools=[],
        resources=[],
        unlisted=[],
        remedy=remedy,
    )


def not_shown(vault_used_by: str) -> tuple[str, ...]:
    """The warning about users that nothing shows."""
    return (NOT_SHOWN,) if vault_used_by == ANY else ()


def left_out(subscriptions: Sequence[str]) -> tuple[str, ...]:
    """The warning that these subscriptions, which the caller can list, were not searched."""
    if not subscriptions:
        return ()
    more = len(subscriptions) - _MOST_NAMES
    names = and_text([*subscriptions[:_MOST_NAMES], *([f"{more} more"] if more > 0 else [])])
    return (f"O(users_in) leaves out subscriptions that Azure lists. Make sure that they have no user: {names}.",)


def cut_short(what: str, ids: Iterable[str], *, others: bool = False) -> tuple[str, ...]:
    """The warning that `what` is disabled, deleted or revoked inside the margin, because `unused_for` is shorter.
    `others` is whether accounts that are not known may need it too."""
    names = ", ".join(filter(None, [users_text(ids), "accounts that have left it" if others else ""]))
    if not names:
        return ()
    return (
        f"Batch may need {what} for seven days after accounts have last used it, but O(unused_for) is shorter. These "
        f"may lose their key: {names}.",
    )


def _in_use(what: str, users: list[str], visible: Visible, until: float | None, facts: Mapping[str, Any]) -> CmkError:
    unlisted, kinds = visible["unlisted"], len(set(map(type_of, users)))
    # One line holds two names, or the numbers of two kinds.
    names = some_text([user_text(user) for user in users], 1 if kinds == 2 < len(users) else 2)
    more = "".join(f"\n{one}" for one in pools_unknown(users, visible))
    if unlisted:
        more += f"\nThere may be more in {some_text([scope_text(one['scope']) for one in unlisted])}."
    others = [user for user in users if not is_of_batch(user)]
    with_role = " (azbatch.cmk.switch)" if len(others) < len(users) else ""
    why = "uses it" if len(users) == 1 else "use it"
    remedy = f"Give {'it' if len(users) == 1 else 'them'} another key first{with_role}, or set O(force=true)."
    if until is not None:
        why, remedy = "may still need it", f"Run the task again after {instant(until)}."
    numbers = counted(users) if kinds < 3 else f"{len(users)} resources"
    return Refused(
        f"Refused to {what}: {numbers} {why} ({names}). {remedy}{more}",
        code="in_use",
        kept_until=instant(until),
        accounts=[user for user in users if is_of_batch(user) and not is_pool(user)],
        pools=[user for user in users if is_pool(user)],
        resources=others,
        unlisted=list(unlisted),
        remedy=remedy,
        **facts,
    )
