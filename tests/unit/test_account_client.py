# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When the client of Batch accounts waits, writes and retries."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from clocks import Clock, clock_of
from documents import account

from ansible_collections.azbatch.cmk.plugins.module_utils._azure import creation as creation_module
from ansible_collections.azbatch.cmk.plugins.module_utils._azure import session as session_module
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.cache import Cache
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.gateway import Answer
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.journal import Journal
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.resources import Resources
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_store import RunFiles
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.session import Session
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.visible import HandledAccounts
from ansible_collections.azbatch.cmk.plugins.module_utils._core import interrupts
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
from ansible_collections.azbatch.cmk.plugins.module_utils._core.interrupts import Interrupted
from ansible_collections.azbatch.cmk.plugins.module_utils._core.plan import SentWrites
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.account import client as accounts_module
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.account.client import Accounts

pytest.importorskip("azure.core")

GROUP, NAME = "rg-batch", "mybatch"
MAY_LIST_POOLS = [{"actions": ["Microsoft.Batch/batchAccounts/pools/read"], "notActions": []}]
MAY_READ_ACCOUNTS = [{"actions": ["Microsoft.Batch/batchAccounts/read"], "notActions": []}]
DENIED = Denied("You may not list them.", azure={"code": "AuthorizationFailed", "message": "You may not list them."})
BODY = {"location": "westeurope"}


class Azure:
    """The responses of Azure: the items of each list one after the other, and then always the last item. Errors are
    raised."""

    def __init__(
        self,
        *,
        reads: tuple[Any, ...] = (None,),
        listed: tuple[Any, ...] = ([],),
        free: tuple[Any, ...] = ({},),
        permissions: Any = (),
        pools: tuple[Any, ...] = (None,),
    ) -> None:
        self._answers = {"read": list(reads), "listed": list(listed), "free": list(free), "pools": list(pools)}
        self._permissions = permissions
        self.asked: list[str] = []
        self.written: list[str] = []
        self.journal = Journal(RunFiles(None), SentWrites())
        # The error with which Azure refuses the first write, and the error after Azure has accepted the first write.
        self.refuses_first: BaseException | None = None
        self.fails_first: CmkError | None = None

    def given(self, kind: str) -> Any:
        self.asked.append(kind)
        answers = self._answers[kind]
        given = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(given, CmkError):
            raise given
        return given

    # The methods of gateway.Gateway.
    def answer(self, _what: str, _ref: str) -> Answer:
        return Answer(self.given("read"))

    def list(self, _what: str, ref: str) -> Any:
        if not ref.endswith("/permissions"):
            return self.given("listed")
        if isinstance(self._permissions, CmkError):
            raise self._permissions
        return self._permissions

    def get(self, _what: str, ref: str) -> Any:
        if ref.endswith("/pools"):
            return self.given("pools")
        self.asked.append("regions")
        return {"resourceTypes": []}

    def ask(self, _what: str, _ref: str, _body: Any) -> Any:
        return self.given("free")

    def write(self, _what: str, method: str, ref: str, body: Any, *, if_late: Any = None, undoes: bool = False) -> None:
        with self.journal.writing(method, ref, body, undoes=undoes):
            self.written.append({"PUT": "create", "PATCH": "update"}[method])
            refusal, self.refuses_first = self.refuses_first, None
            if refusal:
                raise refusal

    begin = write

    def finish(self, _what: str, _poller: Any) -> bool:
        failure, self.fails_first = self.fails_first, None
        if failure:
            raise failure
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = clock_of(session_module, monkeypatch)
    monkeypatch.setattr(accounts_module, "time", clock)
    monkeypatch.setattr(creation_module, "time", clock)
    return clock


@pytest.fixture
def client(clock: Clock) -> Callable[[Azure], Accounts]:
    def make(azure: Azure) -> Accounts:
        session = Session({"wait_timeout": 60})
        session.__dict__.update(subscription_id="subscription", fingerprint="me")
        session.journal = azure.journal
        others: Any = None
        gateway: Any = azure
        resources = Resources(session, gateway)
        return Accounts(session, gateway, resources, others, others, HandledAccounts(RunFiles(None)))

    return make


Make = Callable[[Azure], Accounts]
FREE, TAKEN = {"nameAvailable": True}, {"nameAvailable": False, "reason": "AlreadyExists"}


def state(provisioning_state: str) -> dict[str, Any]:
    document = account(NAME)
    document["properties"]["provisioningState"] = provisioning_state
    return document


