# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""User-assigned identities, and the regions of a resource type."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from azure_table import Several, Table, task_of
from documents import PRINCIPAL, SUBSCRIPTION, identity_id

from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError, Denied, NotFound, Unavailable
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import parse_user_assigned_id
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs
from ansible_collections.azbatch.cmk.plugins.module_utils._questions import identities, regions

ONE = parse_user_assigned_id(identity_id("one"), "identity_id")
IDENTITY = {"id": str(ONE), "properties": {"principalId": PRINCIPAL}}


def identity(there: Any) -> Any:
    return task_of(Table({refs.identity(ONE): there})).driver.solve(partial(identities.get, identity_id=ONE))


def test_an_identity_that_does_not_exist() -> None:
    with pytest.raises(NotFound, match="There is no user-assigned identity") as failed:
        identity(None)

    assert failed.value.code == "identity_not_found"
    assert (failed.value.facts["option"], failed.value.facts["value"]) == ("identity_id", str(ONE))


def test_an_identity_that_did_not_exist_is_read_again_by_the_next_task(tmp_path: Path) -> None:
    """Another user may have created it."""
    table = Table({refs.identity(ONE): Several(None, IDENTITY)})
    first, question = task_of(table, tmp_path).driver, partial(identities.get, identity_id=ONE)
    for _time in range(2):
        with pytest.raises(NotFound):
            first.check(question)

    assert task_of(table, tmp_path).driver.check(question) == IDENTITY


PROVIDER = refs.provider(SUBSCRIPTION, "Microsoft.Batch")
TYPES = [
    {"resourceType": "operations", "locations": []},
    {"resourceType": "batchAccounts", "locations": ["West Europe"]},
]


@pytest.mark.parametrize(
    ("there", "resource_type", "expected"),
    [
        pytest.param({"resourceTypes": TYPES}, "batchaccounts", ["West Europe"], id="in another letter case"),
        pytest.param({"resourceTypes": TYPES}, "pools", None, id="no such type"),
        pytest.param(Denied("403"), "batchAccounts", None, id="not readable"),
    ],
)
def test_the_regions_of_a_resource_type(there: Any, resource_type: str, expected: list[str] | None) -> None:
    question = partial(regions.of_type, provider=PROVIDER, resource_type=resource_type)

    assert task_of(Table({PROVIDER: there})).driver.solve(question) == expected


@pytest.mark.parametrize(("there", "reason"), [(Unavailable("500"), Unavailable), (None, NotFound)])
def test_regions_that_cannot_be_read_now(there: Any, reason: type[CmkError]) -> None:
    with pytest.raises(reason):
        task_of(Table({PROVIDER: there})).driver.solve(
            partial(regions.of_type, provider=PROVIDER, resource_type="batchAccounts")
        )
