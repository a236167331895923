# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The main jobs in each position of each switch of the sandbox. A switch selects one of the possible behaviors of Azure
if its actual behavior is not known. In every position, no account loses its key and every report is correct. PROOF=all
runs each job in each position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from cases import CASES, PROOF_OF_ALL
from one_process import OneProcess
from operators import FIRST_KEY, MODES, RBAC_VAULT, USER_ASSIGNED, Run, World, done
from role_runs import QUARTER, VARS
from service import DAY, Service

from azure_sandbox.shared.behavior import POSITIONS

ACCOUNTS = {
    "system-assigned and Azure RBAC": ("account1", (RBAC_VAULT, "key1"), (RBAC_VAULT, "key2")),
    "user-assigned and access policies": (USER_ASSIGNED, FIRST_KEY, ("vault-one", "key2")),
}
# Not here but in test_locked, because a lock or a denial makes nearly every job fail.
REFUSALS = ("resource_lock", "policy_denial")
DEFAULTS = {name: positions[0] for name, positions in POSITIONS.items()}
JOBS = [f"{account}, {follow}" for account in ACCOUNTS for follow in ("pinned", "follows")]
LOSSES = ["disabled", "access revoked", "vault deleted"]


def in_each_position(variants: Sequence[Any]) -> list[Any]:
    """The default positions, and then each other position of a single switch. Each has the next one of the variants.
    With PROOF=all, each has all variants."""
    others = [(name, position) for name in POSITIONS if name not in REFUSALS for position in POSITIONS[name][1:]]
    positions: list[dict[str, str]] = [{}, *({name: position} for name, position in others)]
    return [
        pytest.param(chosen, variant, id=f"{' '.join(f'{n}={p}' for n, p in chosen.items()) or 'defaults'}, {variant}")
        for number, chosen in enumerate(positions)
        for variant in (variants if PROOF_OF_ALL else [variants[number % len(variants)]])
    ]


@pytest.fixture
def world(request: pytest.FixtureRequest, service: Service, runner: OneProcess) -> World:
    # Prepare the resources first, because reads may lag behind writes after the switches are set.
    world = World(service, runner)
    service.sandbox.control.behavior(**{**DEFAULTS, **request.param})
    return world


@pytest.mark.parametrize(("world", "job"), in_each_position(JOBS), indirect=["world"])
@pytest.mark.slow(every=3)
def test_the_main_jobs(world: World, service: Service, job: str) -> None:
    kind, _comma, pinned = job.partition(", ")
    account, key, other = ACCOUNTS[kind]
    follow = pinned == "follows"
    rotation = {"cmk_key_max_version_age": "P90D", "cmk_unused_versions": "disable"}
    done(world.prepared(Run("provision", "account2", other))())
    for run in (
        Run("provision", account, key, {"cmk_key_version_mode": MODES[follow]}),
        Run("rotate", account, None, rotation),
        Run("rotate", account, None, rotation),
        Run("switch", account, None, {"to": other}),
        Run("recover", account),
        Run("revert", account),
    ):
        service.sandbox.control.advance(QUARTER)
        report = done(world.prepared(run)())
        assert report["available"] is True, report
        assert service.is_available(account)
        assert service.is_available("account2")
        # Until reads show the change, a second run would write the same key again.
        service.sandbox.control.advance(180)
        again = done(world.prepared(run)())
        assert (again["available"], again["changed"]) == (True, False)


@pytest.mark.parametrize(("position", "name"), in_each_position(list(CASES)))
@pytest.mark.slow(every=7)
def test_the_cases_of_injected_faults(
    runner: OneProcess, service: Service, position: dict[str, str], name: str
) -> None:
    """Among them are runs that begin with nothing, and runs that recover deleted resources."""
    case, control = CASES[name], service.sandbox.control
    variables = {**VARS, **case.begin(service), "cmk_wait_timeout": 900}
    # Within the default margin, Batch may need the previous version.
    variables.pop("cmk_unused_for", None)
    # The switches are set after the resources were created, because reads may lag behind writes.
    control.behavior(**{**DEFAULTS, **position})
    # Until now, Batch may not have noticed a loss.
    control.advance(2 * DAY)

    report = done(runner.another().role(case.role, variables))

    assert report["changed"] is True
    assert report["available"] is not False
    control.advance(600)
    assert service.is_available()
    # The second run may disable the previous version.
    for changed in ([True, False], [False]):
        control.advance(2 * DAY)
        again = done(runner.another().role(case.role, variables))
        assert again["changed"] in changed
        assert service.is_available()


@pytest.mark.parametrize("position", POSITIONS["identities_on_put"])
@pytest.mark.parametrize("has_key", [False, True])
@pytest.mark.slow(every=3)
def test_adding_an_identity_keeps_existing_identities(
    service: Service, runner: OneProcess, position: str, has_key: bool
) -> None:
    service.sandbox.control.behavior(identities_on_put=position)
    world = World(service, runner)
    run = Run("provision", USER_ASSIGNED, FIRST_KEY)
    done(world.prepared(run)())
    if not has_key:
        done(world.prepared(Run("revert", USER_ASSIGNED))())

    settings = {"adopt_existing": True, "force": has_key}
    report = done(world.prepared(Run("batch_account_identity", USER_ASSIGNED, None, settings))())

    assert report["changed"] is True
    names = service.account(USER_ASSIGNED)["identity"]["userAssignedIdentities"]
    assert {one.rpartition("/")[2] for one in names} == {"identity1", "identity2"}
    assert service.is_available(USER_ASSIGNED)


@pytest.mark.parametrize(("world", "loss"), in_each_position(LOSSES), indirect=["world"])
@pytest.mark.slow(every=3)
def test_recover(world: World, service: Service, loss: str) -> None:
    done(world.prepared(Run("provision", "account1", FIRST_KEY))())
    {
        "disabled": service.disable,
        "access revoked": lambda: service.revoke(world.principal("account1")),
        "vault deleted": service.delete_vault,
    }[loss]()
    # Until Batch notices the loss.
    service.sandbox.control.advance(int(service.sandbox.control.call("GET", "/behavior")["key_loss_noticed"]))
    assert not service.is_available()

    run = world.prepared(Run("recover", "account1"))
    report = run()
    if late := not report["changed"] and int(service.sandbox.control.call("GET", "/behavior")["read_lag"]):
        # Reads did not show the loss yet.
        service.sandbox.control.advance(late)
        report = world.prepared(Run("recover", "account1"), beside=True)()

    assert done(report)["changed"] is True
    assert report["available"] in (True, None)
    assert service.is_available()
