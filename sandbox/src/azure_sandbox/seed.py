# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Creates the initial world of a sandbox, and adds tenants and subscriptions."""

from __future__ import annotations

import math

from .batch.account_settings import AccountSettings, EncryptionSettings, IdentitySettings
from .entra.rules import Principal
from .environment import Operator
from .key_vault.rules import Order
from .key_vault.vault import RBAC_BY_DEFAULT_SINCE
from .key_vault_keys import documents, material
from .key_vault_keys.key import KeySettings
from .key_vault_keys.request import OPERATIONS
from .resource_manager.rules import ResourceGroup
from .shared import clouds
from .shared.behavior import DEFAULT, Behavior
from .shared.timing import QUICK, Timing
from .world import World

LOCATION = "westeurope"
RESOURCE_GROUP = "rg-sandbox"
SECRET_SECONDS = 2 * 365 * 86400
ROLES = ("Owner", "Key Vault Crypto Officer")
PER_SUBSCRIPTION = 1000
KEY = "batch-cmk"
IDENTITY = "id-sandbox"


def new_world(
    timing: Timing = QUICK,
    accounts: int = 0,
    *,
    on_key: bool = False,
    one_subscription: bool = False,
    behavior: Behavior = DEFAULT,
) -> World:
    world = World(timing, behavior)
    world.operator = operator = _operator(world, world.directory.tenant_id, "Sandbox (not Azure)")
    group_id = f"/subscriptions/{operator.subscription_id}/resourceGroups/{operator.resource_group}"
    operator.machine_resource_id = f"{group_id}/providers/Microsoft.Compute/virtualMachines/sandbox-machine"
    machine = world.directory.add_principal(
        operator.tenant_id, "sandbox-machine", "ManagedIdentity", operator.machine_resource_id
    )
    operator.machine_object_id = machine.object_id
    _grant(world, operator.subscription_id, machine)
    per_subscription = max(accounts, 1) if one_subscription else PER_SUBSCRIPTION
    for number in range(2, math.ceil(accounts / per_subscription) + 1):
        add_subscription(world, f"Sandbox {number} (not Azure)", operator.object_id)
    subscriptions = [subscription.id for subscription in world.resources.subscriptions()] if on_key else []
    settings = {id_: _on_key(world, id_, f"kv-sandbox-{number}") for number, id_ in enumerate(subscriptions, 1)}
    world.batch.seed(accounts, per_subscription, settings)
    return world


def _on_key(world: World, subscription: str, vault_name: str) -> AccountSettings:
    """Create the vault, key and identity that accounts of a subscription share. Returns the settings of an account."""
    tenant_id = world.resources.tenant_of(subscription)
    properties = {"tenantId": tenant_id, "sku": {"family": "A", "name": "standard"}, "enablePurgeProtection": True}
    body = {"location": LOCATION, "properties": properties}
    place, by = (subscription, RESOURCE_GROUP), world.operator.object_id
    order = Order(*place, vault_name, body, RBAC_BY_DEFAULT_SINCE, clouds.PUBLIC.vault_suffix, by)
    vault, _ = world.vaults.put(order)
    # The vault counts as an old one, whose name is already in the DNS.
    vault.dns_ready_at = vault.name_resolves_at = 0
    identity, _ = world.identities.put(*place, IDENTITY, LOCATION, {}, None)
    world.authorization.assign(vault.id, "Key Vault Crypto Service Encryption User", identity.principal_id)
    private_key = material.generate("RSA", 2048, None)
    made = world.keys.import_key(vault, KEY, KeySettings("RSA", key_ops=OPERATIONS["RSA"]), private_key)
    key_identifier = documents.kid(vault, *made)
    return AccountSettings(
        identity=IdentitySettings("UserAssigned", {identity.id: True}), encryption=EncryptionSettings(key_identifier)
    )


def add_subscription(world: World, name: str, object_id: str) -> ResourceGroup:
    """Add a subscription in a principal's tenant, and assign ROLES to the principal. Returns the resource group."""
    holder = world.directory.principal(object_id)
    assert holder is not None
    subscription = world.resources.add_subscription(holder.tenant_id, name)
    _grant(world, subscription.id, holder)
    group, _ = world.resources.put_group(subscription, RESOURCE_GROUP, LOCATION)
    return group


def _operator(world: World, tenant_id: str, subscription_name: str) -> Operator:
    principal = world.directory.add_principal(tenant_id, "operator")
    group = add_subscription(world, subscription_name, principal.object_id)
    return Operator(
        tenant_id=tenant_id,
        client_id=principal.app_id,
        secret=world.directory.add_secret(principal, SECRET_SECONDS),
        object_id=principal.object_id,
        subscription_id=group.subscription,
        resource_group=group.name,
        location=LOCATION,
    )


def _grant(world: World, subscription_id: str, holder: Principal) -> None:
    for role in ROLES:
        world.authorization.assign(f"/subscriptions/{subscription_id}", role, holder.object_id)
