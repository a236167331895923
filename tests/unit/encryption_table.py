# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A table with a Batch account and the keys that it may use, and the decisions of batch_encryption."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from azure_table import Table, Task, place, task_of
from documents import (
    DAY,
    KEY,
    MIDDLE,
    NEW,
    NOW,
    OLD,
    SUBSCRIPTION,
    VAULT_ID,
    account,
    account_id,
    key,
    listed,
    policy,
    system_assigned,
    vault,
)

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.facts import Facts
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.gateway import Answer
from ansible_collections.azbatch.cmk.plugins.module_utils._core.docs import Docs
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError, Rejected, Unavailable
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import parse_key_identifier
from ansible_collections.azbatch.cmk.plugins.module_utils._core.tasks import Change
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs
from ansible_collections.azbatch.cmk.plugins.module_utils._documents.account import key_of
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption.decide import Move
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption.goal import EncryptionGoal

PINNED_OLD, PINNED_MIDDLE, PINNED_NEW = (f"{KEY}/{version}" for version in (OLD, MIDDLE, NEW))
# A key in another vault.
ELSEWHERE = KEY.replace("myvault", "vault2")
CREATED = {OLD: NOW - 200 * DAY, MIDDLE: NOW - 100 * DAY, NEW: NOW - 10 * DAY}

ACCOUNT, POOLS = refs.account(account_id()), refs.first_pools_of(account_id())
VAULT, VAULTS = refs.vault(VAULT_ID), refs.vaults_of(SUBSCRIPTION)
PERMISSIONS = refs.permissions_at(refs.group(SUBSCRIPTION, "rg-batch").id)
PATCH = f"PATCH {account_id()}"
# Batch refuses a key, or to list the pools of an account without its key.
NOT_YET = Rejected("No access.", azure={"code": "KeyVaultAccessDenied", "message": "No access."})
NO_KEY = Rejected("No key.", azure={"code": "KeyVaultKeyNotAccessible", "message": "No key."})


class Azure(Table):
    """An account that uses `used`, and a key with three versions in each of two vaults, which it may use. The account
    is not available if it uses `unavailable_on`.

    `on_write` is called with the key that a write sets, unless Azure refuses the write. By default, the account uses
    that key then.
    """

    def __init__(
        self, used: str | None, documents: dict[Any, Any] | None = None, *, unavailable_on: str | None = ""
    ) -> None:
        vaults = vault(policy()), {**vault(policy()), "id": VAULT_ID.replace("myvault", "vault2"), "name": "vault2"}
        super().__init__({VAULTS: list(vaults), **{refs.vault(one["id"]): one for one in vaults}}, now=NOW)
        self[PERMISSIONS] = [{"actions": ["Microsoft.Batch/*"], "notActions": []}]
        self.unavailable_on = unavailable_on
        self.identity = system_assigned()
        self.on_write: Callable[[str | None], object] = self.move
        self.versions = {name: key(name, created=created) for name, created in CREATED.items()}
        self.move(used)
        self.show()
        self.update(documents or {})

    def move(self, used: str | None) -> None:
        self[ACCOUNT] = account(key=used, identity=self.identity)
        self[POOLS] = NO_KEY if used == self.unavailable_on else []

    def change(self, version: str, **fields: Any) -> None:
        self.versions[version] = key(version, **{"created": CREATED[version], **fields})
        self.show()

    def grant(self, *policies: dict[str, Any]) -> None:
        """Set the access policies of the first vault."""
        self.has_vault(vault(*policies))

    def has_vault(self, found: Any) -> None:
        """The first vault, or the error of its read."""
        self[VAULT] = found
        self[VAULTS] = found if isinstance(found, CmkError) else [found, self[VAULTS][1]]

    def show(self) -> None:
        for base, one in ((KEY, "myvault"), (ELSEWHERE, "vault2")):
            bundles = [_in_vault(bundle, one) for bundle in self.versions.values()]
            self.update({bundle["key"]["kid"]: bundle for bundle in bundles})
            self.update({base: bundles[-1], f"{base}/versions": [*map(listed, bundles)]})

    @property
    def used(self) -> str | None:
        """The key that the account uses."""
        return _key_in(self._account)

    @property
    def _account(self) -> Any:
        found = self[ACCOUNT]
        return found.document if isinstance(found, Answer) else found

    @property
    def written_keys(self) -> list[str | None]:
        """The keys that writes have set on the account, in their order."""
        return [_key_in(body) for method, _ref, body in self.written if method == "PATCH" and "properties" in body]

    def write(self, method: str, ref: str, body: Any) -> Any:
        try:
            super().write(method, ref, body)
        except Unavailable:
            self._apply(ref, body)
            raise
        self._apply(ref, body)
        return self._account if ref == account_id() else None

    def _apply(self, ref: str, body: Any) -> None:
        if ref == account_id():
            self.on_write(_key_in(body))
        elif (version := self.versions.get(ref.rpartition("/")[2])) is not None:
            version["attributes"]["updated"] = NOW
            self.show()


def _in_vault(bundle: dict[str, Any], name: str) -> dict[str, Any]:
    return {**bundle, "key": {**bundle["key"], "kid": bundle["key"]["kid"].replace("myvault", name)}}


def _key_in(document: Any) -> str | None:
    return str(key_of(document) or "") or None


def place_of_key(value: str) -> str:
    """The place of a key or version in the table."""
    return place(refs.key(parse_key_identifier(value, "key_identifier")))


def decided(goal: EncryptionGoal, azure: Table, task: Task | None = None) -> Change:
    """The change that a task decides."""
    task = task or task_of(azure)
    move = Move(goal, Facts(task.session))
    return task.driver.solve(move.decide, move.is_subject)


def solved(decide: Callable[[Docs], Change], azure: Table, task: Task | None = None) -> Change:
    return (task or task_of(azure)).driver.solve(decide)


def keys_set_by(change: Change) -> list[str | None]:
    """The keys that the requests set on the account. Nothing else is sent."""
    for one in change.requests:
        assert (one.method, one.ref, list(one.body or ())) == ("PATCH", account_id(), ["properties"])
        assert list(one.body["properties"]) == ["encryption"] if one.body else False
    return [_key_in(one.body) for one in change.requests]
