# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An existing resource is not replaced: checks of the list and of the name, and access of accounts to a new vault."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
from documents import NEEDED, OTHER, PRINCIPAL, account, policy, system_assigned, vault, visible

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.cache import Cache
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.creation import require_missing, until_shown
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.gateway import Operation
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.journal import Journal
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_store import RunFiles
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.sdk import is_free
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import (
    CmkError,
    Denied,
    PlanOutdated,
    Refused,
    Rejected,
    TimedOut,
    Unavailable,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._core.plan import SentWrites
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.access.client import Access
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.vault.client import Vaults

TAKEN = Refused("Taken.", code="vault_name_taken")


class Session:
    """Counts waits instead of sleeping: each retry counts as one second."""

    subscription_id = "subscription"

    def __init__(self, wait_timeout: int = 600) -> None:
        self.wait_timeout = wait_timeout
        self.asked = 0
        self.waited = 0.0
        self.cache = Cache(RunFiles(None), lambda: "me")
        self.journal = Journal(RunFiles(None), SentWrites())
        self.predicts = False
        self.warnings: list[str] = []

    def poll_until(self, ask: Callable[[], CmkError | None], deadline: float, _waiting_for: str) -> CmkError | None:
        import time

        left = round(deadline - time.monotonic())
        while (complaint := ask()) is not None:
            self.asked += 1
            if self.asked > left:
                return complaint
        return None

    def changing(self, *_what: str) -> Any:
        return nullcontext()


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
def test_a_resource_that_exists_by_now_is_not_created(free: list[Any], shown: list[Any], exists: bool) -> None:
    with pytest.raises(PlanOutdated, match="vault v was created by somebody else") if exists else nullcontext():
        require_missing(Session(), "vault v", TAKEN, is_free=returning(*free), is_shown=returning(*shown))


def test_a_taken_name_is_refused_after_a_wait() -> None:
    session = Session()
    with pytest.raises(Refused) as refused:
        require_missing(session, "vault v", TAKEN, is_free=returning(False), is_shown=returning(False))

    assert refused.value is TAKEN
    assert 50 < session.asked < 70


def test_no_longer_than_the_task_may_wait() -> None:
    session = Session(wait_timeout=3)
    with pytest.raises(Refused):
        require_missing(session, "vault v", TAKEN, is_free=returning(False), is_shown=returning(False))

    assert session.asked <= 4


@pytest.mark.parametrize("error", [Unavailable("Busy."), Rejected("No.", azure={})])
def test_a_name_that_cannot_be_checked_is_not_used(error: CmkError) -> None:
    with pytest.raises(type(error)):
        require_missing(Session(), "vault v", TAKEN, is_free=returning(error), is_shown=returning(False))


@pytest.mark.parametrize("is_check", [True, False], ids=["check", "apply"])
def test_check_mode_says_that_a_name_may_be_taken(is_check: bool) -> None:
    """The caller may not check names, so a check does not know whether the run will be refused."""
    session = Session()
    session.predicts = is_check
    for denied in (True, False):
        session.warnings.clear()
        free = returning(Denied("Not allowed.") if denied else True)
        require_missing(session, "vault v", TAKEN, is_free=free, is_shown=returning(False))

        warned = ["the name of the vault v" in one and "Not allowed." in one for one in session.warnings]
        assert warned == ([True] if is_check and denied else [])


def test_a_listed_resource_is_waited_for() -> None:
    session = Session()
    until_shown(session, "vault v", is_shown=returning(False, False, True), is_listed=returning(True))
    assert session.asked == 2

    until_shown(session, "vault v", is_shown=returning(False), is_listed=returning(True, False))

    with pytest.raises(TimedOut) as failed:
        until_shown(Session(5), "vault v", is_shown=returning(False), is_listed=returning(True))
    assert failed.value.facts["option"] == "wait_timeout"


# A vault that is created by another task or user at the same time

ON_KEY = "https://MYVAULT.vault.azure.net/keys/batch"


class Azure:
    """The service for vaults, with Key Vault and Batch accounts in memory."""

    def __init__(self, document: dict[str, Any], *accounts: dict[str, Any], is_free: bool = True) -> None:
        self.document = document
        self.writes: list[str] = []
        self.fails: BaseException | None = None
        # Whether the run has noted that the vault is new.
        self.is_noted = False
        # The times in the response to the creation.
        self.times = {"createdAt": "2026-06-01T10:00:00.123Z", "lastModifiedAt": "2026-06-01T10:00:07.456Z"}
        everything: Any = self
        self.service = Vaults(Session(1), everything, everything, everything, everything, everything)
        self._accounts = accounts
        self._is_free = is_free

    # The methods of gateway.Gateway.

    def begin(self, _what: str, _method: str, ref: str, *_request: Any, if_late: Any = None) -> Operation:
        self.writes.append("put")
        if self.fails:
            raise self.fails
        return Operation(ref, {**self.document, "systemData": self.times})

    def finish(self, _what: str, _operation: Operation) -> bool:
        return True

    steps_to_grant = Access.steps_to_grant

    def create(self, **properties: Any) -> None:
        self.service.create("rg-keys", "myvault", {"location": "westeurope", "properties": properties})

    # Reads of other services: vaults, visible accounts, and access.

    def is_name_free(self, _name: str) -> bool:
        return self._is_free

    def note_creation(self, _name: str) -> None:
        self.is_noted = True

    def get(self, _group: str, _name: str) -> dict[str, Any]:
        return self.document

    def everywhere(self) -> dict[str, Any]:
        return visible(*self._accounts)

    def read(self, goal: Any) -> dict[str, Any]:
        return {"vault": self.document, "principal_id": goal.principal_id, "assignments": [], "definitions": {}}

    def set_policy(self, vault_id: str, operation: str, entry: dict[str, Any]) -> None:
        self.writes.append(f"{operation} {entry['objectId']}")
        self.document["properties"]["accessPolicies"].append(entry)

    def assign(self, scope: str, name: str, role: str, principal: str) -> None:
        self.writes.append(f"assign {scope.rpartition('/vaults/')[2]} {principal}")


USER = account("user", key=ON_KEY, identity=system_assigned(PRINCIPAL))
ELSEWHERE = account("elsewhere", key="https://other.vault.azure.net/keys/batch", identity=system_assigned(OTHER))
ON_NONE = account("none", identity=system_assigned(OTHER))


def after(azure: Azure) -> dict[str, Any]:
    class Goal:
        group, name, created, present = "rg-keys", "myvault", True, True

    return azure.service.read(Goal)


def test_accounts_on_a_new_vault_get_access() -> None:
    azure = Azure(vault(), USER, ELSEWHERE, ON_NONE)

    azure.create()

    assert azure.writes == ["put", f"add {PRINCIPAL}"]
    assert azure.document["properties"]["accessPolicies"][0]["permissions"]["keys"] == NEEDED
    assert (after(azure)["restored"], after(azure)["without_access"]) == ([USER["id"]], [])
    azure.document["properties"]["accessPolicies"].clear()
    assert after(azure)["without_access"] == [USER["id"]]


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

    azure.create()

    assert azure.writes == ["put", f"add {PRINCIPAL}"][: 1 + restored]
    assert azure.is_noted is not bool(restored)


def test_vault_names_are_case_insensitive() -> None:
    azure = Azure(vault(), USER)

    azure.service.create("rg-keys", "MyVault", {"location": "westeurope", "properties": {}})

    assert azure.writes == ["put", f"add {PRINCIPAL}"]


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
    assert is_free(said) is free


def test_accounts_on_a_new_vault_that_uses_roles_get_a_role() -> None:
    azure = Azure(vault(rbac=True), USER)

    azure.create()

    assert azure.writes == ["put", f"assign myvault/keys/batch {PRINCIPAL}"]


@pytest.mark.parametrize("accounts", [(USER,), (ELSEWHERE, ON_NONE), ()], ids=["has access", "elsewhere", "none"])
def test_existing_access_is_not_granted_again(accounts: tuple[Any, ...]) -> None:
    azure = Azure(vault(policy(PRINCIPAL)), *accounts)

    azure.create()

    assert azure.writes == ["put"]
    assert after(azure)["restored"] == []


@pytest.mark.parametrize("failure", [Unavailable("The response was lost."), KeyboardInterrupt(), KeyError("x")])
def test_access_is_restored_whatever_ends_the_creation(failure: BaseException) -> None:
    azure = Azure(vault(), USER)
    azure.fails = failure

    with pytest.raises(type(failure)):
        azure.create()

    assert azure.writes == ["put", f"add {PRINCIPAL}"]


def test_a_vault_that_exists_now_is_not_changed() -> None:
    azure = Azure(vault(), USER, is_free=False)

    with pytest.raises(PlanOutdated):
        azure.create()

    assert azure.writes == []


def test_a_deleted_vault_has_its_name_and_is_recovered() -> None:
    azure = Azure(vault(), USER, is_free=False)

    azure.create(createMode="recover")

    assert azure.writes == ["put"]
