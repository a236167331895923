# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An account may take a new version of its key late, and may need the previous version for some time. No run disables a
version that an account needs, and the role recover makes such a version usable."""

from __future__ import annotations

import pytest
from one_process import OneProcess
from operators import FIRST_KEY, MODES, Run, World, done
from role_runs import QUARTER, VARS
from service import DAY, Service

from azure_sandbox.shared.behavior import POSITIONS

ROTATE = Run("rotate", "account1", None, {"cmk_key_max_version_age": "P90D", "cmk_unused_versions": "disable"})
SWITCHES = ("follower_delay", "previous_version_needed")


@pytest.fixture(params=zip(*(POSITIONS[name] for name in SWITCHES), strict=True), ids="-".join)
def world(request: pytest.FixtureRequest, service: Service, runner: OneProcess) -> World:
    service.sandbox.control.behavior(**dict(zip(SWITCHES, request.param, strict=True)))
    return World(service, runner)


@pytest.mark.slow(every=4)
@pytest.mark.parametrize("follow", [False, True], ids=["pinned", "follows"])
def test_a_previous_version_is_disabled_when_no_account_needs_it(world: World, service: Service, follow: bool) -> None:
    control = service.sandbox.control
    done(world.prepared(Run("provision", "account1", FIRST_KEY, {"cmk_key_version_mode": MODES[follow]}))())
    control.advance(QUARTER)
    for hours in (0, 1, 22, 2, 24, 5 * 24 - 2):
        control.advance(hours * 3600)
        done(world.prepared(ROTATE, beside=True)())
        assert service.is_available()
        assert service.enabled() == [True, True]
    control.advance(3 * 3600)
    done(world.prepared(ROTATE, beside=True)())
    assert service.enabled() == [False, True]
    control.advance(DAY)
    assert service.is_available()


@pytest.mark.parametrize(
    ("follow", "hours", "pools"),
    [
        pytest.param(False, 1, "200", id="pinned-200"),
        pytest.param(False, 1, "409", id="pinned-409"),
        pytest.param(True, 1, "409", id="follows-409"),
        pytest.param(True, 30, "409", id="followed-409"),
    ],
)
@pytest.mark.slow(every=3)
def test_recover_makes_every_version_usable_that_batch_may_need(
    world: World, service: Service, follow: bool, hours: int, pools: str
) -> None:
    """All versions of the key are disabled soon after a rotation."""
    control = service.sandbox.control
    control.behavior(pools_without_key=pools)
    done(world.prepared(Run("provision", "account1", FIRST_KEY, {"cmk_key_version_mode": MODES[follow]}))())
    control.advance(QUARTER)
    done(world.prepared(ROTATE)())
    control.advance(hours * 3600)
    assert service.is_available()
    for version in service.versions():
        service.disable(version=version.version)
    assert not service.is_available()

    report = done(world.prepared(Run("recover", "account1"), beside=True)())

    assert service.is_available()
    # If Batch lists the pools of an account that has lost its key, the list does not prove that the key can be used.
    assert report["available"] is (True if pools == "409" else None)
    done(world.prepared(Run("recover", "account1"), beside=True)())
    control.advance(3 * DAY)
    assert service.is_available()


def test_an_account_that_lacks_only_a_previous_version(service: Service, runner: OneProcess) -> None:
    """Batch lists the pools, so it is not known whether the account needs the version. The version may have been
    leaked, so recover makes it usable only if it is asked for."""
    service.sandbox.control.behavior(pools_without_key="200", previous_version_needed="86400")
    world = World(service, runner)
    done(world.prepared(Run("provision", "account1"))())
    service.sandbox.control.advance(QUARTER)
    done(world.prepared(ROTATE)())
    service.disable(version=service.versions()[0].version)
    service.sandbox.control.advance(3600)
    assert not service.is_available()

    report = done(world.prepared(Run("recover", "account1"), beside=True)())
    assert (report["changed"], report["available"]) == (False, None)
    repairs = {"cmk_allowed_repairs": ["key", "other_versions"]}
    assert done(world.prepared(Run("recover", "account1", None, repairs), beside=True)())["changed"]
    assert service.enabled() == [True, True]
    assert service.is_available()


@pytest.mark.slow(every=4)
@pytest.mark.parametrize("follow", [False, True], ids=["pinned", "follows"])
@pytest.mark.parametrize("pools", ["200", "409"])
def test_a_leaked_version_that_was_disabled_stays_disabled(
    service: Service, runner: OneProcess, follow: bool, pools: str
) -> None:
    """The steps of docs/rotate.md for a leaked version. The account is available all the time."""
    control = service.sandbox.control
    control.behavior(pools_without_key=pools)
    world = World(service, runner)
    done(world.prepared(Run("provision", "account1", FIRST_KEY, {"cmk_key_version_mode": MODES[follow]}))())
    control.advance(QUARTER)
    leaked = {"cmk_key_new_version": True, "cmk_unused_versions": "disable", "cmk_unused_for": "P0D"}
    report = done(world.prepared(Run("rotate", "account1", None, leaked))())
    assert service.enabled() == [False, True]
    assert all("Only if the account becomes unavailable" in one for one in report["warnings"] if "still need" in one)
    for pause in (0, 3600, 2 * DAY):
        control.advance(pause)
        audit = done(runner.another().module("batch_encryption_audit", {"return_accounts": True, "pools": True}))
        (account,) = audit["accounts"]
        assert "critical" not in {one["severity"] for one in account["findings"]}, account["findings"]
        assert account["available"] is None
        recovered = done(world.prepared(Run("recover", "account1"), beside=True)())
        assert not recovered["changed"]
        assert service.enabled() == [False, True]
        assert service.is_available()


@pytest.mark.parametrize("follow", [False, True], ids=["pinned", "follows"])
def test_a_version_is_replaced_before_it_expires(service: Service, runner: OneProcess, follow: bool) -> None:
    """A nightly rotation with an age that is a day less than the expiry."""
    control = service.sandbox.control
    control.behavior(previous_version_needed="86400", follower_delay="86400")
    wanted = {**VARS, "cmk_key_max_version_age": "P90D", "cmk_key_expires_in": "P91D"}
    done(runner.role("provision", {**VARS, "cmk_key_expires_in": "P91D", "cmk_key_version_mode": MODES[follow]}))
    control.advance(87 * DAY)
    for _night in range(8):
        control.advance(DAY - 600)
        assert service.is_available()
        done(runner.another().role("rotate", wanted))
    assert service.enabled() == [True, True]
    assert service.is_available()
