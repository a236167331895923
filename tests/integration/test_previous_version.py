# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An account may take a new version of its key late, and may need the previous version for some time. No run disables a
version that an account needs, and an account that has lost such a version is never reported as available."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from one_process import OneProcess
from operators import FIRST_KEY, MODES, RBAC_VAULT, Run, World, done
from role_runs import QUARTER, VARS
from service import DAY, GROUP, Service

from azure_sandbox.shared.behavior import POSITIONS

ROTATE = Run("rotate", "account1", None, {"cmk_key_max_version_age": "P90D", "cmk_unused_versions": "disable"})
RETIRE = replace(ROTATE, settings={"cmk_unused_versions": "disable"})
ROLE_KEY = (RBAC_VAULT, "key1")
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


@pytest.mark.parametrize("follow", [False, True], ids=["pinned", "follows"])
@pytest.mark.parametrize("pools", ["200", "409"])
@pytest.mark.slow(every=2)
def test_a_previous_version_that_somebody_disables(world: World, service: Service, follow: bool, pools: str) -> None:
    control = service.sandbox.control
    control.behavior(pools_without_key=pools)
    done(world.prepared(Run("provision", "account1", FIRST_KEY, {"cmk_key_version_mode": MODES[follow]}))())
    control.advance(QUARTER)
    done(world.prepared(ROTATE)())
    first, _second = service.versions()
    service.disable(version=first.version)

    for pause in (0, 2 * DAY):
        control.advance(pause)
        is_available = service.is_available()
        info = done(world.prepared(Run("batch_encryption_info", "account1"), beside=True)())
        assert info["available"] in (is_available, None)
        assert bool(info.get("warnings")) is (info["available"] is None)
        report = world.prepared(Run("rotate", "account1"), beside=True)()
        assert report.get("failed") or report["available"] in (is_available, None), report


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


@pytest.mark.parametrize(
    ("follow", "pools"),
    [
        pytest.param(False, "200", id="pinned-200"),
        pytest.param(True, "200", id="follows-200"),
        pytest.param(True, "409", id="follows-409"),
    ],
)
def test_an_account_that_lacks_only_a_previous_version(
    service: Service, runner: OneProcess, follow: bool, pools: str
) -> None:
    """If Batch lists the pools of an account that has lost its key, it is not known whether the account needs the
    version. No run reports that the account is available. The version may have been leaked, so recover makes it usable
    only if it is asked for."""
    service.sandbox.control.behavior(pools_without_key=pools, previous_version_needed="86400")
    world = World(service, runner)
    done(world.prepared(Run("provision", "account1", FIRST_KEY, {"cmk_key_version_mode": MODES[follow]}))())
    service.sandbox.control.advance(QUARTER)
    done(world.prepared(ROTATE)())
    service.sandbox.control.advance(3600)
    first, _second = service.versions()
    service.disable(version=first.version)
    assert not service.is_available()

    failed = world.prepared(Run("revert", "account1"), beside=True)()
    assert failed["code"] in ("account_unavailable", "rejected_by_service"), failed
    assert failed["current_state"]["available"] is not True
    assert "is available" not in failed["msg"]
    if pools == "200":
        report = done(world.prepared(Run("recover", "account1"), beside=True)())
        assert (report["changed"], report["available"]) == (False, None)
        assert any("cmk_allowed_repairs: [key, other_versions]" in one for one in report["warnings"])
        assert any(f"key_identifier: {first.id}, state: enabled" in one for one in report["warnings"])
    repairs = {"cmk_allowed_repairs": ["key", "other_versions"]} if pools == "200" else {}
    for _time in range(2):
        report = done(world.prepared(Run("recover", "account1", None, repairs), beside=True)())
        assert service.enabled() == [True, True]
        assert service.is_available()
    assert not report["changed"]


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


