# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The goal of azbatch.cmk.batch_encryption.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..._core.errors import Problems
from ..._core.ids import ANY_KEY, KeyIdentifier, check_account_name, parse_key_identifier, parse_previous_key
from ..._documents.account import Account, key_of
from ..._documents.encryption import BATCH, KEY_VAULT

# How an account that uses a customer-managed key keeps or changes whether it follows the latest version.
KEEP, UPDATE, PIN, FOLLOW = MODES = ("keep", "update", "pin", "follow")
ANY = ANY_KEY


@dataclass(frozen=True)
class EncryptionGoal:
    group: str
    account: str
    # None: a Microsoft-managed key.
    key: KeyIdentifier | None
    vault_group: str | None
    # Whether to wait if the account uses the key and is not available.
    patient: bool = False
    # Whether the account follows the latest version of the key.
    mode: str = UPDATE
    # Whether the task names the mode.
    is_mode_given: bool = True
    # The vault and the name of the only customer-managed key that the account may use before the change, or ANY. None:
    # no other key than the wanted one.
    previous: tuple[str, str] | str | None = None
    # Whether it is an error if the caller cannot read whether the account is available.
    requires_readable: bool = False

    @property
    def target(self) -> KeyIdentifier | None:
        """The key identifier that is set on an account that does not meet the goal."""
        return self.key.versionless if self.key and self.mode == FOLLOW else self.key

    def is_satisfied_by(self, account: Account | None) -> bool:
        has = key_of(account)
        if self.key is None or has is None:
            return self.key is has
        if not self.key.same_key(has):
            return False
        if has.version is None:
            return self.mode != PIN
        return self.mode != FOLLOW and (self.mode == KEEP or self.key.same(has))

    def has_set(self, account: Account) -> bool:
        """Whether the account uses exactly the key identifier that this goal sets."""
        has, target = key_of(account), self.target
        return has.same(target) if has else target is None

    def allows_previous(self, key: KeyIdentifier | None) -> bool:
        """Whether the account may be moved from this key."""
        if isinstance(self.previous, tuple):
            return key is not None and key.is_named(*self.previous)
        return key is None or self.key is None or self.previous == ANY or self.key.same_key(key)


def desired(params: Mapping[str, Any]) -> EncryptionGoal:
    source, key, problems = params["key_source"], params["key_identifier"], Problems()
    allowed, mode = params["previous_key"], params["version_mode"]
    if source == KEY_VAULT and not key:
        problems.add("key_identifier", key, f"O(key_source={source}) requires it.", "Set it to the key to use.")
    if source == BATCH and key:
        problems.add(
            "key_identifier", key, f"it has no meaning with O(key_source={source}).", "Leave out one of the two."
        )
    identifier = problems.of(parse_key_identifier, key, "key_identifier") if key else None
    account = problems.of(check_account_name, params["account_name"], "account_name")
    previous = None if allowed is None else problems.of(parse_previous_key, allowed, "previous_key")
    problems.refuse()
    return EncryptionGoal(
        group=params["resource_group"],
        account=account,
        key=identifier,
        vault_group=params["vault_resource_group"],
        patient=params["wait_until_available"],
        mode=mode or UPDATE,
        is_mode_given=mode is not None,
        previous=previous,
        requires_readable=params["require_readable"],
    )
