# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The reads of an account before its key is changed, and after Batch has refused the change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from azure_table import Several, Table, place, task_of
from clocks import Clock
from documents import (
    DAY,
    KEY,
    MIDDLE,
    NEW,
    NOW,
    OLD,
    SUBSCRIPTION,
    VAULT_ID,
    account,
    account_id,
    evidence,
    key,
    listed,
    policy,
    system_assigned,
    vault,
)
from goals import encryption_goal

from ansible_collections.azbatch.cmk.plugins.module_utils._azure import driver as driver_module
from ansible_collections.azbatch.cmk.plugins.module_utils._azure import journal as journal_module
from ansible_collections.azbatch.cmk.plugins.module_utils._azure import rate_limit as rate_limit_module
from ansible_collections.azbatch.cmk.plugins.module_utils._azure import session as session_module
from ansible_collections.azbatch.cmk.plugins.module_utils._checks.versions import REPLACED_BEFORE_EXPIRY
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import (
    CmkError,
    PlanOutdated,
    Refused,
    Rejected,
    Unavailable,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import KeyIdentifier, parse_key_identifier
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs
from ansible_collections.azbatch.cmk.plugins.module_utils._documents.account import availability
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.access.client import Access
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.account import client as accounts_module
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.account.client import Accounts
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption import client as encryption_module
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption import plan as encryption_plan
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption.client import Encryption
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key.client import Keys
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key.evidence import EvidenceReader
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.visible import HandledAccounts, VisibleAccounts

PINNED_OLD, PINNED_MIDDLE, PINNED_NEW = (f"{KEY}/{version}" for version in (OLD, MIDDLE, NEW))
CREATED = {OLD: NOW - 200 * DAY, MIDDLE: NOW - 100 * DAY, NEW: NOW - 10 * DAY}
ACCOUNT, POOLS = refs.account(account_id()), refs.first_pools_of(account_id())
VAULT, VAULTS = refs.vault(VAULT_ID), refs.vaults_of(SUBSCRIPTION)
PERMISSIONS = refs.permissions_at(f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-batch")
MAY_LIST_POOLS = {"actions": ["Microsoft.Batch/batchAccounts/pools/read"], "notActions": []}
PATCH = f"PATCH {account_id()}"
NOT_YET = Rejected("No access.", azure={"code": "KeyVaultAccessDenied", "message": "No access."})
NO_KEY = Rejected("No key.", azure={"code": "KeyVaultKeyNotAccessible", "message": "No key."})
INVALID = Rejected("Not this key.", azure={"code": "InvalidRequestBody", "message": "Not this key."})


def identifier_of(value: str) -> KeyIdentifier:
    return parse_key_identifier(value, "key_identifier")


def key_of(value: str) -> str:
    """The place of a key or version in the table."""
    return place(refs.key(identifier_of(value)))


class Azure(Table):
    """An account that uses `used`, and three versions of its key, which it may use."""

    def __init__(self, used: str | None, documents: dict[Any, Any] | None = None) -> None:
        super().__init__({VAULT: vault(policy()), VAULTS: [vault(policy())], POOLS: []}, now=NOW)
        self[PERMISSIONS] = [MAY_LIST_POOLS]
        self.versions = {name: key(name, created=created) for name, created in CREATED.items()}
        self.move(used)
        self.show()
        self.update(documents or {})

    def move(self, used: str | None) -> None:
        self[ACCOUNT] = account(key=used, identity=system_assigned())

    def change(self, version: str, **fields: Any) -> None:
        self.versions[version] = key(version, **{"created": CREATED[version], **fields})
        self.show()

    def show(self) -> None:
        self.update({f"{KEY}/{name}": one for name, one in self.versions.items()})
        self.update({KEY: self.versions[NEW], f"{KEY}/versions": [*map(listed, self.versions.values())]})


def service_of(azure: Azure, folder: Path | None = None) -> Encryption:
    session, driver, gateway = task_of(azure, folder)
    handled = HandledAccounts(session.files)
    visible = VisibleAccounts(session, driver, handled)
    reader = EvidenceReader(session, driver)
    accounts = Accounts(session, driver, gateway, reader, handled)
    keys = Keys(session, driver, gateway, visible, Access(session, driver, gateway, visible))
    return Encryption(session, driver, accounts, reader, keys)


def goal_of(identifier: str | None, **options: Any) -> Any:
    return encryption_goal(identifier, previous_key="any", **options)


def read(azure: Azure, identifier: str | None, **options: Any) -> Any:
    return service_of(azure).read(goal_of(identifier, **options))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(tick=0.0001)
    modules = accounts_module, driver_module, encryption_module, journal_module, rate_limit_module, session_module
    for module in modules:
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.mark.parametrize(
    ("identifier", "options", "checked"),
    [
        (PINNED_NEW, {}, PINNED_NEW),
        (PINNED_NEW, {"version_mode": "follow"}, KEY),
        (KEY, {"vault_resource_group": "rg-keys"}, KEY),
    ],
)
def test_preflight_checks_the_key_that_is_set(identifier: str, options: dict[str, Any], checked: str) -> None:
    """The vault is in the named resource group, and is searched for only if there is no name."""
    azure = Azure(None)

    found = read(azure, identifier, **options)

    assert (str(found["evidence"].key), found["evidence"].vault) == (checked, vault(policy()))
    assert place(POOLS) not in azure.asked
    assert (place(VAULTS) in azure.asked) is ("vault_resource_group" not in options)


@pytest.mark.parametrize(
    ("left", "wanted", "moves"),
    [
        pytest.param(REPLACED_BEFORE_EXPIRY, None, True, id="the wanted version does not expire"),
        pytest.param(REPLACED_BEFORE_EXPIRY + 1, None, False, id="in time"),
        pytest.param(DAY, 2 * DAY, True, id="the wanted version expires later"),
        pytest.param(DAY, DAY, False, id="the wanted version expires at the same time"),
        pytest.param(None, DAY, False, id="does not expire"),
    ],
)
def test_an_account_leaves_a_version_that_expires(left: int | None, wanted: int | None, moves: bool) -> None:
    """Also if the account is to keep its version."""
    azure = Azure(PINNED_MIDDLE)
    for version, ends in ((MIDDLE, left), (NEW, wanted)):
        azure.change(version, **({} if ends is None else {"exp": NOW + ends}))

    found = read(azure, PINNED_NEW, version_mode="keep")

    assert encryption_plan.plan(goal_of(PINNED_NEW, version_mode="keep"), found).changed is moves


@pytest.mark.parametrize(
    ("used", "identifier", "options"),
    [(PINNED_NEW, PINNED_NEW, {}), (KEY, PINNED_NEW, {"version_mode": "update"}), (None, None, {})],
)
def test_availability_is_read_for_an_account_that_uses_its_key(
    used: str | None, identifier: str | None, options: dict[str, Any]
) -> None:
    """Batch is asked, and the key is judged too."""
    azure = Azure(used)

    assert "evidence" not in read(azure, identifier, **options)
    assert azure.reads_of(POOLS) == 1
    assert {one for one in azure.asked if one.startswith(KEY)} == (
        {key_of(used), place(f"{KEY}/versions")} if used else set()
    )


@pytest.mark.parametrize(
    ("identifier", "mode", "used", "confirmed", "counts"),
    [
        (PINNED_NEW, "update", PINNED_NEW, PINNED_NEW, True),
        (PINNED_NEW, "follow", KEY, KEY, True),
        (PINNED_NEW, "update", PINNED_NEW, PINNED_OLD, False),
    ],
)
def test_confirmation_includes_the_access_read_after_the_change(
    identifier: str, mode: str, used: str, confirmed: str, counts: bool
) -> None:
    """The key is read again only if the access that was read after the change is that to another version."""
    azure = Azure(used)
    service = service_of(azure)
    move(service, used, checked=confirmed)

    found = service.read(goal_of(identifier, version_mode=mode))

    assert str(found["evidence"].key) == used
    assert (key_of(used) in azure.asked) is not counts


def test_no_further_reads_for_a_missing_account() -> None:
    azure = Azure(None, {ACCOUNT: None})

    assert read(azure, PINNED_NEW)["account"] is None
    assert azure.asked == [place(ACCOUNT), place(refs.accounts_of(SUBSCRIPTION, "rg-batch"))]


# Batch refuses a key


def move(service: Encryption, to: str = PINNED_NEW, *, checked: str | None = None, undoes: bool = False) -> None:
    """Move the account from PINNED_OLD to a key, or with `undoes` back to the key. By default, that key is checked."""
    service.set_encryption(
        "rg-batch",
        "mybatch",
        {"properties": account(key=to)["properties"]},
        previous=identifier_of(PINNED_OLD),
        evidence=evidence(checked or to),
        even_if_unavailable=undoes,
    )


IN_BOTH_DIRECTIONS = pytest.mark.parametrize("undoes", [False, True], ids=["a change", "a rollback"])


@pytest.mark.parametrize("moved_to", [None, KEY, PINNED_MIDDLE])
@IN_BOTH_DIRECTIONS
def test_an_account_that_others_move_while_batch_refuses_its_key_stays_there(
    clock: Clock, moved_to: str | None, undoes: bool
) -> None:
    azure = Azure(moved_to, {PATCH: NOT_YET})

    with pytest.raises(PlanOutdated):
        move(service_of(azure), undoes=undoes)
    assert len(azure.written) == 1


def test_an_account_that_others_move_after_it_was_judged_stays_there(clock: Clock) -> None:
    """The account is read just before the request is sent again."""
    used, moved = (account(key=one, identity=system_assigned()) for one in (PINNED_OLD, PINNED_MIDDLE))
    azure = Azure(None, {ACCOUNT: Several(used, moved), PATCH: NOT_YET})

    with pytest.raises(PlanOutdated):
        move(service_of(azure))
    assert len(azure.written) == 1


@IN_BOTH_DIRECTIONS
def test_a_key_that_batch_refuses_is_checked_again(clock: Clock, undoes: bool) -> None:
    """The key may have been disabled after a task of the run read it. In that case, retries are useless."""
    azure = Azure(PINNED_OLD, {PATCH: NOT_YET})
    service = service_of(azure)
    service.read(goal_of(PINNED_NEW))
    azure.change(NEW, enabled=False)

    with pytest.raises(Refused) as failed:
        move(service, undoes=undoes)
    assert failed.value.facts["failed_checks"] == ["key_enabled"]
    assert len(azure.written) == 1


@pytest.mark.parametrize("shown", [PINNED_OLD, PINNED_NEW, "no account"])
@IN_BOTH_DIRECTIONS
def test_a_key_that_is_usable_is_offered_again(clock: Clock, shown: str, undoes: bool) -> None:
    """Also if a read does not show the account for a moment, or if an earlier request took effect."""
    azure = Azure(shown, {PATCH: Several(NOT_YET, None)})
    if shown == "no account":
        azure[ACCOUNT] = None

    move(service_of(azure), undoes=undoes)

    assert len(azure.written) == 2


@IN_BOTH_DIRECTIONS
def test_a_rollback_goes_on_although_the_account_is_not_available(clock: Clock, undoes: bool) -> None:
    azure = Azure(PINNED_OLD, {PATCH: Several(NOT_YET, None), POOLS: Several(NO_KEY, [])})

    if undoes:
        move(service_of(azure), undoes=True)
    else:
        with pytest.raises(CmkError) as failed:
            move(service_of(azure))
        assert failed.value.code == "account_unavailable"
    assert len(azure.written) == 1 + undoes


def after_failure(failure: CmkError) -> tuple[Encryption, Azure]:
    """A task whose change of the account to PINNED_NEW has failed. The account uses PINNED_OLD."""
    azure = Azure(PINNED_OLD, {PATCH: failure})
    service = service_of(azure)
    with pytest.raises(type(failure)):
        move(service)
    azure.asked.clear()
    return service, azure


@pytest.mark.parametrize(
    ("failure", "writes"),
    [(Unavailable("No response."), True), (PlanOutdated("It was moved."), False), (INVALID, False)],
)
def test_a_rollback_writes_if_the_change_may_have_taken_effect(failure: CmkError, writes: bool) -> None:
    """Also if a read shows the previous key, because the read may be older than the change."""
    service, _azure = after_failure(failure)
    goal = goal_of(PINNED_NEW)
    rollback = encryption_plan.plan(goal, service.read(goal)).rollback_goal

    assert encryption_plan.plan(rollback, service.read(rollback)).changed is writes


@pytest.mark.parametrize(("failure", "judged"), [(INVALID, True), (Unavailable("None."), False)])
def test_after_a_refused_change_the_key_in_use_is_judged_too(failure: CmkError, judged: bool) -> None:
    """Batch may have refused the change because the account has lost its key."""
    service, azure = after_failure(failure)
    service.read(goal_of(PINNED_NEW))

    assert (key_of(PINNED_OLD) in azure.asked) is judged


# A list of the pools as a proof


@pytest.mark.parametrize(
    ("earlier", "repaired", "available"),
    [
        pytest.param(None, 5, None, id="nothing is known"),
        pytest.param(NO_KEY, 5, True, id="Batch refuses the list"),
        pytest.param([], 5, None, id="Batch lists the pools although the key is lost"),
        pytest.param(None, DAY, True, id="nothing is known, and the repair was a day ago"),
        pytest.param([], DAY, None, id="Batch lists the pools although the key is lost, and the time may be wrong"),
    ],
)
def test_a_list_of_the_pools_after_a_repair(
    tmp_path: Path, earlier: Any, repaired: int, available: bool | None
) -> None:
    """Somebody has enabled the version. `earlier` is what a task of the run has seen before."""
    azure = Azure(PINNED_OLD)

    def survey(pools: Any, **fields: Any) -> bool | None:
        azure[POOLS] = pools
        azure.change(OLD, **fields)
        found = service_of(azure, tmp_path).survey("rg-batch", "mybatch", diagnose=False)
        return availability(found["unavailable_reason"])

    if earlier is not None:
        assert survey(earlier, enabled=False) is False
    assert survey([], updated=NOW - repaired) is available


@pytest.mark.parametrize("is_repaired", [False, True])
def test_batch_is_asked_again_after_a_repair(tmp_path: Path, is_repaired: bool) -> None:
    """Its refusal names one cause. After the repair of that cause, it may name another one."""
    refusals = [Rejected(name, azure={"code": "KeyVaultKeyNotAccessible"}) for name in ("first", "second")]
    azure = Azure(PINNED_OLD, {POOLS: Several(*refusals)})
    azure.change(OLD, enabled=False)

    def survey() -> tuple[str, Any]:
        """What Batch refuses, by a task of the run."""
        found = service_of(azure, tmp_path).survey("rg-batch", "mybatch", diagnose=True)
        reason = found["unavailable_reason"]
        assert reason is not None
        return reason.msg, reason.facts["azure"]["code"]

    assert survey() == ("first", "KeyVaultKeyNotAccessible")
    if is_repaired:
        task_of(azure, tmp_path).session.journal.mark("key")

    assert survey() == ("second" if is_repaired else "first", "KeyVaultKeyNotAccessible")
