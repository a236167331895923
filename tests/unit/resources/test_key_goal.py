# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The goals of a task for a key, and malformed options."""

from __future__ import annotations

from typing import Any

import pytest
from documents import DAY, KEY, OLD, rotation_policy
from goals import key_goal, rotation

from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import InvalidOption
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import KeyIdentifier, parse_key_identifier

# Instead of the names of the vault and the key.
BY_IDENTIFIER: dict[str, Any] = {"vault_name": None, "name": None, "key_identifier": KEY}


def key_identifier(value: str) -> KeyIdentifier:
    return parse_key_identifier(value, "key_identifier")


@pytest.mark.parametrize(
    ("options", "code", "option"),
    [
        ({"key_type": "EC"}, "invalid_option", "key_type"),
        ({"key_size": 1024}, "invalid_option", "key_size"),
        ({"vault_name": "v"}, "invalid_option", "vault_name"),
        ({"name": "my_key"}, "invalid_option", "name"),
        ({"expires_in": "1 year"}, "invalid_option", "expires_in"),
        ({"max_version_age": "90"}, "invalid_option", "max_version_age"),
        ({"rotation_policy": rotation()}, "invalid_option", "rotation_policy"),
        # With these values, a new version would be due again at once, so each run would create a version.
        ({"expires_in": "P0D"}, "invalid_option", "expires_in"),
        ({"expires_in": "P18D"}, "invalid_option", "expires_in"),
        ({"max_version_age": "PT0S"}, "invalid_option", "max_version_age"),
        ({"used_by_account": "mybatch"}, "invalid_option", "account_resource_group"),
        ({"state": "enabled", "vault_name": None}, "invalid_option", "vault_name"),
        ({"state": "enabled", "name": None}, "invalid_option", "name"),
        ({"state": "enabled", "key_identifier": KEY}, "invalid_option", "vault_name"),
        ({"state": "enabled", "vault_name": None, "key_identifier": KEY}, "invalid_option", "name"),
        ({**BY_IDENTIFIER, "state": "enabled", "key_identifier": "batch"}, "invalid_option", "key_identifier"),
        ({**BY_IDENTIFIER, "state": "disabled", "version": OLD}, "invalid_option", "version"),
        ({**BY_IDENTIFIER, "state": "absent", "key_identifier": f"{KEY}/{OLD}"}, "invalid_option", "key_identifier"),
        ({"state": "disabled", "unused_for": "soon"}, "invalid_option", "unused_for"),
        ({"state": "enabled", "extend_expired_by": "soon"}, "invalid_option", "extend_expired_by"),
        ({"state": "disabled", "extend_expired_by": "P30D"}, "invalid_option", "extend_expired_by"),
    ],
)
def test_option_is_refused(options: dict[str, Any], code: str, option: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        key_goal(**options)

    assert refused.value.code == code
    assert refused.value.facts["option"] == option


@pytest.mark.parametrize("state", ["absent", "recovered"])
def test_a_version_is_only_for_disabling_and_enabling(state: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        key_goal(state=state, version=OLD)

    assert refused.value.facts["option"] == "version"
    assert key_goal(state="disabled", version=OLD).version == OLD
    assert key_goal(state="enabled", version=OLD).version == OLD


ROTATES = rotation_policy(timeAfterCreate="P90D")


@pytest.mark.parametrize(
    ("options", "policy", "stops"),
    [
        pytest.param({}, ROTATES, False, id="present"),
        pytest.param({"expires_in": "P19D"}, None, False, id="an expiry"),
        pytest.param({"remove_rotation_policy": True}, ROTATES, True, id="no rotation any more"),
        pytest.param({"remove_rotation_policy": True}, rotation_policy(), False, id="no rotation as before"),
    ],
)
def test_goals_that_stop_the_rotation(options: dict[str, Any], policy: Any, stops: bool) -> None:
    assert key_goal(**options).stops_rotation(policy) is stops


@pytest.mark.parametrize(
    ("identifier", "version"),
    [
        (f"{KEY.replace('myvault', 'MyVault')}/{OLD.upper()}", OLD),
        (f"https://myvault.vault.azure.net:443/keys/batch/{OLD}/", OLD),
    ],
)
def test_a_key_may_be_named_by_its_identifier(identifier: str, version: str | None) -> None:
    wanted = key_goal(**{**BY_IDENTIFIER, "key_identifier": identifier}, state="disabled")

    assert (wanted.vault, wanted.name, wanted.version) == ("myvault", "batch", version)


def test_a_key_is_the_same_in_any_letter_case() -> None:
    used = key_identifier(f"{KEY.replace('batch', 'Batch')}/{OLD}")

    assert key_goal(vault_name="MyVault", name="BATCH").names(used)
    assert used.is_named("MyVault", "BATCH")


@pytest.mark.parametrize(
    "used",
    [f"{KEY}2", f"{KEY}2/{OLD}", "https://vault2.vault.azure.net/keys/batch", None],
    ids=["name", "version", "vault", "none"],
)
def test_another_key_is_not_the_named_one(used: str | None) -> None:
    assert not key_goal().names(key_identifier(used) if used else None)


@pytest.mark.parametrize(("given", "lasts"), [("P1D", DAY), ("PT1H", 3600), ("P0D", 0), ("P0M", 0)])
def test_the_margin_may_be_shorter_or_none(given: str, lasts: int) -> None:
    assert key_goal(state="disabled", unused_for=given).unused_for == lasts


def test_rotation_cannot_be_set_and_removed() -> None:
    with pytest.raises(InvalidOption) as refused:
        key_goal(rotation_policy=rotation(time_after_create="P90D"), remove_rotation_policy=True)

    assert refused.value.facts["option"] == "remove_rotation_policy"
