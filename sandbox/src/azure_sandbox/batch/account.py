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
    """The managed identities of an account: none, system-assigned or user-assigned. Batch does not support both types
    in one account."""

    type: str = "None"
    principal_id: str = ""
    tenant_id: str = ""
    # By resource id. Batch returns the id in the letter case of the request.
    user_assigned: dict[str, AssignedIdentity] = field(default_factory=dict)

    @property
    def principal_ids(self) -> list[str]:
        """The principals with which Batch uses the key, in the order in which Batch tries them."""
        own = [self.principal_id] if self.principal_id else []
        return own + [assigned.principal_id for assigned in self.user_assigned.values()]


@dataclass
class PreviousVersion:
    """A previous version of the key that Batch still needs."""

    version: str
    until: float


@dataclass
class Protection:
    """The customer-managed key of an account. The sandbox stores no data-encryption key, because a check without the
    private key has the same result as an unwrap: the key pair of a version never changes."""

    # As in the request, with or without a version.
    key_identifier: str
    # The identifier of the key version that the account uses.
    version: str
    # Why Batch has lost the key; empty if it has not.
    lost: str = ""
    # When Batch noticed that it can use the key again.
    back_at: float | None = None
    # Since when Batch cannot use the key although it has not lost it yet: it still has the data-encryption key.
    unusable_since: float | None = None
    previous: list[PreviousVersion] = field(default_factory=list)


@dataclass
class Pool:
    name: str
    properties: dict[str, Any]
    identity: Identity
    created: float
    modified: float
    # From this time on, the pool no longer exists. Until then, its provisioning state is Deleting.
    gone_at: float | None = None


def new_key() -> str:
    return base64.b64encode(os.urandom(64)).decode()


@dataclass
class Account:
    subscription: str
    group: str
    name: str
    location: str
    # The DNS domain of the endpoints, which depends on the cloud.
    domain: str
    created: float
    modified: float
    # Until this time, the provisioning state is Creating.
    ready_at: float
    # From this time on, the account no longer exists. Until then, the provisioning state is Deleting.
    gone_at: float | None = None
    tags: dict[str, str] = field(default_factory=dict)
    identity: Identity = field(default_factory=Identity)
    # None: the account uses a Microsoft-managed key.
    protection: Protection | None = None
    # Whether the creation failed. A read of a failed account returns the key that was refused, if any.
    is_failed: bool = False
    refused_key: str = ""
    pool_allocation_mode: str = "BatchService"
    key_vault_reference: dict[str, Any] | None = None
    auto_storage: dict[str, Any] | None = None
    public_network_access: str = "Enabled"
    network_profile: dict[str, Any] | None = None
    # None: the default of the pool allocation mode.
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

    @property
    def host(self) -> str:
        """The host of its data plane."""
        return f"{self.name.lower()}.{self.location}.{self.domain}"

    def state(self, now: float) -> str:
        """The provisioningState of the account."""
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


# The rules for whether an account is available, which Batch and the page share. They change no state.

AVAILABLE, UNAVAILABLE, IN_PROGRESS = "available", "unavailable", "in_progress"


@dataclass(frozen=True)
class Health:
    kind: str
    reason: str = ""


@dataclass(frozen=True)
class Delays:
    """How many seconds Batch goes on without the key, and needs until an account is available after a loss."""

    loss: float
    recovery: float


@dataclass(frozen=True)
class KeyState:
    """Fields of Protection, as they are after a check of the key."""

    lost: str = ""
    back_at: float | None = None
    unusable_since: float | None = None


def key_state(before: Protection, reason: str, now: float, delays: Delays) -> KeyState:
    """The state after a check that found why the key cannot be used (`reason`, empty if it can)."""
    if not before.lost:
        since = now if before.unusable_since is None else before.unusable_since
        is_lost = bool(reason) and now >= since + delays.loss
        return KeyState(lost=reason if is_lost else "", unusable_since=since if reason and not is_lost else None)
    if reason:
        return KeyState(lost=reason)
    # The recovery starts when Batch notices that it can use the key again. If back_at is None, it has not noticed yet.
    back_at = now if before.back_at is None else before.back_at
    return KeyState() if now >= back_at + delays.recovery else KeyState(lost=before.lost, back_at=back_at)


def health(account: Account, unusable: Callable[[Account], str], now: float, delays: Delays) -> Health:
    """Whether the account is available. `unusable` returns why the account's key cannot be used; empty if it can."""
    state = account.state(now)
    if state == "Failed":
        return Health(UNAVAILABLE, "The creation of the account has failed.")
    if state != "Succeeded":
        return Health(IN_PROGRESS, state)
    protection = account.protection
    if protection is None:
        return Health(AVAILABLE)
    reason = unusable(account)
    lost = key_state(protection, reason, now, delays).lost
    if not lost or reason:
        return Health(UNAVAILABLE if lost else AVAILABLE, lost)
    return Health(UNAVAILABLE, f"The key is accessible again, but the account has not recovered yet. It was: {lost}")


# The register of all accounts, which finds accounts by id, by name in a region, or page by page.

PAGE = 100


@dataclass
class Register:
    _accounts: dict[Key, Account] = field(default_factory=dict)
    # Sorted, to find a page of a long list quickly.
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
        """One page of accounts, and the key after which the next page starts; None if there are no more accounts."""
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
