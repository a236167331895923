# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the client reads of an account's encryption setting.

This module util is private to the collection.
"""

from __future__ import annotations

from typing import TypedDict

from ..._checks.preflight import Evidence
from ..._core.documents import Account
from ..._core.errors import CmkError


class Observed(TypedDict, total=False):
    """For the plan. Without `expires_soon` and `may_be_stale`, both are false."""

    account: Account | None
    # Why the account is not available, or why that is not known.
    unavailable_reason: CmkError | None
    # Whether the version that the account would keep expires soon.
    expires_soon: bool
    # Whether the read of the account may be older than a write of the run.
    may_be_stale: bool
    evidence: Evidence
