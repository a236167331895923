# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Check mode predicts plays in which users combine the modules and roles themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from harness import assert_predicted, change
from one_process import OneProcess
from role_runs import VARS
from service import GROUP, Service

Given = dict[str, Any] | Callable[[list[dict[str, Any]]], dict[str, Any]]
Step = tuple[str, Given]
KEY = {"vault_name": "vault-one", "name": "key1"}


def played(runner: OneProcess, *steps: Step, check: bool) -> list[dict[str, Any]]:
    """The results of a play of modules. The options of a step may depend on the results of the steps before it."""
    results: list[dict[str, Any]] = []
    for module, given in steps:
        results.append(runner.module(module, given if isinstance(given, dict) else given(results), check=check))
    return results


def predicted(runner: OneProcess, *steps: Step) -> list[dict[str, Any]]:
    """Check that check mode predicts the play, and return the results of the run."""
    predictions, done = (played(runner, *steps, check=check) for check in (True, False))
    for one, other in zip(predictions, done, strict=True):
        assert (one.get("code"), one["changed"]) == (other.get("code"), other["changed"]), (one, other)
        if not one.get("failed"):
            assert_predicted(change(one), change(other), "change")
    return done


def identity(name: str, **options: Any) -> Step:
    return "batch_account_identity", {"resource_group": GROUP, "name": name, **options}


def test_two_new_versions_are_passed_on(runner: OneProcess, service: Service) -> None:
    service.make_vault()
    service.make_key()
    new: Step = ("keyvault_cmk_key", {**KEY, "new_version": True})

    done = predicted(
        runner,
        new,
        new,
        ("keyvault_cmk_key_state", lambda made: {"key_identifier": made[0]["key_identifier"], "state": "disabled"}),
        ("keyvault_cmk_key_state", lambda made: {"key_identifier": made[1]["key_identifier"], "state": "enabled"}),
    )

    assert [one["changed"] for one in done] == [True, True, True, False]


@pytest.mark.parametrize("deletes", [False, True], ids=["created", "deleted"])
def test_an_account_that_is_being_created_or_deleted(runner: OneProcess, service: Service, deletes: bool) -> None:
    """The task waits until that has ended, and check mode does not."""
    service.make_vault()
    service.make_key()
    service.sandbox.control.timing(batch_create=0 if deletes else 2, batch_delete=2)
    service.make_account(identity={"type": "None"})
    if deletes:
        service.delete_account()

    account = {"resource_group": GROUP, "account_name": "account1"}
    key = "https://vault-one.vault.azure.net/keys/key1"
    done = predicted(
        runner,
        identity("account1", allowed_repairs=["identity"]),
        ("keyvault_cmk_access", {"account_resource_group": GROUP, "account_name": "account1", "key_identifier": key}),
        ("batch_encryption", {**account, "key_source": "microsoft_keyvault", "key_identifier": key}),
    )

    assert [one["changed"] for one in done] == [True] * 3


def test_the_principals_of_two_new_accounts_get_access_to_two_vaults(runner: OneProcess, service: Service) -> None:
    for name in ("vault-one", "vault-two"):
        service.make_vault(name)
        service.make_key("key1", vault=name)

    def access(vault: str, number: int) -> Step:
        where = {"vault_resource_group": GROUP, "vault_name": vault}
        return "keyvault_cmk_access", lambda made: {**where, "principal_id": made[number]["identity"]["principal_id"]}

    def move(account: str, vault: str) -> Step:
        to = {"key_source": "microsoft_keyvault", "key_identifier": f"https://{vault}.vault.azure.net/keys/key1"}
        return "batch_encryption", {"resource_group": GROUP, "account_name": account, **to}

    done = predicted(
        runner,
        identity("account1"),
        identity("account2"),
        access("vault-two", 1),
        access("vault-one", 0),
        move("account1", "vault-one"),
        move("account2", "vault-two"),
    )

    assert all(one["changed"] for one in done)


def test_provision_and_a_forced_rotation(runner: OneProcess, service: Service) -> None:
    """For two accounts, one after the other, as a loop over include_role does."""

    def run(check: bool) -> list[dict[str, Any]]:
        results = []
        for account in ("account1", "account2"):
            variables = {**VARS, "cmk_account_name": account, "cmk_vault_authorization": "access_policy"}
            results.append(runner.role("provision", variables, check=check))
            results.append(runner.role("rotate", {**variables, "cmk_key_new_version": True}, check=check))
        return results

    predictions, done = run(check=True), run(check=False)

    assert [one["changed_steps"] for one in predictions] == [one["changed_steps"] for one in done]
    # A run creates one forced version of a key.
    assert [one["changed_steps"]["encryption"] for one in done] == [True, True, True, False]


def test_one_name_in_two_regions(runner: OneProcess, service: Service) -> None:
    service.make_group("rg-two")
    there = {"resource_group": "rg-two"}

    done = predicted(
        runner,
        identity("same", location="westeurope"),
        identity("same", location="westeurope", **there),
        identity("same", location="northeurope", **there),
    )

    assert [one.get("code") for one in done] == [None, "account_name_taken", None]


def test_an_account_is_deleted_in_a_missing_group(runner: OneProcess, service: Service) -> None:
    gone = {"resource_group": "rg-none", "state": "absent"}

    (done,) = predicted(runner, identity("account1", **gone))

    assert done["code"] == "resource_group_not_found"


@pytest.mark.parametrize(("group", "code"), [("rg-none", "resource_group_not_found"), ("rg-two", "vault_name_taken")])
def test_one_name_of_vaults_in_two_subscriptions(runner: OneProcess, service: Service, group: str, code: str) -> None:
    """Only Azure knows whether the resource group in the other subscription exists."""
    second = service.sandbox.control.call("POST", "/subscriptions", {"name": "second"}, status=201)["subscription_id"]
    path = f"/subscriptions/{second}/resourceGroups/rg-two"
    assert service.sandbox.arm("PUT", path, "2021-04-01", {"location": "westeurope"}).ok
    there = {"subscription_id": second, "resource_group": group, "name": "vault-one"}

    done = predicted(
        runner,
        ("keyvault_cmk_vault", {"resource_group": GROUP, "name": "vault-one"}),
        ("keyvault_cmk_vault", there),
    )

    assert [one.get("code") for one in done] == [None, code]


def test_a_key_of_an_hsm_in_a_standard_vault(runner: OneProcess, service: Service) -> None:
    service.make_vault()

    (done,) = predicted(runner, ("keyvault_cmk_key", {**KEY, "key_type": "RSA-HSM"}))

    assert done["code"] == "vault_not_premium"
    assert done["option"] == "key_type"


@pytest.mark.parametrize("existing", [2, 3])
def test_the_quota_of_accounts(runner: OneProcess, service: Service, existing: int) -> None:
    service.sandbox.control.behavior(account_quota="3")
    for number in range(existing):
        service.make_account(f"existing{number}", identity={"type": "None"})

    done = predicted(runner, identity("one"), identity("two"))

    assert [one.get("code") for one in done] == [None if existing == 2 else "quota_exceeded", "quota_exceeded"]
