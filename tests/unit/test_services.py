# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The subscription to which the services send requests, with a session that records the calls."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
from documents import PRINCIPAL, SUBSCRIPTION, VAULT_ID, listed_users, policy, vault
from goals import access_goal

from ansible_collections.azbatch.cmk.plugins.module_utils._resources.access import plan as access_plan
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.access.client import Access

pytest.importorskip("azure.core")

ELSEWHERE = "99999999-1111-2222-3333-444444444444"


class Session:
    """A session for SUBSCRIPTION."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def changing(self, *kinds: str) -> Any:
        return nullcontext()

    def write(self, what: str, method: str, ref: str, body: Any) -> None:
        """The method of gateway.Gateway."""
        self.calls.append((ref, body))


@pytest.mark.parametrize("subscription", [SUBSCRIPTION, ELSEWHERE], ids=["own", "another"])
@pytest.mark.parametrize(("state", "operation"), [("present", "add"), ("absent", "remove")])
def test_access_policy_is_changed_where_its_vault_is(subscription: str, state: str, operation: str) -> None:
    document = {**vault(policy(keys=["get"])), "id": VAULT_ID.replace(SUBSCRIPTION, subscription)}
    observed = {"vault": document, "principal_id": PRINCIPAL, "assignments": [], "definitions": {}}
    azure: Any = Session()
    service = Access(azure, azure, *[None] * 4)  # type: ignore[arg-type]

    for step in access_plan.plan(access_goal(state=state), {**observed, **listed_users()}).steps:
        step.apply(service)

    [(ref, body)] = azure.calls
    assert ref == f"{document['id']}/accessPolicies/{operation}"
    assert [entry["objectId"] for entry in body["properties"]["accessPolicies"]] == [PRINCIPAL]
