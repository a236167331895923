# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Denials of Azure Policy, values that a policy changes without an error, and a data plane that refuses what a role
grants."""

from __future__ import annotations

from typing import Any

import pytest
from one_process import OneProcess, RolesRunner
from role_runs import play_role, run_role, warnings, wrote
from service import GROUP, Service

COMPLY = "Comply, or request an exemption."
ASSIGNMENT, TITLE = "Enforce-Encryption-CMK", "Azure Batch account should use customer-managed keys to encrypt data"
REQUIRES = f"Azure Policy ({ASSIGNMENT}) requires that encryption.keySource is Microsoft.KeyVault. {COMPLY}"
ACCOUNT = "Ensure the account and its identity"


def to_microsoft(runner: OneProcess) -> dict[str, Any]:
    options = {"account_name": "account1", "key_source": "microsoft_batch", "wait_timeout": 30}
    return runner.module("batch_encryption", {"resource_group": GROUP, **options})


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("identifiers", f"Azure Policy denies it ({ASSIGNMENT}: {TITLE}). {COMPLY}"),
        ("reasons", REQUIRES),
        ("neither", REQUIRES),
    ],
)
def test_an_account_may_not_leave_its_key(runner: OneProcess, service: Service, form: str, said: str) -> None:
    _, identifier = service.on_key()
    service.sandbox.control.behavior(policy_denial="accounts_without_key", policy_message=form)

    failed = to_microsoft(runner)

    assert failed["msg"].startswith(f"Could not change the Batch account account1: {said}")
    assert (failed["code"], failed["scope"], failed["applied"]) == ("denied_by_policy", "account", [])
    assert failed["azure"]["code"] == "RequestDisallowedByPolicy"
    assert failed["azure"]["policies"][0]["definition_id"].endswith("99e9ccd8-3db9-4592-b0d1-14b1715a4d8a")
    assert service.encryption() == identifier


def test_missing_multi_factor_authentication_concerns_all_accounts(runner: OneProcess, service: Service) -> None:
    _, identifier = service.on_key()
    service.sandbox.control.behavior(policy_denial="accounts", policy_message="mfa")

    failed = to_microsoft(runner)

    assert (failed["code"], "scope" in failed) == ("mfa_required", False)
    assert "Sign in with MFA, or use a service principal or a managed identity." in failed["msg"]
    assert service.encryption() == identifier


def test_accounts_without_a_key_are_denied(roles: RolesRunner, service: Service) -> None:
    """As in landing zones. With a user-assigned identity, the account is created with its key."""
    service.make_identity()
    service.sandbox.control.behavior(policy_denial="accounts_without_key", policy_message="reasons")

    (failed,) = run_role(roles, "provision").failed
    assert (failed.name, failed.result["code"]) == (ACCOUNT, "denied_by_policy")
    assert REQUIRES in failed.result["msg"]
    assert service.accounts() == []

    play_role(roles, "provision", cmk_identity_id=service.identity_id())
    assert service.encryption() == service.key().id

    (failed,) = run_role(roles, "revert").failed
    assert failed.result["code"] == "denied_by_policy"
    assert (service.encryption(), service.is_available()) == (service.key().id, True)


def test_tags_that_a_policy_changes_are_named(roles: RolesRunner, service: Service) -> None:
    service.sandbox.control.behavior(policy_modify="tags")
    run = play_role(roles, "provision", cmk_tags={"owner": "ops"})

    assert service.account()["tags"] == service.vault()["tags"] == {"owner": "policy"}
    said = "Azure shows other values than were sent: tags.owner (ops -> policy). An Azure Policy with the effect modify"
    assert len([one for one in warnings(run) if said in one]) == 2
    assert wrote(play_role(roles, "provision", cmk_tags={"owner": "ops"})) == []


def test_a_vault_that_a_policy_makes_private_is_named(roles: RolesRunner, service: Service) -> None:
    """The next task fails, because the caller has no private endpoint."""
    service.sandbox.control.behavior(policy_modify="network")
    run = run_role(roles, "provision")

    assert any("public_network_access (enabled -> disabled)" in one for one in warnings(run)), run.output
    assert [one.result["code"] for one in run.failed] == ["network_denied"]


@pytest.mark.parametrize("deny_assignment", ["null", "00000000-0000-4000-8000-000000000001"])
def test_a_data_plane_that_refuses_what_a_role_grants(
    runner: OneProcess, service: Service, deny_assignment: str
) -> None:
    service.make_vault(rbac=True)
    action = "Microsoft.KeyVault/vaults/keys/create/action"
    message = (
        "Caller is not authorized to perform action on resource.\r\nIf role assignments, deny assignments or role "
        "definitions were changed recently, please observe propagation time.\r\nCaller: appid=a;oid=b;iss=c\r\n"
        f"Action: '{action}'\r\nResource: '{service.vault_id().lower()}/keys/key1'\r\nAssignment: (not found)\r\n"
        f"DenyAssignmentId: {deny_assignment}\r\nDecisionReason: null \r\nVault: vault-one;location=westeurope\r\n"
    )
    error = {"code": "Forbidden", "message": message, "innererror": {"code": "ForbiddenByRbac"}}
    match = {"method": "POST", "path": "/keys/key1/create"}
    service.sandbox.control.fault(match=match, answer={"status": 403, "body": {"error": error}}, times=None)
    failed = runner.module("keyvault_cmk_key", {"vault_name": "vault-one", "name": "key1", "wait_timeout": 30})

    is_of_service = deny_assignment == "null"
    assert failed["code"] == ("service_unavailable" if is_of_service else "permission_denied")
    assert (f"Key Vault refuses {action}, which the caller's roles grant." in failed["msg"]) is is_of_service
    assert ("Assign" in failed["msg"]) is not is_of_service
    assert failed["scope"] == "account"
