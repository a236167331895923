# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Resource locks, which requests or the switch `resource_lock` have set, and the Azure Policy of the switches
`policy_denial`, `policy_message` and `policy_modify`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..resource_manager.rules import Resources
from ..shared import world as shared
from ..shared.errors import gateway_refusal, scope_locked
from . import errors
from .rules import covers, subscription_in

READ_ONLY, CAN_NOT_DELETE = "ReadOnly", "CanNotDelete"
# Position of a switch -> type of the resources.
_TYPES = {
    "accounts": "Microsoft.Batch/batchAccounts",
    "vaults": "Microsoft.KeyVault/vaults",
    "accounts_without_key": "Microsoft.Batch/batchAccounts",
}
_RESOURCES = {
    position: re.compile(f".*/providers/{re.escape(kind)}/[^/]+", re.IGNORECASE) for position, kind in _TYPES.items()
}
# These are separate resources: a lock of an account does not cover its locks, and a denial of accounts neither these
# nor role assignments.
_LOCKS, _ROLES = "/providers/microsoft.authorization/locks/", "/roleassignments/"
_POLICY = "00000000-0000-4000-8000-000000000000"
# The built-in policy for accounts without a key, and its assignment in the landing zones of Microsoft.
_WITHOUT_KEY = "99e9ccd8-3db9-4592-b0d1-14b1715a4d8a"
_TITLE = "Azure Batch account should use customer-managed keys to encrypt data"
_ASSIGNMENT = "Enforce-Encryption-CMK"
# The message that the owner of the assignment has set, and the documented one of missing multi-factor authentication.
_REASON, _MFA = "Ask the platform team.", "MFA is required"


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

    def check(self, method: str, path: str, read_body: Callable[[], dict[str, Any]]) -> None:
        """Check a request that changes something, which may be for a child resource. Raises AzureError. A policy may
        change the body."""
        if _LOCKS in path.lower():
            return
        locked = self._locked(method, path)
        if locked:
            raise scope_locked(path, "delete" if method == "DELETE" else "write", locked)
        if method not in ("PUT", "PATCH") or _ROLES in path.lower():
            return
        behavior = self.world.behavior
        denied = _resource(path, behavior.policy_denial)
        if denied and (behavior.policy_denial != "accounts_without_key" or _leaves_key(read_body())):
            raise gateway_refusal(403, self._denial(denied))
        if behavior.policy_modify != "none" and _resource(path, "accounts", "vaults") == path:
            _modify(read_body(), behavior.policy_modify)

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
        """The error of a refused change, with the message of the switch `policy_message`. The policy is assigned to the
        management group of the tenant. With the identifiers in the message, the caller cannot read the policy, so that
        `evaluationDetails` is missing."""
        name, form = resource.rpartition("/")[2], self.world.behavior.policy_message
        message, hint = f"Resource '{name}' was disallowed by policy.", "See error details for policy resource IDs."
        refusal = {"code": "RequestDisallowedByPolicy", "target": name}
        if form == "mfa":
            return {**refusal, "message": f"{message} Reasons: {_MFA}. {hint}"}
        identifiers, info = self._policy(resource, shows_details=form != "identifiers")
        texts = {
            "identifiers": f"Policy identifiers: '{json.dumps(identifiers, separators=(',', ':'))}'.",
            "reasons": f"Reasons: '{_REASON}'. {hint}",
            "neither": hint,
        }
        more = [{"type": "PolicyViolation", "info": info}]
        return {**refusal, "message": f"{message} {texts[form]}", "additionalInfo": more}

    def _policy(self, resource: str, *, shows_details: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The identifiers for the message, and the policy for `additionalInfo`."""
        tenant = self.world.resources.tenant_of(subscription_in(resource))
        scope = f"/providers/Microsoft.Management/managementGroups/{tenant}"
        position = self.world.behavior.policy_denial
        is_of_key = position == "accounts_without_key"
        name, policy = (_ASSIGNMENT, _WITHOUT_KEY) if is_of_key else ("sandbox", _POLICY)
        title = _TITLE if is_of_key else f"No changes of {_TYPES[position]}"
        assignment = f"{scope}/providers/Microsoft.Authorization/policyAssignments/{name}"
        definition = f"/providers/Microsoft.Authorization/policyDefinitions/{policy}"
        identifiers = [
            {
                "policyAssignment": {"name": name, "id": assignment},
                "policyDefinition": {"name": title, "id": definition},
            }
        ]
        expressions = [_expression("type", "type", _TYPES[position], "Equals", expressionValue=_TYPES[position])]
        if is_of_key:
            alias = f"{_TYPES[position]}/encryption.keySource"
            shown = {"expressionValue": "Microsoft.Batch"}
            expressions.append(
                _expression(alias, "properties.encryption.keySource", "Microsoft.KeyVault", "NotEquals", **shown)
            )
        info = {
            **({"evaluationDetails": {"evaluatedExpressions": expressions}} if shows_details else {}),
            "policyDefinitionId": definition,
            "policyDefinitionName": policy,
            "policyDefinitionDisplayName": title,
            "policyDefinitionEffect": "Deny",
            "policyAssignmentId": assignment,
            "policyAssignmentName": name,
            "policyAssignmentDisplayName": name,
            "policyAssignmentScope": scope,
            "policyAssignmentParameters": {},
            "policyExemptionIds": [],
        }
        return identifiers, info


def _expression(expression: str, path: str, target: str, operator: str, **value: str) -> dict[str, str]:
    """A condition that is met."""
    found = {"result": "True", "expressionKind": "Field", "expression": expression, "path": path}
    return {**found, **value, "targetValue": target, "operator": operator}


def _leaves_key(body: dict[str, Any]) -> bool:
    """Whether the account would have no customer-managed key. A PATCH without the encryption keeps it."""
    properties = body.get("properties") or {}
    encryption = properties.get("encryption") or ({} if "location" in body else {"keySource": "Microsoft.KeyVault"})
    return bool(encryption.get("keySource") != "Microsoft.KeyVault")


def _modify(body: dict[str, Any], position: str) -> None:
    """Change the request as a policy with the effect `modify` does."""
    if position == "network":
        body["properties"] = {**(body.get("properties") or {}), "publicNetworkAccess": "Disabled"}
    elif body.get("tags"):
        body["tags"] = dict.fromkeys(body["tags"], "policy")


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
