# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decides how a principal gets or loses access to a vault's keys for customer-managed encryption (get, wrapKey and
unwrapKey), by an access policy or a role assignment. Pure: asks for documents.

This module util is private to the collection.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

from ..._azure.facts import Facts
from ..._checks import usage
from ..._checks.rights import to_assign_role, to_change_policies, to_unassign_role
from ..._checks.versions import MARGIN_SECONDS
from ..._core.docs import Docs, Ref
from ..._core.duration import instant, moment
from ..._core.errors import Refused
from ..._core.ids import place_of, role_guid, same_id
from ..._core.rights import Needed
from ..._core.summary import counted, scope_text
from ..._core.tasks import VALUE_LAG_SECONDS, Change, Decided, Removal, Request, Task
from ..._documents import refs
from ..._documents import vault as vault_document
from ..._documents.access import (
    ENCRYPTION_USER,
    NEEDED,
    ROLE_SECONDS,
    RoleAssignment,
    RoleDefinitionProperties,
    granted,
    key_permissions,
    needed_among,
    policy_of,
    roles_in,
    scope_of,
)
from ..._documents.vault import AccessPolicy, Vault
from ..._questions import identities, services, users, vaults
from ..._questions.evidence import definitions
from .goal import AccessGoal

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


@dataclass(frozen=True)
class _Holder:
    """A principal, the vault of the goal, and what is assigned to the principal there."""

    goal: AccessGoal
    vault: Vault
    principal: str
    assignments: Sequence[RoleAssignment]
    # By the GUID of the role.
    definitions: Mapping[str, RoleDefinitionProperties]

    @property
    def by_role(self) -> bool:
        return vault_document.uses_rbac(self.vault)

    @property
    def key_name(self) -> str | None:
        """The only key to which access is granted. An access policy is for all keys."""
        return self.goal.key_name if self.by_role else None

    @property
    def scope(self) -> str:
        return scope_of(self.vault, self.key_name)

    def has(self, assignments: Sequence[RoleAssignment] | None = None) -> set[str]:
        """The permissions, with these assignments only."""
        given = self.assignments if assignments is None else assignments
        return granted(self.vault, self.principal, self.goal.key_name, given, self.definitions)

    @property
    def others(self) -> list[RoleAssignment]:
        """The assignments except that of this collection: directly to the principal, and not to a group, at the
        scope."""

        def is_own(one: RoleAssignment) -> bool:
            properties = one["properties"]
            is_direct = properties["principalId"].lower() == self.principal.lower()
            is_role = role_guid(properties["roleDefinitionId"]) == ENCRYPTION_USER
            return is_direct and is_role and same_id(properties["scope"], self.scope)

        return [one for one in self.assignments if not is_own(one)]

    @property
    def described(self) -> dict[str, Any]:
        """The module's return value."""
        return {
            "vault_id": self.vault["id"],
            "vault_uri": vault_document.url(self.vault),
            "authorization": vault_document.authorization_of(self.vault),
            "principal_id": self.principal,
            "scope": self.scope,
            "granted": sorted(self.has()),
        }


@dataclass(frozen=True)
class _OfPrincipal(Task):
    goal: AccessGoal
    facts: Facts

    @property
    def lock(self) -> str:
        return self.goal.vault


class AccessGranted(_OfPrincipal):
    """The principal may get, wrap and unwrap."""

    def decide(self, docs: Docs) -> Change:
        holder = _holder(docs, self.goal, self.facts)
        before, missing = holder.described, set(NEEDED) - holder.has()
        after = {**before, "granted": sorted(NEEDED)}
        if not missing:
            return Change(before, after)
        if holder.by_role:
            return _Granted(before, after, (_assign(holder),), task=self)
        policy = policy_of(holder.vault, holder.principal)
        # The whole entry is sent, so that the result is the same whether Azure merges or replaces an added entry.
        keys = [*key_permissions(policy), *sorted(missing)]
        return _Granted(before, after, (_set_policy(holder, "add", policy, keys),), task=self)


class _Granted(Decided):
    def is_subject(self, ref: Ref[Any]) -> bool:
        """A policy was written, so the vault is read again in any case."""
        return ref.kind == "access"


