# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an account would answer if it was used now, found without touching anything: no rotation that is due is done,
nothing is unwrapped, and Batch's own idea of the account stays as it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..key_vault.grants import Grants
from ..key_vault.vault import Vault
from ..key_vault_keys import documents
from ..key_vault_keys.key import Key, KeyVersion
from ..shared.web import AzureError
from ..shared.world import Principal
from .account import Account, Health, PreviousVersion, Protection, health
from .encryption import KeyIdentifier, KeyUse, refused_by_key_vault
from .errors import key_refused


@dataclass
class Outlook(KeyUse):
    grants: Grants
    _looks: dict[KeyIdentifier, dict[str, Any]] = field(default_factory=dict)
    # What `unusable` found, by key version and principals.
    _reasons: dict[tuple[str, ...], str] = field(default_factory=dict)

    def health(self, account: Account) -> Health:
        return health(account, self.unusable, self.world.clock.time(), self.world.timing.batch_recovery)

    def unusable(self, account: Account) -> str:
        """As KeyUse says, found once for all accounts that the same version wraps for the same principals."""
        protection = account.protection
        assert protection is not None
        versions = [protection.version, *(one.version for one in self._previous(protection))]
        alike = (*versions, *account.identity.principal_ids)
        if alike not in self._reasons:
            self._reasons[alike] = super().unusable(account)
        return self._reasons[alike]

    def _look(self, key: KeyIdentifier) -> dict[str, Any]:
        if key not in self._looks:
            self._looks[key] = documents.bundle(self._vault(key), *self._found(key))
        return self._looks[key]

    def _found(self, key: KeyIdentifier) -> tuple[Key, KeyVersion]:
        vault = self._vault(key)
        if self.world.vaults.is_registering(vault):
            raise key_refused(f"The key vault '{key.host}' was not found.")
        found = self.world.keys.peek(vault, key.name, key.version)
        if found is None:
            raise key_refused(f"The key '{key.url}' was not found.")
        return found

    def _may(self, vault: Vault, principal: Principal, permission: str, key_name: str) -> bool:
        return principal.object_id.lower() in self.grants.allowed(vault, permission, key_name)

    def _unwrap(self, principal: Principal, protection: Protection | PreviousVersion) -> bytes:
        """As far as it can be said without the private key."""
        key = KeyIdentifier.parse(protection.version)
        assert key is not None
        try:
            self.world.vaults.admits(self._vault(key), principal, trusted_service=True)
            self.world.keys.check_unwrap(self._found(key)[1])
        except AzureError as error:
            raise refused_by_key_vault(error) from error
        return b""
