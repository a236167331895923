# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The subscription in which a change of a vault is written."""

from __future__ import annotations

from typing import Any

import pytest
from azure_table import Table, task_of
from documents import PRINCIPAL, SUBSCRIPTION, VAULT_ID, listed_users, policy, vault
from goals import access_goal

from ansible_collections.azbatch.cmk.plugins.module_utils._resources.access import plan as access_plan
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.access.client import Access
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.visible import HandledAccounts, VisibleAccounts

ELSEWHERE = "99999999-1111-2222-3333-444444444444"


@pytest.mark.parametrize("subscription", [SUBSCRIPTION, ELSEWHERE], ids=["own", "another"])
@pytest.mark.parametrize(("state", "operation"), [("present", "add"), ("absent", "remove")])
def test_access_policy_is_changed_where_its_vault_is(subscription: str, state: str, operation: str) -> None:
    document: Any = {**vault(policy(keys=["get"])), "id": VAULT_ID.replace(SUBSCRIPTION, subscription)}
    observed = {"vault": document, "principal_id": PRINCIPAL, "assignments": [], "definitions": {}}
    table = Table()
    session, driver, gateway = task_of(table)
    visible = VisibleAccounts(session, driver, HandledAccounts(session.files))
    service = Access(session, driver, gateway, visible)

    for step in access_plan.plan(access_goal(state=state), {**observed, **listed_users()}).steps:  # type: ignore[typeddict-item]
        step.apply(service)

    [(_method, ref, body)] = table.written
    assert ref == f"{document['id']}/accessPolicies/{operation}"
    assert [entry["objectId"] for entry in body["properties"]["accessPolicies"]] == [PRINCIPAL]
