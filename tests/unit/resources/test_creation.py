# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An existing resource is not replaced: checks of the list and of the name, requests that are repeated, and access of
accounts to a new vault."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from azure_table import Several, Table, Task, documents_of, executor_of, sender_of, task_of
from clocks import Clock, clock_of_all
from documents import (
    KEY,
    NEEDED,
    OTHER,
    PRINCIPAL,
    SUBSCRIPTION,
    TENANT,
    VAULT_ID,
    account,
    account_id,
    evidence,
    identity_id,
    key,
    policy,
    system_assigned,
    user_assigned,
    vault,
)
from goals import account_goal, options_of

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.facts import Facts
from ansible_collections.azbatch.cmk.plugins.module_utils._core.docs import Docs
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import (
    CmkError,
    Denied,
    NotConverged,
    PlanOutdated,
    Refused,
    Rejected,
    TimedOut,
    Unavailable,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import parse_user_assigned_id
from ansible_collections.azbatch.cmk.plugins.module_utils._core.outcome import Outcome
from ansible_collections.azbatch.cmk.plugins.module_utils._core.tasks import Change, Request
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs
from ansible_collections.azbatch.cmk.plugins.module_utils._documents.access import ENCRYPTION_USER
from ansible_collections.azbatch.cmk.plugins.module_utils._questions import creation
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.account.decide import AccountPresent
from ansible_collections.azbatch.cmk.plugins.modules import keyvault_cmk_vault

FREE, TAKEN = {"nameAvailable": True}, {"nameAvailable": False, "reason": "AlreadyExists"}
DENIED = Denied("You may not ask.", azure={"code": "AuthorizationFailed"})
BUSY = Unavailable("Busy.")
NOT_YET = Rejected(
    "The key is not accessible.", azure={"code": "KeyVaultAccessDenied", "message": "The key is not accessible."}
)
VAULT, VAULTS = refs.vault(VAULT_ID), refs.vaults_of(SUBSCRIPTION, "rg-keys")
VAULT_NAME = refs.name_check(
    f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.KeyVault", "Microsoft.KeyVault/vaults", "myvault"
)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return clock_of_all(monkeypatch)


# Whether a resource is still missing just before it is created

IS_TAKEN = Refused("Taken.", code="vault_name_taken")


def require_missing(table: Table, wait_timeout: int = 60) -> tuple[str, ...]:
    question = partial(
        creation.require_missing,
        resource="vault v",
        ref=VAULT,
        name=VAULT_NAME,
        taken=IS_TAKEN,
        wait_timeout=wait_timeout,
    )
    return task_of(table, wait_timeout=wait_timeout).driver.solve(question)


@pytest.mark.parametrize(
    ("name", "shown", "exists"),
    [
        # The creation reports the reason.
        pytest.param({"nameAvailable": False, "reason": "Invalid"}, None, False, id="invalid"),
        pytest.param(TAKEN, Several(None, None, vault()), True, id="shown in the end"),
        pytest.param(Several(TAKEN, FREE), None, False, id="free in the end"),
        pytest.param(DENIED, None, False, id="may not ask"),
        pytest.param(DENIED, vault(), True, id="may not ask, and shown"),
    ],
)
def test_a_resource_that_exists_by_now_is_not_created(clock: Clock, name: Any, shown: Any, exists: bool) -> None:
    with pytest.raises(PlanOutdated, match="created the vault v") if exists else nullcontext():
        warnings = require_missing(Table({VAULT_NAME: name, VAULT: shown}))

        assert ["the name of the vault v" in one and DENIED.msg in one for one in warnings] == [True] * (name is DENIED)


@pytest.mark.parametrize(("wait_timeout", "waits"), [(600, 60), (3, 3)])
def test_a_taken_name_is_refused_after_a_wait(clock: Clock, wait_timeout: int, waits: int) -> None:
    began = clock.now
    with pytest.raises(Refused) as refused:
        require_missing(Table({VAULT_NAME: TAKEN}), wait_timeout)

    assert refused.value is IS_TAKEN
    assert clock.now - began == pytest.approx(waits, abs=0.1)


def test_a_name_that_cannot_be_checked_is_not_used(clock: Clock) -> None:
    with pytest.raises(Unavailable):
        require_missing(Table({VAULT_NAME: BUSY}))


class Asking(Change):
    """A change of one request, which notes what it is asked. `warnings` are those of the request in check mode."""

    asked: list[str]

    def __init__(self, request: Request, warnings: Sequence[str] = ()) -> None:
        super().__init__({}, {}, (request,))
        vars(self).update(asked=[], said=warnings)

    def wanted(self, docs: Docs, request: Request) -> Sequence[str]:
        self.asked.append("wanted")
        said: Sequence[str] = vars(self)["said"]
        return said

    def will_end(self, docs: Docs, request: Request, refusal: CmkError) -> None:
        self.asked.append("will end")

    def shown(self, docs: Docs, request: Request) -> None:
        self.asked.append("shown")


@pytest.mark.parametrize("is_check", [True, False], ids=["check", "apply"])
def test_only_check_mode_says_that_a_name_may_be_taken(is_check: bool) -> None:
    """The caller may not check names, so a check does not know whether the run will be refused."""
    task = task_of(Table(), predicts=is_check)
    request = Request("create", "create it", "PUT", VAULT_ID, wanted_first=True)

    sender_of(task).send(Asking(request, ["It may be taken."]), [])

    assert list(task.session.warnings) == ["It may be taken."] * is_check


# What Azure shows after a request


@pytest.mark.parametrize(("ended", "waits"), [(False, 1), (True, 0)])
def test_a_new_resource_that_azure_does_not_show_yet_is_waited_for(ended: bool, waits: int) -> None:
    change = Asking(Request("create", "create it", "PUT", VAULT_ID, operation=True))

    sender_of(task_of(Table({f"POLL {VAULT_ID}": ended}))).send(change, [])

    assert change.asked == ["shown"] * waits


@pytest.mark.parametrize(
    ("responses", "is_operation", "shown"),
    [
        pytest.param({}, False, {"read": 2}, id="without a document"),
        pytest.param({f"PUT {VAULT_ID}": {"response": 1}}, False, {"response": 1}, id="with the document"),
        pytest.param({f"PUT {VAULT_ID}": {"response": 1}}, True, {"read": 2}, id="before the operation has ended"),
        pytest.param({f"POLL {VAULT_ID}": {"poll": 1}}, True, {"poll": 1}, id="in the last poll"),
    ],
)
def test_reads_before_a_request_are_not_used_after_it(
    responses: dict[str, Any], is_operation: bool, shown: dict[str, int]
) -> None:
    task = task_of(Table({VAULT: Several({"read": 1}, {"read": 2}), **responses}))
    request = Request("change", "change it", "PUT", VAULT_ID, operation=is_operation, shows=VAULT)

    assert [task.driver.get(VAULT) for _time in range(2)] == [{"read": 1}] * 2
    sender_of(task).send(Change({}, {}, (request,)), [])
    assert task.driver.get(VAULT) == shown


@pytest.mark.parametrize(("wanted_first", "asks"), [(False, 1), (True, 2)])
def test_whether_a_request_is_wanted_is_asked_before_a_repetition(clock: Clock, wanted_first: bool, asks: int) -> None:
    change = Asking(Request("change", "change it", "PATCH", VAULT_ID, wanted_first=wanted_first))

    sender_of(task_of(Table({f"PATCH {VAULT_ID}": Several(NOT_YET, None)}))).send(change, [])

    assert change.asked.count("wanted") == asks


# The creation of an account

ID = account_id()
ACCOUNT, POOLS, IN_GROUP = refs.account(ID), refs.first_pools_of(ID), refs.accounts_of(SUBSCRIPTION, "rg-batch")
PROVIDER = refs.provider(SUBSCRIPTION, "Microsoft.Batch")
NAME = refs.name_check(f"{PROVIDER.id}/locations/westeurope", "Microsoft.Batch/batchAccounts", "mybatch")
IDENTITY = refs.identity(parse_user_assigned_id(identity_id(), "identity_id"))
PUT, POLL = f"PUT {ID}", f"POLL {ID}"
DONE = account(key=KEY, identity=user_assigned(**{"id-batch": PRINCIPAL}))
INVALID = Rejected("No.", azure={"code": "InvalidRequestBody", "message": "No."})


def without_account(documents: dict[Any, Any] | None = None) -> Table:
    """A subscription without the account, and a key that the account may use."""
    identity = {"properties": {"principalId": PRINCIPAL, "tenantId": TENANT}}
    table = Table({PROVIDER: {"resourceTypes": []}, NAME: FREE, IDENTITY: identity, **documents_of(evidence())})
    table.update(documents or {})
    return table


def decided(table: Table, **options: Any) -> tuple[Task, Change]:
    """The creation of the account, by default with the key."""
    task = task_of(table)
    wanted = account_goal(location="westeurope", **(options or {"identity_id": identity_id(), "key_identifier": KEY}))
    return task, task.driver.solve(AccountPresent(wanted, Facts(task.session)).decide)


def create(table: Table, /, after: dict[Any, Any] | None = None, **options: Any) -> None:
    """Send the requests of the creation. `after` are the documents since the creation was decided."""
    task, change = decided(table, **options)
    table.update(after or {})
    sender_of(task).send(change, [])


def methods(table: Table) -> list[str]:
    return [method for method, _ref, _body in table.written]


def test_an_account_is_not_created_if_the_accounts_cannot_be_listed() -> None:
    with pytest.raises(Denied):
        decided(without_account({IN_GROUP: DENIED}))


def test_a_listed_account_that_no_read_shows_is_not_created_a_second_time(clock: Clock) -> None:
    with pytest.raises(TimedOut) as failed:
        decided(without_account({IN_GROUP: [DONE]}))
    assert failed.value.facts["option"] == "wait_timeout"


def test_a_creation_that_batch_refuses_is_repeated_until_it_accepts_the_key(clock: Clock) -> None:
    table = without_account({PUT: Several(NOT_YET, NOT_YET, None)})

    create(table)

    assert methods(table) == ["PUT"] * 3


@pytest.mark.parametrize(
    ("refusal", "options"),
    [
        pytest.param(INVALID, {}, id="invalid"),
        pytest.param(NOT_YET, {"tags": {"owner": "ops"}}, id="without a key"),
    ],
)
def test_a_refusal_that_does_not_end_by_itself_is_final(
    clock: Clock, refusal: CmkError, options: dict[str, Any]
) -> None:
    table = without_account({PUT: refusal})

    with pytest.raises(Rejected, match=refusal.msg):
        create(table, **options)

    assert methods(table) == ["PUT"]


def test_a_creation_whose_key_was_disabled_meanwhile_is_not_repeated(clock: Clock) -> None:
    table = without_account({PUT: NOT_YET})

    with pytest.raises(Refused) as refused:
        create(table, {refs.key(evidence().key): key(enabled=False)})

    assert refused.value.facts["failed_checks"] == ["key_enabled"]
    assert methods(table) == ["PUT"]


def test_a_creation_that_has_failed_is_repeated_in_place(clock: Clock) -> None:
    failed = account(key=KEY, identity=DONE["identity"])
    failed["properties"]["provisioningState"] = "Failed"
    table = without_account(
        {ACCOUNT: failed, POOLS: Rejected("No.", azure={"code": "AccountCreationFailed"}), NAME: TAKEN}
    )

    create(table)

    assert methods(table) == ["PUT"]


def test_an_account_that_a_failed_creation_left_behind_is_waited_for(clock: Clock) -> None:
    """This task has created the account, so the change is not outdated."""
    table = without_account({POLL: Several(NOT_YET, True)})

    create(table, {NAME: Several(FREE, TAKEN), ACCOUNT: DONE})

    assert methods(table) == ["PUT"]


def test_an_account_that_appears_while_a_creation_is_refused_is_not_this_tasks(clock: Clock) -> None:
    table = without_account({PUT: Several(NOT_YET, None)})

    with pytest.raises(PlanOutdated):
        create(table, {NAME: Several(FREE, TAKEN), ACCOUNT: Several(None, DONE)})

    assert methods(table) == ["PUT"]


def test_a_creation_that_is_refused_because_the_account_exists_is_decided_again(clock: Clock) -> None:
    table = without_account({PUT: Rejected("Elsewhere.", azure={"code": "InvalidResourceLocation"})})

    with pytest.raises(PlanOutdated):
        create(table, {ACCOUNT: DONE})


@pytest.mark.parametrize(
    ("error", "shown", "may_exist"),
    [
        (INVALID, None, False),
        (DENIED, DONE, False),
        (Unavailable("The response was lost."), None, True),
        (KeyboardInterrupt(), None, True),
    ],
)
def test_a_failed_request_may_have_created_the_account(
    clock: Clock, error: BaseException, shown: Any, may_exist: bool
) -> None:
    table = without_account({PUT: error})
    task, change = decided(table)
    table[ACCOUNT] = shown

    with pytest.raises(type(error)):
        sender_of(task).send(change, [])

    table[ACCOUNT] = DONE
    assert bool(task.driver.solve(change.back()[0].decide).requests) is may_exist


@pytest.mark.parametrize(("shown", "is_created"), [(DONE, True), (None, False)])
def test_an_earlier_try_of_the_request_has_created_the_account(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, shown: Any, is_created: bool
) -> None:
    """The SDK sends a request again if there was no response. Azure refuses the second one."""
    table = without_account()
    task, change = decided(table, identity_id=identity_id())
    table[ACCOUNT] = shown

    def write(*_request: Any) -> None:
        task.session.sent.in_doubt += 1
        raise Rejected("It exists.", azure={"code": "Conflict", "message": "It exists."})

    monkeypatch.setattr(table, "write", write)

    with nullcontext() if is_created else pytest.raises(Rejected):
        sender_of(task).send(change, [])


# Vaults


@pytest.mark.parametrize(
    ("shown", "listed", "methods_sent"),
    [
        pytest.param(Several(None, None, vault()), [vault()], [], id="shown in the end"),
        pytest.param(None, Several([vault()], [vault()], []), ["PUT"], id="listed no more"),
    ],
)
def test_a_listed_vault_is_waited_for(clock: Clock, shown: Any, listed: Any, methods_sent: list[str]) -> None:
    table = Azure(vault(), name=Several(TAKEN, TAKEN, TAKEN, FREE))
    table.update({VAULT: shown, VAULTS: listed})

    ensure(table)

    assert methods(table) == methods_sent


# A vault that is created by another task or user at the same time

READS_ACCOUNTS = {"actions": ["Microsoft.Batch/batchAccounts/read"], "notActions": []}
USER = account("user", key=f"{KEY.replace('myvault', 'MYVAULT')}", identity=system_assigned(PRINCIPAL))
ELSEWHERE = account("elsewhere", key="https://other.vault.azure.net/keys/batch", identity=system_assigned(OTHER))
ON_NONE = account("none", identity=system_assigned(OTHER))
GRANTED = "PUT /accessPolicies/add"


class Azure(Table):
    """Azure with Batch accounts. Each write takes effect. A creation leaves the vault as in `document`."""

    def __init__(self, document: dict[str, Any], *accounts: dict[str, Any], name: Any = None) -> None:
        super().__init__(
            {
                refs.provider(SUBSCRIPTION, "Microsoft.KeyVault"): {"resourceTypes": []},
                refs.accounts_of(SUBSCRIPTION): list(accounts),
                refs.permissions_at(f"/subscriptions/{SUBSCRIPTION}"): [READS_ACCOUNTS],
                refs.permissions_at(refs.group(SUBSCRIPTION, "rg-keys").id): [{"actions": ["*"], "notActions": []}],
                VAULT_NAME: FREE if name is None else name,
            }
        )
        self.document = document
        # The times in the response to the creation. These show that the vault existed before.
        self.times = {"createdAt": "2026-06-01T10:00:00.123Z", "lastModifiedAt": "2026-06-01T10:00:07.456Z"}
        # The creation takes effect, but its response is lost.
        self.fails: BaseException | None = None
        # The number of grants that somebody else undoes, and what happens before a grant.
        self.undone_grants = 0
        self.before_grant: Callable[[], object] = lambda: None

    @property
    def writes(self) -> list[str]:
        return [f"{method} {ref[len(VAULT_ID) :]}" for method, ref, _body in self.written]

    @property
    def policies(self) -> list[Any]:
        entries: list[Any] = self.document["properties"]["accessPolicies"]
        return entries

    def write(self, method: str, ref: str, body: Any) -> Any:
        super().write(method, ref, body)
        self[VAULT] = self.document
        if "/accessPolicies/" in ref:
            self.before_grant()
            self.policies.extend(body["properties"]["accessPolicies"])
            if self.undone_grants:
                self.undone_grants -= 1
                self.policies.clear()
        elif "/roleAssignments/" in ref:
            scope = ref.partition("/providers/Microsoft.Authorization")[0]
            role = {"name": ENCRYPTION_USER, "properties": {"permissions": [{"dataActions": ["*"]}]}}
            self[refs.role(VAULT_ID, ENCRYPTION_USER)] = role
            assigned = {"id": ref, "properties": {**body["properties"], "scope": scope}}
            self[refs.assignments_of(scope, body["properties"]["principalId"])] = [assigned]
        elif self.fails:
            raise self.fails
        return {**self.document, "systemData": self.times}


def ensure(table: Table, wait_timeout: int = 60, **options: Any) -> Outcome:
    """The outcome of azbatch.cmk.keyvault_cmk_vault."""
    task = task_of(table, wait_timeout=wait_timeout)
    cloud: Any = SimpleNamespace(facts=Facts(task.session), changes=executor_of(task))
    given = {"resource_group": "rg-keys", "name": "myvault", "location": "westeurope", **options}
    return keyvault_cmk_vault.run(options_of(keyvault_cmk_vault, **given), cloud)


def test_accounts_on_a_new_vault_get_access(clock: Clock) -> None:
    """The names of vaults are case-insensitive."""
    table = Azure(vault(), USER, ELSEWHERE, ON_NONE)

    outcome = ensure(table, name="MyVault", authorization="access_policy")

    assert [one.lower() for one in table.writes][1:] == [GRANTED.lower()]
    [entry] = table.policies
    assert (entry["objectId"], entry["permissions"]["keys"]) == (PRINCIPAL, NEEDED)
    [warning] = outcome.warnings
    assert USER["id"] in warning


@pytest.mark.parametrize(("undone", "succeeds"), [(1, True), (100, False)])
def test_accounts_that_lose_their_access_again_get_it_again(clock: Clock, undone: int, succeeds: bool) -> None:
    table = Azure(vault(), USER)
    table.undone_grants = undone

    with nullcontext() if succeeds else pytest.raises(NotConverged):
        ensure(table)

    assert bool(table.policies) is succeeds


@pytest.mark.parametrize(
    ("times", "restored"),
    [
        pytest.param({"createdAt": "2026-06-01T10:00:07Z", "lastModifiedAt": "2026-06-01T10:00:07Z"}, 0, id="created"),
        pytest.param({"createdAt": "2026-06-01T10:00:00Z", "lastModifiedAt": "2026-06-01T10:00:07Z"}, 1, id="replaced"),
        pytest.param({}, 1, id="not known"),
    ],
)
def test_access_is_granted_again_unless_the_vault_is_new(clock: Clock, times: dict[str, str], restored: int) -> None:
    table = Azure(vault(), USER)
    table.times = times

    ensure(table)

    assert table.writes == ["PUT ", GRANTED][: 1 + restored]


def test_accounts_on_a_new_vault_that_uses_roles_get_a_role(clock: Clock) -> None:
    table = Azure(vault(rbac=True), USER)

    ensure(table)

    _put, (_method, ref, body) = table.written
    assert ref.startswith(f"{VAULT_ID}/keys/batch/providers/Microsoft.Authorization/roleAssignments/")
    assert body["properties"]["principalId"] == PRINCIPAL


@pytest.mark.parametrize(
    "accounts",
    [
        (USER,),
        (ELSEWHERE, ON_NONE),
    ],
    ids=[
        "has access",
        "elsewhere",
    ],
)
def test_existing_access_is_not_granted_again(clock: Clock, accounts: tuple[Any, ...]) -> None:
    table = Azure(vault(policy(PRINCIPAL)), *accounts)

    assert ensure(table, authorization="access_policy").warnings == ()
    assert table.writes == ["PUT "]


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), KeyError("x")])
def test_access_is_restored_whatever_ends_the_creation(clock: Clock, failure: BaseException) -> None:
    table = Azure(vault(), USER)
    table.fails = failure

    with pytest.raises(CmkError):
        ensure(table)

    assert table.writes == ["PUT ", GRANTED]


