# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the client reads of a principal's access for its plan.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from ..._checks import usage
from ..._core.documents import RoleAssignment, RoleDefinitionProperties, Vault


class Observed(TypedDict, total=False):
    vault: Vault | None
    principal_id: str
    assignments: Sequence[RoleAssignment]
    # By the GUID of the role.
    definitions: Mapping[str, RoleDefinitionProperties]
    # Before access is revoked: the accounts that may use it, and when they were changed. `now` is by Azure's clock.
    visible: usage.Visible
    times: usage.Times
    now: float
