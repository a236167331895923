# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans a Batch account with the identity that customer-managed keys need.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..._checks import preflight, regions, rights
from ..._core.documents import Account, Identity
from ..._core.errors import Refused
from ..._core.ids import key_of, same_id
from ..._core.plan import Plan, Step, step
from ..._documents.account import TYPES, describe, describe_identity, encryption_body, is_failed
from .goal import AccountWrites, Goal, Observed


def plan(goal: Goal, observed: Observed) -> Plan[AccountWrites]:
    account: Account | None = observed["account"]
    before = describe(account)
    if not goal.present:
        return Plan(
            goal,
            before,
            describe(None),
            (_delete(goal),) if account else (),
        )
    if goal.leaves_key:
        return _without_key(goal, account, before, observed["created_in"])
    if account is None or (observed["creation_failed"] and _may_be_created_again(goal, account)):
        return _creation(goal, observed)
    if confirmed := observed.get("confirmed"):
        preflight.require(preflight.lasting(confirmed), "and could when the account was created with it")
    if _has_identity(goal, account):
        return Plan(goal, before, before, warnings=(*_elsewhere(goal, account), *_unheeded_key(goal, account)))
    _refuse_unwanted_adoption(goal, account)
    # It is not documented whether a PATCH of Batch adds user-assigned identities or replaces them, so all are sent.
    identity = _identity_body(goal, kept=account.get("identity", {}).get("userAssignedIdentities", {}))
    body: dict[str, Any] = {"identity": identity}
    if key_of(account) is None:
        # The Microsoft-managed key is sent too. Another task or user may move the account to a key at this moment.
        # Without the key source, the account would keep that key but lose the identity that may use it.
        body["properties"] = {"encryption": encryption_body(None)}
    after = {**before, "identity": describe_identity(identity)}
    return Plan(
        # After the change, a read that is out of date may show a state for which this plan would be refused.
        replace(goal, adopt_existing=True, force=True),
        before,
        after,
        (_update(goal, body),),
        (*_elsewhere(goal, account), *_risked_key(account)),
    )


def _creation(goal: Goal, observed: Observed) -> Plan[AccountWrites]:
    before = describe(None)
    failed: Account | None = observed["account"]
    location = failed["location"] if failed else goal.location or observed["group"]["location"]
    regions.require_available(location, observed.get("regions"), f"The Batch account {goal.name}")
    # The key source is always sent. Another task or user may create the account with a key at this moment. Without
    # the key source, the account would keep that key but lose the identity that may use it.
    body: dict[str, Any] = {
        "location": location,
        "identity": _identity_body(goal),
        "properties": {"encryption": encryption_body(goal.key)},
    }
    tags = {**goal.tags, **(failed.get("tags") or {} if failed else {})}
    if tags:
        body["tags"] = tags
    after = {
        **before,
        "exists": True,
        "name": goal.name,
        "location": location,
        "identity": describe_identity(body["identity"]),
        "key_source": "microsoft_keyvault" if goal.key else "microsoft_batch",
        "key_identifier": str(goal.key) if goal.key else None,
        "tags": tags,
    }
    # A read that is older than the creation may show an account of others that this creation has replaced.
    created = replace(goal, adopt_existing=True, force=True)
    if goal.key is None:
        return Plan(created, before, after, (_create(goal, body),))
    checks = preflight.require_for_change(observed["evidence"])
    return Plan(
        created,
        before,
        after,
        (_create(goal, body, observed["evidence"]),),
        warnings=preflight.warnings(checks),
        rollback_goal=replace(goal, leaves_key=True),
        report={"preflight": preflight.describe(checks)},
    )


def _without_key(
    goal: Goal, account: Account | None, before: Mapping[str, Any], created_in: str | None
) -> Plan[AccountWrites]:
    """The rollback of a creation in that location. If the account is still being created, nothing is changed, and
    the next run finds the account. The account of another task or user keeps its key."""
    key = key_of(account) if account else None
    if account is None or not key or not key.same(goal.key) or account["properties"]["provisioningState"] == "Creating":
        return Plan(goal, before, before)
    is_there = created_in is not None and regions.normalized(created_in) == regions.normalized(account["location"])
    if not (is_there and _has_identity(goal, account)):
        return Plan(goal, before, before)
    body: dict[str, Any] = {"properties": {"encryption": encryption_body(None)}}
    after = {**before, "key_source": "microsoft_batch", "key_identifier": None}
    write = _update(goal, body)
    if is_failed(account):
        # The creation has failed, so it is repeated without the key.
        body = {"location": account["location"], "identity": _identity_body(goal), **body}
        write = _create(goal, body)
    return Plan(goal, before, after, (write,))


