# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Role assignments and role definitions, and the permissions of principals at a scope."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from ..entra.rules import Directory
from ..resource_manager.rules import Resources
from ..shared import world as shared
from ..shared.errors import authorization_failed
from ..shared.lag import Lag
from ..shared.world import Principal
from . import errors
from .roles import BUILT_IN, Permission, RoleDefinition

_GUID = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
NEVER = float("inf")


@dataclass
class RoleAssignment:
    guid: str
    scope: str
    role: str
    principal_id: str
    principal_type: str
    created_on: str
    updated_on: str
    created_by: str | None
    updated_by: str | None
    description: str | None = None
    condition: str | None = None
    condition_version: str | None = None
    delegated_identity: str | None = None
    # The data plane applies the assignment between these two times.
    effective_from: float = 0
    effective_until: float = NEVER

    @property
    def id(self) -> str:
        prefix = "" if self.scope == "/" else self.scope
        return f"{prefix}/providers/Microsoft.Authorization/roleAssignments/{self.guid}"

    def same_grant(self, other: RoleAssignment) -> bool:
        return (self.scope.lower(), self.role, self.principal_id.lower()) == (
            other.scope.lower(),
            other.role,
            other.principal_id.lower(),
        )


def is_guid(text: str) -> bool:
    return _GUID.fullmatch(text) is not None


def tidy_scope(scope: str) -> str:
    return "/" + scope.strip("/")


def subscription_in(scope: str) -> str:
    """The id of the subscription in a scope; empty if the scope is above subscriptions."""
    parts = scope.strip("/").split("/")
    return parts[1] if len(parts) > 1 and parts[0].lower() == "subscriptions" else ""


def covers(above: str, below: str) -> bool:
    """Whether a role assignment at the scope `above` also applies at the scope `below`."""
    above, below = tidy_scope(above).lower(), tidy_scope(below).lower()
    return above in ("/", below) or below.startswith(above + "/")


_REPLICATION_SECONDS = 60


class World(shared.World, Protocol):
    """The parts of other services that role assignments need."""

    directory: Directory
    resources: Resources


