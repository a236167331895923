# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The operations on Batch accounts and their rules."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from ..key_vault.grants import Grants
from ..resource_manager.rules import Resource
from ..shared.clouds import BATCH_DOMAIN
from ..shared.errors import location_required, location_unavailable, resource_not_found
from ..shared.lag import Lag
from ..shared.operations import Operation, Operations
from ..shared.resource import CANARY, REGIONS, tidy_location
from . import errors, identity, key_times
from .account import (
    AVAILABLE,
    IN_PROGRESS,
    Account,
    Health,
    Identity,
    Key,
    Protection,
    Register,
    account_key,
    health,
    key_state,
    new_key,
)
from .account_settings import AccountSettings, EncryptionSettings
from .encryption import KeyUse
from .key_check import KeyIdentifier, delays
from .pools import Pools
from .world import World

TYPE = "Microsoft.Batch/batchAccounts"
DOMAINS = {
    "management.usgovcloudapi.net": "batch.usgovcloudapi.net",
    "management.chinacloudapi.cn": "batch.chinacloudapi.cn",
}

# Why an operation has failed: the parts of a Refusal.
Failure = tuple[int, str, str, dict[str, str]]
Work = Operation[Failure | None]

SEED_LOCATIONS = ("westeurope", "northeurope", "eastus", "westus2")
SEEDED_PER_GROUP = 50


def _required(account: Account | None, name: str, group: str) -> Account:
    if account is None:
        raise resource_not_found(TYPE, name, group)
    return account


