# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Azure Policy: the few built-in definitions that are emulated, their assignments, and what they deny."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NEVER = float("inf")
_DEFINITIONS = "/providers/Microsoft.Authorization/policyDefinitions"
MISSING = object()


@dataclass(frozen=True)
class Policy:
    """A definition that compares one field of a resource. A missing field is not equal to any value."""

    guid: str
    name: str
    resource_type: str
    # The alias of the field, and its path in the resource.
    field: str = ""
    path: tuple[str, ...] = ()
    operator: str = "NotEquals"
    target: str = ""
    # The parameter of an assignment that has the target, a list.
    parameter: str = ""

    @property
    def id(self) -> str:
        return f"{_DEFINITIONS}/{self.guid}"

    def value(self, resource: Mapping[str, Any]) -> Any:
        found: Any = resource
        for name in self.path:
            found = found.get(name, MISSING) if isinstance(found, Mapping) else MISSING
        return MISSING if found is None else found

    def targets(self, parameters: Mapping[str, Any]) -> list[str]:
        if not self.parameter:
            return [self.target]
        values = _parameter(parameters, self.parameter)
        return [str(value) for value in values] if isinstance(values, list) else []

    def denies(self, value: Any, parameters: Mapping[str, Any]) -> bool:
        return str(value).lower() not in {target.lower() for target in self.targets(parameters)}


# https://github.com/Azure/azure-policy/tree/master/built-in-policies/policyDefinitions
POLICIES = {
    policy.guid: policy
    for policy in (
        Policy(
            "99e9ccd8-3db9-4592-b0d1-14b1715a4d8a",
            "Azure Batch account should use customer-managed keys to encrypt data",
            "Microsoft.Batch/batchAccounts",
            "Microsoft.Batch/batchAccounts/encryption.keySource",
            ("properties", "encryption", "keySource"),
            target="Microsoft.KeyVault",
        ),
        Policy(
            "12d4fa5e-1f9f-4c21-97a9-b99b3c6611b5",
            "Azure Key Vault should use RBAC permission model",
            "Microsoft.KeyVault/vaults",
            "Microsoft.KeyVault/vaults/enableRbacAuthorization",
            ("properties", "enableRbacAuthorization"),
            target="True",
        ),
        Policy(
            "7433c107-6db4-4ad1-b57a-a76dce0154a1",
            "Storage accounts should be limited by allowed SKUs",
            "Microsoft.Storage/storageAccounts",
            "Microsoft.Storage/storageAccounts/sku.name",
            ("sku", "name"),
            operator="NotIn",
            parameter="listOfAllowedSKUs",
        ),
    )
}


@dataclass(frozen=True)
class PolicyAssignment:
    scope: str
    name: str
    properties: Mapping[str, Any]
    created_on: str = ""
    created_by: str = ""
    created_by_application: str = ""
    # Azure applies the assignment between these two times.
    effective_from: float = 0
    effective_until: float = NEVER
    # Not in POLICIES: it denies every change of a type (switch `policy_denial`).
    own_policy: Policy | None = None

    @property
    def id(self) -> str:
        return f"{self.scope}/providers/Microsoft.Authorization/policyAssignments/{self.name}"

    @property
    def policy(self) -> Policy | None:
        """The definition, if it is emulated."""
        definition = str(self.properties.get("policyDefinitionId", ""))
        return self.own_policy or POLICIES.get(definition.lower().rpartition("/")[2])

    @property
    def parameters(self) -> Mapping[str, Any]:
        parameters = self.properties.get("parameters")
        return parameters if isinstance(parameters, Mapping) else {}

    @property
    def effect(self) -> str:
        return "Deny" if self.own_policy else str(_parameter(self.parameters, "effect") or "Audit")

    @property
    def reason(self) -> str:
        """The message for resources that do not comply; empty if the assignment has none."""
        messages = self.properties.get("nonComplianceMessages")
        first = messages[0] if isinstance(messages, list) and messages else None
        return str(first.get("message") or "") if isinstance(first, Mapping) else ""

    def is_effective(self, now: float) -> bool:
        return self.effective_from <= now < self.effective_until


def _parameter(parameters: Mapping[str, Any], name: str) -> Any:
    found = parameters.get(name)
    return found.get("value") if isinstance(found, Mapping) else None


@dataclass(frozen=True)
class Violation:
    assignment: PolicyAssignment
    policy: Policy
    # Of the field; MISSING if the resource does not have it.
    value: Any = MISSING

    @property
    def details(self) -> dict[str, Any]:
        """The `evaluationDetails` of denials and of checks."""
        policy, kind = self.policy, self.policy.resource_type
        expressions = [_expression("type", "type", kind, kind, "Equals")]
        if policy.field:
            targets = policy.targets(self.assignment.parameters)
            target = targets if policy.parameter else targets[0]
            expressions.append(_expression(policy.field, ".".join(policy.path), self.value, target, policy.operator))
        reason = {"reason": self.assignment.reason} if self.assignment.reason else {}
        return {"evaluatedExpressions": expressions, **reason}

    @property
    def policy_info(self) -> dict[str, str]:
        return {"policyDefinitionId": self.policy.id, "policyAssignmentId": self.assignment.id}


def _expression(field: str, path: str, value: Any, target: Any, operator: str) -> dict[str, Any]:
    found: dict[str, Any] = {"result": "True", "expressionKind": "Field", "expression": field, "path": path}
    if value is not MISSING:
        found["expressionValue"] = value
    return {**found, "targetValue": target, "operator": operator}


# The refusal


def denial(name: str, violations: Sequence[Violation], *, shows_details: bool) -> dict[str, Any]:
    """The error of a refused change of the resource `name`."""
    reasons = [one.assignment.reason for one in violations if one.assignment.reason]
    if reasons:
        why = f"Reasons: '{', '.join(reasons)}'. See error details for policy resource IDs."
    else:
        identifiers = [
            {
                "policyAssignment": {"name": _display_name(one), "id": one.assignment.id},
                "policyDefinition": {"name": one.policy.name, "id": one.policy.id},
            }
            for one in violations
        ]
        why = f"Policy identifiers: '{json.dumps(identifiers, separators=(',', ':'), ensure_ascii=False)}'."
    return {
        "code": "RequestDisallowedByPolicy",
        "target": name,
        "message": f"Resource '{name}' was disallowed by policy. {why}",
        "additionalInfo": [_info(one, shows_details=shows_details) for one in violations],
    }


def _display_name(violation: Violation) -> str:
    return str(violation.assignment.properties.get("displayName") or violation.assignment.name)


def _info(violation: Violation, *, shows_details: bool) -> dict[str, Any]:
    assignment, policy = violation.assignment, violation.policy
    info = {
        **({"evaluationDetails": violation.details} if shows_details else {}),
        "policyDefinitionId": policy.id,
        "policyDefinitionName": policy.guid,
        "policyDefinitionDisplayName": policy.name,
        "policyDefinitionEffect": assignment.effect,
        "policyAssignmentId": assignment.id,
        "policyAssignmentName": assignment.name,
        "policyAssignmentDisplayName": _display_name(violation),
        "policyAssignmentScope": assignment.scope,
        "policyAssignmentParameters": dict(assignment.parameters),
        "policyExemptionIds": [],
    }
    return {"type": "PolicyViolation", "info": info}
