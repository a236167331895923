# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The operations on pools and their rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..shared.lag import Lag
from ..shared.operations import Operation, Operations
from . import account_settings, errors
from .account import Account, Identity, Key, Pool
from .identity import user_assigned
from .key_check import KeyIdentifier
from .world import World

_MACHINE = "properties.deploymentConfiguration.virtualMachineConfiguration"
_DISK_KEY = f"{_MACHINE}.diskEncryptionConfiguration.customerManagedKey"


def deletion(account: Account, pool: str) -> str:
    """The path of the operation that deletes a pool. It has the pool's name instead of an operation id."""
    return f"{account.id}/poolOperationResults/delete-{pool}"


@dataclass
class Pools:
    world: World
    _operations: Operations[Any]
    # Of accounts, whose pools are part of their state.
    _lag: Lag[Key, Account]

    def all(self, account: Account) -> list[Pool]:
        """The pools, sorted by name."""
        now = self.world.clock.time()
        account.pools = {
            name: pool for name, pool in account.pools.items() if pool.gone_at is None or pool.gone_at > now
        }
        return [pool for _name, pool in sorted(account.pools.items())]

    def get(self, account: Account, name: str) -> Pool:
        found = self._find(account, name)
        if found is None:
            raise errors.pool_not_found(name)
        return found

    def put(self, account: Account, name: str, document: dict[str, Any]) -> Pool:
        """Create or replace a pool. Raises AzureError and Refusal."""
        now = self.world.clock.time()
        previous = self._find(account, name)
        if previous is not None and previous.gone_at is not None:
            raise errors.pool_being_deleted(name)
        properties = document.get("properties") or {}
        if not isinstance(properties, dict):
            raise errors.invalid_body("properties is not an object")
        identity = self._identity(account, document)
        self._require_disk_key(properties, identity)
        self._lag.note(account.key, account)
        pool = Pool(name, properties, identity, previous.created if previous else now, now)
        account.pools[name.lower()] = pool
        return pool

    def delete(self, account: Account, name: str) -> Operation[Any] | None:
        """Start the deletion of a pool. None if there is no pool."""
        pool = self._find(account, name)
        if pool is None:
            return None
        if pool.gone_at is None:
            self._lag.note(account.key, account)
            pool.gone_at = self.world.clock.time() + self.world.timing.pool_delete
        return self._operations.start(None, pool.gone_at - self.world.clock.time(), deletion(account, name))

    def _find(self, account: Account, name: str) -> Pool | None:
        return next((pool for pool in self.all(account) if pool.name.lower() == name.lower()), None)

    def _identity(self, account: Account, document: dict[str, Any]) -> Identity:
        settings = account_settings.identity(document)
        if settings is None or settings.type == "None":
            return Identity()
        if settings.type == "SystemAssigned":
            raise errors.invalid_value("identity.type", "A pool has user-assigned identities, or none.")
        return Identity("UserAssigned", user_assigned=user_assigned(self.world, account, settings, {}))

    def _require_disk_key(self, properties: dict[str, Any], identity: Identity) -> None:
        """Check that the key that encrypts the disks exists, and that the identity that accesses it is one of the
        pool's identities. Raises Refusal."""
        machine = (properties.get("deploymentConfiguration") or {}).get("virtualMachineConfiguration") or {}
        own = (machine.get("diskEncryptionConfiguration") or {}).get("customerManagedKey")
        if not own:
            return
        key = KeyIdentifier.parse(str(own.get("keyUrl")))
        if key is None or not key.version:
            raise errors.invalid_value(f"{_DISK_KEY}.keyUrl", "It is not the URL of a version of a key.")
        vault = self.world.vaults.by_name(key.vault)
        if vault is None or vault.host.lower() != key.host:
            raise errors.invalid_value(f"{_DISK_KEY}.keyUrl", f"The key vault '{key.host}' was not found.")
        if self.world.keys.peek(vault, key.name, key.version) is None:
            raise errors.invalid_value(f"{_DISK_KEY}.keyUrl", f"The key '{key.url}' was not found.")
        used = (own.get("identityReference") or {}).get("resourceId")
        if used and used.lower() not in {one.lower() for one in identity.user_assigned}:
            path = f"{_DISK_KEY}.identityReference.resourceId"
            raise errors.invalid_value(path, f"'{used}' is no identity of the pool.")
