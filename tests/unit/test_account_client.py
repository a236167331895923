# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When the client of Batch accounts reads, waits, writes and retries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from azure_table import Several, Table, TableGateway, place, task_of
from clocks import Clock
from documents import SUBSCRIPTION, VAULT_ID, account, account_id, evidence, key, listed, policy, vault

from ansible_collections.azbatch.cmk.plugins.module_utils._azure import creation as creation_module
from ansible_collections.azbatch.cmk.plugins.module_utils._azure import driver as driver_module
from ansible_collections.azbatch.cmk.plugins.module_utils._azure import journal as journal_module
from ansible_collections.azbatch.cmk.plugins.module_utils._azure import rate_limit as rate_limit_module
from ansible_collections.azbatch.cmk.plugins.module_utils._azure import session as session_module
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.gateway import Operation
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import (
    CmkError,
    Denied,
    NotFound,
    PlanOutdated,
    Refused,
    Rejected,
    TimedOut,
    Unavailable,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.account import client as accounts_module
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.account.client import Accounts
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key.evidence import EvidenceReader
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.visible import HandledAccounts

GROUP, NAME = "rg-batch", "mybatch"
ID = account_id(NAME)
ACCOUNT, POOLS = refs.account(ID), refs.first_pools_of(ID)
IN_GROUP = refs.accounts_of(SUBSCRIPTION, GROUP)
PERMISSIONS = refs.permissions_at(f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}")
PROVIDER = refs.provider(SUBSCRIPTION, "Microsoft.Batch")
NAME_CHECK = refs.name_check(f"{PROVIDER.id}/locations/westeurope", "Microsoft.Batch/batchAccounts", NAME)
PUT, PATCH, POLL = f"PUT {ID}", f"PATCH {ID}", f"POLL {ID}"

MAY_LIST_POOLS = [{"actions": ["Microsoft.Batch/batchAccounts/pools/read"], "notActions": []}]
MAY_READ_ACCOUNTS = [{"actions": ["Microsoft.Batch/batchAccounts/read"], "notActions": []}]
DENIED = Denied("You may not list them.", azure={"code": "AuthorizationFailed", "message": "You may not list them."})
FREE, TAKEN = {"nameAvailable": True}, {"nameAvailable": False, "reason": "AlreadyExists"}
BODY = {"location": "westeurope"}
NOT_YET = Rejected(
    "The key is not accessible.", azure={"code": "KeyVaultAccessDenied", "message": "The key is not accessible."}
)
INVALID = Rejected("No.", azure={"code": "InvalidRequestBody", "message": "No."})


def state(provisioning_state: str) -> dict[str, Any]:
    document = account(NAME)
    document["properties"]["provisioningState"] = provisioning_state
    return document


DONE, CREATING, DELETING = state("Succeeded"), state("Creating"), state("Deleting")


class Azure(Table):
    """A subscription without the account, and a key that the account may use."""

    def __init__(self, documents: dict[Any, Any] | None = None) -> None:
        super().__init__({PROVIDER: {"resourceTypes": []}, POOLS: [], NAME_CHECK: FREE})
        self.update({refs.vault(VAULT_ID): vault(policy()), refs.key(evidence().key): key()})
        self.update({refs.versions_of(evidence().key): [listed(key())], **(documents or {})})

    def write(self, method: str, ref: str, body: Any) -> Any:
        response = super().write(method, ref, body)
        if isinstance(response, BaseException):
            raise response
        return response

    @property
    def methods(self) -> list[str]:
        return [method for method, _ref, _body in self.written]


class LongRunning(TableGateway):
    """The entry `"POLL id"` is the end of a long-running operation, by default a success."""

    def begin(self, what: str, method: str, ref: str, body: Any = None, *, if_late: Any = None) -> Operation:
        return Operation(method, ref, self.write(what, method, ref, body))

    def finish(self, _what: str, operation: Operation) -> bool:
        with self._session.journal.changing(operation.method, operation.ref):
            return bool(self._table.read(place(f"POLL {operation.ref}"), True))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(tick=0.0001)
    modules = accounts_module, creation_module, driver_module, journal_module, rate_limit_module, session_module
    for module in modules:
        monkeypatch.setattr(module, "time", clock)
    return clock


def client(azure: Azure, folder: Path | None = None, subscription: str = SUBSCRIPTION) -> Accounts:
    session, driver, _gateway = task_of(azure, folder, subscription=subscription)
    gateway: Any = LongRunning(azure, session)
    return Accounts(session, driver, gateway, EvidenceReader(session, driver), HandledAccounts(session.files))


def to_create(**others: Any) -> Any:
    """The goal of a creation without a key."""
    given = {"present": True, "leaves_key": False, "location": "westeurope", "key": None}
    return SimpleNamespace(group=GROUP, name=NAME, **{**given, **others})


# Reads


@pytest.mark.parametrize(
    ("pools", "creation_failed"),
    [
        pytest.param([], False, id="pools are listed"),
        pytest.param(Rejected("Batch refuses.", azure={"code": "AccountCreationFailed"}), True, id="Batch refuses"),
        pytest.param(DENIED, False, id="the caller may not list them"),
    ],
)
def test_the_state_failed_alone_does_not_show_that_the_creation_failed(
    clock: Clock, pools: Any, creation_failed: bool
) -> None:
    azure = Azure({ACCOUNT: state("Failed"), POOLS: pools})

    assert client(azure).read(to_create())["creation_failed"] is creation_failed


@pytest.mark.parametrize("others", [{"present": False}, {"leaves_key": True}], ids=["deletion", "rollback"])
def test_lists_are_not_read_if_nothing_is_created(clock: Clock, others: dict[str, Any]) -> None:
    azure = Azure({IN_GROUP: [DONE]})

    assert client(azure).read(to_create(**others))["account"] is None
    assert azure.asked == [place(ACCOUNT)]


@pytest.mark.parametrize("under_way", [CREATING, DELETING])
def test_a_running_operation_is_waited_for(clock: Clock, under_way: dict[str, Any]) -> None:
    azure, began = Azure({ACCOUNT: Several(under_way, under_way, DONE)}), clock.now

    assert client(azure).settled(GROUP, NAME) == DONE
    assert azure.asked == [place(ACCOUNT)] * 3
    assert clock.now - began == pytest.approx(3, abs=0.1)


def test_an_endless_operation_fails_and_names_wait_timeout(clock: Clock) -> None:
    began = clock.now

    with pytest.raises(TimedOut) as failed:
        client(Azure({ACCOUNT: CREATING})).settled(GROUP, NAME)

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
    azure = Azure({ACCOUNT: reads, IN_GROUP: in_group})

    assert client(azure).existing(GROUP, NAME) == found


@pytest.mark.parametrize("code", ["resource_group_not_found", "subscription_not_found"])
def test_a_missing_group_or_subscription_is_an_error(clock: Clock, code: Any) -> None:
    azure = Azure({ACCOUNT: NotFound("There is none.", code=code)})

    with pytest.raises(NotFound) as missing:
        client(azure).existing(GROUP, NAME)
    assert missing.value.code == code


@pytest.mark.parametrize(("shown", "waits"), [(CREATING, 60), (DELETING, 0)], ids=["created", "deleted"])
def test_an_account_that_is_being_created_or_deleted_is_refused(
    clock: Clock, shown: dict[str, Any], waits: int
) -> None:
    """A read may be out of date and show a creation that has finished."""
    began = clock.now

    with pytest.raises(Refused) as refused:
        client(Azure({ACCOUNT: shown})).existing(GROUP, NAME)
    assert refused.value.code == "account_under_way"
    assert clock.now - began == pytest.approx(waits, abs=0.1)


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
    clock: Clock, permissions: Any, reads_pools: bool
) -> None:
    azure = Azure({PERMISSIONS: permissions, POOLS: DENIED})

    refused = client(azure).unavailable_reason_before_change(GROUP, NAME)

    assert azure.asked == [place(PERMISSIONS), place(POOLS)][: 1 + reads_pools]
    assert (refused is not None) is reads_pools
    assert refused is None or refused.msg == DENIED.msg


