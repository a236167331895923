# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Azure Policy: what assigned policies deny, how a denial looks, and which policies a check of restrictions shows."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from batch_calls import VERSION, account_path, batch, create
from key_vault_calls import NEW, OLD, make_vault, put_vault, vault_body, vault_path
from sandbox_client import Control, Sandbox
from test_governance import POLICIES, denial

CHECK = "2024-10-01"
_HERE = "/providers/Microsoft.Authorization"
KEY = f"{_HERE}/policyDefinitions/99e9ccd8-3db9-4592-b0d1-14b1715a4d8a"
RBAC = f"{_HERE}/policyDefinitions/12d4fa5e-1f9f-4c21-97a9-b99b3c6611b5"
SOURCE = "Microsoft.Batch/batchAccounts/encryption.keySource"
ACCOUNT = {"type": "Microsoft.Batch/batchAccounts", "location": "westeurope", "properties": {}}
VAULT = {"type": "Microsoft.KeyVault/vaults", "location": "westeurope"}
TAGS = {"tags": {"a": "b"}}


def assign(sandbox: Sandbox, scope: str, definition: str = KEY, effect: str = "Deny", **properties: Any) -> str:
    """The id of a new assignment."""
    path = f"{scope}{_HERE}/policyAssignments/test"
    sent = {"policyDefinitionId": definition, **properties, "parameters": {"effect": {"value": effect}}}
    sent["parameters"].update(properties.get("parameters", {}))
    response = sandbox.arm("PUT", path, POLICIES, {"properties": sent})
    assert response.status_code == 201, response.text
    return path


