# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decides how a Batch account with the identity that customer-managed keys need is created, changed and deleted. Pure:
asks for documents.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..._azure.facts import Facts
from ..._checks import preflight, regions, rights
from ..._core.docs import Docs, Ref
from ..._core.errors import CmkError, PlanOutdated, Refused
from ..._core.ids import same_id
from ..._core.tasks import Change, Decided, Request, Task
from ..._documents import refs
from ..._documents.account import Account, availability, describe, encryption_body, is_failed, key_of, name_taken
from ..._documents.identity import TYPES, Identity, describe_identity
from ..._questions import accounts, creation, evidence, health, identities
from ..._questions.regions import of_type
from .goal import AccountGoal


@dataclass(frozen=True)
class AccountPresent(Task):
    """The account exists with its identity."""

    goal: AccountGoal
    facts: Facts

    def is_subject(self, ref: Ref[Any]) -> bool:
        """The key of a new account is only checked."""
        return ref.kind not in ("key", "vault", "access", "role", "name")

    def decide(self, docs: Docs) -> Change:
        goal, facts = self.goal, self.facts
        account = accounts.settled(docs, facts, goal.group, goal.name)
        before = describe(account)
        if account is None:
            return _creation(docs, goal, facts, None)
        if _creation_failed(docs, account) and _may_be_created_again(goal, account):
            return _creation(docs, goal, facts, account)
        if _has_identity(goal, account):
            return Change(before, before, warnings=(*_elsewhere(goal, account), *_unheeded_key(goal, account)))
        _refuse_unwanted_adoption(goal, account)
        # It is not documented whether a PATCH of Batch adds user-assigned identities or replaces them, so all are sent.
        identity = _identity_body(goal, kept=account.get("identity", {}).get("userAssignedIdentities", {}))
        body: dict[str, Any] = {"identity": identity}
        if key_of(account) is None:
            # The Microsoft-managed key is sent too. Another task or user may move the account to a key at this moment.
            # Without the key source, the account would keep that key but lose the identity that may use it.
            body["properties"] = {"encryption": encryption_body(None)}
        return _IdentitySet(
            before,
            {**before, "identity": describe_identity(identity)},
            (_update(goal, facts, body),),
            (*_elsewhere(goal, account), *_risked_key(account)),
            goal=goal,
            facts=facts,
        )


@dataclass(frozen=True)
class AccountAbsent(Task):
    goal: AccountGoal
    facts: Facts

    def decide(self, docs: Docs) -> Change:
        account = accounts.settled(docs, self.facts, self.goal.group, self.goal.name)
        requests = (_delete(self.goal, self.facts),) if account else ()
        return Decided(describe(account), describe(None), requests, task=self)


@dataclass(frozen=True, kw_only=True)
class _OfAccount(Change):
    goal: AccountGoal
    facts: Facts

    def confirm(self, docs: Docs) -> Change:
        """A read that is out of date may show a state for which the decision would refuse the goal, or an account of
        others that a creation has replaced."""
        return AccountPresent(replace(self.goal, repairs=True, force=True), self.facts).decide(docs)


class _IdentitySet(_OfAccount):
    def wanted(self, docs: Docs, request: Request) -> None:
        """A delayed change of the identity is not sent if another task or user has meanwhile moved the account to a
        key."""
        ref = accounts.ref_of(self.facts, self.goal.group, self.goal.name)
        if "properties" in (request.body or {}) and key_of(docs.get(ref)):
            raise PlanOutdated(
                f"The Batch account {self.goal.name} was moved to a key by somebody else while this task waited to "
                "change its identity. This task changed nothing. Run the task again."
            )


class _AccountCreated(_OfAccount):
    def wanted(self, docs: Docs, request: Request) -> tuple[str, ...]:
        """If the account exists now, nothing is written, because a PUT would replace the account of another task or
        user."""
        goal, facts = self.goal, self.facts
        ref = accounts.ref_of(facts, goal.group, goal.name)
        location = (request.body or {})["location"]
        provider = f"/subscriptions/{facts.subscription}/providers/Microsoft.Batch/locations/{location}"
        name = refs.name_check(provider, "Microsoft.Batch/batchAccounts", goal.name)
        resource, taken = f"Batch account {goal.name}", name_taken(goal.name)
        try:
            return creation.require_missing(docs, resource, ref, name, taken, facts.wait_timeout)
        except PlanOutdated:
            if not _creation_failed(docs, docs.get(ref)):
                raise
            return ()


