# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Batch accounts and pools that use a key, and the guard that refuses to remove a key in use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from documents import (
    DAY,
    KEY,
    NEW,
    NOW,
    OLD,
    OTHER,
    PRINCIPAL,
    account,
    account_id,
    disk,
    key,
    listed,
    system_assigned,
    times,
    user_assigned,
    visible,
)

from ansible_collections.azbatch.cmk.plugins.module_utils._checks import usage
from ansible_collections.azbatch.cmk.plugins.module_utils._checks.versions import MARGIN_SECONDS, KeyVersions
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import Refused
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import parse_key_identifier
from ansible_collections.azbatch.cmk.plugins.module_utils._documents.identity import UNKNOWN_IDENTITY

OTHER_KEY = "https://myvault.vault.azure.net/keys/other"
OTHER_VAULT = "https://vault2.vault.azure.net/keys/batch"


def identifier(text: str) -> usage.KeyIdentifier:
    return parse_key_identifier(text, "key_identifier")


PINNED_OLD = account("pinnedold", key=f"{KEY}/{OLD}")
PINNED_NEW = account("pinnednew", key=f"{KEY.upper()}/{NEW.upper()}")
FOLLOWS = account("follows", key=KEY)
ELSEWHERE = [account("managed"), account("otherkey", key=OTHER_KEY), account("othervault", key=OTHER_VAULT)]
EVERYONE = visible(PINNED_OLD, PINNED_NEW, FOLLOWS, *ELSEWHERE)


def users_of_key(seen: Any, named: str = KEY, margin: float = MARGIN_SECONDS, **ages: Any) -> tuple[list[str], Any]:
    """The names of the accounts and pools that may use the key, and the days until the margin ends."""
    users = usage.users_of_key(seen, identifier(named), times(*seen["accounts"], **ages), NOW, margin)
    return names(users.ids), users.until and (users.until - NOW) / DAY


def names(ids: list[str]) -> list[str]:
    return [one.rpartition("/")[2] for one in ids]


@pytest.mark.parametrize(
    ("key", "users"),
    [
        pytest.param(KEY, ["pinnedold", "pinnednew", "follows"], id="key"),
        pytest.param(f"{KEY}/{OLD}", ["pinnedold", "pinnednew", "follows"], id="key that is named with a version"),
        pytest.param(f"{KEY}2", [], id="a longer name"),
        pytest.param(OTHER_VAULT, ["othervault"], id="another vault"),
    ],
)
def test_accounts_that_use_a_key(key: str, users: list[str]) -> None:
    assert users_of_key(EVERYONE, key) == (users, None)
    assert names([one["id"] for one in usage.accounts_on_key(EVERYONE, identifier(key))]) == users


@pytest.mark.parametrize(
    ("age", "until"),
    [
        pytest.param(7 * DAY - 1, 1 / DAY, id="inside the margin"),
        pytest.param(7 * DAY, None, id="outside the margin"),
        pytest.param(None, 7, id="changed at an unknown time"),
    ],
)
def test_an_account_that_may_have_left_a_key_uses_it_inside_the_margin(age: float | None, until: float | None) -> None:
    left = account("otherkey", key=OTHER_KEY)
    expected = ["otherkey"] if until else []

    assert users_of_key(visible(left), left=("otherkey",), otherkey=age) == (expected, pytest.approx(until))
    # Without access to the key, the account cannot have used it.
    assert users_of_key(visible(left), otherkey=age) == ([], None)
    # An account that uses the key now has no end.
    assert users_of_key(visible(left, FOLLOWS), left=("otherkey",), otherkey=age) == (["follows", *expected], None)


def test_the_margin_of_several_accounts_ends_with_the_last() -> None:
    seen = visible(account("one"), account("two"))
    left: Any = {"left": ("one", "two"), "one": 3 * DAY, "two": 2 * DAY}

    assert users_of_key(seen, **left) == (["one", "two"], 5)
    assert users_of_key(seen, margin=2.5 * DAY, **left) == (["two"], 0.5)
    assert users_of_key(seen, margin=0, **left) == ([], None)