class AccessRevoked(_OfPrincipal):
    """The principal has no such access by this collection. No account or pool loses its key by that."""

    def glance(self, docs: Docs) -> None:
        """What another host has read may be restored by its task a moment later."""

    def decide(self, docs: Docs) -> Change:
        return users.with_left_out(docs, self.facts, _revoking(docs, _holder(docs, self.goal, self.facts), self.facts))


def _holder(docs: Docs, goal: AccessGoal, facts: Facts) -> _Holder:
    near = vaults.group_of(goal.account, facts.vaults_in) if goal.account else None
    if (place := vaults.likely(docs, goal.vault, facts.vaults_in, goal.group or near)) is not None:
        docs.want(place)
    principal = goal.principal_id or ""
    if goal.identity_id is not None:
        principal = identities.get(docs, goal.identity_id)["properties"]["principalId"]
    found = vaults.find(docs, goal.vault, facts.vaults_in, goal.group or near)
    vault = vault_document.required(found, goal.vault, goal.group, goal.identifier)
    if not vault_document.uses_rbac(vault):
        return _Holder(goal, vault, principal, (), {})
    assignments = docs.items(refs.assignments_of(scope_of(vault, goal.key_name), principal))
    return _Holder(goal, vault, principal, assignments, definitions(docs, vault["id"], roles_in(assignments)))


# Grant


def _assign(holder: _Holder) -> Request:
    scope, principal = holder.scope, holder.principal
    properties = {
        "roleDefinitionId": f"/subscriptions/{place_of(holder.vault['id'])[0]}/providers/Microsoft.Authorization"
        f"/roleDefinitions/{ENCRYPTION_USER}",
        "principalId": principal,
        # Without this, Azure looks up the principal, and the request may fail if a new principal is not replicated yet.
        "principalType": "ServicePrincipal",
    }
    name = uuid.uuid5(_NAMESPACE, f"{scope}|{principal}|{ENCRYPTION_USER}".lower())
    return Request(
        "assign",
        f"assign a role to {principal} on {scope}",
        "PUT",
        f"{refs.assignments_at(scope).id}/{name}",
        {"properties": properties},
        (to_assign_role(scope),),
    )


def _set_policy(holder: _Holder, operation: str, policy: AccessPolicy, keys: list[str]) -> Request:
    """Add, replace or remove the access policy of the principal. Other policies are not changed."""
    vault = holder.vault
    entry: AccessPolicy = {
        "tenantId": vault["properties"]["tenantId"],
        "objectId": holder.principal,
        "permissions": {**policy.get("permissions", {}), "keys": keys},
    }
    return Request(
        "set_policy",
        f"change an access policy of the key vault {place_of(vault['id'])[2]}",
        "PUT",
        f"{vault['id']}/accessPolicies/{operation}",
        {"properties": {"accessPolicies": [entry]}},
        (to_change_policies(vault["id"]),),
    )


# Revoke


def _revoking(docs: Docs, holder: _Holder, facts: Facts) -> Change:
    goal, change = holder.goal, _revocation(holder)
    if not change.requests:
        _require_unused_already(docs, holder, facts)
        return change
    redundant_at = _redundant_at(holder)
    if redundant_at < inf:
        # The time of its response: `docs.now`.
        docs.get(refs.vault(holder.vault["id"]))
    if redundant_at <= docs.now:
        return _made(change, holder, facts)
    visible, times, asks = _users(docs, holder, facts, goal.vault_used_by)
    using = usage.through_principal(visible, goal.vault, holder.principal, holder.key_name)
    recent = usage.recently_left(times, docs.now, goal.unused_for)
    what, until = f"revoke the access of {holder.principal} to {goal.vault}", max(recent.values(), default=None)
    if goal.keeps_used and (using or recent):
        if using:
            until = redundant_at if redundant_at < _ANY_TIME else None
        kept = {"in_use_by": using or list(recent), "kept_until": instant(until)}
        return Change(change.before, change.before, (), usage.pools_unknown(using, visible), kept)
    if using and redundant_at < _ANY_TIME and not goal.force:
        raise _not_redundant_yet(holder.scope, using, redundant_at)
    if until is not None and not using:
        raise usage.recently_used(what, list(recent), until, principal_id=holder.principal)
    warnings = usage.guard(using, visible, what, force=goal.force, principal_id=holder.principal)
    if goal.unused_for < MARGIN_SECONDS:
        within = usage.recently_left(times, docs.now, MARGIN_SECONDS)
        warnings += usage.cut_short(f"the access of {holder.principal}", within)
    if asks:
        warnings += usage.not_shown(goal.vault_used_by)
    known = [one["id"].lower() for one in visible["accounts"]]
    warned = replace(change, warnings=(*warnings, *change.warnings), report={**change.report, "in_use_by": using})
    return _made(warned, holder, facts, known)


