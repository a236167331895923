# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The accounts and pools that are read before a key or a version is disabled or deleted, and before access is revoked.

Key Vault's SDK reads a key from an HTTP adapter in memory.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from email.utils import formatdate
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from documents import (
    DAY,
    KEY,
    MIDDLE,
    NEW,
    NOW,
    OLD,
    account,
    account_id,
    disk,
    key,
    listed,
    not_listed,
    policy,
    rotation_policy,
    system_assigned,
    vault,
)
from goals import access_goal, key_goal, unused_goal

from ansible_collections.azbatch.cmk.plugins.module_utils._arguments import CONNECTION
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.cache import Cache
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.gateway import Gateway
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_store import RunFiles
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.sdk import transport
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.session import Session
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import Refused
from ansible_collections.azbatch.cmk.plugins.module_utils._core.plan import Plan
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.access import plan as access_plan
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.access.client import Access
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key import plan as key_plan
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key.client import Keys

pytest.importorskip("azure.keyvault.keys")
requests = pytest.importorskip("requests")

CREATED = {OLD: NOW - 200 * DAY, MIDDLE: NOW - 100 * DAY, NEW: NOW - 30 * DAY}


class KeyVault(requests.adapters.BaseAdapter):  # type: ignore[name-defined, misc]
    """A key with three versions. `disabled` are versions that are disabled."""

    def __init__(self, *disabled: str) -> None:
        super().__init__()
        self.versions = {
            version: key(version, created=created, updated=created, enabled=version not in disabled)
            for version, created in CREATED.items()
        }

    def send(self, request: Any, *_args: Any, **_options: Any) -> Any:
        answer = requests.Response()
        answer.status_code, answer.request, answer.url = 200, request, request.url
        answer.headers.update({"Content-Type": "application/json", "Date": formatdate(NOW, usegmt=True)})
        answer.raw = io.BytesIO(json.dumps(self._read(urlsplit(request.url).path.strip("/").split("/"))).encode())
        return answer

    def _read(self, path: Sequence[str]) -> Any:
        what = path[2] if len(path) > 2 else NEW
        if what == "versions":
            return {"value": [listed(one) for one in self.versions.values()]}
        return rotation_policy(timeAfterCreate="P90D") if what == "rotationpolicy" else self.versions[what]

    def close(self) -> None:
        pass


class Credential:
    def get_token(self, *_scopes: str, **_options: Any) -> Any:
        from azure.core.credentials import AccessToken

        return AccessToken("token", 2**31)


class Users:
    """The accounts and pools. `ages` are the seconds since an account was changed, by its name; None if that is not
    known. Accounts in `access` have access to the key. `asked` has what was read."""

    def __init__(
        self,
        *accounts: dict[str, Any],
        ages: dict[str, Any] | None = None,
        access: Sequence[str] = (),
        disks: Sequence[dict[str, Any]] = (),
        hidden: Sequence[str] = (),
        unlisted_pools: bool = False,
    ) -> None:
        self.accounts, self.access, self.pools, self.hidden = accounts, access, disks, hidden
        self.ages = ages or {}
        self.unlisted_pools = unlisted_pools
        self.asked: list[str] = []

    def everywhere(self) -> dict[str, Any]:
        self.asked.append("accounts")
        return {"accounts": list(self.accounts), "unlisted": [not_listed(scope) for scope in self.hidden]}

    def disks(self, _accounts: Any) -> Any:
        self.asked.append("pools")
        return self.pools, [not_listed("/pools")] if self.unlisted_pools else []

    def unseen(self, _vault: str) -> list[Any]:
        return []

    def find(self, _name: str, _group: str | None) -> Any:
        return vault(policy())

    def probably_has_no_keys(self, _vault: str) -> bool:
        return False

    def since_when(self, _key: Any, accounts: Any, _now: float) -> dict[str, float]:
        self.asked.append("access")
        return {account_id(name): 0.0 for name in self.access if account_id(name) in accounts}

    def changed_at(self, accounts: Sequence[dict[str, Any]]) -> tuple[dict[str, float | None], float]:
        ages = {one["id"]: self.ages.get(one["name"], 30 * DAY) for one in accounts}
        self.asked += [one["name"] for one in accounts]
        return {name: None if age is None else NOW - age for name, age in ages.items()}, NOW


def plan(users: Any, *disabled: str, goal: Any = None, **options: Any) -> Plan:
    given = {"auth_source": "msi", "cloud_environment": "AzureCloud", "wait_timeout": 600}
    session = Session({**dict.fromkeys(CONNECTION), **given})
    # Instead of the cached properties.
    session.__dict__.update(credential=Credential(), _transport=transport(lambda _to_azure: KeyVault(*disabled)))
    keys = Keys(session, Gateway(session), users, users, users, users)
    wanted = goal or key_goal(**options)
    return key_plan.plan(wanted, keys.read(wanted))


DISABLED = {"state": "disabled", "version": MIDDLE, "in_use": "keep"}
DELETED = {"state": "absent", "in_use": "keep"}


def on(used: str | None, name: str = "mybatch") -> dict[str, Any]:
    return account(name, key=used, identity=system_assigned())


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
    assert users.asked == ["accounts", "access", "mybatch", "pools"]


def test_an_account_that_uses_another_key_does_not_count_for_unused_versions() -> None:
    users = Users(PINNED, ELSEWHERE, ages={"elsewhere": DAY}, access=BOTH)

    assert plan(users, goal=unused_goal()).changed
    assert users.asked == ["accounts", "access", "mybatch", "pools"]


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

    assert users.asked == asked


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
            Users(disks=[disk("pool", f"{KEY}/{MIDDLE}")]),
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
    assert users.asked == asked


@pytest.mark.parametrize("options", [DISABLED, DELETED])
def test_pools_count(options: dict[str, Any]) -> None:
    pool = disk("pool", f"{KEY}/{MIDDLE}")

    assert plan(Users(disks=[pool]), **options).report["in_use_by"] == [pool["id"]]
    for hidden in (Users(hidden=["/subscriptions/hidden"]), Users(unlisted_pools=True)):
        with pytest.raises(Refused) as refused:
            plan(hidden, **options)
        assert refused.value.code == "users_unknown"


def test_unused_versions() -> None:
    users = Users(PINNED, access=BOTH[:1], ages={"mybatch": 10 * DAY})
    retired = unused_goal()

    assert plan(users, goal=retired).report["disabled_versions"] == [MIDDLE, OLD]
    kept = plan(Users(PINNED, access=BOTH[:1], ages={"mybatch": DAY}), goal=retired)
    assert kept.report["kept_versions"] == [MIDDLE, OLD]


# Access


def revoke(users: Any, **options: Any) -> Plan:
    goal = access_goal(state="absent", in_use="keep", **options)
    session: Any = SimpleNamespace(cache=Cache(RunFiles(None), lambda: "me"))
    access = Access(session, SimpleNamespace(), users, SimpleNamespace(), users, users)  # type: ignore[arg-type]
    return access_plan.plan(goal, access.read(goal))


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
    assert users.asked == ["accounts", "pools", "managed"]
    assert kept.report["in_use_by"] == ([account_id("managed")] if kept_until else [])


def test_access_that_is_revoked_by_force_needs_no_times() -> None:
    users = Users(MANAGED, ages={"managed": DAY})

    assert revoke(users, force=True).changed
    assert users.asked == ["accounts", "pools"]
