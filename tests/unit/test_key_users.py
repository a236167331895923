# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The accounts and pools that are read before a key is disabled or deleted, and before access to it is revoked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import pytest
from azure_table import Table, place, task_of
from documents import (
    DAY,
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
    account_id,
    assignment,
    key,
    listed,
    policy,
    rotation_policy,
    system_assigned,
    vault,
)
from goals import access_goal, key_goal, unused_goal

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.gateway import Answer
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import Denied, Refused
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import parse_key_identifier
from ansible_collections.azbatch.cmk.plugins.module_utils._core.plan import Plan
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.access import plan as access_plan
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.access.client import Access
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key import plan as key_plan
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key.client import Keys
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.visible import HandledAccounts, VisibleAccounts

CREATED = {OLD: NOW - 200 * DAY, MIDDLE: NOW - 100 * DAY, NEW: NOW - 30 * DAY}
IDENTIFIER = parse_key_identifier(KEY, "key_identifier")
READER = [{"actions": ["*/read"]}]
OF_SUBSCRIPTION = refs.accounts_of(SUBSCRIPTION)
ASSIGNMENTS = refs.assignments_at(f"{VAULT_ID}/keys/batch")
NO_RIGHT = Denied("You may not list pools.", azure={"code": "AuthorizationFailed"})
# The principals of the accounts by their names.
PRINCIPALS = {
    name: f"abcdef1{number}-7777-8888-9999-000000000000"
    for number, name in enumerate(("mybatch", "elsewhere", "user", "pools"))
}


class Users(Table):
    """The accounts and pools, and a key with three versions. `ages` are the seconds since an account was changed, by
    its name; None if that is not known. Accounts in `access` have access to the key, and had it long ago. `pools` are
    the pools of the account `pools`. `hidden` are subscriptions whose accounts cannot be listed."""

    def __init__(
        self,
        *accounts: dict[str, Any],
        ages: dict[str, Any] | None = None,
        access: Sequence[str] = (),
        pools: Any = None,
        hidden: Sequence[str] = (),
    ) -> None:
        super().__init__(now=NOW)
        listed_accounts = [*accounts, *([account("pools")] if pools else [])]
        known = {"systemData": {"lastModifiedAt": "2020-01-01T00:00:00Z"}}
        self.update(
            {
                refs.SUBSCRIPTIONS: [{"subscriptionId": one} for one in (SUBSCRIPTION, *hidden)],
                **{refs.accounts_of(one): Denied("403") for one in hidden},
                refs.permissions_at(f"/subscriptions/{SUBSCRIPTION}"): READER,
                OF_SUBSCRIPTION: listed_accounts,
                refs.pools_of(account_id("pools")): pools,
                refs.vaults_of(SUBSCRIPTION): [{**vault(rbac=True), **known}],
                ASSIGNMENTS: [
                    assignment(ENCRYPTION_USER, VAULT_ID, principal=PRINCIPALS[name], age=400 * DAY) for name in access
                ],
            }
        )
        for one in listed_accounts:
            age = (ages or {}).get(one["name"], 30 * DAY)
            self[refs.dated_account(one["id"])] = Answer(one, NOW, None if age is None else NOW - age)

    def has_key(self, *disabled: str) -> None:
        """A key with three versions, of which these are disabled."""
        versions = [
            key(version, created=created, updated=created, enabled=version not in disabled)
            for version, created in CREATED.items()
        ]
        self.update({one["key"]["kid"]: one for one in versions})
        self.update(
            {
                refs.key(IDENTIFIER): versions[-1],
                refs.versions_of(IDENTIFIER): [listed(one) for one in versions],
                refs.rotation_policy_of(IDENTIFIER): rotation_policy(timeAfterCreate="P90D"),
            }
        )

    @property
    def users_asked(self) -> list[str]:
        """The lists of accounts, the access, the names of accounts whose times were read, and the pools, which are read
        together."""

        def each() -> Iterator[str]:
            for one in self.asked:
                if one == place(OF_SUBSCRIPTION):
                    yield "accounts"
                elif one == place(ASSIGNMENTS):
                    yield "access"
                elif one.endswith("/pools"):
                    yield "pools"
                elif "/batchaccounts/" in one:
                    yield one.rpartition("/")[2]

        return [name for name, _reads in groupby(each())]


def clients(users: Users) -> tuple[Keys, Access]:
    task = task_of(users)
    visible = VisibleAccounts(task.session, task.driver, HandledAccounts(task.session.files))
    access = Access(task.session, task.driver, task.gateway, visible)
    return Keys(task.session, task.driver, task.gateway, visible, access), access


