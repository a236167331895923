# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Batch accounts that the caller can read. No account may lose its key (invariant I2). The inventory plugin
lists the same accounts as hosts. The keys of their pools' disks.

This module util is private to the collection.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from functools import partial
from typing import Any

from .._checks.rights import READ_ACCOUNTS
from .._checks.usage import DiskKey, Listed, Unlisted, Visible
from .._checks.versions import MARGIN_SECONDS
from .._core.concurrent import in_background, map_concurrent, value_or_error
from .._core.documents import Account, Pool
from .._core.duration import moment
from .._core.errors import CmkError, Denied, NotFound
from .._core.ids import is_key_identifier, place_of
from .._resources.access.document import allows
from .._resources.account.document import POOLS_READ, disk_encryption, is_failed, is_unavailable
from .resources import Resources
from .run_store import RunFiles
from .session import Session


class HandledAccounts:
    """The ids of the Batch accounts that tasks of this run have read, in the run's shared store. The ids are in
    several lists, so that adding one of ten thousand ids does not read and write all of them."""

    _LISTS = 256

    def __init__(self, files: RunFiles) -> None:
        self._files = files

    def ids(self) -> list[str]:
        return [one for number in range(self._LISTS) for one in self._load(number)]

    def add(self, account_id: str) -> None:
        number = zlib.crc32(account_id.lower().encode()) % self._LISTS
        if account_id.lower() in self._load(number):
            return
        with self._files.locked(*self._name(number)):
            self._files.store([*self._load(number), account_id.lower()], *self._name(number))

    def _load(self, number: int) -> list[str]:
        found: list[str] = self._files.load(*self._name(number)) or []
        return found

    @staticmethod
    def _name(number: int) -> tuple[str, str]:
        return "handled accounts", str(number)


