# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Denials of Azure Policy as Azure has sent them, and the messages of this collection."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.azbatch.cmk.plugins.module_utils._azure import denial
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.sdk import service_error
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import LONGEST, Denied

COMPLY = "Comply, or request an exemption."
NAME = "Deny public endpoints of services"
GROUP = "/providers/Microsoft.Management/managementGroups/alz-prod-corp"
ASSIGNMENT = f"{GROUP}/providers/Microsoft.Authorization/policyAssignments/Deny-Public-Endpoints"
DEFINITION = "/providers/Microsoft.Authorization/policyDefinitions/040732e8-d947-40b8-95d6-854c95024bf8"
HINT = "See error details for policy resource IDs."
BEGIN = "Resource 'kv1' was disallowed by policy."
IDENTIFIERS = json.dumps(
    [
        {
            "policyAssignment": {"name": NAME, "id": ASSIGNMENT},
            "policyDefinition": {"name": "It's disabled", "id": DEFINITION, "version": "1.0.0"},
            "policySetDefinition": {"name": "Corp", "id": "/set", "version": "1.0.0"},
        }
    ],
    separators=(",", ":"),
)


def condition(path: str, operator: str, target: Any, *, result: str = "True", kind: str = "Field") -> dict[str, Any]:
    """Without a value, as of a property that the request does not have."""
    alias = path.replace("properties.", "Microsoft.KeyVault/vaults/")
    found = {"result": result, "expressionKind": kind, "expression": alias, "path": path}
    return {**found, "targetValue": target, "operator": operator}


TYPE = condition("type", "Equals", "Microsoft.KeyVault/vaults")
PUBLIC = condition("properties.publicNetworkAccess", "NotEquals", "Disabled")


def info(*conditions: dict[str, Any], name: str = NAME, details: bool = True) -> dict[str, Any]:
    evaluated = {"evaluatedExpressions": [TYPE, *conditions], "reason": "Ask us."}
    return {
        "type": "PolicyViolation",
        "info": {
            **({"evaluationDetails": evaluated} if details else {}),
            "policyDefinitionId": DEFINITION,
            "policyDefinitionName": "040732e8-d947-40b8-95d6-854c95024bf8",
            "policyDefinitionDisplayName": "Public network access should be disabled",
            "policyDefinitionEffect": "Deny",
            "policyAssignmentId": ASSIGNMENT,
            "policyAssignmentName": "Deny-Public-Endpoints",
            "policyAssignmentDisplayName": name,
            "policyAssignmentScope": GROUP,
            "policyAssignmentParameters": {},
            "policyExemptionIds": [],
        },
    }


def denied(message: str, *infos: Any, what: str = "create the key vault kv1") -> Denied:
    error = {"code": "RequestDisallowedByPolicy", "target": "kv1", "message": message, "additionalInfo": list(infos)}
    found = denial.policies(error)
    service = {"status": 403, "code": error["code"], "inner_code": None, "message": message, "policies": found}
    failure = service_error(what, service)
    assert isinstance(failure, Denied)
    assert len(failure.msg) <= LONGEST
    assert failure.facts["remedy"] in failure.msg
    assert failure.facts["azure"] is service
    return failure


@pytest.mark.parametrize(
    ("message", "infos", "said"),
    [
        (
            f"{BEGIN} Policy identifiers: '{IDENTIFIERS}'.",
            [],
            f"denies it ({NAME}: It's disabled). {COMPLY}",
        ),
        (
            f"{BEGIN} Policy identifiers: '{IDENTIFIERS}'.",
            [info(PUBLIC)],
            f"({NAME}) requires that publicNetworkAccess is Disabled. {COMPLY}",
        ),
        (f"{BEGIN} Reasons: 'Ask us.'. {HINT}", [], f"denies it (Ask us.). {COMPLY}"),
        (f"{BEGIN} Reasons: 'Ask us.'. {HINT}", [info(details=False)], f"denies it ({NAME}: Ask us.). {COMPLY}"),
        (
            f"{BEGIN} Reasons: 'Ask us.'. {HINT}",
            [info(PUBLIC)],
            f"({NAME}) requires that publicNetworkAccess is Disabled. {COMPLY}",
        ),
        (f"{BEGIN} {HINT}", [info(details=False, name="Net")], "(Net: Public network access should be disabled)."),
        (
            f"{BEGIN} {HINT}",
            [info(PUBLIC, name="Net"), info(PUBLIC, name="Other")],
            "(Net and 1 more) requires that publicNetworkAccess is Disabled.",
        ),
    ],
    ids=[
        "identifiers",
        "identifiers and details",
        "reason alone",
        "reason",
        "reason and details",
        "neither",
        "two policies",
    ],
)
def test_forms(message: str, infos: list[Any], said: str) -> None:
    failure = denied(message, *infos)

    assert failure.code == "denied_by_policy"
    assert failure.msg.startswith("Could not create the key vault kv1: Azure Policy ")
    assert said in failure.msg
    assert failure.result()["scope"] == "account"


