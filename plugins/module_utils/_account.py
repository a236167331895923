# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Batch accounts: that one exists with the identity that customer-managed keys need.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from . import _location, _preflight
from ._errors import CmkError, Denied, InvalidOption, NotFound, Refused, Rejected
from ._ids import (
    KeyIdentifier,
    UserAssignedId,
    check_account_name,
    key_of,
    parse_key_identifier,
    parse_user_assigned_id,
    same_id,
)
from ._plan import Plan, Step
from ._summary import key_text

SYSTEM_ASSIGNED = "system_assigned"
USER_ASSIGNED = "user_assigned"
_TYPES = {SYSTEM_ASSIGNED: "SystemAssigned", USER_ASSIGNED: "UserAssigned"}
_OPTIONS = {azure: option for option, azure in _TYPES.items()} | {"None": "none"}

POOLS_READ = "Microsoft.Batch/batchAccounts/pools/read"
_NOT_KNOWN = "is available is not known, because the caller may not list its pools."
_GRANT = f"Grant the caller a role that allows {POOLS_READ} on the account, such as Reader."


@dataclass(frozen=True)
class Goal:
    group: str
    name: str
    present: bool
    location: str | None
    identity_id: UserAssignedId | None
    # The key that an account which is yet to be made begins its life on.
    key: KeyIdentifier | None
    vault_group: str | None
    adopt_existing: bool
    force: bool
    # The rollback of an account's creation with this key: it is moved to a Microsoft-managed key.
    leaves_key: bool = False

    @property
    def identity_type(self) -> str:
        return USER_ASSIGNED if self.identity_id else SYSTEM_ASSIGNED

    def standing(self, stands: Mapping[str, Any]) -> str:
        """The state after the rollback, in words."""
        if not stands["exists"]:
            return "The account does not exist."
        return f"The account exists and uses {stands['key_identifier'] or 'a Microsoft-managed key'} now."


def desired(params: Mapping[str, Any]) -> Goal:
    identity_id, key = params["identity_id"], params["key_identifier"]
    identifier = parse_key_identifier(key, "key_identifier") if key else None
    if key and not identity_id:
        raise InvalidOption(
            "key_identifier",
            key,
            "an account can be created with its key only when it has a user-assigned identity, because a "
            "system-assigned one exists, and can be granted access, only once the account does.",
            "Set identity_id, or leave out key_identifier and use azbatch.cmk.batch_encryption afterwards.",
        )
    return Goal(
        group=params["resource_group"],
        name=check_account_name(params["name"], "name"),
        present=params["state"] == "present",
        location=params["location"],
        identity_id=parse_user_assigned_id(identity_id, "identity_id") if identity_id else None,
        key=identifier.versionless if identifier and params["follow_latest"] else identifier,
        vault_group=params["vault_resource_group"],
        adopt_existing=params["adopt_existing"],
        force=params["force"],
    )


def plan(goal: Goal, observed: Mapping[str, Any]) -> Plan:
    account = observed["account"]
    before = describe(account)
    if not goal.present:
        return Plan(goal, before, describe(None), (_step("delete", goal),) if account else ())
    if goal.leaves_key:
        return _without_key(goal, account, before)
    if account is None:
        return _birth(goal, observed, before)
    if observed.get("confirmed"):
        _preflight.require(observed["confirmed"], "and could when the account was created with it")
    if _has_identity(goal, account):
        return Plan(goal, before, before, warnings=(*_elsewhere(goal, account), *_unheeded_key(goal, account)))
    _refuse_unwanted_adoption(goal, account)
    # Whether a PATCH adds to the user-assigned identities or replaces them is not known for Batch: send them all.
    identity = _identity_body(goal, kept=account.get("identity", {}).get("userAssignedIdentities", {}))
    body: dict[str, Any] = {"identity": identity}
    if key_of(account) is None:
        # Said too, so that an account which is put on a key at this very moment does not lose it with its identity.
        body["properties"] = {"encryption": encryption_body(None)}
    after = {**before, "identity": describe_identity(identity)}
    return Plan(
        goal, before, after, (_step("update", goal, body=body),), (*_elsewhere(goal, account), *_risked_key(account))
    )


def describe(account: Mapping[str, Any] | None) -> dict[str, Any]:
    """The module's return value."""
    if account is None:
        return {"exists": False}
    key = key_of(account)
    return {
        "exists": True,
        "id": account["id"],
        "name": account["name"],
        "location": account["location"],
        "identity": describe_identity(account.get("identity", {})),
        "key_source": "microsoft_keyvault" if key else "microsoft_batch",
        "key_identifier": str(key) if key else None,
        "tags": account.get("tags", {}),
    }


