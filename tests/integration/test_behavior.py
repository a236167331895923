# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The main jobs with each position of each switch of the sandbox: whatever Azure does where nobody knows what it does,
no account loses its key and no run reports what is not so."""

from __future__ import annotations

import pytest
from one_process import OneProcess
from operators import FIRST_KEY, RBAC_VAULT, USER_ASSIGNED, Run, World, done
from role_runs import QUARTER
from service import Service

from azure_sandbox.shared.behavior import POSITIONS

EACH_POSITION = [(name, position) for name, positions in POSITIONS.items() for position in positions]


@pytest.fixture(params=EACH_POSITION, ids="=".join)
def world(request: pytest.FixtureRequest, service: Service, runner: OneProcess) -> World:
    name, position = request.param
    world = World(service, runner)
    service.sandbox.control.behavior(**{name: position})
    return world


@pytest.mark.parametrize(
    ("account", "key", "other"),
    [
        ("account1", (RBAC_VAULT, "key1"), (RBAC_VAULT, "key2")),
        (USER_ASSIGNED, FIRST_KEY, ("vault-one", "key2")),
    ],
    ids=["system-assigned and Azure RBAC", "user-assigned and access policies"],
)
@pytest.mark.parametrize("follow", [False, True], ids=["pinned", "follows"])
def test_the_main_jobs(
    world: World, service: Service, account: str, key: tuple[str, str], other: tuple[str, str], follow: bool
) -> None:
    done(world.prepared(Run("provision", "account2", other))())
    for run in (
        Run("provision", account, key, {"cmk_key_follow_latest": follow}),
        Run("rotate", account, None, {"cmk_key_max_age": "P90D", "cmk_previous_version": "disable"}),
        Run("rotate", account, None, {"to": other}),
        Run("recover", account),
        Run("revert", account),
    ):
        service.sandbox.control.advance(QUARTER)
        report = done(world.prepared(run)())
        assert report["available"] is True, report
        assert service.is_available(account)
        assert service.is_available("account2")
        again = done(world.prepared(run)())
        assert (again["available"], again["changed"]) == (True, False)


@pytest.mark.parametrize("position", POSITIONS["identities_on_put"])
@pytest.mark.parametrize("has_key", [False, True])
def test_another_identity_leaves_the_ones_that_are_there(
    service: Service, runner: OneProcess, position: str, has_key: bool
) -> None:
    service.sandbox.control.behavior(identities_on_put=position)
    world = World(service, runner)
    run = Run("provision", USER_ASSIGNED, FIRST_KEY)
    done(world.prepared(run)())
    if not has_key:
        done(world.prepared(Run("revert", USER_ASSIGNED))())

    wishes = {"adopt_existing": True, "force": has_key}
    report = done(world.prepared(Run("batch_account_identity", USER_ASSIGNED, None, wishes))())

    assert report["changed"] is True
    names = service.account(USER_ASSIGNED)["identity"]["userAssignedIdentities"]
    assert {one.rpartition("/")[2] for one in names} == {"identity1", "identity2"}
    assert service.is_available(USER_ASSIGNED)


@pytest.mark.parametrize("loss", ["disabled", "access revoked", "vault deleted"])
def test_recover(world: World, service: Service, loss: str) -> None:
    done(world.prepared(Run("provision", "account1", FIRST_KEY))())
    {
        "disabled": service.disable,
        "access revoked": lambda: service.revoke(world.principal("account1")),
        "vault deleted": service.delete_vault,
    }[loss]()
    assert not service.is_available()

    run = world.prepared(Run("recover", "account1"))
    report = run()
    if late := report.get("failed") and int(service.sandbox.control.call("GET", "/behavior")["read_lag"]):
        # The loss was not to be seen yet.
        assert report["changed"] is False
        service.sandbox.control.advance(late)
        report = world.prepared(Run("recover", "account1"), beside=True)()

    assert done(report)["changed"] is True
    assert report["available"] in (True, None)
    assert service.is_available()
