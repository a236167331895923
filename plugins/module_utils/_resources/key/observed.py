# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the client reads of a key for its plan.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from ..._checks import usage
from ..._core.documents import KeyBundle, KeyItem, RotationPolicy, Vault
from ..._core.ids import KeyIdentifier


class Observed(TypedDict, total=False):
    identifier: KeyIdentifier
    # The newest version, or the version that the goal takes as the newest.
    key: KeyBundle | None
    # The version that the goal names.
    named: KeyBundle | None
    # None if the caller may not list them.
    versions: Sequence[KeyItem] | None
    policy: RotationPolicy | None
    deleted: KeyBundle | None
    # The vault of a key of an HSM that is to be created.
    vault: Vault | None
    # Who may use the key, if something may be taken away.
    visible: usage.Visible
    times: usage.Times
    # By Key Vault's clock, in seconds since 1970.
    now: float
