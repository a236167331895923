# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rotation policies: checks, descriptions, and writes that keep all other settings."""

from __future__ import annotations

from typing import Any

import pytest
from documents import rotation_policy

from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import InvalidOption
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import rotation_policy as key_rotation_policy


def policy_of(**options: str) -> dict[str, str | None]:
    return {"expiry_time": None, "time_after_create": None, "time_before_expiry": None, **options}


@pytest.mark.parametrize(
    "policy",
    [
        pytest.param(None, id="none"),
        pytest.param(policy_of(time_after_create="P7D"), id="as soon as may be"),
        pytest.param(policy_of(time_after_create="P21D", expiry_time="P28D"), id="as short as may be"),
        pytest.param(policy_of(time_before_expiry="P21D", expiry_time="P28D"), id="as short as may be, before expiry"),
    ],
)
def test_policy_is_accepted(policy: dict[str, Any] | None) -> None:
    assert key_rotation_policy.checked(policy) == policy


def test_policy_without_the_blanks_of_a_survey() -> None:
    policy = policy_of(time_after_create=" P90D ", expiry_time="", time_before_expiry=" ")

    assert key_rotation_policy.checked(policy) == policy_of(time_after_create="P90D")


@pytest.mark.parametrize(
    ("policy", "option"),
    [
        pytest.param(policy_of(), "rotation_policy", id="empty"),
        pytest.param(policy_of(expiry_time="P1Y"), "rotation_policy", id="no trigger"),
        pytest.param(
            policy_of(time_after_create="P90D", time_before_expiry="P30D"), "rotation_policy", id="two triggers"
        ),
        pytest.param(
            policy_of(time_after_create="P90D", expiry_time="1y"), "rotation_policy.expiry_time", id="no expiry"
        ),
        pytest.param(
            policy_of(time_after_create="P10D", expiry_time="P27DT23H"), "rotation_policy.expiry_time", id="short life"
        ),
        pytest.param(policy_of(time_after_create="P3D"), "rotation_policy.time_after_create", id="too soon"),
        pytest.param(
            policy_of(time_before_expiry="P6DT23H", expiry_time="P1Y"),
            "rotation_policy.time_before_expiry",
            id="too late",
        ),
        pytest.param(policy_of(time_before_expiry="P30D"), "rotation_policy.time_before_expiry", id="before no expiry"),
        pytest.param(
            policy_of(time_after_create="P22D", expiry_time="P28D"),
            "rotation_policy.time_after_create",
            id="at its end",
        ),
        pytest.param(
            policy_of(time_before_expiry="P22D", expiry_time="P28D"), "rotation_policy.time_before_expiry", id="at once"
        ),
    ],
)
def test_policy_is_refused(policy: dict[str, Any], option: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        key_rotation_policy.checked(policy)

    assert refused.value.facts["option"] == option


@pytest.mark.parametrize(
    ("policy", "described"),
    [
        pytest.param(None, None, id="not read"),
        pytest.param(rotation_policy(), policy_of(), id="notifies only"),
        pytest.param(rotation_policy(timeAfterCreate="P90D"), policy_of(time_after_create="P90D"), id="after creation"),
        pytest.param({"attributes": {"expiryTime": "P1Y"}}, policy_of(expiry_time="P1Y"), id="expiry only"),
    ],
)
def test_policy_is_described(policy: dict[str, Any] | None, described: dict[str, Any] | None) -> None:
    assert key_rotation_policy.describe(policy) == described


def test_letter_case_of_the_action_does_not_matter() -> None:
    policy = {"lifetimeActions": [{"trigger": {"timeAfterCreate": "P90D"}, "action": {"type": "ROTATE"}}]}

    assert key_rotation_policy.describe(policy) == policy_of(time_after_create="P90D")
    assert len(key_rotation_policy.body(policy_of(time_after_create="P60D"), policy)["lifetimeActions"]) == 1


def test_body_keeps_notifications_and_drops_the_previous_rotation() -> None:
    previous = rotation_policy(timeBeforeExpiry="P30D")
    [_rotate, notify] = previous["lifetimeActions"]

    body = key_rotation_policy.body(policy_of(time_after_create="P90D"), previous)

    assert body == {
        "lifetimeActions": [{"trigger": {"timeAfterCreate": "P90D"}, "action": {"type": "Rotate"}}, notify],
        "attributes": {},
    }
