# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Azure may refuse the creation of an account in several ways. In each, the task reports the cause, a remaining account
is available or a rerun repeats its creation, and other accounts stay available."""

from __future__ import annotations

import pytest
from one_process import OneProcess
from operators import FIRST_KEY, USER_ASSIGNED, Run, World, done
from service import Service

from azure_sandbox.shared.behavior import POSITIONS


@pytest.fixture(params=POSITIONS["refused_creation"])
def position(request: pytest.FixtureRequest, service: Service) -> str:
    service.sandbox.control.behavior(refused_creation=request.param)
    return str(request.param)


@pytest.fixture
def world(position: str, service: Service, runner: OneProcess) -> World:
    return World(service, runner)


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
