# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Access to a vault's keys: access policies and role assignments. The rights of the caller.

This module util is private to the collection.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from math import inf
from typing import Any

from ..._azure.cache import JUST_NOW, RECENTLY, NotBefore
from ..._azure.gateway import Gateway
from ..._azure.resources import Identities, Resources
from ..._azure.session import Polled, Session
from ..._azure.visible import VisibleAccounts
from ..._checks import usage
from ..._checks.preflight import Evidence, usable_since
from ..._checks.rights import VAULTS, Needed, NeededRights, Right, VaultRight, in_group, is_in_no_policy, lacking
from ..._core.concurrent import in_background, value_or_error
from ..._core.documents import AccessPolicy, RoleAssignment, RoleDefinition, RoleDefinitionProperties, Vault
from ..._core.errors import CmkError, Denied
from ..._core.ids import KeyIdentifier, place_of, role_guid
from ..._core.plan import Step
from ..vault.document import uses_rbac
from ..vault.reads import VaultReads
from .document import ROLE_ID, allows, by_principal, granted, roles_in, scope_of
from .goal import AccessWrites, Goal, Observed
from .plan import plan


class Access(Polled):
    def __init__(
        self,
        session: Session,
        gateway: Gateway,
        vaults: VaultReads,
        identities: Identities,
        visible: VisibleAccounts,
        resources: Resources,
    ) -> None:
        self._resources = resources
        self._session = session
        self._gateway = gateway
        self._vaults = vaults
        self._identities = identities
        self._visible = visible

    def read(self, goal: Any) -> Observed:
        vault = self._vaults.find(goal.vault, goal.group)
        principal = goal.principal_id or self._identities.get(goal.identity_id)["properties"]["principalId"]
        observed: Observed = {"vault": vault, "principal_id": principal, "assignments": [], "definitions": {}}
        if vault is not None and uses_rbac(vault):
            scope = scope_of(vault, goal.key_name)
            observed["assignments"] = self.assignments(scope, principal)
            observed["definitions"] = self.definitions(vault["id"], roles_in(observed["assignments"]))
        if not goal.present:
            observed.update(self._users(goal, principal))
        return observed

    def _users(self, goal: Any, principal: str) -> Observed:
        """The accounts and pools that may use the access, and when the accounts were changed. No pool of another
        account can have the system-assigned identity of an account, so only the pools of that account are listed for
        it."""
        found = self._visible.everywhere()
        holders = usage.with_principal(found, principal)
        held = [one for one in found["accounts"] if one["id"] in holders]
        is_of_one = usage.is_system_assigned(found, principal)
        disks, unlisted = self._visible.disks(held if is_of_one else found["accounts"])
        visible: usage.Visible = {**found, "disks": disks, "unlisted": [*found["unlisted"], *unlisted]}
        changed_at, now = self._visible.changed_at([] if goal.force else held)
        return {"visible": visible, "times": usage.Times(changed_at, {}, list(changed_at)), "now": now}

    def expect(self, goal: Any, principals: Iterable[str]) -> None:
        """Begin to read the vault, and the access of these principals to it."""
        in_background(self._vaults.find, goal.vault, goal.group)
        vault = self._vaults.find(goal.vault, goal.group, RECENTLY)
        if vault and uses_rbac(vault):
            for principal in principals:
                in_background(self.assignments, scope_of(vault, goal.key_name), principal)

    def assignments(self, scope: str, principal: str, not_before: NotBefore = JUST_NOW) -> list[RoleAssignment]:
        """The role assignments of a principal that apply to the scope, including those of its groups."""

        def read() -> list[RoleAssignment]:
            what = f"list the role assignments of {principal} on {scope}"
            return self._gateway.list(what, _assignments(scope), f"atScope() and assignedTo('{principal}')")

        named = ("access", scope.lower(), principal.lower(), "own")
        return self._session.cache.get(read, *named, not_before=not_before)

    def recent_assignments(self, scope: str, principal: str) -> list[RoleAssignment]:
        """The same, read by a task of the run some seconds ago. After many principals, from one list of the assignments
        of all principals."""
        listed: list[RoleAssignment] | None = self._session.cache.one_of_many(
            lambda: self.assignments_of_role(scope, time.monotonic()), principal.lower(), "access", scope
        )
        if listed is not None:
            return listed
        return self.assignments(scope, principal, RECENTLY)

    def all_assignments(self, scope: str) -> list[RoleAssignment]:
        """The role assignments of all principals that apply to the scope. Assignments of a group are listed only
        for the group."""
        return self._gateway.list(f"list the role assignments on {scope}", _assignments(scope), "atScope()")

    def assignments_of_role(self, scope: str, not_before: NotBefore = JUST_NOW) -> dict[str, list[RoleAssignment]]:
        """By principal in lower case, the assignments of the role that Batch needs. A principal that is not listed
        may have the role as a member of a group.
        """
        listed = self._session.cache.get(
            lambda: self.all_assignments(scope), "access", scope.lower(), "of each principal", not_before=not_before
        )
        return by_principal(one for one in listed if role_guid(one["properties"]["roleDefinitionId"]) == ROLE_ID)

    def definitions(
        self, scope: str, guids: Iterable[str], not_before: NotBefore = JUST_NOW
    ) -> dict[str, RoleDefinitionProperties]:
        """The definitions of the roles with these GUIDs.

        They are read at the scope, because the caller may not be allowed to read the subscription in the id of a role.
        """
        roles = [
            self._session.cache.get(
                partial(self._definition, scope, guid), "role", scope.lower(), guid, not_before=not_before
            )
            for guid in guids
        ]
        return {role["name"].lower(): role["properties"] for role in roles}

    def _definition(self, scope: str, guid: str) -> RoleDefinition:
        ref = f"{scope}/providers/Microsoft.Authorization/roleDefinitions/{guid}"
        definition: RoleDefinition = self._gateway.get("read the definitions of the assigned roles", ref)
        return definition

    def steps_to_grant(self, group: str, vault: str, principal: str, key_name: str) -> tuple[Step[AccessWrites], ...]:
        """The steps that grant the principal access to the key; empty if the principal has access."""
        goal = Goal(group, vault, True, principal, None, key_name, force=False)
        return plan(goal, self.read(goal)).steps

    def assign(self, scope: str, name: str, role: str, principal: str) -> None:
        subscription = scope.split("/")[2]
        body = {
            "properties": {
                "roleDefinitionId": f"/subscriptions/{subscription}/providers/Microsoft.Authorization"
                f"/roleDefinitions/{role}",
                "principalId": principal,
                # Without this, Azure looks up the principal, and the request may fail if a new principal is not
                # replicated yet.
                "principalType": "ServicePrincipal",
            }
        }
        with self._session.changing("access"):
            what = f"assign a role to {principal} on {scope}"
            self._gateway.write(what, "PUT", f"{_assignments(scope)}/{name}", body)

    def unassign(self, assignment_id: str) -> None:
        with self._session.changing("access"):
            self._gateway.write(f"delete the role assignment {assignment_id}", "DELETE", assignment_id)

    def since_when(
        self, key: KeyIdentifier, users: Mapping[str, tuple[Sequence[str] | None, bool]], now: float
    ) -> dict[str, float]:
        """By the id of each user that uses the key or may have access to the key: since when, as far as the vault and
        the role assignments show (preflight.usable_since). Infinite if that is not known.

        The `users` are accounts and pools. By id: the principals of the user, if they are known, and whether the user
        certainly uses the key. A user may have access as a member of a group. Only role assignments of the principals
        themselves have a time.
        """
        read = value_or_error(lambda: self._all_access(key), CmkError)
        if read is None or isinstance(read, CmkError):
            return dict.fromkeys(users, inf)
        vault, given, definitions = read
        of_groups = [one for one in chain.from_iterable(given.values()) if _is_of_group(one)]
        found = {}
        for name, (principals, uses) in users.items():
            own = {principal: given.get(principal.lower(), []) for principal in principals or ()}
            may_use = any(
                granted(vault, principal, key.name, [*assignments, *of_groups], definitions)
                for principal, assignments in own.items()
            )
            if principals is None:
                found[name] = inf
            elif uses or may_use:
                found[name] = usable_since(Evidence(key, principals, None, vault, None, own, {}, now))
        return found

    def _all_access(
        self, key: KeyIdentifier
    ) -> tuple[Vault, dict[str, list[RoleAssignment]], dict[str, RoleDefinitionProperties]] | None:
        """The vault of the key, the role assignments that apply to the key, by principal, and the assigned roles. None
        if there is no vault that the caller can read."""
        vault = self._vaults.find(key.vault, None, RECENTLY)
        if vault is None or not uses_rbac(vault):
            return None if vault is None else (vault, {}, {})
        listed = self.all_assignments(scope_of(vault, key.name))
        return vault, by_principal(listed), self.definitions(vault["id"], roles_in(listed))

    def set_policy(self, vault_id: str, operation: str, entry: AccessPolicy) -> None:
        """Add, replace or remove the access policy of one principal. Other policies are not changed."""
        what = f"change an access policy of the key vault {place_of(vault_id)[2]}"
        body = {"properties": {"accessPolicies": [entry]}}
        with self._session.changing("vault"):
            self._gateway.write(what, "PUT", f"{vault_id}/accessPolicies/{operation}", body)


