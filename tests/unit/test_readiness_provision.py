# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The first task of `provision`: which runs are refused."""

from __future__ import annotations

from typing import Any

import pytest
from documents import KEY, OTHER, PRINCIPAL, account, deleted_vault, identity_id, key, policy, user_assigned, vault
from goals import rotation
from readiness import (
    ASSIGN,
    ASSIGN_IDENTITY,
    ASSIGNMENTS,
    CREATE_KEY,
    ELSEWHERE,
    HIDDEN,
    PINNED_OLD,
    POLICIES,
    SET_ROTATION,
    UPDATE_KEY,
    VAULTS,
    WRITE,
    Azure,
    check,
    needs,
    on,
    planned,
    policies,
    refused,
    versions,
)

from ansible_collections.azbatch.cmk.plugins.module_utils._checks.rights import Right, VaultRight


def provision(azure: Azure, **options: Any) -> list[str]:
    assert check("provision", azure, **options).warnings == ()
    return planned(azure)


def test_provisioning_from_nothing() -> None:
    azure = Azure(vault=None, keys=())

    assert provision(azure) == [f"{VAULTS}/write", WRITE, ASSIGN, CREATE_KEY, WRITE]
    # The keys and the access of a vault that does not exist are not read.
    assert azure.asked[:2] == ["vaults", "accounts"]
    assert not {"keys", "access"} & set(azure.asked)
    # There is no account yet, so its availability is not checked.
    assert "availability" not in azure.asked


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        pytest.param({}, [f"{ASSIGNMENTS}/write", CREATE_KEY], id="rbac by default"),
        pytest.param({"authorization": "rbac"}, [f"{ASSIGNMENTS}/write", CREATE_KEY], id="rbac"),
        # The creator of a vault with access policies may use its keys.
        pytest.param({"authorization": "access_policy"}, [POLICIES], id="access policies"),
        pytest.param(
            {"rotation_policy": rotation(time_after_create="P90D")},
            [f"{ASSIGNMENTS}/write", CREATE_KEY, SET_ROTATION],
            id="a rotation policy",
        ),
    ],
)
def test_rights_to_provision_from_nothing(options: dict[str, Any], needed: list[str]) -> None:
    assert needs("provision", Azure(vault=None, keys=()), **options) == [
        *[f"{VAULTS}/write", WRITE],
        *needed,
        # The encryption of the account, which does not exist yet.
        WRITE,
    ]


def test_rights_to_provision_with_a_user_assigned_identity() -> None:
    needed = needs("provision", Azure(vault=None, keys=()), identity_id=identity_id())

    assert "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action" in needed
    assert f"{ASSIGNMENTS}/write" in needed


def test_the_group_of_the_vault_is_that_of_the_account_unless_another_one_is_named() -> None:
    for options, group in (({}, "rg-batch"), ({"vault_resource_group": "rg-keys"}, "rg-keys")):
        azure = Azure(vault=None, keys=())
        check("provision", azure, **options)
        at = [right.scope.split("/")[2] for right in azure.needed if isinstance(right, Right)]
        in_new_vault = {right.group for right in azure.needed if isinstance(right, VaultRight)}
        # The vault, then the account and its encryption.
        assert (at[0], set(at[1:]), in_new_vault) == (group, {"rg-batch"}, {group})


@pytest.mark.parametrize(
    ("identity", "grants"),
    [
        # The identity exists, so its missing access is known.
        pytest.param(identity_id(), [POLICIES], id="user-assigned"),
        pytest.param(None, [ASSIGN], id="system-assigned"),
    ],
)
def test_access_to_a_vault_that_exists_for_an_account_that_does_not(identity: str | None, grants: list[str]) -> None:
    created = [WRITE, *([ASSIGN_IDENTITY] if identity else [])]

    assert provision(Azure(vault=policies()), identity_id=identity) == [*created, *grants, WRITE]


def test_an_account_on_its_key_needs_nothing() -> None:
    azure = Azure(on(PINNED_OLD))

    assert provision(azure) == []
    assert azure.asked[0] == "availability"
    assert f"access of {PRINCIPAL} to myvault" in azure.asked
    assert needs("provision", Azure(on(PINNED_OLD))) == []


@pytest.mark.parametrize(
    ("used", "follow", "moves"),
    [
        (None, None, True),
        (PINNED_OLD, None, False),
        (KEY, None, False),
        (KEY.replace("batch", "BATCH"), None, False),
        (PINNED_OLD, True, True),
        (KEY, True, False),
        (KEY, False, True),
        (PINNED_OLD, False, False),
    ],
)
def test_moving_an_account_requires_its_rights(used: str | None, follow: bool | None, moves: bool) -> None:
    azure = Azure(on(used))

    assert provision(azure, follow_latest=follow) == ([WRITE] if moves else [])
    assert needs("provision", Azure(on(used)), follow_latest=follow) == ([WRITE] if moves else [])


@pytest.mark.parametrize("used", [ELSEWHERE, f"{KEY}2", "https://vault2.vault.azure.net/keys/batch"])
def test_an_account_on_another_key_is_refused_before_a_vault_is_planned(used: str) -> None:
    """If the name of the vault has a typing error, no vault is created."""
    azure = Azure(on(used), vault=None)
    failure = refused("provision", azure)

    assert (failure.code, failure.facts["option"]) == ("account_on_another_key", "replace_key")
    assert azure.asked == ["availability"]
    moved = Azure(on(used))
    assert provision(moved, replace_key=True) == [WRITE]


