# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The users of keys: the Batch accounts that the caller can read, the scopes
that may have more accounts, and pools' disks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from azure_table import Several, Table, Task, place, task_of
from documents import DAY, KEY, NOW, account

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.facts import Facts
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.gateway import Answer
from ansible_collections.azbatch.cmk.plugins.module_utils._checks.usage import Listed, Unlisted, Visible
from ansible_collections.azbatch.cmk.plugins.module_utils._core.docs import Ref
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import (
    CmkError,
    Denied,
    NotFound,
    Unavailable,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs
from ansible_collections.azbatch.cmk.plugins.module_utils._questions import users

OWN, OTHER = "own", "other"
READ = "Microsoft.Batch/batchAccounts/read"
POOLS_READ = "Microsoft.Batch/batchAccounts/pools/read"
READER = [{"actions": ["*/read"], "notActions": []}]


def of(subscription: str, name: str, group: str = "group1", **properties: Any) -> dict[str, Any]:
    made = account(name)
    made["properties"].update(properties)
    return {**made, "id": refs.account_id(subscription, group, name)}


def permissions(subscription: str) -> Ref[Any]:
    return refs.permissions_at(f"/subscriptions/{subscription}")


def azure(documents: Mapping[Any, Any] | None = None, *accounts: dict[str, Any], now: float | None = None) -> Table:
    """Two subscriptions, in which the caller may read everything, with an account each. `accounts` are those of the
    task's own subscription instead."""
    table = Table(
        {
            refs.SUBSCRIPTIONS: [{"subscriptionId": one} for one in (OWN, OTHER)],
            refs.accounts_of(OWN): list(accounts) or [of(OWN, "one")],
            refs.accounts_of(OTHER): [of(OTHER, "two")],
            permissions(OWN): READER,
            permissions(OTHER): READER,
        },
        now=now,
    )
    table.update(documents or {})
    return table


def task_in(table: Table, folder: Path | None = None) -> Task:
    return task_of(table, folder, subscription=OWN)


def everywhere(table: Table, known: Collection[str] = ()) -> Listed:
    return _everywhere(task_in(table), known)


def _everywhere(task: Task, known: Collection[str] = ()) -> Listed:
    return task.driver.solve(partial(users.everywhere, facts=Facts(task.session), known=known))


def visible(task: Task, asked_at: float | None = None) -> Visible:
    facts = Facts(task.session)
    return task.driver.solve(lambda docs: users.visible(docs, facts), asked_at=asked_at)


def of_subscriptions(table: Table, subscriptions: Sequence[str] = (), own: str | None = OWN) -> Listed:
    question = partial(users.of_subscriptions, subscriptions=subscriptions, own=own)
    return task_in(table).driver.solve(question)


Look = Callable[..., Listed]


@pytest.fixture(params=[everywhere, of_subscriptions], ids=lambda question: question.__name__)
def look(request: pytest.FixtureRequest) -> Look:
    """The two questions have the same result if the accounts of any subscription can be listed."""
    found: Look = request.param
    return found


def names(found: Listed) -> list[str]:
    return sorted(one["id"].rpartition("/")[2] for one in found["accounts"])


def gap(found: Listed) -> Unlisted:
    [only] = found["unlisted"]
    return only


# Lists of accounts


def test_a_list_is_complete_if_the_caller_may_read_the_accounts_of_the_subscription(look: Look) -> None:
    found = look(azure())

    assert names(found) == ["one", "two"]
    assert found["unlisted"] == []


def test_a_list_may_be_incomplete_if_the_caller_may_read_only_some_accounts(look: Look) -> None:
    found = look(azure({permissions(OTHER): [{"actions": ["Microsoft.Batch/*/pools/read"]}]}))

    assert names(found) == ["one", "two"]
    assert (gap(found)["scope"], gap(found)["action"]) == (f"/subscriptions/{OTHER}", READ)


@pytest.mark.parametrize(
    "reason",
    [
        Denied("no"),
        Unavailable("busy"),
    ],
)
def test_a_list_may_be_incomplete_if_the_callers_permissions_are_unknown(look: Look, reason: CmkError) -> None:
    found = look(azure({permissions(OTHER): reason}))

    assert names(found) == ["one", "two"]
    assert (gap(found)["scope"], gap(found)["action"]) == (f"/subscriptions/{OTHER}", READ)
    assert reason.msg in gap(found)["reason"]


@pytest.mark.parametrize("question", [everywhere, of_subscriptions])
def test_the_permissions_are_read_after_the_lists(question: Look) -> None:
    """A role assignment of the caller may end while the lists are read."""
    table = azure()
    question(table)
    lists = [table.asked.index(place(refs.accounts_of(one))) for one in (OWN, OTHER)]

    assert max(lists) < min(table.asked.index(place(permissions(one))) for one in (OWN, OTHER))


@pytest.mark.parametrize(
    ("reason", "action"),
    [
        pytest.param(Denied("403"), READ, id="403"),
        pytest.param(CmkError("401", code="authentication_failed"), None, id="401"),
    ],
)
def test_a_subscription_that_cannot_be_listed_hides_no_other(look: Look, reason: CmkError, action: str | None) -> None:
    table = azure({refs.accounts_of(OTHER): reason})
    found = look(table)

    assert names(found) == ["one"]
    assert gap(found) == {"scope": f"/subscriptions/{OTHER}", "reason": reason.msg, "action": action}
    assert table.reads_of(permissions(OTHER)) == 0
    # Without a missing right, the lists of the resource groups would fail too.
    assert table.reads_of(refs.groups_of(OTHER)) == isinstance(reason, Denied)


def test_the_resource_groups_are_listed_if_the_list_of_the_subscription_is_refused(look: Look) -> None:
    found = look(
        azure(
            {
                refs.accounts_of(OWN): Denied("403"),
                refs.accounts_of(OTHER): [],
                refs.groups_of(OWN): [{"name": "Group1"}, {"name": "group2"}],
                refs.accounts_of(OWN, "group1"): [of(OWN, "one")],
                refs.accounts_of(OWN, "group2"): NotFound("The resource group was deleted."),
            }
        )
    )

    assert names(found) == ["one"]
    assert gap(found)["scope"] == f"/subscriptions/{OWN}"


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        pytest.param(of(OWN, "earlier"), ["earlier", "one", "two"], id="not listed for a moment"),
        pytest.param(None, ["one", "two"], id="deleted"),
    ],
)
def test_an_account_of_an_earlier_list_is_read_if_a_list_does_not_have_it(now: Any, expected: list[str]) -> None:
    """A list may be incomplete for a moment."""
    earlier, listed = (of(OWN, name)["id"].lower() for name in ("earlier", "one"))
    table = azure({refs.account(earlier): now})

    assert names(everywhere(table, [earlier, listed])) == expected
    assert (table.reads_of(refs.account(earlier)), table.reads_of(refs.account(listed))) == (1, 0)


