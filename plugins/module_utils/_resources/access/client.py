# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Access to a vault's keys: access policies and role assignments. The rights of the caller.

This module util is private to the collection.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from math import inf
from typing import Any

from ..._azure.driver import Driver
from ..._azure.gateway import Gateway
from ..._azure.polled import Polled
from ..._azure.session import Session
from ..._checks import usage
from ..._checks.preflight import Evidence, usable_since
from ..._checks.rights import lacking
from ..._core.concurrent import value_or_error
from ..._core.docs import Docs, Rule
from ..._core.documents import AccessPolicy, RoleAssignment, RoleDefinitionProperties, Vault
from ..._core.errors import CmkError, Denied
from ..._core.ids import KeyIdentifier, place_of
from ..._core.plan import Needed, Step
from ..._documents import refs
from ..._documents.access import by_principal, granted, roles_in, scope_of
from ..._documents.vault import uses_rbac
from ..._questions import identities, vaults
from ..._questions.evidence import definitions
from ..._questions.rights import Missing, missing
from ..visible import VisibleAccounts
from .goal import AccessWrites, Goal, Observed
from .plan import plan


class Access(Polled):
    def __init__(self, session: Session, driver: Driver, gateway: Gateway, visible: VisibleAccounts) -> None:
        self._session = session
        self._driver = driver
        self._gateway = gateway
        self._visible = visible

    def read(self, goal: Any) -> Observed:
        observed = self._driver.solve(partial(_observed, goal=goal, subscription=self._session.vault_subscription_id))
        if not goal.present:
            observed.update(self._users(goal, observed["principal_id"]))
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
        what = f"assign a role to {principal} on {scope}"
        self._gateway.write(what, "PUT", f"{refs.assignments_at(scope).id}/{name}", body)

    def unassign(self, assignment_id: str) -> None:
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
        subscription = self._session.vault_subscription_id
        question = partial(_all_access, key=key, subscription=subscription, since=time.monotonic())
        read = value_or_error(partial(self._driver.solve, question, Rule.RECENT), CmkError)
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

    def set_policy(self, vault_id: str, operation: str, entry: AccessPolicy) -> None:
        """Add, replace or remove the access policy of one principal. Other policies are not changed."""
        what = f"change an access policy of the key vault {place_of(vault_id)[2]}"
        body = {"properties": {"accessPolicies": [entry]}}
        self._gateway.write(what, "PUT", f"{vault_id}/accessPolicies/{operation}", body)


def _is_of_group(assignment: RoleAssignment) -> bool:
    return assignment["properties"].get("principalType") == "Group"


def _observed(docs: Docs, goal: Any, subscription: str) -> Observed:
    if (place := vaults.likely(docs, goal.vault, subscription, goal.group)) is not None:
        docs.want(place)
    principal = goal.principal_id or identities.get(docs, goal.identity_id)["properties"]["principalId"]
    vault = vaults.find(docs, goal.vault, subscription, goal.group)
    observed: Observed = {"vault": vault, "principal_id": principal, "assignments": [], "definitions": {}}
    if vault is not None and uses_rbac(vault):
        observed["assignments"] = docs.items(refs.assignments_of(scope_of(vault, goal.key_name), principal))
        observed["definitions"] = definitions(docs, vault["id"], roles_in(observed["assignments"]))
    return observed


def _all_access(
    docs: Docs, key: KeyIdentifier, subscription: str, since: float
) -> tuple[Vault, dict[str, list[RoleAssignment]], dict[str, RoleDefinitionProperties]] | None:
    """The vault of the key, the role assignments that apply to the key, by principal, and the assigned roles. None if
    there is no vault that the caller can read. The assignments are read at `since` (time.monotonic()) or later."""
    vault = vaults.find(docs, key.vault, subscription, None)
    if vault is None or not uses_rbac(vault):
        return None if vault is None else (vault, {}, {})
    listed = docs.items(refs.assignments_at(scope_of(vault, key.name)), since)
    return vault, by_principal(listed), definitions(docs, vault["id"], roles_in(listed))


class CallerRights:
    def __init__(self, session: Session, driver: Driver) -> None:
        self._session = session
        self._driver = driver

    def require(self, needed: Iterable[Needed]) -> tuple[str, ...]:
        """Raise Denied if the permissions show that the caller lacks one of the rights.

        In check mode, return the missing rights as warnings, because another caller may make the change.
        """
        rights = list(needed)
        found = self._missing(rights)
        if found.rights:
            # The rights may have been granted since another task of the run read the permissions.
            self._driver.forget("permissions", "vault")
            found = self._missing(rights)
        missing = found.rights
        if missing and not self._session.predicts:
            action, scope = missing[0]
            # The error of a vault that was not found also names the right that would show the vault.
            hidden = [f" {one}" for one in found.hidden]
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
        return tuple(lacking(*one) for one in self._missing(list(needed)).rights)

    def _missing(self, needed: Sequence[Needed]) -> Missing:
        own, vaults_in = self._session.subscription_id, self._session.vault_subscription_id
        return self._driver.solve(partial(missing, needed=needed, own=own, vaults_in=vaults_in), Rule.RECENT)
