# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The forced versions of a run: new versions of a key that are created regardless of the key's age.

The accounts of a run that share a key share its forced versions: if an account needs its n-th forced version, and
the run has created n versions of that key already, no version is created. Only the number of versions is stored,
because an account always moves to the newest version.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..._azure.run_store import RunFiles
from ..._core.ids import KeyIdentifier, key_in_vault
from .writes import KeyWrites


def counted_as(key: KeyIdentifier, params: Mapping[str, Any]) -> tuple[str, str]:
    """The names under which a run counts forced versions: the key, and the account in the options of a task. The name
    of the account includes the subscription, because two subscriptions may have the same group and account names."""
    account = f"{params['subscription_id'] or ''}/{params['resource_group']}/{params['account_name']}"
    return key_in_vault(key.vault, key.name), account.casefold()


class ForcedVersions:
    """`key` and `account` are names from `counted_as`. A task holds the lock of the key's vault while it checks
    whether a version was created, and creates one."""

    def __init__(self, files: RunFiles) -> None:
        self._files = files

    def count(self, key: str) -> int:
        return int(self._files.load("forced versions", key) or 0)

    def is_made(self, key: str, account: str) -> bool:
        """Whether the version for the account's next forced rotation exists. A failed rotation does not count."""
        return self.count(key) > self._completed(key, account)

    def made(self, key: str) -> None:
        self._files.store(self.count(key) + 1, "forced versions", key)

    def completed(self, key: str, account: str) -> None:
        """Note that the account uses the version of the key that was forced for it, if there was one."""
        with self._files.locked("forced rotations", key, account):
            completed = min(self._completed(key, account) + 1, self.count(key))
            self._files.store(completed, "forced rotations", key, account)

    def _completed(self, key: str, account: str) -> int:
        return int(self._files.load("forced rotations", key, account) or 0)

    def around(self, key: str, account: str, execute: Callable[[bool], dict[str, Any]]) -> dict[str, Any]:
        """Count the version of a task that runs in another process. `execute` takes whether the task has to create
        a version, and returns the result of the module."""
        is_made = self.is_made(key, account)
        result = execute(not is_made)
        # If a task failed after the creation of a version, the next task must not create another version.
        if not is_made and (result.get("changed") or KeyWrites.create.__name__ in result.get("applied", ())):
            self.made(key)
        if not result.get("failed"):
            self.completed(key, account)
        return result
