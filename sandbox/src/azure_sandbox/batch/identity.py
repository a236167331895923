# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The identity of an account, and the removal of its previous identity."""

from __future__ import annotations

from . import errors
from .account import Account, AssignedIdentity, Identity
from .account_settings import IdentitySettings
from .world import World


def wanted(world: World, account: Account, settings: IdentitySettings | None) -> Identity:
    """The identity of the account after the request. A new system-assigned identity is added to the directory. With the
    switch `identities_on_put` set to `merged`, the account keeps its user-assigned identities."""
    if settings is None or (settings.type == account.identity.type and settings.type != "UserAssigned"):
        return account.identity
    if settings.type == "None":
        return Identity()
    if settings.type == "SystemAssigned":
        tenant_id = world.resources.tenant_of(account.subscription)
        principal = world.directory.add_principal(tenant_id, account.name, "ManagedIdentity", account.id)
        return Identity("SystemAssigned", principal.object_id, principal.tenant_id)
    is_replaced = world.behavior.identities_on_put == "replaced"
    kept = {} if is_replaced else account.identity.user_assigned
    return Identity("UserAssigned", user_assigned=user_assigned(world, account, settings, kept))


def user_assigned(
    world: World, account: Account, settings: IdentitySettings, kept: dict[str, AssignedIdentity]
) -> dict[str, AssignedIdentity]:
    """The identities that a request for the account, or for one of its pools, assigns, and those of `kept` that the
    request does not remove with null. Raises AzureError."""
    named = {resource_id.lower() for resource_id in settings.ids}
    assigned = {rid: one for rid, one in kept.items() if rid.lower() not in named}
    for resource_id in [resource_id for resource_id, assign in settings.ids.items() if assign]:
        found = world.identities.get(resource_id)
        if found is None or found.tenant_id != world.resources.tenant_of(account.subscription):
            raise errors.identity_not_found(account.id, resource_id)
        assigned[resource_id] = AssignedIdentity(found.principal_id, found.client_id)
    if not assigned:
        raise errors.missing_identity_ids()
    return assigned


def let_go(world: World, previous: Identity, unless: Identity) -> None:
    """Delete the previous system-assigned identity of an account, unless the account keeps it."""
    if previous.principal_id and previous.principal_id != unless.principal_id:
        world.directory.remove_principal(previous.principal_id)
