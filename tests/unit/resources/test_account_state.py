# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a Batch account exists, whether an operation on it is running, and whether it is available."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from azure_table import Several, Table, Task, documents_of, place, task_of
from clocks import Clock, clock_of_all
from documents import KEY, OTHER, SUBSCRIPTION, account, account_id, evidence, policy, system_assigned, vault

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.facts import Facts
from ansible_collections.azbatch.cmk.plugins.module_utils._core.concurrent import value_or_error
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import (
    CmkError,
    Denied,
    NotFound,
    Refused,
    Rejected,
    TimedOut,
    Unavailable,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._core.tasks import VALUE_LAG_SECONDS
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs
from ansible_collections.azbatch.cmk.plugins.module_utils._documents.account import Account
from ansible_collections.azbatch.cmk.plugins.module_utils._questions import accounts, health

GROUP, NAME = "rg-batch", "mybatch"
ID = account_id(NAME)
ACCOUNT, POOLS = refs.account(ID), refs.first_pools_of(ID)
IN_GROUP = refs.accounts_of(SUBSCRIPTION, GROUP)
PERMISSIONS = refs.permissions_at(f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}")

MAY_LIST_POOLS = [{"actions": ["Microsoft.Batch/batchAccounts/pools/read"], "notActions": []}]
MAY_READ_ACCOUNTS = [{"actions": ["Microsoft.Batch/batchAccounts/read"], "notActions": []}]
DENIED = Denied("You may not list them.", azure={"code": "AuthorizationFailed", "message": "You may not list them."})
REFUSED = Rejected("Batch refuses.", azure={"code": "AccountKeyInaccessible", "message": "Batch refuses."})


def state(provisioning_state: str) -> dict[str, Any]:
    document = account(NAME)
    document["properties"]["provisioningState"] = provisioning_state
    return document


DONE, CREATING, DELETING = state("Succeeded"), state("Creating"), state("Deleting")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return clock_of_all(monkeypatch)


def existing(task: Task) -> Account | None:
    return task.driver.solve(partial(accounts.existing, facts=Facts(task.session), group=GROUP, name=NAME))


def settled(task: Task) -> Account | None:
    return task.driver.solve(partial(accounts.settled, facts=Facts(task.session), group=GROUP, name=NAME))


def test_a_running_operation_is_waited_for(clock: Clock) -> None:
    table, began = Table({ACCOUNT: Several(DELETING, CREATING, DONE)}), clock.now

    assert settled(task_of(table)) == DONE
    assert table.asked == [place(ACCOUNT)] * 3
    assert clock.now - began == pytest.approx(3, abs=0.1)


def test_an_endless_operation_fails_and_names_wait_timeout(clock: Clock) -> None:
    began = clock.now

    with pytest.raises(TimedOut) as failed:
        settled(task_of(Table({ACCOUNT: CREATING})))

    assert clock.now - began == pytest.approx(60, abs=0.1)
    assert (failed.value.facts["option"], failed.value.facts["value"]) == ("wait_timeout", 60)


@pytest.mark.parametrize(
    ("reads", "in_group", "found"),
    [
        pytest.param(Several(None, None, DONE), [account(NAME.upper())], DONE, id="listed in another letter case"),
        pytest.param(None, [account("another")], None, id="not listed"),
        pytest.param(None, Several([DONE], [DONE], []), None, id="listed no more"),
        # Nothing is created here, so it is safe to believe the read.
        pytest.param(None, DENIED, None, id="the caller may not list accounts"),
        pytest.param(Several(CREATING, CREATING, DONE), [], DONE, id="its creation has finished"),
    ],
)
def test_a_read_may_be_out_of_date(clock: Clock, reads: Any, in_group: Any, found: dict[str, Any] | None) -> None:
    assert existing(task_of(Table({ACCOUNT: reads, IN_GROUP: in_group}))) == found


@pytest.mark.parametrize("code", ["resource_group_not_found", "subscription_not_found"])
def test_a_missing_group_or_subscription_is_an_error(code: Any) -> None:
    with pytest.raises(NotFound) as missing:
        existing(task_of(Table({ACCOUNT: NotFound("There is none.", code=code)})))
    assert missing.value.code == code


@pytest.mark.parametrize(
    ("shown", "wait_timeout", "waits"),
    [
        pytest.param(CREATING, 10, 10, id="created"),
        # After that, no read is out of date.
        pytest.param(CREATING, 600, VALUE_LAG_SECONDS, id="created, with a long timeout"),
        pytest.param(DELETING, 60, 0, id="deleted"),
    ],
)
def test_an_account_that_is_being_created_or_deleted_is_refused(
    clock: Clock, shown: dict[str, Any], wait_timeout: int, waits: int
) -> None:
    """A read may be out of date and show a creation that has finished."""
    began = clock.now

    with pytest.raises(Refused) as refused:
        existing(task_of(Table({ACCOUNT: shown}), wait_timeout=wait_timeout))
    assert refused.value.code == "account_under_way"
    assert clock.now - began == pytest.approx(waits, abs=0.1)


# Whether its pools can be listed


@pytest.mark.parametrize(
    ("permissions", "reads_pools"),
    [
        pytest.param(MAY_LIST_POOLS, False, id="may list pools"),
        pytest.param(MAY_READ_ACCOUNTS, True, id="may read accounts alone"),
        pytest.param([], True, id="nothing"),
        pytest.param(DENIED, True, id="may not read permissions"),
    ],
)
def test_pools_are_listed_before_a_change_unless_permissions_allow_the_list(
    permissions: Any, reads_pools: bool
) -> None:
    table = Table({PERMISSIONS: permissions, POOLS: DENIED})

    reason = task_of(table).driver.solve(partial(health.reason_before_change, account=DONE))

    assert table.asked == [place(PERMISSIONS), place(POOLS)][: 1 + reads_pools]
    assert (reason and reason.msg) == (DENIED.msg if reads_pools else None)


def test_each_list_of_the_pools_is_from_azure(clock: Clock) -> None:
    driver = task_of(Table({POOLS: Several([], REFUSED, [])})).driver

    reasons = [driver.solve(partial(health.pools_reason, account_id=ID)) for _time in range(3)]

    assert [reason and reason.msg for reason in reasons] == [None, REFUSED.msg, None]


# Whether it is available


def with_key(document: dict[str, Any] | None, pools: Any = None, **read: Any) -> Table:
    """The account, the first page of its pools, and the documents of its key."""
    return Table({ACCOUNT: document, POOLS: pools or [], **documents_of(evidence(**read))})


ON_KEY = account(NAME, key=KEY, identity=system_assigned())
LOST = {"vault": vault(policy(OTHER))}
UNREADABLE = {"bundle": Denied("You may not read it.")}
FAILING = Unavailable("Batch fails.", azure={"status": 500, "code": "InternalServerError"})


@pytest.mark.parametrize(
    ("table", "code"),
    [
        pytest.param(with_key(DONE), None, id="on a Microsoft-managed key"),
        pytest.param(with_key(ON_KEY), None, id="on a key that it can use"),
        pytest.param(with_key(ON_KEY, **UNREADABLE), None, id="Batch would refuse a change"),
        pytest.param(with_key(DONE, REFUSED), "account_unavailable", id="Batch refuses the list"),
        pytest.param(with_key(ON_KEY, **LOST), "account_unavailable", id="lost its key, and Batch lists its pools"),
        pytest.param(with_key(ON_KEY, FAILING, **LOST), "account_unavailable", id="lost its key, and Batch fails"),
        pytest.param(with_key(ON_KEY, FAILING), "service_unavailable", id="Batch fails"),
        pytest.param(with_key(ON_KEY, Unavailable("No response."), **LOST), "service_unavailable", id="no response"),
        pytest.param(with_key(ON_KEY, NotFound("It was deleted.")), "not_found", id="deleted meanwhile"),
        pytest.param(with_key(ON_KEY, DENIED), "availability_unknown", id="the caller may not list its pools"),
    ],
)
def test_a_change_requires_an_available_account(table: Table, code: str | None) -> None:
    task = task_of(table)
    question = partial(health.require_available, facts=Facts(task.session), group=GROUP, name=NAME)

    failure = value_or_error(lambda: task.driver.solve(question), CmkError)

    assert (failure and failure.code) == code
