# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""If a run cannot confirm a change, it does not begin the change. It reads the access again after each
change, even in a run with many accounts."""

from __future__ import annotations

import uuid

import pytest
from meddling import REALISTIC, SETTLED, Wire
from moments import creates_account, moves_account
from one_process import OneProcess
from operators import FIRST_KEY, RBAC_VAULT, USER_ASSIGNED, Report, Run, World
from role_runs import QUARTER
from service import GROUP, Service

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
    assert "Assign Reader on the account." in report["msg"]
    # The role provision creates the vault before its last task refuses to move the account.
    written = writes(service, since)
    assert not check or written == []
    assert not [url for url in written if "/batchAccounts/" in url or "vault-three" not in url]
    assert service.encryption() == on


def writes(service: Service, since: int) -> list[str]:
    return [one["url"] for one in service.sandbox.control.requests(since, writes=True) if "/oauth2/" not in one["url"]]


@pytest.mark.parametrize("vault", ["vault-one", RBAC_VAULT])
@pytest.mark.slow(every=2)
def test_access_that_is_revoked_just_before_the_last_of_many_switches(
    runner: OneProcess, wire: Wire, service: Service, vault: str
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
    others = [f"other{number}" for number in range(11)]
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
