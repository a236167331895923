# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A switch is confirmed only if the account is available and its identity may still use the key."""

from __future__ import annotations

import time
from functools import partial
from threading import Event
from typing import Any

import pytest
from azure_table import Several, Table, Task, place, task_of
from clocks import Clock, clock_of_all
from documents import KEY, OTHER, VAULT_ID, account, account_id, evidence, key, listed, policy, vault

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.driver import IsSubject, everything
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.facts import Facts
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import Denied, Refused, Rejected
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import parse_key_identifier
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs
from ansible_collections.azbatch.cmk.plugins.module_utils._questions import health

UNAVAILABLE = Rejected(
    "The key cannot be read.", azure={"code": "KeyVaultKeyNotAccessible", "message": "The key cannot be read."}
)
NOT_ALLOWED = Denied(
    "You may not list pools.", azure={"code": "AuthorizationFailed", "message": "You may not list pools."}
)
POOLS, VAULT = refs.pools_of(account_id()), refs.vault(VAULT_ID)
HAS_ACCESS, HAS_NONE = vault(policy()), vault(policy(OTHER))


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that hardly advances, except in `sleep`."""
    return clock_of_all(monkeypatch, tick=1e-6)


def azure(pools: Any = (), found: Any = None) -> Table:
    """The pools of the account, or the error of their list, and the vault of its key."""
    versions = refs.versions_of(parse_key_identifier(KEY, "key_identifier"))
    return Table({POOLS: [] if pools == () else pools, VAULT: found or HAS_ACCESS, versions: [listed(key())]})


def confirm(table: Table, task: Task | None = None, is_subject: IsSubject = everything, **options: Any) -> None:
    """A task has just moved the account to the key."""
    task = task or task_of(table, wait_timeout=60)
    given = {"used": evidence(vault=HAS_ACCESS), **options}
    question = partial(health.confirmed, facts=Facts(task.session), account=account(key=KEY), **given)
    task.driver.since(question, time.monotonic(), is_subject)


def refused(table: Table, **options: Any) -> Any:
    with pytest.raises(Refused) as failed:
        confirm(table, **options)
    assert failed.value.code == "preflight_failed"
    return failed.value.facts["failed_checks"]


@pytest.mark.parametrize("before", [0, 1, 4])
def test_the_task_waits_until_the_account_is_available(before: int) -> None:
    table = azure(Several(*[UNAVAILABLE] * before, []))
    confirm(table)

    assert table.reads_of(POOLS) == before + 1


def test_without_the_right_to_list_pools_nothing_is_confirmed() -> None:
    with pytest.raises(Denied) as failed:
        confirm(azure(NOT_ALLOWED))

    assert failed.value.code == "availability_unknown"
    assert failed.value.facts["action"] == "Microsoft.Batch/batchAccounts/pools/read"


def test_access_that_is_revoked_during_the_wait_is_found() -> None:
    assert refused(azure(Several(UNAVAILABLE, []), Several(HAS_ACCESS, HAS_NONE))) == ["access_granted"]


class Slow(Table):
    """A list of pools takes `seconds`, such as that of a throttled caller. Meanwhile, the vault is read."""

    def __init__(self, table: Table, clock: Clock, seconds: float) -> None:
        self.__dict__.update(table.__dict__)
        self._clock = clock
        self._seconds = seconds
        self._reads_vault = Event()

    def read(self, where: str, otherwise: Any) -> Any:
        found = super().read(where, otherwise)
        if where == place(VAULT):
            self._reads_vault.set()
        elif where == place(POOLS):
            assert self._reads_vault.wait(30)
            self._clock.now += self._seconds
        return found


@pytest.mark.parametrize(("seconds", "is_read_again"), [(15, False), (31, True)])
def test_access_is_read_again_after_a_slow_list(clock: Clock, seconds: float, is_read_again: bool) -> None:
    table = Slow(azure(found=Several(HAS_ACCESS, HAS_NONE)), clock, seconds)

    if is_read_again:
        assert refused(table) == ["access_granted"]
    else:
        confirm(table)


def test_an_account_whose_access_was_revoked_is_not_waited_for(clock: Clock) -> None:
    """It will not become available, and soon Batch refuses to move it to another key."""
    began = clock.now

    assert refused(azure(UNAVAILABLE, HAS_NONE)) == ["access_granted"]
    assert clock.now - began < 0.1


def test_access_that_cannot_be_read_again_is_a_failure() -> None:
    with pytest.raises(Denied, match="vault"):
        confirm(azure(found=Denied("You may not read the vault.")))


@pytest.mark.parametrize(("is_new", "reads"), [(True, 2), (False, 1)])
def test_access_to_a_key_that_the_account_used_before_may_have_been_read_since_the_task_began(
    is_new: bool, reads: int
) -> None:
    """A run that revokes access has found that account all the time."""
    table = azure()
    task = task_of(table)
    task.driver.get(VAULT)

    confirm(table, task, lambda ref: is_new or ref.kind != "vault")

    assert table.reads_of(VAULT) == reads


def test_an_account_without_a_customer_managed_key_needs_no_access() -> None:
    table = azure()
    confirm(table, used=None)

    assert table.asked == [place(POOLS)]
