# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An account may take a new version of its key late, and may need the previous version for some time. No run disables a
version that an account needs, and the role recover makes such a version usable."""

from __future__ import annotations

import pytest
from one_process import OneProcess
from operators import FIRST_KEY, MODES, Run, World, done
from role_runs import QUARTER
from service import DAY, Service

ROTATE = Run("rotate", "account1", None, {"cmk_key_max_version_age": "P90D", "cmk_unused_versions": "disable"})


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
