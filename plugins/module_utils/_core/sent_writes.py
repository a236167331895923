# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The writes that a task has sent.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class SentWrites:
    accepted: int = 0
    # Writes that may have taken effect, although Azure has sent no response, or a server error.
    in_doubt: int = 0
    # Whether an interrupt has ended the wait for a response. The write may still take effect.
    is_abandoned: bool = False

    @property
    def may_have_changed(self) -> bool:
        return self.accepted + self.in_doubt > 0

    def send(self, send: Callable[[], Any]) -> Any:
        """Call `send`, which returns the response of azure-core's pipeline."""
        self.in_doubt += 1
        try:
            response = send()
        except BaseException as ended:
            self.is_abandoned |= not isinstance(ended, Exception)
            raise
        status = response.http_response.status_code
        if status < 500:
            self.in_doubt -= 1
        if status < 400:
            self.accepted += 1
        return response
