# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tasks of a run share a cache of reads, and another user changes the resources between two tasks."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from one_process import OneProcess
from role_runs import VARS
from service import DAY, GROUP, LOCATION, OFFICER, Service

ENC = {"resource_group": GROUP, "account_name": "account1", "key_source": "microsoft_keyvault", "wait_timeout": 900}
STRANGER = "0a1b2c3d-0000-4000-8000-00000000cafe"
LONG = {**VARS, "cmk_wait_timeout": 900, "cmk_location": LOCATION}


def answer(service: Service, method: str, path: str, status: int, code: str, times: int | None) -> None:
    body = {"error": {"code": code, "message": "Says the test."}}
    service.sandbox.control.fault(
        match={"method": method, "path": path}, times=times, answer={"status": status, "body": body}
    )


def two_on_key1(service: Service) -> str:
    service.make_vault()
    for name in ("account1", "account2"):
        service.grant(service.make_account(name)["identity"]["principalId"])
    key1 = service.make_key().id
    for name in ("account1", "account2"):
        service.point(key1, name)
    return service.make_key("key2").id


def test_a_key_that_is_set_to_expire_after_another_host_has_moved_to_it(runner: OneProcess, service: Service) -> None:
    key2 = two_on_key1(service)
    own = {**VARS, "cmk_new_key_identifier": key2}
    assert not runner.role("switch", {**own, "cmk_account_name": "account2"}).get("failed")
    ends = service.key("key2").properties.created_on + timedelta(minutes=30)
    service.keys().update_key_properties("key2", expires_on=ends)
    assert service.is_available()
    report = runner.role("switch", own)
    service.sandbox.control.advance(31 * 60)
    assert service.is_available(), report


def test_a_vault_that_others_have_just_created_is_not_replaced(runner: OneProcess, service: Service) -> None:
    """Reads do not show the vault yet, and the caller lacks the permission to check names."""
    policies = [service.policy(service.operator, *OFFICER), service.policy(STRANGER, "get", "sign")]
    service.make_vault(tags={"owner": "x"}, properties={"accessPolicies": policies})
    answer(service, "GET", r"/vaults/vault-one\?", 404, "ResourceNotFound", 4)
    answer(service, "POST", "checkNameAvailability", 403, "AuthorizationFailed", None)
    runner.role("provision", {**LONG, "cmk_vault_authorization": "access_policy"})
    service.sandbox.control.call("DELETE", "/faults")
    assert (service.vault()["tags"], bool(service.permissions(STRANGER))) == ({"owner": "x"}, True)


def test_an_account_that_others_create_during_the_run_is_not_replaced(runner: OneProcess, service: Service) -> None:
    """Reads do not show the account yet, and the caller lacks the permission to check names."""
    service.make_vault()

    def record(task: str, _result: object) -> None:
        if task == "Ensure the key":
            service.make_account(tags={"owner": "x"})
            answer(service, "GET", r"/batchAccounts/account1\?", 404, "ResourceNotFound", 4)
            answer(service, "POST", "checkNameAvailability", 403, "AuthorizationFailed", None)

    runner.role("provision", {**LONG, "cmk_vault_authorization": "access_policy"}, record=record)
    service.sandbox.control.call("DELETE", "/faults")
    assert service.account().get("tags") == {"owner": "x"}


def test_a_key_that_is_deleted_after_a_rotation_is_recovered_in_the_same_run(
    runner: OneProcess, service: Service
) -> None:
    service.on_key()
    assert not runner.role("rotate", LONG).get("failed")
    service.keys().begin_delete_key("key1").wait()
    began = time.monotonic()
    report = runner.role("recover", LONG)
    assert service.is_available(), (time.monotonic() - began, report)


def test_access_to_a_vault_whose_permission_model_changes(runner: OneProcess, service: Service) -> None:
    service.make_vault(rbac=True)
    one, two = (service.make_account(name)["identity"]["principalId"] for name in ("account1", "account2"))
    grant = {"vault_name": "vault-one", "resource_group": GROUP, "wait_timeout": 30}
    runner.module("keyvault_cmk_access", {**grant, "principal_id": two})
    service.change_vault(properties={"enableRbacAuthorization": False})
    report = runner.module("keyvault_cmk_access", {**grant, "principal_id": one})
    assert service.permissions(one) or not report["changed"], report


def test_access_is_not_granted_to_an_identity_that_was_detached(runner: OneProcess, service: Service) -> None:
    leaked, kept = (service.make_identity(name)["properties"]["principalId"] for name in ("ida", "idb"))
    ida, idb = service.identity_id("ida"), service.identity_id("idb")
    service.make_vault()
    service.make_vault("vault-two")
    service.make_account(identity={"type": "UserAssigned", "userAssignedIdentities": {ida: {}, idb: {}}})
    service.grant(leaked)
    service.grant(kept)
    service.point(service.make_key().id)
    new = service.make_key("key2", vault="vault-two").id

    on_account = {"resource_group": GROUP, "account_name": "account1"}
    assert runner.module("batch_encryption_info", on_account)["exists"]
    service.change_account(identity={"type": "UserAssigned", "userAssignedIdentities": {ida: None, idb: {}}})
    report = runner.role("switch", {**VARS, "cmk_new_key_identifier": new})
    assert service.encryption() == new, report
    assert service.permissions(leaked, "vault-two") is None, report


