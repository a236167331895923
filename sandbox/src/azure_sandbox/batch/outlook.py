# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether an account would be available if it was used now. The check changes nothing: it does not rotate keys, it
unwraps nothing, and the state that Batch stores for the account does not change."""

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
from .encryption import KeyIdentifier, KeyUse, delays, refused_by_key_vault
from .errors import key_refused


@dataclass
class Outlook(KeyUse):
    grants: Grants
    _looks: dict[KeyIdentifier, dict[str, Any]] = field(default_factory=dict)
    # The results of `unusable`, by key versions and principals.
    _reasons: dict[tuple[str, ...], str] = field(default_factory=dict)

    def health(self, account: Account) -> Health:
        return health(account, self.unusable, self.world.clock.time(), delays(self.world))

    def unusable(self, account: Account) -> str:
        """As in KeyUse. The result is cached for all accounts with the same key versions and the same principals."""
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
        """Check whether Key Vault would unwrap the data-encryption key, without the private key. Returns no data."""
        key = KeyIdentifier.parse(protection.version)
        assert key is not None
        try:
            self.world.vaults.admits(self._vault(key), principal, trusted_service=True)
            self.world.keys.check_unwrap(self._found(key)[1])
        except AzureError as error:
            raise refused_by_key_vault(error) from error
        return b""