def test_each_list_of_the_pools_is_from_azure(clock: Clock) -> None:
    accounts = client(Azure({POOLS: Several([], NOT_YET, [])}))

    reasons = [accounts.unavailable_reason(GROUP, NAME) for _time in range(3)]

    assert [reason and reason.msg for reason in reasons] == [None, NOT_YET.msg, None]


def test_accounts_of_one_name_in_two_subscriptions_are_two(clock: Clock, tmp_path: Path) -> None:
    """Names of accounts are unique only within a region, and the tasks of a run share their reads."""
    azure = Azure({ACCOUNT: DONE})

    assert client(azure, tmp_path).existing(GROUP, NAME) == DONE
    assert client(azure, tmp_path, "99999999-1111-2222-3333-444444444444").existing(GROUP, NAME) is None


# Changes


@pytest.mark.parametrize("response", [None, DELETING], ids=["without a document", "with the document"])
def test_reads_before_a_change_are_not_used_after_it(clock: Clock, response: dict[str, Any] | None) -> None:
    azure = Azure({ACCOUNT: Several(CREATING, DONE), PATCH: response})
    accounts = client(azure)

    assert [accounts.get(GROUP, NAME) for _time in range(2)] == [CREATING] * 2
    accounts.update(GROUP, NAME, {"properties": {}})
    assert accounts.get(GROUP, NAME) == (response or DONE)


