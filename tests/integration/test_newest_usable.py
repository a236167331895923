# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keys whose newest version is disabled, or valid later. The newest version that can be used counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from one_process import OneProcess
from operators import done
from role_runs import VARS
from service import DAY, Service

KEY1 = {"vault_name": "vault-one", "name": "key1"}
NIGHT = {**VARS, "cmk_key_max_version_age": "P90D", "cmk_unused_versions": "disable"}


def stage(service: Service, days: int) -> str:
    """Create a version that is valid in some days, a minute before and after other changes."""
    service.sandbox.control.advance(60)
    now = datetime.fromtimestamp(service.sandbox.control.call("GET", "/clock")["time"], UTC)
    made = service.keys().create_rsa_key("key1", not_before=now + timedelta(days=days))
    service.sandbox.control.advance(60)
    return str(made.properties.version)


@pytest.mark.slow(every=2)
@pytest.mark.parametrize("follow", [False, True], ids=["pinned", "follows"])
def test_nights_until_a_staged_version_is_valid(runner: OneProcess, service: Service, follow: bool) -> None:
    """No night fails, versions end, and the account is moved on the date."""
    control = service.sandbox.control
    control.behavior(follower_delay="86400", previous_version_needed="86400")
    service.on_key(follow=follow)
    control.advance(30 * DAY)
    second = done(runner.another().role("rotate", {**NIGHT, "cmk_key_new_version": True}))
    assert follow or second["key_version"]
    used, staged = service.encryption(), stage(service, days=10)
    for night in range(1, 10):
        control.advance(DAY)
        key = done(runner.another().module("keyvault_cmk_key", {**KEY1, "max_version_age": "P90D"}))
        assert not key["changed"]
        assert key["version"] != staged
        assert [one["version"] for one in key["staged_versions"]] == [staged]
        assert f"Can be used later: version {staged[:8]}… from " in key["summary"]
        report = done(runner.another().role("rotate", NIGHT))
        assert report["available"] is (None if follow else True)
        assert service.encryption() == used
        # A follower may use any version until it could use the newest version for the margin.
        assert service.enabled() == [follow or night < 7, True, True]
    control.advance(DAY)
    report = done(runner.another().role("rotate", NIGHT))
    assert follow or report["key_version"] == staged
    for night in range(1, 10):
        control.advance(DAY)
        report = done(runner.another().role("rotate", NIGHT))
        assert (report["available"], service.is_available()) == (True, True)
        assert service.enabled() == [follow and night < 7, night < 7, True]


def test_rotation_is_due_by_the_newest_version_that_can_be_used(runner: OneProcess, service: Service) -> None:
    service.on_key()
    service.sandbox.control.advance(91 * DAY)
    staged = stage(service, days=10)

    report = done(runner.another().role("rotate", NIGHT))

    assert report["changed"] is True
    assert report["key_version"] == service.versions()[-1].version != staged
    assert service.is_available()
    assert not done(runner.another().role("rotate", NIGHT))["changed"]


def test_a_disabled_newest_version(runner: OneProcess, service: Service) -> None:
    """The version that the account uses counts. It is replaced when that is due."""
    _, first = service.on_key()
    service.disable(version=service.make_key().properties.version)

    key = done(runner.another().module("keyvault_cmk_key", KEY1))
    assert (key["changed"], key["key_identifier"]) == (False, first)
    assert not done(runner.another().role("rotate", NIGHT))["changed"]
    service.sandbox.control.advance(91 * DAY)
    assert done(runner.another().role("rotate", NIGHT))["changed"]
    assert service.enabled() == [True, False, True]
    assert service.is_available()
