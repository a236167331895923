# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role rotate by its playbook: when a rotation is due, and which versions are disabled."""

from __future__ import annotations

import re
from typing import Any

from harness import Ansible, Run
from one_process import RolesRunner
from role_runs import (
    QUARTER,
    play_role,
    result,
    steps,
    unchanged,
    warnings,
    wrote,
)
from service import DAY, Service

DUE = {"cmk_key_max_version_age": "P90D"}
FORCE = {"cmk_key_new_version": True}
DISABLE = {"cmk_unused_versions": "disable"}
AT_ONCE = {**DISABLE, "cmk_unused_for": "P0D"}
KEY = "Ensure a current version of the key"
UNUSED = "Disable unused versions of the key"


def rotate(roles: RolesRunner, **options: Any) -> Run:
    return play_role(roles, "rotate", **options)


def test_diff_shows_only_what_changes(ansible: Ansible, service: Service) -> None:
    _, first = service.on_key()
    run = rotate(ansible, diff=True, **FORCE)
    assert run.output.count("--- before\n") == 2, "of the key and of the account"
    assert f'-    "key_identifier": "{first}"' in run.output
    assert f'+    "key_identifier": "{service.encryption()}"' in run.output
    # Of the list of enabled versions, a part has not changed.
    assert re.findall('^ {5}"(\\w+)"', run.output, re.M) == ["enabled_versions"], run.output


def test_a_follower_needs_no_move(roles: RolesRunner, service: Service) -> None:
    service.on_key(follow=True)
    versionless = service.encryption()
    service.sandbox.control.advance(QUARTER)
    # The account still follows the key.
    wanted = {**DUE, **DISABLE}
    run = rotate(roles, **wanted)
    assert (steps(run), wrote(run)) == (["key"], ["POST key vault-one key1"])
    report = result(run)
    assert (report["key_identifier"], report["key_version"], report["follows_latest"]) == (versionless, None, True)
    assert service.enabled() == [True, True]
    assert service.encryption() == versionless

    # Azure does not show which versions a follower uses.
    service.sandbox.control.advance(6 * DAY)
    unchanged(rotate(roles, **wanted))
    service.sandbox.control.advance(2 * DAY)
    run = rotate(roles, **wanted)
    assert (steps(run), result(run)["key_kept_for"]) == (["unused_disabled"], [])
    assert service.enabled() == [False, True]
    assert service.is_available()
    unchanged(rotate(roles, **wanted))


def test_unused_versions_are_disabled(roles: RolesRunner, service: Service) -> None:
    """Two rotations within hours. A run after the margin of seven days disables the versions of both."""
    _, first = service.on_key()
    service.sandbox.control.advance(QUARTER)
    for _rotation in range(2):
        run = rotate(roles, **FORCE, **DISABLE)
        assert (steps(run), wrote(run)) == (
            ["key", "encryption"],
            ["POST key vault-one key1", "PATCH account account1"],
        )
        service.sandbox.control.advance(3 * 3600)
    assert service.enabled() == [True, True, True]
    service.sandbox.control.advance(6 * DAY)
    unchanged(rotate(roles, **DISABLE))

    service.sandbox.control.advance(2 * DAY)
    predicted = rotate(roles, check=True, **DISABLE)
    assert (steps(predicted), wrote(predicted)) == (["unused_disabled"], [])
    run = rotate(roles, **DISABLE)
    assert (steps(run), wrote(run)) == (["unused_disabled"], ["PATCH key vault-one key1"] * 2)
    assert set(run[UNUSED]["disabled_versions"]) == {one.version for one in service.versions()[:2]}
    assert (run[UNUSED]["kept_versions"], run[UNUSED]["in_use_by"], run[UNUSED]["kept_until"]) == ([], [], None)
    assert service.enabled() == [False, False, True]
    assert warnings(run) == []
    assert service.is_available()
    assert service.encryption() == service.key().id != first
    unchanged(rotate(roles, **DISABLE))


def test_unused_versions_are_disabled_at_once(roles: RolesRunner, service: Service) -> None:
    """A leaked version. The run that moves the account disables it."""
    service.on_key()
    service.sandbox.control.advance(QUARTER)
    predicted = rotate(roles, check=True, **FORCE, **AT_ONCE)
    run = rotate(roles, **FORCE, **AT_ONCE)
    assert steps(predicted) == steps(run) == ["key", "encryption", "unused_disabled"]
    for one in (predicted, run):
        (warning,) = one[UNUSED].warnings
        assert "Batch may need" in warning
        assert "may lose their key: account1." in warning
    assert service.enabled() == [False, True]
    assert service.is_available()
    # Azure does not show whether the account needs the disabled version.
    run = unchanged(rotate(roles, **AT_ONCE))
    assert (run[UNUSED].warnings, result(run)["available"]) == ([], None)
