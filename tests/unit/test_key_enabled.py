# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans to make any version of a key usable again."""

from __future__ import annotations

from typing import Any

import pytest
from documents import DAY, NEW, NOW, OLD, deleted_key, key, observed_key
from goals import key_goal

from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError
from ansible_collections.azbatch.cmk.plugins.module_utils._core.plan import Plan
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key import plan as key_plan

MONTH = 30 * DAY


def plan(bundle: dict[str, Any], version: str | None = OLD) -> Plan:
    """The plan for a key with two versions, of which the newest is usable."""
    observed = observed_key(bundle, key(NEW), named=bundle)
    return key_plan.plan(key_goal(state="enabled", version=version, extend_expired_by="P30D"), observed)


@pytest.mark.parametrize(
    ("fields", "body", "after"),
    [
        pytest.param({"enabled": False}, {"attributes": {"enabled": True}}, {"enabled": True}, id="disabled"),
        pytest.param(
            {"exp": NOW}, {"attributes": {"exp": NOW + MONTH}}, {"expires_on": "2026-06-27T20:26:40Z"}, id="expired"
        ),
        pytest.param({"nbf": NOW + DAY}, {"attributes": {"nbf": NOW}}, {}, id="not valid yet"),
        pytest.param(
            {"key_ops": ["sign"]},
            {"key_ops": ["sign", "wrapKey", "unwrapKey"]},
            {"key_ops": ["sign", "wrapKey", "unwrapKey"]},
            id="may not wrap",
        ),
    ],
)
def test_an_unusable_version_is_repaired(fields: dict[str, Any], body: dict[str, Any], after: dict[str, Any]) -> None:
    repair = plan(key(OLD, **fields))

    [step] = repair.steps
    assert step.arguments == {"vault": "myvault", "name": "batch", "version": OLD, "body": body}
    assert repair.before["version"] == OLD
    assert {name: repair.after[name] for name in after} == after


@pytest.mark.parametrize(
    "fields", [{}, {"exp": NOW + 1}, {"nbf": NOW}], ids=["usable", "about to expire", "just valid"]
)
def test_a_usable_version_is_left_alone(fields: dict[str, Any]) -> None:
    assert not plan(key(OLD, **fields)).changed


def test_the_newest_version_is_meant_where_none_is_named() -> None:
    observed = observed_key(key(OLD, enabled=False), key(NEW, enabled=False))
    [step] = key_plan.plan(key_goal(state="enabled"), observed).steps

    assert step.arguments["version"] == NEW


@pytest.mark.parametrize(
    ("observed", "code"),
    [
        pytest.param(observed_key(key(NEW)), "version_not_found", id="the version is gone"),
        pytest.param(observed_key(deleted=deleted_key()), "key_soft_deleted", id="the key is deleted"),
        pytest.param(observed_key(), "key_not_found", id="the key is gone"),
    ],
)
def test_a_missing_key_or_version_is_an_error(observed: dict[str, Any], code: str) -> None:
    with pytest.raises(CmkError) as refused:
        key_plan.plan(key_goal(state="enabled", version=OLD), observed)

    assert refused.value.code == code
