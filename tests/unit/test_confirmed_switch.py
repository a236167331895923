# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A switch is confirmed only if the account is available and its identity may still use the key."""

from __future__ import annotations

import time
from typing import Any

import pytest
from documents import OTHER, evidence, policy, vault

from ansible_collections.azbatch.cmk.plugins.module_utils._azure import session as session_module
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.journal import Journal
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_store import RunFiles
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.session import Session
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.visible import HandledAccounts
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError, Denied, Rejected, Unavailable
from ansible_collections.azbatch.cmk.plugins.module_utils._core.plan import SentWrites
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.account import client as account_client
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.account.client import Accounts

pytest.importorskip("azure.core")

UNAVAILABLE = Rejected(
    "The key cannot be read.", azure={"code": "KeyVaultKeyNotAccessible", "message": "The key cannot be read."}
)
NOT_ALLOWED = Denied(
    "You may not list pools.", azure={"code": "AuthorizationFailed", "message": "You may not list pools."}
)


class Time:
    """A clock that advances only in `sleep`."""

    def __init__(self) -> None:
        self.now = time.monotonic()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Pools:
    """The responses to lists of an account's pools, one after the other, and then always the last response."""

    def __init__(self, *answers: CmkError | None) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.journal = Journal(RunFiles(None), SentWrites())

    # The methods of gateway.Gateway.
    def get(self, _what: str, ref: str) -> Any:
        assert ref.endswith("/pools")
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is not None:
            raise answer

    def find(self, _what: str, _ref: str) -> Any:
        raise NOT_ALLOWED

    def write(self, _what: str, method: str, ref: str, body: Any, **_options: Any) -> None:
        with self.journal.writing(method, ref, body, undoes=False):
            pass


class Again:
    """The later reads of access, one after the other, and then always the last: unchanged, revoked, or an error."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)

    def with_access_now(self, _evidence: Any, since: float, access_since: float) -> Any:
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, CmkError):
            raise outcome
        return outcome


GOOD, REVOKED = evidence(), evidence(vault=vault(policy(OTHER)))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    clock = Time()
    monkeypatch.setattr(session_module, "time", clock)
    monkeypatch.setattr(account_client, "time", clock)
    return clock


def confirm(clock: Time, pools: Pools, *again: Any) -> Accounts:
    session = Session({"wait_timeout": 60})
    session.__dict__.update(subscription_id="subscription", fingerprint="me")
    session.journal = pools.journal
    evidence_service: Any = Again(*(again or [GOOD]))
    handled = HandledAccounts(RunFiles(None))
    accounts = Accounts(session, pools, None, None, evidence_service, handled)  # type: ignore[arg-type]
    accounts.update("rg-batch", "mybatch", {})
    accounts.confirm_key("rg-batch", "mybatch", clock.now + 60, GOOD)
    return accounts


@pytest.mark.parametrize("before", [0, 1, 4])
def test_the_task_waits_until_the_account_is_available(clock: Time, before: int) -> None:
    pools = Pools(*[UNAVAILABLE] * before, None)

    assert confirm(clock, pools).confirmed("rg-batch", "mybatch") == GOOD
    assert pools.asked == before + 1


def test_an_account_that_stays_unavailable_is_a_failure_once_time_is_up(clock: Time) -> None:
    began, pools = clock.now, Pools(UNAVAILABLE)

    with pytest.raises(Unavailable) as failed:
        confirm(clock, pools)

    assert failed.value.code == "account_unavailable"
    assert clock.now - began == pytest.approx(60)


def test_without_the_right_to_list_pools_nothing_is_confirmed(clock: Time) -> None:
    with pytest.raises(Denied) as failed:
        confirm(clock, Pools(NOT_ALLOWED))

    assert failed.value.code == "availability_unknown"
    assert failed.value.facts["action"] == "Microsoft.Batch/batchAccounts/pools/read"


def test_revoked_access_is_found_although_the_account_is_still_available(clock: Time) -> None:
    assert confirm(clock, Pools(None), REVOKED).confirmed("rg-batch", "mybatch") == REVOKED


@pytest.mark.parametrize(("polls", "found"), [(4, GOOD), (5, REVOKED)], ids=["15 s", "31 s"])
def test_access_is_read_again_after_a_long_wait(clock: Time, polls: int, found: Any) -> None:
    pools = Pools(*[UNAVAILABLE] * polls, None)

    assert confirm(clock, pools, GOOD, REVOKED).confirmed("rg-batch", "mybatch") == found


def test_an_account_whose_access_was_revoked_is_not_waited_for(clock: Time) -> None:
    began = clock.now

    assert confirm(clock, Pools(UNAVAILABLE), REVOKED).confirmed("rg-batch", "mybatch") == REVOKED
    assert clock.now == began


def test_access_that_cannot_be_read_again_is_a_failure(clock: Time) -> None:
    with pytest.raises(Denied):
        confirm(clock, Pools(None), Denied("You may not read the vault."))


def test_another_change_of_the_account_ends_its_confirmation(clock: Time) -> None:
    accounts = confirm(clock, Pools(None))
    accounts.update("rg-batch", "mybatch", {"properties": {}})

    assert accounts.confirmed("rg-batch", "mybatch") is None


def test_a_confirmed_account_is_not_checked_again_and_another_one_is(clock: Time) -> None:
    pools = Pools(None)
    accounts = confirm(clock, pools)

    assert accounts.unavailable_reason("rg-batch", "mybatch") is None
    assert pools.asked == 1
    accounts.unavailable_reason("rg-batch", "another")
    assert pools.asked == 2
