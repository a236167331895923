# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An account is moved to a key, the move is confirmed, and a move that failed is rolled back."""

from __future__ import annotations

from typing import Any

import pytest
from azure_table import executor_of, task_of
from clocks import Clock, clock_of_all
from documents import DAY, MIDDLE, NEW, NOW, OLD, OTHER, policy
from encryption_table import (
    ACCOUNT,
    ELSEWHERE,
    PATCH,
    PINNED_MIDDLE,
    PINNED_NEW,
    PINNED_OLD,
    POOLS,
    Azure,
)
from goals import encryption_goal

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.facts import Facts
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import (
    CmkError,
    PlanOutdated,
    Rejected,
    Unavailable,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._core.outcome import Outcome
from ansible_collections.azbatch.cmk.plugins.module_utils._core.tasks import VALUE_LAG_SECONDS
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption.decide import Move

THEIRS = ELSEWHERE
WAIT_SECONDS = 60
FAILING = Unavailable("Batch fails.", azure={"status": 500, "code": "InternalServerError", "message": "Batch fails."})
NO_RESPONSE = Unavailable("There is no response.")


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return clock_of_all(monkeypatch)


def switch(azure: Azure, to: str | None = PINNED_NEW, *, wait_timeout: int = WAIT_SECONDS, **options: Any) -> Outcome:
    """A task moves the account to a key."""
    task = task_of(azure, wait_timeout=wait_timeout)
    goal = encryption_goal(to, **{"previous_key": "any", **options})
    return executor_of(task).ensure(Move(goal, Facts(task.session)))


def failed_switch(azure: Azure, to: str | None = PINNED_NEW, **options: Any) -> CmkError:
    with pytest.raises(CmkError) as failed:
        switch(azure, to, **options)
    return failed.value


def test_a_switch_is_confirmed_as_long_as_reads_may_lag_whatever_the_timeout_is(clock: Clock) -> None:
    azure, began = Azure(PINNED_OLD), clock.now
    azure.on_write = lambda _key: None
    reads = azure.read

    def read(where: str, otherwise: Any) -> Any:
        if clock.now > began + VALUE_LAG_SECONDS / 2:
            azure.move(PINNED_NEW)
        return reads(where, otherwise)

    azure.read = read  # type: ignore[method-assign]

    assert switch(azure, version_mode="pin", wait_timeout=0).changed


def test_an_account_leaves_a_version_that_was_made_and_replaced_within_this_second() -> None:
    azure = Azure(PINNED_OLD)
    azure.change(NEW, created=NOW)
    azure.change(OLD, created=NOW)

    assert switch(azure, None).changed
    assert PINNED_OLD in [ref for _method, ref, _body in azure.written]
    assert azure.used is None


@pytest.mark.parametrize(
    ("previous", "ends"),
    [
        pytest.param(None, None, id="from Microsoft's"),
        pytest.param(ELSEWHERE, ELSEWHERE, id="from a key that is still there"),
        pytest.param(PINNED_OLD, None, id="from a key that is gone too"),
    ],
)
def test_access_that_was_revoked_meanwhile(previous: str | None, ends: str | None) -> None:
    """Batch still accepts the key. The account is moved to its previous key or, if that key may not be used either,
    to a Microsoft-managed key."""
    azure = Azure(previous)

    def revoke(used: str | None) -> None:
        azure.grant(policy(OTHER))
        azure.move(used)

    azure.on_write = revoke
    # Preflight has read the same document as the confirmation, unless the account used the key before.
    group = None if previous == PINNED_OLD else "rg-keys"
    failure = failed_switch(azure, version_mode="pin", vault_resource_group=group)

    assert azure.written_keys == [PINNED_NEW, ends]
    assert failure.code == "preflight_failed"
    assert failure.facts["failed_checks"] == ["access_granted"]
    assert failure.facts["restored"] is (ends == previous)
    assert failure.facts["current_state"]["key_identifier"] == ends
    assert ("The change was rolled back." in str(failure)) is (ends == previous)


def test_a_rollback_after_which_the_account_is_not_available_is_a_failure() -> None:
    """The account has lost its previous key too."""
    azure = Azure(PINNED_OLD)

    def lose(used: str | None) -> None:
        azure.unavailable_on = used
        azure.move(used)

    azure.on_write = lose
    failure = failed_switch(azure)

    assert azure.written_keys == [PINNED_NEW, PINNED_OLD]
    assert failure.facts["restored"] is False
    assert failure.facts["restore_failure"]["code"] == "account_unavailable"
    assert failure.facts["current_state"]["key_identifier"] == PINNED_OLD


ACCEPTED, REFUSED = None, Rejected("Azure reports: no.", azure={"code": "InvalidRequestBody"})
NOT_SENT = PlanOutdated("Somebody has moved it.")


@pytest.mark.parametrize(
    ("response", "shown", "goes_back"),
    [
        pytest.param(ACCEPTED, PINNED_OLD, True, id="accepted, previous key"),
        pytest.param(ACCEPTED, PINNED_NEW, True, id="accepted, new key"),
        pytest.param(ACCEPTED, THEIRS, False, id="accepted, a third key"),
        pytest.param(NO_RESPONSE, PINNED_OLD, True, id="unknown, previous key"),
        pytest.param(NO_RESPONSE, PINNED_NEW, True, id="unknown, new key"),
        pytest.param(NO_RESPONSE, THEIRS, False, id="unknown, a third key"),
        pytest.param(REFUSED, PINNED_OLD, False, id="refused, previous key"),
        pytest.param(REFUSED, PINNED_NEW, True, id="refused, new key"),
        pytest.param(REFUSED, THEIRS, False, id="refused, a third key"),
        pytest.param(NOT_SENT, PINNED_OLD, False, id="not sent, previous key"),
        pytest.param(NOT_SENT, PINNED_NEW, False, id="not sent, new key"),
        pytest.param(NOT_SENT, THEIRS, False, id="not sent, a third key"),
    ],
)
def test_when_a_failed_switch_writes_the_previous_key(response: CmkError | None, shown: str, goes_back: bool) -> None:
    """By the outcome of the write and the key that later reads show. The account is not available on the new key."""
    azure = Azure(PINNED_OLD, {PATCH: response}, unavailable_on=PINNED_NEW)
    writes = azure.write

    def write(method: str, ref: str, body: Any) -> Any:
        try:
            return writes(method, ref, body)
        finally:
            if azure.written_keys[-1] == PINNED_NEW:
                azure.move(shown)
                azure[PATCH] = response if response is NOT_SENT else None

    azure.write = write  # type: ignore[method-assign]
    azure.on_write = lambda used: azure.move(shown if used == PINNED_NEW else used)
    failure = failed_switch(azure, version_mode="pin")

    assert (PINNED_OLD in azure.written_keys) is goes_back
    assert azure.used == (PINNED_OLD if goes_back else shown)
    assert failure.facts.get("restored", False) is (azure.used == PINNED_OLD and response is not NOT_SENT)


def test_a_lost_previous_version_is_a_warning_after_the_change() -> None:
    """Batch may still need the version that the account has left."""
    azure = Azure(PINNED_MIDDLE)

    def disable(used: str | None) -> None:
        azure.change(MIDDLE, enabled=False)
        azure.move(used)

    azure.on_write = disable
    outcome = switch(azure)

    assert (outcome.changed, outcome.after["available"]) == (True, None)
    assert MIDDLE in outcome.warnings[0]


def test_a_rollback_from_a_version_that_has_become_unusable_is_complete() -> None:
    """Batch may still need that version, so it is not known whether the account is available."""
    azure = Azure(PINNED_OLD)

    def disable(used: str | None) -> None:
        azure.move(used)
        azure.change(NEW, enabled=False)

    azure.on_write = disable
    failure = failed_switch(azure)

    assert azure.written_keys == [PINNED_NEW, PINNED_OLD]
    assert failure.facts["restored"] is True
    assert failure.facts["current_state"]["available"] is None
    assert "The change was rolled back." in failure.msg


# Another task or user moves the account


def others_move_after_a_lost_response(to: str | None, **options: Any) -> Azure:
    """The first write takes effect, and its response is lost. Then another task moves the account to a key."""
    azure = Azure(PINNED_OLD, {PATCH: NO_RESPONSE}, **options)

    def move(_used: str | None) -> None:
        azure.move(to)
        azure.on_write = azure.move
        azure[PATCH] = None

    azure.on_write = move
    return azure


@pytest.mark.parametrize("available", [True, False])
def test_an_account_stays_on_the_key_of_a_failed_switch_if_it_is_available(available: bool) -> None:
    """The switch took effect although its response was lost. Another run may have made the same switch."""
    azure = others_move_after_a_lost_response(PINNED_NEW, unavailable_on="" if available else PINNED_NEW)

    failure = failed_switch(azure)

    expected = (PINNED_NEW, [PINNED_NEW]) if available else (PINNED_OLD, [PINNED_NEW, PINNED_OLD])
    assert (azure.used, azure.written_keys) == expected
    assert failure.code == "service_unavailable"
    assert failure.facts["restored"] is not available
    assert failure.facts["current_state"]["key_identifier"] == azure.used
    assert ("stays" in failure.msg) is available


def test_a_switch_begins_again_if_another_task_has_moved_the_account_since_it_was_read() -> None:
    """Batch refuses the first try, and then the account has moved."""
    azure = Azure(PINNED_OLD)
    refusal = Rejected("No access.", azure={"code": "KeyVaultAccessDenied", "message": "No access."})
    azure[PATCH] = refusal
    reads = azure.read

    def read(where: str, otherwise: Any) -> Any:
        if azure.written and azure[PATCH] is refusal:
            azure.move(PINNED_MIDDLE)
            azure[PATCH] = None
        return reads(where, otherwise)

    azure.read = read  # type: ignore[method-assign]
    outcome = switch(azure)

    assert azure.written_keys == [PINNED_NEW, PINNED_NEW]
    assert outcome.report["previous_key_identifier"] == PINNED_MIDDLE


# Accounts that are not available


def test_an_unavailable_account_is_waited_for_only_with_the_option() -> None:
    azure = Azure(PINNED_NEW, unavailable_on=PINNED_NEW)
    azure.grant()

    assert failed_switch(azure).code == "account_unavailable"
    assert azure.written == []


@pytest.mark.parametrize("is_repaired", [True, False])
def test_an_account_whose_key_was_repaired_is_waited_for(clock: Clock, is_repaired: bool) -> None:
    azure, began = Azure(PINNED_NEW, unavailable_on=PINNED_NEW), clock.now
    reads = azure.read

    def read(where: str, otherwise: Any) -> Any:
        # Batch may respond with server errors as long as it cannot use the key.
        if clock.now > began + 10:
            azure[POOLS] = FAILING
        if is_repaired and clock.now > began + 20:
            azure[POOLS] = []
        return reads(where, otherwise)

    azure.read = read  # type: ignore[method-assign]
    if not is_repaired:
        assert failed_switch(azure, wait_until_available=True).code == "account_unavailable"
        assert clock.now - began == pytest.approx(WAIT_SECONDS, abs=1)
        return
    outcome = switch(azure, wait_until_available=True)
    assert (outcome.changed, outcome.before["available"], outcome.after["available"]) == (True, False, True)
    assert azure.written == []


def test_the_pools_of_an_account_are_listed_if_its_last_operation_has_failed() -> None:
    azure = Azure(PINNED_NEW)
    azure[ACCOUNT]["properties"]["provisioningState"] = "Failed"

    assert not switch(azure).changed
    assert azure.reads_of(POOLS) == 1


def test_a_version_that_expires_soon_is_left_although_versions_are_kept() -> None:
    azure = Azure(PINNED_MIDDLE)
    azure.change(MIDDLE, exp=NOW + DAY)

    assert switch(azure, version_mode="keep").after["key_identifier"] == PINNED_NEW
