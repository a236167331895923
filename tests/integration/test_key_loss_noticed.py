# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""However late Batch notices that an account has lost its key: no run reports the account as available, and no run that
succeeds leaves the account on a key that Batch cannot use."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from cases import PROOF_OF_ALL
from meddling import Wire
from one_process import OneProcess
from operators import FIRST_KEY, MODES, Report, Run, World, done
from role_runs import QUARTER
from service import Service, reset

from azure_sandbox.shared.behavior import POSITIONS

NOTICED = POSITIONS["key_loss_noticed"]
# The latest, or all positions with PROOF=all.
LATE = NOTICED if PROOF_OF_ALL else NOTICED[:1]
# Requests of a run before which the key is lost.
STEP = 1 if PROOF_OF_ALL else 5
# Reads of a run are cached for less.
CACHED_SECONDS = 25


def disable_all(service: Service, _world: World) -> None:
    for version in service.versions():
        service.disable(version=version.version)


LOSSES: dict[str, Callable[[Service, World], object]] = {
    "key disabled": disable_all,
    "key deleted": lambda service, _world: service.keys().begin_delete_key("key1").wait(),
    "access revoked": lambda service, world: service.revoke(world.principal("account1")),
}
OTHER_KEY = ("vault-one", "key2")
RUNS = {
    "rotate": Run("rotate", "account1", None, {"cmk_key_new_version": True}),
    "switch": Run("switch", "account1", None, {"to": OTHER_KEY}),
    "provision again": Run("provision", "account1", FIRST_KEY),
    "revert": Run("revert", "account1"),
}
# The last task of each role that checks whether the account is available.
LAST_CHECK = ("Move the account to the key", "Move the account to a Microsoft-managed key")


@pytest.fixture(params=NOTICED)
def noticed(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def prepared(service: Service, runner: OneProcess, noticed: str, *, follow: bool = False) -> World:
    """account1 on key1, whose loss Batch notices after that many seconds, and the other key on another account."""
    reset(service.sandbox.control)
    runner.forget()
    service.sign_in_again()
    service.sandbox.control.behavior(key_loss_noticed=noticed, previous_version_needed="86400")
    world = World(service, runner)
    done(world.prepared(Run("provision", "account2", OTHER_KEY))())
    done(world.prepared(Run("provision", "account1", FIRST_KEY, {"cmk_key_version_mode": MODES[follow]}))())
    service.sandbox.control.advance(QUARTER)
    assert service.is_safe()
    return world


def assert_true(service: Service, world: World, report: Report) -> None:
    """The report on the account, now and after Batch has noticed every loss."""
    assert report.get("failed") or report["available"] is not True or service.is_safe(), report
    service.sandbox.control.advance(max(map(int, NOTICED)) + 1)
    assert report.get("failed") or report["available"] is not True or service.is_available(), report
    info = done(world.prepared(Run("batch_encryption_info", "account1"), beside=True)())
    assert info["available"] in (None, service.is_available())


@pytest.mark.parametrize("follow", [False, True], ids=["pinned", "follows"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.slow(every=4)
def test_a_lost_key_is_never_reported_as_available(
    service: Service, runner: OneProcess, noticed: str, loss: str, follow: bool
) -> None:
    world = prepared(service, runner, noticed, follow=follow)
    LOSSES[loss](service, world)
    for seconds in (0, 1800, 2000):
        service.sandbox.control.advance(seconds)
        info = done(world.prepared(Run("batch_encryption_info", "account1"), beside=True)())
        assert info["available"] is False, info
    assert not service.is_available()
    report = done(world.prepared(Run("recover", "account1"), beside=True)())
    assert report["changed"] is True
    assert service.is_safe()


@pytest.mark.parametrize("noticed", LATE, indirect=True)
@pytest.mark.parametrize("follow", [False, True], ids=["pinned", "follows"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", RUNS)
@pytest.mark.slow(every=4)
def test_the_key_is_lost_before_the_run(
    service: Service, runner: OneProcess, noticed: str, loss: str, name: str, follow: bool
) -> None:
    world = prepared(service, runner, noticed, follow=follow)
    LOSSES[loss](service, world)

    report = world.prepared(RUNS[name], beside=True)()

    assert report.get("failed") or service.is_safe(), report
    assert_true(service, world, report)
    assert report.get("failed") or service.is_available()


@pytest.mark.parametrize("noticed", LATE, indirect=True)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", RUNS)
@pytest.mark.slow(every=4)
def test_the_key_is_lost_between_two_tasks(
    service: Service, runner: OneProcess, noticed: str, loss: str, name: str
) -> None:
    for number in range(10):
        world = prepared(service, runner, noticed)
        tasks: list[str] = []

        def lose(task: str, _result: Report, tasks: list[str] = tasks, at: int = number, world: World = world) -> None:
            tasks.append(task)
            if len(tasks) == at + 1:
                LOSSES[loss](service, world)
                time.sleep(CACHED_SECONDS)

        report = world.prepared(RUNS[name], beside=True)(record=lose)
        if len(tasks) <= number or tasks[number] in LAST_CHECK:
            return
        assert_true(service, world, report)
        # With null, the run has said which version to make usable.
        assert report.get("failed") or service.is_available() or report["available"] is None, (tasks[number], report)


@pytest.mark.parametrize("noticed", LATE, indirect=True)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", ["rotate", "switch", "revert"])
@pytest.mark.slow(every=4)
def test_the_key_is_lost_before_the_account_is_moved(
    service: Service, runner: OneProcess, wire: Wire, noticed: str, loss: str, name: str
) -> None:
    """Another user takes the key away before one of the run's requests, up to the change of the account."""
    for number in range(0, 100, STEP):
        world = prepared(service, runner, noticed)
        lost_at: list[int] = []

        def lose(lost_at: list[int] = lost_at, world: World = world) -> None:
            LOSSES[loss](service, world)
            lost_at.append(service.sandbox.control.last)

        play = world.prepared(RUNS[name], beside=True)
        with wire.meddled(number, lose):
            report = play()
        writes = service.sandbox.control.requests(lost_at[0], writes=True) if lost_at else []
        if not report.get("failed") and not any("/batchAccounts/account1" in one["url"] for one in writes):
            # The run has checked the key before.
            return
        assert_true(service, world, report)
