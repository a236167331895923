# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A resource that a Batch account uses is not disabled, deleted or revoked without `force: true`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from callers import give, sign_in
from cases import DISABLE
from harness import Ansible, Task, checked, fails, key, task
from one_process import OneProcess
from role_runs import VARS
from service import DAY, GROUP, OFFICER, Service


def in_use(one: Task, *accounts: str) -> None:
    """Check that the task failed with code `in_use` and names these accounts."""
    one.refused("in_use")
    assert set(one["accounts"]) == set(accounts)
    for name in names(accounts):
        assert name in one["msg"]
    assert "force" in one["remedy"]
    assert one["unlisted"] == []


def warned(one: Task, *accounts: str) -> None:
    """Check that the task made its change, with a warning that names the accounts."""
    assert one["changed"] is True, one
    assert any(all(name in warning for name in names(accounts)) for warning in one.warnings), one.warnings


def names(accounts: Iterable[str]) -> list[str]:
    return [one.rpartition("/")[2] for one in accounts]


def test_key(ansible: Ansible, service: Service, way: str) -> None:
    """A version that a pinned account uses cannot be disabled. A version that no account uses can be disabled."""
    _principal, first = service.on_key()
    second, third = service.make_key().id, service.make_key().id
    service.make_account("account2")
    service.grant(service.account("account2")["identity"]["principalId"])
    service.point(second, "account2")
    service.make_key("other")
    # An account may need the version from which it was moved for seven days.
    service.sandbox.control.advance(8 * DAY)
    versions = [identifier.rpartition("/")[2] for identifier in (first, second, third)]
    account1, account2 = service.account_id(), service.account_id("account2")
    tasks = [
        fails(key("first", state="disabled", version=versions[0])),
        fails(checked(key("first", state="disabled", version=versions[0]))),
        fails(key("second", state="disabled", version=versions[1])),
        fails(key("all", state="disabled")),
        fails(key("delete", state="absent")),
        fails(checked(key("delete", state="absent"))),
        key("third", state="disabled", version=versions[2], vault_used_by="any"),
        key("third again", state="disabled", version=versions[2]),
        key("other", name="other", state="absent"),
    ]
    run = ansible.play(tasks, way=way)
    in_use(run["first"], account1)
    in_use(run["first (check)"], account1)
    in_use(run["second"], account2)
    in_use(run["all"], account1, account2)
    in_use(run["delete"], account1, account2)
    in_use(run["delete (check)"], account1, account2)
    assert run["third"]["changed"] is True
    assert run["third"].warnings == []
    assert run["third again"]["changed"] is False
    assert run["other"]["soft_deleted"] is True
    assert {one.version: one.enabled for one in service.versions()} == dict(
        zip(versions, (True, True, False), strict=True)
    )
    assert service.is_available()

    run = ansible.play(
        [
            checked(key("by force", state="disabled", version=versions[0], force=True)),
            key("by force", state="disabled", version=versions[0], force=True),
            key("deleted by force", state="absent", force=True),
        ],
        way=way,
    )
    warned(run["by force (check)"].untouched(), account1)
    warned(run["by force"], account1)
    warned(run["deleted by force"], account1, account2)
    # Without force, the task prevented this loss.
    assert not service.is_available()
    assert not service.is_available("account2")


@pytest.mark.parametrize("rbac", [False, True])
def test_grant(ansible: Ansible, service: Service, way: str, rbac: bool) -> None:
    principal, _identifier = service.on_key(rbac=rbac)
    idle = service.make_account("idle")["identity"]["principalId"]
    service.grant(idle)
    service.sandbox.control.advance(8 * DAY)
    account = service.account_id()

    def away(title: str, **options: Any) -> dict[str, Any]:
        wanted = {"vault_name": "vault-one", "principal_id": principal, "state": "absent"}
        return task(title, "keyvault_cmk_access", **{**wanted, **options})

    run = ansible.play(
        [
            fails(away("used")),
            fails(checked(away("used"))),
            away("idle", principal_id=idle),
            checked(away("by force", force=True)),
            away("by force", force=True),
            fails(away("again")),
        ],
        way=way,
    )
    in_use(run["used"], account)
    in_use(run["used (check)"], account)
    assert run["idle"]["changed"] is True
    assert run["idle"].warnings == []
    warned(run["by force (check)"].untouched(), account)
    warned(run["by force"], account)
    assert "azbatch.cmk.recover" in run["again"].refused("in_use")["remedy"]
    assert not service.is_available()


