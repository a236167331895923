# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""If a run cannot confirm a change, it does not begin the change. It reads the access again after each
change, even in a run with many accounts."""

from __future__ import annotations

import uuid

import pytest
from cases import DISABLE
from meddling import REALISTIC, SETTLED, Wire
from moments import creates_account, moves_account
from one_process import OneProcess
from operators import FIRST_KEY, RBAC_VAULT, USER_ASSIGNED, Report, Run, World, done
from role_runs import QUARTER
from service import GROUP, Service

from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs

POOLS_READ = "Microsoft.Batch/batchAccounts/pools/read"
KEY2 = ("vault-one", "key2")
FORCE = {"cmk_key_new_version": True}
EACH_CHANGE = {
    "rotate": Run("rotate", "account1", None, FORCE),
    "rotate, and disable": Run("rotate", "account1", None, FORCE | {"cmk_unused_versions": "disable"}),
    "switch": Run("switch", "account1", None, {"to": KEY2}),
    "revert": Run("revert", "account1", None, {"cmk_unused_key": "delete"}),
    "provision on another key": Run("provision", "account1", KEY2, {"cmk_previous_key": "any"}),
    "provision in a new vault": Run("provision", "account1", ("vault-three", "key1"), {"cmk_previous_key": "any"}),
}


@pytest.fixture
def hidden(service: Service, runner: OneProcess, monkeypatch: pytest.MonkeyPatch) -> World:
    """Two accounts that use keys, and a caller that has all permissions except to list pools."""
    world = World(service, runner)
    for account, key in (("account1", FIRST_KEY), ("account2", KEY2)):
        report = world.prepared(Run("provision", account, key))()
        assert not report.get("failed"), report
    service.sandbox.control.advance(QUARTER)
    become_blind(service, monkeypatch)
    return world


def become_blind(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    scope, role = service.sandbox.subscription, str(uuid.uuid4())
    permissions = [{"actions": ["*"], "notActions": [POOLS_READ], "dataActions": [], "notDataActions": []}]
    properties = {"roleName": "Without pools", "type": "CustomRole", "assignableScopes": [scope]}
    answer = service.sandbox.arm(
        "PUT",
        f"{scope}/providers/Microsoft.Authorization/roleDefinitions/{role}",
        "2022-04-01",
        {"properties": {**properties, "permissions": permissions}},
    )
    assert answer.ok, answer.text
    roles = [{"role": name, "scope": scope} for name in ("Without pools", "Key Vault Crypto Officer")]
    who = service.sandbox.control.principal("blind", roles=roles)
    for vault in ("vault-one", "vault-three"):
        if vault in [one.name for one in service.vaults.vaults.list_by_subscription()]:
            service.set_policy("add", service.policy(who["object_id"], "all"), vault=vault)
    for name, value in (("AZURE_CLIENT_ID", who["client_id"]), ("AZURE_SECRET", who["secret"])):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AZURE_CLIENT_SECRET", raising=False)


@pytest.mark.slow(every=4)
@pytest.mark.parametrize("check", [False, True], ids=["run", "check mode"])
@pytest.mark.parametrize("change", EACH_CHANGE)
def test_a_change_that_could_not_be_confirmed(hidden: World, service: Service, change: str, check: bool) -> None:
    run = EACH_CHANGE[change]
    on, since = service.encryption(), service.sandbox.control.last
    report = hidden.prepared(Run(run.what, run.account, run.key, run.settings, check=check))()
    assert report["code"] == "availability_unknown", report
    assert report["action"] == POOLS_READ
    assert POOLS_READ in report["msg"]
    # The role provision creates the vault before its last task refuses to move the account.
    written = writes(service, since)
    assert not check or written == []
    assert not [url for url in written if "/batchAccounts/" in url or "vault-three" not in url]
    assert service.encryption() == on


def writes(service: Service, since: int) -> list[str]:
    return [one["url"] for one in service.sandbox.control.requests(since, writes=True) if "/oauth2/" not in one["url"]]


def test_a_version_is_not_disabled_if_the_pools_of_accounts_cannot_be_listed(
    runner: OneProcess, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A previous run moved the account. A pool may use the previous version."""
    world = World(service, runner)
    for run in (Run("provision", "account1"), Run("rotate", "account1", None, FORCE)):
        service.sandbox.control.advance(QUARTER)
        report = world.prepared(run)()
        assert not report.get("failed"), report
    become_blind(service, monkeypatch)
    report = world.prepared(Run("rotate", "account1", None, DISABLE))()
    assert report["code"] == "users_unknown", report
    assert POOLS_READ in report["msg"]
    assert all(version.enabled for version in service.versions())


