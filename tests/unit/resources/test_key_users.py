# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The accounts and pools that are read before a key is disabled or deleted, and before access to it is revoked."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import pytest
from azure_table import Several, place, task_of
from documents import (
    DAY,
    KEY,
    MIDDLE,
    NEW,
    NOW,
    SUBSCRIPTION,
    account,
    account_id,
)
from goals import key_goal, unused_goal
from key_table import (
    ACCOUNTS,
    ASSIGNMENTS,
    IDENTIFIER,
    VERSIONS,
    KeyTable,
    confirmed,
    decided,
    key_task,
    pool,
    three_versions,
)

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.facts import Facts
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import Denied, Refused
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key.removal import KeyDisabled


def users_asked(table: KeyTable) -> list[str]:
    """The lists of accounts, the access, the names of accounts whose times were read, and the pools, which are read
    together."""

    def each() -> Iterator[str]:
        for one in table.asked:
            if one == place(ACCOUNTS):
                yield "accounts"
            elif one == place(ASSIGNMENTS):
                yield "access"
            elif one.endswith("/pools"):
                yield "pools"
            elif "/batchaccounts/" in one:
                yield one.rpartition("/")[2]

    return [name for name, _reads in groupby(each())]


DISABLED = {"state": "disabled", "version": MIDDLE, "in_use": "keep"}
DELETED = {"state": "absent", "in_use": "keep"}
LEFT = {"left": ["elsewhere"]}


def on(used: str | None, name: str = "mybatch") -> dict[str, Any]:
    return account(name, key=used)


PINNED, ELSEWHERE = on(f"{KEY}/{NEW}"), on(f"{KEY}2", "elsewhere")


def test_an_account_that_has_no_access_cannot_have_left_the_key() -> None:
    table = three_versions(PINNED, ELSEWHERE, elsewhere=DAY)

    assert decided(table, key_goal(**DISABLED)).requests
    assert users_asked(table) == ["accounts", "access", "mybatch", "pools"]


def test_an_account_that_uses_another_key_does_not_count_for_unused_versions() -> None:
    table = three_versions(PINNED, ELSEWHERE, **LEFT, elsewhere=DAY)

    assert decided(table, unused_goal()).requests
    assert users_asked(table) == ["accounts", "access", "mybatch", "pools"]


@pytest.mark.parametrize(
    ("table", "is_undone", "asked"),
    [
        pytest.param(
            three_versions(PINNED, disabled=[MIDDLE]),
            False,
            ["accounts", "access", "mybatch", "pools"],
            id="changed long ago",
        ),
        pytest.param(
            three_versions(PINNED, pools=[pool(f"{KEY}/{MIDDLE}")], disabled=[MIDDLE]),
            True,
            ["accounts", "access", "mybatch", "pools"],
            id="used by a pool",
        ),
        pytest.param(
            three_versions(disabled=[MIDDLE]).having(refs.account(account_id()), on(f"{KEY}/{MIDDLE}")),
            True,
            ["accounts", "mybatch"],
            id="uses the version, and is not listed for a moment",
        ),
    ],
)
def test_the_confirmation_reads_the_same_again(table: KeyTable, is_undone: bool, asked: list[str]) -> None:
    first = decided(three_versions(PINNED), key_goal(**DISABLED))

    if is_undone:
        with pytest.raises(Refused) as refused:
            confirmed(table, first)
        assert refused.value.code == "in_use"
    else:
        assert not confirmed(table, first).requests
    assert users_asked(table) == asked


def test_the_users_are_read_for_each_decision() -> None:
    """Another read of the key may serve for some seconds."""
    table = three_versions(PINNED)
    task = task_of(table)
    for _time in range(2):
        task.driver.solve(KeyDisabled(key_goal(**DISABLED), Facts(task.session)).decide)

    assert users_asked(table) == ["accounts", "access", "mybatch", "pools"] * 2
    assert table.reads_of(refs.key(IDENTIFIER)) == 1


def test_the_versions_are_read_after_the_accounts() -> None:
    """An account that is not listed with the key any more has updated its version before it has left."""
    table = three_versions()
    before, after = table[VERSIONS], copy.deepcopy(table[VERSIONS])
    after[0]["attributes"]["updated"] = NOW - 1
    table[VERSIONS] = Several(before, after)

    assert decided(table, key_goal(**DISABLED)).report["kept_until"] == "2026-06-04T20:26:39Z"


def test_the_time_of_an_account_that_the_run_has_moved_is_not_read() -> None:
    """It was changed just now, so it may use each version. A whole key is taken away rarely, and the time is read, but
    counts only if it is that of the change."""
    table = three_versions(PINNED)
    task = task_of(table)
    with task.session.journal.writing("PATCH", PINNED["id"], {}, undoes=False):
        pass

    for goal in (unused_goal(), key_goal(**DISABLED)):
        before = len(users_asked(table))
        kept = task.driver.solve(key_task(goal, Facts(task.session)).decide)

        assert kept.requests == ()
        assert ("mybatch" in users_asked(table)[before:]) is goal.may_have_left


@pytest.mark.parametrize("found", [[], Denied("403")], ids=["no vault", "not readable"])
@pytest.mark.parametrize("options", [DISABLED, DELETED])
def test_users_of_a_vault_that_cannot_be_read_are_unknown(options: dict[str, Any], found: Any) -> None:
    """They may be in the subscription of the vault."""
    with pytest.raises(Refused, match="myvault") as refused:
        decided(three_versions().having(refs.vaults_of(SUBSCRIPTION), found), key_goal(**options))
    assert refused.value.code == "users_unknown"
