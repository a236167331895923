# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Batch accounts that the caller can read, and the scopes that may have more, with a Resource Manager in memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from documents import KEY, account

from ansible_collections.azbatch.cmk.plugins.module_utils._azure import gateway as gateway_module
from ansible_collections.azbatch.cmk.plugins.module_utils._azure import resources as resources_module
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.cache import Cache
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.journal import Journal
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_store import RunFiles
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.visible import (
    DiskKeys,
    HandledAccounts,
    VisibleAccounts,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import (
    CmkError,
    Denied,
    NotFound,
    Rejected,
    Unavailable,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import key_of
from ansible_collections.azbatch.cmk.plugins.module_utils._core.plan import SentWrites
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.account.client import Accounts
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.vault.reads import VaultReads

OWN, OTHER = "own", "other"
READ = "Microsoft.Batch/batchAccounts/read"
READER = [{"actions": ["*/read"], "notActions": []}]
Answer = Any


def of(subscription: str, name: str, group: str = "group1") -> dict[str, Any]:
    place = f"/subscriptions/{subscription}/resourceGroups/{group}"
    return {**account(name), "id": f"{place}/providers/Microsoft.Batch/batchAccounts/{name}"}


def returned(answer: Answer) -> Any:
    if isinstance(answer, CmkError):
        raise answer
    return answer


class Several(list[Any]):
    """The responses to the same request, one after the other."""


class Resources:
    """Responses, or errors that are raised."""

    def __init__(self, **answers: Answer) -> None:
        self.subscriptions: Answer = [OWN, OTHER]
        self.lists: dict[Any, Answer] = {OWN: [of(OWN, "one")], OTHER: [of(OTHER, "two")]}
        self.allowed: dict[str, Answer] = {OWN: READER, OTHER: READER}
        self.in_groups: dict[str, Answer] = {}
        self.single: dict[str, Answer] = {}
        self.of_account: dict[str, Answer] = {}
        # The ids of the accounts whose pools were listed.
        self.asked: list[str] = []
        vars(self).update(answers)

    def subscription_ids(self) -> list[str]:
        return list(returned(self.subscriptions))

    listed_subscription_ids = subscription_ids

    def accounts(self, subscription: str, group: str | None = None) -> list[dict[str, Any]]:
        return list(returned(self.lists[(subscription, group) if group else subscription]))

    def permissions(self, scope: str, not_before: float) -> list[dict[str, Any]]:
        assert not_before <= time.monotonic()
        return list(returned(self.allowed[scope.rpartition("/")[2]]))

    def groups(self, subscription: str) -> list[str]:
        return list(returned(self.in_groups.get(subscription, [])))

    def account(self, account_id: str) -> dict[str, Any]:
        found: dict[str, Any] = returned(self.single[account_id])
        return found

    def pools(self, account_id: str) -> list[dict[str, Any]]:
        self.asked.append(account_id)
        answers = self.of_account.get(account_id, [])
        return list(returned(answers.pop(0) if isinstance(answers, Several) else answers))


class Session:
    subscription_id = vault_subscription_id = OWN

    def __init__(self) -> None:
        self.cache = Cache(RunFiles(None), lambda: "me")
        self.journal = Journal(RunFiles(None), SentWrites())


def visible(resources: Any, *handled: str, session: Any = None) -> VisibleAccounts:
    session = session or Session()
    accounts = HandledAccounts(RunFiles(None))
    for one in handled:
        accounts.add(one)
    return VisibleAccounts(session, resources, accounts, DiskKeys(session, resources))


def names(found: dict[str, Any]) -> list[str]:
    return sorted(one["name"] for one in found["accounts"])


def gap(found: dict[str, Any]) -> dict[str, Any]:
    [only] = found["unlisted"]
    return dict(only)


@pytest.fixture(params=["read", "listed"])
def look(request: pytest.FixtureRequest) -> Callable[[VisibleAccounts], dict[str, Any]]:
    """The two methods return the same if any accounts can be listed."""
    return {"read": lambda seen: seen.read(), "listed": lambda seen: seen.listed(())}[request.param]


Look = Callable[[VisibleAccounts], dict[str, Any]]


def test_the_subscription_of_the_task_is_read_if_azure_lists_none() -> None:
    """If Azure lists no subscription for the caller, an audit must not report that all accounts are compliant."""
    found = visible(Resources(subscriptions=[], lists={OWN: Denied("403")})).listed(())
    assert (names(found), gap(found)["scope"]) == ([], f"/subscriptions/{OWN}")


def test_a_list_is_whole_if_the_caller_may_read_accounts_of_the_subscription(look: Look) -> None:
    found = look(visible(Resources()))

    assert names(found) == ["one", "two"]
    assert found["unlisted"] == []


def test_a_list_of_readable_accounts_is_not_complete(look: Look) -> None:
    found = look(visible(Resources(allowed={OWN: READER, OTHER: [{"actions": ["Microsoft.Batch/*/pools/read"]}]})))

    assert names(found) == ["one", "two"]
    assert (gap(found)["scope"], gap(found)["action"]) == (f"/subscriptions/{OTHER}", READ)


@pytest.mark.parametrize("reason", [Denied("no"), NotFound("none"), Unavailable("busy"), Rejected("odd")])
def test_a_list_is_incomplete_if_the_callers_permissions_are_unknown(look: Look, reason: CmkError) -> None:
    found = look(visible(Resources(allowed={OWN: READER, OTHER: reason})))

    assert names(found) == ["one", "two"]
    assert (gap(found)["scope"], gap(found)["action"]) == (f"/subscriptions/{OTHER}", READ)
    assert reason.msg in gap(found)["reason"]


@pytest.mark.parametrize(
    ("reason", "action"),
    [
        pytest.param(Denied("403"), READ, id="403"),
        pytest.param(NotFound("404"), None, id="404"),
        pytest.param(Rejected("409"), None, id="409"),
        pytest.param(Unavailable("500"), None, id="500"),
        pytest.param(CmkError("401", code="authentication_failed"), None, id="401"),
    ],
)
def test_a_subscription_that_cannot_be_listed_hides_no_other(look: Look, reason: CmkError, action: str | None) -> None:
    found = look(visible(Resources(lists={OWN: [of(OWN, "one")], OTHER: reason})))

    assert names(found) == ["one"]
    assert gap(found) == {"scope": f"/subscriptions/{OTHER}", "reason": reason.msg, "action": action}


def test_the_groups_are_listed_where_the_subscription_is_refused(look: Look) -> None:
    refused = Resources(
        lists={OWN: Denied("403"), OTHER: [], (OWN, "group1"): [of(OWN, "one")], (OWN, "group2"): NotFound("gone")},
        in_groups={OWN: ["Group1", "group2"]},
    )

    found = look(visible(refused))

    assert names(found) == ["one"]
    assert gap(found)["scope"] == f"/subscriptions/{OWN}"


@pytest.mark.parametrize("reason", [Denied("403"), Unavailable("500")])
def test_accounts_of_the_run_are_read_where_the_list_is_not_whole(look: Look, reason: CmkError) -> None:
    mine, gone, whole = (of(*one)["id"].lower() for one in ((OWN, "mine"), (OWN, "gone"), (OTHER, "two")))
    resources = Resources(
        lists={OWN: reason, OTHER: [of(OTHER, "two")], (OWN, "group1"): Denied("403")},
        single={mine: of(OWN, "mine"), gone: NotFound("404")},
    )

    found = look(visible(resources, mine, gone, whole))

    assert names(found) == ["mine", "two"]
    assert gap(found)["scope"] == f"/subscriptions/{OWN}"


def test_the_groups_of_accounts_of_the_run_are_listed_even_if_groups_are_not(look: Look) -> None:
    mine = of(OWN, "mine")["id"]
    resources = Resources(
        lists={OWN: Denied("403"), OTHER: [], (OWN, "group1"): [of(OWN, "mine"), of(OWN, "neighbour")]},
        in_groups={OWN: Denied("403")},
    )

    assert names(look(visible(resources, mine))) == ["mine", "neighbour"]


def test_a_filtered_list_lacks_an_account_of_the_run(look: Look) -> None:
    mine = of(OWN, "mine")["id"].lower()
    resources = Resources(lists={OWN: [], OTHER: []}, allowed={OWN: [], OTHER: READER}, single={mine: of(OWN, "mine")})

    assert names(look(visible(resources, mine))) == ["mine"]


def test_subscriptions_that_cannot_be_listed_count_as_unlisted() -> None:
    found = visible(Resources(subscriptions=Unavailable("busy"))).read()

    assert names(found) == ["one"]
    assert (gap(found)["scope"], gap(found)["reason"]) == ("/subscriptions", "busy")


def test_an_inventory_of_nothing_but_failures_fails() -> None:
    nothing = Resources(lists={OWN: NotFound("404"), OTHER: Unavailable("500")})
    with pytest.raises(NotFound):
        visible(nothing).listed(())

    assert len(visible(nothing).read()["unlisted"]) == 2
    refused = visible(Resources(lists={OWN: Denied("403"), OTHER: Unavailable("500")})).listed(())
    assert len(refused["unlisted"]) == 2


def test_accounts_of_the_run_are_kept_once() -> None:
    handled = HandledAccounts(RunFiles(None))
    for name in ("One", "one", "two"):
        handled.add(name)

    assert sorted(handled.ids()) == ["one", "two"]


# The keys of pools' disks

ONE, TWO = (of(subscription, name)["id"] for subscription, name in ((OWN, "one"), (OTHER, "two")))
POOLS_READ = "Microsoft.Batch/batchAccounts/pools/read"


def pool(
    key: str | None = None, *, latest: bool | None = None, identity: Answer = None, uses: str | None = None
) -> dict[str, Any]:
    """`uses` is the assigned identity that reads the key."""
    own: Any = {"keyUrl": key, "rotationToLatestKeyVersionEnabled": latest} if key else None
    if uses:
        own["identityReference"] = {"resourceId": uses}
    disks = {"targets": ["OsDisk"], "customerManagedKey": own}
    machine = {"virtualMachineConfiguration": {"diskEncryptionConfiguration": disks}}
    body = {"id": f"{ONE}/pools/pool1", "name": "pool1", "properties": {"deploymentConfiguration": machine}}
    return {**body, **({"identity": {"userAssignedIdentities": identity}} if identity else {})}


@pytest.mark.parametrize(
    ("pools", "expected"),
    [
        pytest.param([], [], id="no pools"),
        pytest.param([{"id": "1", "name": "1", "properties": {}}], [], id="a pool without a configuration"),
        pytest.param([pool()], [], id="a key of the platform"),
        pytest.param(
            [pool("https://v.vault.azure.net/keys/k")],
            [("https://v.vault.azure.net/keys/k", False, None)],
            id="identity not returned",
        ),
        pytest.param([pool("k")], [(None, False, None)], id="no identifier of a key"),
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
            [pool("https://v.vault.azure.net/keys/k", identity={"a": {"principalId": "p"}, "b": {}})],
            [("https://v.vault.azure.net/keys/k", False, None)],
            id="one principal is not returned",
        ),
        pytest.param(
            [pool("https://v.vault.azure.net/keys/k", identity={"a": {}, "B": {"principalId": "p"}}, uses="b")],
            [("https://v.vault.azure.net/keys/k", False, ["p"])],
            id="one of two identities",
        ),
        pytest.param(
            [pool("https://v.vault.azure.net/keys/k", identity={"a": {"principalId": "p"}}, uses="gone")],
            [("https://v.vault.azure.net/keys/k", False, ["p"])],
            id="an identity that is not assigned",
        ),
    ],
)
def test_keys_of_pools(pools: Answer, expected: Answer) -> None:
    found = visible(Resources(of_account={ONE: pools})).read()

    assert found["unlisted"] == []
    assert [(one["key"], one["follows_latest"], one["principals"]) for one in found["disks"]] == expected


def test_an_account_without_its_key_may_have_pools_with_any_key() -> None:
    found = visible(Resources(of_account={ONE: Denied("The key is disabled.", azure={"code": "Forbidden"})})).read()

    assert [(one["id"], one["key"], one["principals"]) for one in found["disks"]] == [(ONE, None, None)]


def test_pools_that_cannot_be_listed_are_reported_once_for_each_subscription() -> None:
    denied = Denied("No.", azure={"code": "AuthorizationFailed"})
    more = of(OWN, "more")
    everything = Resources(
        lists={OWN: [of(OWN, "one"), more], OTHER: [of(OTHER, "two")]},
        of_account={ONE: denied, more["id"]: denied, TWO: Unavailable("500")},
    )
    found = visible(everything).read()

    assert found["unlisted"] == [
        {"scope": f"/subscriptions/{OWN}", "reason": "2 of the accounts: No.", "action": POOLS_READ}
    ]
    # Without a missing right, the pools of this account only may use any key.
    assert [(one["id"], one["key"]) for one in found["disks"]] == [(TWO, None)]


@pytest.mark.parametrize(
    ("account", "answers", "outcome"),
    [
        pytest.param(NotFound("404"), Several([NotFound("404")]), ([], []), id="was deleted"),
        pytest.param(of(OWN, "one"), Several([NotFound("404"), [pool(KEY)]]), ([KEY], []), id="was not found at once"),
        pytest.param(of(OWN, "one"), Several([NotFound("404")] * 2), ([None], []), id="exists without its pools"),
    ],
)
def test_an_account_that_is_not_found(account: Answer, answers: Answer, outcome: Answer) -> None:
    found = visible(Resources(of_account={ONE: answers}, single={ONE: account})).read()

    assert ([one["key"] for one in found["disks"]], [one["scope"] for one in found["unlisted"]]) == outcome


def test_pools_of_an_account_in_creation_are_not_listed() -> None:
    new = of(OWN, "one")
    new["properties"] = {**new["properties"], "provisioningState": "Creating"}
    resources = Resources(lists={OWN: [new], OTHER: []})
    visible(resources).read()

    assert resources.asked == []


@pytest.mark.parametrize("accounts", [1, 200])
def test_pools_are_listed_for_each_check(accounts: int) -> None:
    listed = [of(OWN, f"account{number}") for number in range(accounts)]
    resources = Resources(lists={OWN: listed, OTHER: []})
    seen = visible(resources)
    for _check in range(2):
        resources.asked.clear()
        seen.read()
        assert sorted(resources.asked) == sorted(one["id"] for one in listed)


def test_checks_share_the_pools_that_were_listed_late_enough() -> None:
    """Tasks that wait until no list can be older than a change. The pools of a new account are always listed."""
    listed = [of(OWN, "one")]
    resources = Resources(lists={OWN: listed, OTHER: []})
    seen = visible(resources)
    seen.not_before = time.monotonic()
    seen.read()
    listed.append(of(OWN, "newcomer"))
    seen.read()
    assert resources.asked == [one["id"] for one in listed]

    seen.not_before = time.monotonic()
    seen.read()
    assert resources.asked[2:] == [one["id"] for one in listed]


def test_the_pools_of_an_account_are_listed_once_although_it_is_listed_and_written() -> None:
    resources = Resources(lists={OWN: [of(OWN, "one")], OTHER: []})
    session = Session()
    with session.journal.writing("PATCH", ONE, {"properties": {"encryption": {}}}, undoes=False):
        pass
    seen = visible(resources, session=session)

    found = seen.read()

    assert [one["id"] for one in found["accounts"]] == [ONE, ONE]
    assert resources.asked == [ONE]


# Accounts that the run has written


def test_accounts_are_as_listed_and_as_the_run_has_written_them() -> None:
    session = Session()
    to_key = {"encryption": {"keySource": "Microsoft.KeyVault", "keyVaultProperties": {"keyIdentifier": KEY}}}
    with session.journal.writing("PATCH", TWO, {"properties": to_key}, undoes=False):
        pass

    found = visible(Resources(), session=session).everywhere()

    assert [(one["id"], key_of(one) and str(key_of(one))) for one in found["accounts"]] == [
        (ONE, None),
        (TWO, None),
        (TWO, KEY),
    ]


# When accounts were changed


def read_of(changed_at: float | None, at: float | None, key: str | None) -> gateway_module.Answer:
    return gateway_module.Answer(account("one", key=key), at, changed_at)


@pytest.mark.parametrize(
    ("listed_key", "answer", "changed_at"),
    [
        pytest.param(KEY, read_of(50.0, 100.0, KEY), 50.0, id="the same key"),
        pytest.param(
            KEY, read_of(50.0, 100.0, KEY.upper().replace("HTTPS", "https")), 50.0, id="in another letter case"
        ),
        pytest.param(None, read_of(50.0, 100.0, None), 50.0, id="no key"),
        pytest.param(KEY, read_of(50.0, 100.0, f"{KEY}2"), None, id="another key: one of the two is out of date"),
        pytest.param(KEY, read_of(50.0, 100.0, None), None, id="no key any more"),
        pytest.param(None, read_of(50.0, 100.0, KEY), None, id="a key meanwhile"),
        pytest.param(KEY, read_of(None, 100.0, KEY), None, id="a response without the time"),
        pytest.param(KEY, gateway_module.Answer(None, 100.0), None, id="deleted"),
        pytest.param(KEY, Unavailable("500"), None, id="not readable"),
    ],
)
def test_when_an_account_was_changed(listed_key: str | None, answer: Answer, changed_at: float | None) -> None:
    session, listed = Session(), account("one", key=listed_key)
    gateway: Any = SimpleNamespace(answer=lambda _what, _ref: returned(answer))
    seen = visible(resources_module.Resources(session, gateway), session=session)  # type: ignore[arg-type]

    found, now = seen.changed_at([listed])

    assert found == {listed["id"]: changed_at}
    if isinstance(answer, CmkError):
        # The local time.
        assert abs(now - time.time()) < 60
    else:
        assert now == 100.0


def test_the_time_of_the_check_is_that_of_the_latest_response() -> None:
    session, listed = Session(), [of(OWN, name) for name in ("one", "two", "three")]
    times = dict(zip([one["id"] for one in listed], [100.0, 300.0, None], strict=True))
    gateway: Any = SimpleNamespace(answer=lambda _what, ref: gateway_module.Answer(account(), times[ref], 50.0))
    resources = resources_module.Resources(session, gateway)  # type: ignore[arg-type]

    assert visible(resources, session=session).changed_at(listed)[1] == 300.0
    # Without a response, it is the local time.
    assert abs(visible(resources, session=session).changed_at([])[1] - time.time()) < 60


def test_the_time_of_a_change_is_not_known_if_the_run_has_written_the_account() -> None:
    """The read may be older than the write."""
    session, listed = Session(), [of(OWN, "one"), of(OWN, "two")]
    gateway: Any = SimpleNamespace(answer=lambda _what, _ref: gateway_module.Answer(account(), 100.0, 50.0))
    with session.journal.writing("PATCH", ONE, {"identity": {"type": "None"}}, undoes=False):
        pass
    seen = visible(resources_module.Resources(session, gateway), session=session)  # type: ignore[arg-type]

    assert seen.changed_at(listed)[0] == {listed[0]["id"]: None, listed[1]["id"]: 50.0}


def test_a_time_is_read_again_unless_it_was_read_late_enough() -> None:
    session, listed = Session(), [of(OWN, "one")]
    reads: list[str] = []

    def answer(_what: str, ref: str) -> gateway_module.Answer:
        reads.append(ref)
        return gateway_module.Answer(account(), 100.0, 50.0)

    gateway: Any = SimpleNamespace(answer=answer)
    seen = visible(resources_module.Resources(session, gateway), session=session)  # type: ignore[arg-type]
    seen.changed_at(listed)
    seen.changed_at(listed)
    assert len(reads) == 2

    seen.not_before = time.monotonic()
    seen.changed_at(listed)
    seen.changed_at(listed)
    assert len(reads) == 3


# Vaults and accounts without the subscription's list


class Listing:
    """Key vaults of a subscription and of its groups."""

    def __init__(self, subscription: Answer, *, permissions: Answer | None = None, **groups: Answer) -> None:
        self.subscription, self.in_groups = subscription, groups
        self._permissions: Answer = [{"actions": ["*/read"]}] if permissions is None else permissions

    def permissions(self, _scope: str, _not_before: float) -> Any:
        return returned(self._permissions)

    def subscription_ids(self) -> list[str]:
        return [OWN]

    def listed_subscription_ids(self) -> list[str]:
        return [OWN]

    def groups(self, _subscription: str) -> list[str]:
        return [*self.in_groups]

    def vaults(self) -> VaultReads:
        found = VaultReads(Session(), None, self)  # type: ignore[arg-type]
        found.listed = lambda _subscription, group=None: returned(  # type: ignore[method-assign]
            self.in_groups[group] if group else self.subscription
        )
        return found


def test_a_vault_is_found_with_rights_on_its_group() -> None:
    mine = {"name": "mine"}
    refused = Listing(Denied("403"), group1={"mine": mine}, group2=Denied("403"))

    assert refused.vaults().find("Mine", None) == mine
    with pytest.raises(Denied):
        refused.vaults().find("another", None)
    assert Listing({}, group1={"mine": mine}).vaults().find("mine", None) is None
    with pytest.raises(Unavailable):
        Listing(Unavailable("500"), group1={"mine": mine}).vaults().find("mine", None)


@pytest.mark.parametrize(
    ("permissions", "reason"),
    [
        pytest.param([{"actions": ["Microsoft.Batch/*"]}], Denied, id="no right"),
        pytest.param([], Denied, id="no role"),
        pytest.param(Denied("403"), Denied, id="permissions cannot be read"),
        pytest.param(Unavailable("500"), Unavailable, id="permissions cannot be read now"),
    ],
)
def test_a_list_of_vaults_that_may_be_incomplete(permissions: Any, reason: type[CmkError]) -> None:
    """Azure may list only what the caller may read, so a vault that is not listed is unknown."""
    mine: Any = {"name": "mine"}
    vaults = Listing({"mine": mine}, permissions=permissions).vaults()

    assert vaults.find("mine", None) == mine
    with pytest.raises(reason, match=r"may be incomplete"):
        vaults.find("another", None)
    found = vaults.named({"mine", "another"}, [OWN])
    assert found["mine"] == mine
    assert isinstance(found["another"], reason)


@pytest.mark.parametrize(("answer", "found"), [([of(OWN, "One")], ["group1/one"]), (Denied("403"), [])])
def test_many_accounts_are_listed_if_they_may_be(answer: Answer, found: list[str]) -> None:
    resources = Resources(lists={OWN: answer})
    accounts = Accounts(Session(), None, resources, None, None, HandledAccounts(RunFiles(None)))  # type: ignore[arg-type]

    assert list(accounts._listed()) == found


def test_an_account_that_is_read_is_one_of_the_run() -> None:
    session = Session()
    gateway: Any = SimpleNamespace(answer=answered)
    others: Any = None
    handled, resources = HandledAccounts(RunFiles(None)), resources_module.Resources(session, gateway)  # type: ignore[arg-type]
    accounts = Accounts(session, gateway, resources, others, others, handled)  # type: ignore[arg-type]

    accounts.get("group1", "one")
    accounts.get("group1", "gone")

    assert handled.ids() == [of(OWN, "one")["id"].lower()]


def answered(_what: str, ref: str) -> gateway_module.Answer:
    group, name = ref.split("/")[4], ref.rpartition("/")[2]
    return gateway_module.Answer(None if name == "gone" else of(OWN, name, group))