@dataclass
class BatchAccounts:
    world: World
    _register: Register = field(default_factory=Register)
    _operations: Operations[Failure | None] = field(init=False)
    # Accounts that use a customer-managed key, with the name of its vault.
    _protected: dict[Key, str] = field(default_factory=dict)
    _dying: set[Key] = field(default_factory=set)
    _lag: Lag[Key, Account] = field(init=False)
    pools: Pools = field(init=False)

    def __post_init__(self) -> None:
        self._lag = Lag(self.world, "batch")
        self._operations = Operations(self.world)
        self.pools = Pools(self.world, self._operations, self._lag)

    # Reading

    def find(self, subscription: str, group: str, name: str) -> Account | None:
        self._bury()
        return self._register.find(subscription, group, name)

    def get(self, subscription: str, group: str, name: str) -> Account:
        return _required(self.find(subscription, group, name), name, group)

    def shown(self, subscription: str, group: str, name: str) -> Account:
        """The account as a read returns it."""
        current = self.find(subscription, group, name)
        return _required(self._lag.shown(account_key(subscription, group, name), current), name, group)

    def by_host(self, host: str) -> Account | None:
        """The account whose data plane has this host."""
        self._bury()
        return next((one for one in self._register if one.host == host), None)

    def by_id(self, resource_id: str) -> Account | None:
        parts = resource_id.strip("/").split("/")
        return self.find(parts[1], parts[3], parts[7]) if len(parts) == 8 else None

    def contents(self, subscription: str) -> Iterator[Resource]:
        self._bury()
        for account in self._register:
            if account.subscription.lower() == subscription.lower():
                yield Resource(account.id, account.name, TYPE, account.location, account.tags)

    def in_graph(self, subscription: str) -> list[Account]:
        """The accounts of a subscription with their pools as Resource Graph shows them."""
        self._bury()
        current = {account.key: account for account in self._register}
        shown = self._lag.in_graph(current)
        return [account for account in shown if account.subscription.lower() == subscription.lower()]

    def drop(self, resource: Resource) -> None:
        account = self.by_id(resource.id)
        if account is not None:
            self._remove(account)

    def existing(self) -> Iterator[Account]:
        """All accounts that exist. Unlike other reads, it does not remove deleted accounts from the register."""
        now = self.world.clock.time()
        return (account for account in self._register if account.gone_at is None or account.gone_at > now)

    def page(self, subscription: str, group: str | None, after: Key | None) -> tuple[list[Account], Key | None]:
        """One page of accounts, and the key after which the next page starts; None if there are no more accounts."""
        self._bury()
        register = self._register
        if self._lag.is_on:
            register = Register()
            for account in self._lag.listed({account.key: account for account in self._register}):
                register.add(account)
        return register.page(subscription, group, after)

    def state(self, account: Account) -> str:
        return account.state(self.world.clock.time())

    @property
    def quota(self) -> int:
        """How many accounts a subscription may have in a region."""
        return int(self.world.behavior.account_quota)

    def name_problem(self, location: str, name: str) -> tuple[str, str] | None:
        """Why an account cannot have the name in the region: a reason and a message; None if it can."""
        self._bury()
        if not 3 <= len(name) <= 24:
            return "Invalid", "Account name must be at least 3 characters and at most 24 characters."
        if re.fullmatch(r"[a-zA-Z0-9]+", name) is None:
            return "Invalid", "Account name must contain only letters and numbers."
        if self._register.has_name(tidy_location(location), name):
            return "AlreadyExists", f"An account named '{name}' is already in use."
        return None

    # Creating, changing and deleting

    def create(self, subscription: str, group: str, name: str, settings: AccountSettings, domain: str) -> Work:
        """Create an account, or create an account again whose creation failed. Raises AzureError and Refusal."""
        failed = self._register.find(subscription, group, name)
        if not settings.location:
            raise location_required()
        if settings.location not in (*REGIONS, *CANARY):
            raise location_unavailable(settings.location, TYPE, REGIONS)
        problem = self.name_problem(settings.location, name)
        if problem is not None and failed is None:
            reason, message = problem
            raise (errors.name_taken if reason == "AlreadyExists" else errors.invalid_name)(message)
        now = self.world.clock.time()
        ready = now + self.world.timing.batch_create
        account = Account(subscription, group, name, settings.location, domain, now, ready, ready)
        position, failure = self.world.behavior.refused_creation, None
        try:
            self._require_quota(account)
            self._apply(account, settings)
        except errors.Refusal as refusal:
            if position == "at_once":
                raise
            failure = refusal.parts
        self._lag.note(account.key, failed)
        if failed is not None:
            self._remove(failed)
        if failure is not None and position == "failed_account":
            account.is_failed = True
            account.refused_key = (settings.encryption.key_identifier if settings.encryption else None) or ""
            self._apply(account, replace(settings, encryption=None))
        if failure is None or account.is_failed:
            self._register.add(account)
        return self._operations.start(failure, self.world.timing.batch_create)

    def _require_quota(self, wanted: Account) -> None:
        place = (wanted.subscription.lower(), wanted.location)
        there = [one for one in self._register if (one.subscription.lower(), one.location) == place]
        if sum(one.key != wanted.key and not one.is_failed for one in there) >= self.quota:
            raise errors.quota_exceeded()

    def replace(self, account: Account, settings: AccountSettings) -> None:
        """PUT on an existing account. It replaces all tags, sets the other settings that the request contains, and
        changes nothing else."""
        if settings.location and settings.location != account.location:
            raise errors.location_differs(account.name, account.group, account.location, settings.location)
        for name in ("pool_allocation_mode", "key_vault_reference"):
            settings.fields.pop(name, None)
        settings.tags = settings.tags or {}
        self.update(account, settings)

    def update(self, account: Account, settings: AccountSettings) -> None:
        self.use(account)
        self._lag.note(account.key, account)
        self._apply(account, settings)
        account.modified = self.world.clock.time()
        self._assess(account)

    def delete(self, account: Account) -> Work:
        if account.gone_at is None:
            if self.state(account) == "Creating":
                raise errors.in_progress(account.name, "Creating")
            self._lag.note(account.key, account)
            account.gone_at = self.world.clock.time() + self.world.timing.batch_delete
            self._dying.add(account.key)
        return self._operations.start(None, account.gone_at - self.world.clock.time())

    def operation(self, name: str) -> Work:
        operation = self._operations.find(name)
        if operation is None:
            raise errors.operation_not_found(name)
        return operation

    def poll(self, operation: Work) -> bool:
        """Whether the operation is done. Raises Refusal if it failed."""
        if not self._operations.is_done(operation):
            return False
        if operation.about is not None:
            raise errors.Refusal(*operation.about)
        return True

    # Use

    def use(self, account: Account) -> None:
        """Check that the account is available. All operations except reading and deleting the account need this. Raises
        Refusal."""
        found = self.health(account)
        if found.kind == AVAILABLE:
            return
        if found.kind == IN_PROGRESS:
            raise errors.in_progress(account.name, found.reason)
        if account.is_failed:
            raise errors.creation_failed(account.name)
        assert account.protection is not None
        raise errors.key_not_accessible(account.protection.key_identifier, found.reason)

    def health(self, account: Account) -> Health:
        """Check the account's key as Batch does when the account is used, and store the result."""
        return health(account, self._assess, self.world.clock.time(), delays(self.world))

    def reassess(self, vault_name: str | None = None) -> None:
        """Check again whether Batch can use the keys of the accounts: in one vault, or in all vaults."""
        wanted = vault_name.lower() if vault_name else None
        key_use = self._key_use()
        for key, vault in self._protected.items():
            if wanted is None or vault == wanted:
                self._assess(self._register[key], key_use)

    def next_change(self, after: float) -> float:
        """The first time after `after` at which time alone may change an account's key version or whether Batch can
        use it; infinity if there is none."""
        protections = (self._register[key].protection for key in self._protected)
        times = key_times.changes(self.world, filter(None, protections))
        return min((one for one in times if one > after), default=float("inf"))

    def regenerate_key(self, account: Account, which: str) -> None:
        if which not in account.keys:
            raise errors.invalid_value("keyName", f"'{which}' is none of {', '.join(account.keys)}.")
        account.keys[which] = new_key()
        account.modified = self.world.clock.time()

    def sync_auto_storage_keys(self, account: Account) -> None:
        if account.auto_storage is None:
            raise errors.no_auto_storage()
        account_id = account.auto_storage["storageAccountId"]
        synced = {"storageAccountId": account_id, "lastKeySync": self.world.clock.iso()}
        account.auto_storage = {**synced, **account.auto_storage, **synced}

    # Initial accounts

    def seed(self, count: int, per_subscription: int, settings_by_subscription: Mapping[str, AccountSettings]) -> None:
        """Create `count` accounts, spread over the subscriptions and their resource groups. They use Microsoft-managed
        keys, unless `settings_by_subscription` has settings for the accounts of the subscription."""
        resources = self.world.resources
        subscriptions = resources.subscriptions()
        now = self.world.clock.time()
        for number in range(count):
            subscription = subscriptions[number // per_subscription].id
            location = SEED_LOCATIONS[number // SEEDED_PER_GROUP % len(SEED_LOCATIONS)]
            group = f"batch-{number // SEEDED_PER_GROUP:03d}"
            if number % SEEDED_PER_GROUP == 0:
                resources.put_group(subscription, group, location)
            account = Account(subscription, group, f"batch{number:05d}", location, BATCH_DOMAIN, now, now, now)
            self._apply(account, settings_by_subscription.get(subscription, AccountSettings()))
            self._register.add(account)

    # Helpers

    def _bury(self) -> None:
        now = self.world.clock.time()
        for account in [self._register[key] for key in self._dying]:
            if account.gone_at is not None and account.gone_at <= now:
                self._remove(account)

    def _remove(self, account: Account) -> None:
        self._dying.discard(account.key)
        self._protected.pop(account.key, None)
        self._register.remove(account)
        identity.let_go(self.world, account.identity, unless=Identity())

    def _apply(self, account: Account, settings: AccountSettings) -> None:
        """Apply all settings of a request, or none of them if one is refused."""
        wanted = identity.wanted(self.world, account, settings.identity)
        try:
            protection = self._protection(account, wanted, settings.encryption)
        except Exception:
            identity.let_go(self.world, wanted, unless=account.identity)
            raise
        identity.let_go(self.world, account.identity, unless=wanted)
        account.identity = wanted
        account.protection = protection
        if protection is None:
            self._protected.pop(account.key, None)
        else:
            key = KeyIdentifier.parse(protection.version)
            self._protected[account.key] = key.vault if key else ""
        if settings.tags is not None:
            account.tags = dict(settings.tags)
        for name, value in settings.fields.items():
            setattr(account, name, value)
        if settings.fields.get("auto_storage"):
            self.sync_auto_storage_keys(account)

    def _protection(self, account: Account, wanted: Identity, settings: EncryptionSettings | None) -> Protection | None:
        if settings is None:
            return account.protection
        if settings.key_identifier is None:
            return None
        return self._key_use().protect(wanted, settings.key_identifier, account.protection)

    def _key_use(self) -> KeyUse:
        return KeyUse(self.world, Grants(self.world))

    def _assess(self, account: Account, key_use: KeyUse | None = None) -> str:
        """Check whether Batch can use the account's key, and store the result. Returns why not; empty if Batch can."""
        protection = account.protection
        if protection is None:
            return ""
        key_use = key_use or self._key_use()
        key_use.follow(account)
        reason = key_use.unusable(account)
        found = key_state(protection, reason, self.world.clock.time(), delays(self.world))
        protection.lost, protection.back_at, protection.unusable_since = found.lost, found.back_at, found.unusable_since
        return reason