def test_subscriptions_that_cannot_be_listed_count_as_unlisted() -> None:
    found = everywhere(azure({refs.SUBSCRIPTIONS: Unavailable("busy")}))

    assert names(found) == ["one"]
    assert (gap(found)["scope"], gap(found)["reason"]) == ("/subscriptions", "busy")
    with pytest.raises(Unavailable, match="busy"):
        of_subscriptions(azure({refs.SUBSCRIPTIONS: Unavailable("busy")}))


@pytest.mark.parametrize("listed", [[], [OTHER], [OTHER, OWN.upper()]])
def test_the_subscription_of_the_task_is_listed_once_and_first(listed: list[str]) -> None:
    table = azure({refs.SUBSCRIPTIONS: [{"subscriptionId": one} for one in listed]})
    assert [one["name"] for one in everywhere(table)["accounts"]] == ["one", "two"][: 1 + (OTHER in listed)]

    table[refs.accounts_of(OWN)] = Denied("403")
    assert gap(everywhere(table))["scope"] == f"/subscriptions/{OWN}"


def test_if_azure_lists_no_subscription_and_none_is_known_nothing_is_listed() -> None:
    found = of_subscriptions(azure({refs.SUBSCRIPTIONS: []}), own=None)

    assert found["accounts"] == []
    assert (gap(found)["scope"], gap(found)["action"]) == ("/subscriptions", "Microsoft.Resources/subscriptions/read")


def test_only_the_named_subscriptions_are_listed() -> None:
    table = azure()

    for own in (OWN, None):
        assert names(of_subscriptions(table, subscriptions=[OTHER], own=own)) == ["two"]
    assert table.reads_of(refs.SUBSCRIPTIONS, refs.accounts_of(OWN)) == 0