@pytest.mark.parametrize("name", [{"vault_name": "MyVault"}, {"key_name": "BATCH"}])
def test_a_key_is_the_same_in_any_letter_case(name: dict[str, str]) -> None:
    assert provision(Azure(on(PINNED_OLD)), **name) == []


@pytest.mark.parametrize(
    ("azure", "option"),
    [
        (Azure(vault=None, deleted_vault=deleted_vault()), "recover_vault"),
        (Azure(keys=(), deleted_key=key()), "recover_key"),
    ],
)
def test_an_option_of_a_later_task_is_named_as_this_one_names_it(azure: Azure, option: str) -> None:
    failure = refused("provision", azure)

    assert failure.facts["option"] == option
    assert failure.facts["remedy"].startswith(f"Set {option}: true")
    assert failure.msg.endswith(failure.facts["remedy"])


def test_availability_that_is_not_known_is_refused_before_a_vault_is_planned() -> None:
    azure = Azure(on(None), HIDDEN, vault=None)

    assert refused("provision", azure).code == "availability_unknown"
    assert azure.asked == ["availability"]


@pytest.mark.parametrize(
    ("azure", "options", "code"),
    [
        pytest.param(Azure(vault=None, deleted_vault=deleted_vault()), {}, "vault_soft_deleted", id="deleted vault"),
        pytest.param(Azure(), {"authorization": "rbac"}, "vault_authorization_differs", id="authorization"),
        pytest.param(Azure(account()), {}, "account_without_identity", id="no identity"),
        pytest.param(Azure(on(None)), {"identity_id": identity_id()}, "identity_differs", id="another identity"),
        pytest.param(Azure(on(None), keys=versions(enabled=False)), {}, "key_disabled", id="disabled key"),
        pytest.param(Azure(on(None)), {"key_size": 4096}, "key_size_differs", id="another size"),
        pytest.param(Azure(on(None)), {"key_type": "RSA-HSM"}, "key_type_differs", id="another type"),
        pytest.param(Azure(on(None)), {"key_size": 1024}, "key_size_not_supported", id="a size that Batch refuses"),
        pytest.param(Azure(on(None)), {"expires_in": "90 days"}, "invalid_option", id="a malformed duration"),
        pytest.param(Azure(on(None)), {"identity_id": "mine"}, "invalid_identity_id", id="a malformed identity"),
        pytest.param(Azure(vault=None), {"location": "moon"}, "location_not_available", id="region"),
    ],
)
def test_refusals_of_later_tasks_are_raised_now(azure: Azure, options: dict[str, Any], code: str) -> None:
    assert refused("provision", azure, **options).code == code


@pytest.mark.parametrize(
    ("azure", "options", "writes"),
    [
        pytest.param(
            Azure(vault=None, deleted_vault=deleted_vault()),
            {"recover_vault": True},
            [f"{VAULTS}/write", WRITE, ASSIGN, CREATE_KEY, WRITE],
            id="deleted vault",
        ),
        pytest.param(Azure(account(), vault=policies()), {"adopt_existing": True}, [WRITE, ASSIGN, WRITE]),
        pytest.param(
            Azure(on(KEY), keys=versions(enabled=False)), {"enable_key": True}, [UPDATE_KEY], id="disabled key"
        ),
        pytest.param(Azure(on(KEY), keys=()), {}, [CREATE_KEY], id="no key"),
        pytest.param(Azure(on(KEY), vault=policies()), {}, [POLICIES], id="no access"),
        pytest.param(
            Azure(on(KEY, user_assigned(one=PRINCIPAL, two=OTHER)), vault=policies()),
            {"identity_id": identity_id("one")},
            [POLICIES, POLICIES],
            id="the access of each identity",
        ),
        pytest.param(
            Azure(on(KEY), vault=policies(policy(), enablePurgeProtection=None)),
            {},
            [f"{VAULTS}/write"],
            id="a vault that is changed",
        ),
    ],
)
def test_allowed_changes_are_not_refused(azure: Azure, options: dict[str, Any], writes: list[str]) -> None:
    assert provision(azure, **options) == writes


def test_the_access_of_each_identity_is_checked() -> None:
    azure = Azure(on(KEY, user_assigned(one=PRINCIPAL, two=OTHER)))
    provision(azure, identity_id=identity_id("one"))

    assert f"access of {PRINCIPAL} to myvault" in azure.asked
    assert f"access of {OTHER} to myvault" in azure.asked


@pytest.mark.parametrize(
    ("there", "is_refused"),
    [(None, True), (vault(policy()), True), (vault(policy(), sku={"family": "A", "name": "premium"}), False)],
    ids=["a new vault", "a standard vault", "a premium vault"],
)
def test_keys_of_an_hsm_need_a_premium_vault(there: Any, is_refused: bool) -> None:
    azure = Azure(vault=there, keys=())
    if not is_refused:
        assert "the key permission create" in needs("provision", azure, key_type="RSA-HSM")
        return
    failure = refused("provision", azure, key_type="RSA-HSM")
    assert (failure.facts["option"], failure.facts["value"]) == ("key_type", "RSA-HSM")
    assert "premium" in failure.facts["remedy"]
