# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""User-assigned managed identities.

This module util is private to the collection.
"""

from __future__ import annotations

from .._core.documents import ManagedIdentity
from .._core.errors import NotFound
from .._core.ids import UserAssignedId, parse_user_assigned_id
from .cache import JUST_NOW, RECENTLY, NotBefore
from .gateway import Gateway
from .session import Session


class Identities:
    def __init__(self, session: Session, gateway: Gateway) -> None:
        self._session = session
        self._gateway = gateway

    def listed(self, subscription: str) -> dict[str, str]:
        """The object ids of a subscription's identities, by their resource ids in lower case."""
        what = f"list the user-assigned identities of the subscription {subscription}"
        listed = self._gateway.list(
            what, f"/subscriptions/{subscription}/providers/Microsoft.ManagedIdentity/userAssignedIdentities"
        )
        return {identity["id"].lower(): identity["properties"]["principalId"] for identity in listed}

    def get(self, identity_id: UserAssignedId, not_before: NotBefore = JUST_NOW) -> ManagedIdentity:
        what = f"read the user-assigned identity {identity_id.name}"
        ref = str(identity_id)
        identity: ManagedIdentity | None = self._session.cache.get(
            lambda: self._gateway.find(what, ref), "identity", ref.lower(), not_before=not_before
        )
        if identity is None:
            raise NotFound(
                f"There is no user-assigned identity {identity_id}. Create it, or correct identity_id.",
                code="identity_not_found",
                option="identity_id",
                value=str(identity_id),
                remedy="Create the identity, or correct identity_id.",
            )
        return identity

    def principal_id(self, resource_id: str) -> str | None:
        """The object id of a user-assigned identity, which another task of the run may have read a moment ago; None if
        there is no such identity."""
        identity = parse_user_assigned_id(resource_id, "identity_id")
        try:
            return self.get(identity, RECENTLY)["properties"]["principalId"]
        except NotFound:
            return None
