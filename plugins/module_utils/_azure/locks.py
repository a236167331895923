# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Locks that the tasks of a run share.

This module util is private to the collection.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from .run_store import RunFiles


def vault_lock(files: RunFiles, vault: str) -> AbstractContextManager[None]:
    """A lock that is held while a task changes the vault, its keys or the access to them."""
    return files.locked("turn", vault.lower())
