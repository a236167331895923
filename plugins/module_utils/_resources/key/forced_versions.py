# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Forced versions: new versions of a key that are created regardless of the age of the key.

The tasks of a run that force a version of a key for Batch accounts share one version.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..._azure.run_store import RunFiles
from .goal import KeyWrites


class ForcedVersions:
    """`key` is a name from `key_in_vault`. A task holds the lock of the key's vault while it checks whether a version
    was created, and creates one."""

    def __init__(self, files: RunFiles) -> None:
        self._files = files

    def is_made(self, key: str) -> bool:
        """Whether a task of the run has created a version of the key."""
        return bool(self._files.load("forced version", key))

    def made(self, key: str) -> None:
        self._files.store(True, "forced version", key)

    def around(self, key: str, execute: Callable[[bool], dict[str, Any]]) -> dict[str, Any]:
        """Note the version of a task that runs in another process. `execute` takes whether the task has to create a
        version, and returns the result of the module."""
        is_made = self.is_made(key)
        result = execute(not is_made)
        # If a task failed after the creation of a version, the next task must not create another version.
        if not is_made and (result.get("changed") or KeyWrites.create.__name__ in result.get("applied", ())):
            self.made(key)
        return result
