# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""If accounts could not be listed, nothing that they may use is disabled, deleted or revoked (invariant I2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from documents import (
    DAY,
    ENCRYPTION_USER,
    NEW,
    NOW,
    OLD,
    PRINCIPAL,
    VAULT_ID,
    account,
    assignment,
    key,
    not_listed,
    observed_key,
    policy,
    rotation_policy,
    times,
    vault,
    visible,
)
from goals import access_goal, key_goal

from ansible_collections.azbatch.cmk.plugins.module_utils._checks import usage
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import Refused
from ansible_collections.azbatch.cmk.plugins.module_utils._core.markup import plain
from ansible_collections.azbatch.cmk.plugins.module_utils._core.plan import Plan
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.access import plan as access_plan
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key import plan as key_plan
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.vault import goal as vault_goal
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.vault import plan as vault_plan

HIDDEN = "/subscriptions/hidden"
SOMEWHERE = visible(account("elsewhere", key="https://other.vault.azure.net/keys/other"), unlisted=(HIDDEN,))
Act = Callable[[Any, bool], Plan]


def of_key(**options: Any) -> Act:
    def act(seen: Any, force: bool) -> Plan:
        bundles = [key(OLD, created=NOW - 100 * DAY), key(NEW)]
        observed = observed_key(*bundles, visible=seen, policy=rotation_policy(timeAfterCreate="P90D"))
        return key_plan.plan(key_goal(**options, force=force), observed)

    return act


def access(document: dict[str, Any], *assignments: dict[str, Any]) -> Act:
    def act(seen: Any, force: bool) -> Plan:
        observed = {"vault": document, "principal_id": PRINCIPAL, "assignments": assignments, "definitions": {}}
        accounts = {"visible": seen, "times": times(*seen["accounts"]), "now": NOW}
        return access_plan.plan(access_goal(state="absent", force=force), {**observed, **accounts})

    return act


def vault_deleted(seen: Any, force: bool) -> Plan:
    goal = vault_goal.Goal("rg-keys", "myvault", None, None, "standard", 90, False, False, present=False, force=force)
    return vault_plan.plan(goal, {"vault": vault(), "deleted": None, "visible": seen})


ACTS = {
    "key disabled": of_key(state="disabled"),
    "key deleted": of_key(state="absent"),
    "version disabled": of_key(state="disabled", version=OLD),
    "rotation policy removed": of_key(remove_rotation_policy=True),
    "access revoked, policy": access(vault(policy())),
    "access revoked, role": access(vault(rbac=True), assignment(ENCRYPTION_USER, VAULT_ID)),
    "vault deleted": vault_deleted,
}


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_resource_counts_as_in_use_if_accounts_could_not_be_listed(act: Act) -> None:
    with pytest.raises(Refused) as refused:
        act(SOMEWHERE, False)

    assert refused.value.code == "users_unknown"
    assert refused.value.facts["unlisted"] == [not_listed(HIDDEN)]
    for word in (HIDDEN, "The list was refused.", "Microsoft.Batch/batchAccounts/read", "force: true"):
        assert word in str(refused.value)
    assert plain(refused.value.facts["remedy"]) in str(refused.value)


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_a_forced_removal_has_a_warning(act: Act) -> None:
    plan = act(SOMEWHERE, True)

    assert plan.steps
    assert any(HIDDEN in warning and "The list was refused." in warning for warning in plan.warnings)


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_resource_is_removed_if_all_accounts_could_be_listed(act: Act) -> None:
    plan = act({**SOMEWHERE, "unlisted": []}, False)

    assert plan.steps
    assert plan.warnings == ()


@pytest.mark.parametrize("name", [name for name in ACTS if "policy removed" not in name])
def test_after_the_change_too(name: str) -> None:
    """If accounts can no longer be listed after the change, that counts like an account that uses the key."""
    planned = ACTS[name]({**SOMEWHERE, "unlisted": []}, False)
    planner = access_plan if "access" in name else vault_plan if "vault" in name else key_plan
    gone: dict[str, Any] = {"visible": SOMEWHERE, "times": times(), "now": NOW}
    if planner is key_plan:
        gone = observed_key(key(OLD, enabled=False), key(NEW, enabled=False), **gone)
    elif planner is access_plan:
        empty = {"vault": vault(rbac="role" in name), "principal_id": PRINCIPAL, "assignments": [], "definitions": {}}
        gone = {**empty, **gone}
    else:
        gone = {"vault": None, "deleted": None, **gone}

    with pytest.raises(Refused) as refused:
        planner.plan(planned.goal, gone)

    assert refused.value.code == "users_unknown"
    assert planned.if_refused is not None


def test_a_scope_without_a_missing_right_needs_none_granted() -> None:
    seen = {"accounts": [], "unlisted": [not_listed(HIDDEN, None)]}

    with pytest.raises(Refused) as refused:
        usage.require_whole(seen, "delete the key", "set force: true")

    assert plain(refused.value.facts["remedy"]) == "Run the task again once they can be listed, or set force: true."
