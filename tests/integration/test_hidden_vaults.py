# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A caller who may not read all vaults and identities of a subscription, however Azure responds to the lists: a vault
or an identity that is not listed is unknown, never missing."""

from __future__ import annotations

from typing import Any

import pytest
from callers import give, sign_in
from harness import writes
from one_process import OneProcess
from operators import done
from role_runs import VARS
from service import GROUP, OFFICER, Service

from azure_sandbox.shared.behavior import POSITIONS

ON_ACCOUNT = {"resource_group": GROUP, "account_name": "account1"}
# Of all accounts of the subscription, and of no vault and no identity.
ON_ACCOUNTS = (
    "Microsoft.Authorization/permissions/read",
    "Microsoft.Batch/batchAccounts/pools/read",
    "Microsoft.Batch/batchAccounts/read",
    "Microsoft.Batch/batchAccounts/write",
    "Microsoft.Resources/subscriptions/resourceGroups/read",
)
CHECK_NAME = "Microsoft.KeyVault/checkNameAvailability/read"
VAULT_READ = "Microsoft.KeyVault/vaults/read"


@pytest.fixture(params=POSITIONS["subscription_list"], autouse=True)
def position(request: pytest.FixtureRequest, service: Service) -> str:
    service.sandbox.control.behavior(subscription_list=request.param)
    return str(request.param)


@pytest.fixture
def caller(service: Service, runner: OneProcess, monkeypatch: pytest.MonkeyPatch) -> str:
    """The object id. The caller may use the keys of a vault that it cannot read, one of which account1 uses."""
    service.make_vault()
    service.grant(service.make_identity()["properties"]["principalId"])
    identity = {"type": "UserAssigned", "userAssignedIdentities": {service.identity_id(): {}}}
    service.make_account(identity=identity)
    service.point(service.make_key().id)
    service.make_key("unused")
    rights = give(service, service.sandbox.subscription, [*ON_ACCOUNTS, CHECK_NAME])
    who = sign_in(service, monkeypatch, [rights])
    service.set_policy("add", service.policy(who, *OFFICER))
    return who


def audited(runner: OneProcess) -> tuple[dict[str, Any], list[str]]:
    """The record of account1, and the ids of its findings."""
    audit = done(runner.another().module("batch_encryption_audit", {"return_accounts": True, "pools": True}))
    [account] = audit["accounts"]
    return account, [finding["id"] for finding in account["findings"]]


@pytest.mark.usefixtures("caller")
def test_a_vault_that_is_not_listed(service: Service, runner: OneProcess) -> None:
    info = done(runner.module("batch_encryption_diagnosis", ON_ACCOUNT))

    assert info["available"] is not False
    assert info["causes"] == []
    statuses = {check["status"] for check in info["preflight"]}
    assert "failed" not in statuses
    account, findings = audited(runner)
    assert VAULT_READ in account["unknown"]["vault"]
    assert "not_read" in findings
    assert not [one for one in findings if "missing" in one or "deleted" in one], findings
    assert service.is_safe()


@pytest.mark.usefixtures("caller")
def test_a_deleted_vault_that_is_not_listed(service: Service, runner: OneProcess) -> None:
    """Its name is taken, so it was not purged."""
    service.delete_vault()
    since = service.sandbox.control.last

    info = done(runner.module("batch_encryption_diagnosis", ON_ACCOUNT))
    failed = runner.another().role("recover", VARS)

    assert info["available"] is False
    assert "vault_missing" not in [cause["name"] for cause in info["causes"]]
    assert failed.get("failed"), failed
    assert "purged" not in failed["msg"]
    account, findings = audited(runner)
    assert "deleted_vault" in account["unknown"]
    assert not [one for one in findings if "missing" in one], findings
    assert writes(service.sandbox.control.requests(since)) == []


@pytest.mark.usefixtures("caller")
@pytest.mark.parametrize("state", ["disabled", "absent"])
def test_a_key_of_a_vault_that_is_not_listed_stays(service: Service, runner: OneProcess, state: str) -> None:
    """Accounts of the vault's subscription may use the key, whichever that is, unless `users_in` names the
    subscriptions of all users."""
    since = service.sandbox.control.last
    wanted = {"vault_name": "vault-one", "name": "unused", "state": state, "unused_for": "P0D"}

    failed = runner.module("keyvault_cmk_key_state", wanted)

    assert failed.get("code") == "users_unknown", failed
    assert writes(service.sandbox.control.requests(since)) == []
    named = {**wanted, "vault_used_by": "batch", "users_in": [service.sandbox.subscription_id]}
    assert runner.another().module("keyvault_cmk_key_state", named).get("changed") is True


def test_an_identity_that_is_listed_no_more(
    service: Service, runner: OneProcess, caller: str, position: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller who may read the identity's group sees that it was deleted, unless the list is refused."""
    read = ["Microsoft.ManagedIdentity/userAssignedIdentities/read"]
    rights = [
        give(service, service.sandbox.subscription, [*ON_ACCOUNTS, CHECK_NAME]),
        give(service, service.sandbox.group, read),
    ]
    sign_in(service, monkeypatch, rights)
    service.identities.user_assigned_identities.delete(GROUP, "identity1")

    account, findings = audited(runner)

    assert account["available"] is False
    is_unknown = any(what.startswith("identity ") for what in account["unknown"])
    assert is_unknown is (position == "denied")
    assert [one for one in findings if "missing" in one] or is_unknown, findings
