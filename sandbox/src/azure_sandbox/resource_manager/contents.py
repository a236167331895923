# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What lies in resource groups: the resources of all providers, as Resource Manager's own lists show them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..world import World

BATCH = "Microsoft.Batch/batchAccounts"
VAULT = "Microsoft.KeyVault/vaults"
IDENTITY = "Microsoft.ManagedIdentity/userAssignedIdentities"


@dataclass(frozen=True)
class Resource:
    id: str
    name: str
    type: str
    location: str
    tags: dict[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "type": self.type,
            "location": self.location,
            "tags": self.tags,
        }


def resources(world: World, subscription: str) -> Iterator[Resource]:
    for account in world.batch.all():
        if account.subscription.lower() == subscription.lower():
            yield Resource(account.id, account.name, BATCH, account.location, account.tags or {})
    for vault in world.vaults.list(subscription):
        yield Resource(vault.id, vault.name, VAULT, vault.location, vault.tags)
    for identity in world.identities.list(subscription):
        yield Resource(identity.id, identity.name, IDENTITY, identity.location, identity.tags)


def delete(world: World, resource: Resource) -> None:
    """With its group: vaults stay recoverable, as they do at Azure."""
    if resource.type == BATCH:
        world.batch.remove(resource.id)
    elif resource.type == IDENTITY:
        world.identities.delete(resource.id)
    elif (vault := world.vaults.by_name(resource.name)) is not None:
        world.vaults.delete(vault)
