# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Resource locks and Azure policies: those that requests have created, and those that the switches `resource_lock` and
`policy_denial` set."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from ..resource_manager.rules import Resources
from ..shared import world as shared
from ..shared.errors import gateway_refusal, scope_locked
from ..shared.world import Principal
from . import errors, policies
from .policies import Policy, PolicyAssignment, Violation
from .rules import Authorization, covers, subscription_in

READ_ONLY, CAN_NOT_DELETE = "ReadOnly", "CanNotDelete"
# Position of a switch -> type of the resources.
_TYPES = {"accounts": "Microsoft.Batch/batchAccounts", "vaults": "Microsoft.KeyVault/vaults"}
_RESOURCES = {
    position: re.compile(f".*/providers/{re.escape(kind)}/[^/]+", re.IGNORECASE) for position, kind in _TYPES.items()
}
_CHANGES = ("PUT", "PATCH")
# These are separate resources, which neither a lock nor a denial of accounts covers.
_SEPARATE = re.compile(r"/providers/microsoft\.authorization/(?:locks|policyassignments)/", re.IGNORECASE)


@dataclass(frozen=True)
class Lock:
    scope: str
    name: str
    level: str


class World(shared.World, Protocol):
    authorization: Authorization
    resources: Resources


@dataclass
class Governance:
    world: World
    # By scope and name in lower case.
    _locks: dict[tuple[str, str], Lock] = field(default_factory=dict)
    _assignments: dict[tuple[str, str], PolicyAssignment] = field(default_factory=dict)
    # Deleted assignments that Azure still applies.
    _removed: list[PolicyAssignment] = field(default_factory=list)

    # Locks

    def put_lock(self, scope: str, name: str, properties: dict[str, Any]) -> Lock:
        level = properties.get("level")
        if level not in (READ_ONLY, CAN_NOT_DELETE):
            raise errors.invalid_request(f"The level of a lock is {READ_ONLY} or {CAN_NOT_DELETE}, not {level!r}.")
        lock = self._locks[scope.lower(), name.lower()] = Lock(scope, name, level)
        return lock

    def delete_lock(self, scope: str, name: str) -> bool:
        """Returns whether the lock existed."""
        return self._locks.pop((scope.lower(), name.lower()), None) is not None

    def locks(self, scope: str) -> Iterator[Lock]:
        """The locks at the scope and below."""
        yield from (lock for lock in self._locks.values() if covers(scope, lock.scope))
        position = self.world.behavior.resource_lock
        for resource in self.world.resources.all(subscription_in(scope)):
            level = _level(position, resource.type)
            if level and covers(scope, resource.id):
                yield Lock(resource.id, "sandbox", level)

    # Policies

    def put_assignment(self, scope: str, name: str, properties: dict[str, Any], by: Principal) -> PolicyAssignment:
        clock = self.world.clock
        if not all(isinstance(properties.get(member) or {}, dict) for member in ("metadata", "parameters")):
            raise errors.invalid_request("The metadata and the parameters of a policy assignment are objects.")
        self.delete_assignment(scope, name)
        assignment = self._assignments[scope.lower(), name.lower()] = PolicyAssignment(
            scope, name, properties, clock.iso(), by.object_id, by.app_id, clock.time() + self._lag
        )
        return assignment

    def delete_assignment(self, scope: str, name: str) -> PolicyAssignment | None:
        gone = self._assignments.pop((scope.lower(), name.lower()), None)
        if gone is not None:
            now = self.world.clock.time()
            self._removed = [one for one in self._removed if one.is_effective(now)]
            self._removed.append(replace(gone, effective_until=now + self._lag))
        return gone

    @property
    def _lag(self) -> float:
        return float(self.world.behavior.policy_lag)

    def _effective(self, scope: str) -> list[PolicyAssignment]:
        """The assignments that Azure applies at a scope now."""
        now = self.world.clock.time()
        found = [one for one in (*self._assignments.values(), *self._removed) if one.is_effective(now)]
        kind = _TYPES.get(self.world.behavior.policy_denial)
        if kind is not None:
            found.append(_denial_of(kind, self.world.resources.tenant_of(subscription_in(scope))))
        return [one for one in found if one.own_policy or covers(one.scope, scope)]

    def restrictions(
        self, caller: Principal, scope: str, content: dict[str, Any], *, audit: bool
    ) -> list[tuple[PolicyAssignment, Policy]]:
        """The assignments at a scope that a check of a resource shows to the caller, with their definitions."""
        position = self.world.behavior.policy_check_scopes
        may_read = self.world.authorization.reader(caller)
        return [
            (one, policy)
            for one in self._effective(scope)
            if (policy := _policy_of(one, content.get("type")))
            and (one.effect == "Deny" or (audit and one.effect == "Audit"))
            and position != "none"
            and (position == "all" or may_read(_READ_ASSIGNMENTS, one.scope))
        ]

    # Both

    def forget(self, scope: str) -> None:
        """Remove everything at the scope and below, because its resource group is deleted."""
        self._locks = {key: lock for key, lock in self._locks.items() if not covers(scope, lock.scope)}
        self._assignments = {key: one for key, one in self._assignments.items() if not covers(scope, one.scope)}

    def check(self, caller: Principal, method: str, path: str, body: dict[str, Any]) -> None:
        """Check a request that changes something, which may be for a child resource. Raises AzureError."""
        if _SEPARATE.search(path):
            return
        locked = self._locked(method, path)
        if locked:
            raise scope_locked(path, "delete" if method == "DELETE" else "write", locked)
        if method in _CHANGES:
            self._check_policies(caller, method, path, body)

    def _locked(self, method: str, path: str) -> str:
        """The scope whose lock refuses the request; empty if there is none."""
        for lock in self._locks.values():
            if covers(lock.scope, path) and (method == "DELETE" or lock.level == READ_ONLY):
                return lock.scope
            if method == "DELETE" and covers(path, lock.scope):
                return lock.scope
        position = self.world.behavior.resource_lock
        if position == "deletions":
            return _resource(path, *_RESOURCES) if method == "DELETE" else ""
        return _resource(path, position)

    def _check_policies(self, caller: Principal, method: str, path: str, body: dict[str, Any]) -> None:
        violations = [*self._violations(method, path, body)]
        if not violations:
            return
        may_read = self.world.authorization.reader(caller)
        shows_details = all(may_read(_READ_ASSIGNMENTS, one.assignment.scope) for one in violations)
        name = (_resource(path, *_RESOURCES) or path).rpartition("/")[2]
        raise gateway_refusal(403, policies.denial(name, violations, shows_details=shows_details))

    def _violations(self, method: str, path: str, body: dict[str, Any]) -> Iterator[Violation]:
        """The policies that deny a change of a resource."""
        if "/roleassignments/" in path.lower():
            # A role assignment is a separate resource, which the denial does not cover.
            return
        merges = method == "PATCH" and self.world.behavior.policy_patch == "merged"
        content = _merged(self.world.resources.properties(path), body) if merges else body
        kind = _type_of(path)
        for one in self._effective(path):
            if one.own_policy is not None and _resource(path, self.world.behavior.policy_denial):
                yield Violation(one, one.own_policy)
            elif (policy := _policy_of(one, kind)) and one.effect == "Deny":
                value = policy.value(content)
                if policy.denies(value, one.parameters) and not _recovers(body):
                    yield Violation(one, policy, value)


