# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The picture of a rehearsal: what the run's tasks in check mode have changed, as they would have changed it in Azure.

The simulated state is stored in the files of the run, so that every later task of the run reads it. Without these
files, a task keeps the state in memory.

This module util is private to the collection.
"""

from __future__ import annotations

import copy
import threading
import zlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from .run_store import RunFiles

# Entries are in several files, so that adding one of ten thousand does not read and write them all.
_FILES = 64

Entry = dict[str, Any]


class Picture:
    """Entries by kind and name. `place` of an entry is what it can be looked up by without reading all of its kind."""

    def __init__(self, files: RunFiles) -> None:
        self._files = files
        # For tasks without a store, whose threads share the memory.
        self._lock = threading.RLock()

    def locked(self, kind: str, name: str) -> AbstractContextManager[None]:
        """Held from the read of an entry until it is written."""
        return self._files.locked("picture of", kind, name.lower())

    def get(self, kind: str, name: str) -> Entry | None:
        return self.at(kind, name).get(name.lower())

    def at(self, kind: str, place: str) -> dict[str, Entry]:
        """The entries that may be at that place, by their names in lower case."""
        return self._load(self._file(kind, place))

    def all(self, kind: str) -> dict[str, Entry]:
        return {name: entry for number in range(_FILES) for name, entry in self._load((kind, str(number))).items()}

    def put(self, kind: str, name: str, entry: Mapping[str, Any], place: str | None = None) -> None:
        file = self._file(kind, name if place is None else place)
        with self._lock, self._files.locked("picture", *file):
            self._files.store({**self._load(file), name.lower(): dict(entry)}, "picture", *file)

    def next_number(self, kind: str) -> int:
        """1, 2, 3 and so on."""
        with self._lock, self._files.locked("picture number", kind):
            number = int(self._files.load("picture number", kind) or 0) + 1
            self._files.store(number, "picture number", kind)
        return number

    def _load(self, file: tuple[str, str]) -> dict[str, Entry]:
        found: dict[str, Entry] = copy.deepcopy(self._files.load("picture", *file) or {})
        return found

    @staticmethod
    def _file(kind: str, place: str) -> tuple[str, str]:
        return kind, str(zlib.crc32(place.lower().encode()) % _FILES)