def _made(change: Change, holder: _Holder, facts: Facts, known: Collection[str] = ()) -> Change:
    """The change with its confirmation. With `force`, users do not matter. `known` are the ids of accounts that were
    listed before (users.everywhere)."""
    if holder.goal.force:
        return Decided(**vars(change), task=AccessRevoked(holder.goal, facts))
    assigned_at = holder.scope if holder.by_role else None
    return _Revoked(**vars(change), goal=holder.goal, facts=facts, known=known, assigned_at=assigned_at)


@dataclass(frozen=True, kw_only=True)
class _Revoked(Removal):
    goal: AccessGoal
    facts: Facts
    known: Collection[str]
    # Where a role is assigned again if the revocation is undone.
    assigned_at: str | None

    @property
    def rights(self) -> list[Needed]:
        return [*super().rights, *([to_assign_role(self.assigned_at)] if self.assigned_at else [])]

    @property
    def delay(self) -> float:
        return 2 * VALUE_LAG_SECONDS

    @property
    def shares_delay(self) -> bool:
        # Each host revokes the access of its account.
        return True

    @property
    def keeps_used(self) -> bool:
        return self.goal.keeps_used

    def confirm(self, docs: Docs) -> Change:
        return still_unused(docs, self.goal, self.facts, self.known)

    def back(self) -> Sequence[Task]:
        return [AccessGranted(self.goal, self.facts)]

    def undone(self, current: Mapping[str, Any]) -> str:
        return (
            "Therefore the access was granted again. Batch may need twenty minutes until accounts that use it are "
            "available."
        )


def _require_unused_already(docs: Docs, holder: _Holder, facts: Facts) -> None:
    """If the principal lacks a permission, perhaps because of a run that ended before it has asked again, raise an
    error if an account needs the access."""
    if holder.goal.force or holder.has() == set(NEEDED):
        return
    listed = usage.without(users.everywhere(docs, facts), holder.goal.canary)
    visible: usage.Visible = {**listed, "disks": [], "services": []}
    using = usage.through_principal(visible, holder.goal.vault, holder.principal, holder.key_name)
    if using:
        raise usage.lost(f"revoke the access of {holder.principal} to {holder.goal.vault}", using)


def still_unused(docs: Docs, goal: AccessGoal, facts: Facts, known: Collection[str] = ()) -> Change:
    """Require that no account or pool needs the access that was revoked. There is a request left if Azure does not show
    the revocation. `known` are the ids of accounts that were listed before (users.everywhere). Azure Resource Graph
    confirms nothing, so it is not asked."""
    holder = _holder(docs, goal, facts)
    change = _revocation(holder)
    # The other roles had taken effect before the revocation. They only have to be assigned still.
    if _redundant_at(holder) < inf:
        return change
    visible, times, _asks = _users(docs, holder, facts, usage.BATCH, known)
    using = usage.through_principal(visible, goal.vault, holder.principal, holder.key_name)
    recent = usage.recently_left(times, docs.now, goal.unused_for)
    until = None if using else max(recent.values(), default=None)
    # An account that was changed meanwhile may have used the access.
    using = [*dict.fromkeys([*using, *recent])]
    what = f"keep the access of {holder.principal} to {goal.vault} revoked"
    warnings = usage.guard(using, visible, what, force=goal.force, until=until, principal_id=holder.principal)
    return replace(change, warnings=(*warnings, *change.warnings))


def _revocation(holder: _Holder) -> Change:
    before = holder.described
    requests, left = _unassign(holder) if holder.by_role else _remove_policy(holder)
    after, warnings = {**before, "granted": left}, _still_granted(holder, left)
    report = {"in_use_by": list[str](), "kept_until": None}
    return Change(before, after, requests, warnings, report)


