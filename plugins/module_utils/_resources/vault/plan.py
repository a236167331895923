# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans a vault that meets the requirements of Batch.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..._checks import regions, rights, usage
from ..._checks.preflight import IN_PERIMETER, OPEN_PERIMETER
from ..._core.documents import AccessPolicy, DeletedVault, Vault
from ..._core.errors import Refused
from ..._core.plan import Plan, Removed, Step, step
from ..._core.summary import changed_values
from ..._documents.vault import (
    RBAC,
    authorization_of,
    describe,
    is_in_perimeter,
    lets_azure_services_in,
    require_sku_for,
    required,
)
from .goal import Goal, Observed, VaultWrites

# In a vault with access policies, not even the creator has permissions on keys. These are the permissions that the
# modules of this collection need. Purge is not one of them.
CREATOR_KEY_PERMISSIONS = (
    "get",
    "list",
    "create",
    "update",
    "delete",
    "recover",
    "getrotationpolicy",
    "setrotationpolicy",
)


def plan(goal: Goal, observed: Observed) -> Plan[VaultWrites]:
    vault: Vault | None = observed["vault"]
    before = describe(vault)
    if not goal.present:
        return _deletion(goal, observed, before)
    if vault is None and observed["deleted"]:
        return _recovery(goal, observed["deleted"], observed, before)
    if vault is None:
        if goal.taken_away:
            # In a rollback, Azure does not show the deleted vault yet. A new vault would not have its keys.
            required(vault, goal.name, goal.group)
        return _creation(goal, observed, before)
    _refuse_other_authorization(goal, vault)
    if not goal.taken_away:
        require_sku_for(goal.key_type, vault)
    properties = vault["properties"]
    changes: dict[str, Any] = {} if properties.get("enablePurgeProtection") else {"enablePurgeProtection": True}
    if not properties.get("enableSoftDelete", True):
        changes["enableSoftDelete"] = True
    after = {**before, "purge_protection": True, "soft_delete": True}
    if goal.trusted_services and not lets_azure_services_in(vault):
        # All rules are sent, because Azure resets rules that are missing in the request.
        changes["networkAcls"] = {**properties.get("networkAcls", {}), "bypass": "AzureServices"}
        after["trusted_services"] = True
    warnings = regions.difference(f"The key vault {goal.name}", vault["location"], goal.location)
    if goal.trusted_services and is_in_perimeter(vault):
        warnings += (f"The key vault {goal.name} may block Batch. {IN_PERIMETER} {OPEN_PERIMETER}",)
    warnings += _restored(goal, observed)
    steps: tuple[Step[VaultWrites], ...] = ()
    if changes:
        steps = (_update(goal, changes),)
    if observed.get("without_access"):
        steps += (_restore_access(goal),)
    return Plan(goal, before, after if changes else before, steps, warnings)


