# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The first task of `revert`: which runs are refused."""

from __future__ import annotations

from typing import Any

import pytest
from documents import KEY, OTHER, PRINCIPAL, account, system_assigned, user_assigned, vault
from readiness import (
    ASSIGNMENTS,
    ELSEWHERE,
    HIDDEN,
    PINNED_NEW,
    PINNED_OLD,
    UNAVAILABLE,
    UPDATE_KEY,
    VAULTS,
    WRITE,
    Azure,
    asked,
    check,
    needs,
    on,
    planned,
    refused,
)

TAKES = [{"previous_key": "disable"}, {"previous_key": "delete"}, {"revokes_access": True}]
EACH_TAKE = pytest.mark.parametrize("options", TAKES, ids=["disable", "delete", "revoke"])


def revert(azure: Azure, **options: Any) -> list[str]:
    assert check("revert", azure, **options).warnings == ()
    return planned(azure)


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ({}, []),
        ({"previous_key": "disable"}, [UPDATE_KEY]),
        ({"previous_key": "delete"}, [f"{VAULTS}/keys/delete"]),
        ({"revokes_access": True}, [f"{ASSIGNMENTS}/delete"]),
        ({"previous_key": "delete", "revokes_access": True}, [f"{VAULTS}/keys/delete", f"{ASSIGNMENTS}/delete"]),
    ],
)
def test_rights_to_revert(options: dict[str, Any], needed: list[str]) -> None:
    by_role = vault(rbac=True)

    assert revert(Azure(on(PINNED_NEW), vault=by_role), **options) == [*needed, WRITE]
    assert needs("revert", Azure(on(PINNED_NEW), vault=by_role), **options) == [*needed, WRITE]


@EACH_TAKE
@pytest.mark.parametrize("used", [ELSEWHERE, f"{KEY}2"])
def test_a_key_that_the_account_does_not_use_is_not_removed(options: dict[str, Any], used: str) -> None:
    azure = Azure(on(used))
    failure = refused("revert", azure, **options)

    assert failure.code == "account_on_another_key"
    assert used in failure.msg
    assert azure.asked == []
    # If nothing is disabled, deleted or revoked, another key does not matter.
    assert revert(Azure(on(used))) == [WRITE]


@EACH_TAKE
@pytest.mark.parametrize("used", [PINNED_NEW, None])
def test_removing_key_or_access_requires_listing_all_accounts(options: dict[str, Any], used: str | None) -> None:
    azure = Azure(on(used), unlisted=("/subscriptions/hidden",))
    failure = refused("revert", azure, **options)

    assert failure.code == "users_unknown"
    assert "keep the key and the access" in failure.facts["remedy"]
    # If the account does not use the vault, only the name of the vault is known.
    is_known = used is not None and "previous_key" in options
    assert azure.asked == ["availability", "listing", f"users of {'myvault' if is_known else None}"]


def test_a_revert_that_keeps_key_and_access_needs_no_right_to_list() -> None:
    assert "listing" not in asked("revert", Azure(on(KEY), unlisted=("/subscriptions/hidden",)))


@EACH_TAKE
def test_the_previous_key_of_a_reverted_account_is_unknown(options: dict[str, Any]) -> None:
    """The account may never have used the key that the task names."""
    azure = Azure(on(None))
    outcome = check("revert", azure, **options)

    [warning] = outcome.warnings
    assert "previous_key_identifier" in warning
    assert outcome.after["previous_key_identifier"] is None
    # The key and the access are not read.
    assert not {"keys", "access"} & set(azure.asked)
    assert planned(azure) == []
    assert check("revert", Azure(on(None))).warnings == ()


@EACH_TAKE
@pytest.mark.parametrize("named", [KEY, PINNED_NEW, PINNED_NEW.upper().replace("HTTPS", "https")])
def test_an_account_that_is_back_already_leaves_the_key_behind_that_somebody_confirms(
    options: dict[str, Any], named: str
) -> None:
    azure = Azure(on(None))
    outcome = check("revert", azure, previous_key_identifier=named, **options)

    assert outcome.warnings == ()
    assert outcome.after["previous_key_identifier"] == named
    assert len(azure.needed) == 1


def test_the_previous_key_is_the_one_that_the_account_uses() -> None:
    checked = check("revert", Azure(on(PINNED_NEW)), previous_key_identifier=PINNED_OLD).after

    assert checked["previous_key_identifier"] == PINNED_NEW


@pytest.mark.parametrize("used", [PINNED_NEW, None])
@pytest.mark.parametrize("named", [f"{KEY}2", KEY.replace("myvault", "vault2"), "batch"])
def test_the_previous_key_is_the_one_that_the_names_say(named: str, used: str | None) -> None:
    azure = Azure(on(used))
    failure = refused("revert", azure, previous_key_identifier=named)

    assert failure.facts["option"] == "previous_key_identifier"
    assert azure.asked == []


def test_a_key_in_use_is_kept_without_an_error() -> None:
    """This account is also a user until it is moved."""
    others = (account("another", key=PINNED_NEW, identity=system_assigned()),)
    for options in TAKES:
        azure = Azure(on(PINNED_NEW), others=others)
        assert revert(azure, **options)[-1] == WRITE


@pytest.mark.parametrize(
    ("azure", "options", "code"),
    [
        pytest.param(Azure(on(PINNED_NEW), keys=()), {"previous_key": "disable"}, "key_not_found", id="no key"),
        pytest.param(Azure(on(PINNED_NEW), vault=None), {"revokes_access": True}, "vault_not_found", id="no vault"),
        pytest.param(Azure(on(PINNED_NEW), UNAVAILABLE), {}, "account_unavailable", id="unavailable"),
        pytest.param(Azure(on(PINNED_NEW), UNAVAILABLE), TAKES[0], "account_unavailable", id="unavailable, disable"),
        pytest.param(Azure(on(PINNED_NEW), HIDDEN), {}, "availability_unknown", id="availability unknown"),
        pytest.param(Azure(on(PINNED_NEW), HIDDEN), TAKES[1], "availability_unknown", id="unknown, delete"),
        pytest.param(Azure(on(PINNED_NEW)), {**TAKES[0], "key_name": "a_key"}, "account_on_another_key", id="name"),
    ],
)
def test_first_task_of_a_revert_refuses_for_later_tasks(azure: Azure, options: dict[str, Any], code: str) -> None:
    assert refused("revert", azure, **options).code == code


def test_the_access_of_each_identity_is_checked() -> None:
    azure = Azure(on(PINNED_NEW, user_assigned(one=PRINCIPAL, two=OTHER)))
    revert(azure, revokes_access=True)

    for principal in (PRINCIPAL, OTHER):
        assert f"access of {principal} to myvault" in azure.asked
