# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lines that show what a task is waiting for.

This module util is private to the collection.
"""

from __future__ import annotations

from .errors import CmkError, Unavailable


class WaitingLines:
    """Lines such as `Waiting for Azure to show the change (40 of 600 s)`.

    A line has the reason if the previous line had a different reason or none.
    """

    def __init__(self, waiting_for: str, seconds: float) -> None:
        self._waiting_for = waiting_for
        self._seconds = seconds
        self._reason = ""

    def line(self, elapsed: float, complaint: CmkError) -> str:
        reason, previous = _reason(complaint), self._reason
        self._reason = reason
        line = f"Waiting for {self._waiting_for} ({elapsed:.0f} of {self._seconds:.0f} s)"
        return f"{line}. {reason}" if reason and reason != previous else line


def _reason(complaint: CmkError) -> str:
    """The reason of the wait: Azure's message, or that of an Unavailable error. Other messages describe the end of
    the wait."""
    azure = complaint.facts.get("azure")
    if azure:
        return f"Azure reports: ({azure['code']}) {azure['message']}"
    return complaint.msg if isinstance(complaint, Unavailable) else ""