_READ_ASSIGNMENTS = "Microsoft.Authorization/policyAssignments/read"


def _denial_of(kind: str, tenant_id: str) -> PolicyAssignment:
    """The policy of the switch `policy_denial`, which is assigned to the management group of the tenant."""
    policy = Policy("00000000-0000-4000-8000-000000000000", f"No changes of {kind}", kind)
    scope = f"/providers/Microsoft.Management/managementGroups/{tenant_id}"
    return PolicyAssignment(scope, "sandbox", {}, own_policy=policy)


def _policy_of(assignment: PolicyAssignment, kind: Any) -> Policy | None:
    """The definition of an assignment, if it is for resources of the type."""
    policy = assignment.policy
    return policy if policy and str(kind).lower() == policy.resource_type.lower() else None


def _type_of(path: str) -> str:
    """The type of the resource in a path."""
    namespace, *parts = path.rpartition("/providers/")[2].split("/")
    return "/".join([namespace, *parts[0::2]])


def _recovers(body: dict[str, Any]) -> bool:
    """Whether the request recovers a deleted vault, which the policies for vaults exempt."""
    properties = body.get("properties")
    return isinstance(properties, dict) and str(properties.get("createMode")).lower() == "recover"


def _merged(current: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    properties = body.get("properties")
    return {**body, "properties": {**current, **(properties if isinstance(properties, dict) else {})}}


def _level(position: str, resource_type: str) -> str | None:
    """The level of the lock that each resource of the type has by the switch; None if it has no lock."""
    if position == "deletions":
        return CAN_NOT_DELETE if resource_type in _TYPES.values() else None
    return READ_ONLY if _TYPES.get(position) == resource_type else None


def _resource(path: str, *positions: str) -> str:
    """The id of the account or vault in a path; empty if the path has none of the kinds in `positions`."""
    for position in positions:
        found = _RESOURCES[position].match(path) if position in _RESOURCES else None
        if found:
            return found[0]
    return ""
