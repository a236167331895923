# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The new versions that a run was asked to make of a key whatever its age.

All accounts of a run that share a key share the version: the n-th forced rotation of each of them makes no version if
the run has made n of that key already. No version is remembered, only how many there were: an account always moves to
the newest version that there is by then.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .run_files import RunFiles


class ForcedVersions:
    """`key` and `account` are any names that are the same for all tasks of the run. A task that asks whether a version
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

    def completed(self, key: str, account: str, *, counts: bool) -> None:
        """A rotation of the account has come to its end. It counts if it was forced, and not just predicted."""
        if not counts:
            return
        with self._files.locked("forced rotations", key, account):
            self._files.store(self._completed(key, account) + 1, "forced rotations", key, account)

    def _completed(self, key: str, account: str) -> int:
        return int(self._files.load("forced rotations", key, account) or 0)

    def around(
        self, key: str, account: str, execute: Callable[[bool], dict[str, Any]], *, counts: bool
    ) -> dict[str, Any]:
        """A forced rotation that another process does: `execute` takes whether it is to make a version, and gives the
        result of the module. A prediction does not count."""
        is_made = self.is_made(key, account)
        result = execute(not is_made)
        if counts and not is_made and result.get("changed_steps", {}).get("key"):
            self.made(key)
        self.completed(key, account, counts=counts and not result.get("failed"))
        return result
