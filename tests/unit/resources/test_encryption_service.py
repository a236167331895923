# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The reads of an account before its key is changed, and after Batch has refused the change. What is changed first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from azure_table import Several, Task, cloud_of, place, sender_of, task_of
from clocks import Clock, clock_of_all
from documents import (
    DAY,
    DEFINITIONS,
    ENCRYPTION_USER,
    KEY,
    MIDDLE,
    NEW,
    NOW,
    OLD,
    PRINCIPAL,
    SUBSCRIPTION,
    VAULT_ID,
    account,
    assignment,
    system_assigned,
    vault,
)
from encryption_table import (
    ACCOUNT,
    ELSEWHERE,
    NO_KEY,
    NOT_YET,
    PATCH,
    PINNED_MIDDLE,
    PINNED_NEW,
    PINNED_OLD,
    POOLS,
    VAULTS,
    Azure,
    decided,
    keys_set_by,
    place_of_key,
    solved,
)
from goals import encryption_goal

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.facts import Facts
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.gateway import Answer
from ansible_collections.azbatch.cmk.plugins.module_utils._checks.diagnosis import AccountState
from ansible_collections.azbatch.cmk.plugins.module_utils._checks.versions import REPLACED_BEFORE_EXPIRY
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import (
    CmkError,
    PlanOutdated,
    Refused,
    Rejected,
    Unavailable,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import parse_key_identifier
from ansible_collections.azbatch.cmk.plugins.module_utils._core.tasks import Change
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption.decide import Keep

INVALID = Rejected("Not this key.", azure={"code": "InvalidRequestBody", "message": "Not this key."})


def goal_of(identifier: str | None, **options: Any) -> Any:
    return encryption_goal(identifier, previous_key="any", **options)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return clock_of_all(monkeypatch)


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

    change = decided(goal_of(identifier, **options), azure)

    assert {one["status"] for one in change.report["preflight"]} == {"ok"}
    assert place_of_key(checked) in azure.asked
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

    change = decided(goal_of(PINNED_NEW, version_mode="keep"), azure)

    assert keys_set_by(change) == [PINNED_NEW] * moves


# Batch refuses a key


def change_of(*, undoes: bool = False) -> Change:
    """The move of the account from PINNED_OLD to PINNED_NEW or, with `undoes`, the rollback of the opposite move."""
    if not undoes:
        return decided(goal_of(PINNED_NEW), Azure(PINNED_OLD))
    move = decided(goal_of(PINNED_OLD), Azure(PINNED_NEW))
    return solved(move.back()[0].decide, Azure(PINNED_OLD))


def send(azure: Azure, task: Task | None = None, *, undoes: bool = False) -> None:
    sender_of(task or task_of(azure)).send(change_of(undoes=undoes), [])


IN_BOTH_DIRECTIONS = pytest.mark.parametrize("undoes", [False, True], ids=["a change", "a rollback"])


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("moved_to", [None, KEY, PINNED_MIDDLE])
@IN_BOTH_DIRECTIONS
def test_an_account_that_others_move_while_batch_refuses_its_key_stays_there(
    clock: Clock, moved_to: str | None, undoes: bool
) -> None:
    azure = Azure(moved_to, {PATCH: NOT_YET})

    with pytest.raises(PlanOutdated):
        send(azure, undoes=undoes)
    assert len(azure.written) == 1


@pytest.mark.usefixtures("clock")
def test_an_account_that_others_move_after_it_was_judged_stays_there() -> None:
    """The account is read just before the request is sent again."""
    used, moved = (account(key=one, identity=system_assigned()) for one in (PINNED_OLD, PINNED_MIDDLE))
    azure = Azure(None, {ACCOUNT: Several(used, moved), PATCH: NOT_YET})

    with pytest.raises(PlanOutdated):
        send(azure)
    assert len(azure.written) == 1


@pytest.mark.usefixtures("clock")
@IN_BOTH_DIRECTIONS
def test_a_key_that_batch_refuses_is_checked_again(undoes: bool) -> None:
    """The key may have been disabled after a task of the run read it. In that case, retries are useless."""
    azure = Azure(PINNED_OLD, {PATCH: NOT_YET})
    task = task_of(azure)
    decided(goal_of(PINNED_NEW), azure, task)
    azure.change(NEW, enabled=False)

    with pytest.raises(Refused) as failed:
        send(azure, task, undoes=undoes)
    assert failed.value.facts["failed_checks"] == ["key_enabled"]
    assert len(azure.written) == 1


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("shown", [PINNED_OLD, PINNED_NEW, None])
@IN_BOTH_DIRECTIONS
def test_a_key_that_is_usable_is_offered_again(shown: str | None, undoes: bool) -> None:
    """Also if a read does not show the account for a moment, or if an earlier request took effect."""
    azure = Azure(shown or PINNED_OLD, {PATCH: Several(NOT_YET, None)})
    if shown is None:
        azure.update({refs.accounts_of(SUBSCRIPTION, "rg-batch"): [account()], ACCOUNT: Several(None, azure[ACCOUNT])})

    send(azure, undoes=undoes)

    assert len(azure.written) == 2


@pytest.mark.usefixtures("clock")
@IN_BOTH_DIRECTIONS
def test_a_rollback_goes_on_although_the_account_is_not_available(undoes: bool) -> None:
    azure = Azure(PINNED_OLD, {PATCH: Several(NOT_YET, None), POOLS: Several(NO_KEY, [])})

    if undoes:
        send(azure, undoes=True)
    else:
        with pytest.raises(CmkError) as failed:
            send(azure)
        assert failed.value.code == "account_unavailable"
    assert len(azure.written) == 1 + undoes


@pytest.mark.parametrize(
    ("wanted", "is_read"),
    [
        pytest.param(PINNED_MIDDLE, True, id="older version"),
        pytest.param(PINNED_NEW, False, id="newest version"),
        pytest.param(KEY, False, id="latest version"),
        pytest.param(None, False, id="Microsoft-managed key"),
    ],
)
def test_a_move_to_an_older_version_ends_when_a_read_shows_it(wanted: str | None, is_read: bool) -> None:
    """The next task may disable such a version at once."""
    azure = Azure(PINNED_OLD)
    task = task_of(azure)
    task.driver.get(refs.key(parse_key_identifier(KEY, "key_identifier")))
    sender_of(task).send(decided(goal_of(wanted), azure, task), [])

    before = azure.reads_of(ACCOUNT)
    task.driver.get(ACCOUNT)
    assert azure.reads_of(ACCOUNT) - before == is_read


def test_a_rollback_that_azure_has_accepted_is_not_written_again() -> None:
    azure = Azure(PINNED_OLD)
    task = task_of(azure)
    change = decided(goal_of(PINNED_NEW), azure, task)
    sender_of(task).send(change, [])
    sender_of(task).send(solved(change.back()[0].decide, azure, task), [])

    assert azure.written_keys == [PINNED_NEW, PINNED_OLD]
    assert solved(change.back()[0].decide, azure, task).requests == ()


def after_failure(failure: CmkError) -> tuple[Change, Azure, Task]:
    """A task whose change of the account to PINNED_NEW has failed. Reads show PINNED_OLD."""
    azure = Azure(PINNED_OLD, {PATCH: failure})
    azure.on_write = lambda _key: None
    task = task_of(azure)
    change = decided(goal_of(PINNED_NEW), azure, task)
    with pytest.raises(type(failure)):
        sender_of(task).send(change, [])
    azure.asked.clear()
    return change, azure, task


@pytest.mark.parametrize(
    ("failure", "writes"),
    [(Unavailable("No response."), True), (PlanOutdated("It was moved."), False), (INVALID, False)],
)
def test_a_rollback_writes_if_the_change_may_have_taken_effect(failure: CmkError, writes: bool) -> None:
    """Also if a read shows the previous key, because the read may be older than the change."""
    change, azure, task = after_failure(failure)

    assert keys_set_by(solved(change.back()[0].decide, azure, task)) == [PINNED_OLD] * writes


@pytest.mark.parametrize(("failure", "judged"), [(INVALID, True), (Unavailable("None."), False)])
def test_after_a_refused_change_the_key_in_use_is_judged_too(failure: CmkError, judged: bool) -> None:
    """Batch may have refused the change because the account has lost its key."""
    _change, azure, task = after_failure(failure)
    decided(goal_of(PINNED_NEW), azure, task)

    assert (place_of_key(PINNED_OLD) in azure.asked) is judged


# A list of the pools as a proof


def surveyed(azure: Azure, run: Path, *, diagnose: bool = False) -> AccountState:
    """What a task of the run reports of the account."""
    return cloud_of(azure, run).survey("rg-batch", "mybatch", diagnose=diagnose)


@pytest.mark.parametrize(
    ("earlier", "repaired", "available"),
    [
        pytest.param(None, 5, None, id="nothing is known"),
        pytest.param(NO_KEY, 5, True, id="Batch refuses the list"),
        pytest.param([], 5, None, id="Batch lists the pools although the key is lost"),
        pytest.param(None, DAY, True, id="nothing is known, and the repair was a day ago"),
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
        return surveyed(azure, tmp_path).available

    if earlier is not None:
        assert survey(earlier, enabled=False) is False
    assert survey([], updated=NOW - repaired) is available


# The versions that the account leaves


def left_by(azure: Azure, to: str | None = ELSEWHERE, *, ago: float = 0, folder: Path | None = None) -> list[str]:
    """The versions that are updated without a change before the account moves to a key. The account was changed `ago`
    seconds ago."""
    azure[ACCOUNT] = Answer(azure[ACCOUNT], NOW, NOW - ago)
    task = task_of(azure, folder)
    change = solved(Keep(goal_of(to), Facts(task.session), "myvault").decide, azure, task)
    for one in change.requests:
        assert (one.method, one.body) == ("PATCH", {"attributes": {"enabled": True}})
    return [one.ref for one in change.requests]


@pytest.mark.parametrize(
    ("used", "ago", "updated"),
    [
        pytest.param(PINNED_OLD, 30 * DAY, [PINNED_OLD], id="its version"),
        pytest.param(PINNED_OLD, DAY, [PINNED_MIDDLE, PINNED_OLD], id="all versions that it may use after a change"),
        pytest.param(PINNED_NEW, 30 * DAY, [], id="the newest version"),
        pytest.param(KEY, 30 * DAY, [], id="it follows the key for long"),
        pytest.param(None, 30 * DAY, [], id="no key"),
    ],
)
@pytest.mark.parametrize("to", [ELSEWHERE, None], ids=["to another key", "to a Microsoft-managed key"])
def test_versions_that_an_account_leaves_are_updated(
    used: str | None, ago: float, updated: list[str], to: str | None
) -> None:
    assert left_by(Azure(used), to, ago=ago) == updated


@pytest.mark.parametrize(("age", "updated"), [(59, []), (61, [PINNED_OLD])])
def test_a_version_that_another_host_has_just_updated_is_not_updated(age: int, updated: list[str]) -> None:
    azure = Azure(PINNED_OLD)
    azure.change(OLD, updated=NOW - age)

    assert left_by(azure, ago=30 * DAY) == updated


@pytest.mark.parametrize(("age", "updated"), [(30 * DAY, []), (DAY, [PINNED_MIDDLE, PINNED_OLD])])
def test_an_account_may_use_older_versions_if_it_has_its_access_since_lately(age: int, updated: list[str]) -> None:
    azure = Azure(KEY)
    azure.has_vault(vault(rbac=True))
    azure.update(
        {
            refs.assignments_of(f"{VAULT_ID}/keys/batch", PRINCIPAL): [assignment(ENCRYPTION_USER, VAULT_ID, age=age)],
            refs.role(VAULT_ID, ENCRYPTION_USER): {"name": ENCRYPTION_USER, "properties": DEFINITIONS[ENCRYPTION_USER]},
        }
    )

    assert left_by(azure, ago=30 * DAY) == updated


def test_an_account_follows_a_new_version_inside_the_margin() -> None:
    azure = Azure(KEY)
    azure.change(NEW, created=NOW - DAY)

    assert left_by(azure, ago=30 * DAY) == [PINNED_MIDDLE, PINNED_OLD]
