# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Batch accounts and pools that use a key, and the guard that refuses to remove a key in use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from documents import (
    KEY,
    NEW,
    OLD,
    OTHER,
    PRINCIPAL,
    account,
    account_id,
    disk,
    not_listed,
    system_assigned,
    user_assigned,
    visible,
)

from ansible_collections.azbatch.cmk.plugins.module_utils._checks import usage
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import Refused
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import parse_key_identifier
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key import document as key_document

OTHER_KEY = "https://myvault.vault.azure.net/keys/other"
OTHER_VAULT = "https://vault2.vault.azure.net/keys/batch"


def identifier(text: str) -> usage.KeyIdentifier:
    return parse_key_identifier(text, "key_identifier")


@pytest.mark.parametrize(
    ("document", "key"),
    [
        pytest.param({}, None, id="empty"),
        pytest.param(account(), None, id="Microsoft-managed"),
        pytest.param(account(key=KEY), KEY, id="follows"),
        pytest.param(account(key=f"{KEY}/{NEW}"), f"{KEY}/{NEW}", id="pinned"),
        pytest.param(
            account(key=f"https://MYVAULT.vault.azure.net:443/keys/batch/{NEW}"), f"{KEY}/{NEW}", id="another spelling"
        ),
        pytest.param(
            {
                "properties": {
                    "encryption": {"keySource": "Microsoft.Batch", "keyVaultProperties": {"keyIdentifier": KEY}}
                }
            },
            None,
            id="a key that does not count",
        ),
    ],
)
def test_key_of_an_account(document: dict[str, Any], key: str | None) -> None:
    assert usage.key_of(document) == (identifier(key) if key else None)


PINNED_OLD = account("pinnedold", key=f"{KEY}/{OLD}")
PINNED_NEW = account("pinnednew", key=f"{KEY.upper()}/{NEW.upper()}")
FOLLOWS = account("follows", key=KEY)
ELSEWHERE = [account("managed"), account("otherkey", key=OTHER_KEY), account("othervault", key=OTHER_VAULT)]
EVERYONE = visible(PINNED_OLD, PINNED_NEW, FOLLOWS, *ELSEWHERE)


@pytest.mark.parametrize(
    ("key", "followers_on", "users"),
    [
        pytest.param(KEY, None, ["pinnedold", "pinnednew", "follows"], id="whole key"),
        pytest.param(f"{KEY}/{NEW}", [NEW], ["pinnednew", "follows"], id="version that followers are on"),
        pytest.param(f"{KEY}/{OLD}", [NEW], ["pinnedold"], id="version that followers have left"),
        pytest.param(f"{KEY}/{OLD}", [OLD, NEW], ["pinnedold", "follows"], id="version that followers may be on yet"),
        pytest.param(f"{KEY}/{'d' * 32}", [NEW], [], id="version that nobody is on"),
        pytest.param(f"{KEY}2", None, [], id="a longer name"),
    ],
)
def test_accounts_on_a_key(key: str, followers_on: list[str] | None, users: list[str]) -> None:
    assert usage.on_key(EVERYONE, identifier(key), followers_on) == [account_id(name) for name in users]


BY_SYSTEM = account("bysystem", key=f"{KEY[:-5]}Batch", identity=system_assigned(PRINCIPAL.upper()))
BY_USER = account("byuser", key=f"{OTHER_KEY}/{OLD}", identity=user_assigned(one=OTHER, two=PRINCIPAL))
BY_OTHER = account("byother", key=KEY, identity=system_assigned(OTHER))
NO_KEY = account("nokey", identity=system_assigned())
IN_OTHER_VAULT = account("othervault", key=OTHER_VAULT, identity=system_assigned())


@pytest.mark.parametrize(
    ("vault", "principal", "key_name", "users"),
    [
        pytest.param("myvault", PRINCIPAL, None, ["bysystem", "byuser"], id="any key"),
        pytest.param("MyVault", PRINCIPAL, None, ["bysystem", "byuser"], id="letter case of the vault"),
        pytest.param("myvault", PRINCIPAL.upper(), None, ["bysystem", "byuser"], id="letter case of the principal"),
        pytest.param("myvault", PRINCIPAL, "BATCH", ["bysystem"], id="one key"),
        pytest.param("myvault", PRINCIPAL, "third", [], id="a key nobody is on"),
        pytest.param("myvault", OTHER, None, ["byuser", "byother"], id="one of several identities"),
        pytest.param("vault2", PRINCIPAL, None, ["othervault"], id="another vault"),
        pytest.param("vault3", PRINCIPAL, None, [], id="a vault nobody is on"),
    ],
)
def test_accounts_that_reach_a_vault_as_a_principal(
    vault: str, principal: str, key_name: str | None, users: list[str]
) -> None:
    everyone = visible(BY_SYSTEM, BY_USER, BY_OTHER, NO_KEY, IN_OTHER_VAULT)

    found = usage.through_principal(everyone, vault, principal, key_name)

    assert found == [account_id(name) for name in users]


