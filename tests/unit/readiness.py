# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the first task of a role, with the real plans and a small Azure in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from documents import (
    CALLER,
    DAY,
    DEFINITIONS,
    KEY,
    MIDDLE,
    NEW,
    NOW,
    OLD,
    OTHER,
    SUBSCRIPTION,
    account,
    evidence,
    key,
    not_listed,
    observed_key,
    policy,
    system_assigned,
    vault,
    visible,
)
from goals import check_before

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.cache import Cache
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.rights import Rights
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_store import RunFiles
from ansible_collections.azbatch.cmk.plugins.module_utils._checks import rights
from ansible_collections.azbatch.cmk.plugins.module_utils._checks.rights import Needed
from ansible_collections.azbatch.cmk.plugins.module_utils._core.concurrent import value_or_error
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError, Denied, Rejected
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import key_of
from ansible_collections.azbatch.cmk.plugins.module_utils._core.plan import Outcome
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.account import document as account_document
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption import document as encryption_document
from ansible_collections.azbatch.cmk.plugins.modules import batch_encryption_info

PINNED_OLD, PINNED_NEW = f"{KEY}/{OLD}", f"{KEY}/{NEW}"
ELSEWHERE = f"https://vault2.vault.azure.net/keys/other/{OLD}"
UNAVAILABLE = Rejected("Azure reports: (Forbidden) the key cannot be read.")
HIDDEN = Denied("Azure reports: (AuthorizationFailed) no.", azure={"code": "AuthorizationFailed"})
EVERYTHING = [{"actions": ["*"], "dataActions": ["*"]}]
READS = [{"actions": ["*/read"], "dataActions": ["*/read"]}]


def versions(**newest: Any) -> tuple[dict[str, Any], ...]:
    return key(OLD, created=NOW - 100 * DAY), key(MIDDLE, created=NOW - 50 * DAY), key(NEW, **newest)


def policies(*others: dict[str, Any], **properties: Any) -> dict[str, Any]:
    """A vault whose keys the caller may manage."""
    return vault(*others, policy("caller", ["all"]), **properties)


@dataclass
class Azure:
    """The reads of each service. There are no methods that write."""

    account: dict[str, Any] | None = None
    unavailable_reason: CmkError | None = None
    vault: dict[str, Any] | None = field(default_factory=lambda: policies(policy()))
    deleted_vault: dict[str, Any] | None = None
    deleted_key: dict[str, Any] | None = None
    keys: tuple[dict[str, Any], ...] = field(default_factory=versions)
    others: tuple[dict[str, Any], ...] = ()
    unlisted: tuple[str, ...] = ()
    checks: dict[str, Any] = field(default_factory=dict)
    diagnosis: dict[str, Any] | None = None
    allowed: Any = field(default_factory=lambda: EVERYTHING)
    is_rehearsal: bool = False
    # The reads, and the rights that were checked.
    asked: list[str] = field(default_factory=list)
    needed: list[Needed] = field(default_factory=list)

    def service(self, name: str, read: Any, **methods: Any) -> SimpleNamespace:
        def noted(goal: Any) -> Any:
            self.asked.append(name)
            return read(goal)

        return SimpleNamespace(read=noted, **methods)

    @property
    def visible(self) -> dict[str, Any]:
        own = [self.account] if self.account else []
        return visible(*own, *self.others, unlisted=self.unlisted)

    @property
    def encryption(self) -> Any:
        def read(_goal: Any) -> dict[str, Any]:
            return {
                "account": self.account,
                "unavailable_reason": self.unavailable_reason,
                "evidence": evidence(**self.checks),
            }

        return self.service(
            "encryption",
            read,
            require_known_availability=self._require_known_availability,
            require_available=self._require_answer,
            survey=self._survey,
        )

    def _require_answer(self, group: str, name: str) -> None:
        self.asked.append("availability")
        assert (group, name) == ("rg-batch", "mybatch")
        if self.unavailable_reason is HIDDEN:
            raise account_document.availability_unknown(name, self.unavailable_reason)
        if self.unavailable_reason is not None:
            raise encryption_document.account_unavailable(name, key_of(self.account or {}), self.unavailable_reason)

    def _survey(self, group: str, name: str, *, diagnose: bool, after_repair: bool = False) -> dict[str, Any]:
        assert (group, name, diagnose) == ("rg-batch", "mybatch", True)
        if isinstance(self.account, CmkError):
            raise self.account
        diagnosis = {**self.diagnosis, "after_repair": after_repair} if self.diagnosis else None
        return {"account": self.account, "unavailable_reason": self.unavailable_reason, "diagnosis": diagnosis}

    def _require_known_availability(self, group: str, name: str) -> None:
        self.asked.append("availability")
        assert (group, name) == ("rg-batch", "mybatch")
        if self.unavailable_reason is HIDDEN:
            raise account_document.availability_unknown(name, self.unavailable_reason)

    @property
    def accounts(self) -> Any:
        regions = {"regions": ["westeurope"], "group": {"location": "westeurope"}}
        found = self.service("accounts", lambda _goal: {"account": self.account, "creation_failed": False, **regions})
        found.cached = self._cached
        return found

    def _cached(self, group: str, name: str, *, refresh_if: Any, group_may_be_missing: bool = False) -> Any:
        assert (group, name) == ("rg-batch", "mybatch")
        self.group_may_be_missing, self.refresh_if = group_may_be_missing, refresh_if
        return self.account

    @property
    def vaults(self) -> Any:
        known = {"caller": CALLER, "regions": ["westeurope"], "group": {"location": "westeurope"}}
        return self.service(
            "vaults",
            lambda _goal: {"vault": self.vault, "deleted": self.deleted_vault, **known},
            get=lambda _group, _name: self.vault,
            recent=lambda _name, _group: self.vault,
        )

    @property
    def keys_service(self) -> Any:
        return self.service(
            "keys", lambda _goal: observed_key(*self.keys, visible=self.visible, deleted=self.deleted_key)
        )

    @property
    def access(self) -> Any:
        def read(goal: Any) -> dict[str, Any]:
            self.asked.append(f"access of {goal.principal_id or goal.identity_id} to {goal.vault}")
            found = {"vault": self.vault, "principal_id": goal.principal_id or OTHER, "assignments": []}
            return {**found, "definitions": DEFINITIONS, "visible": self.visible}

        return self.service("access", read)

    @property
    def listing(self) -> Any:
        def read(goal: Any) -> dict[str, Any]:
            self.asked.append(f"users of {goal.vault}")
            return {"accounts": [], "unlisted": [not_listed(one) for one in self.unlisted]}

        return self.service("listing", read)

    @property
    def rights(self) -> Any:
        return SimpleNamespace(require=self._require)

    def _require(self, needed: Any) -> tuple[str, ...]:
        self.needed = list(needed)
        rehearsal = object() if self.is_rehearsal else None
        cache = Cache(RunFiles(None), lambda: "me")
        session: Any = SimpleNamespace(subscription_id=SUBSCRIPTION, rehearsal=rehearsal, cache=cache)
        resources: Any = SimpleNamespace(permissions=lambda _scope: self.allowed)
        return Rights(session, resources, self.vaults).require(self.needed)


