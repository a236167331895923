# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Access to a vault's keys for customer-managed encryption: get, wrapKey and unwrapKey, by policy or by role.

This module util is private to the collection.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from math import inf
from typing import Any

from ..._checks import usage
from ..._checks.rights import to_assign_role, to_change_policies, to_unassign_role
from ..._checks.versions import MARGIN_SECONDS
from ..._core.documents import AccessPolicy, RoleAssignment, RoleAssignmentProperties, Vault
from ..._core.duration import instant, moment
from ..._core.errors import Refused
from ..._core.ids import role_guid, same_id
from ..._core.plan import Plan, Removed, Step, step
from ..._documents import vault as vault_document
from ..._documents.access import (
    NEEDED,
    ROLE_ID,
    ROLE_SECONDS,
    granted,
    key_permissions,
    needed_among,
    policy_of,
    scope_of,
)
from .goal import AccessWrites, Goal, Observed

Steps = tuple[Step[AccessWrites], ...]

# A time, in seconds since 1970, after every time of Azure.
_ANY_TIME = 1e12

# The permissions that `all` includes. It does not include purge, which has to be granted by name.
_ALL = (
    *("get", "list", "update", "create", "import", "delete", "recover", "backup", "restore", "encrypt"),
    *("decrypt", "wrapKey", "unwrapKey", "sign", "verify", "release", "rotate"),
    *("getrotationpolicy", "setrotationpolicy"),
)
# The namespace for the names of role assignments. The name depends only on scope, principal and role, so a rerun of
# an interrupted run finds its assignment.
_NAMESPACE = uuid.UUID("0f6bd5a5-4c0e-5b8d-9d59-3f8d1d2f5a77")


def plan(goal: Goal, observed: Observed) -> Plan[AccessWrites]:
    vault = vault_document.required(observed["vault"], goal.vault, goal.group, goal.identifier)
    by_role = vault_document.authorization_of(vault) == vault_document.RBAC
    scope = scope_of(vault, goal.key_name if by_role else None)
    principal = observed["principal_id"]
    if by_role:
        steps, granted_after = _role_steps(goal, vault, observed, principal)
    else:
        steps, granted_after = _policy_steps(goal, vault, principal)
    before = describe(goal, vault, observed)
    after = {**before, "granted": granted_after}
    if goal.present:
        return Plan(goal, before, after, steps)
    left = _still_granted(goal, vault, observed, scope, granted_after)
    unused = Plan(goal, before, after, steps, left, report={"in_use_by": [], "kept_until": None})
    if not (steps or goal.taken_away):
        return unused
    redundant_at = _redundant_at(goal, vault, observed, scope) if by_role else inf
    if redundant_at <= (_ANY_TIME if goal.taken_away else observed["now"]):
        return usage.removal(unused, replace(goal, present=True))
    visible, times, now = observed["visible"], observed["times"], observed["now"]
    users = usage.through_principal(visible, goal.vault, principal, goal.key_name if by_role else None)
    recent = usage.recently_left(times, now, goal.unused_for)
    what = f"revoke the access of {principal} to {goal.vault}"
    if not goal.taken_away and goal.keeps_used and (users or recent):
        kept = usage.pools_unknown(users, visible)
        until = None if users else instant(max(recent.values()))
        if users and redundant_at < _ANY_TIME:
            until = instant(redundant_at)
        return Plan(
            goal, before, before, warnings=kept, report={"in_use_by": users or list(recent), "kept_until": until}
        )
    if not goal.taken_away and users and redundant_at < _ANY_TIME and not goal.force:
        raise _not_redundant_yet(scope, users, redundant_at)
    if not goal.taken_away and recent and not users:
        raise usage.recently_used(what, list(recent), max(recent.values()))
    # After the revocation, an account that was changed meanwhile may have used the access.
    needed = [*users, *(one for one in recent if one not in users)] if goal.taken_away else users
    warnings = usage.guard(needed, visible, what, force=goal.force)
    if goal.unused_for < MARGIN_SECONDS:
        warnings += usage.cut_short(f"the access of {principal}", usage.recently_left(times, now, MARGIN_SECONDS))
    report = {"in_use_by": users, "kept_until": None}
    return usage.removal(
        Plan(goal, before, after, steps, (*warnings, *left), report=report), replace(goal, present=True)
    )


def revoked(goal: Goal, _versions: Sequence[str], at: float) -> Removed:
    """The access that was revoked at the time `at` (time.monotonic())."""
    return Removed(replace(goal, taken_away=True), replace(goal, present=True), at)


def _still_granted(goal: Goal, vault: Vault, observed: Observed, scope: str, permissions: list[str]) -> tuple[str, ...]:
    """The warning that the principal still has permissions although the role assignment of this task is deleted."""
    if not permissions:
        return ()
    principal = observed["principal_id"]
    scopes = {
        one["properties"]["scope"]
        for one in _without_own(observed["assignments"], scope, principal)
        if granted(vault, principal, goal.key_name, [one], observed["definitions"])
    }
    return (
        f"The principal {principal} still has {', '.join(permissions)}, because of role assignments at "
        f"{', '.join(sorted(scopes))}. Delete these role assignments to revoke the access.",
    )


