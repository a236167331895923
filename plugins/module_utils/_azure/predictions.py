# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The predicted changes of the run's tasks in check mode.

They are in the run's store, so that all later tasks of the run read them. Without a store, each task has its own
predictions in memory.

This module util is private to the collection.
"""

from __future__ import annotations

import copy
import threading
import zlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from .._core import placeholders
from .run_store import RunFiles

_PLACEHOLDERS = "placeholder"
# Entries are in several files, so that adding one of ten thousand entries does not read and write all of them.
_FILES = 64

Entry = dict[str, Any]


class Predictions:
    """Entries by kind and name. `place` is a key by which `at` finds entries without reading all entries of a kind."""

    def __init__(self, files: RunFiles) -> None:
        self._files = files
        # For tasks without a store, whose threads share the memory.
        self._lock = threading.RLock()

    def locked(self, kind: str, name: str) -> AbstractContextManager[None]:
        """A lock that is held from the read of an entry until the entry is written."""
        return self._files.locked("prediction of", kind, name.lower())

    def get(self, kind: str, name: str) -> Entry | None:
        return self.at(kind, name).get(name.lower())

    def at(self, kind: str, place: str) -> dict[str, Entry]:
        """Entries by their names in lower case: all entries of that place, and possibly others."""
        return self._load(self._file(kind, place))

    def all(self, kind: str) -> dict[str, Entry]:
        return {name: entry for number in range(_FILES) for name, entry in self._load((kind, str(number))).items()}

    def put(self, kind: str, name: str, entry: Mapping[str, Any], place: str | None = None) -> None:
        file = self._file(kind, name if place is None else place)
        with self._lock, self._files.locked("predictions", *file):
            self._files.store({**self._load(file), name.lower(): dict(entry)}, "predictions", *file)

    def keep_placeholder(self, placeholder: str) -> str:
        """Keep the text of the placeholder for the other tasks of the run. Returns the placeholder."""
        self.put(_PLACEHOLDERS, placeholder, {"text": placeholders.text_of(placeholder)}, place=_PLACEHOLDERS)
        return placeholder

    def learn_placeholders(self) -> None:
        kept = self.at(_PLACEHOLDERS, _PLACEHOLDERS)
        placeholders.learn({name: entry["text"] for name, entry in kept.items()})

    def next_number(self, kind: str) -> int:
        """The next number of this kind, from 1 on."""
        with self._lock, self._files.locked("predicted number", kind):
            number = int(self._files.load("predicted number", kind) or 0) + 1
            self._files.store(number, "predicted number", kind)
        return number

    def _load(self, file: tuple[str, str]) -> dict[str, Entry]:
        found: dict[str, Entry] = copy.deepcopy(self._files.load("predictions", *file) or {})
        return found

    @staticmethod
    def _file(kind: str, place: str) -> tuple[str, str]:
        return kind, str(zlib.crc32(place.lower().encode()) % _FILES)
