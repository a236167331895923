# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Batch accounts that the caller can read, and the keys of their pools' disks: all users of keys. No account may
lose its key. Pure: asks for documents.

This module util is private to the collection.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import TypeAlias

from .._azure.facts import Facts
from .._checks import usage
from .._checks.rights import READ_ACCOUNTS
from .._checks.usage import KeyUse, Listed, Unlisted, Visible
from .._checks.versions import MARGIN_SECONDS
from .._core.docs import Docs
from .._core.duration import moment
from .._core.errors import CmkError, Denied, NotFound
from .._core.ids import is_key_identifier, place_of
from .._core.tasks import Change
from .._documents import refs
from .._documents.access import allows
from .._documents.account import POOLS_READ, Account, is_failed, is_unavailable, key_of
from .._documents.pool import Pool, disk_encryption

# By subscription, its accounts, or the error if they could not be listed.
Lists: TypeAlias = Mapping[str, "list[Account] | CmkError"]
_DAY = 86400
_READ_SUBSCRIPTIONS = "Microsoft.Resources/subscriptions/read"


def visible(docs: Docs, facts: Facts, known: Collection[str] = ()) -> Visible:
    """All accounts with the keys of their pools' disks, for `usage.guard`. For `known` see `everywhere`."""
    return with_disks(docs, facts, everywhere(docs, facts, known))


def with_disks(docs: Docs, facts: Facts, listed: Listed, of: Sequence[Account] | None = None) -> Visible:
    """The accounts with the keys of their pools' disks, or only of the pools of the accounts `of`."""
    keys, unlisted = disks(docs, facts, listed["accounts"] if of is None else of)
    return {"accounts": listed["accounts"], "disks": keys, "services": [], "unlisted": [*listed["unlisted"], *unlisted]}


def everywhere(docs: Docs, facts: Facts, known: Collection[str] = ()) -> Listed:
    """The accounts of all subscriptions, those of the task's own subscription first. `known` are the ids of accounts,
    in lower case, that an earlier list of this task had: a list may be incomplete for a moment.

    Raises the error if the task's own subscription, or one of the option `users_in`, does not exist."""
    names, unlisted = searched(docs, facts)
    lists = _lists(docs, names)
    if facts.users_in:
        lists = {one: _naming_list(of, "users_in") for one, of in lists.items()}
    for one in names if facts.users_in else names[:1]:
        named = lists[one]
        if isinstance(named, CmkError) and named.code == "subscription_not_found":
            raise named
    found = _of(docs, lists, known)
    accounts = found["accounts"]
    # In the same order for all hosts, so that their messages are the same.
    accounts.sort(key=lambda one: (one["id"].split("/")[2].lower() != facts.subscription.lower(), one["id"].lower()))
    return {"accounts": accounts, "unlisted": unlisted + found["unlisted"]}


def listed_until(docs: Docs, facts: Facts) -> float:
    """When the last list of `everywhere` was received (time.monotonic())."""
    names, _unlisted = searched(docs, facts)
    return max(docs.of(refs.accounts_of(one)).ended for one in names)


def searched(docs: Docs, facts: Facts) -> tuple[list[str], list[Unlisted]]:
    """The subscriptions in which users of keys are searched for: those of the option `users_in`, by default the task's
    own subscription and the others that Azure lists for the caller."""
    if facts.users_in:
        return list(facts.users_in), []
    own = facts.subscription
    docs.want(refs.SUBSCRIPTIONS, refs.accounts_of(own))
    named = docs.known(refs.SUBSCRIPTIONS)
    if isinstance(named, CmkError):
        return [own], [not_listed("/subscriptions", named.reported, _READ_SUBSCRIPTIONS)]
    listed = [one["subscriptionId"] for one in named or ()]
    return [own, *(one for one in listed if one.lower() != own.lower())], []


def left_out(docs: Docs, facts: Facts) -> list[str]:
    """The subscriptions that Azure lists for the caller, but the option `users_in` does not name."""
    if not facts.users_in:
        return []
    listed = docs.known(refs.SUBSCRIPTIONS)
    named = [] if listed is None or isinstance(listed, CmkError) else [one["subscriptionId"].lower() for one in listed]
    return sorted({facts.subscription.lower(), *named} - {*facts.users_in})


def with_left_out(docs: Docs, facts: Facts, change: Change) -> Change:
    """The removal with a warning and a value of the result that name these subscriptions."""
    found = left_out(docs, facts)
    warnings = usage.left_out(found) if change.requests else ()
    report = {**change.report, "subscriptions_left_out": found}
    return replace(change, warnings=(*change.warnings, *warnings), report=report)


