# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decides how a vault that meets the requirements of Batch is created, changed and recovered. Pure: asks for documents.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..._azure.facts import Facts
from ..._checks import regions, rights, usage
from ..._checks.preflight import IN_PERIMETER, OPEN_PERIMETER
from ..._core.docs import Docs, Ref, Wait
from ..._core.errors import NotConverged, PlanOutdated, Refused, Unavailable
from ..._core.summary import changed_values
from ..._core.tasks import VALUE_LAG_SECONDS, Change, Request, Task
from ..._documents import refs
from ..._documents.account import key_of
from ..._documents.identity import principals_of
from ..._documents.vault import (
    RBAC,
    AccessPolicy,
    DeletedVault,
    Vault,
    authorization_of,
    describe,
    is_in_perimeter,
    is_unchanged_since_creation,
    lets_azure_services_in,
    name_taken,
    require_sku_for,
)
from ..._questions import creation, users, vaults
from ..._questions.regions import of_type
from ..access.decide import AccessGranted
from ..access.goal import AccessGoal
from .goal import RETENTION_DAYS, VaultGoal

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


@dataclass(frozen=True)
class VaultPresent(Task):
    """The vault exists, with soft delete and purge protection."""

    goal: VaultGoal
    facts: Facts

    @property
    def lock(self) -> str:
        return self.goal.name

    def decide(self, docs: Docs) -> Change:
        goal, facts = self.goal, self.facts
        vault = docs.get(_ref(goal, facts))
        if vault is None:
            return _missing(docs, goal, facts)
        _refuse_other_authorization(goal, vault)
        require_sku_for(goal.key_type, vault)
        before, properties = describe(vault), vault["properties"]
        changes: dict[str, Any] = {} if properties.get("enablePurgeProtection") else {"enablePurgeProtection": True}
        if not properties.get("enableSoftDelete", True):
            changes["enableSoftDelete"] = True
        after = {**before, "purge_protection": True, "soft_delete": True}
        if goal.trusted_services and not lets_azure_services_in(vault):
            # All rules are sent, because Azure resets rules that are missing in the request.
            changes["networkAcls"] = {**properties.get("networkAcls", {}), "bypass": "AzureServices"}
            after["trusted_services"] = True
        warnings = (
            *regions.difference(f"The key vault {goal.name}", vault["location"], goal.location),
            *_only_of_new(goal, before),
        )
        if goal.trusted_services and is_in_perimeter(vault):
            warnings += (f"The key vault {goal.name} may block Batch. {IN_PERIMETER} {OPEN_PERIMETER}",)
        if not changes:
            return Change(before, before, warnings=warnings)
        return _VaultChanged(before, after, (_update(goal, facts, changes),), warnings, goal=goal, facts=facts)


@dataclass(frozen=True, kw_only=True)
class _VaultChanged(Change):
    """The vault is changed or recovered."""

    goal: VaultGoal
    facts: Facts

    def wanted(self, docs: Docs, request: Request) -> Sequence[str] | None:
        """Network rules in the request replace the rules of the vault. If another task or user has changed the rules
        since they were read, nothing is written."""
        rules = (request.body or {})["properties"].get("networkAcls")
        vault = docs.get(_ref(self.goal, self.facts)) if rules else None
        if vault and {**vault["properties"].get("networkAcls", {}), "bypass": rules["bypass"]} != rules:
            raise PlanOutdated(
                f"The network rules of the key vault {self.goal.name} were changed by somebody else just before this "
                "task would have changed them. This task changed nothing. Run the task again."
            )
        return None

    def shown(self, docs: Docs, request: Request) -> None:
        """A read shows the vault, and its creation has ended."""
        if request.creates is None:
            return
        vault = docs.get(request.creates)
        if vault is None or vault["properties"].get("provisioningState", "Succeeded") != "Succeeded":
            raise creation.not_shown(f"key vault {self.goal.name}", self.facts.wait_timeout, "was created")

    def confirm(self, docs: Docs) -> Change:
        return VaultPresent(self.goal, self.facts).decide(docs)


