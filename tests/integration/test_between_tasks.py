# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes by others between two tasks of a role, and tasks that depend on the change of a previous task of the run."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from cases import DISABLE
from one_process import OneProcess
from role_runs import QUARTER, VARS
from service import DAY, GROUP, LOCATION, Service

FORCE = {"cmk_key_force_new_version": True}
HOUR = 3600
KEY1 = {"vault_name": "vault-one", "name": "key1", "wait_timeout": 30}
Report = dict[str, Any]


def enabled(service: Service) -> list[bool]:
    """Whether each version of key1 is enabled, the oldest first."""
    return [version.enabled for version in service.versions()]


@pytest.mark.parametrize("to_other_key", [False, True])
def test_the_new_version_stays_enabled_after_another_user_moves_the_account(
    runner: OneProcess, service: Service, to_other_key: bool
) -> None:
    """The account followed the key, so its previous key identifier has no version. The whole key is not disabled."""
    service.on_key(follow=True)
    other = service.make_key("key2").id
    service.sandbox.control.advance(QUARTER)
    warnings: list[str] = []

    def record(task: str, result: Report) -> None:
        if task == "Move the account to the key":
            service.point(other if to_other_key else None)
        warnings.extend(warning for item in result.get("results", ()) for warning in item.get("warnings", ()))

    settings = {**FORCE, **DISABLE, "cmk_key_follow_latest": False}
    report = runner.role("rotate", {**VARS, **settings}, record=record)

    assert not report.get("failed"), report
    assert enabled(service) == [False, True]
    assert any("key1 was not disabled" in warning for warning in warnings), warnings
    assert service.is_available()


def test_an_account_that_was_moved_to_a_different_key_is_not_reverted(runner: OneProcess, service: Service) -> None:
    """The role's check has passed before, so the next task must detect the move."""
    service.on_key()
    other = service.make_key("key2").id

    def record(task: str, _result: Report) -> None:
        if task == "Check the account, its key and the caller's rights":
            service.point(other)

    report = runner.role("revert", {**VARS, "cmk_revert_key": "disable"}, record=record)

    assert report.get("code") == "account_moved", report
    assert service.encryption() == other
    assert enabled(service) == [True]


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
    options = {"vault_name": "vault-one", "account_name": "account1", "account_resource_group": GROUP}
    result = runner.module("keyvault_cmk_access", {**options, "state": "absent", "wait_timeout": 30})

    assert (result.get("code"), result["changed"]) == ("in_use", False), result
    assert all(service.permissions(principal) for principal in principals)


def test_access_of_a_missing_account_is_not_revoked(runner: OneProcess, service: Service) -> None:
    _, identifier = service.on_key()
    service.batch.batch_account.begin_delete(GROUP, "account1").wait()
    settings = {
        "cmk_missing_account": "skip",
        "cmk_previous_key_identifier": identifier,
        "cmk_revert_key": "disable",
        "cmk_revert_access": "revoke",
    }
    report = runner.role("revert", {**VARS, **settings})

    assert not report.get("failed"), report
    assert enabled(service) == [False]


@pytest.mark.parametrize(
    ("removed", "restored"),
    [
        ("disable", {"cmk_key_enable": True}),
        ("delete", {"cmk_key_recover": True}),
    ],
)
def test_a_key_that_the_run_restored_is_removed_again(
    runner: OneProcess, service: Service, removed: str, restored: dict[str, Any]
) -> None:
    service.on_key()
    revert = {**VARS, "cmk_revert_key": removed}
    assert runner.role("revert", revert)["changed_steps"]["key"]
    assert runner.role("provision", {**VARS, **restored})["changed_steps"]["key"]
    assert service.encryption()
    report = runner.role("revert", revert)

    assert report["changed_steps"]["key"], report
    if removed == "delete":
        assert [one.name for one in service.keys().list_deleted_keys()] == ["key1"]
    else:
        assert enabled(service) == [False]


def test_a_key_with_a_new_version_is_disabled_again(runner: OneProcess, service: Service) -> None:
    service.on_key()
    service.point(None)
    disable = {**KEY1, "state": "disabled", "in_use": "keep"}
    assert runner.module("keyvault_cmk_key", disable)["changed"]
    service.sandbox.control.advance(1)
    # Creates a new version, which is enabled.
    assert runner.module("keyvault_cmk_key", {**KEY1, "enable_key": True, "new_version": True})["changed"]
    assert runner.module("keyvault_cmk_key", disable)["changed"]
    assert enabled(service) == [False, False]