DONE, CREATING, DELETING = state("Succeeded"), state("Creating"), state("Deleting")


def test_an_account_with_an_available_name_is_created(client: Make) -> None:
    azure = Azure(free=(FREE,))
    client(azure).create(GROUP, NAME, BODY)

    assert azure.written == ["create"]


def test_an_account_that_appears_is_not_replaced(client: Make) -> None:
    azure = Azure(free=(TAKEN,), reads=(None, None, DONE))
    with pytest.raises(PlanOutdated, match=NAME):
        client(azure).create(GROUP, NAME, BODY)

    assert azure.written == []


def test_a_taken_name_is_refused_after_the_timeout(client: Make, clock: Clock) -> None:
    azure = Azure(free=(TAKEN,))
    began = clock.now

    with pytest.raises(Refused) as failed:
        client(azure).create(GROUP, NAME, BODY)

    assert failed.value.code == "account_name_taken"
    assert clock.now - began == pytest.approx(60)
    assert azure.written == []


def to_create(**others: Any) -> Any:
    """The goal of a creation, with a key whose evidence is not read in these tests."""
    given = {"present": True, "leaves_key": False, "location": "westeurope", "key": "a key", "identity_id": "id"}
    return SimpleNamespace(group=GROUP, name=NAME, **{**given, **others})


def test_before_a_creation_an_account_that_is_listed_is_waited_for(client: Make) -> None:
    azure = Azure(reads=(None, None, DONE), listed=([account(NAME.upper())],))

    observed = client(azure).read(to_create())
    shown = {"account": DONE, "regions": None, "confirmed": None, "created_in": None}
    assert observed == {**shown, "creation_failed": False}


@pytest.mark.parametrize(
    ("pools", "creation_failed"),
    [
        pytest.param(None, False, id="pools are listed"),
        pytest.param(Rejected("Batch refuses.", azure={"code": "AccountCreationFailed"}), True, id="Batch refuses"),
        pytest.param(DENIED, False, id="the caller may not list them"),
    ],
)
def test_the_state_failed_alone_does_not_show_that_the_creation_failed(
    client: Make, pools: CmkError | None, creation_failed: bool
) -> None:
    azure = Azure(reads=(state("Failed"),), pools=(pools,))

    assert client(azure).read(to_create(key=None))["creation_failed"] is creation_failed


@pytest.mark.parametrize("others", [{"present": False}, {"leaves_key": True}], ids=["deletion", "rollback"])
def test_lists_are_not_read_if_nothing_is_created(client: Make, others: dict[str, Any]) -> None:
    azure = Azure(listed=([account(NAME)],))

    assert client(azure).read(to_create(**others))["account"] is None
    assert azure.asked == ["read"]


@pytest.mark.parametrize("under_way", [CREATING, DELETING])
def test_a_running_operation_is_waited_for(client: Make, under_way: dict[str, Any]) -> None:
    azure = Azure(reads=(under_way, under_way, DONE))

    assert client(azure).settled(GROUP, NAME) == DONE
    assert azure.asked == ["read"] * 3


def test_an_endless_operation_fails_and_names_wait_timeout(client: Make, clock: Clock) -> None:
    began = clock.now

    with pytest.raises(TimedOut) as failed:
        client(Azure(reads=(CREATING,))).settled(GROUP, NAME)

    assert clock.now - began == pytest.approx(60)
    assert (failed.value.facts["option"], failed.value.facts["value"]) == ("wait_timeout", 60)


def look(accounts: Accounts) -> dict[str, Any] | None:
    return accounts.existing(GROUP, NAME)


def test_a_listed_account_exists_although_a_read_misses_it(client: Make) -> None:
    azure = Azure(reads=(None, None, DONE), listed=([account(NAME.upper())],))

    assert look(client(azure)) == DONE


def test_an_account_that_is_not_listed_does_not_exist(client: Make) -> None:
    assert look(client(Azure(listed=([account("another")],)))) is None


def test_without_the_right_to_list_accounts_a_read_decides(client: Make) -> None:
    assert look(client(Azure(listed=(DENIED,)))) is None


@pytest.mark.parametrize("code", ["resource_group_not_found", "subscription_not_found"])
def test_a_missing_group_or_subscription_is_an_error(client: Make, code: str) -> None:
    accounts = client(Azure(reads=(NotFound("There is none.", code=code),)))

    with pytest.raises(NotFound) as missing:
        look(accounts)
    assert missing.value.code == code