class _VaultCreated(_VaultChanged):
    def wanted(self, docs: Docs, request: Request) -> Sequence[str]:
        goal, facts = self.goal, self.facts
        name, taken = vaults.name_check(facts.subscription, goal.name), name_taken(goal.name)
        resource = f"key vault {goal.name}"
        return creation.require_missing(docs, resource, _ref(goal, facts), name, taken, facts.wait_timeout)

    def follow_up(self, request: Request, document: Vault | None) -> Task | None:
        return None if is_unchanged_since_creation(document) else AccessRestored(self.goal, self.facts)


def _only_of_new(goal: VaultGoal, before: Mapping[str, Any]) -> Iterator[str]:
    """The warnings that an existing vault differs from options of a new one, if they are not the defaults."""
    wanted = {
        "sku": goal.sku,
        "retention_days": None if goal.retention_days == RETENTION_DAYS else goal.retention_days,
        "public_network_access": None if goal.is_public or before["public_network_access"] != "enabled" else "disabled",
    }
    for option, value in wanted.items():
        if value is not None and value != before[option]:
            yield (
                f"O({option}) is {value!r}, but the key vault {goal.name} exists with {before[option]!r}. The value is "
                "used only for the creation of a vault."
            )


def summary(goal: VaultGoal, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """One line for a person. `before` and `after` are return values of the module."""
    vault = f"key vault {goal.name}"
    if before == after:
        return f"The {vault} in {after['location']} has soft delete and purge protection."
    if before["exists"]:
        return f"Changed the {vault}: {changed_values(before, after)}."
    # In check mode, the state does not show whether a deleted vault is recovered.
    made = "Recovered or created" if goal.recover else "Created"
    return f"{made} the {vault} in {after['location']} with soft delete and purge protection."


def _missing(docs: Docs, goal: VaultGoal, facts: Facts) -> Change:
    """A read does not show the vault. Azure is eventually consistent: a listed vault exists nevertheless."""
    own, name = facts.subscription, vaults.name_check(facts.subscription, goal.name)
    place = refs.group(own, goal.group)
    # The permissions are read too, because they are checked next.
    docs.want(name, refs.permissions_at(place.id), refs.provider(own, "Microsoft.KeyVault"))
    if not goal.location:
        docs.want(place)
    said = docs.known(name)
    if not (isinstance(said, Mapping) and refs.is_free(said)):
        in_group = refs.vaults_of(own, goal.group)
        docs.want(in_group, refs.deleted_vaults_of(own))
        if goal.name.lower() in [one["name"].lower() for one in docs.items(in_group)]:
            raise creation.not_shown(f"key vault {goal.name}", facts.wait_timeout)
        if (deleted := vaults.deleted_here(docs, goal.name, own)) is not None:
            return _recovery(goal, facts, deleted)
    return _creation(docs, goal, facts)


def _recovery(goal: VaultGoal, facts: Facts, vault: DeletedVault) -> Change:
    if not goal.recover:
        remedy = "Add vault to O(allowed_repairs) to recover it, or use another name."
        raise Refused(
            f"The vault {goal.name} was deleted, and Azure keeps its name and its keys. {remedy}",
            code="vault_soft_deleted",
            option="allowed_repairs",
            remedy=remedy,
        )
    deleted = vault["properties"]
    body = {
        "location": deleted["location"],
        # Azure restores everything but the tags, which it reads from this request.
        "tags": deleted.get("tags", {}),
        "properties": {
            "createMode": "recover",
            "tenantId": facts.caller["tenant_id"],
            "sku": {"family": "A", "name": goal.sku_of_new},
            "accessPolicies": [],
        },
    }
    after = {"exists": True, "name": goal.name, "location": deleted["location"], "purge_protection": True}
    writes = [_put(goal, facts, body)]
    if not deleted.get("purgeProtectionEnabled"):
        writes.append(_update(goal, facts, {"enablePurgeProtection": True}))
    return _VaultChanged(describe(None), after, tuple(writes), goal=goal, facts=facts)


def _creation(docs: Docs, goal: VaultGoal, facts: Facts) -> Change:
    own = facts.subscription
    location = goal.location or (docs.get(refs.group(own, goal.group)) or {})["location"]
    known = of_type(docs, refs.provider(own, "Microsoft.KeyVault"), "vaults")
    regions.require_available(location, known, f"The key vault {goal.name}")
    caller = facts.caller
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
    request = replace(_put(goal, facts, body), wanted_first=True)
    return _VaultCreated(describe(None), after, (request,), warnings, goal=goal, facts=facts)


@dataclass(frozen=True)
class AccessRestored(Task):
    """A PUT replaces the access policies and tags of a vault that exists. If the response does not show that the
    request has created the vault, the access of Batch accounts whose key is in the vault is granted again. Another run
    may have moved an account to the vault just before."""

    goal: VaultGoal
    facts: Facts

    def decide(self, docs: Docs) -> Change:
        return _restoring(docs, self.goal, self.facts)


def _restoring(docs: Docs, goal: VaultGoal, facts: Facts) -> Change:
    visible, writes, restored = users.everywhere(docs, facts), list[Request](), list[str]()
    for account in visible["accounts"]:
        key = key_of(account)
        if key is None or key.vault != goal.name.lower():
            continue
        for principal in principals_of(account.get("identity", {})):
            access = AccessGoal(goal.group, goal.name, True, principal, None, key.name, force=False)
            if missing := AccessGranted(access, facts).decide(docs).requests:
                writes += missing
                restored.append(account["id"])
    # If no right is missing, a further try may succeed.
    unlisted = [usage.not_listed(one) for one in visible["unlisted"] if one["action"] is None]
    if unlisted and not writes:
        raise Unavailable(" ".join(unlisted))
    made_at = facts.journal.noted_at(refs.vault_made(goal.name))
    if not writes and made_at is not None and docs.asked_at < made_at + VALUE_LAG_SECONDS:
        complaint = NotConverged(f"Lists of Azure may not show yet which accounts use the key vault {goal.name}.")
        raise Wait(complaint, f"lists of Azure to show who uses the key vault {goal.name}", 2 * VALUE_LAG_SECONDS)
    if not writes:
        return Change({}, {}, (), _not_restored(goal, visible))
    warning = (
        f"Somebody else created the key vault {goal.name} at the same time, and its access policies and tags were "
        f"replaced. Access was granted again to the identities of {', '.join(dict.fromkeys(restored))}. Permissions of "
        "other principals, and tags, may be missing."
    )
    return Change({}, {}, tuple(writes), (warning,))


def _not_restored(goal: VaultGoal, visible: usage.Listed) -> tuple[str, ...]:
    """The warning that accounts may have lost access, because the caller may not list them."""
    if not visible["unlisted"]:
        return ()
    return (
        f"Somebody else may have created the key vault {goal.name} at the same time. Then its access policies and tags "
        f"were replaced. {' '.join(map(usage.not_listed, visible['unlisted']))} If other accounts use keys of the "
        "vault, grant them access again (azbatch.cmk.provision).",
    )


def _creator_policy(caller: Mapping[str, str]) -> AccessPolicy:
    return {
        "tenantId": caller["tenant_id"],
        "objectId": caller["object_id"],
        "permissions": {"keys": list(CREATOR_KEY_PERMISSIONS), "secrets": [], "certificates": []},
    }


def _refuse_other_authorization(goal: VaultGoal, vault: Vault) -> None:
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


def _ref(goal: VaultGoal, facts: Facts) -> Ref[Vault]:
    return refs.vault(refs.vault_id(facts.subscription, goal.group, goal.name))


def _put(goal: VaultGoal, facts: Facts, body: Mapping[str, Any]) -> Request:
    """Create the vault or, according to the body, recover the deleted vault."""
    ref = _ref(goal, facts)
    return Request(
        "create",
        f"create the key vault {goal.name}",
        "PUT",
        ref.id,
        body,
        (rights.to_create_vault(goal.group),),
        waiting_for=f"access to the keys of the key vault {goal.name} to be restored",
        operation=True,
        shows=ref,
        creates=ref,
    )


def _update(goal: VaultGoal, facts: Facts, properties: Mapping[str, Any]) -> Request:
    what, needed = f"change the key vault {goal.name}", rights.to_change_vault(goal.group, goal.name)
    body = {"properties": properties}
    return Request("update", what, "PATCH", _ref(goal, facts).id, body, (needed,), wanted_first=True)
