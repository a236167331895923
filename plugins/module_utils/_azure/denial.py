# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The policies of Azure Policy that have denied a request, and the values that would comply.

https://learn.microsoft.com/azure/governance/policy/how-to/get-compliance-data describes the details of an evaluation.
They are missing if the caller may not read the policy.

This module util is private to the collection.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .._core.errors import LONGEST, Denied

DISALLOWED = "RequestDisallowedByPolicy"
# The three messages: with the identifiers of the policies, with the non-compliance messages of their assignments, and
# with neither. Microsoft documents the last message of missing multi-factor authentication without quotation marks.
_IDENTIFIERS = re.compile(r"Policy identifiers: '(?P<json>\[.*\])'")
_REASONS = re.compile(r"Reasons: '?(?P<reasons>.+?)'?\. See error details")
_SIGN_IN = re.compile(r"\bMFA\b|multi-?factor", re.IGNORECASE)
_COMPLY = "Comply, or request an exemption."
_USE_MFA = "Sign in with MFA, or use a service principal or a managed identity."
# The operator of a condition, in lower case -> its negation, and what a value that meets the condition is.
_OPERATORS = {
    "equals": ("notequals", "is {}"),
    "notequals": ("equals", "is not {}"),
    "in": ("notin", "is one of {}"),
    "notin": ("in", "is none of {}"),
    "contains": ("notcontains", "contains {}"),
    "notcontains": ("contains", "does not contain {}"),
    "like": ("notlike", "is like {}"),
    "notlike": ("like", "is not like {}"),
    "less": ("greaterorequals", "is less than {}"),
    "greaterorequals": ("less", "is at least {}"),
    "greater": ("lessorequals", "is greater than {}"),
    "lessorequals": ("greater", "is at most {}"),
    "exists": ("notexists", "is set"),
    "notexists": ("exists", "is not set"),
}
# Conditions that only select the resources or the requests to which a policy applies.
_SELECTORS = ("type", "kind", "name", "id", "properties.createMode")
# The most characters of a value, and the fewest characters of a name with which it can be recognized.
_LONGEST_VALUE = 60
_SHORTEST_NAME = 16


def policies(error: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The policies that an error of Azure names: the `assignment` and the `definition` by their display names, their
    ids, the `scope` of the assignment, and what the policy `requires`, such as `encryption.keySource is
    Microsoft.KeyVault`."""
    said = error.get("additionalInfo")
    infos = [one.get("info") for one in said if isinstance(one, Mapping)] if isinstance(said, list) else []
    found = [
        _of_info(one) for one in infos if isinstance(one, Mapping) and isinstance(one.get("policyAssignmentId"), str)
    ]
    return found or [*_of_message(str(error.get("message")))]


def denied(what: str, service: Mapping[str, Any]) -> Denied:
    """The error for a denied request."""
    names, reasons = service.get("policies") or [], _REASONS.search(service["message"])
    is_unnamed = not names and reasons is None
    if is_unnamed or _SIGN_IN.search(f"{service['message']} {names}"):
        why = "Azure names no policy, so multi-factor authentication (MFA) may be missing"
        if not is_unnamed:
            why = "Azure requires multi-factor authentication (MFA)"
        text = f"Could not {what}: {why}. {_USE_MFA}"
        return Denied(text, code="mfa_required", is_of_account=False, remedy=_USE_MFA, azure=service)
    text = _text(what, names, reasons["reasons"] if reasons else "")
    return Denied(text, code="denied_by_policy", remedy=_COMPLY, azure=service)


def _text(what: str, names: Sequence[Mapping[str, Any]], reasons: str) -> str:
    """Names the assignment, and the first required value, or why the policy denies the request."""
    first = names[0] if names else {}
    name = first.get("assignment") or reasons
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    for required in first.get("requires") or ():
        begin, end = f"Could not {what}: Azure Policy (", f"{more}) requires that {required}. {_COMPLY}"
        room = LONGEST - len(begin) - len(end)
        if room >= min(_SHORTEST_NAME, len(name)):
            return f"{begin}{_cut(name, room)}{end}"
    begin, end = f"Could not {what}: Azure Policy denies it (", f"{more}). {_COMPLY}"
    why = reasons or str(first.get("definition") or "")
    if why and why != name:
        name = f"{name}: {why}"
    return f"{begin}{_cut(name, max(_SHORTEST_NAME, LONGEST - len(begin) - len(end)))}{end}"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _of_info(info: Mapping[str, Any]) -> dict[str, Any]:
    details = info.get("evaluationDetails")
    evaluated = details.get("evaluatedExpressions") if isinstance(details, Mapping) else None
    expressions = [one for one in evaluated if isinstance(one, Mapping)] if isinstance(evaluated, list) else []
    return {
        "assignment": info.get("policyAssignmentDisplayName") or info["policyAssignmentId"].rpartition("/")[2],
        "assignment_id": info["policyAssignmentId"],
        "scope": info.get("policyAssignmentScope"),
        "definition": info.get("policyDefinitionDisplayName") or info.get("policyDefinitionName"),
        "definition_id": info.get("policyDefinitionId"),
        "requires": _required(expressions),
    }


def _required(expressions: Sequence[Mapping[str, Any]]) -> list[str]:
    """What would not meet the conditions of the policy. If no condition is met but those that select the resource, the
    others are negated in the policy (`not`). If one is met, they may have no effect."""
    conditions = [
        (one, str(one.get("result")).lower() == "true")
        for one in expressions
        if one.get("expressionKind") == "Field" and _path(one) not in _SELECTORS
    ]
    met = [one for one, is_met in conditions if is_met]
    found = [_negated(one) for one in met] if met else [_shown(one, _operator(one)) for one, _is_met in conditions]
    return [*dict.fromkeys(filter(None, found))]


def _path(condition: Mapping[str, Any]) -> str:
    return str(condition.get("path") or condition.get("expression"))


def _operator(condition: Mapping[str, Any]) -> str:
    """In lower case. `exists` has a target, so it has two names here."""
    operator = str(condition.get("operator")).lower()
    is_negative = operator == "exists" and str(condition.get("targetValue")).lower() == "false"
    return "notexists" if is_negative else operator


def _negated(condition: Mapping[str, Any]) -> str:
    return _shown(condition, _OPERATORS.get(_operator(condition), ("", ""))[0])


def _shown(condition: Mapping[str, Any], operator: str) -> str:
    """Empty if the operator is not known."""
    if operator not in _OPERATORS:
        return ""
    target = condition.get("targetValue")
    value = ", ".join(map(str, target)) if isinstance(target, list) else str(target)
    name = _path(condition).removeprefix("properties.")
    return f"{name} {_OPERATORS[operator][1].format(_cut(value, _LONGEST_VALUE))}"


def _of_message(message: str) -> Iterator[dict[str, Any]]:
    found = _IDENTIFIERS.search(message)
    try:
        named = json.loads(found["json"]) if found else []
    except ValueError:
        named = []
    for one in filter(lambda one: isinstance(one, Mapping), named):
        assignment, definition = one.get("policyAssignment") or {}, one.get("policyDefinition") or {}
        yield {
            "assignment": assignment.get("name") or str(assignment.get("id")).rpartition("/")[2],
            "assignment_id": assignment.get("id"),
            "scope": str(assignment.get("id")).partition("/providers/Microsoft.Authorization/")[0],
            "definition": definition.get("name"),
            "definition_id": definition.get("id"),
            "requires": [],
        }
