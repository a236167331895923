# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a task may want of a key."""

from __future__ import annotations

from typing import Any

import pytest
from documents import DAY, NOW, OLD, key, rotation_policy
from wishes import key_goal, rotation

from ansible_collections.azbatch.cmk.plugins.module_utils import _key_goal
from ansible_collections.azbatch.cmk.plugins.module_utils._errors import InvalidOption


def test_durations_become_seconds() -> None:
    wanted = key_goal(expires_in="P1Y", max_version_age="PT12H")

    assert (wanted.expires_in, wanted.max_version_age) == (365 * 86400, 12 * 3600)


def test_what_is_not_named_is_left_alone() -> None:
    wanted = key_goal()

    assert [wanted.key_type, wanted.key_size, wanted.expires_in, wanted.max_version_age] == [None] * 4
    assert wanted.rotation_policy is None
    assert not wanted.new_version


@pytest.mark.parametrize("key_type", ["RSA", "RSA-HSM"])
@pytest.mark.parametrize("key_size", [2048, 3072, 4096])
def test_keys_that_batch_takes(key_type: str, key_size: int) -> None:
    wanted = key_goal(key_type=key_type, key_size=key_size)

    assert (wanted.key_type, wanted.key_size) == (key_type, key_size)


@pytest.mark.parametrize(
    ("options", "code", "option"),
    [
        ({"key_type": "EC"}, "key_type_not_supported", "key_type"),
        ({"key_type": "oct"}, "key_type_not_supported", "key_type"),
        ({"key_size": 1024}, "key_size_not_supported", "key_size"),
        ({"key_size": 2047}, "key_size_not_supported", "key_size"),
        ({"key_size": 0}, "key_size_not_supported", "key_size"),
        ({"vault_name": "v"}, "invalid_vault_name", "vault_name"),
        ({"name": "my_key"}, "invalid_name", "name"),
        ({"expires_in": "1 year"}, "invalid_option", "expires_in"),
        ({"max_version_age": "90"}, "invalid_option", "max_version_age"),
        ({"rotation_policy": rotation()}, "invalid_option", "rotation_policy"),
        # A version that has expired at its birth, and one that is too old at once, never come to rest.
        ({"expires_in": "P0D"}, "invalid_option", "expires_in"),
        ({"max_version_age": "PT0S"}, "invalid_option", "max_version_age"),
    ],
)
def test_option_is_refused(options: dict[str, Any], code: str, option: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        key_goal(**options)

    assert refused.value.code == code
    assert refused.value.facts["option"] == option


@pytest.mark.parametrize("state", ["present", "absent", "recovered"])
def test_a_version_is_only_for_disabling_and_enabling(state: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        key_goal(state=state, version=OLD)

    assert refused.value.facts["option"] == "version"
    assert key_goal(state="disabled", version=OLD).version == OLD
    assert key_goal(state="enabled", version=OLD).version == OLD


ROTATES = rotation_policy(timeAfterCreate="P90D")


@pytest.mark.parametrize(
    ("options", "bundle", "policy", "may"),
    [
        pytest.param({}, key(), None, False, id="present"),
        pytest.param({"state": "enabled"}, key(), None, False, id="enabled"),
        pytest.param({"state": "recovered"}, key(), None, False, id="recovered"),
        pytest.param({"state": "disabled"}, key(), None, True, id="disabled"),
        pytest.param({"state": "absent"}, key(), None, True, id="absent"),
        pytest.param({"expires_in": "P20D"}, key(created=NOW, exp=NOW + 20 * DAY), None, False, id="same expiry"),
        pytest.param({"expires_in": "P20D"}, key(created=NOW, exp=NOW + 20 * DAY + 300), None, False, id="by a breath"),
        pytest.param({"expires_in": "P30D"}, key(created=NOW, exp=NOW + 20 * DAY), None, False, id="later expiry"),
        pytest.param({"expires_in": "P20D"}, key(created=NOW, exp=NOW + 30 * DAY), None, True, id="earlier expiry"),
        pytest.param({"expires_in": "P20D"}, key(created=NOW), None, True, id="an expiry at all"),
        pytest.param({"remove_rotation_policy": True}, key(), ROTATES, True, id="no rotation any more"),
        pytest.param({"remove_rotation_policy": True}, key(), rotation_policy(), False, id="no rotation as before"),
    ],
)
def test_what_may_take_a_key_away(options: dict[str, Any], bundle: dict[str, Any], policy: Any, may: bool) -> None:
    assert key_goal(**options).may_cut_off(bundle, policy) is may


def test_rotation_cannot_be_set_and_removed() -> None:
    with pytest.raises(InvalidOption) as refused:
        key_goal(rotation_policy=rotation(time_after_create="P90D"), remove_rotation_policy=True)

    assert refused.value.facts["option"] == "remove_rotation_policy"


def test_key_that_is_not_there_is_told_with_its_remedy() -> None:
    failure = _key_goal.key_not_found(key_goal())

    assert failure.code == "key_not_found"
    assert failure.facts["option"] == "name"
    assert failure.facts["value"] == "batch"
    assert "myvault" in failure.msg