@dataclass(frozen=True, kw_only=True)
class _CreatedWithKey(_AccountCreated):
    """`used` is what preflight has seen."""

    used: preflight.Evidence

    def will_end(self, docs: Docs, request: Request, refusal: CmkError) -> None:
        """Batch has refused the key, which may have been disabled since it was read. Otherwise the request would be
        repeated until the timeout."""
        preflight.require(preflight.lasting(evidence.again(docs, self.used, self.facts)))

    def confirm(self, docs: Docs) -> Change:
        """The account is available, and may use the key."""
        account = accounts.settled(docs, self.facts, self.goal.group, self.goal.name)
        if account is not None and not is_failed(account):
            health.confirmed(docs, self.facts, account, self.used, how="created with it")
        return super().confirm(docs)

    def back(self) -> Sequence[Task]:
        return [WithoutKey(self.goal, self.facts)]

    def undone(self, current: Mapping[str, Any]) -> str:
        if not current["exists"]:
            return "The account does not exist."
        return f"The account exists and uses {current['key_identifier'] or 'a Microsoft-managed key'} now."


@dataclass(frozen=True)
class WithoutKey(Task):
    """The rollback of a creation. If the account is still being created, nothing is changed, and the next run finds the
    account. The account of another task or user keeps its key."""

    goal: AccountGoal
    facts: Facts

    def decide(self, docs: Docs) -> Change:
        goal, facts = self.goal, self.facts
        ref = accounts.ref_of(facts, goal.group, goal.name)
        account = docs.get(ref)
        before, key = describe(account), key_of(account)
        is_created = account is not None and account["properties"]["provisioningState"] != "Creating"
        if account is None or not is_created or not key or not key.same(goal.key):
            return Change(before, before)
        # Whether this task may have created the account, in that location.
        made = [one for one in facts.journal.of(ref.id) if one.method == "PUT" and one.may_have_taken_effect]
        location = regions.normalized(account["location"])
        is_own = any(regions.normalized(one.body["location"]) == location for one in made)
        if not (is_own and _has_identity(goal, account)):
            return Change(before, before)
        body: dict[str, Any] = {"properties": {"encryption": encryption_body(None)}}
        after = {**before, "key_source": "microsoft_batch", "key_identifier": None}
        if not is_failed(account):
            return Decided(before, after, (replace(_update(goal, facts, body), undoes=True),), task=self)
        # The creation has failed, so it is repeated without the key.
        write = _put(goal, facts, {"location": account["location"], "identity": _identity_body(goal), **body})
        return _CreatedWithoutKey(before, after, (replace(write, undoes=True),), goal=goal, facts=facts)


class _CreatedWithoutKey(_AccountCreated):
    def confirm(self, docs: Docs) -> Change:
        return WithoutKey(self.goal, self.facts).decide(docs)


def _creation_failed(docs: Docs, account: Account | None) -> bool:
    """Whether the creation of the account has failed. The state Failed is not enough: the account must also be
    unavailable."""
    if account is None or not is_failed(account):
        return False
    return availability(health.pools_reason(docs, account["id"])) is False


def _creation(docs: Docs, goal: AccountGoal, facts: Facts, failed: Account | None) -> Change:
    """Create the account, or repeat a creation that has failed: a refused key may leave an account in that state."""
    own, resource = facts.subscription, f"Batch account {goal.name}"
    place, provider = refs.group(own, goal.group), refs.provider(own, "Microsoft.Batch")
    # The permissions are read too, because they are checked next.
    docs.want(refs.accounts_of(own, goal.group), refs.permissions_at(place.id), provider)
    if not goal.location:
        docs.want(place)
    if failed is None:
        accounts.require_unlisted(docs, facts, goal.group, goal.name)
    location = failed["location"] if failed else goal.location or (docs.get(place) or {})["location"]
    regions.require_available(location, of_type(docs, provider, "batchAccounts"), f"The {resource}")
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
        **describe(None),
        "exists": True,
        "name": goal.name,
        "location": location,
        "identity": describe_identity(body["identity"]),
        "key_source": "microsoft_keyvault" if goal.key else "microsoft_batch",
        "key_identifier": str(goal.key) if goal.key else None,
        "tags": tags,
    }
    request = _put(goal, facts, body)
    # A key requires a user-assigned identity.
    if goal.key is None or goal.identity_id is None:
        return _AccountCreated(describe(None), after, (request,), goal=goal, facts=facts)
    identity = identities.get(docs, goal.identity_id)["properties"]
    principals, tenant = (identity["principalId"],), identity["tenantId"]
    wanted = evidence.Wanted(goal.key, principals, tenant, facts.vaults_in, goal.vault_group)
    found = evidence.certain(docs, wanted)
    checks = preflight.require_for_change(found)
    return _CreatedWithKey(
        describe(None),
        after,
        (replace(request, waiting_for=f"Batch to accept the key of the {resource}"),),
        preflight.warnings(checks),
        {"preflight": preflight.describe(checks)},
        goal=goal,
        facts=facts,
        used=found,
    )