def _may_be_created_again(goal: Goal, account: Account) -> bool:
    """Whether a PUT may repeat the creation. A PUT replaces the account, so the account must have no settings that
    the request does not have."""
    key, properties = key_of(account), account["properties"]
    keeps_key = key is None or (goal.key is not None and key.same(goal.key))
    has_storage = bool(properties.get("autoStorage"))
    is_open = properties.get("publicNetworkAccess", "Enabled") == "Enabled"
    has_others = len(account.get("identity", {}).get("userAssignedIdentities", {})) > 1
    return _has_identity(goal, account) and keeps_key and is_open and not has_storage and not has_others


def _has_identity(goal: Goal, account: Account) -> bool:
    identity = account.get("identity", {})
    if identity.get("type") != TYPES[goal.identity_type]:
        return False
    wanted = str(goal.identity_id) if goal.identity_id else None
    return wanted is None or any(same_id(wanted, name) for name in identity.get("userAssignedIdentities", {}))


def _refuse_unwanted_adoption(goal: Goal, account: Account) -> None:
    identity = describe_identity(account.get("identity", {}))
    if identity["type"] == "none" and not goal.adopt_existing:
        raise Refused(
            f"The Batch account {goal.name} exists and has no identity. Azure's guide says that customer-managed keys "
            "are for accounts that were created with an identity. Create another account, or set "
            "O(adopt_existing=true) to give this one an identity.",
            code="account_without_identity",
            option="adopt_existing",
            remedy="Create another account, or set O(adopt_existing=true).",
        )
    keep = _to_keep(identity)
    if key_of(account) and not goal.force:
        remedy = f"{keep}, or move the account to a Microsoft-managed key first, or set O(force=true)."
        raise Refused(
            f"The Batch account {goal.name} accesses its key {key_of(account)} with its {identity['type']} identity. "
            f"With another identity, the account may lose that key. {remedy}",
            code="identity_in_use",
            accounts=[account["id"]],
            option="identity_id",
            remedy=remedy,
        )
    if identity["type"] != "none" and not goal.adopt_existing:
        raise Refused(
            f"The Batch account {goal.name} exists with a {identity['type']} identity, not the requested identity. "
            f"{keep}, or set O(adopt_existing=true) to change it.",
            code="identity_differs",
            option="identity_id",
            remedy=f"{keep}, or set O(adopt_existing=true).",
        )


def _to_keep(identity: Mapping[str, Any]) -> str:
    """How the task keeps the identity of the account."""
    names = list(identity["user_assigned_identities"])
    if not names:
        return "Leave out O(identity_id) to keep it"
    return f"Set O(identity_id) to {' or '.join(names)} to keep it"


def _risked_key(account: Account) -> tuple[str, ...]:
    key = key_of(account)
    if key is None:
        return ()
    return (f"The identity of {account['id']} is changed although the account uses {key} and may lose it.",)


def _elsewhere(goal: Goal, account: Account) -> tuple[str, ...]:
    return regions.difference(f"The Batch account {goal.name}", account["location"], goal.location)


def _unheeded_key(goal: Goal, account: Account) -> tuple[str, ...]:
    if goal.key is None or goal.key.same_key(key_of(account)):
        return ()
    return (
        f"The Batch account {goal.name} exists already, so this task does not change its key "
        "(azbatch.cmk.batch_encryption changes it).",
    )


def _identity_body(goal: Goal, kept: Iterable[str] = ()) -> Identity:
    if goal.identity_id is None:
        return {"type": "SystemAssigned"}
    return {"type": "UserAssigned", "userAssignedIdentities": {name: {} for name in (*kept, str(goal.identity_id))}}


def _create(goal: Goal, body: Mapping[str, Any], evidence: preflight.Evidence | None = None) -> Step[AccountWrites]:
    write = step(AccountWrites.create, group=goal.group, name=goal.name, body=body)
    if evidence is not None:
        write = step(AccountWrites.create, group=goal.group, name=goal.name, body=body, evidence=evidence)
    has_key = "keyVaultProperties" in body["properties"]["encryption"]
    confirms = (rights.to_confirm_creation(goal.group),) if has_key else ()
    return write.needing(*rights.to_create_account(goal.group), *rights.to_assign_identities(body), *confirms)


def _update(goal: Goal, body: Mapping[str, Any]) -> Step[AccountWrites]:
    write = step(AccountWrites.update, group=goal.group, name=goal.name, body=body)
    return write.needing(rights.to_change_account(goal.group, goal.name), *rights.to_assign_identities(body))


def _delete(goal: Goal) -> Step[AccountWrites]:
    write = step(AccountWrites.delete, group=goal.group, name=goal.name)
    return write.needing(rights.to_delete_account(goal.group, goal.name))
