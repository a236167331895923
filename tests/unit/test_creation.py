# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An existing resource is not replaced: checks of the list and of the name, and access of accounts to a new vault."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
from azure_table import Several, Table, TableGateway, task_of
from clocks import Clock, clock_of
from documents import (
    KEY,
    NEEDED,
    OTHER,
    PRINCIPAL,
    SUBSCRIPTION,
    VAULT_ID,
    account,
    policy,
    system_assigned,
    vault,
)

from ansible_collections.azbatch.cmk.plugins.module_utils._azure import creation as creation_module
from ansible_collections.azbatch.cmk.plugins.module_utils._azure import driver as driver_module
from ansible_collections.azbatch.cmk.plugins.module_utils._azure import journal as journal_module
from ansible_collections.azbatch.cmk.plugins.module_utils._azure import rate_limit as rate_limit_module
from ansible_collections.azbatch.cmk.plugins.module_utils._azure import session as session_module
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.creation import (
    is_name_free,
    require_missing,
    until_shown,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.gateway import Operation
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import (
    CmkError,
    Denied,
    PlanOutdated,
    Refused,
    Rejected,
    TimedOut,
    Unavailable,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.access.client import Access
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.vault.client import Vaults
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.visible import HandledAccounts, VisibleAccounts

TAKEN = Refused("Taken.", code="vault_name_taken")
VAULT, VAULTS = refs.vault(VAULT_ID), refs.vaults_of(SUBSCRIPTION, "rg-keys")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = clock_of(session_module, monkeypatch, tick=0.001)
    for module in (creation_module, driver_module, journal_module, rate_limit_module):
        monkeypatch.setattr(module, "time", clock)
    return clock


def returning(*values: Any) -> Callable[[], Any]:
    """A function that returns the values one after the other, and then always the last value. Errors are raised."""
    left = list(values)

    def give() -> Any:
        value = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(value, Exception):
            raise value
        return value

    return give


@pytest.mark.parametrize(
    ("free", "shown", "exists"),
    [
        pytest.param([True], [False], False, id="free"),
        pytest.param([False], [True], True, id="shown at once"),
        pytest.param([False], [False, False, True], True, id="shown in the end"),
        pytest.param([False, True], [False], False, id="free in the end"),
        pytest.param([Denied("You may not ask.")], [False], False, id="may not ask"),
        pytest.param([Denied("You may not ask.")], [True], True, id="may not ask, and shown"),
        pytest.param([Unavailable("Busy."), True], [False], False, id="busy once"),
    ],
)
def test_a_resource_that_exists_by_now_is_not_created(
    clock: Clock, free: list[Any], shown: list[Any], exists: bool
) -> None:
    session = task_of(Table()).session
    with pytest.raises(PlanOutdated, match="vault v was created by somebody else") if exists else nullcontext():
        require_missing(session, "vault v", TAKEN, is_free=returning(*free), is_shown=returning(*shown))


@pytest.mark.parametrize(("wait_timeout", "waits"), [(600, 60), (3, 3)])
def test_a_taken_name_is_refused_after_a_wait(clock: Clock, wait_timeout: int, waits: int) -> None:
    session, began = task_of(Table(), wait_timeout=wait_timeout).session, clock.now
    with pytest.raises(Refused) as refused:
        require_missing(session, "vault v", TAKEN, is_free=returning(False), is_shown=returning(False))

    assert refused.value is TAKEN
    assert clock.now - began == pytest.approx(waits, abs=0.1)


@pytest.mark.parametrize("error", [Unavailable("Busy."), Rejected("No.", azure={})])
def test_a_name_that_cannot_be_checked_is_not_used(clock: Clock, error: CmkError) -> None:
    session = task_of(Table()).session
    with pytest.raises(type(error)):
        require_missing(session, "vault v", TAKEN, is_free=returning(error), is_shown=returning(False))


@pytest.mark.parametrize("is_check", [True, False], ids=["check", "apply"])
@pytest.mark.parametrize("is_denied", [True, False])
def test_check_mode_says_that_a_name_may_be_taken(clock: Clock, is_check: bool, is_denied: bool) -> None:
    """The caller may not check names, so a check does not know whether the run will be refused."""
    session = task_of(Table(), predicts=is_check).session
    free = returning(Denied("Not allowed.") if is_denied else True)
    require_missing(session, "vault v", TAKEN, is_free=free, is_shown=returning(False))

    warned = ["the name of the vault v" in one and "Not allowed." in one for one in session.warnings]
    assert warned == ([True] if is_check and is_denied else [])


@pytest.mark.parametrize(
    ("shown", "listed", "is_shown"),
    [
        pytest.param(Several(None, None, vault()), [vault()], True, id="shown in the end"),
        pytest.param(None, Several([vault()], [vault()], []), False, id="listed no more"),
    ],
)
def test_a_listed_resource_is_waited_for(clock: Clock, shown: Any, listed: Any, is_shown: bool) -> None:
    """Each look reads from Azure."""
    table = Table({VAULT: shown, VAULTS: listed})
    session, driver, _gateway = task_of(table)
    driver.get(VAULTS)

    until_shown(
        session,
        driver,
        "vault v",
        is_shown=lambda: driver.get(VAULT) is not None,
        is_listed=lambda: bool(driver.get(VAULTS)),
    )

    assert table.reads_of(VAULT) == (3 if is_shown else 2)


def test_a_listed_resource_that_no_read_shows_is_not_created_a_second_time(clock: Clock) -> None:
    session, driver, _gateway = task_of(Table(), wait_timeout=5)
    with pytest.raises(TimedOut) as failed:
        until_shown(session, driver, "vault v", is_shown=returning(False), is_listed=returning(True))
    assert failed.value.facts["option"] == "wait_timeout"


PROVIDER, VAULT_TYPE = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.KeyVault", "Microsoft.KeyVault/vaults"
NAME = refs.name_check(PROVIDER, VAULT_TYPE, "myvault")


@pytest.mark.parametrize(
    ("said", "free"),
    [
        ({"nameAvailable": True}, True),
        ({"nameAvailable": False, "reason": "AlreadyExists"}, False),
        # An invalid name counts as available: the creation reports the reason.
        ({"nameAvailable": False, "reason": "Invalid"}, True),
    ],
)
def test_availability_of_a_name(said: dict[str, Any], free: bool) -> None:
    assert is_name_free(task_of(Table({NAME: said})).driver, PROVIDER, VAULT_TYPE, "myvault") is free


def test_a_name_is_checked_each_time(clock: Clock) -> None:
    """Another task or user may take the name."""
    table = Table({NAME: Several({"nameAvailable": True}, {"nameAvailable": False, "reason": "AlreadyExists"})})
    driver = task_of(table).driver

    assert [is_name_free(driver, PROVIDER, VAULT_TYPE, "myvault") for _time in range(2)] == [True, False]


# A vault that is created by another task or user at the same time

READS_ACCOUNTS = {"actions": ["Microsoft.Batch/batchAccounts/read"], "notActions": []}
USER = account("user", key=f"{KEY.replace('myvault', 'MYVAULT')}", identity=system_assigned(PRINCIPAL))
ELSEWHERE = account("elsewhere", key="https://other.vault.azure.net/keys/batch", identity=system_assigned(OTHER))
ON_NONE = account("none", identity=system_assigned(OTHER))


class Azure(Table):
    """Azure with Batch accounts. Each write takes effect. A creation leaves the vault as in `document`."""

    def __init__(self, document: dict[str, Any], *accounts: dict[str, Any], is_free: bool = True) -> None:
        super().__init__(
            {
                refs.accounts_of(SUBSCRIPTION): list(accounts),
                refs.permissions_at(f"/subscriptions/{SUBSCRIPTION}"): [READS_ACCOUNTS],
                NAME: {"nameAvailable": is_free, "reason": None if is_free else "AlreadyExists"},
            }
        )
        self.document = document
        # The times in the response to the creation. These show that the vault existed before.
        self.times = {"createdAt": "2026-06-01T10:00:00.123Z", "lastModifiedAt": "2026-06-01T10:00:07.456Z"}
        # The creation takes effect, but its response is lost.
        self.fails: BaseException | None = None

    @property
    def writes(self) -> list[str]:
        return [f"{method} {ref.removeprefix(VAULT_ID)}" for method, ref, _body in self.written]

    @property
    def policies(self) -> list[Any]:
        entries: list[Any] = self.document["properties"]["accessPolicies"]
        return entries

    def write(self, method: str, ref: str, body: Any) -> Any:
        super().write(method, ref, body)
        self[VAULT] = self.document
        if "/accessPolicies/" in ref:
            self.policies.extend(body["properties"]["accessPolicies"])
        elif "/roleAssignments/" not in ref and self.fails:
            raise self.fails
        return {**self.document, "systemData": self.times}


class LongRunning(TableGateway):
    """A long-running operation ends at once."""

    def begin(self, what: str, method: str, ref: str, body: Any = None, *, if_late: Any = None) -> Operation:
        return Operation(method, ref, self.write(what, method, ref, body))

    def finish(self, _what: str, _operation: Operation) -> bool:
        return True


class Task:
    """A task that creates the vault."""

    def __init__(self, azure: Azure) -> None:
        session, driver, _gateway = task_of(azure, wait_timeout=1)
        gateway: Any = LongRunning(azure, session)
        visible = VisibleAccounts(session, driver, HandledAccounts(session.files))
        self.service = Vaults(session, driver, gateway, visible, Access(session, driver, gateway, visible))

    def create(self, name: str = "myvault", **properties: Any) -> None:
        self.service.create("rg-keys", name, {"location": "westeurope", "properties": properties})

    def read(self) -> Any:
        class Goal:
            group, name, created, present = "rg-keys", "myvault", True, True

        return self.service.read(Goal)


@pytest.mark.parametrize("name", ["myvault", "MyVault"])
def test_accounts_on_a_new_vault_get_access(name: str) -> None:
    """The names of vaults are case-insensitive."""
    azure = Azure(vault(), USER, ELSEWHERE, ON_NONE)
    task = Task(azure)

    task.create(name)

    assert [one.lower() for one in azure.writes][1:] == ["put /accesspolicies/add"]
    [entry] = azure.policies
    assert (entry["objectId"], entry["permissions"]["keys"]) == (PRINCIPAL, NEEDED)
    assert (task.read()["restored"], task.read()["without_access"]) == ([USER["id"]], [])


def test_accounts_that_lost_their_access_again_are_reported() -> None:
    azure = Azure(vault(), USER)
    task = Task(azure)
    task.create()
    azure.policies.clear()
    task.service.forget()

    assert task.read()["without_access"] == [USER["id"]]


@pytest.mark.parametrize(
    ("times", "restored"),
    [
        pytest.param({"createdAt": "2026-06-01T10:00:07Z", "lastModifiedAt": "2026-06-01T10:00:07Z"}, 0, id="created"),
        pytest.param({"createdAt": "2026-06-01T10:00:00Z", "lastModifiedAt": "2026-06-01T10:00:07Z"}, 1, id="replaced"),
        pytest.param({}, 1, id="not known"),
    ],
)
def test_access_is_granted_again_unless_the_vault_is_new(times: dict[str, str], restored: int) -> None:
    azure = Azure(vault(), USER)
    azure.times = times

    Task(azure).create()

    assert azure.writes == ["PUT ", "PUT /accessPolicies/add"][: 1 + restored]


def test_accounts_on_a_new_vault_that_uses_roles_get_a_role() -> None:
    azure = Azure(vault(rbac=True), USER)

    Task(azure).create()

    _put, (_method, ref, body) = azure.written
    assert ref.startswith(f"{VAULT_ID}/keys/batch/providers/Microsoft.Authorization/roleAssignments/")
    assert body["properties"]["principalId"] == PRINCIPAL


@pytest.mark.parametrize("accounts", [(USER,), (ELSEWHERE, ON_NONE), ()], ids=["has access", "elsewhere", "none"])
def test_existing_access_is_not_granted_again(accounts: tuple[Any, ...]) -> None:
    azure = Azure(vault(policy(PRINCIPAL)), *accounts)
    task = Task(azure)

    task.create()

    assert azure.writes == ["PUT "]
    assert task.read()["restored"] == []


@pytest.mark.parametrize("failure", [Unavailable("The response was lost."), KeyboardInterrupt(), KeyError("x")])
def test_access_is_restored_whatever_ends_the_creation(failure: BaseException) -> None:
    azure = Azure(vault(), USER)
    azure.fails = failure

    with pytest.raises(type(failure)):
        Task(azure).create()

    assert azure.writes == ["PUT ", "PUT /accessPolicies/add"]


def test_a_vault_that_exists_now_is_not_changed() -> None:
    azure = Azure(vault(), USER, is_free=False)
    azure[VAULT] = azure.document

    with pytest.raises(PlanOutdated):
        Task(azure).create()

    assert azure.writes == []


def test_a_deleted_vault_has_its_name_and_is_recovered() -> None:
    azure = Azure(vault(), USER, is_free=False)

    Task(azure).create(createMode="recover")

    assert azure.writes == ["PUT "]
