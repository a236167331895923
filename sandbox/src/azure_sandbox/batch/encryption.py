# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How Batch changes an account to a customer-managed key, and to a new version of the key."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import dropwhile

from ..shared.web import AzureError
from ..shared.world import Principal
from .account import Account, Identity, PreviousVersion, Protection
from .errors import Refusal, key_refused
from .key_check import KeyCheck, KeyIdentifier, refused_by_key_vault


@dataclass
class KeyUse(KeyCheck):
    """Changes the keys and key versions of accounts. Rotates a key if rotation is due."""

    # The results of `_newer`, by key identifier and the version in use.
    _newer_of: dict[tuple[str, str], str] = field(default_factory=dict, init=False)

    def protect(self, identity: Identity, key_identifier: str, before: Protection | None) -> Protection:
        """Change an account to a customer-managed key. Batch wraps and unwraps a data-encryption key with it, so that
        Key Vault applies its own rules. Raises Refusal."""
        key = KeyIdentifier.parse(key_identifier)
        if key is None:
            raise key_refused(f"'{key_identifier}' is not the identifier of a key in a key vault.")
        self._rotate_if_due(key)
        fresh = Protection(key_identifier, self._wrap(self._require_new(identity, key), key))
        if before is not None:
            fresh.previous = self._still_needed(before, fresh.version)
            # A previous version that is still needed may be what Batch cannot use.
            fresh.unusable_since = before.unusable_since
        return fresh

    def follow(self, account: Account) -> None:
        """If the account's key identifier has no version, change the account to the newest version that is old enough
        (switch `follower_delay`). If Batch cannot use this version or the version in use, the account keeps its
        version.

        The check does not use the private key, because this would take seconds for thousands of accounts.
        """
        protection, identity = account.protection, account.identity
        assert protection is not None
        alike = (protection.key_identifier, protection.version)
        if alike not in self._newer_of:
            self._newer_of[alike] = self._newer(*alike)
        newer = self._newer_of[alike]
        if (
            newer
            and not self._unusable(identity, protection.version)
            and not self._unusable(identity, newer, is_new=True)
        ):
            protection.previous = self._still_needed(protection, newer)
            protection.version = newer

    def _newer(self, key_identifier: str, version: str) -> str:
        """The version to which accounts with this key identifier and version change. Empty if the identifier has a
        version, or if no later version is old enough."""
        key = KeyIdentifier.parse(key_identifier)
        if key is None:
            return ""
        self._rotate_if_due(key)
        if key.version:
            return ""
        try:
            versions = self._found(key)[0].versions
        except Refusal:
            return ""
        base, _, in_use = version.rpartition("/")
        later = [*dropwhile(lambda one: one.version != in_use, versions)][1:]
        latest = self.world.clock.time() - float(self.world.behavior.follower_delay)
        old_enough = [one.version for one in later if one.created <= latest]
        return f"{base}/{old_enough[-1]}" if old_enough else ""

    def _still_needed(self, before: Protection, version: str) -> list[PreviousVersion]:
        """The versions of the same key that Batch still needs after a change to `version`."""
        lasts = float(self.world.behavior.previous_version_needed)
        left = PreviousVersion(before.version, self.world.clock.time() + lasts)
        key = version.rpartition("/")[0]
        needed = [*self._previous(before), *([left] if lasts else ())]
        return [one for one in needed if one.version.rpartition("/")[0] == key and one.version != version]

    def _rotate_if_due(self, key: KeyIdentifier) -> None:
        # A read of the key rotates it. The checks report the errors.
        with suppress(AzureError):
            self.world.keys.look(key.url)

    def _wrap(self, principal: Principal, key: KeyIdentifier) -> str:
        """Wrap and unwrap a data-encryption key. Returns the key version that Key Vault used. Raises Refusal."""
        try:
            version, wrapped = self.world.keys.wrap(principal, key.url, os.urandom(32))
            self.world.keys.unwrap(principal, version, wrapped)
        except AzureError as error:
            raise refused_by_key_vault(error) from error
        return version