@pytest.mark.parametrize(
    ("evaluated", "requires"),
    [
        ([PUBLIC], ["publicNetworkAccess is Disabled"]),
        (
            [condition("location", "NotIn", ["westeurope", "northeurope"])],
            ["location is one of westeurope, northeurope"],
        ),
        ([condition("properties.sku.name", "In", ["premium"])], ["sku.name is none of premium"]),
        ([condition("properties.enablePurgeProtection", "Exists", "False")], ["enablePurgeProtection is set"]),
        ([condition("tags['owner']", "exists", "false")], ["tags['owner'] is set"]),
        ([condition("properties.softDeleteRetentionInDays", "Less", 90)], ["softDeleteRetentionInDays is at least 90"]),
        (
            [condition("properties.networkAcls.defaultAction", "NotEquals", "Deny"), PUBLIC],
            ["networkAcls.defaultAction is Deny", "publicNetworkAccess is Disabled"],
        ),
        # In a `not`, a condition that is not met denies the request.
        ([condition("location", "In", ["westeurope"], result="False")], ["location is one of westeurope"]),
        (
            [condition("properties.createMode", "Equals", "recover", result="False"), PUBLIC],
            [PUBLIC["path"][11:] + " is Disabled"],
        ),
        # In an `anyOf`, it has no effect.
        ([condition("properties.x", "Exists", "False", result="False"), PUBLIC], ["publicNetworkAccess is Disabled"]),
        ([condition("[length(field('x'))]", "Less", 1, kind="Value")], []),
        ([condition("properties.x", "MatchInsensitively", "?")], []),
        ([], []),
    ],
)
def test_what_a_policy_requires(evaluated: list[Any], requires: list[str]) -> None:
    (policy,) = denied(f"{BEGIN} {HINT}", info(*evaluated)).facts["azure"]["policies"]

    assert policy["requires"] == requires
    assert policy["assignment"] == NAME
    assert (policy["assignment_id"], policy["scope"], policy["definition_id"]) == (ASSIGNMENT, GROUP, DEFINITION)


@pytest.mark.parametrize("longest", [NAME * 4, "R" * 300])
def test_long_names_are_shortened(longest: str) -> None:
    """And a value that does not fit beside a name that can be recognized is left to `azure.policies`."""
    values = [f"region-with-a-long-name-{number}" for number in range(20)]
    what = "create the Batch account abcdefghijklmnopqrstuvwx"
    short = denied(f"{BEGIN} {HINT}", info(PUBLIC, name=longest), what=what)
    long = denied(f"{BEGIN} {HINT}", info(condition("location", "NotIn", values), name=longest), what=what)

    assert f"({longest[:15]}" in short.msg
    assert "…) requires that publicNetworkAccess is Disabled." in short.msg
    assert f"denies it ({longest[:40]}" in long.msg


def test_an_assignment_without_a_name() -> None:
    details = info(name="")
    del details["info"]["policyAssignmentName"]
    unnamed = IDENTIFIERS.replace(f'"name":"{NAME}",', "")

    assert "denies it (Deny-Public-Endpoints: Public" in denied(f"{BEGIN} {HINT}", details).msg
    assert "denies it (Deny-Public-Endpoints: It's" in denied(f"{BEGIN} Policy identifiers: '{unnamed}'.").msg


def test_an_action_that_is_longer_than_an_error() -> None:
    text = denial._text("x" * LONGEST, denial.policies({"additionalInfo": [info(PUBLIC)]}), "")

    assert text.endswith(f": Azure Policy denies it ({NAME[:15]}…). {COMPLY}")


@pytest.mark.parametrize(
    ("message", "infos", "why"),
    [
        (f"Resource was disallowed by policy. Reasons: MFA is required. {HINT}", [], "Azure requires multi-factor"),
        (
            f"{BEGIN} Policy identifiers: '{IDENTIFIERS.replace(NAME, 'Users must use MFA for Create operations')}'.",
            [],
            "Azure requires multi-factor",
        ),
        (BEGIN, [info(name="Users must authenticate with multi-factor authentication")], "Azure requires multi-factor"),
        (BEGIN, [], "Azure names no policy, so multi-factor"),
        (
            f"{BEGIN} Policy identifiers: '[broken'.",
            ["broken", {"info": None}],
            "Azure names no policy, so multi-factor",
        ),
    ],
)
def test_missing_multi_factor_authentication(message: str, infos: list[Any], why: str) -> None:
    """It concerns the caller, and so each account."""
    failure = denied(message, *infos)

    assert (failure.code, "scope" in failure.result()) == ("mfa_required", False)
    assert f"Could not create the key vault kv1: {why}" in failure.msg
    assert "use a service principal or a managed identity" in failure.facts["remedy"]
