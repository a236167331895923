# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""User-assigned identities. Each has a principal in the directory for as long as the identity exists."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..entra.rules import Directory
from ..resource_manager.rules import Resource, Resources
from ..shared import world as shared
from ..shared.errors import other_location, resource_not_found
from ..shared.resource import tidy_location
from ..shared.web import AzureError

TYPE = "Microsoft.ManagedIdentity/userAssignedIdentities"


@dataclass
class UserAssignedIdentity:
    id: str
    subscription: str
    group: str
    name: str
    location: str
    tags: dict[str, str]
    principal_id: str
    client_id: str
    tenant_id: str
    isolation_scope: str | None = None


class World(shared.World, Protocol):
    """The parts of other services that user-assigned identities need."""

    directory: Directory
    resources: Resources


@dataclass
class Identities:
    world: World
    _by_id: dict[str, UserAssignedIdentity] = field(default_factory=dict)

    def get(self, resource_id: str) -> UserAssignedIdentity | None:
        return self._by_id.get(resource_id.lower())

    def list(self, subscription: str, group: str | None = None) -> Iterator[UserAssignedIdentity]:
        for identity in self._by_id.values():
            if identity.subscription.lower() == subscription.lower() and (
                group is None or identity.group.lower() == group.lower()
            ):
                yield identity

    def contents(self, subscription: str) -> Iterator[Resource]:
        for one in self.list(subscription):
            yield Resource(one.id, one.name, TYPE, one.location, one.tags)

    def properties(self, resource_id: str) -> dict[str, Any] | None:
        one = self.get(resource_id)
        if one is None:
            return None
        return {"tenantId": one.tenant_id, "principalId": one.principal_id, "clientId": one.client_id}

    def drop(self, resource: Resource) -> None:
        self.delete(resource.id)

    def put(
        self,
        subscription: str,
        group: str,
        name: str,
        location: str,
        tags: dict[str, str],
        isolation_scope: str | None,
    ) -> tuple[UserAssignedIdentity, bool]:
        """Create or update an identity. Returns the identity, and whether it is new. Raises AzureError."""
        resource_id = identity_id(subscription, group, name)
        identity, location = self.get(resource_id), tidy_location(location)
        if identity is not None:
            if identity.location != location:
                raise other_location(name, identity.location, group, location)
            identity.tags = dict(tags)
            return identity, False
        tenant_id = self.world.resources.tenant_of(subscription)
        principal = self.world.directory.add_principal(tenant_id, name, "ManagedIdentity", resource_id)
        identity = UserAssignedIdentity(
            resource_id,
            subscription,
            group,
            name,
            location,
            dict(tags),
            principal.object_id,
            principal.app_id,
            tenant_id,
            isolation_scope,
        )
        self._by_id[resource_id.lower()] = identity
        return identity, True

    def tag(self, identity: UserAssignedIdentity, tags: dict[str, str]) -> None:
        identity.tags = dict(tags)

    def delete(self, resource_id: str) -> bool:
        identity = self._by_id.pop(resource_id.lower(), None)
        if identity is None:
            return False
        self.world.directory.remove_principal(identity.principal_id)
        return True


def identity_id(subscription: str, group: str, name: str) -> str:
    """The service writes `resourcegroups` in lower case, whatever the request had."""
    return f"/subscriptions/{subscription}/resourcegroups/{group}/providers/{TYPE}/{name}"


# Errors


def identity_not_found(name: str, group: str) -> AzureError:
    return resource_not_found("Microsoft.ManagedIdentity/userAssignedIdentities", name, group)