def _may_be_created_again(goal: AccountGoal, account: Account) -> bool:
    """Whether a PUT may repeat the creation. A PUT replaces the account, so the account must have no settings that
    the request does not have."""
    key, properties = key_of(account), account["properties"]
    keeps_key = key is None or (goal.key is not None and key.same(goal.key))
    has_storage = bool(properties.get("autoStorage"))
    is_open = properties.get("publicNetworkAccess", "Enabled") == "Enabled"
    has_others = len(account.get("identity", {}).get("userAssignedIdentities", {})) > 1
    return _has_identity(goal, account) and keeps_key and is_open and not has_storage and not has_others


def _has_identity(goal: AccountGoal, account: Account) -> bool:
    identity = account.get("identity", {})
    if identity.get("type") != TYPES[goal.identity_type]:
        return False
    wanted = str(goal.identity_id) if goal.identity_id else None
    return wanted is None or any(same_id(wanted, name) for name in identity.get("userAssignedIdentities", {}))


def _refuse_unwanted_adoption(goal: AccountGoal, account: Account) -> None:
    identity = describe_identity(account.get("identity", {}))
    if identity["type"] == "none" and not goal.repairs:
        raise Refused(
            f"The Batch account {goal.name} has no identity, and should have been created with one. Create another "
            "account, or add identity to O(allowed_repairs).",
            code="account_without_identity",
            option="allowed_repairs",
            remedy="Create another account, or add identity to O(allowed_repairs).",
        )
    keep = _to_keep(identity)
    if key_of(account) and not goal.force:
        remedy = f"{keep}, or set O(force=true)."
        raise Refused(
            f"The Batch account {goal.name} uses its key with its {identity['type']} identity, and may lose it with "
            f"another. {remedy}",
            code="identity_in_use",
            accounts=[account["id"]],
            option="identity_id",
            remedy=remedy,
        )
    if identity["type"] != "none" and not goal.repairs:
        raise Refused(
            f"The Batch account {goal.name} has another identity ({identity['type']}). {keep}, or add identity to "
            "O(allowed_repairs).",
            code="identity_differs",
            option="identity_id",
            remedy=f"{keep}, or add identity to O(allowed_repairs).",
        )


def _to_keep(identity: Mapping[str, Any]) -> str:
    """How the task keeps the identity of the account."""
    names = list(identity["user_assigned_identities"])
    if not names:
        return "Leave out O(identity_id) to keep it"
    short = [one.rpartition("/")[2] for one in names]
    return f"Set O(identity_id) to the id of {' or '.join(short)} to keep it"


def _risked_key(account: Account) -> tuple[str, ...]:
    key = key_of(account)
    if key is None:
        return ()
    return (f"The identity of {account['id']} is changed although the account uses {key} and may lose it.",)


def _elsewhere(goal: AccountGoal, account: Account) -> tuple[str, ...]:
    return regions.difference(f"The Batch account {goal.name}", account["location"], goal.location)


def _unheeded_key(goal: AccountGoal, account: Account) -> tuple[str, ...]:
    if goal.key is None or goal.key.same_key(key_of(account)):
        return ()
    return (
        f"The Batch account {goal.name} exists already, so this task does not change its key "
        "(azbatch.cmk.batch_encryption changes it).",
    )


def _identity_body(goal: AccountGoal, kept: Iterable[str] = ()) -> Identity:
    if goal.identity_id is None:
        return {"type": "SystemAssigned"}
    return {"type": "UserAssigned", "userAssignedIdentities": {name: {} for name in (*kept, str(goal.identity_id))}}


def _put(goal: AccountGoal, facts: Facts, body: Mapping[str, Any]) -> Request:
    has_key = "keyVaultProperties" in body["properties"]["encryption"]
    confirms = (rights.to_confirm_creation(goal.group),) if has_key else ()
    ref = accounts.ref_of(facts, goal.group, goal.name)
    return Request(
        "create",
        f"create the Batch account {goal.name}",
        "PUT",
        ref.id,
        body,
        (*rights.to_create_account(goal.group), *rights.to_assign_identities(body), *confirms),
        operation=True,
        wanted_first=True,
        creates=ref,
    )


def _update(goal: AccountGoal, facts: Facts, body: Mapping[str, Any]) -> Request:
    needed = rights.to_change_account(goal.group, goal.name), *rights.to_assign_identities(body)
    ref = accounts.ref_of(facts, goal.group, goal.name)
    what = f"change the Batch account {goal.name}"
    return Request("update", what, "PATCH", ref.id, body, needed)


def _delete(goal: AccountGoal, facts: Facts) -> Request:
    needed = (rights.to_delete_account(goal.group, goal.name),)
    ref, what = accounts.ref_of(facts, goal.group, goal.name), f"delete the Batch account {goal.name}"
    return Request("delete", what, "DELETE", ref.id, rights=needed, operation=True)
