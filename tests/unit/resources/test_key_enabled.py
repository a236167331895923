# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decisions to make any version of a key usable again."""

from __future__ import annotations

from typing import Any

import pytest
from documents import DAY, NEW, NOW, OLD, deleted_key, key
from goals import key_goal
from key_table import KeyTable, decided, sent, update

from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError
from ansible_collections.azbatch.cmk.plugins.module_utils._core.tasks import Change

MONTH = 30 * DAY


def repaired(version: dict[str, Any]) -> Change:
    """The change of a key with this version, and a newest version that is usable."""
    goal = key_goal(state="enabled", version=OLD, extend_expired_by="P30D")
    return decided(KeyTable(version, key(NEW)), goal)


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
    repair = repaired(key(OLD, **fields))

    assert sent(repair) == [update(OLD, **body)]
    assert repair.before["version"] == OLD
    assert {name: repair.after[name] for name in after} == after


@pytest.mark.parametrize(
    "fields", [{}, {"exp": NOW + 1}, {"nbf": NOW}], ids=["usable", "about to expire", "just valid"]
)
def test_a_usable_version_is_left_alone(fields: dict[str, Any]) -> None:
    assert not repaired(key(OLD, **fields)).requests


def test_the_newest_version_is_enabled_if_none_is_named() -> None:
    change = decided(KeyTable(key(OLD, enabled=False), key(NEW, enabled=False)), key_goal(state="enabled"))

    assert sent(change) == [update(NEW, attributes={"enabled": True})]


@pytest.mark.parametrize(
    ("table", "code"),
    [
        pytest.param(KeyTable(key(NEW)), "version_not_found", id="the version is gone"),
        pytest.param(KeyTable(deleted=deleted_key()), "key_soft_deleted", id="the key is deleted"),
        pytest.param(KeyTable(), "key_not_found", id="the key is gone"),
    ],
)
def test_a_missing_key_or_version_is_an_error(table: KeyTable, code: str) -> None:
    with pytest.raises(CmkError) as refused:
        decided(table, key_goal(state="enabled", version=OLD))

    assert refused.value.code == code