@pytest.mark.parametrize(("subscriptions", "option"), [([OWN], "subscriptions"), ([], "subscription_id")])
def test_an_error_of_a_named_subscription_names_the_option_that_lists_it(subscriptions: list[str], option: str) -> None:
    remedy = "Correct O(subscription_id)."
    unknown = NotFound(f"Azure does not know it. {remedy}", option="subscription_id", remedy=remedy)
    table = azure({refs.SUBSCRIPTIONS: [{"subscriptionId": OWN}], refs.accounts_of(OWN): unknown})

    with pytest.raises(NotFound) as failed:
        of_subscriptions(table, subscriptions=subscriptions)
    assert failed.value.msg == f"Azure does not know it. Correct O({option})."
    assert failed.value.facts == {"option": option, "remedy": f"Correct O({option})."}


def test_an_inventory_of_nothing_but_failures_fails() -> None:
    nothing = {refs.accounts_of(OWN): NotFound("404"), refs.accounts_of(OTHER): Unavailable("500")}
    with pytest.raises(NotFound):
        of_subscriptions(azure(nothing))

    assert len(everywhere(azure(nothing))["unlisted"]) == 2
    refused = of_subscriptions(azure({**nothing, refs.accounts_of(OWN): Denied("403")}))
    assert len(refused["unlisted"]) == 2


ONE, TWO = (of(subscription, name)["id"] for subscription, name in ((OWN, "one"), (OTHER, "two")))


# All users


def test_accounts_pools_and_missing_rights_are_read_together() -> None:
    denied = Denied("No.", azure={"code": "AuthorizationFailed"})
    table = azure({refs.SUBSCRIPTIONS: Denied("No."), refs.pools_of(ONE): denied}, of(OWN, "one"), of(OWN, "more"))

    found = visible(task_in(table))

    assert (names(found), found["disks"]) == (["more", "one"], [])
    assert [one["scope"] for one in found["unlisted"]] == ["/subscriptions", f"/subscriptions/{OWN}"]


# The keys of pools' disks


def disks(table: Table, *accounts: Any) -> tuple[list[Any], list[Any]]:
    """The keys of the pools of these accounts, by default of one account."""
    return _disks(task_in(table), *accounts)


def _disks(task: Task, *accounts: Any) -> tuple[list[Any], list[Any]]:
    given: Any = accounts or [of(OWN, "one")]
    return task.driver.solve(partial(users.disks, facts=Facts(task.session), accounts=given))


def pool(
    key: str | None = None, *, latest: bool | None = None, identity: Any = None, uses: str | None = None
) -> dict[str, Any]:
    """`uses` is the assigned identity that reads the key."""
    own: Any = {"keyUrl": key, "rotationToLatestKeyVersionEnabled": latest} if key else None
    if uses:
        own["identityReference"] = {"resourceId": uses}
    encryption = {"targets": ["OsDisk"], "customerManagedKey": own}
    machine = {"virtualMachineConfiguration": {"diskEncryptionConfiguration": encryption}}
    body = {"id": f"{ONE}/pools/pool1", "name": "pool1", "properties": {"deploymentConfiguration": machine}}
    return {**body, **({"identity": {"userAssignedIdentities": identity}} if identity else {})}


@pytest.mark.parametrize(
    ("pools", "expected"),
    [
        pytest.param(
            [pool("https://v.vault.azure.net/keys/k")],
            [("https://v.vault.azure.net/keys/k", False, None)],
            id="identity not returned",
        ),
        pytest.param(
            [{**pool(), "properties": {"osDisk": {"managedDisk": {"diskEncryptionSet": {"id": "d"}}}}}],
            [(None, False, None)],
            id="a disk encryption set",
        ),
        pytest.param(
            [pool("https://v.vault.azure.net/keys/k/1", latest=True, identity={"a": {"principalId": "p"}})],
            [("https://v.vault.azure.net/keys/k/1", True, ["p"])],
            id="follows",
        ),
        pytest.param(
            [pool("https://v.vault.azure.net/keys/k", identity={"a": {}, "One": {"principalId": "p"}}, uses="ONE")],
            [("https://v.vault.azure.net/keys/k", False, ["p"])],
            id="one of two identities",
        ),
    ],
)
def test_keys_of_pools(pools: Any, expected: Any) -> None:
    found, unlisted = disks(Table({refs.pools_of(ONE): pools}))

    assert unlisted == []
    assert [(one["key"], one["follows_latest"], one["principals"]) for one in found] == expected


