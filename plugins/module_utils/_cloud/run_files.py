# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the tasks of a run share: tokens, what was read a moment ago, and how fast they may ask.

Ansible runs each task of each host in a process of its own, so this lies in files.

This module util is private to the collection.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class RunFiles:
    """JSON values by name, in the run's own temporary directory (mode 0700, removed when the run ends).

    Without such a directory they are kept in this process. A value has a file of its own, mode 0600, named by a hash.
    """

    def __init__(self, folder: str | None) -> None:
        self._folder = Path(folder) if folder else None
        self._kept: dict[str, Any] = {}

    @property
    def shared(self) -> bool:
        return self._folder is not None

    @contextlib.contextmanager
    def locked(self, *name: str) -> Iterator[None]:
        """One of fifty forks goes on; the others wait for it."""
        if self._folder is None:
            yield
            return
        with open(self._folder / f"{_hash(name)}.lock", "w", opener=_private) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def load(self, *name: str) -> Any:
        """None if there is no such value."""
        if self._folder is None:
            return self._kept.get(_hash(name))
        with contextlib.suppress(FileNotFoundError):
            return json.loads((self._folder / f"{_hash(name)}.json").read_text())
        return None

    def store(self, value: Any, *name: str) -> None:
        if self._folder is None:
            self._kept[_hash(name)] = value
            return
        file = self._folder / f"{_hash(name)}.json"
        # Whoever reads without the lock sees the former value or this one, and never half of it.
        half = file.with_suffix(f".{os.getpid()}")
        with open(half, "w", opener=_private) as written:
            json.dump(value, written)
        half.replace(file)


def _hash(name: tuple[str, ...]) -> str:
    return hashlib.sha256("\n".join(name).encode()).hexdigest()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
