# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads that do not wait for each other: an answer takes Azure far longer than it takes us.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from .._errors import CmkError, Denied, NotFound, Unavailable

T = TypeVar("T")
R = TypeVar("R")
_AT_ONCE = 8


def each(read: Callable[[T], R], of: Iterable[T]) -> dict[T, R]:
    """What is read of each."""
    wanted = list(of)
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return dict(zip(wanted, threads.map(read, wanted), strict=True))


def or_reason(read: Callable[[], Any], *more: type[CmkError]) -> Any:
    """What is read, or the error that says why it could not be: the caller may not, nobody answers, or what more there
    is."""
    reasons: tuple[type[CmkError], ...] = (Denied, NotFound, Unavailable, *more)
    try:
        return read()
    except reasons as reason:
        return reason
