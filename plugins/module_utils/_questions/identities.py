# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""User-assigned identities. Pure: asks for documents.

This module util is private to the collection.
"""

from __future__ import annotations

from .._core.docs import Docs
from .._core.errors import NotFound
from .._core.ids import UserAssignedId
from .._documents import refs
from .._documents.identity import ManagedIdentity


def get(docs: Docs, identity_id: UserAssignedId) -> ManagedIdentity:
    identity = docs.get(refs.identity(identity_id))
    if identity is None:
        raise NotFound(
            f"There is no user-assigned identity {identity_id.name} in the resource group {identity_id.group}. Create "
            "it, or correct O(identity_id).",
            code="identity_not_found",
            option="identity_id",
            value=str(identity_id),
            remedy="Create the identity, or correct O(identity_id).",
        )
    return identity