class VisibleAccounts:
    def __init__(self, session: Session, resources: Resources, handled: HandledAccounts, disk_keys: DiskKeys) -> None:
        self._session = session
        self._resources = resources
        self._handled = handled
        self._disk_keys = disk_keys
        # Ids of the accounts that this task has listed.
        self._known: set[str] = set()
        # The time (time.monotonic()) before which no read of a user may have begun. None: now.
        self.not_before: float | None = None

    def read(self) -> Visible:
        """All accounts, and the keys of their pools' disks, for `usage.guard`."""
        found = self.everywhere()
        disks, unlisted = self.disks(found["accounts"])
        return {"accounts": found["accounts"], "disks": disks, "unlisted": [*found["unlisted"], *unlisted]}

    def disks(self, accounts: Sequence[Account]) -> tuple[list[DiskKey], list[Unlisted]]:
        """The keys of all pools of the accounts, and the subscriptions in which the caller may not list pools."""
        return self._disk_keys.read(accounts, time.monotonic() if self.not_before is None else self.not_before)

    def changed_at(self, accounts: Iterable[Account]) -> tuple[dict[str, float | None], float]:
        """When the accounts were changed, by their ids, as far as that is certain; and the latest time of the
        responses (Resources.changed_at_of_each)."""
        changed, now = self._resources.changed_at_of_each(accounts, self.not_before)
        return self._session.journal.dated(changed), now

    def everywhere(self) -> Listed:
        """The accounts of all subscriptions, those of the task's own subscription first. An account that the run has
        written within the longest read delay is among them as listed and as written, because Azure may show it as it
        was before."""
        unlisted, own = [], self._session.subscription_id
        own_list = in_background(self._list, own)
        try:
            others = self._resources.subscription_ids()[1:]
        except CmkError as reason:
            others = []
            unlisted.append(not_listed("/subscriptions", str(reason), "Microsoft.Resources/subscriptions/read"))
        lists = map_concurrent(self._list, others)
        listed = self._of({own: own_list.result(), **lists})
        accounts = self._session.journal.with_written(listed["accounts"])
        return {"accounts": accounts, "unlisted": unlisted + listed["unlisted"]}

    def listed(self, subscriptions: Sequence[str]) -> Listed:
        """The accounts of these subscriptions, by default of all subscriptions that the caller can read.

        If Azure lists no subscription for the caller, the task's own subscription is used, if it is known.

        If the accounts of no subscription can be listed, and no reason is a missing right, the first error is raised.
        """
        named = subscriptions or self._resources.listed_subscription_ids() or self._own()
        if not named:
            none = not_listed(
                "/subscriptions",
                "Azure lists no subscription for the caller.",
                "Microsoft.Resources/subscriptions/read",
            )
            return {"accounts": [], "unlisted": [none]}
        lists = map_concurrent(self._list, named)
        return self._of({one: _naming_list(of) for one, of in lists.items()} if subscriptions else lists, may_fail=True)

    def _own(self) -> list[str]:
        own = value_or_error(lambda: self._session.subscription_id, CmkError)
        return [own] if isinstance(own, str) else []

    def _of(self, lists: Mapping[str, list[Account] | CmkError], *, may_fail: bool = False) -> Listed:
        """The accounts of `lists`, which are by subscription, and the scopes that may have more accounts
        (`unlisted`)."""
        listed_at = time.monotonic()
        failures = [listed for listed in lists.values() if isinstance(listed, CmkError)]
        if may_fail and len(failures) == len(lists) and failures and not any(isinstance(f, Denied) for f in failures):
            raise failures[0]
        gaps = map_concurrent(lambda subscription: self._gap(subscription, lists[subscription], listed_at), lists)
        partial_lists = {name: lists[name] for name, gap in gaps.items() if gap}
        more = map_concurrent(lambda name: self._more(name, partial_lists[name]), partial_lists)
        more["known"] = self._not_listed_again(lists)
        found = [account for listed in lists.values() if not isinstance(listed, CmkError) for account in listed]
        accounts = {
            account["id"].lower(): account for account in [*found, *(one for of in more.values() for one in of)]
        }
        self._known |= accounts.keys()
        return {"accounts": list(accounts.values()), "unlisted": [gap for gap in gaps.values() if gap]}

    def _list(self, subscription: str) -> list[Account] | CmkError:
        listed: list[Account] | CmkError = value_or_error(lambda: self._resources.accounts(subscription), CmkError)
        return listed

    def _gap(self, subscription: str, listed: list[Account] | CmkError, listed_at: float) -> Unlisted | None:
        """The reason why the list may not have all accounts of the subscription; None if it has all of them.

        Azure may respond with HTTP status 200 and only the accounts that the caller may read; this is not
        documented. The permissions are read after the list (`listed_at`), because a role assignment of the caller
        may end during the run.
        """
        scope = f"/subscriptions/{subscription}"
        if isinstance(listed, CmkError):
            return not_listed(scope, str(listed), READ_ACCOUNTS if isinstance(listed, Denied) else None)
        permissions = value_or_error(lambda: self._resources.permissions(scope, listed_at), CmkError)
        if isinstance(permissions, CmkError):
            return not_listed(scope, f"The list may be incomplete. {permissions}", READ_ACCOUNTS)
        if not allows(permissions, READ_ACCOUNTS):
            lacks = f"The list may be incomplete, because the caller lacks {READ_ACCOUNTS} at this scope."
            return not_listed(scope, lacks, READ_ACCOUNTS)
        return None

    def _more(self, subscription: str, listed: list[Account] | CmkError) -> list[Account]:
        """Further accounts of a subscription whose list is incomplete: the accounts of this run and, if the
        subscription's list is refused, the lists of its resource groups."""
        handled = [one for one in self._handled.ids() if one.split("/")[2] == subscription.lower()]
        known = {one["id"].lower() for one in listed} if not isinstance(listed, CmkError) else set()
        found: list[Account] = []
        if isinstance(listed, Denied):
            in_groups = map_concurrent(partial(self._of_group, subscription), self._groups(subscription, handled))
            found = [account for accounts in in_groups.values() for account in accounts]
            known |= {account["id"].lower() for account in found}
        read = map_concurrent(self._account, [one for one in handled if one not in known])
        return [*found, *(account for account in read.values() if account)]

    def _not_listed_again(self, lists: Mapping[str, list[Account] | CmkError]) -> list[Account]:
        """Accounts that are in an earlier list of this task and not in `lists`. Each is read, because a list may be
        incomplete for a moment. Deleted accounts are not found."""
        whole = {name.lower(): listed for name, listed in lists.items() if not isinstance(listed, CmkError)}
        listed = {one["id"].lower() for accounts in whole.values() for one in accounts}
        read = map_concurrent(self._account, [one for one in self._known - listed if one.split("/")[2] in whole])
        return [account for account in read.values() if account]

    def _groups(self, subscription: str, handled: Iterable[str]) -> list[str]:
        listed = value_or_error(lambda: self._resources.groups(subscription), CmkError)
        names = [] if isinstance(listed, CmkError) else listed
        return list(dict.fromkeys([*(name.lower() for name in names), *(place_of(one)[1].lower() for one in handled)]))

    def _of_group(self, subscription: str, group: str) -> list[Account]:
        listed = value_or_error(lambda: self._resources.accounts(subscription, group), CmkError)
        return [] if isinstance(listed, CmkError) else listed

    def _account(self, account_id: str) -> Account | None:
        account = value_or_error(lambda: self._resources.account(account_id), CmkError)
        return None if isinstance(account, CmkError) else account


