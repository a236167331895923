# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The operations on vaults: create, change, soft-delete, recover and purge."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from ..authorization.rules import RoleAssignment
from ..event_grid.events import ACCESS_POLICY_CHANGED
from ..event_grid.rules import EventGrid
from ..resource_manager.rules import Resource
from ..shared.errors import location_required, location_unavailable, other_location
from ..shared.lag import Lag
from ..shared.operations import Operation, Operations
from ..shared.resource import CANARY, REGIONS, read_tags, tidy_location
from ..shared.world import Principal
from . import access, documents, errors, request
from .access import KeyVaultDenied, VaultAccess
from .vault import RBAC_BY_DEFAULT_SINCE, AccessPolicy, NetworkRules, Vault

__all__ = ["KeyVaultDenied", "Order", "Vault", "Vaults"]


TYPE = "Microsoft.KeyVault/vaults"
_WRITE = f"{TYPE}/write"
_ASSIGN = "Microsoft.Authorization/roleAssignments/write"


@dataclass(frozen=True)
class Order:
    """The contents of a PUT, and its scope."""

    subscription: str
    group: str
    name: str
    document: dict[str, Any]
    api_version: str
    vault_suffix: str
    by: str

    @property
    def properties(self) -> dict[str, Any]:
        """The properties without nulls, which set nothing."""
        sent = request.mapping(self.document.get("properties"), "properties")
        return {name: value for name, value in sent.items() if value is not None}

    @property
    def location(self) -> str:
        location = self.document.get("location")
        return tidy_location(location) if isinstance(location, str) else ""

    @property
    def tags(self) -> dict[str, str]:
        return read_tags(self.document.get("tags"))

    def is_for(self, vault: Vault) -> bool:
        here = (self.subscription.lower(), self.group.lower())
        return (vault.subscription.lower(), vault.resource_group.lower()) == here


class Safes(Protocol):
    """The service that stores the keys of vaults."""

    def forget(self, vault: Vault) -> None: ...


class World(access.World, Protocol):
    event_grid: EventGrid

    @property
    def keys(self) -> Safes: ...


