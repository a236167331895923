# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The users of keys, completed with what the run has written and read. How old their reads may be."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from azure_table import Several, Table, Task, place, task_of
from documents import KEY, SUBSCRIPTION, account, account_id

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.gateway import Answer
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_store import RunFiles
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import Denied, InvalidOption
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import key_of
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.account.client import Accounts
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key.evidence import EvidenceReader
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.visible import HandledAccounts, VisibleAccounts

LIST = refs.accounts_of(SUBSCRIPTION)
PERMISSIONS = refs.permissions_at(f"/subscriptions/{SUBSCRIPTION}")
ONE, TWO = account_id("one"), account_id("two")
TO_KEY = {"encryption": {"keySource": "Microsoft.KeyVault", "keyVaultProperties": {"keyIdentifier": KEY}}}


def azure(*accounts: str, changed_at: float = 50.0) -> Table:
    """Accounts of these names in the only subscription, in which the caller may read everything."""
    table = Table({LIST: [account(name) for name in accounts], PERMISSIONS: [{"actions": ["*/read"]}]})
    for name in accounts:
        table[refs.dated_account(account_id(name))] = Answer(account(name), 100.0, changed_at)
    return table


def visible(task: Task, *handled: str) -> VisibleAccounts:
    accounts = HandledAccounts(task.session.files)
    for one in handled:
        accounts.add(one)
    return VisibleAccounts(task.session, task.driver, accounts)


def written(task: Task, ref: str, body: Any) -> None:
    """A write of this task that Azure has accepted."""
    with task.session.journal.writing("PATCH", ref, body, undoes=False):
        pass


def pools(*names: str) -> list[str]:
    return [f"{account_id(name)}/pools".lower() for name in names]


# The accounts that tasks of the run have read


def test_accounts_of_the_run_are_kept_once() -> None:
    handled = HandledAccounts(RunFiles(None))
    for name in ("One", "one", "One", "two"):
        handled.add(name)

    assert sorted(handled.ids()) == ["one", "two"]


@pytest.mark.parametrize("look", [VisibleAccounts.everywhere, lambda seen: seen.listed(())])
def test_accounts_of_the_run_are_read_if_they_cannot_be_listed(look: Callable[[VisibleAccounts], Any]) -> None:
    table = azure("one", "two")
    table[LIST] = Denied("403")

    found = look(visible(task_of(table), ONE))

    assert [one["id"] for one in found["accounts"]] == [ONE]
    assert [one["scope"] for one in found["unlisted"]] == [f"/subscriptions/{SUBSCRIPTION}"]


@pytest.mark.parametrize("later", [VisibleAccounts.everywhere, lambda seen: seen.listed([SUBSCRIPTION])])
def test_an_account_that_the_task_has_listed_is_read_if_a_later_list_does_not_have_it(
    later: Callable[[VisibleAccounts], Any],
) -> None:
    """A list may be incomplete for a moment."""
    table = azure("one", "two")
    table[LIST] = Several([account("one"), account("two")], [account("one")])
    seen = visible(task_of(table))
    seen.everywhere()

    assert [one["id"] for one in later(seen)["accounts"]] == [ONE, TWO]
    assert (table.reads_of(refs.account(ONE)), table.reads_of(refs.account(TWO))) == (0, 1)


def test_named_subscriptions_are_listed_without_a_subscription_of_the_task() -> None:
    task = task_of(azure("one"), subscription=None)
    with pytest.raises(InvalidOption):
        assert task.session.subscription_id

    assert [one["id"] for one in visible(task).listed([SUBSCRIPTION])["accounts"]] == [ONE]
    assert [one["scope"] for one in visible(task).listed(())["unlisted"]] == ["/subscriptions"]


def accounts_of(task: Task) -> Accounts:
    reader, handled = EvidenceReader(task.session, task.driver), HandledAccounts(task.session.files)
    return Accounts(task.session, task.driver, task.gateway, reader, handled)


def test_an_account_that_is_read_is_one_of_the_run() -> None:
    task = task_of(azure("one"))
    accounts = accounts_of(task)

    accounts.get("rg-batch", "one")
    accounts.get("rg-batch", "gone")

    assert HandledAccounts(task.session.files).ids() == [ONE.lower()]


NAMES = [f"account{number}" for number in range(refs.LISTED_FROM + 2)]


@pytest.mark.parametrize(
    ("listed", "found"),
    [
        pytest.param([account(name) for name in NAMES], NAMES[refs.LISTED_FROM - 1 :], id="listed"),
        pytest.param([account(NAMES[-1])], NAMES[-1:], id="one is listed"),
        pytest.param(
            [
                {**account(NAMES[-1]), "properties": {"provisioningState": "Creating"}},
                {**account(NAMES[-2]), "id": account_id(NAMES[-2]).upper()},
            ],
            NAMES[-2:-1],
            id="one is being created",
        ),
        pytest.param(Denied("403"), [], id="not readable"),
    ],
)
def test_many_accounts_of_a_task_of_the_playbook_are_read_from_a_list(
    listed: Any, found: list[str], tmp_path: Path
) -> None:
    """Only hosts that read their account after some others use the list, which is read once."""
    table = azure()
    table[LIST] = listed
    read = {name: accounts_of(task_of(table, tmp_path, task="set the key")).listed("rg-batch", name) for name in NAMES}

    assert [name for name, one in read.items() if one is not None] == found
    assert all(one is None or one["name"] == name for name, one in read.items())
    assert table.asked == [place(LIST)]


