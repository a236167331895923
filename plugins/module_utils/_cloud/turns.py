# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Locks that the tasks of a run share.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from .._errors import CmkError, Refused
from .run_files import RunFiles


def turn(files: RunFiles, vault: str) -> AbstractContextManager[None]:
    """While the other tasks of the run wait that change the same vault, its keys or who may use them."""
    return files.locked("turn", vault.lower())


@contextmanager
def refused_lately(files: RunFiles, *name: str) -> Iterator[None]:
    """Alone at what has that name. If it was refused for as many users, refuse it without a look until as many tasks
    have come by; if it was refused for a time, for the rest of the run."""
    with files.locked(*name):
        kept = files.load(*name, "refused") or {}
        if kept.get("users", 0) > 1:
            files.store({"users": kept["users"] - 1}, *name, "refused")
            raise Refused("It is still in use.", code="in_use", accounts=[])
        if "until" in kept:
            raise Refused("Its grace time is not over.", code="in_grace", kept_until=kept["until"])
        try:
            yield
        except CmkError as failure:
            if failure.code == "in_use":
                files.store({"users": len(failure.facts["accounts"])}, *name, "refused")
            elif failure.code == "in_grace":
                files.store({"until": failure.facts["kept_until"]}, *name, "refused")
            raise
