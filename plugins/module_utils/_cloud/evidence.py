# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What preflight wants to know of a key and of those who are to use it.

What the caller may not read, or what does not answer, stands in the evidence as the error that says why.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .._access import scope_of
from .._concurrent import value_or_error
from .._errors import CmkError
from .._ids import KeyIdentifier, principals_of
from .access import Access, roles_in
from .keys import Keys
from .session import Session
from .vaults import Vaults


class Evidence:
    def __init__(self, session: Session, vaults: Vaults, keys: Keys, access: Access) -> None:
        self._session = session
        self._vaults = vaults
        self._keys = keys
        self._access = access

    def of_account(
        self, account: Mapping[str, Any], key: KeyIdentifier, vault_group: str | None = None
    ) -> dict[str, Any]:
        """Of a key that the account is on, or is to be put on."""
        identity = account.get("identity", {})
        # An account says its tenant only with a system-assigned identity; it is the caller's in any case.
        tenant = identity.get("tenantId") or self._session.caller["tenant_id"]
        return self.gather(key, vault_group, principals_of(identity), tenant)

    def gather(
        self, key: KeyIdentifier, vault_group: str | None, principals: Sequence[str], tenant_id: str
    ) -> dict[str, Any]:
        recent = self._session.recent
        vault = value_or_error(
            lambda: recent.read(
                lambda: self._vaults.find(key.vault, vault_group), "vault", key.vault, vault_group or ""
            )
        )
        seen = value_or_error(lambda: recent.read(lambda: self._key(key), "key", str(key)))
        bundle, now = (seen, self._keys.now) if isinstance(seen, CmkError) else seen
        by_role = isinstance(vault, dict) and vault["properties"].get("enableRbacAuthorization")
        roles = value_or_error(lambda: self._roles(vault, key.name, principals)) if by_role else ({}, {})
        assignments, definitions = ({}, {}) if isinstance(roles, CmkError) else roles
        return {
            "key": key,
            "principals": principals,
            "tenant_id": tenant_id,
            "vault": vault,
            "bundle": bundle,
            "assignments": roles if isinstance(roles, CmkError) else assignments,
            "definitions": definitions,
            "now": now,
        }

    def with_access_now(self, evidence: Mapping[str, Any]) -> Mapping[str, Any]:
        """The same, with who may use the key by now."""
        vault = evidence["vault"]
        if vault is None or isinstance(vault, CmkError):
            return evidence
        by_role = vault["properties"].get("enableRbacAuthorization")
        kind = "assignments" if by_role else "vault"
        now = value_or_error(lambda: self._assignments(evidence) if by_role else self._vaults.anew(vault["id"]))
        if now != evidence[kind]:
            # Others look before they change something, and it is not as they have seen it.
            self._session.recent.written("vault", "access")
        return {**evidence, kind: now}

    def _assignments(self, evidence: Mapping[str, Any]) -> dict[str, Any]:
        scope = scope_of(evidence["vault"], evidence["key"].name)
        return {principal: self._access.assignments(scope, principal) for principal in evidence["principals"]}

    def _key(self, key: KeyIdentifier) -> tuple[Any, float]:
        """With the time at Key Vault when it was read."""
        return self._keys.bundle(key), self._keys.now

    def _roles(
        self, vault: Mapping[str, Any], key_name: str, principals: Sequence[str]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        scope, vault_id = scope_of(vault, key_name), vault["id"]
        assignments = {principal: self._access.recent_assignments(scope, principal) for principal in principals}
        everyone = [assignment for of_one in assignments.values() for assignment in of_one]
        guids = roles_in(everyone)
        if not guids:
            return assignments, {}
        definitions = self._session.recent.read(
            lambda: self._access.definitions(vault_id, guids), "role", vault_id, *guids
        )
        return assignments, definitions
