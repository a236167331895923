# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes by others between two tasks of a role, and tasks that depend on the change of a previous task of the run."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from cases import AT_ONCE
from harness import Ansible
from one_process import OneProcess
from role_runs import VARS, run_role
from service import DAY, GROUP, LOCATION, Service

FORCE = {"cmk_key_new_version": True}
HOUR = 3600
KEY1 = {"vault_name": "vault-one", "name": "key1", "wait_timeout": 30}
Report = dict[str, Any]


def test_an_account_that_another_user_moves_to_a_different_key_is_not_reverted(
    runner: OneProcess, service: Service
) -> None:
    service.on_key()
    other = service.make_key("key2").id
    service.point(other)
    report = runner.role("revert", {**VARS, "cmk_unused_key": "disable"})

    assert report.get("code") == "account_on_another_key", report
    assert service.encryption() == other
    assert service.enabled() == [True]


@pytest.mark.parametrize("to", ["the named key", "a different key"])
def test_an_account_that_another_user_moves_after_the_revert(runner: OneProcess, service: Service, to: str) -> None:
    """The key is not disabled, even without the margin, if the account has been moved back to it."""
    _, first = service.on_key()
    key = first if to == "the named key" else service.make_key("key2").id

    def record(task: str, _result: Report) -> None:
        if task == "Move the account to a Microsoft-managed key":
            service.point(key)

    report = runner.role("revert", {**VARS, "cmk_unused_key": "disable", **AT_ONCE}, record=record)

    assert not report.get("failed"), report
    assert service.enabled() == [to == "the named key"]
    assert service.is_available()


def test_no_access_is_revoked_if_another_account_uses_one_of_several_identities(
    runner: OneProcess, service: Service
) -> None:
    names = ("identity1", "identity2")
    principals = [service.make_identity(name)["properties"]["principalId"] for name in names]
    first, second = ({service.identity_id(name): {}} for name in names)
    service.make_vault()
    for account, identities in (("account1", {**first, **second}), ("account2", second)):
        service.make_account(account, identity={"type": "UserAssigned", "userAssignedIdentities": identities})
    for principal in principals:
        service.grant(principal)
    service.point(service.make_key().id, "account2")
    # account1 has not used the key for the margin.
    service.sandbox.control.advance(8 * DAY)
    options = {"vault_name": "vault-one", "account_name": "account1", "account_resource_group": GROUP}
    result = runner.module("keyvault_cmk_access", {**options, "state": "absent", "wait_timeout": 30})

    assert (result.get("code"), result["changed"]) == ("in_use", False), result
    assert all(service.permissions(principal) for principal in principals)


def test_nothing_is_removed_for_a_missing_account(runner: OneProcess, service: Service) -> None:
    service.on_key()
    service.batch.batch_account.begin_delete(GROUP, "account1").wait()
    settings = {
        "cmk_unused_key": "disable",
        "cmk_unused_access": "revoke",
    }
    report = runner.role("revert", {**VARS, **settings})

    assert (report["failed"], report["code"]) == (True, "account_not_found"), report
    assert service.enabled() == [True]


@pytest.mark.parametrize(
    ("removed", "restored"),
    [
        ("disable", {"cmk_allowed_repairs": ["key"]}),
        ("delete", {"cmk_allowed_repairs": ["key"]}),
    ],
)
def test_a_key_that_the_run_restored_is_removed_again(
    runner: OneProcess, service: Service, removed: str, restored: dict[str, Any]
) -> None:
    service.on_key()
    revert = {**VARS, "cmk_unused_key": removed, **AT_ONCE}
    assert runner.role("revert", revert)["changed_steps"]["key"]
    assert runner.role("provision", {**VARS, **restored})["changed_steps"]["key"]
    assert service.encryption()
    report = runner.role("revert", revert)

    assert report["changed_steps"]["key"], report
    if removed == "delete":
        assert [one.name for one in service.keys().list_deleted_keys()] == ["key1"]
    else:
        assert service.enabled() == [False]


def test_a_key_with_a_new_version_is_disabled_again(runner: OneProcess, service: Service) -> None:
    service.on_key()
    service.point(None)
    disable = {**KEY1, "state": "disabled", "in_use": "keep", "unused_for": "P0D"}
    assert runner.module("keyvault_cmk_key_state", disable)["changed"]
    service.sandbox.control.advance(1)
    # Creates a new version, which is enabled.
    assert runner.module("keyvault_cmk_key", {**KEY1, "allowed_repairs": ["key"], "new_version": True})["changed"]
    assert runner.module("keyvault_cmk_key_state", disable)["changed"]
    assert service.enabled() == [False, False]


@pytest.mark.parametrize("state", ["enabled", "recovered"])
def test_a_restored_key_is_reported_with_in_use_keep(runner: OneProcess, service: Service, state: str) -> None:
    service.on_key()
    service.point(None)
    if state == "enabled":
        service.disable()
    else:
        service.keys().begin_delete_key("key1").wait()
    result = runner.module("keyvault_cmk_key_state", {**KEY1, "state": state, "in_use": "keep"})

    assert (result.get("failed"), result["changed"]) == (None, True), result
    assert service.enabled() == [True]