VERSIONS = KeyVersions(
    [listed(key(name, created=NOW - age, updated=NOW - age)) for name, age in ((OLD, 90 * DAY), (NEW, 30 * DAY))], NOW
)
NEW_FOR_A_DAY = KeyVersions(
    [listed(key(name, created=NOW - age, updated=NOW - age)) for name, age in ((OLD, 90 * DAY), (NEW, DAY))], NOW
)


def users_of_version(
    seen: Any, version: str, *, of: KeyVersions = VERSIONS, margin: float = MARGIN_SECONDS, **ages: Any
) -> tuple[list[str], Any]:
    named = identifier(f"{KEY}/{version}")
    users = usage.users_of_version(seen, named, of, times(*seen["accounts"], **ages), margin)
    return names(users.ids), users.until and (users.until - NOW) / DAY


@pytest.mark.parametrize(
    ("version", "ages", "users", "until"),
    [
        pytest.param(NEW, {}, ["pinnednew", "follows"], None, id="the newest version"),
        pytest.param(OLD, {}, ["pinnedold"], None, id="a previous version"),
        pytest.param(OLD, {"pinnednew": DAY, "follows": DAY}, ["pinnedold", "pinnednew", "follows"], None, id="moved"),
        pytest.param("d" * 32, {}, [], None, id="a version that nothing uses"),
        pytest.param("d" * 32, {"follows": DAY}, [], None, id="a version that does not exist"),
    ],
)
def test_accounts_that_may_use_a_version(version: str, ages: Any, users: list[str], until: float | None) -> None:
    assert users_of_version(EVERYONE, version, **ages) == (users, until)


def test_a_previous_version_is_in_use_until_the_margin_of_its_users_ends() -> None:
    seen = visible(PINNED_NEW, FOLLOWS, *ELSEWHERE)

    assert users_of_version(seen, OLD, pinnednew=3 * DAY, follows=5 * DAY) == (["pinnednew", "follows"], 4)
    # A new version prolongs the margin of a follower only.
    assert users_of_version(seen, OLD, of=NEW_FOR_A_DAY, pinnednew=3 * DAY, follows=5 * DAY)[1] == 6
    assert users_of_version(seen, OLD, margin=4 * DAY, pinnednew=3 * DAY, follows=5 * DAY) == (["pinnednew"], 1)
    assert users_of_version(seen, OLD, margin=0, pinnednew=3 * DAY, follows=None) == ([], None)
    # The margin of an account that had no access begins with its access.
    assert users_of_version(seen, OLD, access_since={"follows": NOW - DAY}) == (["follows"], 6)


def test_a_follower_of_an_unusable_version_has_no_end() -> None:
    items = [listed(key(OLD, created=NOW - 90 * DAY)), listed(key(NEW, created=NOW - 30 * DAY, enabled=False))]

    assert users_of_version(visible(FOLLOWS), OLD, of=KeyVersions(items, NOW)) == (["follows"], None)


def test_an_account_that_may_have_left_a_key_may_use_each_version() -> None:
    left: Any = {"left": ("otherkey",), "otherkey": 3 * DAY}

    for version in (OLD, NEW):
        assert users_of_version(visible(*ELSEWHERE), version, **left) == (["otherkey"], 4)


def test_a_version_that_was_updated_inside_the_margin_is_kept() -> None:
    items = [
        listed(key(OLD, created=NOW - 90 * DAY, updated=NOW - 3 * DAY)),
        listed(key(NEW, created=NOW - 3 * DAY, updated=NOW - 3 * DAY)),
    ]
    of = KeyVersions(items, NOW)
    assert users_of_version(visible(*ELSEWHERE), OLD, of=of) == ([], 4)
    assert users_of_version(visible(*ELSEWHERE), OLD, of=of, margin=3 * DAY) == ([], None)
    # A version that was not updated after its creation.
    assert users_of_version(visible(*ELSEWHERE), NEW, of=of) == ([], None)
    assert users_of_version(visible(PINNED_NEW), OLD, of=of, pinnednew=2 * DAY) == (["pinnednew"], 5)
    assert users_of_version(visible(PINNED_NEW), OLD, of=of, pinnednew=5 * DAY) == (["pinnednew"], 4)
    assert users_of_version(visible(PINNED_OLD), OLD, of=of) == (["pinnedold"], None)


