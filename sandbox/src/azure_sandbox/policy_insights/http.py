# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check of the restrictions by policies over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from starlette.responses import Response

from ..authorization.governance import Governance
from ..authorization.policies import Violation
from ..shared import errors, web
from ..shared import world as shared
from ..shared.web import Route, answer


class World(shared.World, Protocol):
    governance: Governance


Call = web.Call[World]

# The first API version that can show policies with the effect Audit, and that shows effects and reasons.
_EFFECTS_SINCE = "2023-03-01"
_HEADERS = {"x-ms-ratelimit-remaining-policy-insights-requests": "149"}


def check(call: Call) -> Response:
    assert call.caller is not None
    content, pending = _content(call), dict(_pending(call))
    scope = "/subscriptions/" + "/resourceGroups/".join(filter(None, map(call.path.get, ("subscription", "group"))))
    audit = call.api_version >= _EFFECTS_SINCE and call.json.get("includeAuditEffect") is True
    fields: list[dict[str, Any]] = []
    evaluations: list[dict[str, Any]] = []
    for assignment, policy in call.world.governance.restrictions(call.caller, scope, content, audit=audit):
        violation = Violation(assignment, policy, policy.value(content))
        candidates = pending.get(policy.field.lower()) if policy.field else None
        if candidates is None:
            if not policy.field or policy.denies(violation.value, assignment.parameters):
                evaluations.append(_evaluation(call, violation))
        elif refused := [one for one in candidates if policy.denies(one, assignment.parameters)]:
            fields.append({"field": policy.field, "restrictions": [_restriction(call, violation, refused)]})
    document = {"fieldRestrictions": fields, "contentEvaluationResult": {"policyEvaluations": evaluations}}
    return answer(document, headers=_HEADERS)


def _content(call: Call) -> dict[str, Any]:
    details = call.json.get("resourceDetails")
    content = details.get("resourceContent") if isinstance(details, dict) else None
    if not isinstance(content, dict):
        raise errors.invalid_request_content("The value of 'resourceDetails.resourceContent' must be an object")
    return content


def _pending(call: Call) -> Iterator[tuple[str, list[Any]]]:
    """The fields without a value yet, with the values that are checked."""
    fields = call.json.get("pendingFields") or []
    if not isinstance(fields, list):
        raise errors.invalid_request_content("The value of 'pendingFields' must be a list")
    for one in fields:
        if not isinstance(one, dict) or not isinstance(one.get("field"), str):
            raise errors.invalid_request_content("Each of the 'pendingFields' must have a field")
        values = one.get("values") or []
        if not isinstance(values, list):
            raise errors.invalid_request_content("The values of the 'pendingFields' must be lists")
        yield one["field"].lower(), values


def _restriction(call: Call, violation: Violation, refused: list[Any]) -> dict[str, Any]:
    effect = violation.assignment.effect
    found = {"result": effect, "values": refused, "policy": violation.policy_info}
    if call.api_version < _EFFECTS_SINCE:
        return found
    return {**found, "policyEffect": effect.lower(), "reason": violation.assignment.reason}


def _evaluation(call: Call, violation: Violation) -> dict[str, Any]:
    found = {
        "policyInfo": violation.policy_info,
        "evaluationResult": "NonCompliant",
        "evaluationDetails": violation.details,
    }
    if call.api_version < _EFFECTS_SINCE:
        return found
    return {**found, "effectDetails": {"policyEffect": violation.assignment.effect}}


PROVIDER = "Microsoft.PolicyInsights"

API_VERSIONS = frozenset({"2020-07-01", "2022-03-01", "2023-03-01", "2024-10-01"})

_HERE = "/providers/Microsoft.PolicyInsights/checkPolicyRestrictions"
_ACTION = "Microsoft.PolicyInsights/checkPolicyRestrictions/read"

ROUTES: tuple[Route, ...] = (
    Route("POST", "/subscriptions/{subscription}" + _HERE, check, _ACTION),
    Route("POST", "/subscriptions/{subscription}/resourceGroups/{group}" + _HERE, check, _ACTION),
)
