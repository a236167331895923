# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A table with a key and the accounts and pools that may use it, and decisions that read the table."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import NAMESPACE_DNS, uuid5

from azure_table import Place, Table, listing, task_of
from documents import (
    DAY,
    ENCRYPTION_USER,
    KEY,
    MIDDLE,
    NEW,
    NOW,
    OLD,
    SUBSCRIPTION,
    VAULT_ID,
    account,
    account_id,
    assignment,
    key,
    listed,
    system_assigned,
    vault,
)

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.facts import Facts
from ansible_collections.azbatch.cmk.plugins.module_utils._core.docs import Docs
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import Rejected
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import parse_key_identifier
from ansible_collections.azbatch.cmk.plugins.module_utils._core.tasks import Change
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key.decide import by_state
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key.goal import (
    KeyGoal,
    KeyStateGoal,
    NamedKey,
    UnusedVersionsGoal,
)
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key.present import KeyPresent, KeyTask
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key.removal import UnusedDisabled

T = TypeVar("T")
IDENTIFIER = parse_key_identifier(KEY, "key_identifier")
ACCOUNTS, VERSIONS = refs.accounts_of(SUBSCRIPTION), refs.versions_of(IDENTIFIER)
ASSIGNMENTS = refs.assignments_at(f"{VAULT_ID}/keys/batch")


class KeyTable(Table):
    """A key, its versions (the newest last, none if the key does not exist), and the accounts that the caller can read.

    The accounts that use the key have had access to it for long, and so have those whose names are in `left`: they may
    have left the key. `pools` are the pools of one more account. Batch does not list the pools of the accounts in
    `lost`. For `hidden` and `ages` see azure_table.listing.
    """

    def __init__(
        self,
        *bundles: dict[str, Any],
        accounts: Collection[dict[str, Any]] = (),
        pools: Any = (),
        left: Collection[str] = (),
        lost: Collection[str] = (),
        hidden: Collection[str] = (),
        deleted: dict[str, Any] | None = None,
        policy: dict[str, Any] | None = None,
        now: float = NOW,
        **ages: float | None,
    ) -> None:
        super().__init__(now=now)
        users = [*map(_with_identity, accounts), *([account("pools")] if pools else [])]
        self.update(
            {
                **listing(*users, hidden=hidden, **ages),
                refs.key(IDENTIFIER): bundles[-1] if bundles else None,
                **{one["key"]["kid"]: one for one in bundles},
                # Sorted by their ids, and not by their age, as Key Vault does.
                VERSIONS: sorted(map(listed, bundles), key=lambda item: item["kid"]),
                refs.rotation_policy_of(IDENTIFIER): policy,
                refs.deleted_key(IDENTIFIER): deleted,
                refs.pools_of(account_id("pools")): pools,
                **{refs.pools_of(account_id(one)): Rejected("The account is disabled.") for one in lost},
                refs.vaults_of(SUBSCRIPTION): [
                    {**vault(rbac=True), "systemData": {"lastModifiedAt": "2020-01-01T00:00:00Z"}}
                ],
                refs.permissions_at(VAULT_ID): [{"actions": ["*"], "dataActions": ["*"]}],
                ASSIGNMENTS: [
                    assignment(ENCRYPTION_USER, VAULT_ID, principal=one["identity"]["principalId"], age=400 * DAY)
                    for one in users
                    if one["name"] in left or _uses_key(one)
                ],
            }
        )

    def having(self, ref: Place, value: Any) -> KeyTable:
        self[ref] = value
        return self


def _with_identity(one: dict[str, Any]) -> dict[str, Any]:
    principal = str(uuid5(NAMESPACE_DNS, one["name"]))
    return {**one, "identity": system_assigned(principal)} if one["identity"]["type"] == "None" else one


def _uses_key(one: dict[str, Any]) -> bool:
    used = one["properties"]["encryption"].get("keyVaultProperties", {}).get("keyIdentifier", "")
    return bool(used == KEY or used.startswith(f"{KEY}/"))


def three_versions(
    *accounts: dict[str, Any], newest_is: float = 10 * DAY, disabled: Collection[str] = (), **others: Any
) -> KeyTable:
    """A key with three versions. The newest was created `newest_is` seconds ago. For `others` see KeyTable."""
    created = {OLD: newest_is + 200 * DAY, MIDDLE: newest_is + 100 * DAY, NEW: newest_is}
    bundles = [
        key(name, created=int(NOW - age), updated=int(NOW - age), enabled=name not in disabled)
        for name, age in created.items()
    ]
    return KeyTable(*bundles, accounts=accounts, **others)


def pool(used: str, *, changed_at: str = "2020-01-01T00:00:00Z") -> dict[str, Any]:
    """A pool with disks that use the key."""
    disks = {"customerManagedKey": {"keyUrl": used}}
    return {
        "id": f"{account_id('pools')}/pools/pool",
        "name": "pool",
        "properties": {
            "lastModified": changed_at,
            "deploymentConfiguration": {"virtualMachineConfiguration": {"diskEncryptionConfiguration": disks}},
        },
        "identity": {"userAssignedIdentities": {"id": {"principalId": str(uuid5(NAMESPACE_DNS, "pools"))}}},
    }


def key_task(goal: NamedKey, facts: Facts) -> KeyTask:
    """The task of the module that has such a goal."""
    tasks: dict[type[NamedKey], Any] = {KeyGoal: KeyPresent, KeyStateGoal: by_state, UnusedVersionsGoal: UnusedDisabled}
    return tasks[type(goal)](goal, facts)


def decided(table: Table, goal: NamedKey) -> Change:
    """The change that a task decides."""
    task = task_of(table)
    return task.driver.solve(key_task(goal, Facts(task.session)).decide)


def solved(table: Table, question: Callable[[Docs], T]) -> T:
    return task_of(table).driver.solve(question)


def confirmed(table: Table, change: Change) -> Change:
    """The decision after the requests of the change, which has no requests if the table shows the change."""
    return solved(table, change.confirm)


def sent(change: Change) -> list[tuple[str, str, Any]]:
    """The requests of the change: the method, the path and the body."""
    return [(one.method, urlsplit(one.ref).path, one.body) for one in change.requests]


def create(**body: Any) -> tuple[str, str, Any]:
    return "POST", "/keys/batch/create", body


def update(version: str, **body: Any) -> tuple[str, str, Any]:
    return "PATCH", f"/keys/batch/{version}", body
