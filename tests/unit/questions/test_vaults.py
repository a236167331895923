# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a vault, or a deleted vault, is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from azure_table import Table, place, task_of
from documents import deleted_vault

from ansible_collections.azbatch.cmk.plugins.module_utils._core.docs import Docs, Ref
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import (
    CmkError,
    Denied,
    Unavailable,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs
from ansible_collections.azbatch.cmk.plugins.module_utils._questions import vaults

T = TypeVar("T")
OWN, OTHER = "own", "other"
READER = [{"actions": ["*/read"]}]


def of(subscription: str, name: str, group: str = "group1") -> dict[str, Any]:
    return {"id": refs.vault_id(subscription, group, name), "name": name}


MINE: Any = of(OWN, "Mine")
THEIRS: Any = of(OTHER, "theirs")


def permissions(subscription: str) -> Ref[Any]:
    return refs.permissions_at(f"/subscriptions/{subscription}")


def azure(documents: Mapping[Any, Any] | None = None) -> Table:
    """Two subscriptions, in which the caller may read everything, with a vault each."""
    table = Table({refs.SUBSCRIPTIONS: [{"subscriptionId": one} for one in (OWN, OTHER)]})
    for subscription, vault in ((OWN, MINE), (OTHER, THEIRS)):
        table.update(
            {refs.vaults_of(subscription): [vault], refs.vault(vault["id"]): vault, permissions(subscription): READER}
        )
    table.update(documents or {})
    return table


def ask(table: Table, question: Callable[[Docs], T]) -> T:
    return task_of(table, subscription=OWN).driver.solve(question)


def find(table: Table, name: str, group: str | None = None) -> Any:
    return ask(table, partial(vaults.find, name=name, subscription=OWN, group=group))


# Vaults


@pytest.mark.parametrize(
    ("name", "group", "expected", "asked"),
    [
        pytest.param("Mine", "group1", MINE, [refs.vault(MINE["id"])], id="in the resource group"),
        pytest.param(
            "MINE",
            "group2",
            MINE,
            [refs.vault(refs.vault_id(OWN, "group2", "mine")), refs.vaults_of(OWN)],
            id="in another resource group",
        ),
        pytest.param(
            "theirs",
            None,
            THEIRS,
            [refs.vaults_of(OWN), refs.SUBSCRIPTIONS, refs.vaults_of(OTHER)],
            id="in another subscription",
        ),
        pytest.param(
            "none",
            None,
            None,
            [refs.vaults_of(OWN), refs.SUBSCRIPTIONS, refs.vaults_of(OTHER), permissions(OWN), permissions(OTHER)],
            id="no such vault",
        ),
    ],
)
def test_where_a_vault_is_found(name: str, group: str | None, expected: Any, asked: Sequence[Any]) -> None:
    table = azure()

    assert find(table, name, group) == expected
    assert sorted(table.asked) == sorted(map(place, asked))


def test_a_vault_that_was_moved_or_deleted_is_searched_for(tmp_path: Path) -> None:
    table = azure()
    driver = task_of(table, tmp_path, subscription=OWN).driver
    driver.get(refs.vault(THEIRS["id"]))
    moved = of(OWN, "theirs")
    table.update({refs.vault(THEIRS["id"]): None, refs.vaults_of(OWN): [moved], refs.vaults_of(OTHER): []})

    question = partial(vaults.find, name="theirs", subscription=OWN, group=None)
    assert driver.now(question) == moved
    table[refs.vaults_of(OWN)] = []
    assert driver.now(question) is None


def test_a_vault_is_found_with_rights_on_its_resource_group() -> None:
    refused = azure(
        {
            refs.vaults_of(OWN): Denied("403"),
            refs.groups_of(OWN): [{"name": "group1"}, {"name": "group2"}],
            refs.vaults_of(OWN, "group1"): [MINE],
            refs.vaults_of(OWN, "group2"): Denied("403"),
        }
    )

    assert find(refused, "mine") == MINE
    assert find(refused, "theirs") == THEIRS
    with pytest.raises(Denied, match="403"):
        find(refused, "another")


@pytest.mark.parametrize("documents", [{}, {refs.vaults_of(OWN): Unavailable("500")}])
def test_resource_groups_are_searched_only_if_the_list_of_the_subscription_is_refused(documents: Any) -> None:
    table = azure({refs.vaults_of(OWN): [], refs.groups_of(OWN): [{"name": "group1"}], **documents})
    table[refs.vaults_of(OWN, "group1")] = [MINE]

    if documents:
        with pytest.raises(Unavailable) as failed:
            find(table, "mine")
        assert failed.value.msg == "500"
    else:
        assert find(table, "mine") is None
    assert table.reads_of(refs.groups_of(OWN), refs.vaults_of(OWN, "group1")) == 0


@pytest.mark.parametrize(
    ("groups", "hint"),
    [([], True), ([{"name": "group1"}], False), (Denied("No groups."), False)],
    ids=["none", "one", "not readable"],
)
def test_a_refused_search_says_whether_the_caller_can_read_a_resource_group(groups: Any, hint: bool) -> None:
    table = azure({refs.vaults_of(OWN): Denied("403"), refs.groups_of(OWN): groups})

    for _search in range(2):
        with pytest.raises(Denied) as refused:
            find(table, "another")
        assert refused.value.msg.count("can read no resource group either") == hint


@pytest.mark.parametrize(
    ("given", "reason", "why"),
    [
        pytest.param([{"actions": ["Microsoft.Batch/*"]}], Denied, ": the caller lacks", id="no right"),
        pytest.param(Denied("403"), Denied, ": the caller lacks", id="permissions cannot be read"),
        pytest.param(Unavailable("503"), Unavailable, ". Run the task again", id="permissions cannot be read now"),
    ],
)
@pytest.mark.parametrize("subscription", [OWN, OTHER])
def test_a_list_of_vaults_that_may_be_incomplete(
    subscription: str, given: Any, reason: type[CmkError], why: str
) -> None:
    """Azure may list only what the caller may read, so a vault that is not listed is unknown."""
    table = azure({permissions(subscription): given})

    assert find(table, "mine") == MINE
    assert find(table, "theirs") == THEIRS
    with pytest.raises(reason, match=rf"the subscription {subscription} may be incomplete{why}"):
        find(table, "another")
    found = ask(table, partial(vaults.named, names={"mine", "another"}, subscriptions=[OWN]))
    assert found["mine"] == MINE
    assert isinstance(found["another"], reason)


@pytest.mark.parametrize(
    ("found", "reasons"),
    [
        pytest.param(MINE, [], id="found"),
        pytest.param(None, ["The role Reader at the subscription is sufficient"], id="in no subscription"),
        pytest.param(Denied("403"), ["403"], id="hidden"),
    ],
)
def test_accounts_in_the_subscription_of_a_vault_that_cannot_be_read(found: Any, reasons: list[str]) -> None:
    """They may use its keys."""
    unlisted = vaults.unseen(found, "mine")

    assert [one["scope"] for one in unlisted] == ["the subscription of the key vault mine"] * len(reasons)
    assert all(reason in one["reason"] for reason, one in zip(reasons, unlisted, strict=True))


# Deleted vaults

GONE: Any = {**deleted_vault(), "name": "Gone"}
FREE, TAKEN = {"nameAvailable": True}, {"nameAvailable": False, "reason": "AlreadyExists"}


def deleted(table: Table, *names: str, unreachable: Sequence[str] = (), own: str | None = OWN) -> dict[str, Any]:
    return ask(table, partial(vaults.deleted, names={*names}, unreachable={*unreachable}, own=own))


@pytest.mark.parametrize("subscription", [OWN, OTHER])
def test_a_deleted_vault_in_any_subscription_of_the_caller(subscription: str) -> None:
    table = azure({refs.deleted_vaults_of(subscription): [GONE]})

    assert deleted(table, "gone", "another", unreachable=["gone"]) == {"gone": GONE, "another": None}
    # The name of a vault that was found says nothing more.
    assert table.reads_of(*(vaults.name_check(one, "gone") for one in (OWN, OTHER))) == 0


CHECKS = {one: vaults.name_check(one, "gone") for one in (OWN, OTHER)}


@pytest.mark.parametrize(
    ("documents", "reason", "words"),
    [
        pytest.param({CHECKS[OWN]: FREE}, None, "", id="the name is available"),
        pytest.param({CHECKS[OWN]: TAKEN}, Denied, "its name is taken", id="the name is taken"),
        pytest.param({CHECKS[OWN]: Denied("403"), CHECKS[OTHER]: FREE}, None, "", id="checked in another subscription"),
        pytest.param(
            {CHECKS[OWN]: Denied("403"), CHECKS[OTHER]: Denied("Not there.")},
            Denied,
            "may exist, or was deleted, where .* Assign Key Vault Reader",
            id="no right to check",
        ),
        pytest.param({CHECKS[OWN]: Unavailable("500")}, Unavailable, "Run the task again", id="cannot be checked now"),
        pytest.param(
            {refs.deleted_vaults_of(OTHER): Denied("No list."), CHECKS[OWN]: TAKEN},
            Denied,
            "Assign Key Vault Reader",
            id="no list",
        ),
    ],
)
def test_a_vault_that_no_list_has_and_whose_host_does_not_respond(
    documents: Any, reason: type[CmkError] | None, words: str
) -> None:
    """It may exist in a subscription that the caller cannot read."""
    found = deleted(azure(documents), "gone", unreachable=["gone"])["gone"]

    assert isinstance(found, reason or type(None))
    if found is not None:
        assert re.search(words, found.msg)


@pytest.mark.parametrize(
    ("listed", "expected"), [([{**GONE, "name": "x"}, GONE], GONE), ([], None), (Denied("403"), None)]
)
def test_a_deleted_vault_of_one_subscription(listed: Any, expected: Any) -> None:
    table = azure({refs.deleted_vaults_of(OWN): listed})

    assert ask(table, partial(vaults.deleted_here, name="GONE", subscription=OWN)) == expected
