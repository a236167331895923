# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The data that a diagnosis needs beside the data of preflight: deleted vaults and keys.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..._azure.cache import RECENTLY
from ..._azure.identities import Identities
from ..._azure.resources import Resources
from ..._checks.diagnosis import Symptoms, depends_on_account_change
from ..._checks.preflight import Evidence, is_unreachable, without_deleted
from ..._core.concurrent import in_background, value_or_error
from ..._core.documents import Account, KeyBundle, KeyItem
from ..._core.errors import CmkError, Denied, Unavailable
from ..._core.ids import KeyIdentifier
from ..account.document import is_gone
from ..key.client import Keys
from ..key.evidence import EvidenceReader
from ..vault.reads import VaultReads


class SymptomReader:
    def __init__(
        self, evidence: EvidenceReader, vaults: VaultReads, keys: Keys, identities: Identities, resources: Resources
    ) -> None:
        self._resources = resources
        self._evidence = evidence
        self._vaults = vaults
        self._keys = keys
        self._identities = identities

    def read(self, account: Account, key: KeyIdentifier) -> Symptoms:
        evidence = self._evidence.of_account(account, key)
        there, unreachable = isinstance(evidence.vault, Mapping), is_unreachable(evidence.bundle)
        found: Symptoms = {
            **self._of_identities(account, evidence),
            # An error if a deleted vault may exist that the caller may not read.
            "deleted_vault": None if there else self._vaults.find_deleted(key.vault, is_unreachable=unreachable),
            "deleted_key": self._keys.deleted(key) if evidence.bundle is None else None,
            "versions": None if evidence.vault is None else _or_error(lambda: self._keys.versions(key, RECENTLY)),
            "is_report": True,
        }
        return self._with_time(account, found)

    def of_key_in_use(self, account: Account, key: KeyIdentifier, *, is_report: bool) -> Symptoms:
        """The data that shows whether Batch can use the key. Other tasks of the run may have read it a moment ago. For
        `is_report` see `unnoticed_repairs`."""
        # While the access is read. The versions are then in the cache of the run.
        in_background(lambda: self._recent_versions(key, self._keys.bundle(key, RECENTLY)))
        evidence = self._evidence.of_account(account, key)
        found: Symptoms = {
            **self._of_identities(account, evidence),
            "deleted_vault": self._vaults.find_deleted(key.vault, is_unreachable=False)
            if evidence.vault is None
            else None,
            "versions": self._recent_versions(key, evidence.bundle),
            "is_report": is_report,
        }
        return self._with_time(account, found)

    def _with_time(self, account: Account, found: Symptoms) -> Symptoms:
        """If the time of the account's last change says more about its availability, add that time. If the account was
        changed after the key, Batch has used the key."""
        if not depends_on_account_change(found):
            return found
        changed = value_or_error(lambda: self._resources.changed_at(account["id"]), CmkError)
        return {**found, "account_changed_at": None if isinstance(changed, CmkError) else changed}

    def _recent_versions(
        self, key: KeyIdentifier, used: KeyBundle | CmkError | None
    ) -> list[KeyItem] | CmkError | None:
        """The versions of the key, or the error if they could not be listed. None if the key was not read."""
        if used is None or isinstance(used, CmkError):
            return None
        return _or_error(lambda: self._keys.versions(key, RECENTLY))

    def _of_identities(self, account: Account, evidence: Evidence) -> Symptoms:
        """The user-assigned identities of the account that were deleted, and the evidence without their access."""
        identity = account.get("identity", {})
        assigned = identity.get("userAssignedIdentities", {})
        missing = [name for name in assigned if is_gone(assigned[name], self._principal_id(name))]
        return {"evidence": without_deleted(evidence, identity, missing), "missing_identities": missing}

    def _principal_id(self, name: str) -> str | CmkError | None:
        try:
            return self._identities.principal_id(name)
        except Denied as refused:
            return refused


def _or_error(read: Callable[[], list[KeyItem]]) -> list[KeyItem] | CmkError:
    try:
        return read()
    except (Denied, Unavailable) as unread:
        return unread
