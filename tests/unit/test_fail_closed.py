# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks fail if Azure omits a field. Another letter case names the same resource. Revoking a part of the
permissions keeps the others."""

from __future__ import annotations

from typing import Any

import pytest
from access_table import azure, decided
from documents import (
    ENCRYPTION_USER,
    KEY,
    NOW,
    PRINCIPAL,
    VAULT_ID,
    account,
    account_id,
    assignment,
    evidence,
    key,
    policy,
    system_assigned,
    vault,
    visible,
)
from fleets import on, report
from goals import access_goal

from ansible_collections.azbatch.cmk.plugins.module_utils._checks import preflight, usage
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import (
    CmkError,
    Denied,
    Refused,
    Rejected,
    Unavailable,
)


def without(document: dict[str, Any], *path: str) -> dict[str, Any]:
    """The document without the field at this path."""
    first, *rest = path
    kept = {name: value for name, value in document.items() if name != first}
    return {**kept, first: without(document[first], *rest)} if rest else kept


DENIED = Denied("You may not.")


@pytest.mark.parametrize(
    ("failed", "read"),
    [
        pytest.param(["key_ops_wrap_unwrap"], {"bundle": without(key(), "key", "key_ops")}, id="key_ops"),
        pytest.param(
            ["vault_purge_protection"],
            {"bundle": without(key(), "attributes", "recoveryLevel"), "vault": DENIED},
            id="recoveryLevel",
        ),
        pytest.param(
            ["vault_purge_protection"],
            {"vault": without(vault(policy()), "properties", "enablePurgeProtection")},
            id="enablePurgeProtection",
        ),
        pytest.param(["key_size_supported"], {"bundle": without(key(), "key", "n")}, id="n"),
        pytest.param(
            ["access_granted"], {"vault": without(vault(policy()), "properties", "accessPolicies")}, id="policies"
        ),
        pytest.param(["access_granted"], {"vault": vault(rbac=True), "assignments": {}}, id="assignments"),
    ],
)
def test_preflight_fails_on_a_missing_field(failed: list[str], read: dict[str, Any]) -> None:
    with pytest.raises(Refused) as refused:
        preflight.require(evidence(**read))

    assert refused.value.facts["failed_checks"] == failed


def test_preflight_fails_in_the_second_in_which_the_key_expires() -> None:
    assert preflight.require(evidence(bundle=key(exp=NOW + 1)))
    with pytest.raises(Refused):
        preflight.require(evidence(bundle=key(exp=NOW)))


@pytest.mark.parametrize("name", ["myvault", "MyVault", "MYVAULT"])
def test_the_letter_case_of_a_vault_does_not_hide_its_users(name: str) -> None:
    everyone = visible(account("user", key=KEY.replace("myvault", "MyVault"), identity=system_assigned()))

    assert usage.in_vault(everyone, name) == [account_id("user")]
    assert usage.through_principal(everyone, name, PRINCIPAL, None) == [account_id("user")]


ALL_OTHERS = {
    *("list", "update", "create", "import", "delete", "recover", "backup", "restore"),
    *("encrypt", "decrypt", "sign", "verify", "release", "rotate", "getrotationpolicy", "setrotationpolicy"),
}


def test_revoking_from_all_permissions_keeps_the_others() -> None:
    """`all` means every key permission except purge (Key Vault, "Assign an access policy")."""
    [request] = decided(access_goal(state="absent"), azure(vault(policy(keys=["all"])))).requests

    [entry] = (request.body or {})["properties"]["accessPolicies"]
    assert set(entry["permissions"]["keys"]) == ALL_OTHERS


@pytest.mark.parametrize(
    ("refusal", "available"),
    [
        pytest.param(Denied("The key is denied.", azure={"code": "Forbidden"}), False, id="403 of the key"),
        pytest.param(Rejected("No key.", azure={"code": "AccountKeyNotAccessible"}), False, id="409 of the key"),
        pytest.param(Denied("Not you.", azure={"code": "AuthorizationFailed"}), None, id="403 of the caller"),
        pytest.param(Unavailable("Busy.", azure={"code": "ServerBusy"}), None, id="503"),
    ],
)
def test_which_refusal_to_list_pools_means_that_the_account_is_unavailable(
    refusal: CmkError, available: bool | None
) -> None:
    [one] = report(on(), pools={account_id("mybatch").lower(): refusal})["accounts"]

    assert one["available"] is available


@pytest.mark.parametrize("principal", [PRINCIPAL, PRINCIPAL.upper()])
def test_the_letter_case_of_a_principal_does_not_hide_its_role(principal: str) -> None:
    own = assignment(ENCRYPTION_USER, VAULT_ID, principal=principal)

    change = decided(access_goal(state="absent"), azure(vault(rbac=True), own))

    assert [request.ref for request in change.requests] == [own["id"]]


def test_an_account_without_an_identity_uses_no_access() -> None:
    bare = account("bare", key=KEY)
    del bare["identity"]

    assert usage.through_principal(visible(bare), "myvault", PRINCIPAL, None) == []
    assert usage.in_vault(visible(bare), "myvault") == [account_id("bare")]
