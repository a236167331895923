# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the client reads of an account for its plan.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from ..._checks.preflight import Evidence
from ..._core.documents import Account


class Observed(TypedDict, total=False):
    account: Account | None
    # The location of the account if this task may have created it.
    created_in: str | None
    creation_failed: bool
    # If the account is missing: the regions that have accounts, and the resource group if its location is needed.
    regions: Sequence[str] | None
    group: Mapping[str, Any]
    # On the key of an account that is to be created.
    evidence: Evidence
    # The same, read after this task has set the key.
    confirmed: Evidence | None
