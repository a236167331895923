# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The new versions that a run was asked to make of a key whatever its age.

All accounts of a run that share a key share the version: the n-th forced version for each of them makes no version if
the run has made n of that key already. No version is remembered, only how many there were: an account always moves to
the newest version that there is by then.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..._azure.run_store import RunFiles
from ..._core.ids import KeyIdentifier, key_in_vault
from .writes import KeyWrites


def counted_as(key: KeyIdentifier, params: Mapping[str, Any]) -> tuple[str, str]:
    """The name under which a run counts forced versions: the key, and the account in the options of a task.
    Subscriptions may have accounts of the same name and group."""
    account = f"{params['subscription_id'] or ''}/{params['resource_group']}/{params['account_name']}"
    return key_in_vault(key.vault, key.name), account.casefold()


class ForcedVersions:
    """`key` and `account` are names by `counted_as`. A task that asks whether a version
    is made, and makes one, holds the lock of the key's vault meanwhile."""

    def __init__(self, files: RunFiles) -> None:
        self._files = files

    def count(self, key: str) -> int:
        return int(self._files.load("forced versions", key) or 0)

    def is_made(self, key: str, account: str) -> bool:
        """Whether the version for the account's next forced rotation exists. One that failed is still to come."""
        return self.count(key) > self._completed(key, account)

    def made(self, key: str) -> None:
        self._files.store(self.count(key) + 1, "forced versions", key)

    def completed(self, key: str, account: str) -> None:
        """The account uses the version of the key that was forced for it, if one was."""
        with self._files.locked("forced rotations", key, account):
            completed = min(self._completed(key, account) + 1, self.count(key))
            self._files.store(completed, "forced rotations", key, account)

    def _completed(self, key: str, account: str) -> int:
        return int(self._files.load("forced rotations", key, account) or 0)

    def around(self, key: str, account: str, execute: Callable[[bool], dict[str, Any]]) -> dict[str, Any]:
        """The same for a task that another process does: `execute` takes whether it is to make a version, and gives the
        result of the module."""
        is_made = self.is_made(key, account)
        result = execute(not is_made)
        # A task that failed after the creation is not to create another version.
        if not is_made and (result.get("changed") or KeyWrites.create.__name__ in result.get("applied", ())):
            self.made(key)
        if not result.get("failed"):
            self.completed(key, account)
        return result
