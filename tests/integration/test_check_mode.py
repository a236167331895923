# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Check mode predicts what no single task shows: tasks and hosts of a run use the planned changes of others, also
values that only Azure can assign. The simulator compares the checks of roles with their runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from harness import Ansible, assert_predicted, change, task
from one_process import OneProcess
from predictions import Played, Result, played, written
from role_runs import VARS, second_account, wrote
from service import GROUP, Service

# A module, and its options, which may depend on the results of the steps before it.
Step = tuple[str, dict[str, Any] | Callable[[list[Result]], dict[str, Any]]]


def role_played(runner: OneProcess, role: str, variables: dict[str, Any], *, check: bool) -> Played:
    """Play the role by another controller, because a check and the run after it are separate runs."""
    return played(lambda record: runner.another().role(role, variables, check=check, record=record))


def test_a_module_in_a_separate_process_predicts_from_its_own_changes(runner: OneProcess, service: Service) -> None:
    check = role_played(replace(runner, as_module=True), "provision", {**VARS}, check=True)

    assert [name for name, one in check.tasks.items() if one.get("changed")] == ["Ensure the vault 0"]
    assert check.failure == ("Ensure the key 0", "vault_unreachable")
    assert written(service, 0) == []


def test_hosts_share_a_forced_version_in_check_mode(runner: OneProcess, service: Service) -> None:
    """The run after the check does not use the planned version, but creates a version."""
    _principal, identifier = service.on_key()
    second_account(service, identifier)
    service.sandbox.control.advance(3600)

    def forced(account: str, *, check: bool) -> list[str]:
        wanted = {**VARS, "cmk_account_name": account, "cmk_key_new_version": True}
        report = runner.role("rotate", wanted, check=check)
        return [name for name, changed in report["changed_steps"].items() if changed]

    for check in (True, False):
        assert forced("account1", check=check) == ["key", "encryption"]
        assert forced("account2", check=check) == ["encryption"]
        assert len(service.versions()) == (1 if check else 2)


def test_registered_results_can_be_passed_on(runner: OneProcess, service: Service) -> None:
    """Modules create all resources for two accounts, with arguments from the results of previous modules."""

    def made(*, check: bool) -> list[Result]:
        def run(module: str, **arguments: Any) -> Result:
            result = runner.module(module, {"wait_timeout": 900, **arguments}, check=check)
            assert not result.get("failed"), result
            return result

        vault = run("keyvault_cmk_vault", resource_group=GROUP, name="vault-one", authorization="rbac")
        key = run("keyvault_cmk_key", vault_name="vault-one", name="key1")
        accounts = [run("batch_account_identity", resource_group=GROUP, name=name) for name in ("one1", "two2")]
        granted = [
            run("keyvault_cmk_access", vault_name="vault-one", principal_id=account["identity"]["principal_id"])
            for account in accounts
        ]
        moved = [
            run(
                "batch_encryption",
                resource_group=GROUP,
                account_name=account["name"],
                key_source="microsoft_keyvault",
                key_identifier=key["key_identifier"],
            )
            for account in accounts
        ]
        disabled = run(
            "keyvault_cmk_key_state", vault_name="vault-one", name="key1", state="enabled", version=key["version"]
        )
        return [vault, key, *accounts, *granted, *moved, disabled]

    predicted = made(check=True)
    assert written(service, 0) == []
    assert predicted[1]["version"] == "(known after apply: new version 1 of key1 in vault-one)"
    principals = [one["identity"]["principal_id"] for one in predicted[2:4]]
    assert principals == [f"(known after apply: principal 1 of {one['name']} in {GROUP})" for one in predicted[2:4]]
    came = made(check=False)

    assert [one["changed"] for one in predicted] == [one["changed"] for one in came] == [True] * 8 + [False]
    for one, other in zip(predicted, came, strict=True):
        assert_predicted(change(one), change(other), "change")


def test_the_identifier_of_a_predicted_key_as_a_variable_of_a_role(ansible: Ansible, service: Service) -> None:
    service.on_key()
    key = {**task("key", "keyvault_cmk_key", vault_name="vault-one", name="key2"), "register": "key"}
    account = {"cmk_resource_group": GROUP, "cmk_account_name": "account1"}
    to = {**account, "cmk_new_key_identifier": "{{ key.key_identifier }}"}
    switch = {"name": "switch", "ansible.builtin.include_role": {"name": "azbatch.cmk.switch"}, "vars": to}

    play = {"hosts": "localhost", "gather_facts": False, "tasks": [key, switch]}

    predicted = ansible.playbook([play], check=True)

    assert predicted.rc == 0, predicted.output
    assert wrote(predicted) == []
    assert ansible.playbook([play]).rc == 0
    assert service.encryption() == service.key("key2").id


def predicted(runner: OneProcess, *steps: Step) -> list[Result]:
    """Check that check mode predicts the play, and return the results of the run."""

    def results(*, check: bool) -> list[Result]:
        made: list[Result] = []
        for module, given in steps:
            made.append(runner.module(module, given if isinstance(given, dict) else given(made), check=check))
        return made

    predictions, done = results(check=True), results(check=False)
    for one, other in zip(predictions, done, strict=True):
        assert (one.get("code"), one["changed"]) == (other.get("code"), other["changed"]), (one, other)
        if not one.get("failed"):
            assert_predicted(change(one), change(other), "change")
    return done


def identity(name: str, **options: Any) -> Step:
    return "batch_account_identity", {"resource_group": GROUP, "name": name, **options}


def test_an_account_is_deleted(runner: OneProcess, service: Service) -> None:
    service.make_account()

    done = predicted(runner, *[identity("account1", state="absent")] * 2)

    assert [one["changed"] for one in done] == [True, False]
    assert list(service.accounts()) == []


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


def test_one_name_of_vaults_in_two_subscriptions(runner: OneProcess, service: Service) -> None:
    second = service.sandbox.control.call("POST", "/subscriptions", {"name": "second"}, status=201)["subscription_id"]
    path = f"/subscriptions/{second}/resourceGroups/rg-two"
    assert service.sandbox.arm("PUT", path, "2021-04-01", {"location": "westeurope"}).ok
    there = {"subscription_id": second, "resource_group": "rg-two", "name": "vault-one"}

    done = predicted(
        runner,
        ("keyvault_cmk_vault", {"resource_group": GROUP, "name": "vault-one"}),
        ("keyvault_cmk_vault", there),
    )

    assert [one.get("code") for one in done] == [None, "vault_name_taken"]


def test_the_quota_of_accounts(runner: OneProcess, service: Service) -> None:
    service.sandbox.control.behavior(account_quota="3")
    for number in range(2):
        service.make_account(f"existing{number}", identity={"type": "None"})

    done = predicted(runner, identity("one"), identity("two"))

    assert [one.get("code") for one in done] == [None, "quota_exceeded"]
