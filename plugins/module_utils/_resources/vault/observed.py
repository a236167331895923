# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the client reads of a vault for its plan.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from ..._checks import usage
from ..._core.documents import DeletedVault, Vault


class Observed(TypedDict, total=False):
    vault: Vault | None
    deleted: DeletedVault | None
    visible: usage.Visible
    # If the vault is missing: the regions that have vaults, the resource group if its location is needed, and the
    # ids of the caller.
    regions: Sequence[str] | None
    group: Mapping[str, Any]
    caller: Mapping[str, str]
    # After the creation: the ids of the accounts whose access was granted again, and of those that still lack it.
    restored: Sequence[str]
    without_access: Sequence[str]
