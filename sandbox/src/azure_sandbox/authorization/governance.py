# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Resource locks, which requests or the switch `resource_lock` have set, and the Azure Policy of the switch
`policy_denial`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..resource_manager.rules import Resources
from ..shared import world as shared
from ..shared.errors import gateway_refusal, scope_locked
from . import errors
from .rules import covers, subscription_in

READ_ONLY, CAN_NOT_DELETE = "ReadOnly", "CanNotDelete"
# Position of a switch -> type of the resources.
_TYPES = {"accounts": "Microsoft.Batch/batchAccounts", "vaults": "Microsoft.KeyVault/vaults"}
_RESOURCES = {
    position: re.compile(f".*/providers/{re.escape(kind)}/[^/]+", re.IGNORECASE) for position, kind in _TYPES.items()
}
# These are separate resources: a lock of an account does not cover its locks, and a denial of accounts neither these
# nor role assignments.
_LOCKS, _ROLES = "/providers/microsoft.authorization/locks/", "/roleassignments/"
_POLICY = "00000000-0000-4000-8000-000000000000"


@dataclass(frozen=True)
class Lock:
    scope: str
    name: str
    level: str


class World(shared.World, Protocol):
    resources: Resources


@dataclass
class Governance:
    world: World
    # By scope and name in lower case.
    _locks: dict[tuple[str, str], Lock] = field(default_factory=dict)

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

    def forget(self, scope: str) -> None:
        """Remove the locks at the scope and below, because its resource group is deleted."""
        self._locks = {key: lock for key, lock in self._locks.items() if not covers(scope, lock.scope)}

    def check(self, method: str, path: str) -> None:
        """Check a request that changes something, which may be for a child resource. Raises AzureError."""
        if _LOCKS in path.lower():
            return
        locked = self._locked(method, path)
        if locked:
            raise scope_locked(path, "delete" if method == "DELETE" else "write", locked)
        denied = _resource(path, self.world.behavior.policy_denial)
        if denied and method in ("PUT", "PATCH") and _ROLES not in path.lower():
            raise gateway_refusal(403, self._denial(denied))

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

    def _denial(self, resource: str) -> dict[str, Any]:
        """The error of a refused change. The policy is assigned to the management group of the tenant, which the caller
        cannot read, so that `evaluationDetails` is missing."""
        tenant = self.world.resources.tenant_of(subscription_in(resource))
        scope = f"/providers/Microsoft.Management/managementGroups/{tenant}"
        assignment = f"{scope}/providers/Microsoft.Authorization/policyAssignments/sandbox"
        definition = f"/providers/Microsoft.Authorization/policyDefinitions/{_POLICY}"
        title = f"No changes of {_TYPES[self.world.behavior.policy_denial]}"
        identifiers = [
            {
                "policyAssignment": {"name": "sandbox", "id": assignment},
                "policyDefinition": {"name": title, "id": definition},
            }
        ]
        info = {
            "policyDefinitionId": definition,
            "policyDefinitionName": _POLICY,
            "policyDefinitionDisplayName": title,
            "policyDefinitionEffect": "Deny",
            "policyAssignmentId": assignment,
            "policyAssignmentName": "sandbox",
            "policyAssignmentDisplayName": "sandbox",
            "policyAssignmentScope": scope,
            "policyAssignmentParameters": {},
            "policyExemptionIds": [],
        }
        name, shown = resource.rpartition("/")[2], json.dumps(identifiers, separators=(",", ":"))
        return {
            "code": "RequestDisallowedByPolicy",
            "target": name,
            "message": f"Resource '{name}' was disallowed by policy. Policy identifiers: '{shown}'.",
            "additionalInfo": [{"type": "PolicyViolation", "info": info}],
        }


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