@pytest.mark.parametrize("unusable", ["disabled", "not valid yet"])
def test_a_follower_whose_newest_version_cannot_be_used(service: Service, runner: OneProcess, unusable: str) -> None:
    """The account keeps the version that it uses. Whether it needs the newest one is not known."""
    _, identifier = service.on_key()
    service.point(identifier.rpartition("/")[0])
    control = service.sandbox.control
    control.behavior(follower_delay="86400")
    control.advance(30 * DAY)
    newest = service.make_key()
    if unusable == "disabled":
        service.disable(version=newest.properties.version)
    else:
        later = datetime.fromtimestamp(control.call("GET", "/clock")["time"], UTC) + timedelta(days=3)
        service.keys().update_key_properties("key1", newest.properties.version, not_before=later)
    assert service.is_available()
    for pools in (True, False):
        wanted = {"return_accounts": True, "pools": pools}
        (account,) = done(runner.another().module("batch_encryption_audit", wanted))["accounts"]
        assert [one["id"] for one in account["findings"] if one["id"] != "follows_without_rotation"] == ["not_read"]
        assert (account["available"], account["state"]) == (None, "non_compliant")
    report = done(runner.another().role("recover", VARS))
    assert (report["changed"], report["available"]) == (False, None)
    assert service.enabled() == [True, unusable != "disabled"]


@pytest.mark.parametrize("cause", ["role", "access policy", "firewall", "deleted key"])
@pytest.mark.slow(every=12)
def test_a_follower_that_could_not_use_the_key_when_a_version_was_created(
    world: World, service: Service, cause: str
) -> None:
    """When the account can use the key again, Batch has still to move it to the newest version."""
    control, key = service.sandbox.control, ROLE_KEY if cause == "role" else FIRST_KEY
    vault = key[0]
    done(world.prepared(Run("provision", "account1", key, {"cmk_key_version_mode": "follow"}))())
    control.advance(5 * DAY)
    if cause == "firewall":
        closed = {"bypass": "None", "defaultAction": "Deny", "ipRules": [{"value": "127.0.0.1"}]}
        service.change_vault(vault, properties={"networkAcls": closed})
    elif cause != "deleted key":
        service.revoke(world.principal("account1"), vault)
    service.make_key(key[1], vault)
    if cause == "deleted key":
        service.keys(vault).begin_delete_key(key[1]).wait()
    control.advance(5 * DAY)
    assert not service.is_available()
    kept = world.prepared(RETIRE, beside=True)()
    assert kept.get("failed") or not kept["changed"], kept
    done(world.prepared(Run("recover", "account1"), beside=True)())

    for hours in (1, 25, 5 * 24):
        control.advance(hours * 3600)
        kept = done(world.prepared(RETIRE, beside=True)())
        assert service.enabled(key[1], vault) == [True, True]
        assert kept["changed"] is False
        assert service.is_available()
    control.advance(23 * 3600)
    done(world.prepared(RETIRE, beside=True)())
    assert service.enabled(key[1], vault) == [False, True]
    control.advance(2 * DAY)
    assert service.is_available()


@pytest.mark.parametrize(
    "move", ["to the newest version", "back", "to the latest version", "pinned to an older version"]
)
@pytest.mark.parametrize("pools", ["200", "409"])
@pytest.mark.parametrize("age", [5 * DAY, 10 * DAY], ids=["inside the margin", "old"])
@pytest.mark.slow(every=3)
def test_a_version_that_an_account_has_just_left(
    service: Service, runner: OneProcess, move: str, age: int, pools: str
) -> None:
    """Somebody disables the version from which the account was moved an hour ago. How old both versions are does not
    matter."""
    control = service.sandbox.control
    _, older = service.on_key()
    newer = service.make_key().id
    latest = older.rpartition("/")[0]
    start, to, lost = {
        "to the newest version": (older, newer, older),
        "back": (newer, older, newer),
        "to the latest version": (older, latest, older),
        "pinned to an older version": (latest, older, newer),
    }[move]
    service.point(start)
    control.behavior(pools_without_key=pools, previous_version_needed="86400", follower_delay="86400")
    control.advance(age)
    service.point(to)
    control.advance(3600)
    service.disable(version=lost.rpartition("/")[2])
    control.advance(2 * 3600)
    assert not service.is_available()

    on_account = {"resource_group": GROUP, "account_name": "account1"}
    info = done(runner.another().module("batch_encryption_info", on_account))
    audit = done(runner.another().module("batch_encryption_audit", {"return_accounts": True, "pools": True}))
    shown = False if pools == "409" else None
    assert [info["available"], audit["accounts"][0]["available"]] == [shown, shown]
    report = done(runner.another().role("recover", VARS))
    assert report["available"] is (True if pools == "409" else None)
    if pools == "200":
        # Only the user knows whether the version was disabled because it was leaked.
        assert any(f"key_identifier: {lost}, state: enabled" in one for one in report["warnings"])
        done(runner.another().module("keyvault_cmk_key_state", {"key_identifier": lost, "state": "enabled"}))
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
