# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether permissions allow an action."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from azure_table import Several, Table, executor_of, task_of
from documents import SUBSCRIPTION, VAULT_ID, policy, vault

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.executor import Executor
from ansible_collections.azbatch.cmk.plugins.module_utils._checks import rights
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError, Denied, NotFound
from ansible_collections.azbatch.cmk.plugins.module_utils._core.rights import Needed
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs
from ansible_collections.azbatch.cmk.plugins.module_utils._documents.access import allows

READ = "Microsoft.Batch/batchAccounts/read"


def permission(*actions: str, but: tuple[str, ...] = (), data: bool = False) -> Any:
    granted, excepted = ("dataActions", "notDataActions") if data else ("actions", "notActions")
    return {"actions": [], "notActions": [], "dataActions": [], "notDataActions": [], granted: actions, excepted: but}


@pytest.mark.parametrize(
    ("permissions", "allowed"),
    [
        pytest.param([permission()], False, id="empty"),
        pytest.param([permission(READ.upper())], True, id="another letter case"),
        pytest.param([permission("*/read")], True, id="all reads"),
        pytest.param([permission("Microsoft.Batch/*/read")], True, id="all reads of a provider"),
        pytest.param([permission("Microsoft.Batch/batchAccounts/*/read")], True, id="of the resource and below"),
        pytest.param([permission("Microsoft.Batch/batchAccounts/pools/read")], False, id="below"),
        pytest.param([permission("microsoftXbatch/batchaccounts/read")], False, id="a dot is a dot"),
        pytest.param([permission("*", but=("Microsoft.Batch/*",))], False, id="excepted"),
        pytest.param(
            [permission("*", but=("Microsoft.Batch/*",)), permission(READ)], True, id="excepted in one of two"
        ),
        pytest.param([permission("*", data=True)], False, id="as a data action"),
        pytest.param([{"actions": None}, {"actions": [READ], "notActions": None}], True, id="nulls"),
    ],
)
def test_an_action(permissions: Any, allowed: bool) -> None:
    assert allows(permissions, READ) is allowed


def test_a_data_action() -> None:
    wrap = "Microsoft.KeyVault/vaults/keys/wrap/action"

    assert allows([permission("Microsoft.KeyVault/vaults/keys/*", data=True)], wrap, data=True)
    assert not allows([permission("*")], wrap, data=True)
    assert not allows([permission("*", but=("*/wrap/action",), data=True)], wrap, data=True)


# Before the first request

IN_SUBSCRIPTION = f"/subscriptions/{SUBSCRIPTION}"
GROUP = f"{IN_SUBSCRIPTION}/resourceGroups/rg"
ACCOUNT = f"{GROUP}/providers/Microsoft.Batch/batchAccounts/mybatch"
VAULT_GROUP = f"{IN_SUBSCRIPTION}/resourceGroups/rg-keys"
SCOPES = {"group": GROUP, "account": ACCOUNT, "vault_group": VAULT_GROUP, "vault_scope": VAULT_ID}
WRITE = "Microsoft.Batch/batchAccounts/write"
CREATE = "Microsoft.KeyVault/vaults/keys/create/action"
POOLS = "Microsoft.Batch/batchAccounts/pools/read"
SET = [*rights.to_set_encryption("rg", "mybatch")]
MAKE_KEY = rights.to_use_key("create", "myvault")


def azure(found: Any = None, **allowed: Any) -> Table:
    """`found` is the vault, or the error if vaults cannot be listed. `allowed` has the caller's permissions at SCOPES,
    or the error if they cannot be read."""
    listed = found if isinstance(found, CmkError) else [found] if found else []
    table = Table(
        {
            refs.vaults_of(SUBSCRIPTION): listed,
            refs.groups_of(SUBSCRIPTION): [{"name": "rg"}],
            refs.permissions_at(IN_SUBSCRIPTION): [permission("*/read")],
        }
    )
    table.update({refs.permissions_at(SCOPES[name]): permissions for name, permissions in allowed.items()})
    return table


def rights_of(table: Table, folder: Path | None = None, *, predicts: bool = False) -> Executor:
    return executor_of(task_of(table, folder, predicts=predicts))


def require(*needed: Needed, found: Any = None, predicts: bool = False, **allowed: Any) -> tuple[str, ...]:
    return rights_of(azure(found, **allowed), predicts=predicts).require_rights(needed)


def lacks(action: str, *needed: Needed, **options: Any) -> None:
    with pytest.raises(Denied) as denied:
        require(*needed, **options)
    assert denied.value.code == "permission_denied"
    assert denied.value.facts["action"] == action
    assert action in str(denied.value)
    warnings = require(*needed, **options, predicts=True)
    assert any(action in warning for warning in warnings)


