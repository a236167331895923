# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The data of a key and of the account's identities that preflight and the diagnosis need.

If the caller may not read the data, or the service does not respond, the value is the error with the reason.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from ..._azure.cache import RECENTLY
from ..._azure.resources import Identities, Resources
from ..._azure.session import Session
from ..._checks.diagnosis import Symptoms, depends_on_account_change
from ..._checks.preflight import (
    Evidence,
    failed_checks,
    for_rollback,
    granted_to_each,
    is_unreachable,
    lasting,
    require,
    without_deleted,
)
from ..._checks.versions import MARGIN_SECONDS
from ..._core.concurrent import in_background, map_concurrent, value_or_error
from ..._core.documents import Account, KeyBundle, KeyItem, RoleAssignment, RoleDefinitionProperties, Vault
from ..._core.errors import CmkError, Denied, NotFound, Unavailable
from ..._core.ids import KeyIdentifier, place_of, principals_of
from ..access.client import Access
from ..access.document import roles_in, scope_of
from ..account.document import is_gone
from ..vault.document import uses_rbac
from ..vault.reads import VaultReads
from .client import Keys
from .document import TYPES, ended_at, version_of


class EvidenceReader:
    def __init__(self, session: Session, vaults: VaultReads, keys: Keys, access: Access) -> None:
        self._session = session
        self._vaults = vaults
        self._keys = keys
        self._access = access

    def of_account(self, account: Account, key: KeyIdentifier, vault_group: str | None = None) -> Evidence:
        """The evidence on a key that the account uses or is about to use. The vault is often in the resource group of
        the account, so that group is searched first."""
        return _for(account, self.gather(key, vault_group or self._group_of(account), *self._who(account)))

    def expect(self, account: Account, key: KeyIdentifier, vault_group: str | None = None) -> None:
        """Begin to read the same."""
        in_background(lambda: self._gathered(key, vault_group or self._group_of(account), *self._who(account)))

    def _group_of(self, account: Account) -> str | None:
        """The resource group of the account; None if the vault is in another subscription."""
        subscription, group, _name = place_of(account["id"])
        return group if subscription.lower() == self._session.vault_subscription_id.lower() else None

    def _who(self, account: Account) -> tuple[tuple[str, ...], str]:
        """The principals of the account, and their tenant."""
        identity = account.get("identity", {})
        # The document of an account has the tenant only with a system-assigned identity. It is always the caller's
        # tenant.
        return principals_of(identity), identity.get("tenantId") or self._session.caller["tenant_id"]

    def gather(
        self, key: KeyIdentifier, vault_group: str | None, principals: Sequence[str], tenant_id: str | None
    ) -> Evidence:
        """The evidence. If a check fails, data of earlier tasks is read again, because they may have read it before a
        repair."""
        found = self._gathered(key, vault_group, principals, tenant_id)
        if self._session.cache.shares or not failed_checks(lasting(found)):
            return found
        return self._now(key, vault_group, principals, tenant_id)

    def _now(
        self, key: KeyIdentifier, vault_group: str | None, principals: Sequence[str], tenant_id: str | None
    ) -> Evidence:
        """Data that no other task of the run has read."""
        self._session.cache.forget("vault", "key", "access", "role", "identity")
        return self._gathered(key, vault_group, principals, tenant_id)

    def _gathered(
        self, key: KeyIdentifier, vault_group: str | None, principals: Sequence[str], tenant_id: str | None
    ) -> Evidence:
        read_key = in_background(value_or_error, lambda: self._keys.bundle(key, RECENTLY))
        vault = value_or_error(lambda: self._vaults.find(key.vault, vault_group, RECENTLY))
        by_role = vault is not None and not isinstance(vault, CmkError) and uses_rbac(vault)
        roles = value_or_error(lambda: self._roles(vault, key.name, principals)) if by_role else ({}, {})
        bundle = read_key.result()
        assignments, definitions = ({}, {}) if isinstance(roles, CmkError) else roles
        return Evidence(
            key=key,
            principals=principals,
            tenant_id=tenant_id,
            vault=vault,
            bundle=bundle,
            assignments=roles if isinstance(roles, CmkError) else assignments,
            definitions=definitions,
            now=self._keys.now,
        )

    def refreshed(self, evidence: Evidence) -> Evidence:
        """The same evidence, read from Azure now."""
        vault = evidence.vault
        group = place_of(vault["id"])[1] if isinstance(vault, Mapping) else None
        return self._now(evidence.key, group, evidence.principals, evidence.tenant_id)

    def require_usable(self, evidence: Evidence, *, rollback: bool = False) -> None:
        """Check the key again after Batch has refused it, because it may have been disabled since it was read.
        Otherwise the change would be retried until the timeout."""
        found = self.refreshed(evidence)
        require(for_rollback(found) if rollback else lasting(found))

    def with_access_now(self, evidence: Evidence, since: float, *, access_since: float | None = None) -> Evidence:
        """The same evidence, with the key read at `since` (time.monotonic()) or later, and the access to the key at
        `access_since` (by default `since`) or later. The vault grants the access if it does not use Azure RBAC.

        Data that the caller could not read before is not read, because preflight has warned. If other data cannot
        be read now, that is an error, not a warning.
        """
        vault = evidence.vault
        access_since = since if access_since is None else access_since
        reads: dict[str, Callable[[], dict[str, Any]]] = {}
        if isinstance(evidence.bundle, Mapping):
            reads["key"] = lambda: self._key_now(evidence, since)
        if isinstance(vault, Mapping) and not isinstance(evidence.assignments, CmkError):
            if uses_rbac(vault):
                reads["access"] = lambda: self._roles_now(evidence, vault, access_since)
            else:
                reads["vault"] = lambda: {"vault": self._vault_now(vault["id"], access_since)}
        now = evidence
        for read in map_concurrent(lambda what: reads[what](), reads).values():
            now = replace(now, **read)
        if "vault" in reads and isinstance(now.vault, Mapping) and uses_rbac(now.vault):
            now = replace(now, **self._roles_now(now, now.vault, access_since))
        if granted_to_each(now) != granted_to_each(evidence):
            # Other tasks use cached data for their checks before a change, and that data is out of date.
            self._session.cache.changed("vault", "access")
        return now

    def _key_now(self, evidence: Evidence, since: float) -> dict[str, Any]:
        """The version (`bundle`), if it was changed since the evidence was read. The list of versions, which the tasks
        of a run share, shows each change."""
        items = value_or_error(lambda: self._keys.versions(evidence.key, since), CmkError)
        bundle = evidence.bundle
        if not isinstance(items, CmkError) and isinstance(bundle, Mapping) and items:
            version = version_of(bundle["key"])
            newest = max(items, key=lambda item: item["attributes"]["created"])
            item = next((one for one in items if version_of(one) == version), None)
            is_same = item is not None and all(
                item["attributes"].get(name) == bundle["attributes"].get(name)
                for name in ("enabled", "updated", "nbf", "exp")
            )
            if is_same and (evidence.key.version or version_of(newest) == version):
                return {}
        bundle = self._keys.bundle(evidence.key, since)
        return {"bundle": bundle, "now": self._keys.now}

    def _vault_now(self, vault_id: str, since: float) -> Vault:
        vault = self._vaults.at(vault_id, since)
        if vault is None:
            raise NotFound(
                f"The vault {vault_id} was deleted while an account was moved to one of its keys.",
                code="vault_not_found",
                remedy="Recover the vault, or use a key of another vault.",
            )
        return vault

    def _roles_now(self, evidence: Evidence, vault: Vault, since: float) -> dict[str, Any]:
        """Tasks that wait for the list of all assignments at the key's scope share it. The list does not show the
        roles that a principal has as a member of a group. If a principal has no role in the list, its assignments
        are read separately.
        """
        scope = scope_of(vault, evidence.key.name)
        listed = self._access.assignments_of_role(scope, since)
        assignments = {
            principal: listed.get(principal.lower()) or self._access.assignments(scope, principal, since)
            for principal in evidence.principals
        }
        # Roles that were assigned since the evidence was first read. If a definition cannot be read, the role
        # grants nothing.
        new = set(roles_in(chain.from_iterable(assignments.values()))) - evidence.definitions.keys()
        definitions = value_or_error(lambda: self._access.definitions(vault["id"], sorted(new)))
        known = {} if isinstance(definitions, CmkError) else definitions
        return {"assignments": assignments, "definitions": {**evidence.definitions, **known}}

    def _roles(
        self, vault: Vault, key_name: str, principals: Sequence[str]
    ) -> tuple[dict[str, list[RoleAssignment]], dict[str, RoleDefinitionProperties]]:
        scope, vault_id = scope_of(vault, key_name), vault["id"]
        assignments = {principal: self._access.recent_assignments(scope, principal) for principal in principals}
        everyone = [assignment for of_one in assignments.values() for assignment in of_one]
        guids = roles_in(everyone)
        if not guids:
            return assignments, {}
        return assignments, self._access.definitions(vault_id, guids, RECENTLY)


