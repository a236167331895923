# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Saves the world of a sandbox to disk, so that a later start can load it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pickle
import shlex
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .certificates import CERTIFICATE, PRIVATE_KEY, private_opener
from .world import World

FILE = "world.pickle"
LOCK = "lock"
# The names of files that are still being written start with this prefix.
NEW = f".{FILE}."
# The version of the file format. A file of another version is refused.
FORMAT = 6


class StateProblem(Exception):
    """The directory is in use, or its contents cannot be trusted or read."""


@dataclass
class State:
    world: World
    # The pickled world that a reset restores.
    beginning: bytes


@contextlib.contextmanager
def locked(path: Path) -> Iterator[Path]:
    """Lock a state directory for this sandbox. Yields the path without symbolic links, because another user could
    redirect a link to another directory in the meantime. Raises StateProblem."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory = path.resolve()
    # Loading a pickle can run code, and clients trust the CA, so no other user may have been able to write the files.
    _require_own(directory, "directory")
    for name in (FILE, CERTIFICATE, PRIVATE_KEY, LOCK):
        _require_own(directory / name, "file")
    with open(directory / LOCK, "w", opener=private_opener) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StateProblem(f"{directory} is in use by another sandbox") from error
        # A sandbox that was killed may have left unfinished files.
        for left in directory.glob(f"{NEW}*"):
            left.unlink()
        yield directory


def _require_own(path: Path, kind: str) -> None:
    """Check that no other user could have written the file or directory. Raises StateProblem."""
    if not os.path.lexists(path):
        return
    if path.is_symlink():
        raise StateProblem(f"The {kind} {path} is a symbolic link; replace it by the {kind} that it points to")
    facts = path.stat()
    if facts.st_uid != os.getuid():
        raise StateProblem(f"The {kind} {path} belongs to the user with the id {facts.st_uid}; use one of your own")
    if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        remedy = f"if you trust what is in it, run: chmod go-w {shlex.quote(str(path))}"
        raise StateProblem(f"Others can write the {kind} {path}; {remedy}")


def load(directory: Path) -> State | None:
    path = directory / FILE
    if not path.exists():
        return None
    try:
        saved = pickle.loads(path.read_bytes())
        if saved["format"] != FORMAT:
            raise StateProblem(
                f"{path} was saved by another version of azure-sandbox; remove it to start with a new state"
            )
        return State(saved["world"], saved["beginning"])
    except (pickle.UnpicklingError, AttributeError, EOFError, ImportError, KeyError, TypeError) as error:
        raise StateProblem(f"{path} can't be read ({error}); remove it to start with a new state") from error


@contextlib.contextmanager
def replaced(directory: Path) -> Iterator[int]:
    """Yields the descriptor of a new file for `write`. The new file then replaces the state file as a whole."""
    # mkstemp creates the file with mode 0600.
    descriptor, name = tempfile.mkstemp(prefix=NEW, dir=directory)
    try:
        try:
            yield descriptor
        finally:
            os.close(descriptor)
        os.replace(name, directory / FILE)
    except BaseException:
        os.unlink(name)
        raise


def write(descriptor: int, state: State) -> None:
    content = pickle.dumps({"format": FORMAT, "world": state.world, "beginning": state.beginning})
    with os.fdopen(descriptor, "wb", closefd=False) as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
