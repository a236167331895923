# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The principals with access to the keys of all vaults, from one pass over the role assignments.

`VaultAccess` checks one caller at a time, and searches all role assignments each time. To check thousands of accounts
with `VaultAccess` would take minutes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..authorization.rules import RoleAssignment
from .access import DATA_ACTIONS, World
from .vault import AccessPolicy, Vault


@dataclass(frozen=True)
class Holder:
    """A principal with permissions on keys, from an access policy or a role assignment."""

    principal_id: str
    # The role's name; empty for an access policy.
    role: str
    # The scope of the role assignment; for an access policy, the vault's id.
    scope: str
    permissions: tuple[str, ...]
    effective_from: float = 0
    effective_until: float = float("inf")


@dataclass
class Grants:
    """The access at the time when the object is created."""

    world: World
    # All role assignments by scope, and role assignments on objects in a vault by the vault's id; both in lower case.
    _at: dict[str, list[RoleAssignment]] = field(default_factory=lambda: defaultdict(list))
    _inside: dict[str, list[RoleAssignment]] = field(default_factory=lambda: defaultdict(list))
    _allowed: dict[tuple[str, str], frozenset[str]] = field(default_factory=dict)
    # The results of `_by_role_at`, by scope and permission.
    _assigned: dict[tuple[str, str], frozenset[str]] = field(default_factory=dict)
    _permissions: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.now = self.world.clock.time()
        for held in self.world.authorization.effective(self.now):
            scope = held.scope.lower()
            self._at[scope].append(held)
            parts = scope.split("/")
            if len(parts) > 8 and parts[6:8] == ["microsoft.keyvault", "vaults"]:
                self._inside["/".join(parts[:9])].append(held)

    def allowed(self, vault: Vault, permission: str, key_name: str) -> frozenset[str]:
        """The object ids, in lower case, of the principals to which `VaultAccess.permit` gives the permission."""
        rbac = vault.rbac_at(self.now)
        scope = f"{vault.id}/keys/{key_name}".lower() if rbac else vault.id.lower()
        known = (scope, permission)
        if known not in self._allowed:
            self._allowed[known] = (
                self._by_role(scope, permission) if rbac else frozenset(self._by_policy(vault, permission))
            )
        return self._allowed[known]

    def holders(self, vault: Vault) -> list[Holder]:
        if not vault.rbac:
            return [_by_entry(vault, policy) for policy in vault.access_policies]
        above = [held for scope in _upwards(vault.id.lower().rpartition("/")[0]) for held in self._at.get(scope, ())]
        found = (self._by_assignment(held) for held in [*self._inside.get(vault.id.lower(), ()), *above])
        return [holder for holder in found if holder.permissions]

    def _by_role(self, scope: str, permission: str) -> frozenset[str]:
        return frozenset[str]().union(*(self._by_role_at(above, permission) for above in _upwards(scope)))

    def _by_role_at(self, scope: str, permission: str) -> frozenset[str]:
        """The principals with an assignment at exactly this scope, which all keys below the scope share."""
        known = (scope, permission)
        if known not in self._assigned:
            self._assigned[known] = frozenset(
                held.principal_id.lower()
                for held in self._at.get(scope, ())
                if held.effective_from <= self.now and permission in self._of_role(held.role)
            )
        return self._assigned[known]

    def _by_policy(self, vault: Vault, permission: str) -> Iterator[str]:
        for policy in vault.policies_at(self.now):
            # An access policy with an application id is for users of this application.
            if not policy.application_id and policy.allows_keys(permission):
                yield policy.object_id.lower()

    def _by_assignment(self, held: RoleAssignment) -> Holder:
        role = self.world.authorization.role(held.role)
        name = role.name if role else held.role
        permissions = self._of_role(held.role)
        return Holder(held.principal_id, name, held.scope, permissions, held.effective_from, held.effective_until)

    def _of_role(self, guid: str) -> tuple[str, ...]:
        if guid not in self._permissions:
            role = self.world.authorization.role(guid)
            allowed = [name for name, action in DATA_ACTIONS.items() if role and role.allows_data(action)]
            self._permissions[guid] = tuple(allowed)
        return self._permissions[guid]


def _by_entry(vault: Vault, policy: AccessPolicy) -> Holder:
    return Holder(policy.object_id, "", vault.id, policy.permissions.get("keys", ()))


def _upwards(scope: str) -> Iterator[str]:
    """A scope and all scopes above it."""
    while scope:
        yield scope
        scope = scope.rpartition("/")[0]
    yield "/"
