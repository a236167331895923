# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The first task of `rotate`: which runs are refused."""

from __future__ import annotations

from typing import Any

import pytest
from documents import KEY, NEW, OLD, OTHER, PRINCIPAL, account, key, policy, user_assigned, vault
from readiness import (
    ELSEWHERE,
    HIDDEN,
    PINNED_OLD,
    POLICIES,
    TO_MOVE,
    UNAVAILABLE,
    UPDATE_KEY,
    WRITE,
    Azure,
    asked,
    check,
    needs,
    on,
    planned,
    policies,
    refused,
)

from ansible_collections.azbatch.cmk.plugins.module_utils._checks import rights
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError


def rotate(azure: Azure, **options: Any) -> list[str]:
    assert check("rotate", azure, **options).warnings == ()
    return planned(azure)


@pytest.mark.parametrize(
    ("used", "options", "code"),
    [
        pytest.param(None, {}, "account_not_on_cmk", id="Microsoft-managed"),
        pytest.param(None, {"new_key_identifier": ELSEWHERE}, "account_not_on_cmk", id="Microsoft-managed, new key"),
        pytest.param(ELSEWHERE, {}, "account_on_another_key", id="another key"),
        pytest.param(f"{KEY}2", {}, "account_on_another_key", id="another name"),
        pytest.param(ELSEWHERE, {"new_key_identifier": f"{KEY}2"}, "account_on_another_key", id="a third key"),
        pytest.param(
            ELSEWHERE,
            {"new_key_identifier": ELSEWHERE.replace(OLD, NEW)},
            "account_on_another_key",
            id="another version of the new key",
        ),
        pytest.param(KEY, {"new_key_identifier": "other"}, "invalid_key_identifier", id="malformed new key"),
        pytest.param(KEY, {"previous_key_identifier": "other"}, "invalid_key_identifier", id="malformed previous key"),
    ],
)
def test_an_impossible_rotation_is_refused(used: str | None, options: dict[str, Any], code: str) -> None:
    azure = Azure(on(used))

    assert refused("rotate", azure, previous_key="disable", **options).code == code
    assert azure.asked == []


@pytest.mark.parametrize(
    ("used", "follow", "moves"),
    [
        # The right is needed only if a version is created, and the task that creates the version checks it.
        (PINNED_OLD, None, False),
        (PINNED_OLD, False, False),
        (PINNED_OLD, True, True),
        (KEY, None, False),
        (KEY, False, True),
        (KEY, True, False),
    ],
)
def test_rights_to_have_an_account_follow_its_key_or_not(used: str, follow: bool | None, moves: bool) -> None:
    azure = Azure(on(used), vault=vault(policy(), rbac=True))

    assert rotate(azure, follow_latest=follow, vault_resource_group="rg-keys") == ([WRITE] if moves else [])
    if moves:
        # The caller must be able to read the access to the key before a version is created.
        assert azure.needed == [*TO_MOVE, rights.to_see_access("myvault", "rg-keys")]
    assert needs("rotate", Azure(on(used)), follow_latest=follow) == ([WRITE] if moves else [])


def test_rights_to_disable_the_previous_version() -> None:
    azure = Azure(on(PINNED_OLD), vault=vault(policy(), rbac=True))

    assert rotate(azure, previous_key="disable") == [UPDATE_KEY]
    assert azure.needed == [rights.to_use_key(permission, "myvault") for permission in ("list", "update")]
    assert azure.asked == ["availability", "listing", "users of myvault"]
    needed = needs("rotate", Azure(on(PINNED_OLD), vault=vault(rbac=True)), previous_key="disable")
    assert needed == [UPDATE_KEY]
    # With access policies, list is a separate permission.
    listless = vault(policy("caller", ["get"]))
    assert needs("rotate", Azure(on(PINNED_OLD), vault=listless), previous_key="disable") == [
        *["the key permission list", "the key permission update"]
    ]


