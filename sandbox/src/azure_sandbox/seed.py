# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The world as it is in the beginning."""

from __future__ import annotations

from .operators import Operator
from .timing import QUICK, Timing
from .world import World

LOCATION = "westeurope"
RESOURCE_GROUP = "rg-sandbox"
SECRET_SECONDS = 2 * 365 * 86400
ROLES = ("Owner", "Key Vault Crypto Officer")


def new_world(timing: Timing = QUICK, accounts: int = 0) -> World:
    world = World(timing)
    subscription = world.resources.add_subscription("Sandbox (not Azure)")
    group, _ = world.resources.put_group(subscription, RESOURCE_GROUP, LOCATION)
    principal = world.directory.add_principal("operator")
    machine_id = f"{group.id}/providers/Microsoft.Compute/virtualMachines/sandbox-machine"
    machine = world.directory.add_principal("sandbox-machine", "ManagedIdentity", machine_id)
    for holder in (principal, machine):
        for role in ROLES:
            world.authorization.assign(f"/subscriptions/{subscription.id}", role, holder.object_id)
    world.operator = Operator(
        tenant_id=world.directory.tenant_id,
        client_id=principal.app_id,
        secret=world.directory.add_secret(principal, SECRET_SECONDS),
        object_id=principal.object_id,
        subscription_id=subscription.id,
        resource_group=group.name,
        location=LOCATION,
        machine_object_id=machine.object_id,
        machine_resource_id=machine_id,
    )
    if accounts:
        world.batch.seed(accounts)
    return world
