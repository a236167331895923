# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rows of Resource Graph: of the resources that the sandbox has, and of those that tests have added."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from ..authorization.rules import Authorization
from ..batch import documents as batch
from ..batch.rules import BatchAccounts
from ..key_vault import documents as key_vault
from ..key_vault.rules import Vaults
from ..managed_identity.rules import TYPE as IDENTITY
from ..managed_identity.rules import Identities
from ..resource_manager.rules import Resources, Subscription
from ..shared import world as shared
from ..shared.resource import tidy_location
from .query import COLUMNS, Row

# Types with keys in Key Vault that no table has.
INVISIBLE = frozenset(
    {
        "microsoft.sql/servers/encryptionprotector",
        "microsoft.sql/servers/keys",
        "microsoft.sql/managedinstances/encryptionprotector",
        "microsoft.sql/managedinstances/keys",
        "microsoft.storage/storageaccounts/encryptionscopes",
        "microsoft.keyvault/vaults/keys",
    }
)


class World(shared.World, Protocol):
    """The parts of other services that Resource Graph needs."""

    authorization: Authorization
    batch: BatchAccounts
    identities: Identities
    resources: Resources
    vaults: Vaults


def row(subscription: Subscription, document: dict[str, Any]) -> Row:
    """The row of a resource, from its document in Resource Manager, with a normalized type, location and group."""
    parts = document["id"].split("/")
    found: Row = {
        **{name: None if kind == "object" else "" for name, kind in COLUMNS.items()},
        **{name: value for name, value in document.items() if name in COLUMNS},
        "tenantId": subscription.tenant_id,
        "subscriptionId": subscription.id,
        "resourceGroup": parts[4].lower() if len(parts) > 4 else "",
    }
    return {**found, "type": found["type"].lower(), "location": tidy_location(found["location"])}


def resources(world: World, subscription: Subscription) -> Iterator[Row]:
    for account in world.batch.in_graph(subscription.id):
        document = batch.account_document(account, world.batch.state(account), batch.NEWEST)
        yield row(subscription, document)
    for vault in world.vaults.in_graph(subscription.id):
        yield row(subscription, key_vault.vault(vault, registering=world.vaults.is_registering(vault)))
    for one in world.identities.list(subscription.id):
        described = {"id": one.id, "name": one.name, "type": IDENTITY, "location": one.location, "tags": one.tags}
        yield row(subscription, {**described, "properties": world.identities.properties(one.id)})
