# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How Batch uses a customer-managed key.

Batch wraps the account's data-encryption key with the customer-managed key. Each time the account is used, Batch
unwraps the data-encryption key with the account's identity, and the rules of the vault apply.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from typing import Any

from ..key_vault.vault import Vault
from ..shared.web import AzureError
from ..shared.world import Principal
from .account import Account, Delays, Identity, PreviousVersion, Protection
from .errors import Refusal, key_refused
from .world import World

KEY_SIZES = (2048, 3072, 4096)
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
    return Delays(int(world.behavior.key_loss_noticed), world.timing.batch_recovery)


@dataclass
class KeyUse:
    """Uses the keys of one or more accounts for one check. It caches results, so no vault, key or role assignment may
    change during the check."""

    world: World
    # The results of `_newest`, by key identifier.
    _newest_of: dict[str, str] = field(default_factory=dict, init=False)
    # The key identifiers, versions and principals of accounts that could not change to the newest version. Other
    # accounts with the same values cannot change either.
    _stuck: set[tuple[str, ...]] = field(default_factory=set, init=False)

    def protect(self, identity: Identity, key_identifier: str, before: Protection | None) -> Protection:
        """Create a data-encryption key and wrap it with the customer-managed key. Raises Refusal."""
        fresh = self._protect(identity, key_identifier, os.urandom(32))
        if before is not None:
            fresh.previous = self._still_needed(before, fresh.version)
            # A previous version that is still needed may be what Batch cannot use.
            fresh.unusable_since = before.unusable_since
        return fresh

    def unusable(self, account: Account) -> str:
        """Why the account's data-encryption key cannot be unwrapped; empty if it can."""
        assert account.protection is not None
        try:
            self._unprotect(account.identity, account.protection)
            for previous in self._previous(account.protection):
                self._unprotect(account.identity, previous)
        except Refusal as refusal:
            return refusal.reason
        return ""

    def _previous(self, protection: Protection) -> list[PreviousVersion]:
        now = self.world.clock.time()
        return [one for one in protection.previous if one.until > now]

    def _still_needed(self, before: Protection, version: str) -> list[PreviousVersion]:
        """The versions of the same key that Batch still needs after a change to `version`."""
        lasts = int(self.world.behavior.previous_version_needed)
        until = self.world.clock.time() + lasts
        left = PreviousVersion(before.version, before.wrapped, before.digest, until)
        key = version.rpartition("/")[0]
        needed = [*self._previous(before), *([left] if lasts else ())]
        return [one for one in needed if one.version.rpartition("/")[0] == key and one.version != version]

    def follow(self, account: Account) -> None:
        """If the account's key identifier has no version, change the account to the newest version that is old enough
        (switch `follower_delay`). If this version cannot be used, the account keeps its version."""
        protection = account.protection
        assert protection is not None
        newest = self._newest(protection.key_identifier)
        if newest in ("", protection.version) or not self._is_later(newest, protection.version):
            return
        alike = (protection.key_identifier, protection.version, *account.identity.principal_ids)
        if alike in self._stuck:
            return
        try:
            fresh = self._protect(account.identity, newest, self._unprotect(account.identity, protection))
        except Refusal:
            self._stuck.add(alike)
            return
        protection.previous = self._still_needed(protection, fresh.version)
        protection.version, protection.wrapped = fresh.version, fresh.wrapped

    def _newest(self, key_identifier: str) -> str:
        """The version to which accounts with this key identifier change. Empty if the identifier has a version, or if
        no version is old enough."""
        if key_identifier not in self._newest_of:
            key = KeyIdentifier.parse(key_identifier)
            self._newest_of[key_identifier] = "" if key is None or key.version else self._followed(key)
        return self._newest_of[key_identifier]

    def _followed(self, key: KeyIdentifier) -> str:
        try:
            # This read also rotates the key if rotation is due.
            self._look(key)
        except Refusal:
            return ""
        found = self.world.keys.peek(self._vault(key), key.name)
        latest = self.world.clock.time() - int(self.world.behavior.follower_delay)
        old_enough = [one.version for one in found[0].versions if one.created <= latest] if found else []
        return f"{key.url}/{old_enough[-1]}" if old_enough else ""

    def _is_later(self, version: str, other: str) -> bool:
        """Whether a version was created after another version of the same key; also true if the other version no longer
        exists."""
        one, another = KeyIdentifier.parse(version), KeyIdentifier.parse(other)
        assert one is not None
        assert another is not None
        found = self.world.keys.peek(self._vault(one), one.name)
        order = [each.version for each in found[0].versions] if found else []
        return another.version not in order or order.index(one.version) > order.index(another.version)

    def _protect(self, identity: Identity, key_identifier: str, data_key: bytes) -> Protection:
        key = KeyIdentifier.parse(key_identifier)
        if key is None:
            raise key_refused(f"'{key_identifier}' is not the identifier of a key in a key vault.")
        refusals = []
        for principal in self._principals(identity):
            try:
                version, wrapped = self._wrap(principal, key, data_key)
            except Refusal as refusal:
                refusals.append(refusal)
            else:
                return Protection(key_identifier, version, wrapped, hashlib.sha256(data_key).digest())
        raise refusals[0]

    def _unprotect(self, identity: Identity, protection: Protection | PreviousVersion) -> bytes:
        key = KeyIdentifier.parse(protection.version)
        assert key is not None
        vault = self._vault(key)
        principals = self._principals(identity)
        self._require_same_tenant(vault, principals[0])
        self._require_usable(key, self._look(key)["attributes"])
        refusals = []
        for principal in principals:
            try:
                self._require_access(vault, principal, key.name, NEEDED_IN_USE)
                return self._unwrap(principal, protection)
            except Refusal as refusal:
                refusals.append(refusal)
        raise refusals[0]

    def _unwrap(self, principal: Principal, protection: Protection | PreviousVersion) -> bytes:
        try:
            data_key = self.world.keys.unwrap(principal, protection.version, protection.wrapped)
        except AzureError as error:
            raise refused_by_key_vault(error) from error
        if hashlib.sha256(data_key).digest() != protection.digest:
            raise key_refused(f"The key '{protection.version}' is not the one that the account was encrypted with.")
        return data_key

    def _principals(self, identity: Identity) -> list[Principal]:
        """The existing principals of the identity, at least one. Raises Refusal."""
        if not identity.principal_ids:
            raise key_refused("The account has no identity to read the key with.")
        found = [self.world.directory.principal(object_id) for object_id in identity.principal_ids]
        principals = [principal for principal in found if principal is not None]
        if not principals:
            raise key_refused("The account's identity does not exist any more.")
        return principals

    def _wrap(self, principal: Principal, key: KeyIdentifier, data_key: bytes) -> tuple[str, bytes]:
        vault = self._vault(key)
        self._require_same_tenant(vault, principal)
        self._require_safe(vault)
        self._require_access(vault, principal, key.name, NEEDED)
        bundle = self._look(key)
        self._require_fit(key, bundle)
        self._require_usable(key, bundle["attributes"])
        try:
            version, wrapped = self.world.keys.wrap(principal, key.url, data_key)
            same = self.world.keys.unwrap(principal, version, wrapped) == data_key
        except AzureError as error:
            raise refused_by_key_vault(error) from error
        if not same:
            raise key_refused(f"The key '{version}' does not unwrap what it wrapped.")
        return version, wrapped

    def _vault(self, key: KeyIdentifier) -> Vault:
        vault = self.world.vaults.by_name(key.vault)
        if vault is None or vault.host.lower() != key.host:
            raise key_refused(f"The key vault '{key.host}' was not found.")
        return vault

    def _require_same_tenant(self, vault: Vault, principal: Principal) -> None:
        if vault.tenant_id.lower() != principal.tenant_id.lower():
            raise key_refused(f"The key vault '{vault.name}' belongs to another tenant than the account.")

    def _require_safe(self, vault: Vault) -> None:
        # Vaults of the sandbox do not have this attribute, because every new vault has soft delete. In Azure, an old
        # vault can be without soft delete.
        if not getattr(vault, "soft_delete", True):
            raise key_refused(f"Soft delete is not enabled on the key vault '{vault.name}'.")
        if not vault.purge_protection:
            raise key_refused(f"Purge protection is not enabled on the key vault '{vault.name}'.")

    def _require_access(self, vault: Vault, principal: Principal, key_name: str, needed: tuple[str, ...]) -> None:
        missing = [permission for permission in needed if not self._may(vault, principal, permission, key_name)]
        if missing:
            lacking = f"does not have the permission(s) {', '.join(missing)} on the key '{key_name}'"
            raise key_refused(f"The identity '{principal.object_id}' {lacking} in the key vault '{vault.name}'.")

    def _may(self, vault: Vault, principal: Principal, permission: str, key_name: str) -> bool:
        try:
            self.world.vaults.permits(vault, principal, permission, key_name)
        except AzureError:
            return False
        return True

    def _look(self, key: KeyIdentifier) -> dict[str, Any]:
        self._vault(key)
        try:
            return self.world.keys.look(key.url)
        except AzureError as error:
            # The host name of a new vault does not resolve at once.
            what = f"key vault '{key.host}'" if _code(error) == "VaultNotFound" else f"key '{key.url}'"
            raise key_refused(f"The {what} was not found.") from error

    def _require_fit(self, key: KeyIdentifier, bundle: dict[str, Any]) -> None:
        kind = bundle["key"]["kty"]
        if kind not in ("RSA", "RSA-HSM"):
            raise key_refused(f"The key '{key.url}' is of type {kind}; RSA or RSA-HSM is needed.")
        size = bundle["attributes"]["key_size"]
        if size not in KEY_SIZES:
            sizes = ", ".join(map(str, KEY_SIZES))
            raise key_refused(f"The key '{key.url}' has {size} bits; one of {sizes} is needed.")
        missing = [name for name in ("wrapKey", "unwrapKey") if name not in bundle["key"].get("key_ops", ())]
        if missing:
            raise key_refused(f"The key '{key.url}' does not permit the operation(s) {', '.join(missing)}.")

    def _require_usable(self, key: KeyIdentifier, attributes: dict[str, Any]) -> None:
        now = self.world.clock.time()
        if not attributes.get("enabled", True):
            raise key_refused(f"The key '{key.url}' is disabled.")
        if attributes.get("exp") is not None and attributes["exp"] <= now:
            raise key_refused(f"The key '{key.url}' has expired.")
        if attributes.get("nbf") is not None and attributes["nbf"] > now:
            raise key_refused(f"The key '{key.url}' is not valid yet.")


def _code(error: AzureError) -> str:
    details = (error.body or {}).get("error") or {}
    return str((details.get("innererror") or {}).get("code") or details.get("code"))


def refused_by_key_vault(error: AzureError) -> Refusal:
    message = str(((error.body or {}).get("error") or {}).get("message"))
    first = message.splitlines()[0] if message else ""
    return key_refused(f"Key Vault answered {error.status} {_code(error)}: {first}")