@dataclass
class Authorization:
    world: World
    _assignments: dict[str, RoleAssignment] = field(default_factory=dict)
    # Deleted assignments that the data plane still applies.
    _revoked: list[RoleAssignment] = field(default_factory=list)
    _roles: dict[str, RoleDefinition] = field(default_factory=lambda: {role.guid: role for role in BUILT_IN})
    _lag: Lag[str, RoleAssignment] = field(init=False)

    def __post_init__(self) -> None:
        self._lag = Lag(self.world, "authorization")

    def allows(self, principal: Principal, action: str, scope: str) -> bool:
        return self.reader(principal)(action, scope)

    def reader(self, principal: Principal) -> Callable[[str, str], bool]:
        """Whether the principal may perform an action at a scope: a function for many actions and scopes, which
        searches the principal's assignments only."""
        own = self._own(principal)
        return lambda action, scope: any(
            covers(held.scope, scope) and self._roles[held.role].allows(action) for held in own
        )

    def reaches(self, principal: Principal, scope: str) -> bool:
        """Whether the principal has a role at the scope, above it or below it."""
        return any(covers(held.scope, scope) or covers(scope, held.scope) for held in self._own(principal))

    def allows_unconditionally(self, principal: Principal, scope: str, *actions: str) -> bool:
        """Whether one role assignment without a condition allows all of the actions."""
        return any(
            not held.condition and all(self._roles[held.role].allows(action) for action in actions)
            for held in self._held(principal, scope)
        )

    def listed(self, principal: Principal, action: str, subscription: str) -> Callable[[str], bool]:
        """Whether the list of a subscription has the resource of an id, by the action that reads it (switch
        `subscription_list`). Raises AzureError if the list is refused."""
        scope = f"/subscriptions/{subscription}"
        if self.allows(principal, action, scope):
            return lambda _resource_id: True
        if self.world.behavior.subscription_list == "denied":
            raise authorization_failed(principal.app_id, principal.object_id, action, scope)
        return lambda resource_id: self.allows(principal, action, resource_id)

    def permissions(self, principal: Principal, scope: str) -> list[Permission]:
        """The permissions of the principal's roles at the scope."""
        return [one for held in self._held(principal, scope) for one in self._roles[held.role].permissions]

    def data_assignment(self, principal: Principal, action: str, scope: str) -> RoleAssignment | None:
        now = self.world.clock.time()
        self._revoked = [gone for gone in self._revoked if gone.effective_until > now]
        effective = [held for held in self._held(principal, scope) if held.effective_from <= now]
        effective += [
            gone for gone in self._revoked if self._reaches(gone, principal, scope) and gone.effective_from <= now
        ]
        return next((held for held in effective if self._allows_data(held.role, action)), None)

    def assign(self, scope: str, role: str, principal_id: str) -> RoleAssignment:
        """Add an assignment that the data plane applies at once. Raises AzureError."""
        now = self.world.clock.iso()
        definition = self.role(role) or self.role_named(role)
        if definition is None:
            raise errors.role_does_not_exist(role)
        tenant_id = self.world.resources.tenant_of(subscription_in(scope))
        if self._is_stranger(principal_id, tenant_id, trusted=False):
            raise errors.principal_not_found(principal_id, tenant_id)
        kind = "ServicePrincipal"
        held = RoleAssignment(
            str(uuid.uuid4()), tidy_scope(scope), definition.guid, principal_id, kind, now, now, None, None
        )
        self._assignments[held.guid] = held
        return held

    def role(self, role_id: str) -> RoleDefinition | None:
        """The role with a GUID, or with a resource id that ends in the GUID."""
        return self._roles.get(role_id.rsplit("/", 1)[-1].lower())

    def role_named(self, name: str) -> RoleDefinition | None:
        return next((role for role in self._roles.values() if role.name.lower() == name.lower()), None)

    def roles(self, scope: str) -> list[RoleDefinition]:
        return [r for r in self._roles.values() if any(covers(offered, scope) for offered in r.assignable_scopes)]

    def assignment(self, scope: str, guid: str) -> RoleAssignment:
        """The assignment as a read returns it."""
        held = self._lag.shown(guid.lower(), self._assignments.get(guid.lower()))
        if held is None or held.scope.lower() != tidy_scope(scope).lower():
            raise errors.assignment_not_found(guid)
        return held

    def assignments(self, scope: str, *, below: bool, principal_id: str | None) -> Iterator[RoleAssignment]:
        """The assignments that a list returns: at `scope` and at scopes above; with `below`, also at scopes below."""
        for held in self._lag.listed(self._assignments, of_resources=False):
            if principal_id is not None and held.principal_id.lower() != principal_id.lower():
                continue
            if covers(held.scope, scope) or (below and covers(scope, held.scope)):
                yield held

    def effective(self, now: float) -> Iterator[RoleAssignment]:
        """The assignments that the data plane applies now or later. The call has no side effects."""
        yield from self._assignments.values()
        yield from (gone for gone in self._revoked if gone.effective_until > now)

    def changes(self) -> Iterator[float]:
        """The times at which the data plane starts or stops applying an assignment, in the past and in the future."""
        for held in (*self._assignments.values(), *self._revoked):
            yield held.effective_from
            yield held.effective_until

    def put(self, scope: str, guid: str, properties: dict[str, Any], by: str | None) -> tuple[RoleAssignment, bool]:
        """Create or change an assignment. Returns the assignment, and whether it is new or changed. Raises
        AzureError."""
        wanted = self._wanted(scope, guid, properties, by)
        previous = self._assignments.get(wanted.guid)
        self._lag.note(wanted.guid, previous)
        if previous is not None:
            return previous, self._update(previous, wanted)
        twin = next((held for held in self._assignments.values() if held.same_grant(wanted)), None)
        if twin is not None:
            raise errors.assignment_exists(twin.guid)
        self._assignments[wanted.guid] = wanted
        return wanted, True

    def delete(self, scope: str, guid: str) -> RoleAssignment | None:
        held = self._assignments.get(guid.lower())
        if held is None or held.scope.lower() != tidy_scope(scope).lower():
            return None
        self._lag.note(held.guid, held)
        del self._assignments[held.guid]
        gone = replace(held, effective_until=self._effective_at, updated_on=self.world.clock.iso())
        self._revoked.append(gone)
        return gone

    def forget_below(self, scope: str) -> None:
        """Delete the role assignments at a deleted resource and below it."""
        for held in [held for held in self._assignments.values() if covers(scope, held.scope)]:
            self.delete(held.scope, held.guid)

    def put_role(self, guid: str, properties: dict[str, Any], by: str | None) -> RoleDefinition:
        previous = self._roles.get(guid.lower())
        if previous is not None and previous.kind == "BuiltInRole":
            raise errors.built_in_role(guid)
        name = properties.get("roleName")
        scopes = properties.get("assignableScopes")
        if not isinstance(name, str) or not name or not _texts(scopes) or not scopes:
            raise errors.invalid_role("The role definition must have a roleName and assignableScopes.")
        twin = self.role_named(name)
        if twin is not None and twin is not previous:
            raise errors.role_name_taken(name)
        now = self.world.clock.iso()
        role = RoleDefinition(
            guid.lower(),
            name,
            properties.get("description") or "",
            _permissions(properties.get("permissions") or []),
            "CustomRole",
            tuple(scopes),
            previous.created_on if previous else now,
            now,
            previous.created_by if previous else by,
            by,
        )
        self._roles[role.guid] = role
        return role

    def delete_role(self, guid: str) -> RoleDefinition | None:
        role = self._roles.get(guid.lower())
        if role is None:
            return None
        if role.kind == "BuiltInRole":
            raise errors.built_in_role(guid)
        if any(held.role == role.guid for held in self._assignments.values()):
            raise errors.role_has_assignments()
        return self._roles.pop(role.guid)

    def _own(self, principal: Principal) -> list[RoleAssignment]:
        wanted = principal.object_id.lower()
        return [held for held in self._assignments.values() if held.principal_id.lower() == wanted]

    def _held(self, principal: Principal, scope: str) -> list[RoleAssignment]:
        return [held for held in self._own(principal) if covers(held.scope, scope)]

    @staticmethod
    def _reaches(held: RoleAssignment, principal: Principal, scope: str) -> bool:
        return held.principal_id.lower() == principal.object_id.lower() and covers(held.scope, scope)

    def _allows_data(self, role: str, action: str) -> bool:
        return role in self._roles and self._roles[role].allows_data(action)

    def _wanted(self, scope: str, guid: str, properties: dict[str, Any], by: str | None) -> RoleAssignment:
        if not is_guid(guid):
            raise errors.invalid_assignment_id(guid)
        role_id, principal_id = properties.get("roleDefinitionId"), properties.get("principalId")
        if not isinstance(role_id, str) or not isinstance(principal_id, str) or not is_guid(principal_id):
            raise errors.invalid_request("The role assignment needs a roleDefinitionId and a principalId.")
        role = self.role(role_id)
        if role is None:
            raise errors.role_does_not_exist(role_id.rsplit("/", 1)[-1])
        kind = properties.get("principalType")
        tenant_id = self.world.resources.tenant_of(subscription_in(scope))
        if self._is_stranger(principal_id, tenant_id, trusted=bool(kind)) or not (
            kind or self._is_replicated(principal_id)
        ):
            raise errors.principal_not_found(principal_id, tenant_id)
        now = self.world.clock.iso()
        return RoleAssignment(
            guid.lower(),
            tidy_scope(scope),
            role.guid,
            principal_id,
            kind or "ServicePrincipal",
            now,
            now,
            by,
            by,
            properties.get("description"),
            properties.get("condition"),
            properties.get("conditionVersion"),
            properties.get("delegatedManagedIdentityResourceId"),
            self._effective_at,
        )

    @property
    def _effective_at(self) -> float:
        """When the data plane applies what is changed now."""
        delay = max(self.world.timing.role_propagation, float(self.world.behavior.role_delay))
        return self.world.clock.time() + delay

    def _is_stranger(self, principal_id: str, tenant_id: str, *, trusted: bool) -> bool:
        """Whether the principal is not in the tenant. If `trusted`, the request has a principalType, and the principal
        may be too new to be in the directory."""
        principal = self.world.directory.principal(principal_id)
        return not trusted if principal is None else principal.tenant_id != tenant_id

    def _is_replicated(self, principal_id: str) -> bool:
        """Whether a request without a principalType finds the principal, which may be a new managed identity."""
        principal = self.world.directory.principal(principal_id)
        if principal is None or principal.kind != "ManagedIdentity" or self.world.behavior.new_principal == "known":
            return True
        return principal.created + _REPLICATION_SECONDS <= self.world.clock.time()

    @staticmethod
    def _update(previous: RoleAssignment, wanted: RoleAssignment) -> bool:
        """Change an assignment. Returns whether anything was changed. Raises AzureError."""
        if not previous.same_grant(wanted):
            raise errors.update_not_permitted()
        extras = ("description", "condition", "condition_version")
        changes = any(getattr(previous, name) != getattr(wanted, name) for name in extras)
        if changes:
            for name in (*extras, "updated_on", "updated_by"):
                setattr(previous, name, getattr(wanted, name))
        return changes


def _permissions(documents: Any) -> tuple[Permission, ...]:
    if not isinstance(documents, list) or not all(isinstance(document, dict) for document in documents):
        raise errors.invalid_role("The permissions of a role are a list of objects.")
    return tuple(_permission(document) for document in documents)


def _permission(document: dict[str, Any]) -> Permission:
    names = ("actions", "notActions", "dataActions", "notDataActions")
    parts = [document.get(name) or [] for name in names]
    if not all(_texts(part) for part in parts):
        raise errors.invalid_role("The actions of a role are lists of names.")
    return Permission(*(tuple(part) for part in parts))


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)
