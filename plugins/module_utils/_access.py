# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who may use a vault's keys for customer-managed encryption: get, wrapKey and unwrapKey, by policy or by role.

This module util is private to the collection.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from . import _rights, _usage, _vault
from ._errors import InvalidOption, Refused
from ._ids import (
    UserAssignedId,
    check_guid,
    check_key_name,
    check_vault_name,
    parse_key_identifier,
    parse_user_assigned_id,
    principals_of,
    role_guid,
    same_id,
    within,
)
from ._plan import Plan, Step
from ._summary import and_text

# Permission of an access policy -> data action of a role, for the three that Batch needs.
NEEDED = {
    "get": "Microsoft.KeyVault/vaults/keys/read",
    "wrapKey": "Microsoft.KeyVault/vaults/keys/wrap/action",
    "unwrapKey": "Microsoft.KeyVault/vaults/keys/unwrap/action",
}
# What `all` stands for; purge is not among it and has to be granted by name.
_ALL = (
    *("get", "list", "update", "create", "import", "delete", "recover", "backup", "restore", "encrypt"),
    *("decrypt", "wrapKey", "unwrapKey", "sign", "verify", "release", "rotate"),
    *("getrotationpolicy", "setrotationpolicy"),
)
ROLE_ID = "e147488a-f6f5-4113-8e2d-b22465e65bf6"
# What it allows is the same everywhere and always, so that nobody has to look it up: it is one of Azure's own.
KNOWN_ROLES: dict[str, Mapping[str, Any]] = {ROLE_ID: {"permissions": [{"dataActions": list(NEEDED.values())}]}}
# Makes an assignment's name a function of what it grants, so that a run which was stopped finds its own again.
_NAMESPACE = uuid.UUID("0f6bd5a5-4c0e-5b8d-9d59-3f8d1d2f5a77")


@dataclass(frozen=True)
class Goal:
    group: str | None
    vault: str
    present: bool
    principal_id: str | None
    identity_id: UserAssignedId | None
    key_name: str | None
    force: bool
    # Leave the access as it is if Batch accounts use it.
    keeps_used: bool = False
    # Access has been withdrawn, and no account may have come to need it meanwhile (see _usage).
    withdrawn: bool = False

    def standing(self, _stands: Mapping[str, Any]) -> str:
        """How it stands once what was withdrawn has been given back, in words."""
        return "So it was granted again."


def desired(params: Mapping[str, Any]) -> Goal:
    principal, identity, key_name = params["principal_id"], params["identity_id"], params["key_name"]
    key = parse_key_identifier(params["key_identifier"], "key_identifier") if params["key_identifier"] else None
    _require_one(params, "principal_id", "identity_id", "account_name")
    _require_one(params, "vault_name", "key_identifier")
    if params["account_name"] and not params["account_resource_group"]:
        raise InvalidOption(
            "account_resource_group", None, "account_name needs it.", "Set it to the resource group of the account."
        )
    return Goal(
        group=params["resource_group"],
        vault=key.vault if key else check_vault_name(params["vault_name"], "vault_name"),
        present=params["state"] == "present",
        principal_id=check_guid(principal, "principal_id") if principal else None,
        identity_id=parse_user_assigned_id(identity, "identity_id") if identity else None,
        key_name=check_key_name(key_name, "key_name") if key_name else None,
        force=params["force"],
        keeps_used=params["in_use"] == "keep",
    )


def of_account(goal: Goal, account: Mapping[str, Any]) -> list[Goal]:
    """The same for each identity of a Batch account. Which of them Batch uses for the key is not known."""
    principals = principals_of(account.get("identity", {}))
    if not principals and goal.present:
        raise Refused(
            f"The Batch account {account['name']} has no identity to grant access to. Give it one with "
            "azbatch.cmk.batch_account_identity.",
            code="account_without_identity",
            option="account_name",
            value=account["name"],
            remedy="Give the account an identity with azbatch.cmk.batch_account_identity.",
        )
    return [replace(goal, principal_id=principal) for principal in principals]


def _require_one(params: Mapping[str, Any], *options: str) -> None:
    given = [option for option in options if params[option] is not None]
    if len(given) != 1:
        option = given[-1] if given else options[0]
        listed = f"{', '.join(options[:-1])} and {options[-1]}"
        raise InvalidOption(option, params[option], f"exactly one of {listed} is needed.", "Set one of them.")


def plan(goal: Goal, observed: Mapping[str, Any]) -> Plan:
    vault = _vault.required(observed["vault"], goal.vault)
    by_role = _vault.authorization_of(vault) == _vault.RBAC
    scope = scope_of(vault, goal.key_name if by_role else None)
    principal = observed["principal_id"]
    if by_role:
        steps, granted_after = _role_steps(goal, observed, scope, principal)
    else:
        steps, granted_after = _policy_steps(goal, vault, principal)
    before = describe(goal, observed)
    after = {**before, "granted": granted_after}
    if goal.present:
        return Plan(goal, before, after, steps)
    if not (steps or goal.withdrawn):
        return Plan(goal, before, after, report={"in_use_by": []})
    visible = observed["visible"]
    users = _usage.through_principal(visible, goal.vault, principal, goal.key_name if by_role else None)
    if users and goal.keeps_used and not goal.withdrawn:
        return Plan(goal, before, before, report={"in_use_by": users})
    warnings = _usage.guard(users, visible, f"access of {principal} to {goal.vault} is withdrawn", force=goal.force)
    return _usage.withdrawal(
        Plan(goal, before, after, steps, warnings, report={"in_use_by": users}), replace(goal, present=True)
    )