def _is_of_group(assignment: RoleAssignment) -> bool:
    return assignment["properties"].get("principalType") == "Group"


def _assignments(scope: str) -> str:
    return f"{scope}/providers/Microsoft.Authorization/roleAssignments"


class CallerRights:
    def __init__(self, session: Session, resources: Resources, vaults: VaultReads) -> None:
        self._session = session
        self._resources = resources
        self._vaults = vaults

    def of(self, needed: NeededRights) -> Callable[[Iterable[Step[Any]]], tuple[str, ...]]:
        """A function that calls `require` with the rights for the steps of a plan."""
        return lambda steps: self.require(needed.by(steps))

    def require(self, needed: Iterable[Needed]) -> tuple[str, ...]:
        """Raise Denied if the permissions show that the caller lacks one of the rights.

        In check mode, return the missing rights as warnings, because another caller may make the change.
        """
        # Without this cache, each right at a vault that does not exist would search for the vault again.
        vaults: dict[tuple[str, str | None], Any] = {}
        rights = dict.fromkeys(map(self._in_subscription, needed))
        missing = self._all_missing(rights, vaults)
        if missing:
            # The rights may have been granted since another task of the run read the permissions.
            self._session.cache.forget("permissions", "vault")
            vaults.clear()
            missing = self._all_missing(rights, vaults)
        if missing and not self._session.predicts:
            action, scope = missing[0]
            # The error of a vault that was not found also names the right that would show the vault.
            hidden = [f" {vault.msg}" for vault in vaults.values() if isinstance(vault, Denied)]
            remedy = f"Grant the caller a role (or access policy) that allows {action} at {scope}."
            raise Denied(
                f"The change was not started. {' '.join(lacking(*one) for one in missing)}{''.join(hidden)} {remedy}",
                action=action,
                missing_rights=[{"action": action, "scope": scope} for action, scope in missing],
                remedy=remedy,
            )
        return tuple(f"{lacking(*one)} A run by this caller would be refused." for one in missing)

    def missing(self, needed: Iterable[Needed]) -> tuple[str, ...]:
        """A sentence for each of the rights that the caller lacks, as far as the permissions show that."""
        return tuple(lacking(*one) for one in self._all_missing(map(self._in_subscription, needed), {}))

    def _all_missing(
        self, rights: Iterable[Needed], vaults: dict[tuple[str, str | None], Any]
    ) -> list[tuple[str, str]]:
        return [one for right in rights if (one := self._missing(right, vaults)) is not None]

    def _in_subscription(self, right: Needed) -> Needed:
        """The right. If its scope names no subscription, the scope is in the task's own subscription."""
        if isinstance(right, VaultRight) or not right.scope.startswith(in_group("")):
            return right
        return replace(right, scope=self._own(right.scope))

    def _own(self, scope: str) -> str:
        return f"/subscriptions/{self._session.subscription_id}{scope}"

    def _missing(self, right: Needed, vaults: dict[tuple[str, str | None], Any]) -> tuple[str, str] | None:
        """The action and the scope, if the permissions show that the caller lacks the right."""
        if isinstance(right, Right):
            return self._unless_allowed(right.action, right.scope, data=False)
        place = (right.vault.lower(), right.looked_for_in)
        if place not in vaults:
            vaults[place] = value_or_error(
                lambda: self._vaults.find(right.vault, right.looked_for_in, RECENTLY), CmkError
            )
        vault = vaults[place]
        if right.reads_vault and isinstance(vault, Denied):
            return f"{VAULTS}/read", f"the key vault {right.vault}"
        if vault is None or isinstance(vault, CmkError):
            return None
        if uses_rbac(vault):
            return self._unless_allowed(right.action, vault["id"], data=right.permission is not None)
        if right.policy_action:
            return self._unless_allowed(right.policy_action, vault["id"], data=False)
        if right.permission and is_in_no_policy(vault, right.permission):
            return f"the key permission {right.permission}", vault["id"]
        return None

    def _unless_allowed(self, action: str, scope: str, *, data: bool) -> tuple[str, str] | None:
        """The permissions at the resource group are read first, because the tasks of a run share them."""
        permissions: Any = None
        for place in dict.fromkeys(("/".join(scope.split("/")[:5]), scope)):
            permissions = value_or_error(partial(self._resources.permissions, place), CmkError)
            if not isinstance(permissions, CmkError) and allows(permissions, action, data=data):
                return None
        return None if isinstance(permissions, CmkError) else (action, scope)
