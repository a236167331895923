# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Azure may refuse the creation of an account in several ways. In each, the task reports the cause, a remaining account
is available or a rerun repeats its creation, and other accounts stay available."""

from __future__ import annotations

import pytest
from meddling import REALISTIC, SETTLED, Wire
from moments import creates_account
from one_process import OneProcess
from operators import FIRST_KEY, RBAC_VAULT, USER_ASSIGNED, Run, World, done
from service import Service

from azure_sandbox.shared.behavior import POSITIONS


@pytest.fixture(params=POSITIONS["refused_creation"])
def position(request: pytest.FixtureRequest, service: Service) -> str:
    service.sandbox.control.behavior(refused_creation=request.param)
    return str(request.param)


@pytest.fixture
def world(position: str, service: Service, runner: OneProcess) -> World:
    return World(service, runner)


@pytest.mark.parametrize("vault", ["vault-one", RBAC_VAULT])
def test_access_that_reaches_batch_late(world: World, service: Service, vault: str) -> None:
    """Batch refuses the key at first, and the task repeats the creation."""
    service.sandbox.control.timing(**REALISTIC)

    report = done(world.prepared(Run("provision", USER_ASSIGNED, (vault, "key1")))())

    assert (report["changed"], report["available"]) == (True, True)
    assert service.is_available(USER_ASSIGNED)


@pytest.mark.parametrize("vault", ["vault-one", RBAC_VAULT])
def test_access_that_is_revoked_before_the_creation(world: World, wire: Wire, service: Service, vault: str) -> None:
    """A remaining account uses a Microsoft-managed key, and a rerun moves it to the key."""
    run = Run("provision", USER_ASSIGNED, (vault, "key1"))
    principal = world.principal(USER_ASSIGNED)
    service.make_key(vault=vault)
    service.grant(principal, vault)

    with wire.meddled(creates_account(USER_ASSIGNED), lambda: service.revoke(principal, vault)):
        report = world.prepared(run)()

    assert (report["code"], report["failed_checks"]) == ("preflight_failed", ["access_granted"]), report
    if USER_ASSIGNED in service.accounts():
        assert service.encryption(USER_ASSIGNED) is None
        assert service.is_available(USER_ASSIGNED)
    done(world.prepared(run)())
    assert service.is_available(USER_ASSIGNED)


@pytest.mark.slow(every=3)
def test_a_rerun_replaces_a_failed_account(world: World, service: Service, position: str) -> None:
    """A previous run was killed before it could delete the failed account."""
    user = {"type": "UserAssigned", "userAssignedIdentities": {service.identity_id(): {}}}
    refused = {"keySource": "Microsoft.KeyVault", "keyVaultProperties": {"keyIdentifier": service.make_key().id}}
    body = {"location": "westeurope", "identity": user, "tags": {"team": "one"}, "properties": {"encryption": refused}}
    answer = service.sandbox.arm("PUT", service.account_id(USER_ASSIGNED), "2024-07-01", body)
    assert answer.ok is (position != "at_once"), answer.text

    run = Run("provision", USER_ASSIGNED, FIRST_KEY)
    check = done(world.prepared(Run("provision", USER_ASSIGNED, FIRST_KEY, check=True), beside=True)())
    report = done(world.prepared(run)())

    assert check["changed"] is True
    assert report["available"] is True
    assert service.is_available(USER_ASSIGNED)
    again = done(world.prepared(run)())
    assert again["changed"] is False


@pytest.mark.parametrize("account", ["account5", USER_ASSIGNED])
@pytest.mark.slow(every=2)
def test_a_quota_that_is_reached(world: World, service: Service, account: str) -> None:
    control = service.sandbox.control
    done(world.prepared(Run("provision", "account1"))())
    for name in ("account2", "account4"):
        service.make_account(name)
    control.behavior(account_quota="3")
    began = control.call("GET", "/clock")["time"]
    run = Run("provision", account)

    report = world.prepared(run)()

    assert report["code"] == "quota_exceeded", report
    assert report["remedy"] in report["msg"]
    assert control.call("GET", "/clock")["time"] - began < SETTLED, "nothing changes while one waits"
    assert all(service.is_available(name) for name in ("account1", "account2", "account4"))
    control.behavior(account_quota="50")
    done(world.prepared(run)())
    assert service.is_available(account)