def describe(goal: Goal, observed: Mapping[str, Any]) -> dict[str, Any]:
    """The module's return value."""
    vault, principal = observed["vault"], observed["principal_id"]
    by_role = _vault.authorization_of(vault) == _vault.RBAC
    return {
        "vault_id": vault["id"],
        "authorization": _vault.authorization_of(vault),
        "principal_id": principal,
        "scope": scope_of(vault, goal.key_name if by_role else None),
        "granted": sorted(granted(vault, principal, goal.key_name, observed["assignments"], observed["definitions"])),
    }


def summary(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """One line for a person. `before` and `after` are return values of the module."""
    vault, _keys, key = after["scope"].rpartition("/vaults/")[2].partition("/keys/")
    where = f"key {key} in vault {vault}" if key else f"the keys in vault {vault}"
    previous = "" if before == after else f" (before: {_granted_text(before)})"
    return f"The principal {after['principal_id']} has {_granted_text(after)} on {where}{previous}."


def _granted_text(described: Mapping[str, Any]) -> str:
    return and_text(described["granted"]) if described["granted"] else "no access"


def granted(
    vault: Mapping[str, Any],
    principal: str,
    key_name: str | None,
    assignments: Iterable[Mapping[str, Any]],
    definitions: Mapping[str, Mapping[str, Any]],
) -> set[str]:
    """Which of the needed permissions the principal has, in the vault's own mode of authorization."""
    if _vault.authorization_of(vault) == _vault.ACCESS_POLICY:
        return _needed_among(_key_permissions(_policy_of(vault, principal)))
    scope = scope_of(vault, key_name)
    reaching = [a["properties"] for a in assignments if within(a["properties"]["scope"], scope)]
    known = {**definitions, **KNOWN_ROLES}
    # A role whose definition is not known grants nothing as far as anybody can tell.
    roles = [known.get(role_guid(properties["roleDefinitionId"]), {}) for properties in reaching]
    permissions = [permission for role in roles for permission in role.get("permissions", [])]
    return {name for name, action in NEEDED.items() if _rights.allows(permissions, action, data=True)}


def scope_of(vault: Mapping[str, Any], key_name: str | None) -> str:
    return f"{vault['id']}/keys/{key_name}" if key_name else str(vault["id"])


def _needed_among(permissions: Iterable[str]) -> set[str]:
    lower = {permission.lower() for permission in permissions}
    return {name for name in NEEDED if name.lower() in lower or "all" in lower}


def _policy_of(vault: Mapping[str, Any], principal: str) -> Mapping[str, Any]:
    """The principal's own entry; one with an applicationId is for that application acting on its behalf."""
    entries = vault["properties"].get("accessPolicies", [])
    own = (e for e in entries if e["objectId"].lower() == principal.lower() and not e.get("applicationId"))
    return next(own, {})


def _key_permissions(policy: Mapping[str, Any]) -> list[str]:
    return list(policy.get("permissions", {}).get("keys") or [])


def _spelt_out(permissions: list[str]) -> list[str]:
    """With `all` replaced by what it stands for, so that a part of it can be taken away."""
    return list(_ALL) if "all" in {permission.lower() for permission in permissions} else permissions


def _policy_steps(goal: Goal, vault: Mapping[str, Any], principal: str) -> tuple[tuple[Step, ...], list[str]]:
    policy = _policy_of(vault, principal)
    has = _key_permissions(policy)
    if goal.present:
        missing = set(NEEDED) - _needed_among(has)
        if not missing:
            return (), sorted(NEEDED)
        # The whole entry, so that it comes out the same whether Azure merges an added entry or replaces it.
        return (_policy_step("add", vault, principal, policy, [*has, *sorted(missing)]),), sorted(NEEDED)
    if not _needed_among(has):
        return (), []
    kept = [permission for permission in _spelt_out(has) if not _needed_among([permission])]
    others = any(policy["permissions"].get(kind) for kind in ("secrets", "certificates", "storage"))
    if kept or others:
        return (_policy_step("replace", vault, principal, policy, kept),), []
    return (_policy_step("remove", vault, principal, policy, has),), []


def _policy_step(
    operation: str,
    vault: Mapping[str, Any],
    principal: str,
    policy: Mapping[str, Any],
    keys: list[str],
) -> Step:
    entry = {
        "tenantId": vault["properties"]["tenantId"],
        "objectId": principal,
        "permissions": {**policy.get("permissions", {}), "keys": keys},
    }
    return Step("set_policy", {"vault_id": vault["id"], "operation": operation, "entry": entry})


def _role_steps(
    goal: Goal, observed: Mapping[str, Any], scope: str, principal: str
) -> tuple[tuple[Step, ...], list[str]]:
    assignments, definitions = observed["assignments"], observed["definitions"]
    if goal.present:
        has = granted(observed["vault"], principal, goal.key_name, assignments, definitions)
        if has == set(NEEDED):
            return (), sorted(NEEDED)
        name = str(uuid.uuid5(_NAMESPACE, f"{scope}|{principal}|{ROLE_ID}".lower()))
        arguments = {"scope": scope, "name": name, "role": ROLE_ID, "principal": principal}
        return (Step("assign", arguments),), sorted(NEEDED)
    own = [a for a in assignments if _is_own(a["properties"], scope, principal)]
    left = [a for a in assignments if a not in own]
    steps = tuple(Step("unassign", {"assignment_id": a["id"]}) for a in own)
    return steps, sorted(granted(observed["vault"], principal, goal.key_name, left, definitions))


def _is_own(properties: Mapping[str, Any], scope: str, principal: str) -> bool:
    """Not one that the principal has as a member of a group: that is the group's."""
    has_principal = properties["principalId"].lower() == principal.lower()
    return (
        has_principal and same_id(properties["scope"], scope) and role_guid(properties["roleDefinitionId"]) == ROLE_ID
    )