SUBSCRIPTION = "/subscriptions/hidden"

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
        pytest.param(lambda seen: usage.on_key(seen, identifier(KEY)), "old following from-old", id="whole key"),
        pytest.param(
            lambda seen: usage.on_key(seen, identifier(f"{KEY}/{OLD}"), [NEW]), "old from-old", id="a previous version"
        ),
        pytest.param(
            lambda seen: usage.on_key(seen, identifier(f"{KEY}/{NEW}"), [NEW]),
            "following from-old",
            id="the version that followers are on",
        ),
        pytest.param(lambda seen: usage.on_key(seen, identifier(OTHER_VAULT)), "", id="a key that no pool has"),
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
    assert [one.rpartition("/")[2] for one in find(DISKS)] == pools.split()
    # The pools of an unavailable account may use any key, regardless of the account's key.
    assert find(visible(account("unavailable", key=OTHER_KEY), disks=(UNKNOWN,))) == [UNKNOWN["id"]]


def test_the_principals_of_followers() -> None:
    seen = {**visible(BY_OTHER, BY_USER, PINNED_OLD, NO_KEY), "disks": DISKS["disks"]}
    found = usage.principals_following(seen, identifier(f"{KEY}/{OLD}"))

    assert found[BY_OTHER["id"]] == (OTHER,)
    pools = {one.rpartition("/")[2]: principals for one, principals in found.items() if "/pools/" in one}
    assert pools == {"following": [OTHER], "from-old": None}
    assert len(found) == 3


def test_a_vault_that_an_account_refers_to_is_in_use() -> None:
    refers = account("refers")
    refers["properties"]["keyVaultReference"] = {"id": f"{account_id('x').rpartition('/')[0]}/MyVault"}

    assert usage.in_vault(visible(refers), "myvault") == [refers["id"]]
    assert usage.in_vault(visible(refers), "vault2") == []


def test_only_accounts_are_read_for_their_change_time() -> None:
    assert usage.accounts_on_key({**EVERYONE, **DISKS, "accounts": [FOLLOWS]}, identifier(KEY)) == [FOLLOWS["id"]]


def test_guard_reports_pools_and_accounts() -> None:
    seen = visible(PINNED_OLD, disks=(ON_OLD, UNKNOWN))

    with pytest.raises(Refused) as refused:
        usage.guard(usage.on_key(seen, identifier(KEY)), seen, "the key is deleted", force=False)

    assert refused.value.facts["accounts"] == [PINNED_OLD["id"], UNKNOWN["id"]]
    assert refused.value.facts["pools"] == [ON_OLD["id"]]
    assert "Batch accounts and pools use it" in refused.value.msg
    assert f"these may use any key: {UNKNOWN['id']}." in refused.value.msg


def test_rights_to_list_accounts_and_to_list_pools_are_reported_separately() -> None:
    pools = not_listed(SUBSCRIPTION, "Microsoft.Batch/batchAccounts/pools/read")
    seen = {**visible(unlisted=("/subscriptions/other",)), "unlisted": [not_listed("/subscriptions/other"), pools]}

    with pytest.raises(Refused) as refused:
        usage.guard([], seen, "the key is deleted", force=False)

    assert refused.value.facts["remedy"] == (
        "Grant the caller Microsoft.Batch/batchAccounts/pools/read at /subscriptions/hidden and "
        "Microsoft.Batch/batchAccounts/read and Microsoft.Authorization/permissions/read at /subscriptions/other, "
        "or set force: true if such accounts may lose their key."
    )
    assert "Not all pools of /subscriptions/hidden" in refused.value.msg


def test_guard_allows_changes_of_unused_resources() -> None:
    assert usage.guard([], visible(), "the key is deleted", force=False) == ()


def test_guard_refuses_and_names_the_accounts_that_would_lose_the_key() -> None:
    users = [account_id("one"), account_id("two")]

    with pytest.raises(Refused) as refused:
        usage.guard(users, visible(unlisted=(SUBSCRIPTION,)), "the key batch is deleted", force=False)

    assert refused.value.code == "in_use"
    assert refused.value.facts["accounts"] == users
    assert refused.value.facts["unlisted"] == [not_listed(SUBSCRIPTION)]
    assert SUBSCRIPTION in refused.value.msg
    assert all(user in refused.value.msg for user in users)
    assert "the key batch is deleted" in refused.value.msg


def test_a_forced_change_names_the_affected_accounts() -> None:
    users, unlisted = usage.guard(
        [account_id("one")], visible(unlisted=(SUBSCRIPTION,)), "the key is deleted", force=True
    )

    assert account_id("one") in users
    assert SUBSCRIPTION in unlisted


def test_a_follower_is_given_a_day_to_take_over_a_new_version_and_a_day_to_leave_the_previous_one() -> None:
    assert key_document.FOLLOWING_LAG == 2 * 24 * 60 * 60
