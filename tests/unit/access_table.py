# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A table with a vault and the access of a principal to its keys, and decisions that read the table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from azure_table import Table, listing, task_of
from documents import DEFINITIONS, NOW, PRINCIPAL, SUBSCRIPTION

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.facts import Facts
from ansible_collections.azbatch.cmk.plugins.module_utils._core.tasks import Change
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.access.decide import AccessGranted, AccessRevoked
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.access.goal import AccessGoal


def azure(
    document: dict[str, Any] | None,
    *assignments: dict[str, Any],
    definitions: Mapping[str, Any] | None = None,
    principal: str = PRINCIPAL,
    accounts: tuple[dict[str, Any], ...] = (),
    **others: Any,
) -> Table:
    """A vault, and the role assignments of the principal that apply to the vault or one of its keys. `definitions` are
    the assigned roles by their GUIDs, by default DEFINITIONS. For `accounts` and `others` see `azure_table.listing`."""
    assigned = DEFINITIONS if definitions is None else definitions
    table = Table({refs.vaults_of(SUBSCRIPTION): [document] if document else []}, now=NOW)
    table.update(listing(*accounts, **others))
    if document:
        name = document["id"]
        table[refs.vault(name)] = document
        table.update({refs.role(name, guid): {"name": guid, "properties": one} for guid, one in assigned.items()})
        for scope in (name, f"{name}/keys/batch", f"{name}/keys/other"):
            table[refs.assignments_of(scope, principal)] = list(assignments)
    return table


def decided(goal: AccessGoal, table: Table) -> Change:
    """The change that a task decides."""
    task = task_of(table)
    return task.driver.solve((AccessGranted if goal.present else AccessRevoked)(goal, Facts(task.session)).decide)


def confirmed(goal: AccessGoal, change: Change, table: Table) -> Change:
    """The decision after a revocation, which has no requests if the table shows the change."""
    return task_of(table).driver.solve(change.confirm)