@pytest.mark.parametrize("left", [1800, -10])
def test_provision_of_an_account_whose_version_expires(runner: OneProcess, service: Service, left: int) -> None:
    """If the version has not expired, the account is moved to a new version. If the version has expired, the account is
    unavailable and cannot be moved."""
    _, identifier = service.on_key()
    created = service.key().properties.created_on
    assert created is not None
    service.keys().update_key_properties("key1", expires_on=created + timedelta(days=30))
    service.sandbox.control.advance(30 * DAY - left)
    report = runner.role("provision", VARS)
    service.sandbox.control.advance(HOUR)

    if left > 0:
        assert report["changed_steps"]["encryption"], report
        assert service.encryption() == service.key().id != identifier
        assert service.is_available()
    else:
        for _run in range(2):
            assert report.get("code") == "account_unavailable", report
            assert service.encryption() == identifier
            report = runner.another().role("provision", VARS)
        assert len(service.versions()) == 2, "a second run creates no further version"


def test_provision_leaves_an_account_on_an_older_version(runner: OneProcess, service: Service) -> None:
    _, identifier = service.on_key()
    service.sandbox.control.advance(1)
    service.make_key()
    report = runner.role("provision", VARS)

    assert report.get("changed") is False, report
    assert service.encryption() == identifier


def test_provision_rejects_an_identity_name_before_creating_resources(ansible: Ansible, service: Service) -> None:
    settings = {"cmk_identity_id": "identity1", "cmk_location": LOCATION, "cmk_vault_authorization": "access_policy"}
    run = run_role(ansible, "provision", **settings)

    (failed,) = run.failed
    failed.refused("invalid_option")
    assert [vault.name for vault in service.vaults.vaults.list_by_subscription()] == []


@pytest.mark.parametrize(
    ("module", "option", "options"),
    [
        ("keyvault_cmk_access", "principal_id", {"vault_name": "vault-one"}),
        ("keyvault_cmk_access", "identity_id", {"vault_name": "vault-one", "state": "absent"}),
        ("keyvault_cmk_access", "account_name", {"vault_name": "vault-one", "account_resource_group": GROUP}),
        ("keyvault_cmk_access", "key_identifier", {"account_name": "account1", "account_resource_group": GROUP}),
        ("keyvault_cmk_key", "used_by_account", {**KEY1, "account_resource_group": GROUP, "new_version": True}),
        ("keyvault_cmk_key_state", "unused_for", {**KEY1, "state": "disabled"}),
        (
            "batch_encryption",
            "previous_key",
            {"resource_group": GROUP, "account_name": "account1", "key_source": "microsoft_batch"},
        ),
    ],
)
def test_an_empty_value_is_refused(
    runner: OneProcess, service: Service, module: str, option: str, options: dict[str, Any]
) -> None:
    """A variable that is empty by mistake must not turn off a check."""
    _, identifier = service.on_key()
    result = runner.module(module, {"wait_timeout": 30, **options, option: ""})

    assert (result.get("failed"), result.get("option")) == (True, option), result
    assert service.encryption() == identifier
    assert len(service.versions()) == 1


def test_an_invalid_time_is_rejected_before_the_first_change(ansible: Ansible, service: Service) -> None:
    """Although only the second play of the playbook uses the time."""
    _, identifier = service.on_key()
    settings = {**FORCE, "cmk_unused_versions": "disable", "cmk_unused_for": "1 day"}
    run = run_role(ansible, "rotate", **settings)

    (failed,) = run.failed
    failed.refused("invalid_option")
    assert (failed["option"], failed["variable"]) == ("unused_for", "cmk_unused_for")
    assert service.encryption() == identifier
    assert len(service.versions()) == 1


def test_an_invalid_extension_is_rejected_before_the_first_change(ansible: Ansible, service: Service) -> None:
    service.on_key()
    service.keys().begin_delete_key("key1").wait()
    run = run_role(ansible, "recover", cmk_recover_extend_expired_by="a month")

    (failed,) = run.failed
    failed.refused("invalid_option")
    assert (failed["option"], failed["variable"]) == ("extend_expired_by", "cmk_recover_extend_expired_by")
    assert [one.name for one in service.keys().list_deleted_keys()] == ["key1"]


@pytest.mark.parametrize("role", ["rotate", "recover"])
def test_an_account_that_another_user_reverts_before_the_last_task(
    runner: OneProcess, service: Service, role: str
) -> None:
    service.on_key()

    def record(task: str, _result: Report) -> None:
        if task.startswith(("Ensure a current version", "Find the causes")):
            service.point(None)

    report = runner.role(role, {**VARS, **(FORCE if role == "rotate" else {})}, record=record)

    assert report.get("code") == "account_on_another_key", report
    assert "uses a Microsoft-managed key" in report["msg"]
    assert service.encryption() is None