def of_subscriptions(docs: Docs, subscriptions: Sequence[str], own: str | None) -> Listed:
    """The accounts of these subscriptions, by default of all subscriptions that the caller can read.

    If Azure lists no subscription for the caller, the task's own subscription is used, if it is known.

    If the accounts of no subscription can be listed, and no reason is a missing right, the first error is raised.
    """
    named = subscriptions or [one["subscriptionId"] for one in docs.items(refs.SUBSCRIPTIONS)] or ([own] if own else [])
    if not named:
        none = not_listed("/subscriptions", "Azure lists no subscription for the caller.", _READ_SUBSCRIPTIONS)
        return {"accounts": [], "unlisted": [none]}
    lists = _lists(docs, named)
    if subscriptions:
        lists = {one: _naming_list(of, "subscriptions") for one, of in lists.items()}
    failures = [listed for listed in lists.values() if isinstance(listed, CmkError)]
    if len(failures) == len(lists) and not any(isinstance(one, Denied) for one in failures):
        raise failures[0]
    return _of(docs, lists, ())


def _lists(docs: Docs, subscriptions: Sequence[str]) -> Lists:
    docs.want(*map(refs.accounts_of, subscriptions))
    return {one: _items(docs.known(refs.accounts_of(one))) for one in subscriptions}


def _items(listed: list[Account] | CmkError | None) -> list[Account] | CmkError:
    return listed if isinstance(listed, CmkError) else listed or []


def _of(docs: Docs, lists: Lists, known: Collection[str]) -> Listed:
    """The accounts of the lists, and the scopes that may have more accounts (`unlisted`)."""
    after = max(docs.of(refs.accounts_of(one)).ended for one in lists)
    whole = [one for one, listed in lists.items() if not isinstance(listed, CmkError)]
    docs.after(after).want(*(refs.permissions_at(f"/subscriptions/{one}") for one in whole))
    gaps = {one: gap for one in lists if (gap := _gap(docs, one, lists[one], after))}
    found = [*chain.from_iterable(of for of in lists.values() if not isinstance(of, CmkError))]
    for name in gaps:
        found += _more(docs, name, lists[name])
    names, listed_in = {one["id"].lower() for one in found}, {one.lower() for one in whole}
    # Deleted accounts are not found.
    found += _each(docs, [one for one in known if one not in names and one.split("/")[2] in listed_in])
    accounts = {account["id"].lower(): account for account in found}
    return {"accounts": list(accounts.values()), "unlisted": list(gaps.values())}


def _gap(docs: Docs, subscription: str, listed: list[Account] | CmkError, after: float) -> Unlisted | None:
    """The reason why the list may not have all accounts of the subscription; None if it has all of them.

    Azure may respond with HTTP status 200 and only the accounts that the caller may read; this is not documented. The
    permissions are read after the list, because a role assignment of the caller may end during the run.
    """
    scope = f"/subscriptions/{subscription}"
    if isinstance(listed, CmkError):
        return not_listed(scope, listed.reported, READ_ACCOUNTS if isinstance(listed, Denied) else None)
    permissions = docs.after(after).known(refs.permissions_at(scope))
    if isinstance(permissions, CmkError):
        return not_listed(scope, permissions.reported, READ_ACCOUNTS)
    if not allows(permissions or (), READ_ACCOUNTS):
        return not_listed(scope, f"The caller lacks {READ_ACCOUNTS} at this scope.", READ_ACCOUNTS)
    return None


def _more(docs: Docs, subscription: str, listed: list[Account] | CmkError) -> list[Account]:
    """If the subscription's list is refused, the accounts of its resource groups that the caller can list."""
    if not isinstance(listed, Denied):
        return []
    groups = docs.known(refs.groups_of(subscription))
    names = [] if groups is None or isinstance(groups, CmkError) else [one["name"].lower() for one in groups]
    lists = [refs.accounts_of(subscription, group) for group in names]
    docs.want(*lists)
    read = map(docs.known, lists)
    return [account for of in read if not isinstance(of, CmkError) for account in of or ()]


def _each(docs: Docs, ids: Iterable[str]) -> list[Account]:
    """Those of the accounts that exist and can be read."""
    each = [refs.account(one) for one in ids]
    docs.want(*each)
    return [one for one in map(docs.known, each) if one is not None and not isinstance(one, CmkError)]


def _naming_list(listed: list[Account] | CmkError, option: str) -> list[Account] | CmkError:
    """The accounts. An error about the subscription names the option that lists the subscription."""
    if not isinstance(listed, CmkError) or listed.facts.get("option") != "subscription_id":
        return listed
    remedy = listed.facts["remedy"]
    named = remedy.replace("O(subscription_id)", f"O({option})")
    return listed.extended(msg=listed.msg.replace(remedy, named), option=option, remedy=named)


def not_listed(scope: str, reason: str, action: str | None) -> Unlisted:
    return {"scope": scope, "reason": reason, "action": action}


# When accounts were changed


def changed_at(docs: Docs, accounts: Iterable[Account]) -> dict[str, float | None]:
    """When the accounts were changed, by their ids, from the headers of the responses: the document of an account has
    no times. None if a time could not be read: the account may have been changed just now."""
    by_id = {account["id"]: account for account in accounts}
    docs.want(*map(refs.dated_account, by_id))
    return {name: _changed_at(docs, account) for name, account in by_id.items()}