BY_SYSTEM = account("bysystem", key=f"{KEY[:-5]}Batch", identity=system_assigned(PRINCIPAL.upper()))
BY_USER = account("byuser", key=f"{OTHER_KEY}/{OLD}", identity=user_assigned(one=OTHER, two=PRINCIPAL))
BY_OTHER = account("byother", key=KEY, identity=system_assigned(OTHER))
NO_KEY = account("nokey", identity=system_assigned())
IN_OTHER_VAULT = account("othervault", key=OTHER_VAULT, identity=system_assigned())


@pytest.mark.parametrize(
    ("vault", "principal", "key_name", "users"),
    [
        pytest.param("MyVault", PRINCIPAL, None, ["bysystem", "byuser"], id="letter case of the vault"),
        pytest.param("myvault", PRINCIPAL.upper(), None, ["bysystem", "byuser"], id="letter case of the principal"),
        pytest.param("myvault", PRINCIPAL, "BATCH", ["bysystem"], id="one key"),
        pytest.param("myvault", OTHER, None, ["byuser", "byother"], id="one of several identities"),
        pytest.param("vault2", PRINCIPAL, None, ["othervault"], id="another vault"),
    ],
)
def test_accounts_that_reach_a_vault_as_a_principal(
    vault: str, principal: str, key_name: str | None, users: list[str]
) -> None:
    everyone = visible(BY_SYSTEM, BY_USER, BY_OTHER, NO_KEY, IN_OTHER_VAULT)

    found = usage.through_principal(everyone, vault, principal, key_name)

    assert found == [account_id(name) for name in users]


# A write of the run may have changed the identity, and its response was lost.
BY_UNKNOWN = account("unknown", key=KEY, identity={"type": UNKNOWN_IDENTITY})


@pytest.mark.parametrize(
    ("accounts", "principal", "users"),
    [
        pytest.param([NO_KEY, BY_USER, BY_OTHER], PRINCIPAL, ["nokey", "byuser"], id="system- or user-assigned"),
        pytest.param([BY_SYSTEM], PRINCIPAL, ["bysystem"], id="letter case"),
        pytest.param([BY_OTHER, BY_UNKNOWN], PRINCIPAL, ["unknown"], id="an account that may have it"),
        # As listed and as the run has written it.
        pytest.param([BY_SYSTEM, BY_SYSTEM], PRINCIPAL, ["bysystem"], id="the same account twice"),
        pytest.param([BY_OTHER, account("byother", identity=system_assigned())], PRINCIPAL, ["byother"], id="once"),
        pytest.param([BY_OTHER], PRINCIPAL, [], id="nobody"),
    ],
)
def test_accounts_that_have_a_principal(accounts: list[Any], principal: str, users: list[str]) -> None:
    assert usage.with_principal(visible(*accounts), principal) == [account_id(name) for name in users]


@pytest.mark.parametrize(
    ("accounts", "expected"),
    [
        pytest.param([NO_KEY], True, id="system-assigned"),
        pytest.param([BY_SYSTEM, BY_USER], True, id="in another letter case"),
        pytest.param([BY_USER], False, id="user-assigned"),
        pytest.param([BY_OTHER], False, id="of nobody"),
        pytest.param([BY_UNKNOWN], False, id="not known"),
        pytest.param([account()], False, id="no identity"),
        pytest.param([], False, id="no account"),
    ],
)
def test_whether_a_principal_is_the_system_assigned_identity_of_an_account(accounts: list[Any], expected: bool) -> None:
    assert usage.is_system_assigned(visible(*accounts), PRINCIPAL) is expected