@pytest.mark.parametrize(("shown", "changed_at"), [("2026-05-28T20:26:40Z", NOW), (None, None)])
def test_the_time_of_the_last_change_of_a_pool(shown: str | None, changed_at: float | None) -> None:
    changed = pool(KEY)
    changed["properties"]["lastModified"] = shown

    found, _unlisted = disks(Table({refs.pools_of(ONE): [changed]}))

    assert [one["changed_at"] for one in found] == [changed_at]


NO_KEY = Denied("The key is disabled.", azure={"code": "Forbidden"})


@pytest.mark.parametrize(
    ("changed_at", "counts"),
    [
        pytest.param(NOW - 6 * DAY, True, id="inside the margin"),
        pytest.param(None, True, id="time not known"),
    ],
)
def test_pools_of_an_account_whose_creation_has_failed(changed_at: float | None, counts: bool) -> None:
    """If it was changed long ago, the account counts for its own key only: otherwise no version would ever end."""
    failed = of(OWN, "one", provisioningState="Failed")
    table = Table({refs.pools_of(ONE): NO_KEY, refs.dated_account(ONE): Answer(failed, NOW, changed_at)}, now=NOW)
    found, unlisted = _disks(task_in(table), failed)

    assert [one["id"] for one in found] == [ONE] * counts
    assert unlisted == []


def test_pools_that_cannot_be_listed_are_reported_once_for_each_subscription() -> None:
    denied = Denied("No.", azure={"code": "AuthorizationFailed"})
    accounts = of(OWN, "one"), of(OWN, "more"), of(OTHER, "two")
    table = Table(
        {
            refs.pools_of(ONE): denied,
            refs.pools_of(accounts[1]["id"]): denied,
            refs.pools_of(TWO): Unavailable("500"),
        }
    )

    found, unlisted = disks(table, *accounts)

    assert unlisted == [{"scope": f"/subscriptions/{OWN}", "reason": "2 of the accounts: No.", "action": POOLS_READ}]
    # Without a missing right, the pools of this account only may use any key.
    assert [(one["id"], one["key"]) for one in found] == [(TWO, None)]


@pytest.mark.parametrize(
    ("there", "pools", "keys"),
    [
        pytest.param(None, Several(NotFound("404")), [], id="was deleted"),
        pytest.param(of(OWN, "one"), Several(NotFound("404"), [pool(KEY)]), [KEY], id="was not found at once"),
        pytest.param(of(OWN, "one"), Several(NotFound("404")), [None], id="exists without its pools"),
    ],
)
def test_pools_of_an_account_that_is_not_found(there: Any, pools: Several, keys: list[str | None]) -> None:
    """For a moment, Azure may not find an account that exists."""
    found, unlisted = disks(Table({refs.pools_of(ONE): pools, refs.account(ONE): there}))

    assert [one["key"] for one in found] == keys
    assert unlisted == []


# When accounts were changed


UPPER = KEY.upper().replace("HTTPS", "https")


def read_of(changed_at: float | None, at: float | None, key: str | None) -> Answer:
    return Answer(account("one", key=key), at, changed_at)


@pytest.mark.parametrize(
    ("listed_key", "response", "changed_at"),
    [
        pytest.param(KEY, read_of(50.0, 100.0, UPPER), 50.0, id="in another letter case"),
        pytest.param(KEY, read_of(50.0, 100.0, f"{KEY}2"), None, id="another key: one of the two is out of date"),
        pytest.param(KEY, read_of(None, 100.0, KEY), None, id="a response without the time"),
        pytest.param(KEY, Answer(None, 100.0), None, id="deleted"),
    ],
)
def test_when_an_account_was_changed(listed_key: str | None, response: Any, changed_at: float | None) -> None:
    listed: Any = account("one", key=listed_key)
    task = task_of(Table({refs.dated_account(listed["id"]): response}))

    assert task.driver.solve(partial(users.changed_at, accounts=[listed])) == {listed["id"]: changed_at}
