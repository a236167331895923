# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Weeks of nightly rotations that disable unused versions. After some quiet nights, only versions inside the margin are
enabled, however they were made. No account ever loses a version that it needs, and none is reported as unavailable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from one_process import OneProcess
from operators import done
from role_runs import VARS
from service import DAY, GROUP, Service

HOUR = 3600
PINNED, FOLLOWING = ("pinned1", "pinned2"), ("follow1", "follow2")
DISABLE = {"cmk_unused_versions": "disable"}
FORCE = {"cmk_key_new_version": True}


class Nights:
    """A fleet on one key, with a controller for each slice."""

    def __init__(self, service: Service, runner: OneProcess) -> None:
        self._service = service
        self.runner = runner
        self.warnings: list[str] = []
        service.make_vault()
        identifier = service.make_key().id
        for name in (*PINNED, *FOLLOWING):
            service.grant(service.make_account(name)["identity"]["principalId"])
            service.point(identifier if name in PINNED else identifier.rpartition("/")[0], name)
        service.sandbox.control.advance(30 * DAY)

    def rotate(self, names: Sequence[str], **wanted: Any) -> None:
        """Rotate these accounts with one controller."""
        controller = self.runner.another()
        for name in names:
            report = done(controller.role("rotate", {**VARS, "cmk_account_name": name, **DISABLE, **wanted}))
            assert report["available"] is True, (name, report["warnings"])
            # Each removal warns about users that Azure Resource Graph does not show.
            self.warnings += [one for one in report["warnings"] if not one.startswith("Azure Resource Graph")]
        assert all(map(self._service.is_safe, (*PINNED, *FOLLOWING)))

    def night(self, **wanted: Any) -> None:
        """A night in which two slices rotate the fleet, and the day after it."""
        for names in zip(PINNED, FOLLOWING, strict=True):
            self.rotate(names, **wanted)
            self.pass_time(60)
        # The nights differ by minutes. A version of the night before is at least a day old.
        self.pass_time(DAY)

    def pass_time(self, seconds: float) -> None:
        self._service.sandbox.control.advance(seconds)
        assert all(map(self._service.is_safe, (*PINNED, *FOLLOWING)))

    def enabled(self) -> list[bool]:
        """Whether each version of the key is enabled, the oldest first."""
        return self._service.enabled()


@pytest.fixture
def nights(service: Service, runner: OneProcess) -> Nights:
    """An account adopts a new version after a day, and needs the previous version until then."""
    service.sandbox.control.behavior(follower_delay="86400", previous_version_needed="86400")
    return Nights(service, runner)


def test_two_forced_rotations_within_hours(nights: Nights) -> None:
    for _rotation in range(2):
        nights.rotate([*PINNED, *FOLLOWING], **FORCE)
        nights.pass_time(3 * HOUR)
    for _night in range(6):
        nights.night(cmk_key_max_version_age="P90D")
    assert nights.enabled() == [True, True, True]
    for _night in range(3):
        nights.night(cmk_key_max_version_age="P90D")
    assert nights.enabled() == [False, False, True]
    assert not nights.warnings


def test_a_version_that_somebody_disables_long_after_accounts_left_it(
    nights: Nights, service: Service, runner: OneProcess
) -> None:
    """The version stays disabled, and makes no account unavailable, also if accounts are changed later."""
    nights.rotate([*PINNED, *FOLLOWING], **FORCE, cmk_unused_versions="keep")
    nights.pass_time(30 * DAY)
    first, _second = service.versions()
    service.disable(version=first.version)
    for change in (False, True):
        for name in (*PINNED, *FOLLOWING):
            if change:
                service.change_account(name, tags={"owner": "me"})
            names = {"resource_group": GROUP, "account_name": name}
            info = done(runner.another().module("batch_encryption_diagnosis", names))
            assert (info["available"], info["repairs"], info.get("warnings")) == (True, [], None), name
        audit = done(runner.another().module("batch_encryption_audit", {"return_accounts": True, "pools": True}))
        assert {one["available"] for one in audit["accounts"]} == {True}
        for name in (*PINNED, *FOLLOWING):
            report = done(runner.another().role("recover", {**VARS, "cmk_account_name": name}))
            assert not report["changed"]
        nights.night(cmk_key_max_version_age="P90D")
    assert nights.enabled() == [False, True]