@pytest.mark.parametrize("options", [{}, {"new_key_identifier": ELSEWHERE}])
def test_a_rotation_that_disables_something_is_refused_if_not_all_are_listed(options: dict[str, Any]) -> None:
    azure = Azure(on(PINNED_OLD), unlisted=("/subscriptions/hidden",))
    failure = refused("rotate", azure, previous_key="disable", **options)

    assert failure.code == "users_unknown"
    assert "keep the previous version" in failure.facts["remedy"]
    assert azure.asked == ["availability", "listing", "users of myvault"]
    # A run that disables nothing needs no right to list.
    assert "listing" not in asked("rotate", Azure(on(PINNED_OLD), unlisted=("/subscriptions/hidden",)), **options)


OTHER_KEY: dict[str, Any] = {"new_key_identifier": ELSEWHERE}


def test_rights_to_move_an_account_to_a_different_key() -> None:
    azure = Azure(on(PINNED_OLD), vault=vault())

    assert rotate(azure, **OTHER_KEY) == [WRITE, POLICIES]
    assert azure.asked[-1] == f"access of {PRINCIPAL} to vault2"
    assert needs("rotate", Azure(on(PINNED_OLD), vault=vault()), **OTHER_KEY) == [WRITE, POLICIES]


@pytest.mark.parametrize("identifier", [ELSEWHERE, "https://vault2.vault.azure.net/keys/other"])
def test_a_different_key_that_lacks_only_access_is_granted_it(identifier: str) -> None:
    azure = Azure(on(PINNED_OLD), vault=vault(), checks={"vault": vault(policy(OTHER))})

    assert rotate(azure, new_key_identifier=identifier) == [WRITE, POLICIES]
    assert azure.needed[:-1] == [*TO_MOVE, rights.to_see_access("vault2", None)]


@pytest.mark.parametrize(
    ("checks", "failed"),
    [
        ({"bundle": key(enabled=False)}, ["key_enabled"]),
        ({"bundle": key(enabled=False), "vault": vault(policy(OTHER))}, ["key_enabled", "access_granted"]),
    ],
)
def test_a_different_key_that_fails_otherwise_is_refused(checks: dict[str, Any], failed: list[str]) -> None:
    azure = Azure(on(PINNED_OLD), vault=vault(), checks=checks)

    assert refused("rotate", azure, **OTHER_KEY).facts["failed_checks"] == failed
    assert "access" not in azure.asked


@pytest.mark.parametrize("unavailable_reason", [UNAVAILABLE, HIDDEN])
def test_an_account_that_cannot_be_moved_is_not_granted_access(unavailable_reason: CmkError) -> None:
    azure = Azure(on(PINNED_OLD), unavailable_reason)
    code = "account_unavailable" if unavailable_reason is UNAVAILABLE else "availability_unknown"

    assert refused("rotate", azure, **OTHER_KEY).code == code


def test_access_is_granted_to_each_identity() -> None:
    azure = Azure(on(PINNED_OLD, user_assigned(one=PRINCIPAL, two=OTHER)), vault=policies())

    assert rotate(azure, **OTHER_KEY) == [WRITE, *[POLICIES] * 2]


def test_an_account_without_an_identity_is_not_moved_to_a_different_key() -> None:
    azure = Azure(account(key=PINNED_OLD))

    assert refused("rotate", azure, **OTHER_KEY).code == "account_without_identity"


@pytest.mark.parametrize(
    ("used", "options", "is_unknown"),
    [
        pytest.param(ELSEWHERE, {**OTHER_KEY, "previous_key": "disable"}, True, id="it uses the key already"),
        pytest.param(ELSEWHERE.upper().replace("HTTPS", "https"), {**OTHER_KEY, "previous_key": "disable"}, True),
        pytest.param(ELSEWHERE, {**OTHER_KEY}, False, id="nothing is to be disabled"),
        pytest.param(
            ELSEWHERE,
            {**OTHER_KEY, "previous_key": "disable", "previous_key_identifier": KEY},
            False,
            id="it is named",
        ),
        pytest.param(PINNED_OLD, {**OTHER_KEY, "previous_key": "disable"}, False, id="it is still to be moved"),
        pytest.param(PINNED_OLD, {"previous_key": "disable"}, False, id="a new version"),
    ],
)
def test_a_previous_key_that_is_not_known_is_a_warning(used: str, options: dict[str, Any], is_unknown: bool) -> None:
    warnings = check("rotate", Azure(on(used)), **options).warnings

    assert any("previous_key_identifier" in one and "mybatch" in one for one in warnings) is is_unknown
    assert bool(warnings) is is_unknown