def dated(docs: Docs, facts: Facts, accounts: Sequence[Account], *, reads_all: bool) -> dict[str, float | None]:
    """The same, but None of an account that the run has changed if its time is not read, or a read shows an older
    one: it was changed just now."""
    written = {one["id"] for one in accounts if facts.journal.has_written(refs.account(one["id"]).kind)}
    times = changed_at(docs, [one for one in accounts if reads_all or one["id"] not in written])
    older = {name for name in written if (times.get(name) or 0) < docs.now - _DAY}
    return {one["id"]: None if one["id"] in older else times[one["id"]] for one in accounts}


def _changed_at(docs: Docs, account: Account) -> float | None:
    """Not known if the document with the time shows another key than the account: one of the two reads is out of
    date."""
    read = docs.of(refs.dated_account(account["id"]))
    if isinstance(read.value, CmkError):
        return None
    is_same = str(key_of(read.value) or "").lower() == str(key_of(account) or "").lower()
    return read.changed_at if is_same else None


# The keys of pools


def disks(docs: Docs, facts: Facts, accounts: Iterable[Account]) -> tuple[list[KeyUse], list[Unlisted]]:
    """The keys of all pools of the accounts, and the subscriptions in which the caller may not list pools."""
    # An account that is being created has no pools, and is not available yet.
    made = {one["id"]: one for one in accounts if one["properties"].get("provisioningState") != "Creating"}
    docs.want(*map(refs.pools_of, made))
    found, denied = list[KeyUse](), list[Unlisted]()
    for name, account in made.items():
        pools = _pools(docs, name)
        if not isinstance(pools, CmkError):
            found += [disk for pool in pools for disk in _keys(pool)]
        elif isinstance(pools, Denied) and not is_unavailable(pools):
            denied.append(not_listed(name, pools.reported, POOLS_READ))
        elif not (is_unavailable(pools) and is_failed(account) and _is_settled(docs, facts, account)):
            # Its pools may use any key. That keeps the keys, but does not stop the rotation of other accounts. If its
            # creation has failed, it counts for its own key only: otherwise no version would ever end.
            found.append(_unknown(name))
    return found, _by_subscription(denied)


def _is_settled(docs: Docs, facts: Facts, account: Account) -> bool:
    """Whether the account was last changed before the margin."""
    at = changed_at(docs, [account])[account["id"]]
    return at is not None and docs.now - at >= MARGIN_SECONDS


def _pools(docs: Docs, account_id: str) -> list[Pool] | CmkError:
    read = docs.of(refs.pools_of(account_id))
    if isinstance(read.value, NotFound):
        # Azure is eventually consistent: for a moment, it may not find an account that exists.
        account = docs.of(refs.account(account_id))
        if account.value is None or isinstance(account.value, NotFound):
            return []
        if read.at < account.ended:
            read = docs.after(account.ended).of(refs.pools_of(account_id))
    return read.value if isinstance(read.value, CmkError) else read.value or []


def _keys(pool: Pool) -> list[KeyUse]:
    # A disk encryption set is a resource of Azure Compute. It has its own key, which the document of a pool does
    # not show.
    if '"diskEncryptionSet"' in json.dumps(pool["properties"]):
        return [_unknown(pool["id"])]
    own = disk_encryption(pool).get("customerManagedKey") or {}
    if not own.get("keyUrl"):
        return []
    if not is_key_identifier(own["keyUrl"]):
        return [_unknown(pool["id"])]
    assigned = pool.get("identity", {}).get("userAssignedIdentities", {})
    reference = (own.get("identityReference") or {}).get("resourceId", "").lower()
    named = [value for name, value in assigned.items() if name.lower() == reference]
    principals = [value.get("principalId") for value in named or assigned.values()]
    return [
        {
            "id": pool["id"],
            "key": own["keyUrl"],
            "changed_at": moment(pool["properties"].get("lastModified")),
            "follows_latest": bool(own.get("rotationToLatestKeyVersionEnabled")),
            "principals": [one for one in principals if one] if all(principals) and principals else None,
        }
    ]


def _unknown(resource_id: str) -> KeyUse:
    return {"id": resource_id, "key": None, "changed_at": None, "follows_latest": False, "principals": None}


def _by_subscription(failures: Sequence[Unlisted]) -> list[Unlisted]:
    """The missing right, reported once for each subscription with the first reason."""
    denied: dict[str, list[Unlisted]] = {}
    for one in failures:
        denied.setdefault(f"/subscriptions/{place_of(one['scope'])[0]}", []).append(one)
    return [
        {"scope": scope, "reason": f"{len(of_scope)} of the accounts: {of_scope[0]['reason']}", "action": POOLS_READ}
        for scope, of_scope in denied.items()
    ]
