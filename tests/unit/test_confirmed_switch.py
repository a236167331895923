# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A switch is confirmed only if the account is available and its identity may still use the key."""

from __future__ import annotations

import time
from typing import Any

import pytest
from azure_table import Several, Table, place, task_of
from clocks import Clock
from documents import KEY, OTHER, VAULT_ID, account_id, evidence, key, listed, policy, vault

from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import Denied, Rejected, Unavailable
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import parse_key_identifier
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.account.client import Accounts
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key.evidence import EvidenceReader
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.visible import HandledAccounts

UNAVAILABLE = Rejected(
    "The key cannot be read.", azure={"code": "KeyVaultKeyNotAccessible", "message": "The key cannot be read."}
)
NOT_ALLOWED = Denied(
    "You may not list pools.", azure={"code": "AuthorizationFailed", "message": "You may not list pools."}
)
POOLS, VAULT = refs.pools_of(account_id()), refs.vault(VAULT_ID)
HAS_ACCESS, HAS_NONE = vault(policy()), vault(policy(OTHER))
GOOD, REVOKED = evidence(vault=HAS_ACCESS), evidence(vault=HAS_NONE)
AT = ("rg-batch", "mybatch")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that hardly advances, except in `sleep`."""
    clock = Clock(tick=1e-6)
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    monkeypatch.setattr(time, "sleep", clock.sleep)
    return clock


def azure(pools: Any = (), found: Any = None) -> Table:
    """The pools of the account, or the error of their list, and the vault of its key."""
    versions = refs.versions_of(parse_key_identifier(KEY, "key_identifier"))
    return Table({POOLS: [] if pools == () else pools, VAULT: found or HAS_ACCESS, versions: [listed(key())]})


def confirm(table: Table, known: Any = GOOD, **options: Any) -> Accounts:
    """The clients of a task that has just moved the account to the key."""
    task = task_of(table, wait_timeout=60)
    reader, handled = EvidenceReader(task.session, task.driver), HandledAccounts(task.session.files)
    accounts = Accounts(task.session, task.driver, task.gateway, reader, handled)
    accounts.update(*AT, {})
    accounts.confirm_key(*AT, time.monotonic() + 60, known, **options)
    return accounts


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("before", [0, 1, 4])
def test_the_task_waits_until_the_account_is_available(before: int) -> None:
    table = azure(Several(*[UNAVAILABLE] * before, []))
    accounts = confirm(table)

    assert accounts.confirmed(*AT) == GOOD
    assert accounts.is_confirmed(*AT)
    assert table.reads_of(POOLS) == before + 1


def test_an_account_that_stays_unavailable_is_a_failure_after_the_timeout(clock: Clock) -> None:
    began = clock.now

    with pytest.raises(Unavailable) as failed:
        confirm(azure(UNAVAILABLE))

    assert failed.value.code == "account_unavailable"
    assert clock.now - began == pytest.approx(60, abs=0.1)


@pytest.mark.usefixtures("clock")
def test_without_the_right_to_list_pools_nothing_is_confirmed() -> None:
    with pytest.raises(Denied) as failed:
        confirm(azure(NOT_ALLOWED))

    assert failed.value.code == "availability_unknown"
    assert failed.value.facts["action"] == "Microsoft.Batch/batchAccounts/pools/read"


@pytest.mark.usefixtures("clock")
def test_revoked_access_is_found_although_the_account_is_still_available() -> None:
    assert confirm(azure(found=HAS_NONE)).confirmed(*AT) == REVOKED


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(("polls", "found"), [(4, GOOD), (5, REVOKED)], ids=["15 s", "31 s"])
def test_access_is_read_again_after_a_long_wait(polls: int, found: Any) -> None:
    table = azure(Several(*[UNAVAILABLE] * polls, []), Several(HAS_ACCESS, HAS_NONE))

    assert confirm(table).confirmed(*AT) == found


def test_an_account_whose_access_was_revoked_is_not_waited_for(clock: Clock) -> None:
    began = clock.now

    assert confirm(azure(UNAVAILABLE, HAS_NONE)).confirmed(*AT) == REVOKED
    assert clock.now - began < 0.1


@pytest.mark.usefixtures("clock")
def test_access_that_cannot_be_read_again_is_a_failure() -> None:
    with pytest.raises(Denied, match="vault"):
        confirm(azure(found=Denied("You may not read the vault.")))


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(("is_new", "reads"), [(True, 2), (False, 1)])
def test_access_to_a_key_that_the_account_used_before_may_have_been_read_since_the_task_began(
    is_new: bool, reads: int
) -> None:
    """A run that revokes access has found that account all the time."""
    table = azure()
    task = task_of(table)
    reader, handled = EvidenceReader(task.session, task.driver), HandledAccounts(task.session.files)
    accounts = Accounts(task.session, task.driver, task.gateway, reader, handled)
    task.driver.get(VAULT)
    accounts.update(*AT, {})

    accounts.confirm_key(*AT, time.monotonic() + 60, GOOD, is_new=is_new)

    assert accounts.confirmed(*AT) == GOOD
    assert table.reads_of(VAULT) == reads


@pytest.mark.usefixtures("clock")
def test_an_account_without_a_customer_managed_key_needs_no_access() -> None:
    table = azure()
    accounts = confirm(table, None)

    assert (accounts.is_confirmed(*AT), accounts.confirmed(*AT)) == (True, None)
    assert table.asked == [place(POOLS)]


@pytest.mark.usefixtures("clock")
def test_another_change_of_the_account_ends_its_confirmation() -> None:
    accounts = confirm(azure())
    accounts.update(*AT, {"properties": {}})

    assert (accounts.is_confirmed(*AT), accounts.confirmed(*AT)) == (False, None)


@pytest.mark.usefixtures("clock")
def test_a_confirmed_account_is_not_checked_again_and_another_one_is() -> None:
    table = azure()
    another = refs.pools_of(account_id("another"))
    accounts = confirm(table)

    assert accounts.unavailable_reason(*AT) is None
    assert table.reads_of(POOLS) == 1
    table[another] = UNAVAILABLE
    reason = accounts.unavailable_reason("rg-batch", "another")
    assert reason is not None
    assert reason.msg == UNAVAILABLE.msg
    assert table.reads_of(another) == 1
