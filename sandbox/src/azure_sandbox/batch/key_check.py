# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether Batch can use a customer-managed key. The check changes nothing: it does not rotate keys, it does not use the
private key, and the state that Batch stores for the account does not change."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ..key_vault.grants import Grants
from ..key_vault.vault import Vault
from ..key_vault_keys.key import Key, KeyVersion
from ..shared.web import AzureError
from ..shared.world import Principal
from .account import Account, Delays, Health, Identity, PreviousVersion, Protection, health
from .errors import Refusal, key_refused
from .world import World

NEEDED = ("get", "wrapKey", "unwrapKey")
NEEDED_IN_USE = ("get", "unwrapKey")

_IDENTIFIER = re.compile(
    r"https://(?P<host>(?P<vault>[a-z][a-z0-9-]{1,22}[a-z0-9])\.vault\.(?:azure\.net|usgovcloudapi\.net|azure\.cn))"
    r"(?::443)?/keys/(?P<name>[a-z0-9-]{1,127})(?:/(?P<version>[0-9a-f]{32}))?/?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class KeyIdentifier:
    host: str
    vault: str
    name: str
    # Empty: the latest version.
    version: str

    @classmethod
    def parse(cls, text: str) -> KeyIdentifier | None:
        found = _IDENTIFIER.fullmatch(text)
        if found is None:
            return None
        return cls(found["host"].lower(), found["vault"].lower(), found["name"], (found["version"] or "").lower())

    @property
    def url(self) -> str:
        return f"https://{self.host}/keys/{self.name}" + (f"/{self.version}" if self.version else "")


def delays(world: World) -> Delays:
    return Delays(float(world.behavior.key_loss_noticed), world.timing.batch_recovery)


@dataclass
class KeyCheck:
    """Checks the keys of one or more accounts at one time. It caches results, so no vault, key or role assignment may
    change while the object is in use. A rotation is no such change, because it changes no existing version."""

    world: World
    grants: Grants
    # The results of `_unusable`, by key version, by whether the version is new, and by principals. They are the same
    # for all accounts with the same values.
    _reasons: dict[tuple[str, bool, tuple[str, ...]], str] = field(default_factory=dict, init=False)

    def health(self, account: Account) -> Health:
        return health(account, self.unusable, self.world.clock.time(), delays(self.world))

    def unusable(self, account: Account) -> str:
        """Why Batch cannot use the key versions that the account needs; empty if Batch can."""
        assert account.protection is not None
        versions = [account.protection.version, *(one.version for one in self._previous(account.protection))]
        reasons = (self._unusable(account.identity, version) for version in versions)
        return next(filter(None, reasons), "")

    def _previous(self, protection: Protection) -> list[PreviousVersion]:
        now = self.world.clock.time()
        return [one for one in protection.previous if one.until > now]

    def _unusable(self, identity: Identity, version: str, *, is_new: bool = False) -> str:
        """Why an account with the identity cannot use a key version, or cannot change to it if `is_new`; empty if the
        account can."""
        alike = (version, is_new, tuple(identity.principal_ids))
        if alike not in self._reasons:
            key = KeyIdentifier.parse(version)
            assert key is not None
            try:
                (self._require_new if is_new else self._require_in_use)(identity, key)
                self._reasons[alike] = ""
            except Refusal as refusal:
                self._reasons[alike] = refusal.reason
        return self._reasons[alike]

    def _require_in_use(self, identity: Identity, key: KeyIdentifier) -> None:
        """Check that Batch can unwrap with the key version that an account uses. Raises Refusal."""
        vault = self._vault(key)
        principals = self._principals(identity)
        self._require_same_tenant(vault, principals[0])
        version = self._found(key)[1]
        self._require_usable(key, version)
        principal = self._with_access(vault, principals, key.name, NEEDED_IN_USE)
        try:
            self.world.vaults.admits(vault, principal, trusted_service=True)
            self.world.keys.check_unwrap(version)
        except AzureError as error:
            raise refused_by_key_vault(error) from error

    def _require_new(self, identity: Identity, key: KeyIdentifier) -> Principal:
        """Check that an account can change to the key. Returns the principal with which Batch uses the key. Raises
        Refusal.

        The network rules of the vault are not checked. Key Vault applies them when Batch wraps with another key, and a
        new version of the key has the vault of the version in use.
        """
        principals = self._principals(identity)
        vault = self._vault(key)
        self._require_same_tenant(vault, principals[0])
        self._require_safe(vault)
        principal = self._with_access(vault, principals, key.name, NEEDED)
        version = self._found(key)[1]
        self._require_fit(key, version)
        self._require_usable(key, version)
        return principal

    def _principals(self, identity: Identity) -> list[Principal]:
        """The existing principals of the identity, at least one. Raises Refusal."""
        if not identity.principal_ids:
            raise key_refused("The account has no identity to read the key with.")
        found = [self.world.directory.principal(object_id) for object_id in identity.principal_ids]
        principals = [principal for principal in found if principal is not None]
        if not principals:
            raise key_refused("The account's identity does not exist any more.")
        return principals

    def _vault(self, key: KeyIdentifier) -> Vault:
        vault = self.world.vaults.by_name(key.vault)
        if vault is None or vault.host.lower() != key.host:
            raise key_refused(f"The key vault '{key.host}' was not found.")
        return vault

    def _found(self, key: KeyIdentifier) -> tuple[Key, KeyVersion]:
        vault = self._vault(key)
        # The host name of a new vault does not resolve at once.
        if self.world.vaults.is_registering(vault):
            raise key_refused(f"The key vault '{key.host}' was not found.")
        found = self.world.keys.peek(vault, key.name, key.version)
        if found is None:
            raise key_refused(f"The key '{key.url}' was not found.")
        return found

    def _require_same_tenant(self, vault: Vault, principal: Principal) -> None:
        if vault.tenant_id.lower() != principal.tenant_id.lower():
            raise key_refused(f"The key vault '{vault.name}' belongs to another tenant than the account.")

    def _require_safe(self, vault: Vault) -> None:
        if not vault.purge_protection:
            raise key_refused(f"Purge protection is not enabled on the key vault '{vault.name}'.")

    def _with_access(
        self, vault: Vault, principals: list[Principal], key_name: str, needed: tuple[str, ...]
    ) -> Principal:
        """The first principal that has the needed permissions. Raises Refusal for the first principal if none has."""
        lacking = [
            [one for one in needed if principal.object_id.lower() not in self.grants.allowed(vault, one, key_name)]
            for principal in principals
        ]
        if all(lacking):
            problem = f"does not have the permission(s) {', '.join(lacking[0])} on the key '{key_name}'"
            raise key_refused(f"The identity '{principals[0].object_id}' {problem} in the key vault '{vault.name}'.")
        return principals[lacking.index([])]

    def _require_fit(self, key: KeyIdentifier, version: KeyVersion) -> None:
        if version.family != "RSA":
            raise key_refused(f"The key '{key.url}' is of type {version.kty}; RSA or RSA-HSM is needed.")
        missing = [name for name in ("wrapKey", "unwrapKey") if name not in version.key_ops]
        if missing:
            raise key_refused(f"The key '{key.url}' does not permit the operation(s) {', '.join(missing)}.")

    def _require_usable(self, key: KeyIdentifier, version: KeyVersion) -> None:
        now = self.world.clock.time()
        if not version.enabled:
            raise key_refused(f"The key '{key.url}' is disabled.")
        if version.expires is not None and version.expires <= now:
            raise key_refused(f"The key '{key.url}' has expired.")
        if version.not_before is not None and version.not_before > now:
            raise key_refused(f"The key '{key.url}' is not valid yet.")


def refused_by_key_vault(error: AzureError) -> Refusal:
    details = (error.body or {}).get("error") or {}
    code = (details.get("innererror") or {}).get("code") or details.get("code")
    message = str(details.get("message"))
    first = message.splitlines()[0] if message else ""
    return key_refused(f"Key Vault answered {error.status} {code}: {first}")