def test_unconfirmed_availability_without_a_change_is_no_failure(hidden: World, service: Service) -> None:
    report = hidden.prepared(Run("rotate", "account1"))()
    assert (report["changed"], report["available"]) == (False, None), report
    assert any(POOLS_READ in warning for warning in report["warnings"])


@pytest.mark.parametrize("check", [False, True], ids=["run", "check mode"])
@pytest.mark.parametrize("role", ["provision", "rotate"])
def test_unreadable_availability_fails_the_job_that_requires_it(
    hidden: World, service: Service, role: str, check: bool
) -> None:
    settings = {"cmk_require_readable": True}
    report = hidden.prepared(Run(role, "account1", None, settings, check=check))()
    assert (report["failed"], report["code"]) == (True, "availability_unknown"), report
    assert POOLS_READ in report["msg"]


def test_a_version_that_somebody_has_disabled_fails_no_job(runner: OneProcess, service: Service) -> None:
    """A leaked version, for example. For seven days, nothing shows whether Batch still needs it."""
    world = World(service, runner)
    for run in (Run("provision", "account1"), Run("rotate", "account1", None, FORCE)):
        done(world.prepared(run)())
        service.sandbox.control.advance(60)
    old, _newest = sorted(service.versions(), key=lambda version: version.created_on)
    service.keys().update_key_properties(old.name, old.version, enabled=False)
    report = done(world.prepared(Run("rotate", "account1", None, {"cmk_require_readable": True}))())
    assert (report["changed"], report["available"]) == (False, None), report


def test_recover_reports_that_the_availability_is_unknown(hidden: World, service: Service) -> None:
    service.disable()
    since = service.sandbox.control.last
    report = hidden.prepared(Run("recover", "account1"))()
    assert report["failed"]
    assert POOLS_READ in report["msg"]
    assert writes(service, since) == []


def test_an_account_is_not_created_without_permission_to_list_pools(hidden: World, service: Service) -> None:
    """The run could not confirm that the account is available, so it does not create the account."""
    report = hidden.prepared(Run("provision", USER_ASSIGNED))()
    assert (report["task"], report["code"]) == ("Ensure the account and its identity", "permission_denied"), report
    assert report["action"] == POOLS_READ
    assert USER_ASSIGNED not in service.accounts()


@pytest.mark.parametrize("vault", ["vault-one", RBAC_VAULT])
@pytest.mark.parametrize("accounts", [12, 40])
@pytest.mark.slow(every=6)
def test_access_that_is_revoked_just_before_the_last_of_many_switches(
    runner: OneProcess, wire: Wire, service: Service, accounts: int, vault: str
) -> None:
    """Batch accepts the key, because the revocation has not taken effect yet. The account must be moved back."""
    world = World(service, runner)
    for name in ("account1", "account2"):
        report = world.prepared(Run("provision", name, (vault, "key1")))()
        assert not report.get("failed"), report
    revert = world.prepared(Run("revert", "account1"))()
    assert not revert.get("failed"), revert
    identity = service.account("account2")["identity"]["principalId"]
    service.sandbox.control.timing(**REALISTIC)
    service.sandbox.control.advance(SETTLED)
    identifier = service.key(vault=vault).id
    # Move other accounts first, so that the run has made as many reads as a large run before its last account.
    others = [f"other{number}" for number in range(accounts - 1)]
    user = {"type": "UserAssigned", "userAssignedIdentities": {service.identity_id(): {}}}
    service.grant(world.principal(USER_ASSIGNED), vault)
    service.sandbox.control.advance(SETTLED)
    for name in others:
        service.make_account(name, identity=user)
        report = switch(runner, name, identifier)
        assert report["changed"], report
    principal = service.account("account1")["identity"]["principalId"]
    assert principal != identity

    with wire.meddled(moves_account(), lambda: service.revoke(principal, vault)):
        report = switch(runner, "account1", identifier)

    assert report["code"] == "preflight_failed", report
    assert report["failed_checks"] == ["access_granted"]
    assert report["restored"] is True
    service.sandbox.control.advance(SETTLED)
    assert service.encryption("account1") is None
    assert world.usable() == {"account1", "account2", *others}