def plan(users: Users, *disabled: str, goal: Any = None, **options: Any) -> Plan[Any]:
    users.has_key(*disabled)
    keys, _access = clients(users)
    wanted = goal or key_goal(**options)
    return key_plan.plan(wanted, keys.read(wanted))


DISABLED = {"state": "disabled", "version": MIDDLE, "in_use": "keep"}
DELETED = {"state": "absent", "in_use": "keep"}


def on(used: str | None, name: str = "mybatch") -> dict[str, Any]:
    return account(name, key=used, identity=system_assigned(PRINCIPALS.get(name, PRINCIPAL)))


def pool(used: str) -> dict[str, Any]:
    """A pool with disks that use the key."""
    disks = {"customerManagedKey": {"keyUrl": used}}
    return {
        "id": f"{account_id('pools')}/pools/pool",
        "name": "pool",
        "properties": {
            "lastModified": "2020-01-01T00:00:00Z",
            "deploymentConfiguration": {"virtualMachineConfiguration": {"diskEncryptionConfiguration": disks}},
        },
        "identity": {"userAssignedIdentities": {"id": {"principalId": PRINCIPALS["pools"]}}},
    }


PINNED, ELSEWHERE = on(f"{KEY}/{NEW}"), on(f"{KEY}2", "elsewhere")
BOTH = ("mybatch", "elsewhere")


@pytest.mark.parametrize(
    ("age", "is_kept"),
    [
        pytest.param(3 * DAY, True, id="inside the margin"),
        pytest.param(8 * DAY, False, id="outside the margin"),
        pytest.param(None, True, id="not known"),
    ],
)
@pytest.mark.parametrize(
    ("options", "accounts", "user"),
    [
        pytest.param(DISABLED, (PINNED, ELSEWHERE), "mybatch", id="version"),
        pytest.param({"state": "disabled", "in_use": "keep"}, (ELSEWHERE,), "elsewhere", id="key"),
        pytest.param(DELETED, (ELSEWHERE,), "elsewhere", id="deleted key"),
        pytest.param(
            DISABLED, (PINNED, ELSEWHERE), "elsewhere", id="version, by an account that may have left the key"
        ),
    ],
)
def test_the_last_change_of_an_account_decides(
    options: dict[str, Any], accounts: Any, user: str, age: Any, is_kept: bool
) -> None:
    kept = plan(Users(*accounts, ages={user: age}, access=BOTH if len(accounts) > 1 else BOTH[1:]), **options)

    assert kept.changed is not is_kept
    assert kept.report["in_use_by"] == ([account_id(user)] if is_kept else [])


def test_an_account_that_has_no_access_cannot_have_left_the_key() -> None:
    users = Users(PINNED, ELSEWHERE, ages={"elsewhere": DAY}, access=("mybatch",))

    assert plan(users, **DISABLED).changed
    assert users.users_asked == ["accounts", "access", "mybatch", "pools"]


def test_an_account_that_uses_another_key_does_not_count_for_unused_versions() -> None:
    users = Users(PINNED, ELSEWHERE, ages={"elsewhere": DAY}, access=BOTH)

    assert plan(users, goal=unused_goal()).changed
    assert users.users_asked == ["accounts", "access", "mybatch", "pools"]


@pytest.mark.parametrize(
    ("users", "disabled", "options", "asked"),
    [
        pytest.param(
            Users(PINNED, on(f"{KEY}/{MIDDLE}", "user")), (), DISABLED, ["accounts"], id="an account uses the version"
        ),
        pytest.param(Users(PINNED), (), {"state": "disabled", "in_use": "keep"}, ["accounts"], id="uses the key"),
        pytest.param(Users(PINNED), (), DELETED, ["accounts"], id="uses the deleted key"),
        pytest.param(Users(PINNED), (MIDDLE,), DISABLED, ["accounts"], id="nothing to disable"),
        pytest.param(
            Users(PINNED, ages={"mybatch": DAY}, access=BOTH[:1]),
            (),
            DISABLED,
            ["accounts", "access", "mybatch"],
            id="an account may use the version, so pools are not listed",
        ),
        pytest.param(
            Users(ELSEWHERE, access=BOTH[1:]), (), {**DISABLED, "force": True}, ["accounts", "pools"], id="forced"
        ),
        pytest.param(
            Users(ELSEWHERE), (), {"remove_rotation_policy": True}, ["accounts", "pools"], id="rotation policy removed"
        ),
        pytest.param(Users(PINNED), (), {}, [], id="key present"),
    ],
)
def test_only_what_decides_is_read(
    users: Users, disabled: tuple[str, ...], options: dict[str, Any], asked: list[str]
) -> None:
    plan(users, *disabled, **options)

    assert users.users_asked == asked


