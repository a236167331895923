# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A Batch account as Batch stores it, the rules for its availability, and the register of all accounts."""

from __future__ import annotations

import base64
import os
import uuid
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ..shared import paging

# Subscription, group and name of an account, in lower case
Key = tuple[str, str, str]

MICROSOFT_BATCH = "Microsoft.Batch"
MICROSOFT_KEY_VAULT = "Microsoft.KeyVault"


@dataclass
class AssignedIdentity:
    principal_id: str
    client_id: str


@dataclass
class Identity:
    """None, the account's own, or the ones of others; an account has no two sorts at once."""

    type: str = "None"
    principal_id: str = ""
    tenant_id: str = ""
    # By resource id. Batch returns the id in the letter case of the request.
    user_assigned: dict[str, AssignedIdentity] = field(default_factory=dict)

    @property
    def principal_ids(self) -> list[str]:
        """Those that may read the key, in the order in which Batch tries them."""
        own = [self.principal_id] if self.principal_id else []
        return own + [assigned.principal_id for assigned in self.user_assigned.values()]


@dataclass
class PreviousVersion:
    """A version of the same key that Batch has moved away from and still needs, with what it wrapped."""

    version: str
    wrapped: bytes
    digest: bytes
    until: float


@dataclass
class Protection:
    """The account's data-encryption key as it lies in Batch's store: wrapped with the customer's key."""

    # As the caller wrote it, with a version or without.
    key_identifier: str
    # Of the key version that wrapped it.
    version: str
    wrapped: bytes
    # So that a wrong unwrap is noticed.
    digest: bytes
    # Why Batch cannot use the key; empty while it can.
    lost: str = ""
    # When it was found usable again.
    back_at: float | None = None
    previous: list[PreviousVersion] = field(default_factory=list)


@dataclass
class Pool:
    name: str
    properties: dict[str, Any]
    identity: dict[str, Any] | None
    created: float
    modified: float


def new_key() -> str:
    return base64.b64encode(os.urandom(64)).decode()


@dataclass
class Account:
    subscription: str
    group: str
    name: str
    location: str
    # Of its endpoints; every cloud has its own.
    domain: str
    created: float
    modified: float
    # Until then the service says Creating.
    ready_at: float
    # From then on the account is gone; until then the service says Deleting.
    gone_at: float | None = None
    tags: dict[str, str] = field(default_factory=dict)
    identity: Identity = field(default_factory=Identity)
    # None: Batch's own key.
    protection: Protection | None = None
    # Its creation has failed; the account is shown with the key that was refused, if there was one.
    is_failed: bool = False
    refused_key: str = ""
    pool_allocation_mode: str = "BatchService"
    key_vault_reference: dict[str, Any] | None = None
    auto_storage: dict[str, Any] | None = None
    public_network_access: str = "Enabled"
    network_profile: dict[str, Any] | None = None
    # None: the default for the way in which its pools are allocated.
    authentication_modes: list[str] | None = None
    keys: dict[str, str] = field(default_factory=lambda: {"Primary": new_key(), "Secondary": new_key()})
    pools: dict[str, Pool] = field(default_factory=dict)
    node_endpoint: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def id(self) -> str:
        return (
            f"/subscriptions/{self.subscription}/resourceGroups/{self.group}"
            f"/providers/Microsoft.Batch/batchAccounts/{self.name}"
        )

    @property
    def key(self) -> Key:
        return account_key(self.subscription, self.group, self.name)

    def state(self, now: float) -> str:
        """Its provisioningState."""
        if self.gone_at is not None:
            return "Deleting"
        if self.ready_at > now:
            return "Creating"
        return "Failed" if self.is_failed else "Succeeded"

    @property
    def shared_key_allowed(self) -> bool:
        if self.authentication_modes is None:
            return self.pool_allocation_mode == "BatchService"
        return "SharedKey" in self.authentication_modes


def account_key(subscription: str, group: str, name: str) -> Key:
    return subscription.lower(), group.lower(), name.lower()


# Whether an account is available: the rules that Batch and the page share. They change nothing.

ANSWERS, REFUSES, BUSY = "answers", "refuses", "busy"


@dataclass(frozen=True)
class Health:
    kind: str
    reason: str = ""


def health(account: Account, unusable: Callable[[Account], str], now: float, recovery_seconds: float) -> Health:
    """`unusable` says why the account's key cannot be used, or nothing."""
    state = account.state(now)
    if state == "Failed":
        return Health(REFUSES, "The creation of the account has failed.")
    if state != "Succeeded":
        return Health(BUSY, state)
    protection = account.protection
    if protection is None:
        return Health(ANSWERS)
    reason = unusable(account)
    if reason:
        return Health(REFUSES, reason)
    if not protection.lost:
        return Health(ANSWERS)
    # Batch waits from the moment at which it notices; that moment is yet to come where back_at is none.
    back_at = now if protection.back_at is None else protection.back_at
    if now >= back_at + recovery_seconds:
        return Health(ANSWERS)
    was = protection.lost
    return Health(REFUSES, f"The key is accessible again, but the account has not recovered yet. It was: {was}")


# Which accounts there are, found by id, by name in a region, or page by page.

PAGE = 100


@dataclass
class Register:
    _accounts: dict[Key, Account] = field(default_factory=dict)
    # Sorted, so that a page of a long list is quickly found.
    _order: list[Key] = field(default_factory=list)
    # By location and name, which are unique together.
    _names: dict[tuple[str, str], Key] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Account]:
        return iter([self._accounts[key] for key in self._order])

    def __getitem__(self, key: Key) -> Account:
        return self._accounts[key]

    def find(self, subscription: str, group: str, name: str) -> Account | None:
        return self._accounts.get(account_key(subscription, group, name))

    def has_name(self, location: str, name: str) -> bool:
        return (location, name.lower()) in self._names

    def page(self, subscription: str, group: str | None, last: Key | None) -> tuple[list[Account], Key | None]:
        """Up to a page of accounts, and the key to go on after."""
        scope = (subscription.lower(),) if group is None else (subscription.lower(), group.lower())
        start = bisect_left(self._order, scope)
        end = bisect_right(self._order, scope, key=lambda key: key[: len(scope)])
        keys, more = paging.after(self._order[start:end], lambda key: key, last, PAGE)
        return [self._accounts[key] for key in keys], more

    def add(self, account: Account) -> None:
        self._accounts[account.key] = account
        insort(self._order, account.key)
        self._names[account.location, account.name.lower()] = account.key

    def remove(self, account: Account) -> None:
        del self._accounts[account.key]
        del self._order[bisect_left(self._order, account.key)]
        del self._names[account.location, account.name.lower()]
