# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The evidence on a key (_questions/evidence.py) for this caller.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from ..._azure.driver import Driver
from ..._azure.session import Session
from ..._checks.diagnosis import Symptoms
from ..._checks.preflight import Evidence, failed_checks, for_rollback, granted_to_each, lasting, require
from ..._core.docs import Docs, Rule
from ..._core.documents import Account
from ..._core.ids import KeyIdentifier, place_of, principals_of
from ..._questions import evidence as questions
from ..._questions.evidence import Wanted

T = TypeVar("T")


class EvidenceReader:
    def __init__(self, session: Session, driver: Driver) -> None:
        self._session = session
        self._driver = driver

    def of_account(self, account: Account, key: KeyIdentifier, vault_group: str | None = None) -> Evidence:
        """The evidence on a key that the account uses or is about to use."""
        return self._of(self._wanted(account, key, vault_group))

    def gather(
        self, key: KeyIdentifier, vault_group: str | None, principals: Sequence[str], tenant_id: str | None
    ) -> Evidence:
        return self._of(Wanted(key, principals, tenant_id, self._session.vault_subscription_id, vault_group))

    def _wanted(self, account: Account, key: KeyIdentifier, vault_group: str | None = None) -> Wanted:
        """The vault is often in the resource group of the account, so that group is searched first."""
        subscription, group, _name = place_of(account["id"])
        vaults_in, identity = self._session.vault_subscription_id, account.get("identity", {})
        near = group if subscription.lower() == vaults_in.lower() else None
        # The document of an account has the tenant only with a system-assigned identity. It is always the caller's
        # tenant.
        tenant = identity.get("tenantId") or self._session.caller["tenant_id"]
        principals, name = principals_of(identity), f"Batch account {account['name']}"
        return Wanted(key, principals, tenant, vaults_in, vault_group or near, name)

    def _of(self, wanted: Wanted) -> Evidence:
        question = partial(questions.gather, wanted=wanted)
        return self._certain(question, lambda found: found)

    def _certain(self, question: Callable[[Docs], T], evidence_in: Callable[[T], Evidence]) -> T:
        """The value. If a check fails, what earlier tasks have read is read again, because they may have read it
        before a repair."""
        found = self._driver.solve(question, Rule.RECENT)
        if self._driver.is_glancing or not failed_checks(lasting(evidence_in(found))):
            return found
        return self._now(question)

    def _now(self, question: Callable[[Docs], T]) -> T:
        """The value from documents that no other task of the run has read."""
        self._driver.forget("vault", "key", "access", "role", "identity")
        return self._driver.solve(question, Rule.RECENT)

    def require_usable(self, evidence: Evidence, *, rollback: bool = False) -> None:
        """Check the key again after Batch has refused it, because it may have been disabled since it was read.
        Otherwise the change would be retried until the timeout."""
        vault = evidence.vault
        subscription, group, _name = place_of(vault["id"]) if isinstance(vault, Mapping) else ("", None, "")
        place = subscription or self._session.vault_subscription_id
        wanted = Wanted(evidence.key, evidence.principals, evidence.tenant_id, place, group)
        found = self._now(partial(questions.gather, wanted=wanted))
        require(for_rollback(found) if rollback else lasting(found))

    def with_access_now(self, evidence: Evidence, since: float, *, access_since: float | None = None) -> Evidence:
        """The same evidence, with the key read at `since` (time.monotonic()) or later, and the access to the key at
        `access_since` (by default `since`) or later."""
        access = since if access_since is None else access_since
        question = partial(questions.with_access_now, evidence=evidence, since=since, access_since=access)
        now = self._driver.solve(question)
        if granted_to_each(now) != granted_to_each(evidence):
            # What other tasks have read for their checks before a change is out of date.
            self._session.journal.mark("vault", "access")
        return now

    def symptoms(self, account: Account, key: KeyIdentifier) -> Symptoms:
        """The data of the diagnosis."""
        question = partial(questions.symptoms, account=account, wanted=self._wanted(account, key))
        return self._certain(question, _with_deleted)

    def of_key_in_use(self, account: Account, key: KeyIdentifier, *, is_report: bool) -> Symptoms:
        """The data that shows whether Batch can use the key. For `is_report` see `unnoticed_repairs`."""
        wanted = self._wanted(account, key)
        question = partial(questions.of_key_in_use, account=account, wanted=wanted, is_report=is_report)
        return self._certain(question, _with_deleted)


def _with_deleted(found: Symptoms) -> Evidence:
    """The evidence, with the identities that were deleted: no read repairs them."""
    return replace(found["evidence"], deleted=())