@pytest.mark.parametrize(("shown", "waits"), [("Creating", 60), ("Deleting", 0)])
def test_an_account_that_is_being_created_or_deleted_is_refused(
    client: Make, clock: Clock, shown: str, waits: int
) -> None:
    """A read may be out of date and show a creation that has finished."""
    began = clock.now

    with pytest.raises(Refused) as refused:
        look(client(Azure(reads=(state(shown),))))
    assert refused.value.code == "account_under_way"
    assert clock.now - began == pytest.approx(waits)


def test_an_account_whose_creation_has_finished_is_shown_later(client: Make) -> None:
    assert look(client(Azure(reads=(CREATING, CREATING, DONE)))) == DONE


@pytest.mark.parametrize(
    ("permissions", "asked"),
    [
        pytest.param(MAY_LIST_POOLS, [], id="may list pools"),
        pytest.param(MAY_READ_ACCOUNTS, ["pools"], id="may read accounts alone"),
        pytest.param([], ["pools"], id="nothing"),
        pytest.param(DENIED, ["pools"], id="may not read permissions"),
    ],
)
def test_pools_are_listed_before_a_change_unless_permissions_allow_the_list(
    client: Make, permissions: Any, asked: list[str]
) -> None:
    azure = Azure(permissions=permissions, pools=(DENIED,))

    refused = client(azure).unavailable_reason_before_change(GROUP, NAME)

    assert azure.asked == asked
    assert (refused is DENIED) is bool(asked)


def retry_until_accepted(accounts: Accounts, clock: Clock, *answers: CmkError | None, look: Any = lambda: None) -> int:
    """The number of writes."""
    left, writes = list(answers), 0

    def write() -> None:
        nonlocal writes
        writes += 1
        answer = left.pop(0) if len(left) > 1 else left[0]
        if answer is not None:
            raise answer

    accounts.retry_until_accepted(write, clock.now + 60, "Batch to accept the key", look)
    return writes


NOT_YET = Rejected(
    "The key is not accessible.", azure={"code": "KeyVaultAccessDenied", "message": "The key is not accessible."}
)


def test_a_key_change_is_retried_until_batch_accepts_it(client: Make, clock: Clock) -> None:
    assert retry_until_accepted(client(Azure()), clock, NOT_YET, NOT_YET, None) == 3


def test_a_key_that_is_refused_to_the_end_is_a_failure(client: Make, clock: Clock) -> None:
    began = clock.now

    with pytest.raises(Rejected) as failed:
        retry_until_accepted(client(Azure()), clock, NOT_YET)

    assert failed.value is NOT_YET
    assert clock.now - began == pytest.approx(60)


def test_a_permanently_invalid_request_is_not_retried(client: Make, clock: Clock) -> None:
    began = clock.now

    with pytest.raises(Rejected):
        retry_until_accepted(
            client(Azure()), clock, Rejected("No.", azure={"code": "InvalidRequestBody", "message": "No."})
        )

    assert clock.now == began


KEYED = {"key": "of the account"}


def creating(azure: Azure, client: Make) -> Accounts:
    accounts, evidence = client(azure), SimpleNamespace()
    evidence.require_usable, evidence.with_access_now = lambda _evidence: None, lambda *_given, **_options: {}
    accounts._evidence = evidence  # type: ignore[assignment]
    return accounts


def test_an_account_that_a_failed_creation_left_behind_is_waited_for(client: Make, clock: Clock) -> None:
    """This task has created the account, so the plan is not outdated."""
    azure = Azure(free=(FREE, TAKEN), reads=(None, DONE))
    azure.fails_first = NOT_YET
    accounts = creating(azure, client)

    accounts.create(GROUP, NAME, BODY, evidence=KEYED)  # type: ignore[arg-type]

    assert azure.written == ["create"]
    assert accounts.confirmed(GROUP, NAME) == {}
    assert accounts.read(to_create(leaves_key=True))["created_in"] == "westeurope"


def test_a_refused_creation_is_tried_again(client: Make, clock: Clock) -> None:
    azure = Azure(free=(FREE,), reads=(None,))
    azure.refuses_first = NOT_YET

    creating(azure, client).create(GROUP, NAME, BODY, evidence=KEYED)  # type: ignore[arg-type]

    assert azure.written == ["create", "create"]


