# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is kept between two starts: the resource group, the outcomes, and what unfinished experiments have noted."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FILE = "state.json"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let only one process use the folder. Raises BlockingIOError if another one does."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


@dataclass
class State:
    folder: Path
    group: str = ""
    location: str = ""
    # By experiment: its outcome, or the reason why it has none.
    outcomes: dict[str, dict[str, Any]] = field(default_factory=dict)
    # By experiment, how often it was begun: each time has a separate recording.
    starts: dict[str, int] = field(default_factory=dict)
    # By experiment, its resources. They end with the resource group.
    memories: dict[str, dict[str, Any]] = field(default_factory=dict)
    # By experiment and case, what Azure said. It is not asked again.
    answers: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> State:
        file = folder / FILE
        return cls(folder, **json.loads(file.read_text(encoding="utf-8"))) if file.exists() else cls(folder)

    def save(self) -> None:
        """Replace the file. It has real ids, so only its owner can read it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = {name: value for name, value in vars(self).items() if name != "folder"}
        temporary = self.folder / f".{FILE}"
        with open(temporary, "w", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            json.dump(kept, file)
        os.replace(temporary, self.folder / FILE)

    def forget(self, experiments: Iterable[str]) -> None:
        """Let these experiments begin again as if they had never run."""
        for name in experiments:
            for kept in (self.outcomes, self.memories, self.answers):
                kept.pop(name, None)

    def remove(self) -> None:
        (self.folder / FILE).unlink(missing_ok=True)