def switch(runner: OneProcess, account: str, identifier: str) -> Report:
    arguments = {"resource_group": GROUP, "account_name": account, "key_source": "microsoft_keyvault"}
    return runner.module("batch_encryption", {**arguments, "key_identifier": identifier})


@pytest.mark.parametrize("vault", ["vault-one", RBAC_VAULT])
def test_access_that_is_revoked_while_an_account_is_created_with_its_key(
    runner: OneProcess, wire: Wire, service: Service, vault: str
) -> None:
    world = World(service, runner)
    service.make_key(vault=vault)
    principal = world.principal(USER_ASSIGNED)
    service.grant(principal, vault)
    # Create the account at once. Otherwise the revocation takes effect before the account exists, and then the account
    # can only be deleted.
    service.sandbox.control.timing(**{**REALISTIC, "batch_create": 0})
    service.sandbox.control.advance(SETTLED)

    prepared = world.prepared(Run("provision", USER_ASSIGNED, (vault, "key1")))
    with wire.meddled(creates_account(USER_ASSIGNED), lambda: service.revoke(principal, vault)):
        report = prepared()

    assert report["code"] == "preflight_failed", report
    assert report["failed_checks"] == ["access_granted"]
    service.sandbox.control.advance(SETTLED)
    assert service.encryption(USER_ASSIGNED) is None
    assert service.is_available(USER_ASSIGNED)


def test_access_revoked_during_a_slow_creation(runner: OneProcess, wire: Wire, service: Service) -> None:
    """Batch refuses to move an account that has lost its key. The run fails without a wait, and reports the cause."""
    world = World(service, runner)
    service.make_key()
    principal = world.principal(USER_ASSIGNED)
    service.grant(principal)
    service.sandbox.control.timing(**REALISTIC)
    service.sandbox.control.advance(SETTLED)

    prepared = world.prepared(Run("provision", USER_ASSIGNED))
    with wire.meddled(creates_account(USER_ASSIGNED), lambda: service.revoke(principal)):
        report = prepared()

    assert report["code"] == "preflight_failed", report
    assert report["failed_checks"] == ["access_granted"]
    assert report["restored"] is False
    assert "azbatch.cmk.keyvault_cmk_access" in report["remedy"]


def test_access_that_is_revoked_after_the_task_has_listed_all_assignments(
    runner: OneProcess, wire: Wire, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With many accounts, a task looks for its role in the list for all principals, also to confirm the move."""
    monkeypatch.setattr(refs, "LISTED_FROM", 1)
    service.make_vault(RBAC_VAULT, rbac=True)
    key = service.make_key(vault=RBAC_VAULT).id
    principal = service.make_account()["identity"]["principalId"]
    service.grant(principal, RBAC_VAULT)
    service.sandbox.control.timing(**REALISTIC)
    service.sandbox.control.advance(SETTLED)

    with wire.meddled(moves_account(), lambda: service.revoke(principal, RBAC_VAULT)):
        report = switch(runner, "account1", key)

    assert report["failed_checks"] == ["access_granted"], report
    service.sandbox.control.advance(SETTLED)
    assert service.is_safe()


def test_a_role_that_is_replaced_during_the_run(runner: OneProcess, wire: Wire, service: Service) -> None:
    """The run has not read the definition of the new role before."""
    world = World(service, runner)
    first = world.prepared(Run("provision", "account1", (RBAC_VAULT, "key1")))()
    assert not first.get("failed"), first
    reverted = world.prepared(Run("revert", "account1"))()
    assert not reverted.get("failed"), reverted
    principal = service.account()["identity"]["principalId"]
    officer = "14b46e9e-c2b7-41b4-b07b-48a6ebf60603"

    def swap() -> None:
        service.revoke(principal, RBAC_VAULT)
        service.assign(principal, service.vault_id(RBAC_VAULT), officer)

    with wire.meddled(moves_account(), swap):
        report = switch(runner, "account1", service.key(vault=RBAC_VAULT).id)
    assert report.get("changed"), report
    assert service.is_available()
