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
from . import sdk
from .session import Session


class Identities:
    def __init__(self, session: Session) -> None:
        self._session = session

    def listed(self, subscription: str) -> dict[str, str]:
        """The object ids of a subscription's identities, by their resource ids in lower case."""
        client = self._session.client("azure-mgmt-msi", "ManagedServiceIdentityClient", subscription)
        with sdk.translated(f"list the user-assigned identities of the subscription {subscription}"):
            listed = sdk.documents(client.user_assigned_identities.list_by_subscription)
        return {identity["id"].lower(): identity["properties"]["principalId"] for identity in listed}

    def get(self, identity_id: UserAssignedId) -> ManagedIdentity:
        client = self._session.client("azure-mgmt-msi", "ManagedServiceIdentityClient", identity_id.subscription)
        with sdk.translated(f"read the user-assigned identity {identity_id.name}"):
            get = client.user_assigned_identities.get
            identity: ManagedIdentity | None = sdk.document_or_none(get, identity_id.group, identity_id.name)
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
        """The object id of a user-assigned identity; None if there is no such identity."""
        try:
            return self.get(parse_user_assigned_id(resource_id, "identity_id"))["properties"]["principalId"]
        except NotFound:
            return None
