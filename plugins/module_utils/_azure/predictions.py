# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The documents that check mode predicts.

They are in the run's store, so that all later tasks of the run read them. Without a store, each task has its own
predictions in memory.

This module util is private to the collection.
"""

from __future__ import annotations

import threading
import zlib
from contextlib import AbstractContextManager
from typing import Any

from .._core import placeholders
from .._documents.effects.write import Prediction
from .run_store import RunFiles

_PLACEHOLDERS, _TOUCHED = "placeholders", "touched"
# Predictions are in several files, so that adding one of ten thousand does not read and write all of them.
_FILES = 64


class Predictions:
    """The predictions by type of resource, name of the resource, and ref in lower case."""

    def __init__(self, files: RunFiles) -> None:
        self._files = files
        # For tasks without a store, whose threads share the memory.
        self._lock = threading.RLock()

    def locked(self, kind: str, name: str) -> AbstractContextManager[bool]:
        """A lock that is held from the read of a document until its prediction is stored."""
        return self._files.locked("prediction of", kind, name.lower())

    def of(self, kind: str, name: str) -> dict[str, Prediction]:
        """The predictions for all resources of that name."""
        stored = self._load(kind, _file_of(name)).get(name.lower(), {})
        return {ref: Prediction(*one) for ref, one in stored.items()}

    def all(self, kind: str) -> dict[str, Prediction]:
        files = [self._load(kind, str(number)) for number in range(_FILES)]
        return {ref: Prediction(*one) for file in files for stored in file.values() for ref, one in stored.items()}

    def put(self, kind: str, name: str, prediction: Prediction) -> None:
        file, name = _file_of(name), name.lower()
        with self._lock, self._files.locked("predictions", kind, file):
            stored = self._load(kind, file)
            of_name = {**stored.get(name, {}), prediction.ref.lower(): list(prediction)}
            self._files.store({**stored, name: of_name}, "predictions", kind, file)

    def touch(self, name: str) -> None:
        """Note that predictions may affect the Batch accounts that use a key of this vault, or this key
        (`key_in_vault`)."""
        self._note(_TOUCHED, name.lower(), True)

    @property
    def touched(self) -> frozenset[str]:
        return frozenset(self._files.load(_TOUCHED) or ())

    def keep_placeholder(self, placeholder: str) -> str:
        """Keep the text of the placeholder for the other tasks of the run. Returns the placeholder."""
        self._note(_PLACEHOLDERS, placeholder, placeholders.text_of(placeholder))
        return placeholder

    def learn_placeholders(self) -> None:
        placeholders.learn(self._files.load(_PLACEHOLDERS) or {})

    def next_number(self, kind: str) -> int:
        """The next number of this kind, from 1 on."""
        with self._lock, self._files.locked("predicted number", kind):
            number = int(self._files.load("predicted number", kind) or 0) + 1
            self._files.store(number, "predicted number", kind)
        return number

    def _note(self, file: str, name: str, value: object) -> None:
        with self._lock, self._files.locked(file):
            found = self._files.load(file) or {}
            if name not in found:
                self._files.store({**found, name: value}, file)

    def _load(self, kind: str, file: str) -> dict[str, dict[str, list[Any]]]:
        stored: dict[str, dict[str, list[Any]]] = self._files.load("predictions", kind, file) or {}
        return stored


def _file_of(name: str) -> str:
    return str(zlib.crc32(name.lower().encode()) % _FILES)
