# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keys that the run has moved Batch accounts to.

This module util is private to the collection.
"""

from __future__ import annotations

from .._core.ids import KeyIdentifier
from .run_store import RunFiles


class Moved:
    def __init__(self, files: RunFiles) -> None:
        self._files = files

    def to(self, key: KeyIdentifier) -> bool:
        return bool(self._files.load("moved to", key.versionless.folded))

    def note(self, key: KeyIdentifier) -> None:
        self._files.store(True, "moved to", key.versionless.folded)
