# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role revert by its playbook: the move to a Microsoft-managed key, and the removal of the key and the access."""

from __future__ import annotations

from typing import Any

import pytest
from harness import Run
from one_process import RolesRunner
from role_runs import (
    holdings,
    play_role,
    refused,
    result,
    run_role,
    steps,
    unchanged,
    warnings,
    wrote,
)
from service import DAY, ENCRYPTION_USER, Service

FOREIGN = "99999999-0000-4000-8000-000000000001"
REVOKE = {"cmk_unused_access": "revoke"}
AT_ONCE = {"cmk_unused_for": "P0D"}
MOVE = "Move the account to a Microsoft-managed key"
KEY = "Disable or delete the key"
ACCESS = "Revoke the account's access to the key"


def revert(roles: RolesRunner, **options: Any) -> Run:
    return play_role(roles, "revert", **options)


def is_granted(service: Service, principal: str) -> bool:
    return bool(service.assignments(principal)) or service.permissions(principal) is not None


def test_key_disabled_and_access_revoked(roles: RolesRunner, service: Service) -> None:
    """The run that moves the account keeps the key and the access. A run after the margin of seven days disables the
    key and revokes the access."""
    principal, _ = service.on_key()
    service.grant(FOREIGN)
    service.change_vault(tags={"owner": "others"})
    service.change_account(tags={"team": "hpc"})
    before = holdings(service)
    wanted = {"cmk_unused_key": "disable", **REVOKE}
    predicted = revert(roles, check=True, **wanted)
    run = revert(roles, **wanted)
    assert steps(predicted) == steps(run) == ["encryption"]
    assert wrote(run) == ["PATCH account account1"]
    account = service.account_id()
    assert (result(run)["key_kept_for"], result(run)["access_kept_for"]) == ([account], [account])
    # For an account that the run has just changed, the margin begins now, and each task has another now.
    until = result(run)["key_kept_until"]
    assert until <= result(run)["access_kept_until"]
    assert warnings(run) == []

    service.sandbox.control.advance(6 * DAY)
    run = unchanged(revert(roles, **wanted))
    assert result(run)["key_kept_until"] == result(run)["access_kept_until"] <= until
    assert service.key().properties.enabled
    assert is_granted(service, principal)

    service.sandbox.control.advance(DAY + 60)
    predicted = revert(roles, check=True, **wanted)
    assert wrote(predicted) == []
    run = revert(roles, **wanted)
    assert steps(predicted) == steps(run) == ["key", "access"]
    assert wrote(run) == ["PATCH key vault-one key1", "PUT policies vault-one remove"]
    assert (result(run)["key_kept_for"], result(run)["access_kept_for"]) == ([], [])
    assert warnings(run) == []
    assert service.encryption() is None
    assert service.is_available()
    assert service.enabled() == [False]
    assert not is_granted(service, principal)

    # Nothing else has changed.
    after = holdings(service)
    for world in (before, after):
        world["accounts"]["account1"]["properties"].pop("encryption")
        world["keys"].clear()
    properties = before["vaults"]["vault-one"]["properties"]
    properties["accessPolicies"] = [one for one in properties["accessPolicies"] if one["objectId"] != principal]
    assert after == before

    for check in (True, False):
        unchanged(revert(roles, check=check, **wanted))


def test_key_disabled_and_access_revoked_at_once(roles: RolesRunner, service: Service) -> None:
    """The key has leaked. A warning for the key and one for the access name the account."""
    principal, _ = service.on_key(rbac=True)
    service.make_vault("vault-two", rbac=True)
    service.assign(principal, service.vault_id("vault-two"))
    wanted = {"cmk_unused_key": "disable", **REVOKE, **AT_ONCE}
    predicted = revert(roles, check=True, **wanted)
    run = revert(roles, **wanted)
    assert steps(predicted) == steps(run) == ["encryption", "key", "access"]
    for one in (predicted, run):
        for task in (KEY, ACCESS):
            (warning,) = one[task].warnings
            assert "Batch may need" in warning
            assert "may lose their key: account1" in warning
    assert service.enabled() == [False]
    assert service.assignments(principal) == [(service.vault_id("vault-two"), ENCRYPTION_USER)]
    assert service.is_available()
    unchanged(revert(roles, **wanted))


def test_key_and_access_stay_for_other_accounts(roles: RolesRunner, service: Service) -> None:
    """account1 and account2 share a user-assigned identity and the key."""
    service.make_vault()
    principal = service.make_identity()["properties"]["principalId"]
    service.grant(principal)
    identifier = service.make_key().id
    for name in ("account1", "account2"):
        identity = {"type": "UserAssigned", "userAssignedIdentities": {service.identity_id(): {}}}
        service.make_account(name, identity=identity)
        service.point(identifier, name)
    wanted = {"cmk_unused_key": "delete", **REVOKE, **AT_ONCE}
    run = revert(roles, **wanted)
    assert (steps(run), wrote(run)) == (["encryption"], ["PATCH account account1"])
    other = service.account_id("account2")
    assert (result(run)["key_kept_for"], result(run)["access_kept_for"]) == ([other], [other])
    assert service.is_available()
    assert service.is_available("account2")
    assert service.key().properties.enabled
    assert is_granted(service, principal)
    unchanged(revert(roles, **wanted))

    service.point(None, "account2")
    run = revert(roles, **wanted)
    assert steps(run) == ["key", "access"]
    assert not is_granted(service, principal)


def test_a_wrong_place_of_the_vault_is_refused_before_the_move(roles: RolesRunner, service: Service) -> None:
    _, first = service.on_key()
    run = run_role(roles, "revert", **REVOKE, **AT_ONCE, cmk_vault_resource_group="nowhere")
    refused(run, MOVE, "nowhere")
    assert service.encryption() == first


def test_a_key_that_the_account_does_not_use_is_not_removed(roles: RolesRunner, service: Service) -> None:
    _, first = service.on_key()
    service.make_key("key2")
    run = run_role(roles, "revert", cmk_key_name="key2", cmk_unused_key="disable")
    refused(run, MOVE, "the key key1 in vault-one", "key2", "names of the vault and the key")
    assert run[MOVE]["code"] == "account_on_another_key"
    assert service.encryption() == first
    assert service.key("key2").properties.enabled


@pytest.mark.parametrize(
    ("wanted", "task", "code"),
    [
        ({"cmk_vault_resource_group": "nowhere", **REVOKE}, ACCESS, "resource_group_not_found"),
        ({"cmk_vault_name": "nowhere", **REVOKE}, ACCESS, "vault_not_found"),
        ({"cmk_key_name": "nowhere", "cmk_unused_key": "disable"}, KEY, "key_not_found"),
    ],
)
def test_missing_keys_and_vaults(
    roles: RolesRunner, service: Service, wanted: dict[str, Any], task: str, code: str
) -> None:
    """The account uses a Microsoft-managed key already, so it does not show the key that it has left."""
    service.on_key()
    service.point(None)
    run = run_role(roles, "revert", **wanted)
    refused(run, task, "nowhere")
    assert run[task]["code"] == code
    assert service.is_available()
