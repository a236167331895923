# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Saves the world of a sandbox to disk, so that a later start can load it."""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
import pickle
import pwd
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
FORMAT = 11


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
    directory = path.resolve()
    # Loading a pickle can run code, and clients trust the CA, so no other user may have been able to write the files or
    # to replace the directory.
    for parent in reversed(directory.parents):
        _make(parent)
        _require_own_entries(parent)
    _make(directory)
    _require_own(directory, "directory")
    for name in (FILE, CERTIFICATE, PRIVATE_KEY, LOCK):
        _require_own(directory / name, "file")
    _require_private(directory / FILE, "state")
    _require_private(directory / PRIVATE_KEY, "certificate authority")
    with open(directory / LOCK, "w", opener=private_opener) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StateProblem(f"{directory} is in use by another sandbox") from error
        # A sandbox that was killed may have left unfinished files.
        for left in directory.glob(f"{NEW}*"):
            left.unlink()
        yield directory


def _make(directory: Path) -> None:
    # Path.mkdir gives parents the mode that the umask leaves.
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)


def _require_own_entries(parent: Path) -> None:
    """Check that no other user can rename files of this user in a directory. Raises StateProblem."""
    facts = parent.stat()
    if facts.st_uid not in (0, os.getuid()):
        raise StateProblem(
            f"The directory {parent} belongs to the user with the id {facts.st_uid}, who can replace the state "
            f"directory in it; use a state directory in a directory that belongs to you"
        )
    if facts.st_mode & stat.S_ISVTX:
        return
    by_group = facts.st_mode & stat.S_IWGRP and not _is_private_group(facts.st_gid)
    if by_group or facts.st_mode & stat.S_IWOTH:
        remedy = "use a state directory in a directory that belongs to you"
        if facts.st_uid == os.getuid():
            remedy = f"run: chmod go-w {shlex.quote(str(parent))}"
        raise StateProblem(f"Others can write the directory {parent}, and replace the state directory in it; {remedy}")


def _is_private_group(group_id: int) -> bool:
    """Whether this user is the only member of a group. Many systems give each user such a group with the user's name,
    and make new directories writable for it."""
    try:
        user, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(group_id)
    except KeyError:
        return False
    return group.gr_name == user and set(group.gr_mem) <= {user}


def _require_own(path: Path, kind: str) -> None:
    """Check that no other user could have written the file or directory. Raises StateProblem."""
    if not os.path.lexists(path):
        return
    if path.is_symlink():
        raise StateProblem(f"The {kind} {path} is a symbolic link; replace the link by the {kind}")
    facts = path.stat()
    if facts.st_uid != os.getuid():
        raise StateProblem(f"The {kind} {path} belongs to the user with the id {facts.st_uid}; use your own {kind}")
    if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        remedy = f"if you trust its contents, run: chmod go-w {shlex.quote(str(path))}"
        raise StateProblem(f"Others can write the {kind} {path}; {remedy}")


def _require_private(path: Path, content: str) -> None:
    """Check that no other user can read a file with private keys. Raises StateProblem."""
    if path.exists() and path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        remedy = f"remove it to start with a new {content}, or, if nobody has read it, run: chmod go-r"
        raise StateProblem(
            f"Others can read the file {path}, which has private keys; {remedy} {shlex.quote(str(path))}"
        )


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