ON_OLD = disk("old", f"{KEY.upper()}/{OLD.upper()}")
FOLLOWING = disk("following", KEY, principals=(OTHER,))
# The version with which the pool was created.
FOLLOWING_FROM_OLD = disk("from-old", f"{KEY}/{OLD}", follows=True, principals=None)
ON_OTHER = disk("other", OTHER_KEY)
UNKNOWN = disk("unavailable", None, principals=None)
DISKS = visible(disks=(ON_OLD, FOLLOWING, FOLLOWING_FROM_OLD, ON_OTHER))


@pytest.mark.parametrize(
    ("find", "pools"),
    [
        pytest.param(lambda seen: users_of_key(seen)[0], "old following from-old", id="key"),
        pytest.param(lambda seen: users_of_version(seen, OLD)[0], "old from-old", id="a previous version"),
        pytest.param(lambda seen: users_of_version(seen, NEW)[0], "following from-old", id="the newest version"),
        pytest.param(lambda seen: users_of_key(seen, OTHER_VAULT)[0], "", id="a key that no pool has"),
        pytest.param(lambda seen: usage.following(seen, identifier(KEY)), "following from-old", id="followers"),
        pytest.param(lambda seen: usage.in_vault(seen, "MyVault"), "old following from-old other", id="vault"),
        pytest.param(lambda seen: usage.in_vault(seen, "vault2"), "", id="another vault"),
        pytest.param(
            lambda seen: usage.through_principal(seen, "myvault", PRINCIPAL.upper(), None),
            "old from-old other",
            id="as a principal",
        ),
        pytest.param(
            lambda seen: usage.through_principal(seen, "myvault", OTHER, "batch"),
            "following from-old",
            id="as a principal, one key",
        ),
    ],
)
def test_pools_that_encrypt_their_disks_with_a_key(find: Callable[[Any], list[str]], pools: str) -> None:
    assert names(find(DISKS)) == pools.split()
    # The pools of an unavailable account may use any key, regardless of the account's key.
    assert names(find(visible(account("unavailable", key=OTHER_KEY), disks=(UNKNOWN,)))) == ["unavailable"]


@pytest.mark.parametrize("created_with", [str(number) * 32 for number in range(8)])
def test_a_pool_may_use_each_version_until_its_margin_ends(created_with: str) -> None:
    """A pool that follows the key may still use the version with which it was created."""
    one = disk("pool", f"{KEY}/{created_with}", follows=True, changed_at=NOW - 3.0 * DAY)

    assert users_of_version(visible(disks=(one,)), OLD, of=NEW_FOR_A_DAY) == (["pool"], 6)
    assert users_of_version(visible(disks=({**one, "follows_latest": False},)), OLD) == (["pool"], 4)


def test_unknown_pools_of_an_account_that_has_left_the_key_have_no_end() -> None:
    left = account("unavailable", key=OTHER_KEY)
    ages: Any = {"left": ("unavailable",), "unavailable": DAY}
    seen = visible(left, disks=(UNKNOWN,))

    assert users_of_version(seen, OLD, **ages) == users_of_key(seen, **ages) == (["unavailable"], None)


def test_a_vault_that_an_account_refers_to_is_in_use() -> None:
    refers = account("refers")
    refers["properties"]["keyVaultReference"] = {"id": f"{account_id('x').rpartition('/')[0]}/MyVault"}

    assert usage.in_vault(visible(refers), "myvault") == [refers["id"]]
    assert usage.in_vault(visible(refers), "vault2") == []


def test_guard_reports_pools_and_accounts() -> None:
    seen = visible(PINNED_OLD, disks=(ON_OLD, UNKNOWN))

    with pytest.raises(Refused) as refused:
        usage.guard([PINNED_OLD["id"], UNKNOWN["id"], ON_OLD["id"]], seen, "delete the key", force=False)

    assert refused.value.facts["accounts"] == [PINNED_OLD["id"], UNKNOWN["id"]]
    assert refused.value.facts["pools"] == [ON_OLD["id"]]
    assert ": 2 Batch accounts and 1 pool use it (pinnedold and 2 more)." in str(refused.value)
    assert "are not known, and may be any: unavailable." in str(refused.value)
