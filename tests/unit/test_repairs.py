# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The causes that a run of the role recover has repaired so far."""

from __future__ import annotations

import pytest

from ansible_collections.azbatch.cmk.plugins.module_utils._checks.repairs import is_after_repair, naming_repairs
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import Refused


@pytest.mark.parametrize(
    ("so_far", "is_after"),
    [
        ([], False),
        (["version_unusable", "operations_missing", "access_missing"], False),
        (["version_unusable", "key_deleted"], True),
        (["vault_deleted"], True),
        (["network_closed"], True),
    ],
)
def test_causes_that_have_been_repaired_before_a_check(so_far: list[str], is_after: bool) -> None:
    assert is_after_repair(so_far) is is_after


@pytest.mark.parametrize(
    ("repairs", "named"),
    [
        ("network_closed", ["vault_deleted"]),
        ("key_deleted", ["vault_deleted"]),
        ("version_unusable", ["vault_deleted", "key_deleted"]),
        ("access_missing", ["vault_deleted", "key_deleted", "version_unusable"]),
        (None, ["vault_deleted", "key_deleted", "version_unusable", "access_missing"]),
    ],
)
def test_a_failed_repair_names_the_repairs_before_it(repairs: str | None, named: list[str]) -> None:
    so_far = ["vault_deleted", "key_deleted", "version_unusable", "access_missing"]
    with pytest.raises(Refused) as failed, naming_repairs(so_far, repairs, is_planned=False):
        raise Refused("Azure refuses it.")

    assert failed.value.msg == f"Azure refuses it. Before that, the run has repaired: {', '.join(named)}."


@pytest.mark.parametrize("so_far", [[], ["access_missing"]])
def test_a_failed_repair_without_earlier_repairs(so_far: list[str]) -> None:
    with pytest.raises(Refused) as failed, naming_repairs(so_far, "access_missing", is_planned=False):
        raise Refused("Azure refuses it.")

    assert failed.value.msg == "Azure refuses it."
