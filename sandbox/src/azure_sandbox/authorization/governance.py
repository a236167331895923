# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Resource locks and Azure policies: those that requests have created, and those that the switches `resource_lock` and
`policy_denial` set."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..resource_manager.rules import Resources
from ..shared import world as shared
from ..shared.errors import disallowed_by_policy, scope_locked
from . import errors
from .rules import covers, subscription_in

READ_ONLY, CAN_NOT_DELETE = "ReadOnly", "CanNotDelete"
# The built-in policy "Azure Batch account should use customer-managed keys to encrypt data". Its effect is a parameter.
KEY_POLICY = "99e9ccd8-3db9-4592-b0d1-14b1715a4d8a"
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


@dataclass(frozen=True)
class PolicyAssignment:
    scope: str
    name: str
    properties: dict[str, Any]

    @property
    def denies(self) -> bool:
        """Whether it denies accounts without a customer-managed key, which is the only policy that is emulated."""
        effect = ((self.properties.get("parameters") or {}).get("effect") or {}).get("value")
        definition = str(self.properties.get("policyDefinitionId", ""))
        return effect == "Deny" and definition.lower().endswith(f"/{KEY_POLICY}")


class World(shared.World, Protocol):
    resources: Resources


@dataclass
class Governance:
    world: World
    # By scope and name in lower case.
    _locks: dict[tuple[str, str], Lock] = field(default_factory=dict)
    _assignments: dict[tuple[str, str], PolicyAssignment] = field(default_factory=dict)

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

    def put_assignment(self, scope: str, name: str, properties: dict[str, Any]) -> PolicyAssignment:
        assignment = self._assignments[scope.lower(), name.lower()] = PolicyAssignment(scope, name, properties)
        return assignment

    def delete_assignment(self, scope: str, name: str) -> PolicyAssignment | None:
        return self._assignments.pop((scope.lower(), name.lower()), None)

    # Both

    def forget(self, scope: str) -> None:
        """Remove everything at the scope and below, because its resource group is deleted."""
        self._locks = {key: lock for key, lock in self._locks.items() if not covers(scope, lock.scope)}
        self._assignments = {key: one for key, one in self._assignments.items() if not covers(scope, one.scope)}

    def check(self, method: str, path: str, body: dict[str, Any]) -> None:
        """Check a request that changes something, which may be for a child resource. Raises AzureError."""
        if _SEPARATE.search(path):
            return
        locked = self._locked(method, path)
        if locked:
            raise scope_locked(path, "delete" if method == "DELETE" else "write", locked)
        denied = self._denied(path, body) if method in _CHANGES else ""
        if denied:
            raise disallowed_by_policy(denied.rpartition("/")[2])

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

    def _denied(self, path: str, body: dict[str, Any]) -> str:
        """The resource that a policy denies to change; empty if there is none."""
        if "/roleassignments/" in path.lower():
            # A role assignment is a separate resource, which the denial does not cover.
            return ""
        account = _resource(path, "accounts")
        properties = body.get("properties")
        encryption = properties.get("encryption") if isinstance(properties, dict) else None
        has_key = isinstance(encryption, dict) and encryption.get("keySource") == "Microsoft.KeyVault"
        if (
            account
            and not has_key
            and any(one.denies and covers(one.scope, path) for one in self._assignments.values())
        ):
            return account
        return _resource(path, self.world.behavior.policy_denial)


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