# Accounts that the run has written


def test_accounts_are_as_listed_and_as_the_run_has_written_them() -> None:
    """Azure may show an account as it was before the write."""
    task = task_of(azure("one", "two"))
    written(task, TWO, {"properties": TO_KEY})

    found = visible(task).everywhere()

    assert [(one["id"], key_of(one) and str(key_of(one))) for one in found["accounts"]] == [
        (ONE, None),
        (TWO, None),
        (TWO, KEY),
    ]


def test_an_account_that_no_list_has_is_as_the_run_has_written_it() -> None:
    task = task_of(azure("one"))
    written(task, TWO, {"properties": TO_KEY})

    assert [one["id"].lower() for one in visible(task).everywhere()["accounts"]] == [ONE.lower(), TWO.lower()]


def test_the_time_of_a_change_is_not_known_if_the_run_has_written_the_account() -> None:
    """The read may be older than the write."""
    task = task_of(azure("one", "two"))
    written(task, ONE, {"identity": {"type": "None"}})

    changed_at, now = visible(task).changed_at([account("one"), account("two")])  # type: ignore[list-item]

    assert (changed_at, now) == ({ONE: None, TWO: 50.0}, 100.0)


@pytest.mark.parametrize(("is_written", "counts"), [(False, False), (True, True)])
def test_an_account_whose_creation_has_failed_counts_if_the_run_has_written_it(is_written: bool, counts: bool) -> None:
    failed: Any = account("one")
    failed["properties"]["provisioningState"] = "Failed"
    table = azure("one")
    table[refs.dated_account(ONE)] = Answer(failed, 1e9, 50.0)
    table[refs.pools_of(ONE)] = Denied("No key.", azure={"code": "Forbidden"})
    task = task_of(table)
    if is_written:
        written(task, ONE, {"properties": TO_KEY})

    found, _unlisted = visible(task).disks([failed])

    assert [one["id"] for one in found] == [ONE] * counts


def test_the_pools_of_an_account_are_listed_once_although_it_is_listed_and_written() -> None:
    table = azure("one")
    task = task_of(table)
    written(task, ONE, {"properties": TO_KEY})

    found = visible(task).read()

    assert [one["id"] for one in found["accounts"]] == [ONE, ONE]
    assert table.reads_of(refs.pools_of(ONE)) == 1


# How old the reads may be


def test_accounts_pools_and_missing_rights_are_read_together() -> None:
    table = azure("one", "two")
    table[refs.pools_of(ONE)] = Denied("No.", azure={"code": "AuthorizationFailed"})
    table[refs.SUBSCRIPTIONS] = Denied("No.")

    found = visible(task_of(table)).read()

    assert [one["id"] for one in found["accounts"]] == [ONE, TWO]
    assert [one["scope"] for one in found["unlisted"]] == ["/subscriptions", f"/subscriptions/{SUBSCRIPTION}"]


@pytest.mark.parametrize("accounts", [1, 200])
def test_accounts_and_pools_are_listed_for_each_check(accounts: int) -> None:
    names = [f"account{number}" for number in range(accounts)]
    table = azure(*names)
    seen = visible(task_of(table))
    for _check in range(2):
        table.asked.clear()
        seen.read()
        assert sorted(one for one in table.asked if one.endswith("/pools")) == sorted(pools(*names))
        assert table.reads_of(LIST, PERMISSIONS) == 2


def test_checks_share_the_pools_that_were_listed_late_enough() -> None:
    """Tasks that wait until no list can be older than a change. The pools of a new account are always listed."""
    table = azure("one")
    seen = visible(task_of(table))
    seen.not_before = time.monotonic()
    seen.read()
    table[LIST] = [account("one"), account("newcomer")]
    seen.read()
    assert [one for one in table.asked if one.endswith("/pools")] == pools("one", "newcomer")

    seen.not_before = time.monotonic()
    table.asked.clear()
    seen.read()
    assert sorted(one for one in table.asked if one.endswith("/pools")) == pools("newcomer", "one")


def test_a_time_is_read_again_unless_it_was_read_late_enough() -> None:
    listed: list[Any] = [account("one")]
    table = azure("one")
    seen = visible(task_of(table))
    seen.changed_at(listed)
    seen.changed_at(listed)
    assert table.reads_of(refs.dated_account(ONE)) == 2

    seen.not_before = time.monotonic()
    seen.changed_at(listed)
    seen.changed_at(listed)
    assert table.reads_of(refs.dated_account(ONE)) == 3