def summary(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """One line for a person. `before` and `after` are return values of the module."""
    if not after["exists"]:
        return f"Deleted the Batch account {name}." if before["exists"] else f"There is no Batch account {name}."
    has = _identity_text(after["identity"])
    account = f"the Batch account {name} in {after['location']}"
    if not before["exists"]:
        key = f", on {key_text(after['key_identifier'])}" if after["key_identifier"] else ""
        return f"Created {account} with {has}{key}."
    if before == after:
        return f"The{account[3:]} has {has}."
    return f"Gave {account} {has} (before: {_identity_text(before['identity'])})."


def _identity_text(identity: Mapping[str, Any]) -> str:
    if identity["type"] == "none":
        return "no identity"
    # The name is the last part of the resource id.
    names = ", ".join(one.rpartition("/")[2] for one in identity["user_assigned_identities"])
    kind = {SYSTEM_ASSIGNED: "a system-assigned identity", USER_ASSIGNED: "the user-assigned identity"}
    return f"{kind.get(identity['type'], 'a system-assigned identity and the user-assigned identity')} {names}".strip()


def is_silence(refusal: CmkError) -> bool:
    """Of an account that was asked for its pools: whether it is the account that is not available, and not the caller
    who may not ask."""
    code = str(refusal.facts.get("azure", {}).get("code")).lower()
    # AuthorizationFailed, LinkedAuthorizationFailed and the like are said by Resource Manager, of the caller.
    return isinstance(refusal, Denied | Rejected) and not code.endswith("authorizationfailed")


def availability(refusal: CmkError | None) -> bool | None:
    """Whether an account is available, by the refusal to list its pools. Null if the caller may not list them."""
    if refusal is None:
        return True
    return False if is_silence(refusal) else None


def availability_unknown(name: str, reason: CmkError) -> Denied:
    """The error that a change of the account could not be confirmed."""
    return Denied(
        f"Whether the Batch account {name} {_NOT_KNOWN} A change could not be confirmed, so it is refused. {_GRANT} "
        f"{reason.msg}",
        code="availability_unknown",
        action=POOLS_READ,
        remedy=_GRANT,
    )


def availability_warning(name: str) -> str:
    return f"Whether the Batch account {name} {_NOT_KNOWN} {_GRANT}"


def describe_identity(identity: Mapping[str, Any]) -> dict[str, Any]:
    assigned = identity.get("userAssignedIdentities", {})
    return {
        "type": _OPTIONS.get(identity.get("type", "None"), identity.get("type")),
        "principal_id": identity.get("principalId"),
        "tenant_id": identity.get("tenantId"),
        "user_assigned_identities": {
            name: {"principal_id": value.get("principalId"), "client_id": value.get("clientId")}
            for name, value in assigned.items()
        },
    }


def _birth(goal: Goal, observed: Mapping[str, Any], before: Mapping[str, Any]) -> Plan:
    location = goal.location or observed["group"]["location"]
    _location.require_available(location, observed.get("regions"), f"The Batch account {goal.name}")
    # A key source is always named: if somebody else creates the account at this very moment and puts it on a key, the
    # account does not stay on that key with an identity that this request replaces.
    body: dict[str, Any] = {
        "location": location,
        "identity": _identity_body(goal),
        "properties": {"encryption": encryption_body(goal.key)},
    }
    after = {
        **describe(None),
        "exists": True,
        "name": goal.name,
        "location": location,
        "identity": describe_identity(body["identity"]),
        "key_source": "microsoft_keyvault" if goal.key else "microsoft_batch",
        "key_identifier": str(goal.key) if goal.key else None,
    }
    if goal.key is None:
        return Plan(goal, before, after, (_step("create", goal, body=body),))
    checks = _preflight.require_for_change(observed["evidence"])
    return Plan(
        goal,
        before,
        after,
        (_step("create", goal, body=body, evidence=observed["evidence"]),),
        warnings=_preflight.warnings(checks),
        former=replace(goal, leaves_key=True),
        report={"preflight": _preflight.describe(checks)},
    )


def _without_key(goal: Goal, account: Mapping[str, Any] | None, before: Mapping[str, Any]) -> Plan:
    """The rollback of a creation. An account that is still being created is left to the next run, which finds it."""
    key = key_of(account) if account else None
    if account is None or not key or not key.same(goal.key) or account["properties"]["provisioningState"] == "Creating":
        return Plan(goal, before, before)
    body = {"properties": {"encryption": encryption_body(None)}}
    after = {**before, "key_source": "microsoft_batch", "key_identifier": None}
    return Plan(goal, before, after, (_step("update", goal, body=body),))


def encryption_body(key: KeyIdentifier | None) -> dict[str, Any]:
    if key is None:
        return {"keySource": "Microsoft.Batch"}
    return {"keySource": "Microsoft.KeyVault", "keyVaultProperties": {"keyIdentifier": str(key)}}


def _has_identity(goal: Goal, account: Mapping[str, Any]) -> bool:
    identity = account.get("identity", {})
    if identity.get("type") != _TYPES[goal.identity_type]:
        return False
    wanted = str(goal.identity_id) if goal.identity_id else None
    return wanted is None or any(same_id(wanted, name) for name in identity.get("userAssignedIdentities", {}))


def _refuse_unwanted_adoption(goal: Goal, account: Mapping[str, Any]) -> None:
    identity = describe_identity(account.get("identity", {}))
    if identity["type"] == "none" and not goal.adopt_existing:
        raise Refused(
            f"The Batch account {goal.name} exists and has no identity. Azure's guide says that customer-managed keys "
            "are for accounts that were created with an identity. Create another account, or set "
            "adopt_existing: true to give this one an identity.",
            code="account_without_identity",
            option="adopt_existing",
            remedy="Create another account, or set adopt_existing: true.",
        )
    if key_of(account) and not goal.force:
        raise Refused(
            f"The Batch account {goal.name} reaches its key {key_of(account)} with its {identity['type']} identity; "
            "with another identity it may lose that key. Take the account back to Microsoft-managed keys first, or "
            "set force: true.",
            code="identity_in_use",
            accounts=[account["id"]],
            option="force",
            remedy="Take the account back to Microsoft-managed keys first, or set force: true.",
        )
    if identity["type"] != "none" and not goal.adopt_existing:
        raise Refused(
            f"The Batch account {goal.name} exists with a {identity['type']} identity, not the one asked for. "
            "Set identity_id to the one it has, or set adopt_existing: true to change it.",
            code="identity_differs",
            option="identity_id",
            remedy="Set identity_id to the one the account has, or set adopt_existing: true.",
        )


def _risked_key(account: Mapping[str, Any]) -> tuple[str, ...]:
    key = key_of(account)
    if key is None:
        return ()
    return (f"The identity of {account['id']} is changed although it is on {key}, which it may lose.",)


def _elsewhere(goal: Goal, account: Mapping[str, Any]) -> tuple[str, ...]:
    return _location.difference(f"The Batch account {goal.name}", account["location"], goal.location)


def _unheeded_key(goal: Goal, account: Mapping[str, Any]) -> tuple[str, ...]:
    if goal.key is None or goal.key.same_key(key_of(account)):
        return ()
    return (
        f"The Batch account {goal.name} exists already; key_identifier is only for its creation. "
        "Use azbatch.cmk.batch_encryption to change the key.",
    )


def _identity_body(goal: Goal, kept: Iterable[str] = ()) -> dict[str, Any]:
    if goal.identity_id is None:
        return {"type": "SystemAssigned"}
    return {"type": "UserAssigned", "userAssignedIdentities": {name: {} for name in (*kept, str(goal.identity_id))}}


def _step(action: str, goal: Goal, **arguments: Any) -> Step:
    return Step(action, {"group": goal.group, "name": goal.name, **arguments})


def required(account: Mapping[str, Any] | None, group: str, name: str) -> Mapping[str, Any]:
    """The account's document, or the error that there is none."""
    if account is None:
        raise NotFound(
            f"There is no Batch account {name} in the resource group {group}. Create it with "
            "azbatch.cmk.batch_account_identity, or correct account_name, resource_group or subscription_id.",
            code="account_not_found",
            option="account_name",
            value=name,
            remedy="Create the account, or correct account_name, resource_group or subscription_id.",
        )
    return account


def name_taken(name: str) -> Refused:
    return Refused(
        f"The Batch account {name} does not exist in this resource group, and its name is taken in the region. Use "
        "another name, or correct resource_group or subscription_id. If the account was just created, run the task "
        "again.",
        code="account_name_taken",
        option="account_name",
        value=name,
        remedy="Use another name, or correct resource_group or subscription_id.",
    )


def missing(group: str, name: str) -> str:
    """The warning about an account that may be missing, and is."""
    return f"There is no Batch account {name} in {group} any more, so there is nothing to do."