def _users(
    docs: Docs, holder: _Holder, facts: Facts, vault_used_by: str, known: Collection[str] = ()
) -> tuple[usage.Visible, usage.Times, bool]:
    """The accounts, pools and other resources that may use the access, when the accounts were changed, and whether
    resources of other services were asked for. No other resource can have the system-assigned identity of an account,
    so only the pools of that account are listed for it."""
    everyone = users.everywhere(docs, facts, known)
    found = usage.without(everyone, holder.goal.canary)
    holders = usage.with_principal(found, holder.principal)
    held = [one for one in found["accounts"] if one["id"] in holders]
    counted = [] if holder.goal.force else held
    changed_at = users.changed_at(docs, counted)
    is_of_one = usage.is_system_assigned(everyone, holder.principal)
    visible = users.with_disks(docs, facts, found, of=held if is_of_one else None)
    asks = not (is_of_one or vault_used_by == usage.BATCH)
    if asks:
        visible, _ids = services.beside(docs, facts, holder.goal.vault, visible)
        if not usage.with_principal(everyone, holder.principal):
            visible = {**visible, "services": usage.with_applications(visible["services"])}
    return visible, usage.Times(changed_at, {}, list(changed_at)), asks


def _unassign(holder: _Holder) -> tuple[tuple[Request, ...], list[str]]:
    own = [one["id"] for one in holder.assignments if one not in holder.others]
    requests = (
        Request(
            "unassign",
            f"delete the role assignment {one.rpartition('/')[2]}",
            "DELETE",
            one,
            rights=(to_unassign_role(one),),
        )
        for one in own
    )
    return tuple(requests), sorted(holder.has(holder.others))


def _remove_policy(holder: _Holder) -> tuple[tuple[Request, ...], list[str]]:
    policy = policy_of(holder.vault, holder.principal)
    has = key_permissions(policy)
    if not needed_among(has):
        return (), []
    # `all` is replaced by the permissions that it includes, so that some of them can be removed.
    named = list(_ALL) if "all" in {permission.lower() for permission in has} else has
    kept = [permission for permission in named if not needed_among([permission])]
    others = any(policy["permissions"].get(kind) for kind in ("secrets", "certificates", "storage"))
    if kept or others:
        return (_set_policy(holder, "replace", policy, kept),), []
    return (_set_policy(holder, "remove", policy, has),), []


def _still_granted(holder: _Holder, permissions: list[str]) -> tuple[str, ...]:
    """The warning that the principal still has permissions although the role assignment of this task is deleted."""
    if not permissions:
        return ()
    scopes = {one["properties"]["scope"] for one in holder.others if holder.has([one])}
    return (
        f"The principal {holder.principal} still has {', '.join(permissions)}, because of role assignments at "
        f"{', '.join(sorted(scopes))}. Delete these role assignments to revoke the access.",
    )


def _redundant_at(holder: _Holder) -> float:
    """From when on the principal certainly keeps all permissions without its role assignment at this scope: by roles
    that were assigned to the principal itself, and have taken effect then. _ANY_TIME if it is not known when they were
    assigned, infinite if they do not grant all permissions. When a principal became a member of a group is not
    known."""
    own = [one for one in holder.others if one["properties"]["principalId"].lower() == holder.principal.lower()]
    in_effect = {one["id"]: (moment(one["properties"].get("createdOn")) or _ANY_TIME) + ROLE_SECONDS for one in own}
    for time in sorted(in_effect.values()):
        if holder.has([one for one in own if in_effect[one["id"]] <= time]) == set(NEEDED):
            return min(time, _ANY_TIME)
    return inf


def _not_redundant_yet(scope: str, users: Sequence[str], until: float) -> Refused:
    remedy = "Run the task again after that time."
    return Refused(
        f"Refused to delete the role assignment on {scope_text(scope)} before {instant(until)}: {counted(users)} need "
        f"the access, and the one that replaces it is too recent. {remedy}",
        code="recently_used",
        kept_until=instant(until),
        accounts=list(users),
        remedy=remedy,
    )
