# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An account that is switched to a key while another task or user switches it to another key."""

from __future__ import annotations

from typing import Any

import pytest
from documents import KEY, NEW, OLD, account, evidence, system_assigned
from plain_service import Plain

from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError, Rejected, Unavailable
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import parse_key_identifier
from ansible_collections.azbatch.cmk.plugins.module_utils._core.reconcile import converge
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption import goal as encryption_goal
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption import plan as encryption_plan
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption import survey as encryption_survey

BEFORE, WANTED, THEIRS = f"{KEY}/{OLD}", f"{KEY}/{NEW}", "https://vault2.vault.azure.net/keys/batch"


class Batch(Plain):
    """An account that uses a key. With `moved_to`, another task moves the account after the first write, which
    fails."""

    def __init__(self, on: str | None, *, moved_to: tuple[str | None, ...] = (), unavailable_on: str = "") -> None:
        self.on = on
        self.writes: list[str | None] = []
        self._moved_to = moved_to
        self._unavailable_on = unavailable_on

    def read(self, goal: Any) -> dict[str, Any]:
        unavailable = Rejected("No key.", azure={"code": "KeyVaultKeyNotAccessible"})
        return {
            "account": account(key=self.on, identity=system_assigned()),
            "unavailable_reason": unavailable if self.on == self._unavailable_on else None,
            "evidence": evidence(),
        }

    def set_encryption(self, group: str, name: str, body: dict[str, Any], **_more: Any) -> None:
        wanted = body["properties"]["encryption"].get("keyVaultProperties", {}).get("keyIdentifier")
        self.writes.append(wanted)
        self.on = wanted
        if self._moved_to:
            (self.on,), self._moved_to = self._moved_to, ()
            raise Unavailable("There is no response.")


def switch(batch: Batch) -> CmkError:
    goal = encryption_goal.Goal("rg-batch", "mybatch", parse_key_identifier(WANTED, "key_identifier"), None)
    with pytest.raises(CmkError) as failed:
        converge(goal, batch, encryption_plan)
    return failed.value


@pytest.mark.parametrize("moved_to", [THEIRS, None, KEY], ids=["another key", "Microsoft-managed", "follows"])
def test_a_rollback_leaves_the_account_where_somebody_else_has_moved_it(moved_to: str | None) -> None:
    batch = Batch(BEFORE, moved_to=(moved_to,))

    failure = switch(batch)

    assert (batch.on, batch.writes) == (moved_to, [WANTED])
    assert failure.facts["restored"] is False
    assert failure.facts["current_state"]["key_identifier"] == moved_to


@pytest.mark.parametrize("available", [True, False])
def test_an_account_stays_on_the_key_of_a_failed_switch_if_it_is_available(available: bool) -> None:
    """The switch took effect although its response was lost. Another run may have made the same switch."""
    batch = Batch(BEFORE, moved_to=(WANTED,), unavailable_on="" if available else WANTED)

    failure = switch(batch)

    assert (batch.on, batch.writes) == ((WANTED, [WANTED]) if available else (BEFORE, [WANTED, BEFORE]))
    assert failure.code == "service_unavailable"
    assert failure.facts["restored"] is not available
    assert failure.facts["current_state"]["key_identifier"] == batch.on
    assert ("stays" in failure.msg) is available


def test_an_unavailable_account_is_waited_for_only_with_the_option() -> None:
    batch = Batch(WANTED, unavailable_on=WANTED)

    assert switch(batch).code == "account_unavailable"
    assert batch.writes == []


def test_an_account_on_a_microsoft_managed_key_is_described() -> None:
    surveyed = encryption_survey.survey({"account": account(), "unavailable_reason": None, "diagnosis": None})

    assert (surveyed["vault_name"], surveyed["key_name"], surveyed["key_identifier"]) == (None, None, None)
