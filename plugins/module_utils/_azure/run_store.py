# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Values that the tasks of a run share: tokens, cached reads, and rate limits.

Ansible runs each task of each host in a separate process, so the values are in files. If a value cannot be written
or read (the disk is full, the folder is read-only or was removed), a task reads from Azure. It writes nothing, because
locks need the folder (`require_usable`).

This module util is private to the collection.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import stat
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any

from .._core.errors import Refused

# The names of the files of this module, and of the folder that Ansible creates for a run: its process id and eight
# random characters.
_OURS = re.compile(r"[0-9a-f]{64}\.(?:json|note|lock|[0-9]+-[0-9]+)")
_RUN = re.compile(r"ansible-local-([0-9]+)[a-z0-9_]{8}")
_POLL_SECONDS = 0.05
_PREDICTIONS = ("predictions",)


class RunFiles:
    """JSON values by name, in the run's own temporary directory (mode 0700, removed when the run ends).

    Without such a directory they are kept in this process. Each value has its own file, mode 0600, named by a hash.
    """

    def __init__(self, folder: str | None, *prefix: str) -> None:
        self._folder = Path(folder) if folder else None
        # The first part of the name of each value and lock.
        self._prefix = prefix
        self._kept: dict[str, Any] = {}

    def for_predictions(self) -> RunFiles:
        """The values and locks of the tasks in check mode, separate from those of all other tasks."""
        number = self.load(*_PREDICTIONS)
        if number is None:
            number = 1
            self.store(number, *_PREDICTIONS)
        return RunFiles(str(self._folder) if self._folder else None, "predictions", str(number))

    def end_predictions(self) -> None:
        """Called if a task outside check mode has changed something or has failed. The predicted changes of tasks
        in check mode are then out of date, so the next task in check mode begins without them."""
        number = self.load(*_PREDICTIONS)
        if number is not None:
            self.store(number + 1, *_PREDICTIONS)

    @contextlib.contextmanager
    def locked(self, *name: str) -> Iterator[bool]:
        """Hold a lock. One task of the run holds it at a time; the others wait. Yields whether this task may have
        waited."""
        if self._folder is None:
            yield True
            return
        path, may_have_waited = self._folder / f"{self._hash(name)}.lock", False
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                lock = stack.enter_context(open(path, "w", opener=_private))
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    may_have_waited = True
                    fcntl.flock(lock, fcntl.LOCK_EX)
            yield may_have_waited

    @property
    def run(self) -> str | None:
        """A name of the run, the same for all its tasks: Ansible creates a folder for each run."""
        return None if self._folder is None else self._folder.name

    def require_usable(self) -> None:
        """Raise an error if the folder cannot be written to. Called before the first write of a task."""
        if not self.store(True, "usable"):
            remedy = "Repair it (local_tmp in ansible.cfg), and run the playbook again."
            raise Refused(
                "Ansible's temporary folder is full, read-only or was removed. This task changed nothing. " + remedy,
                details=str(self._folder),
                code="temporary_folder_unusable",
                remedy=remedy,
                is_of_account=False,
            )

    def load(self, *name: str, is_note: bool = False) -> Any:
        """The value; None if there is none.

        Values in a folder that cannot be written to are ignored, because they may be out of date. A note is never out
        of date.
        """
        if self._folder is None:
            return self._kept.get(self._hash(name))
        if is_note or os.access(self._folder, os.W_OK | os.X_OK):
            with contextlib.suppress(OSError, ValueError):
                return json.loads(self._file(self._folder, name, is_note=is_note).read_text())
        return None

    def store(self, value: Any, *name: str, is_note: bool = False) -> bool:
        """Keep the value. Returns False if the value cannot be stored. A note says that something is still to do. It
        stays if another value cannot be stored."""
        if self._folder is None:
            self._kept[self._hash(name)] = value
            return True
        file = self._file(self._folder, name, is_note=is_note)
        # The file is replaced atomically, so a task that reads without the lock never reads a part of the value.
        part = file.with_suffix(f".{os.getpid()}-{threading.get_native_id()}")
        try:
            with open(part, "w", opener=_private) as written:
                # Not `json.dump`, which does not use the faster encoder in C.
                written.write(json.dumps(value))
            part.replace(file)
        except OSError:
            # The value may have made other values out of date. They can be removed even if the disk is full.
            with contextlib.suppress(OSError):
                for stored in (part, *self._folder.glob("*.json")):
                    stored.unlink(missing_ok=True)
            return False
        return True

    def first(self, value: Any, *name: str) -> Any:
        """The value that a task of the run has stored first under this name, which is `value` if there is none."""
        kept = self.load(*name)
        if kept is None:
            with self.locked(*name):
                kept = self.load(*name)
                if kept is None:
                    self.store(value, *name)
                    return value
        return kept

    def _file(self, folder: Path, name: tuple[str, ...], *, is_note: bool) -> Path:
        return folder / f"{self._hash(name)}.{'note' if is_note else 'json'}"

    def _hash(self, name: tuple[str, ...]) -> str:
        return _hash((*self._prefix, *name))


@cache
def begin_run(folder: str) -> None:
    """Mark the run's folder as in use, and remove the files, such as tokens, that killed runs have left in the
    folders beside it.

    A run has ended if its process has ended and no process holds the mark. The process id alone is not enough: if the
    main process is killed, a worker process still completes its task, and process ids of another container differ.
    """
    with contextlib.suppress(OSError):
        # The descriptor stays open until this process and the workers that it forks have ended.
        fcntl.flock(_open_folder(folder), fcntl.LOCK_SH)
    with contextlib.suppress(OSError):
        for other in Path(folder).parent.iterdir():
            run = _RUN.fullmatch(other.name)
            if run and other != Path(folder) and not _is_alive(int(run[1])):
                with contextlib.suppress(OSError):
                    _remove_files(str(other))


def _is_alive(process: int) -> bool:
    """Whether another process of this user has this id."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, PermissionError, OverflowError):
        return False
    return process != os.getpid()


def _remove_files(folder: str) -> None:
    descriptor = _open_folder(folder)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for name in os.listdir(descriptor):
            if _OURS.fullmatch(name) and stat.S_ISREG(os.lstat(name, dir_fd=descriptor).st_mode):
                os.unlink(name, dir_fd=descriptor)
    finally:
        os.close(descriptor)


def _open_folder(folder: str) -> int:
    """A descriptor of the folder. Raises an error if the folder is a symbolic link or belongs to another user."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    if os.fstat(descriptor).st_uid != os.geteuid():
        os.close(descriptor)
        raise PermissionError(folder)
    return descriptor


@cache
def _hash(name: tuple[str, ...]) -> str:
    return hashlib.sha256("\n".join(name).encode()).hexdigest()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def vault_lock(files: RunFiles, vault: str) -> AbstractContextManager[bool]:
    """A lock that is held while a task changes the vault, its keys or the access to them (`RunFiles.locked`)."""
    return files.locked("turn", vault.lower())