def revoked(runner: OneProcess, principal: str, **options: Any) -> dict[str, Any]:
    access = {"vault_resource_group": GROUP, "vault_name": "vault-one", "principal_id": principal, "state": "absent"}
    return runner.another().module("keyvault_cmk_access", {**access, **options})


def encrypts_its_disks(service: Service, key: str, account: str = "account1", **identity: Any) -> str:
    """Create a pool of the account whose disks are encrypted with this key. Returns its ID."""
    own = {"targets": ["OsDisk"], "customerManagedKey": {"keyUrl": key}}
    machine = {"virtualMachineConfiguration": {"diskEncryptionConfiguration": own}}
    service.make_pool("pool1", account, deploymentConfiguration=machine, **identity)
    return f"{service.account_id(account)}/pools/pool1"


def test_version_that_a_pool_encrypts_its_disks_with(runner: OneProcess, service: Service) -> None:
    """The account is moved to a new version, but the disks of its pool still use the previous version."""
    _principal, first = service.on_key()
    pool = encrypts_its_disks(service, first)
    report = runner.role("rotate", {**VARS, "cmk_key_new_version": True})
    assert service.encryption() != first, report
    service.sandbox.control.advance(8 * DAY)
    for after in ({}, {"cmk_unused_for": "P0D"}):
        report = runner.another().role("rotate", {**VARS, **DISABLE, **after})
        assert (report["changed"], report["key_kept_for"], report["key_kept_until"]) == (False, [pool], None)
    assert service.key(version=first.rpartition("/")[2]).properties.enabled


def test_pools_that_the_caller_may_not_list(
    runner: OneProcess, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller lacks the permission in another resource group. Nothing is disabled."""
    service.on_key()
    newest = service.make_key().id
    service.point(newest)
    service.sandbox.control.advance(8 * DAY)
    sandbox = service.sandbox
    elsewhere = f"{sandbox.subscription}/resourceGroups/elsewhere"
    assert sandbox.arm("PUT", elsewhere, "2021-04-01", {"location": "westeurope"}).ok
    hidden = f"{elsewhere}/providers/Microsoft.Batch/batchAccounts/hidden"
    assert sandbox.arm("PUT", hidden, "2024-07-01", {"location": "westeurope"}).ok
    listing = ("Microsoft.Batch/batchAccounts/read", "Microsoft.Authorization/permissions/read")
    roles = [{"role": "Owner", "scope": sandbox.group}, give(service, sandbox.subscription, listing)]
    who = sign_in(service, monkeypatch, roles)
    service.set_policy("add", service.policy(who, *OFFICER))
    report = runner.another().role("rotate", {**VARS, **DISABLE, "cmk_vault_used_by": "batch"})
    assert report["code"] == "users_unknown", report
    [unlisted] = report["unlisted"]
    assert (unlisted["scope"], unlisted["action"]) == (sandbox.subscription, f"{listing[0][:-5]}/pools/read")
    assert service.encryption() == newest
    assert service.enabled() == [True, True]


def test_an_account_without_its_key_can_be_deleted(ansible: Ansible, service: Service, way: str) -> None:
    """An account that has lost its key can only be deleted."""
    _principal, identifier = service.on_key()
    service.disable()
    assert not service.is_available()
    run = ansible.play(
        [
            fails(
                task(
                    "to Batch",
                    "batch_encryption",
                    resource_group=GROUP,
                    account_name="account1",
                    key_source="microsoft_batch",
                )
            ),
            task("info", "batch_encryption_info", resource_group=GROUP, account_name="account1"),
            task("gone", "batch_account_identity", resource_group=GROUP, name="account1", state="absent"),
            key("now the key too", state="absent"),
        ],
        way=way,
    )
    one = run["to Batch"].refused("account_unavailable", by_azure=True)
    assert one["key_identifier"] == run["info"]["key_identifier"] == identifier
    assert run["info"]["available"] is False
    assert run["info"]["unavailable_reason"]
    assert run["gone"]["exists"] is False
    assert run["now the key too"]["changed"] is True
    assert service.accounts() == []