def check(
    sandbox: Sandbox,
    scope: str,
    content: dict[str, Any],
    version: str = CHECK,
    session: requests.Session | None = None,
    **members: Any,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The restrictions of fields, and the evaluations of the content."""
    body = {"resourceDetails": {"resourceContent": content, "apiVersion": VERSION}, **members}
    path = f"{scope}/providers/Microsoft.PolicyInsights/checkPolicyRestrictions"
    response = sandbox.arm("POST", path, version, body, session)
    assert response.status_code == 200, response.text
    assert response.headers["x-ms-ratelimit-remaining-policy-insights-requests"] == "149"
    assert "x-ms-ratelimit-remaining-subscription-reads" in response.headers
    found = response.json()
    return found["fieldRestrictions"], found["contentEvaluationResult"]["policyEvaluations"]


def shown(sandbox: Sandbox, scope: str, content: dict[str, Any] | None = None, **members: Any) -> list[str]:
    """The assignments that a check shows."""
    _fields, evaluations = check(sandbox, scope, content or ACCOUNT, **members)
    return [one["policyInfo"]["policyAssignmentId"] for one in evaluations]


# Denials


def test_denial_names_the_assignment_the_field_and_its_value(sandbox: Sandbox) -> None:
    create(sandbox)
    path = assign(sandbox, sandbox.group, displayName="Own keys only")
    body = {"tags": {"a": "b"}, "properties": {"encryption": {"keySource": "Microsoft.Batch"}}}

    error = denial(batch(sandbox, "PATCH", "account1", body))

    identifiers = (
        f'[{{"policyAssignment":{{"name":"Own keys only","id":"{path}"}},"policyDefinition":{{"name":"Azure Batch'
        f' account should use customer-managed keys to encrypt data","id":"{KEY}"}}}}]'
    )
    assert error["message"] == f"Resource 'account1' was disallowed by policy. Policy identifiers: '{identifiers}'."
    [violation] = error["additionalInfo"]
    assert violation["type"] == "PolicyViolation"
    info = violation["info"]
    assert (info["policyAssignmentId"], info["policyDefinitionId"], info["policyAssignmentScope"]) == (
        path,
        KEY,
        sandbox.group,
    )
    assert info["policyAssignmentParameters"] == {"effect": {"value": "Deny"}}
    kind, field = info["evaluationDetails"]["evaluatedExpressions"]
    assert kind["expressionValue"] == "Microsoft.Batch/batchAccounts"
    assert field == {
        "result": "True",
        "expressionKind": "Field",
        "expression": SOURCE,
        "path": "properties.encryption.keySource",
        "expressionValue": "Microsoft.Batch",
        "targetValue": "Microsoft.KeyVault",
        "operator": "NotEquals",
    }
    # A missing field has no value.
    [missing] = denial(batch(sandbox, "PATCH", "account1", TAGS))["additionalInfo"]
    assert "expressionValue" not in missing["info"]["evaluationDetails"]["evaluatedExpressions"][1]


def test_denial_hides_details_of_assignments_that_the_caller_cannot_read(sandbox: Sandbox) -> None:
    create(sandbox)
    assign(sandbox, sandbox.subscription)
    role = {"role": "Contributor", "scope": account_path(sandbox, "account1")}
    somebody = sandbox.control.principal(roles=[role])
    session = sandbox.bearer(client_id=somebody["client_id"], secret=somebody["secret"])

    response = sandbox.arm("PATCH", account_path(sandbox, "account1"), VERSION, TAGS, session)

    assert "evaluationDetails" not in denial(response)["additionalInfo"][0]["info"]


def test_policy_for_vaults_denies_each_change_without_azure_rbac(sandbox: Sandbox) -> None:
    make_vault(sandbox, "with-policies", OLD, accessPolicies=[])
    make_vault(sandbox, "with-roles", enableRbacAuthorization=True)
    assign(sandbox, sandbox.group, RBAC)

    def change(name: str, **properties: Any) -> int:
        return sandbox.arm("PATCH", vault_path(sandbox, name), NEW, {"properties": properties}).status_code

    assert change("with-policies", enabledForDeployment=True) == 403
    assert change("with-roles", enableRbacAuthorization=False) == 403
    assert change("with-roles", enableRbacAuthorization=True) == 200
    assert put_vault(sandbox, "new-vault").status_code == 403
    # The recovery of a vault is exempt.
    assert sandbox.arm("DELETE", vault_path(sandbox, "with-policies"), NEW).ok
    recovery = vault_body(sandbox, createMode="recover")
    assert sandbox.arm("PUT", vault_path(sandbox, "with-policies"), NEW, recovery).ok


@pytest.mark.parametrize(("position", "status"), [("bare", 403), ("merged", 200)])
def test_document_that_is_evaluated_for_a_patch(sandbox: Sandbox, position: str, status: int) -> None:
    make_vault(sandbox, enableRbacAuthorization=True)
    create(sandbox)
    sandbox.control.behavior(policy_patch=position)
    assign(sandbox, sandbox.group, RBAC)
    assert sandbox.arm("PATCH", vault_path(sandbox), NEW, TAGS).status_code == status
    flag = {"properties": {"enableRbacAuthorization": False}}
    assert sandbox.arm("PATCH", vault_path(sandbox), NEW, flag).status_code == 403

    assign(sandbox, sandbox.group, KEY)
    # The account has no customer-managed key, before and after the change.
    assert batch(sandbox, "PATCH", "account1", TAGS).status_code == 403


@pytest.mark.parametrize("position", ["60", "1800"])
def test_assignments_take_effect_late(sandbox: Sandbox, control: Control, position: str) -> None:
    control.behavior(policy_lag=position)
    create(sandbox)

    def denied() -> tuple[bool, int]:
        return bool(shown(sandbox, sandbox.group)), batch(sandbox, "PATCH", "account1", TAGS).status_code

    path = assign(sandbox, sandbox.group)
    assert denied() == (False, 200)
    control.advance(int(position))
    assert denied() == (True, 403)
    assert sandbox.arm("DELETE", path, POLICIES).status_code == 200
    assert denied() == (True, 403)
    control.advance(int(position))
    assert denied() == (False, 200)


# Checks


def test_check_of_a_whole_document(sandbox: Sandbox) -> None:
    path = assign(sandbox, sandbox.group, nonComplianceMessages=[{"message": "Use your own key."}])
    with_key = {**ACCOUNT, "properties": {"encryption": {"keySource": "Microsoft.KeyVault"}}}

    fields, [found] = check(sandbox, sandbox.group, ACCOUNT)

    assert fields == []
    assert found["policyInfo"] == {"policyDefinitionId": KEY, "policyAssignmentId": path}
    assert found["evaluationResult"] == "NonCompliant"
    assert [one["expression"] for one in found["evaluationDetails"]["evaluatedExpressions"]] == ["type", SOURCE]
    assert found["evaluationDetails"]["reason"] == "Use your own key."
    assert found["effectDetails"] == {"policyEffect": "Deny"}
    assert check(sandbox, sandbox.group, with_key) == ([], [])
    assert check(sandbox, sandbox.group, VAULT) == ([], [])
    # The group is below the subscription, for which the assignment is not.
    assert check(sandbox, sandbox.subscription, ACCOUNT) == ([], [])
    _fields, [old] = check(sandbox, sandbox.group, ACCOUNT, "2020-07-01")
    assert list(old) == ["policyInfo", "evaluationResult", "evaluationDetails"]


def test_check_of_pending_fields(sandbox: Sandbox) -> None:
    path = assign(sandbox, sandbox.subscription)
    pending = [{"field": SOURCE.lower(), "values": ["Microsoft.KeyVault", "Microsoft.Batch"]}]

    [field], evaluations = check(sandbox, sandbox.group, ACCOUNT, pendingFields=pending)

    assert evaluations == []
    assert field == {
        "field": SOURCE,
        "restrictions": [
            {
                "result": "Deny",
                "values": ["Microsoft.Batch"],
                "policy": {"policyDefinitionId": KEY, "policyAssignmentId": path},
                "policyEffect": "deny",
                "reason": "",
            }
        ],
    }


@pytest.mark.parametrize(
    ("position", "for_owner", "for_reader_of_group"),
    [
        ("readable", {"subscription", "group"}, {"group"}),
        ("all", {"subscription", "group", "management"}, {"subscription", "group", "management"}),
        ("none", set(), set()),
    ],
)
def test_scopes_of_a_check(
    sandbox: Sandbox, control: Control, position: str, for_owner: set[str], for_reader_of_group: set[str]
) -> None:
    kinds = {assign(sandbox, sandbox.group): "group", assign(sandbox, sandbox.subscription): "subscription"}
    control.behavior(policy_check_scopes=position, policy_denial="accounts")
    reader = control.principal(roles=[{"role": "Reader", "scope": sandbox.group}])
    session = sandbox.bearer(client_id=reader["client_id"], secret=reader["secret"])

    for who, expected in ((None, for_owner), (session, for_reader_of_group)):
        found = shown(sandbox, sandbox.group, session=who)
        assert {kinds.get(one, "management") for one in found} == expected
        assert len(found) == len(expected)


def test_policies_with_the_effect_audit(sandbox: Sandbox) -> None:
    path = assign(sandbox, sandbox.group, effect="Audit")

    assert shown(sandbox, sandbox.group) == []
    assert shown(sandbox, sandbox.group, includeAuditEffect=True) == [path]
    assert shown(sandbox, sandbox.group, version="2022-03-01", includeAuditEffect=True) == []