class Cloud:
    """The services under the names that modules use."""

    def __init__(self, azure: Azure) -> None:
        self._azure = azure

    def change_nothing(self) -> None:
        pass

    def read_ahead(self, *reads: Any) -> None:
        """Do nothing, because the value is read later."""

    def sign_in_to_key_vault(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._azure, "keys_service" if name == "keys" else name)


def on(used: str | None, identity: dict[str, Any] | None = None) -> dict[str, Any]:
    return account(key=used, identity=identity or system_assigned())


def check(role: str, azure: Azure, **options: Any) -> Outcome:
    cloud: Any = Cloud(azure)
    return batch_encryption_info.run(check_before(role, **options), cloud)


def refused(role: str, azure: Azure, **options: Any) -> CmkError:
    with pytest.raises(CmkError) as failed:
        check(role, azure, **options)
    # The caller's rights are checked last, after all other checks. Recover reports all reasons in one error.
    assert role == "recover" or failed.value.code == "permission_denied" or azure.needed == []
    return failed.value


def needs(role: str, azure: Azure, **options: Any) -> list[str]:
    """The rights that a caller with read permissions lacks."""
    azure.allowed = READS
    outcome = value_or_error(lambda: check(role, azure, **options), Denied)
    if isinstance(outcome, Outcome):
        return []
    assert outcome.code == "permission_denied"
    return [one["action"] for one in outcome.facts["missing_rights"]]


def planned(azure: Azure) -> list[str]:
    """The actions of the planned writes: each write needs one right that is not a read."""
    return [right.action for right in azure.needed if not right.action.endswith("/read")]


def asked(role: str, azure: Azure, **options: Any) -> list[str]:
    check(role, azure, **options)
    return azure.asked


WRITE = "Microsoft.Batch/batchAccounts/write"
VAULTS, ASSIGNMENTS = "Microsoft.KeyVault/vaults", "Microsoft.Authorization/roleAssignments"
POLICIES = f"{VAULTS}/accessPolicies/write"
CREATE_KEY, UPDATE_KEY = f"{VAULTS}/keys/create/action", f"{VAULTS}/keys/update/action"
SET_ROTATION = f"{VAULTS}/keyrotationpolicies/write"
ASSIGN = f"{ASSIGNMENTS}/write"
ASSIGN_IDENTITY = "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action"
TO_MOVE = [*rights.to_set_encryption("rg-batch", "mybatch")]
EACH_ROLE = pytest.mark.parametrize("role", ["provision", "rotate", "revert"])