def test_access_of_an_identity_that_was_replaced_is_revoked(runner: OneProcess, service: Service) -> None:
    a, b = (service.make_identity(name)["properties"]["principalId"] for name in ("ida", "idb"))
    service.make_vault()
    one = {"type": "UserAssigned", "userAssignedIdentities": {service.identity_id("ida"): {}}}
    two = {"type": "UserAssigned", "userAssignedIdentities": {service.identity_id("idb"): {}}}
    service.make_account(identity=one)
    service.grant(a)
    service.grant(b)
    service.point(service.make_key().id)

    def record(task: str, _result: object) -> None:
        if task == "Move the account to a Microsoft-managed key":
            service.make_account(identity=two)

    revoke = {"cmk_revert_access": "revoke", "cmk_unused_versions_after": "P0D"}
    report = runner.role("revert", {**VARS, **revoke}, record=record)
    assert report.get("failed") or service.permissions(b) is None, report


@pytest.mark.parametrize("loss", ["disable", "revoke", "delete"])
def test_an_account_is_not_created_on_a_key_that_was_lost(runner: OneProcess, service: Service, loss: str) -> None:
    service.make_vault()
    service.make_key()
    principal = service.make_identity()["properties"]["principalId"]
    own = {**LONG, "cmk_identity": service.identity_id()}
    assert not runner.role("provision", {**own, "cmk_account_name": "account2"}).get("failed")

    def record(task: str, _result: object) -> None:
        if task.startswith("Grant the user"):
            {
                "disable": service.disable,
                "revoke": lambda: service.revoke(principal),
                "delete": lambda: service.keys().begin_delete_key("key1").wait(),
            }[loss]()

    began = time.monotonic()
    report = runner.role("provision", own, record=record)
    assert report["failed"], report
    assert time.monotonic() - began < 100


@pytest.mark.parametrize("what", ["access", "enabled", "key", "vault", "firewall", "right"])
def test_a_repair_is_detected_despite_the_cache(runner: OneProcess, service: Service, what: str) -> None:
    """The repair is made by another user, or by a task of another collection in the same play."""
    service.make_vault()
    principal = service.make_account()["identity"]["principalId"]
    identifier = service.make_key().id
    if what != "access":
        service.grant(principal)
    acls = {"networkAcls": {"bypass": "None", "defaultAction": "Deny"}}
    lacking = service.policy(service.operator, *(one for one in OFFICER if one != "create"))
    break_, repair = {
        "access": (lambda: None, lambda: service.grant(principal)),
        "enabled": (service.disable, lambda: service.keys().update_key_properties("key1", enabled=True)),
        "key": (
            lambda: service.keys().begin_delete_key("key1").wait(),
            lambda: service.keys().begin_recover_deleted_key("key1").wait(),
        ),
        "vault": (service.delete_vault, lambda: service.make_vault(properties={"createMode": "recover"})),
        "firewall": (
            lambda: service.change_vault(properties=acls),
            lambda: service.change_vault(
                properties={"networkAcls": {**acls["networkAcls"], "bypass": "AzureServices"}}
            ),
        ),
        "right": (
            lambda: service.set_policy("replace", lacking),
            lambda: service.set_policy("replace", service.policy(service.operator, *OFFICER)),
        ),
    }[what]
    task = (
        ("keyvault_cmk_key", {"vault_name": "vault-one", "name": "new", "wait_timeout": 30})
        if what == "right"
        else ("batch_encryption", {**ENC, "key_identifier": identifier})
    )
    break_()
    assert runner.module(*task)["failed"]
    repair()
    report = runner.module(*task)
    assert not report.get("failed"), report


def test_a_vault_that_changes_to_roles_that_were_assigned_before(runner: OneProcess, service: Service) -> None:
    service.make_vault()
    one, two = (service.make_account(name)["identity"]["principalId"] for name in ("account1", "account2"))
    key = service.make_key().id
    for principal in (one, two):
        service.grant(principal)
        service.assign(principal, service.vault_id())
    service.assign(service.operator, service.vault_id(), "14b46e9e-c2b7-41b4-b07b-48a6ebf60603")
    assert not runner.module("batch_encryption", {**ENC, "account_name": "account2", "key_identifier": key}).get(
        "failed"
    )
    service.change_vault(properties={"enableRbacAuthorization": True})
    report = runner.module("batch_encryption", {**ENC, "key_identifier": key})
    assert not report.get("failed"), report


@pytest.mark.parametrize("state", ["disabled", "absent"])
def test_a_key_that_was_restored_is_disabled_or_deleted_again(runner: OneProcess, service: Service, state: str) -> None:
    """The tasks of a run cache for a minute that a key was disabled or deleted."""
    service.on_key()
    service.point(None)
    wanted = {"vault_name": "vault-one", "name": "key1", "state": state, "in_use": "keep", "wait_timeout": 30}
    service.sandbox.control.advance(8 * DAY)
    assert runner.module("keyvault_cmk_key", wanted)["changed"]
    if state == "absent":
        service.keys().begin_recover_deleted_key("key1").wait()
    else:
        service.keys().update_key_properties("key1", enabled=True)
    time.sleep(3600)
    report = runner.module("keyvault_cmk_key", wanted)
    assert report["changed"], report
