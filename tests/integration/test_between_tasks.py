# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes by others between two tasks of a role, and tasks that depend on the change of a previous task of the run."""

from __future__ import annotations

from typing import Any

import pytest
from cases import AT_ONCE
from harness import Ansible
from one_process import OneProcess
from role_runs import VARS, run_role
from service import GROUP, Service

FORCE = {"cmk_key_new_version": True}
KEY1 = {"vault_name": "vault-one", "name": "key1", "wait_timeout": 30}
Report = dict[str, Any]


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