def test_a_missing_right_is_refused() -> None:
    lacks(WRITE, *SET)
    lacks(WRITE, *SET, group=[permission(READ)], account=[permission("*/read")])
    lacks(POOLS, *SET, group=[permission(WRITE)], account=[])
    lacks(WRITE, *SET, group=Denied("no"), account=[permission("*/read")])


def test_a_right_at_the_group_or_at_the_resource_is_enough() -> None:
    require(*SET, group=[permission(WRITE, POOLS)])
    require(*SET, account=[permission(WRITE, POOLS)])
    require(*SET, group=Denied("no"), account=[permission(WRITE, POOLS)])


def test_unreadable_permissions_do_not_refuse() -> None:
    require(*SET, group=Denied("no"), account=Denied("no"))
    require(*SET, group=[], account=NotFound("none"))
    require(MAKE_KEY, found=Denied("no"))
    require(MAKE_KEY, found=None)


@pytest.mark.parametrize(
    ("permissions", "missing"), [(["get"], True), (["Create"], False), (["all"], False), ([], True)]
)
def test_keys_by_policy(permissions: list[str], missing: bool) -> None:
    """The entries of all principals count, because the caller may be a member of a group that has an entry."""
    document = vault(policy("a-group", keys=permissions))

    if missing:
        lacks("the key permission create", MAKE_KEY, found=document)
    else:
        require(MAKE_KEY, found=document)


ASSIGNMENTS = "Microsoft.Authorization/roleAssignments"
KEYS = "Microsoft.KeyVault/vaults/keys"


def test_right_to_delete_an_account_is_required() -> None:
    """tests/integration/test_rights.py has the rights of the roles."""
    lacks("Microsoft.Batch/batchAccounts/delete", rights.to_delete_account("rg", "mybatch"))


def test_right_to_poll_the_creation_of_an_account_is_required() -> None:
    action = "Microsoft.Batch/batchAccounts/operationResults/read"

    lacks(action, *rights.to_create_account("rg"), group=[permission("*", but=(action,))])


SEES = [*SET, rights.to_see_access("myvault", None)]


def test_right_to_read_access_is_required_before_a_new_version() -> None:
    may: dict[str, Any] = {"group": [permission(WRITE, POOLS)]}

    lacks(f"{ASSIGNMENTS}/read", *SEES, found=vault(rbac=True), **may)
    lacks("Microsoft.KeyVault/vaults/read", *SEES, found=vault(), **may)
    lacks("Microsoft.KeyVault/vaults/read", *SEES, found=Denied("no"), **may)
    require(*SEES, found=None, **may)
    with pytest.raises(Denied, match=r"KeyVault/vaults/read on the key vault \w+\..*\n.*Nor may you see groups\."):
        require(*SEES, found=Denied("Nor may you see groups."), **may)


def test_rights_that_were_granted_meanwhile_are_found() -> None:
    """Another task of the run may have read the permissions before."""
    table = azure(group=Several([], [permission(WRITE, POOLS)]))

    assert rights_of(table).require_rights(SET) == ()
    with pytest.raises(Denied):
        rights_of(azure(group=[])).require_rights(SET)


def test_an_access_policy_that_was_added_meanwhile_is_found(tmp_path: Path) -> None:
    table = azure()
    table[refs.vault(VAULT_ID)] = Several(vault(), vault(policy("a-group", keys=["create"])))
    task_of(table, tmp_path).driver.get(refs.vault(VAULT_ID))

    assert rights_of(table, tmp_path).require_rights([MAKE_KEY]) == ()


def test_a_vault_that_is_no_longer_hidden_is_found() -> None:
    table = azure(group=[permission(WRITE, POOLS)], vault_group=[permission("*/read")])
    table[refs.vaults_of(SUBSCRIPTION)] = Several(Denied("no"), [vault(rbac=True)])

    assert rights_of(table).require_rights(SEES) == ()


def test_a_vault_is_looked_for_in_its_resource_group_and_once() -> None:
    table = azure(vault_scope=[permission("*/read"), permission("*", data=True)])
    table[refs.vault(VAULT_ID)] = vault(rbac=True)

    rights_of(table).require_rights([rights.to_see_access("myvault", "rg-keys"), MAKE_KEY])

    assert table.reads_of(refs.vault(VAULT_ID)) == 1
    assert table.reads_of(refs.vaults_of(SUBSCRIPTION)) == 0


def test_all_missing_rights_are_in_the_error() -> None:
    with pytest.raises(Denied) as denied:
        require(*SET, MAKE_KEY, found=vault(rbac=True))

    assert denied.value.facts["missing_rights"] == [
        {"action": WRITE, "scope": ACCOUNT},
        {"action": POOLS, "scope": ACCOUNT},
        {"action": CREATE, "scope": VAULT_ID},
    ]