def _naming_list(listed: list[Account] | CmkError) -> list[Account] | CmkError:
    """The accounts. An error about the subscription names the option `subscriptions`, which lists the subscription."""
    if not isinstance(listed, CmkError) or listed.facts.get("option") != "subscription_id":
        return listed
    remedy = listed.facts["remedy"]
    named = remedy.replace("O(subscription_id)", "O(subscriptions)")
    error = copy(listed)
    error.msg = listed.msg.replace(remedy, named)
    error.facts = {**listed.facts, "option": "subscriptions", "remedy": named}
    return error


def not_listed(scope: str, reason: str, action: str | None) -> Unlisted:
    return {"scope": scope, "reason": reason, "action": action}


class DiskKeys:
    def __init__(self, session: Session, resources: Resources) -> None:
        self._session = session
        self._resources = resources

    def read(self, accounts: Iterable[Account], not_before: float) -> tuple[list[DiskKey], list[Unlisted]]:
        """The keys of all pools of the accounts, read at `not_before` (time.monotonic()) or later, and the
        subscriptions in which the caller may not list pools. Tasks that wait at the same time share the lists."""
        # An account that is being created has no pools, and is not available yet.
        made = {one["id"]: one for one in accounts if one["properties"].get("provisioningState") != "Creating"}
        asked: dict[str, Any] = self._session.cache.get(
            lambda: self._of_each(made.values()), "disk keys", not_before=not_before
        )
        of_each = {**asked, **self._of_each(one for name, one in made.items() if name not in asked)}
        answers = [of_each[name] for name in made]
        failures = [one["failure"] for one in answers if one["failure"]]
        return [disk for one in answers for disk in one["disks"]], _by_subscription(failures)

    def _of_each(self, accounts: Iterable[Account]) -> dict[str, Any]:
        by_id = {one["id"]: one for one in accounts}
        return map_concurrent(lambda name: self._of(by_id[name]), by_id)

    def _of(self, account: Account) -> dict[str, Any]:
        account_id = account["id"]
        try:
            pools = self._pools(account_id)
        except CmkError as reason:
            if isinstance(reason, Denied) and not is_unavailable(reason):
                return {"disks": [], "failure": {"scope": account_id, "reason": str(reason), "action": POOLS_READ}}
            if is_unavailable(reason) and is_failed(account) and self._is_settled(account):
                # Its creation has failed. It counts for its own key only. Otherwise no version would ever end.
                return {"disks": [], "failure": None}
            # Its pools may use any key. That keeps the keys, but does not stop the rotation of other accounts.
            return {"disks": [_unknown(account_id)], "failure": None}
        return {"disks": [disk for pool in pools for disk in _keys(pool)], "failure": None}

    def _is_settled(self, account: Account) -> bool:
        """Whether the account was last changed before the margin."""
        changed, now = self._resources.changed_at_of_each([account])
        at = self._session.journal.dated(changed)[account["id"]]
        return at is not None and now - at >= MARGIN_SECONDS

    def _pools(self, account_id: str) -> list[Pool]:
        try:
            return self._resources.pools(account_id)
        except NotFound:
            # Azure is eventually consistent: for a moment, it may not find an account that exists.
            if isinstance(value_or_error(lambda: self._resources.account(account_id)), NotFound):
                return []
            return self._resources.pools(account_id)


def _keys(pool: Pool) -> list[DiskKey]:
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


def _unknown(resource_id: str) -> DiskKey:
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