@pytest.mark.parametrize("in_use", ["keep", "fail"])
@pytest.mark.parametrize(
    "options",
    [{"state": "absent"}, {"state": "enabled"}, {"state": "recovered"}, {"remove_rotation_policy": True}],
)
def test_moved_to_is_refused_if_nothing_is_disabled(
    runner: OneProcess, service: Service, options: dict[str, Any], in_use: str
) -> None:
    """Only a disabling waits for the grace period that starts when the account has moved."""
    service.on_key()
    other = service.make_key("key2").id
    service.point(other)
    result = runner.module("keyvault_cmk_key", {**KEY1, **options, "in_use": in_use, "moved_to": other})

    assert (result.get("code"), result.get("option")) == ("invalid_option", "moved_to"), result
    assert [one.name for one in service.keys().list_deleted_keys()] == []


@pytest.mark.parametrize("state", ["enabled", "recovered"])
def test_a_restored_key_is_reported_with_in_use_keep(runner: OneProcess, service: Service, state: str) -> None:
    service.on_key()
    service.point(None)
    if state == "enabled":
        service.disable()
    else:
        service.keys().begin_delete_key("key1").wait()
    result = runner.module("keyvault_cmk_key", {**KEY1, "state": state, "in_use": "keep"})

    assert (result.get("failed"), result["changed"]) == (None, True), result
    assert enabled(service) == [True]


@pytest.mark.parametrize("left", [1800, -10])
def test_provision_of_an_account_whose_version_expires(runner: OneProcess, service: Service, left: int) -> None:
    """If the version has not expired, the account is moved to a new version. If the version has expired, the account is
    unavailable and cannot be moved, so no version is created."""
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
        assert report.get("code") == "account_unavailable", report
        assert len(service.versions()) == 1


def test_provision_leaves_an_account_on_an_older_version(runner: OneProcess, service: Service) -> None:
    _, identifier = service.on_key()
    service.sandbox.control.advance(1)
    service.make_key()
    report = runner.role("provision", VARS)

    assert report.get("changed") is False, report
    assert service.encryption() == identifier


def test_provision_rejects_an_identity_name_before_creating_resources(runner: OneProcess, service: Service) -> None:
    settings = {"cmk_identity": "identity1", "cmk_location": LOCATION, "cmk_vault_authorization": "access_policy"}
    report = runner.role("provision", {**VARS, **settings})

    assert report.get("code") == "invalid_identity_id", report
    assert [vault.name for vault in service.vaults.vaults.list_by_subscription()] == []


@pytest.mark.parametrize(
    ("module", "option", "options"),
    [
        ("keyvault_cmk_access", "principal_id", {"vault_name": "vault-one"}),
        ("keyvault_cmk_access", "identity_id", {"vault_name": "vault-one", "state": "absent"}),
        ("keyvault_cmk_access", "account_name", {"vault_name": "vault-one", "account_resource_group": GROUP}),
        ("keyvault_cmk_access", "key_identifier", {"account_name": "account1", "account_resource_group": GROUP}),
        ("keyvault_cmk_key", "account_name", {**KEY1, "resource_group": GROUP, "new_version": True}),
        ("keyvault_cmk_key", "moved_to", {**KEY1, "state": "disabled"}),
        (
            "batch_encryption",
            "expected_key_identifier",
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


@pytest.mark.parametrize("grace", ["", "1 day"])
def test_an_invalid_grace_period_is_rejected_before_the_first_change(
    runner: OneProcess, service: Service, grace: str
) -> None:
    _, identifier = service.on_key()
    settings = {**FORCE, **DISABLE, "cmk_previous_version_grace": grace}
    report = runner.role("rotate", {**VARS, **settings})

    assert (report.get("code"), report.get("option")) == ("invalid_option", "grace_period"), report
    assert service.encryption() == identifier
    assert len(service.versions()) == 1


def test_an_invalid_extension_is_rejected_before_the_first_change(runner: OneProcess, service: Service) -> None:
    service.on_key()
    service.keys().begin_delete_key("key1").wait()
    report = runner.role("recover", {**VARS, "cmk_recover_extend_expired_by": "a month"})

    assert (report.get("code"), report.get("option")) == ("invalid_option", "extend_expired_by"), report
    assert [one.name for one in service.keys().list_deleted_keys()] == ["key1"]