def _for(account: Account, evidence: Evidence) -> Evidence:
    return replace(evidence, account=f"Batch account {account['name']}")


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
        versions = None if evidence.vault is None else _or_error(lambda: self._keys.versions(key, RECENTLY))
        found: Symptoms = {
            **self._of_identities(account, evidence),
            # An error if a deleted vault may exist that the caller may not read.
            "deleted_vault": None if there else self._vaults.find_deleted(key.vault, is_unreachable=unreachable),
            "deleted_key": self._keys.deleted(key) if evidence.bundle is None else None,
            "versions": versions,
            "unsupported": self._unsupported(key, versions),
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
        changed = value_or_error(lambda: self._resources.changed_at(account), CmkError)
        return {**found, "account_changed_at": None if isinstance(changed, CmkError) else changed}

    def _recent_versions(
        self, key: KeyIdentifier, used: KeyBundle | CmkError | None
    ) -> list[KeyItem] | CmkError | None:
        """The versions of the key, or the error if they could not be listed. None if the key was not read."""
        if used is None or isinstance(used, CmkError):
            return None
        return _or_error(lambda: self._keys.versions(key, RECENTLY))

    def _unsupported(self, key: KeyIdentifier, versions: list[KeyItem] | CmkError | None) -> list[str]:
        """The versions that became unusable inside the margin and are of a type that Batch does not support, which a
        list of versions does not show."""
        if versions is None or isinstance(versions, CmkError):
            return []
        now = self._keys.now
        ended = [one for one in versions if now - MARGIN_SECONDS < ended_at(one, now) <= now]
        names = [version_of(one) for one in ended]
        read = map_concurrent(
            lambda name: value_or_error(lambda: self._keys.bundle(replace(key, version=name), RECENTLY)), names
        )
        return [name for name, one in read.items() if isinstance(one, Mapping) and one["key"]["kty"] not in TYPES]

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