def retry_until_accepted(clock: Clock, *answers: CmkError | None, look: Callable[[], None] = lambda: None) -> int:
    """The number of writes."""
    left, writes = list(answers), 0

    def write() -> None:
        nonlocal writes
        writes += 1
        answer = left.pop(0) if len(left) > 1 else left[0]
        if answer is not None:
            raise answer

    client(Azure()).retry_until_accepted(write, clock.now + 60, "Batch to accept the key", look)
    return writes


def test_a_key_change_is_retried_until_batch_accepts_it(clock: Clock) -> None:
    assert retry_until_accepted(clock, NOT_YET, NOT_YET, None) == 3


def test_a_key_that_is_refused_to_the_end_is_a_failure(clock: Clock) -> None:
    began = clock.now

    with pytest.raises(Rejected) as failed:
        retry_until_accepted(clock, NOT_YET)

    assert failed.value is NOT_YET
    assert clock.now - began == pytest.approx(60, abs=0.1)


def test_a_permanently_invalid_request_is_not_retried(clock: Clock) -> None:
    began = clock.now

    with pytest.raises(Rejected):
        retry_until_accepted(clock, INVALID)

    assert clock.now == pytest.approx(began, abs=0.1)


def test_a_key_that_turns_out_to_be_unusable_is_not_waited_for(clock: Clock) -> None:
    began = clock.now

    def look_again() -> None:
        raise Refused("Access was revoked.")

    with pytest.raises(Refused):
        retry_until_accepted(clock, NOT_YET, look=look_again)

    assert clock.now == pytest.approx(began, abs=0.1)


# Creations


def test_an_account_that_a_failed_creation_left_behind_is_waited_for(clock: Clock) -> None:
    """This task has created the account, so the plan is not outdated."""
    azure = Azure({NAME_CHECK: Several(FREE, TAKEN), ACCOUNT: DONE, POLL: Several(NOT_YET, True)})
    accounts = client(azure)

    accounts.create(GROUP, NAME, BODY, evidence=evidence())

    assert azure.methods == ["PUT"]
    confirmed = accounts.confirmed(GROUP, NAME)
    assert confirmed is not None
    assert confirmed.key == evidence().key
    assert accounts.read(to_create(leaves_key=True))["created_in"] == "westeurope"


def test_a_refused_creation_is_tried_again(clock: Clock) -> None:
    azure = Azure({PUT: Several(NOT_YET, None)})

    client(azure).create(GROUP, NAME, BODY, evidence=evidence())

    assert azure.methods == ["PUT", "PUT"]


def test_a_creation_whose_key_was_disabled_meanwhile_is_not_tried_again(clock: Clock) -> None:
    azure = Azure({PUT: NOT_YET, refs.key(evidence().key): key(enabled=False)})

    with pytest.raises(Refused) as refused:
        client(azure).create(GROUP, NAME, BODY, evidence=evidence())

    assert refused.value.facts["failed_checks"] == ["key_enabled"]
    assert azure.methods == ["PUT"]


@pytest.mark.parametrize("shown", [None, DONE], ids=["at the next look", "at once"])
def test_an_account_that_appears_while_a_creation_is_refused_is_not_this_tasks(
    clock: Clock, shown: dict[str, Any] | None
) -> None:
    azure = Azure({NAME_CHECK: Several(FREE, TAKEN), ACCOUNT: Several(shown, DONE), PUT: Several(NOT_YET, None)})
    accounts = client(azure)

    with pytest.raises(PlanOutdated):
        accounts.create(GROUP, NAME, BODY, evidence=evidence())

    assert azure.methods == ["PUT"]
    assert accounts.read(to_create(leaves_key=True))["created_in"] is None


def test_a_creation_that_is_refused_because_the_account_exists_is_planned_again(clock: Clock) -> None:
    azure = Azure({ACCOUNT: DONE, PUT: Rejected("Elsewhere.", azure={"code": "InvalidResourceLocation"})})

    with pytest.raises(PlanOutdated):
        client(azure).create(GROUP, NAME, BODY)


@pytest.mark.parametrize(
    ("error", "reads", "created_in"),
    [
        (INVALID, None, None),
        (INVALID, DENIED, None),
        (DENIED, DONE, None),
        (NotFound("There is no such group."), None, None),
        (Unavailable("The response was lost."), None, "westeurope"),
        (KeyboardInterrupt(), None, "westeurope"),
    ],
)
def test_a_failed_request_may_have_created_the_account(
    clock: Clock, error: BaseException, reads: Any, created_in: str | None
) -> None:
    azure = Azure({ACCOUNT: reads, PUT: error})
    accounts = client(azure)

    with pytest.raises(type(error)):
        accounts.create(GROUP, NAME, BODY)

    azure[ACCOUNT] = DONE
    assert accounts.read(to_create(leaves_key=True))["created_in"] == created_in