@pytest.mark.parametrize("shown", [None, DONE], ids=["at the next look", "at once"])
def test_an_account_that_appears_while_a_creation_is_refused_is_not_this_tasks(
    client: Make, clock: Clock, shown: dict[str, Any] | None
) -> None:
    azure = Azure(free=(FREE, TAKEN), reads=(shown, DONE))
    azure.refuses_first = NOT_YET
    accounts = creating(azure, client)

    with pytest.raises(PlanOutdated):
        accounts.create(GROUP, NAME, BODY, evidence=KEYED)  # type: ignore[arg-type]

    assert azure.written == ["create"]
    assert accounts.read(to_create(leaves_key=True))["created_in"] is None


def test_a_creation_that_is_refused_because_the_account_exists_is_planned_again(client: Make) -> None:
    azure = Azure(free=(FREE,), reads=(DONE,))
    azure.refuses_first = Rejected("Elsewhere.", azure={"code": "InvalidResourceLocation"})

    with pytest.raises(PlanOutdated):
        client(azure).create(GROUP, NAME, BODY)


@pytest.mark.parametrize(
    ("error", "reads", "created_in"),
    [
        (Rejected("No.", azure={"code": "InvalidRequestBody"}), None, None),
        (Rejected("No.", azure={"code": "InvalidRequestBody"}), DENIED, None),
        (DENIED, DONE, None),
        (NotFound("There is no such group."), None, None),
        (Unavailable("The response was lost."), None, "westeurope"),
        (KeyboardInterrupt(), None, "westeurope"),
    ],
)
def test_a_failed_request_may_have_created_the_account(
    client: Make, error: BaseException, reads: Any, created_in: str | None
) -> None:
    azure = Azure(free=(FREE,), reads=(reads,))
    azure.refuses_first = error
    accounts = client(azure)

    with pytest.raises(type(error)):
        accounts.create(GROUP, NAME, BODY)

    azure.refuses_first, azure._answers["read"] = None, [DONE]
    goal = SimpleNamespace(group=GROUP, name=NAME, leaves_key=True, present=True)
    assert accounts.read(goal)["created_in"] == created_in


def test_a_key_that_turns_out_to_be_unusable_is_not_waited_for(client: Make, clock: Clock) -> None:
    began = clock.now

    def look_again() -> None:
        raise Refused("Access was revoked.")

    with pytest.raises(Refused):
        retry_until_accepted(client(Azure()), clock, NOT_YET, look=look_again)

    assert clock.now == began


def test_reads_before_a_change_are_not_used_after_it(client: Make) -> None:
    azure = Azure(reads=(CREATING, DONE))
    accounts = client(azure)

    assert accounts.get(GROUP, NAME) == CREATING
    assert accounts.get(GROUP, NAME) == CREATING
    accounts.update(GROUP, NAME, {"properties": {}})
    assert accounts.get(GROUP, NAME) == DONE


def test_an_interrupt_is_raised_after_the_cache_is_cleared(client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a rollback would read the cached account from before the change, and write nothing."""
    accounts = client(Azure(reads=(CREATING, DONE)))
    accounts.get(GROUP, NAME)
    forget = Cache.forget

    def interrupted(cache: Cache, *kinds: str) -> None:
        signal.raise_signal(signal.SIGTERM)
        forget(cache, *kinds)

    monkeypatch.setattr(Cache, "forget", interrupted)
    with pytest.raises(Interrupted), interrupts.raised():
        accounts.update(GROUP, NAME, {"properties": {}})

    assert accounts.get(GROUP, NAME) == DONE


def test_an_interrupt_is_raised_after_the_cached_vault_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session({"wait_timeout": 60})
    session.__dict__.update(fingerprint="me")
    session.cache.get(lambda: "before", "vault", "v")
    forget = Cache.forget

    def interrupted(cache: Cache, *kinds: str) -> None:
        signal.raise_signal(signal.SIGTERM)
        forget(cache, *kinds)

    monkeypatch.setattr(Cache, "forget", interrupted)
    with pytest.raises(Interrupted), interrupts.raised(), session.changing("vault"):
        pass

    assert session.cache.get(lambda: "after", "vault", "v") == "after"


def test_accounts_of_one_name_in_two_subscriptions_are_two(client: Make, tmp_path: Path) -> None:
    """Names of accounts are unique only within a region, and the tasks of a run share their reads."""
    azure = Azure(reads=(DONE, None))
    first, second = client(azure), client(azure)
    for accounts, subscription in ((first, "one"), (second, "two")):
        session = accounts._session
        session.__dict__.update(subscription_id=subscription, files=RunFiles(str(tmp_path)))
        session.cache = Cache(session.files, lambda: "me")

    assert look(first) == DONE
    assert look(second) is None