@dataclass
class Vaults:
    world: World
    _live: dict[str, Vault] = field(default_factory=dict)
    _deleted: dict[str, Vault] = field(default_factory=dict)
    # The purge operations, each with the name of its vault.
    _purges: Operations[str] = field(init=False)
    _lag: Lag[str, Vault] = field(init=False)

    def __post_init__(self) -> None:
        self._lag = Lag(self.world, "vaults")
        self._purges = Operations(self.world)

    # Reading

    def by_name(self, name: str) -> Vault | None:
        return self._live.get(name.lower())

    def find(self, subscription: str, group: str, name: str) -> Vault | None:
        vault = self.by_name(name)
        return vault if vault is not None and vault.is_in(subscription, group) else None

    def shown(self, subscription: str, group: str, name: str) -> Vault | None:
        """The vault as a read returns it."""
        vault = self._lag.shown(name.lower(), self.by_name(name))
        return vault if vault is not None and vault.is_in(subscription, group) else None

    def list(self, subscription: str, group: str | None = None) -> Iterator[Vault]:
        return (vault for vault in self._live.values() if vault.is_in(subscription, group))

    def contents(self, subscription: str) -> Iterator[Resource]:
        for vault in self.list(subscription):
            yield Resource(vault.id, vault.name, TYPE, vault.location, vault.tags)

    def drop(self, resource: Resource) -> None:
        if (vault := self.by_name(resource.name)) is not None:
            self.delete(vault)

    def listed(self, subscription: str, group: str | None = None) -> builtins.list[Vault]:
        """The vaults as a list returns them."""
        return [vault for vault in self._lag.listed(self._live) if vault.is_in(subscription, group)]

    def in_graph(self, subscription: str) -> builtins.list[Vault]:
        """The vaults of a subscription as Resource Graph shows them."""
        shown = self._lag.in_graph(self._live)
        return [vault for vault in shown if vault.is_in(subscription, None)]

    def live_and_deleted(self) -> tuple[builtins.list[Vault], builtins.list[Vault]]:
        """The live and the deleted vaults of all subscriptions. Unlike other reads, it does not purge any vault."""
        now = self.world.clock.time()
        kept = [vault for vault in self._deleted.values() if self.purge_date(vault).timestamp() > now]
        return [*self._live.values()], kept

    def deleted(self, subscription: str) -> builtins.list[Vault]:
        self._settle()
        return [vault for vault in self._deleted.values() if vault.subscription.lower() == subscription.lower()]

    def deleted_vault(self, subscription: str, location: str, name: str) -> Vault:
        for vault in self.deleted(subscription):
            if (vault.name.lower(), vault.location) == (name.lower(), tidy_location(location)):
                return vault
        raise errors.deleted_vault_not_found(name)

    def purge_date(self, vault: Vault) -> datetime:
        assert vault.deleted_at is not None
        return datetime.fromtimestamp(int(vault.deleted_at), UTC) + timedelta(days=vault.retention_days)

    def why_not_available(self, name: str) -> tuple[str, str] | None:
        """Why a name is not available: a reason and a message; None if the name is available."""
        if not request.is_name(name):
            return "AccountNameInvalid", errors.NAME_NOT_VALID.format(name=name)
        self._settle()
        if name.lower() in self._live or name.lower() in self._deleted:
            return "AlreadyExists", errors.NAME_TAKEN.format(name=name)
        return None

    def is_registering(self, vault: Vault) -> bool:
        return self.world.clock.time() < vault.dns_ready_at

    def resolves(self, vault: Vault) -> bool:
        """Whether the host name resolves for callers."""
        return self.world.clock.time() >= max(vault.dns_ready_at, vault.name_resolves_at)

    # Creating and changing

    def put(self, order: Order) -> tuple[Vault, bool]:
        """Create, change or recover a vault. Returns the vault, and whether it is new. Raises AzureError."""
        if not request.is_name(order.name):
            raise errors.name_not_valid(order.name)
        if not order.location:
            raise location_required()
        self._settle()
        if str(order.properties.get("createMode") or "").lower() == "recover":
            return self._recover(order), False
        vault = self.by_name(order.name)
        if vault is None:
            return self._create(order), True
        if not order.is_for(vault):
            raise errors.vault_exists(order.name)
        if order.location != vault.location:
            raise other_location(vault.name, vault.location, vault.resource_group, order.location)
        self._require(order, bool(order.properties.get("enableRbacAuthorization", vault.rbac)))
        # Every error is raised before anything is changed.
        named_tags = order.tags
        reset = {"network": NetworkRules(), "public_network_access": "Enabled", "flags": {}}
        self._change(vault, {**reset, **request.fields(order.properties, vault)}, order.by)
        vault.tags = named_tags
        return vault, False

    def check_change(self, caller: Principal, vault: Vault, properties: dict[str, Any]) -> None:
        """Check that the caller may change the permission model, if the properties change it. Raises AzureError."""
        wanted = properties.get("enableRbacAuthorization")
        if not isinstance(wanted, bool) or wanted == vault.rbac:
            return
        # One role must have both rights, such as Owner.
        if not self.world.authorization.allows_unconditionally(caller, vault.id, _ASSIGN, _WRITE):
            raise errors.model_change_refused(caller.object_id, vault.id)

    def patch(self, vault: Vault, document: dict[str, Any], by: str) -> None:
        changes = request.fields(request.mapping(document.get("properties"), "properties"), vault)
        named_tags = read_tags(document.get("tags"))
        if "flags" in changes:
            changes["flags"] = {**vault.flags, **changes["flags"]}
        self._change(vault, changes, by)
        if document.get("tags") is not None:
            vault.tags = named_tags

    def change_policies(self, vault: Vault, operation: str, named: builtins.list[AccessPolicy], by: str) -> None:
        if vault.rbac and self.world.behavior.policies_of_rbac_vault == "refused":
            raise errors.uses_azure_rbac(vault.name)
        change = {"add": _with, "replace": _with_instead, "remove": _without}[operation]
        policies = {policy.holder: policy for policy in vault.access_policies}
        for policy in named:
            changed = change(policies.get(policy.holder), policy)
            if changed is None:
                policies.pop(policy.holder, None)
            else:
                policies[policy.holder] = changed
        self._change(vault, {"access_policies": [*policies.values()]}, by)

    # Deleting and purging

    def delete(self, vault: Vault) -> None:
        self._lag.note(vault.name.lower(), vault)
        del self._live[vault.name.lower()]
        vault.deleted_at = self.world.clock.time()
        self._deleted[vault.name.lower()] = vault
        # The role assignments of the vault are deleted. A recovery of the vault does not restore them.
        self.world.authorization.forget_below(vault.id)

    def purge(self, vault: Vault) -> Operation[str]:
        if vault.purge_protection:
            raise errors.purge_not_allowed()
        purge = self._purges.start(vault.name, self.world.timing.vault_purge)
        if self._purges.is_done(purge):
            self._forget(vault)
        return purge

    def purge_operation(self, purge_id: str) -> Operation[str]:
        self._settle()
        purge = self._purges.find(purge_id)
        if purge is None:
            raise errors.operation_not_found(purge_id)
        return purge

    # The data plane

    def admits(self, vault: Vault, principal: Principal, *, trusted_service: bool = False) -> None:
        """Check that the vault's network rules admit the caller. Raises KeyVaultDenied."""
        VaultAccess(self.world).admit(vault, principal, trusted_service=trusted_service)

    def permits(self, vault: Vault, principal: Principal, permission: str, key_name: str = "") -> RoleAssignment | None:
        """Check the caller's roles or the access policies, as the vault is configured. Raises KeyVaultDenied."""
        return VaultAccess(self.world).permit(vault, principal, permission, key_name)

    def _create(self, order: Order) -> Vault:
        rbac_by_default = order.api_version >= RBAC_BY_DEFAULT_SINCE
        self._require(order, bool(order.properties.get("enableRbacAuthorization", rbac_by_default)))
        if order.name.lower() in self._deleted:
            mine = self._deleted[order.name.lower()].subscription.lower() == order.subscription.lower()
            raise errors.name_is_soft_deleted() if mine else errors.vault_exists(order.name)
        if order.location not in (*REGIONS, *CANARY):
            raise location_unavailable(order.location, TYPE, REGIONS)
        changes = request.fields(order.properties, None)
        vault = Vault(
            order.subscription,
            order.group,
            order.name,
            order.location,
            order.name.lower() + order.vault_suffix,
            changes["tenant_id"],
            tags=order.tags,
            rbac_setting=True if rbac_by_default else None,
            created_by=order.by,
            sent_location=order.document["location"],
            created_at=self.world.clock.iso(3),
            dns_ready_at=self.world.clock.time() + self.world.timing.vault_dns,
        )
        vault.name_resolves_at = vault.dns_ready_at + float(self.world.behavior.vault_name_delay)
        self._change(vault, changes, order.by)
        vault.modified_at = vault.created_at
        self._live[vault.name.lower()] = vault
        return vault

    def _recover(self, order: Order) -> Vault:
        vault = self._deleted.get(order.name.lower())
        if vault is None or not order.is_for(vault):
            raise errors.nothing_to_recover()
        vault.tags = order.tags
        vault.deleted_at = None
        vault.name_resolves_at = self.world.clock.time() + float(self.world.behavior.vault_name_delay)
        del self._deleted[vault.name.lower()]
        self._change(vault, {}, order.by)
        self._live[vault.name.lower()] = vault
        return vault

    @staticmethod
    def _require(order: Order, rbac: bool) -> None:
        for name in ("tenantId", "sku", *(() if rbac else ("accessPolicies",))):
            if order.properties.get(name) is None:
                raise errors.parameter_missing(name)

    def _change(self, vault: Vault, changes: dict[str, Any], by: str) -> None:
        # A new vault is not among the live vaults yet, so its previous state is None.
        previous = self.by_name(vault.name)
        self._lag.note(vault.name.lower(), previous)
        access_before = (vault.access_policies, vault.rbac)
        policies = changes.pop("access_policies", None)
        delay = 0.0
        if previous is not None and changes.get("rbac_setting", vault.rbac) != vault.rbac:
            delay = float(self.world.behavior.permission_model_delay)
            if not vault.rbac and self.world.behavior.policies_after_change == "dropped":
                policies = []
            vault.change_model(self.world.clock.time(), delay)
        for name, value in changes.items():
            setattr(vault, name, value)
        if policies is not None:
            self._set_policies(vault, policies, delay)
        vault.modified_by, vault.modified_at = by, self.world.clock.iso(3)
        if previous is not None and (vault.access_policies, vault.rbac) != access_before:
            data = documents.event_data(vault)
            self.world.event_grid.publish(ACCESS_POLICY_CHANGED, vault.id, vault.name, data, self.world.clock.time())

    def _set_policies(self, vault: Vault, policies: builtins.list[AccessPolicy], delay: float) -> None:
        vault.set_policies(policies, self.world.clock.time(), max(delay, self.world.timing.policy_propagation))

    def _settle(self) -> None:
        """Complete the purges of deleted vaults, and purge deleted vaults whose retention period has ended."""
        now = self.world.clock.time()
        for purge in self._purges:
            vault = self._deleted.get(purge.about.lower())
            if self._purges.is_done(purge) and vault is not None and (vault.deleted_at or 0) <= purge.started_at:
                self._forget(vault)
        for vault in [*self._deleted.values()]:
            if self.purge_date(vault).timestamp() <= now:
                self._forget(vault)

    def _forget(self, vault: Vault) -> None:
        self._deleted.pop(vault.name.lower(), None)
        self.world.keys.forget(vault)


def _names(policy: AccessPolicy, without: AccessPolicy | None = None) -> dict[str, tuple[str, ...]]:
    left = {}
    for kind, names in policy.permissions.items():
        gone = {name.lower() for name in without.permissions.get(kind, ())} if without else set()
        left[kind] = tuple(name for name in names if name.lower() not in gone)
    return left


def _with(previous: AccessPolicy | None, policy: AccessPolicy) -> AccessPolicy:
    if previous is None:
        return policy
    merged = dict(previous.permissions)
    for kind, names in _names(policy, previous).items():
        merged[kind] = (*merged.get(kind, ()), *names)
    return replace(previous, permissions=merged)


def _with_instead(previous: AccessPolicy | None, policy: AccessPolicy) -> AccessPolicy:
    return policy


def _without(previous: AccessPolicy | None, policy: AccessPolicy) -> AccessPolicy | None:
    if previous is None:
        return None
    left = _names(previous, policy)
    return replace(previous, permissions=left) if any(left.values()) else None
