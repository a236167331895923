# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""If accounts could not be listed, nothing that they may use is disabled, deleted or revoked."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from access_table import azure
from azure_table import Table, task_of
from documents import (
    DAY,
    ENCRYPTION_USER,
    KEY,
    NEW,
    NOW,
    OLD,
    PRINCIPAL,
    SUBSCRIPTION,
    VAULT_ID,
    account,
    assignment,
    key,
    listed,
    not_listed,
    policy,
    rotation_policy,
    vault,
)
from goals import access_goal, key_goal, options_of

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.facts import Facts
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import InvalidOption, Refused
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import parse_key_identifier
from ansible_collections.azbatch.cmk.plugins.module_utils._core.markup import plain
from ansible_collections.azbatch.cmk.plugins.module_utils._core.summary import scope_text
from ansible_collections.azbatch.cmk.plugins.module_utils._core.tasks import Change, Removal
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.access import goal as access_goal_of
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.access.decide import AccessRevoked
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.drill import goal as drill_goal
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key import goal as key_goal_of
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key import survey
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key.decide import by_state
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key.present import KeyPresent
from ansible_collections.azbatch.cmk.plugins.modules import (
    batch_encryption_drill,
    keyvault_cmk_access,
    keyvault_cmk_key,
    keyvault_cmk_key_state,
    keyvault_cmk_unused_versions,
    keyvault_cmk_users,
)

HIDDEN = "/subscriptions/hidden"
IDENTIFIER = parse_key_identifier(KEY, "key_identifier")
VERSIONS = [key(OLD, created=NOW - 100 * DAY), key(NEW)]
BY_POLICY = (vault(policy()),)
BY_ROLE = (vault(rbac=True), assignment(ENCRYPTION_USER, VAULT_ID))
# The vault with its role assignments, and the task, with or without `force`.
Act = tuple[tuple[dict[str, Any], ...], Callable[[Facts, bool], Any]]


def of_key(**options: Any) -> Act:
    kind = by_state if "state" in options else KeyPresent
    return BY_ROLE, lambda facts, force: kind(key_goal(**options, force=force), facts)


def of_access(*shown: dict[str, Any]) -> Act:
    return shown, lambda facts, force: AccessRevoked(access_goal(state="absent", force=force), facts)


ACTS: dict[str, Act] = {
    "key disabled": of_key(state="disabled"),
    "key deleted": of_key(state="absent"),
    "version disabled": of_key(state="disabled", version=OLD),
    "rotation policy removed": of_key(remove_rotation_policy=True),
    "access revoked, policy": of_access(*BY_POLICY),
    "access revoked, role": of_access(*BY_ROLE),
}


def table_of(act: Act, *, is_whole: bool) -> Table:
    """The only account that is listed uses another key. Unless the list is whole, there are accounts in HIDDEN."""
    elsewhere = account("elsewhere", key="https://other.vault.azure.net/keys/other")
    table = azure(*act[0], accounts=(elsewhere,), hidden=() if is_whole else ("hidden",))
    table.update({one["key"]["kid"]: one for one in VERSIONS})
    table[refs.key(IDENTIFIER)] = VERSIONS[-1]
    table[refs.versions_of(IDENTIFIER)] = [listed(one) for one in VERSIONS]
    table[refs.rotation_policy_of(IDENTIFIER)] = rotation_policy(timeAfterCreate="P90D")
    return table


def decided(act: Act, *, is_whole: bool = False, force: bool = False) -> Change:
    task = task_of(table_of(act, is_whole=is_whole))
    change: Change = task.driver.solve(act[1](Facts(task.session), force).decide)
    return change


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_resource_counts_as_in_use_if_accounts_could_not_be_listed(act: Act) -> None:
    with pytest.raises(Refused) as refused:
        decided(act)

    assert refused.value.code == "users_unknown"
    assert refused.value.facts["unlisted"] == [not_listed(HIDDEN)]
    for word in (scope_text(HIDDEN), "Assign Reader", "force: true"):
        assert word in str(refused.value)
    assert plain(refused.value.facts["remedy"]) in str(refused.value)


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_a_forced_removal_has_a_warning(act: Act) -> None:
    change = decided(act, force=True)

    assert change.requests
    assert any(HIDDEN in warning and "The list was refused." in warning for warning in change.warnings)


@pytest.mark.parametrize("name", [name for name in ACTS if "policy removed" not in name])
def test_after_the_change_too(name: str) -> None:
    """If accounts can no longer be listed after the change, that counts like an account that uses the key."""
    change = decided(ACTS[name], is_whole=True)

    assert isinstance(change, Removal)
    with pytest.raises(Refused) as refused:
        task_of(table_of(ACTS[name], is_whole=False)).driver.solve(change.confirm)
    assert refused.value.code == "users_unknown"


@pytest.mark.parametrize(
    ("goal", "module"),
    [
        (access_goal_of.desired, keyvault_cmk_access),
        (drill_goal.desired, batch_encryption_drill),
        (key_goal_of.in_state, keyvault_cmk_key_state),
        (key_goal_of.present, keyvault_cmk_key),
        (key_goal_of.unused, keyvault_cmk_unused_versions),
        (survey.asked, keyvault_cmk_users),
    ],
    ids=lambda one: one.__name__.rpartition(".")[2],
)
def test_the_subscriptions_of_users_are_guids(goal: Callable[[Any], Any], module: ModuleType) -> None:
    names = {"vault_name": "myvault", "name": "batch", "principal_id": PRINCIPAL, "state": "absent"}
    names |= {"account_name": "mybatch"} if module is batch_encryption_drill else {}
    given = {name: value for name, value in names.items() if name in module.ARGUMENTS}
    wrong = f"/subscriptions/{SUBSCRIPTION}"

    with pytest.raises(InvalidOption) as refused:
        goal(options_of(module, **given, users_in=[SUBSCRIPTION, wrong]))

    assert (refused.value.facts["option"], refused.value.facts["value"]) == ("users_in", wrong)
