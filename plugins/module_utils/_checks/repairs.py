# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which of the causes that the role recover has found so far (`causes_so_far`) are repaired.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .._core.errors import CmkError

# In the order of the repairs. These causes are repaired before a check.
_BEFORE_A_CHECK = ("vault_deleted", "network_closed", "key_deleted")
# And these after the last check.
_LAST = ("version_unusable", "operations_missing", "access_missing")
_IN_ORDER = (*_BEFORE_A_CHECK, *_LAST)


def is_after_repair(causes_so_far: Sequence[str]) -> bool:
    """Whether a cause that earlier checks of a run found has been repaired."""
    return not set(causes_so_far).issubset(_LAST)


def repaired_text(causes: Sequence[str], *, is_planned: bool) -> str:
    """Say which causes earlier tasks of the role recover have repaired, for a failure of a later task."""
    return f"Before that, the run {'would have' if is_planned else 'has'} repaired: {', '.join(causes)}."


@contextmanager
def naming_repairs(causes_so_far: Sequence[str], repairs: str | None, *, is_planned: bool) -> Iterator[None]:
    """If the task fails, add to the message which of the causes earlier tasks of the role recover have repaired.
    `repairs` is the first cause that this task repairs; None if all causes have been repaired before."""
    earlier = _IN_ORDER[: _IN_ORDER.index(repairs)] if repairs else _IN_ORDER
    repaired = [cause for cause in causes_so_far if cause in earlier]
    try:
        yield
    except CmkError as failure:
        if repaired:
            failure.msg += f" {repaired_text(repaired, is_planned=is_planned)}"
        raise