@pytest.mark.parametrize("failure", [NOT_YET, KeyboardInterrupt()])
def test_access_is_restored_whatever_ends_the_wait_for_the_creation(clock: Clock, failure: BaseException) -> None:
    table = Azure(vault(), USER)
    table[f"POLL {VAULT_ID}"] = failure

    with pytest.raises(CmkError):
        ensure(table)

    assert table.writes == ["PUT ", GRANTED]


def test_access_is_not_restored_after_a_creation_that_azure_has_refused(clock: Clock) -> None:
    table = Azure(vault(), USER)
    table[f"PUT {VAULT_ID}"] = INVALID

    with pytest.raises(CmkError):
        ensure(table)

    assert table.writes == ["PUT "]


def test_the_failure_of_a_creation_is_reported_if_the_access_cannot_be_restored(clock: Clock) -> None:
    table = Azure(vault(), USER)
    table.fails = Unavailable("The response was lost.")
    table[f"PUT {VAULT_ID}/accessPolicies/add"] = DENIED

    with pytest.raises(Unavailable, match="The response was lost"):
        ensure(table)


@pytest.mark.parametrize(("code", "tries"), [("throttled", 1), ("service_unavailable", 2)])
def test_a_grant_is_repeated_unless_azure_requires_a_longer_wait(clock: Clock, code: Any, tries: int) -> None:
    table = Azure(vault(), USER)
    table[f"PUT {VAULT_ID}/accessPolicies/add"] = Several(Unavailable("Busy.", code=code), None)

    with pytest.raises(Unavailable) if tries == 1 else nullcontext():
        ensure(table)

    assert table.writes == ["PUT ", *[GRANTED] * tries]


def test_an_interrupt_does_not_end_the_restoration_of_access(clock: Clock) -> None:
    table = Azure(vault(), USER)
    table.before_grant = partial(signal.raise_signal, signal.SIGTERM)

    with pytest.raises(CmkError) as failed:
        ensure(table)

    assert failed.value.code == "interrupted"
    assert len(table.policies) == 1


def test_access_is_restored_once_the_accounts_can_be_listed(clock: Clock) -> None:
    table = Azure(vault(), USER)
    table[refs.accounts_of(SUBSCRIPTION)] = Several(BUSY, [USER])

    ensure(table)

    assert table.writes == ["PUT ", GRANTED]


@pytest.mark.parametrize("failure", [None, Unavailable("The response was lost.")], ids=["accepted", "not known"])
def test_access_is_restored_of_an_account_that_a_list_shows_later(clock: Clock, failure: Any) -> None:
    """Another run has moved it to the vault just before."""
    table = Azure(vault(), USER)
    table[refs.accounts_of(SUBSCRIPTION)] = Several([], [], [USER])
    table.fails = failure

    with pytest.raises(Unavailable) if failure else nullcontext():
        ensure(table)

    assert table.writes == ["PUT ", GRANTED]