@pytest.mark.parametrize(
    ("users", "is_undone", "asked"),
    [
        pytest.param(
            Users(PINNED, access=BOTH[:1]), False, ["accounts", "access", "mybatch", "pools"], id="changed long ago"
        ),
        pytest.param(
            Users(PINNED, access=BOTH[:1], ages={"mybatch": DAY}),
            True,
            ["accounts", "access", "mybatch"],
            id="changed meanwhile",
        ),
        pytest.param(Users(on(f"{KEY}/{MIDDLE}")), True, ["accounts"], id="uses the version"),
        pytest.param(
            Users(pools=[pool(f"{KEY}/{MIDDLE}")]),
            True,
            # The access of the pool's principal is read after the list of pools.
            ["accounts", "access", "pools", "access"],
            id="used by a pool",
        ),
    ],
)
def test_the_second_check_reads_the_same_again(users: Users, is_undone: bool, asked: list[str]) -> None:
    first = plan(Users(PINNED, access=BOTH[:1]), **DISABLED)

    if is_undone:
        with pytest.raises(Refused) as refused:
            plan(users, MIDDLE, goal=first.goal)
        assert refused.value.code == "in_use"
    else:
        assert not plan(users, MIDDLE, goal=first.goal).changed
    assert users.users_asked == asked


@pytest.mark.parametrize("options", [DISABLED, DELETED])
def test_pools_count(options: dict[str, Any]) -> None:
    one = pool(f"{KEY}/{MIDDLE}")

    assert plan(Users(pools=[one]), **options).report["in_use_by"] == [one["id"]]


@pytest.mark.parametrize("options", [DISABLED, DELETED])
@pytest.mark.parametrize("hidden", [{"hidden": ["hidden"]}, {"pools": NO_RIGHT}], ids=["accounts", "pools"])
def test_users_that_cannot_be_listed_are_unknown(options: dict[str, Any], hidden: dict[str, Any]) -> None:
    with pytest.raises(Refused) as refused:
        plan(Users(**hidden), **options)
    assert refused.value.code == "users_unknown"


@pytest.mark.parametrize("found", [[], Denied("403")], ids=["no vault", "not readable"])
@pytest.mark.parametrize("options", [DISABLED, DELETED])
def test_users_of_a_vault_that_cannot_be_read_are_unknown(options: dict[str, Any], found: Any) -> None:
    """They may be in the subscription of the vault."""
    users = Users()
    users[refs.vaults_of(SUBSCRIPTION)] = found

    with pytest.raises(Refused, match="myvault") as refused:
        plan(users, **options)
    assert refused.value.code == "users_unknown"


def test_unused_versions() -> None:
    users = Users(PINNED, access=BOTH[:1], ages={"mybatch": 10 * DAY})
    retired = unused_goal()

    assert plan(users, goal=retired).report["disabled_versions"] == [MIDDLE, OLD]
    kept = plan(Users(PINNED, access=BOTH[:1], ages={"mybatch": DAY}), goal=retired)
    assert kept.report["kept_versions"] == [MIDDLE, OLD]


# Access


def revoke(users: Users, **options: Any) -> Plan[Any]:
    users[refs.vaults_of(SUBSCRIPTION)] = [vault(policy())]
    goal = access_goal(state="absent", in_use="keep", **options)
    return access_plan.plan(goal, clients(users)[1].read(goal))


MANAGED = on(None, "managed")


@pytest.mark.parametrize(
    ("age", "kept_until"),
    [(3 * DAY, "2026-06-01T20:26:40Z"), (8 * DAY, None), (None, "2026-06-04T20:26:40Z")],
)
def test_access_of_an_account_that_was_changed_inside_the_margin(age: float | None, kept_until: str | None) -> None:
    users = Users(MANAGED, account("other", key=KEY), ages={"managed": age})
    kept = revoke(users)

    assert (kept.changed, kept.report["kept_until"]) == (kept_until is None, kept_until)
    # Only accounts that have the principal.
    assert users.users_asked == ["accounts", "pools", "managed"]
    assert kept.report["in_use_by"] == ([account_id("managed")] if kept_until else [])


def test_access_that_is_revoked_by_force_needs_no_times() -> None:
    users = Users(MANAGED, ages={"managed": DAY})

    assert revoke(users, force=True).changed
    assert users.users_asked == ["accounts", "pools"]