def _redundant_at(goal: Goal, vault: Vault, observed: Observed, scope: str) -> float:
    """From when on the principal certainly keeps all permissions without its role assignment at this scope: by roles
    that were assigned to the principal itself, and have taken effect then. _ANY_TIME if it is not known when they were
    assigned, infinite if they do not grant all permissions. When a principal became a member of a group is not
    known. The second check only requires that these roles are still assigned."""
    principal = observed["principal_id"]
    own = [
        one
        for one in _without_own(observed["assignments"], scope, principal)
        if one["properties"]["principalId"].lower() == principal.lower()
    ]
    in_effect = {one["id"]: (moment(one["properties"].get("createdOn")) or _ANY_TIME) + ROLE_SECONDS for one in own}
    for time in sorted(in_effect.values()):
        kept = [one for one in own if in_effect[one["id"]] <= time]
        if granted(vault, principal, goal.key_name, kept, observed["definitions"]) == set(NEEDED):
            return min(time, _ANY_TIME)
    return inf


def _not_redundant_yet(scope: str, users: Sequence[str], until: float) -> Refused:
    remedy = "Run the task again after that time."
    return Refused(
        f"Refused to delete the role assignment at {scope} before {instant(until)}. Another role assignment grants the "
        f"same permissions, but is so recent that it may not be in effect before that time. These accounts and pools "
        f"use the access: {', '.join(users)}. {remedy}",
        code="recently_used",
        kept_until=instant(until),
        accounts=list(users),
        remedy=remedy,
    )


def describe(goal: Goal, vault: Vault, observed: Observed) -> dict[str, Any]:
    """The module's return value."""
    principal: str = observed["principal_id"]
    by_role = vault_document.authorization_of(vault) == vault_document.RBAC
    return {
        "vault_id": vault["id"],
        "vault_uri": vault_document.url(vault),
        "authorization": vault_document.authorization_of(vault),
        "principal_id": principal,
        "scope": scope_of(vault, goal.key_name if by_role else None),
        "granted": sorted(granted(vault, principal, goal.key_name, observed["assignments"], observed["definitions"])),
    }


def _spelt_out(permissions: list[str]) -> list[str]:
    """The permissions with `all` replaced by the permissions that it includes, so that some of them can be removed."""
    return list(_ALL) if "all" in {permission.lower() for permission in permissions} else permissions


def _policy_steps(goal: Goal, vault: Vault, principal: str) -> tuple[Steps, list[str]]:
    policy = policy_of(vault, principal)
    has = key_permissions(policy)
    if goal.present:
        missing = set(NEEDED) - needed_among(has)
        if not missing:
            return (), sorted(NEEDED)
        # The whole entry is sent, so that the result is the same whether Azure merges or replaces an added entry.
        return (_policy_step("add", vault, principal, policy, [*has, *sorted(missing)]),), sorted(NEEDED)
    if not needed_among(has):
        return (), []
    kept = [permission for permission in _spelt_out(has) if not needed_among([permission])]
    others = any(policy["permissions"].get(kind) for kind in ("secrets", "certificates", "storage"))
    if kept or others:
        return (_policy_step("replace", vault, principal, policy, kept),), []
    return (_policy_step("remove", vault, principal, policy, has),), []


def _policy_step(
    operation: str,
    vault: Vault,
    principal: str,
    policy: AccessPolicy,
    keys: list[str],
) -> Step[AccessWrites]:
    entry: AccessPolicy = {
        "tenantId": vault["properties"]["tenantId"],
        "objectId": principal,
        "permissions": {**policy.get("permissions", {}), "keys": keys},
    }
    write = step(AccessWrites.set_policy, vault_id=vault["id"], operation=operation, entry=entry)
    return write.needing(to_change_policies(vault["id"]))


def _role_steps(goal: Goal, vault: Vault, observed: Observed, principal: str) -> tuple[Steps, list[str]]:
    assignments, scope = observed["assignments"], scope_of(vault, goal.key_name)
    definitions = observed["definitions"]
    if goal.present:
        has = granted(vault, principal, goal.key_name, assignments, definitions)
        if has == set(NEEDED):
            return (), sorted(NEEDED)
        name = str(uuid.uuid5(_NAMESPACE, f"{scope}|{principal}|{ROLE_ID}".lower()))
        assign = step(AccessWrites.assign, scope=scope, name=name, role=ROLE_ID, principal=principal)
        return (assign.needing(to_assign_role(scope)),), sorted(NEEDED)
    left = _without_own(assignments, scope, principal)
    steps = tuple(
        step(AccessWrites.unassign, assignment_id=a["id"]).needing(to_unassign_role(a["id"]))
        for a in assignments
        if a not in left
    )
    return steps, sorted(granted(vault, principal, goal.key_name, left, definitions))


def _without_own(assignments: Sequence[RoleAssignment], scope: str, principal: str) -> list[RoleAssignment]:
    return [a for a in assignments if not _is_own(a["properties"], scope, principal)]


def _is_own(properties: RoleAssignmentProperties, scope: str, principal: str) -> bool:
    """Whether the assignment is directly to the principal at this scope, and not to a group of the principal."""
    has_principal = properties["principalId"].lower() == principal.lower()
    return (
        has_principal and same_id(properties["scope"], scope) and role_guid(properties["roleDefinitionId"]) == ROLE_ID
    )