def summary(goal: Goal, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """One line for a person. `before` and `after` are return values of the module."""
    vault = f"key vault {goal.name}"
    if not after["exists"]:
        if not before["exists"]:
            return f"There is no {vault}."
        return f"Deleted the {vault}. It can be recovered for {before['retention_days']} days."
    if before == after:
        return f"The {vault} in {after['location']} has soft delete and purge protection."
    if before["exists"]:
        return f"Changed the {vault}: {changed_values(before, after)}."
    # In check mode, the state does not show whether a deleted vault is recovered.
    made = "Recovered or created" if goal.recover else "Created"
    return f"{made} the {vault} in {after['location']} with soft delete and purge protection."


def _deletion(goal: Goal, observed: Observed, before: Mapping[str, Any]) -> Plan[VaultWrites]:
    if observed["vault"] is None and not goal.taken_away:
        return Plan(goal, before, before)
    visible = observed["visible"]
    users = usage.in_vault(visible, goal.name)
    warnings = usage.guard(users, visible, f"delete the vault {goal.name}", force=goal.force)
    delete = step(VaultWrites.delete, group=goal.group, name=goal.name)
    steps = (delete.needing(rights.to_delete_vault(goal.group, goal.name)),) if observed["vault"] else ()
    return usage.removal(Plan(goal, before, describe(None), steps, warnings), _back(goal))


def deleted(goal: Goal, _versions: Sequence[str], at: float) -> Removed:
    """The vault that was deleted at the time `at` (time.monotonic())."""
    return Removed(replace(goal, taken_away=True), _back(goal), at)


def _back(goal: Goal) -> Goal:
    return replace(goal, present=True, recover=True, taken_away=True)


def _recovery(goal: Goal, vault: DeletedVault, observed: Observed, before: Mapping[str, Any]) -> Plan[VaultWrites]:
    if not goal.recover:
        remedy = "Set O(recover=true) to recover it, or use another name."
        raise Refused(
            f"The vault {goal.name} was deleted, and Azure keeps its name and its keys. {remedy}",
            code="vault_soft_deleted",
            option="recover",
            value=False,
            remedy=remedy,
        )
    deleted = vault["properties"]
    body = {
        "location": deleted["location"],
        # Azure restores everything but the tags, which it reads from this request.
        "tags": deleted.get("tags", {}),
        "properties": {
            "createMode": "recover",
            "tenantId": observed["caller"]["tenant_id"],
            "sku": {"family": "A", "name": goal.sku_of_new},
            "accessPolicies": [],
        },
    }
    after = {"exists": True, "name": goal.name, "location": deleted["location"], "purge_protection": True}
    steps = [_create(goal, body)]
    if not deleted.get("purgeProtectionEnabled"):
        steps.append(_update(goal, {"enablePurgeProtection": True}))
    if goal.taken_away:
        # The deletion of the vault has deleted its role assignments.
        steps.append(_restore_access(goal))
    return Plan(goal, before, after, tuple(steps))


def _creation(goal: Goal, observed: Observed, before: Mapping[str, Any]) -> Plan[VaultWrites]:
    location = goal.location or observed["group"]["location"]
    regions.require_available(location, observed.get("regions"), f"The key vault {goal.name}")
    caller = observed["caller"]
    authorization = goal.authorization or RBAC
    properties = {
        "tenantId": caller["tenant_id"],
        "sku": {"family": "A", "name": goal.sku_of_new},
        "enableSoftDelete": True,
        "softDeleteRetentionInDays": goal.retention_days,
        "enablePurgeProtection": True,
        # Always sent, because the default depends on the API version.
        "enableRbacAuthorization": authorization == RBAC,
        "accessPolicies": [] if authorization == RBAC else [_creator_policy(caller)],
    }
    after: dict[str, Any] = {
        "exists": True,
        "name": goal.name,
        "location": location,
        "tenant_id": caller["tenant_id"],
        "sku": goal.sku_of_new,
        "authorization": authorization,
        "soft_delete": True,
        "purge_protection": True,
        "retention_days": goal.retention_days,
        "public_network_access": "enabled" if goal.is_public else "disabled",
        "trusted_services": True,
        "tags": goal.tags,
    }
    warnings: tuple[str, ...] = ()
    if not goal.is_public:
        # Batch is a trusted service.
        rules = {"bypass": "AzureServices", "defaultAction": "Deny", "ipRules": [], "virtualNetworkRules": []}
        properties |= {"publicNetworkAccess": "Disabled", "networkAcls": rules}
        warnings = (
            f"The new key vault {goal.name} has no public network access. Batch can use its keys. All other callers "
            "need a private endpoint of the vault to read or change keys. Without one, tasks that read or change "
            "keys fail with network_denied.",
        )
    body = {"location": location, "properties": properties, **({"tags": goal.tags} if goal.tags else {})}
    return Plan(replace(goal, created=True), before, after, (_create(goal, body),), warnings)


def _restored(goal: Goal, observed: Observed) -> tuple[str, ...]:
    accounts = observed.get("restored")
    if not accounts:
        return ()
    return (
        f"Somebody else created the key vault {goal.name} at the same time, and its access policies and tags were "
        f"replaced. Access was granted again to the identities of {', '.join(accounts)}. Permissions of other "
        "principals, and tags, may be missing.",
    )


def _creator_policy(caller: Mapping[str, str]) -> AccessPolicy:
    return {
        "tenantId": caller["tenant_id"],
        "objectId": caller["object_id"],
        "permissions": {"keys": list(CREATOR_KEY_PERMISSIONS), "secrets": [], "certificates": []},
    }


def _refuse_other_authorization(goal: Goal, vault: Vault) -> None:
    has = authorization_of(vault)
    if goal.authorization in (None, has):
        return
    raise Refused(
        f"The vault {goal.name} uses the permission model {has}, not {goal.authorization}. A change would revoke the "
        f"access of all principals. Set O(authorization={has}), or leave it out, or use another vault.",
        code="vault_authorization_differs",
        option="authorization",
        value=goal.authorization,
        remedy=f"Set O(authorization={has}), or leave it out, or use another vault.",
    )


def _create(goal: Goal, body: Mapping[str, Any]) -> Step[VaultWrites]:
    write = step(VaultWrites.create, group=goal.group, name=goal.name, body=body)
    return write.needing(rights.to_create_vault(goal.group))


def _update(goal: Goal, properties: Mapping[str, Any]) -> Step[VaultWrites]:
    write = step(VaultWrites.update, group=goal.group, name=goal.name, body={"properties": properties})
    return write.needing(rights.to_change_vault(goal.group, goal.name))


def _restore_access(goal: Goal) -> Step[VaultWrites]:
    write = step(VaultWrites.restore_access, group=goal.group, name=goal.name)
    return write.needing(rights.to_change_vault(goal.group, goal.name))
