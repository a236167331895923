# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decides the drill of a canary, an account that is the only user of its key: how the key is taken from the account
until Batch refuses the account, and how all that was changed is restored. Pure: asks for documents.

A list of pools does not show that an account has lost its key. Batch refuses to change such an account, so the account
is updated without a change.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..._azure.facts import Facts
from ..._checks import rights, usage
from ..._checks.versions import MARGIN_SECONDS
from ..._core.docs import Docs, Wait
from ..._core.duration import instant
from ..._core.errors import AccountUnavailable, CmkError, NotFound, PlanOutdated, Refused, TimedOut, Unavailable
from ..._core.ids import KeyIdentifier, read_key_identifier
from ..._core.rights import Right
from ..._core.summary import scope_text, some_text, user_text
from ..._core.tasks import VALUE_LAG_SECONDS, Change, Request, Task
from ..._documents import access as access_document
from ..._documents import refs
from ..._documents import vault as vault_document
from ..._documents.account import Account, is_unavailable, key_of, require_ready, required
from ..._documents.drill import CLOSE_FIREWALL, DISABLE_KEY, REVOKE_ACCESS, Drill, of_vault, tags_with
from ..._documents.identity import principals_of
from ..._documents.key import DRILL_TAG, MOST_TAGS, KeyItem, version_of
from ..._documents.vault import Vault
from ..._questions import accounts, health, services, users, vaults
from ..access.decide import AccessGranted, AccessRevoked
from ..access.decide import still_unused as access_unused
from ..access.goal import AccessGoal
from ..key import requests as key_requests
from ..key.goal import RemovalGoal
from ..key.removal import KeyDisabled
from .goal import DrillGoal

# Refusals of an update that have other reasons than the key.
_NOT_OF_KEY = ("ScopeLocked", "RequestDisallowedByPolicy", "AccountOperationInProgress")
_NOT_ALONE = ("in_use", "recently_used", "users_unknown")
# The users in the facts of these refusals.
_USERS = ("accounts", "pools", "resources")


@dataclass(frozen=True)
class _Place:
    """A canary, its key and its vault."""

    account: Account
    key: KeyIdentifier
    vault: Vault

    @property
    def id(self) -> str:
        return self.account["id"]

    @property
    def principals(self) -> tuple[str, ...]:
        return principals_of(self.account.get("identity", {}))

    def described(self, *, lost: bool) -> dict[str, Any]:
        """The module's return value. `lost` is whether what the drill takes away is missing."""
        return {**_described(self.account), "vault_id": self.vault["id"], "lost": lost}


@dataclass(frozen=True)
class _OfDrill(Task):
    goal: DrillGoal
    facts: Facts
    # The vault of the account's key.
    vault: str | None = None

    @property
    def lock(self) -> str | None:
        return self.vault


class KeyTaken(_OfDrill):
    """The account has lost its key, and Batch refuses it."""

    def decide(self, docs: Docs) -> Change:
        return users.with_left_out(docs, self.facts, _lost(docs, self.goal, self.facts))


class AccountRecovered(_OfDrill):
    """Batch accepts changes of the account again, and the time is recorded."""

    def decide(self, docs: Docs) -> Change:
        goal, facts = self.goal, self.facts
        place = _place(docs, goal, facts)
        drill = _own(place)
        if place is None or drill is None or drill.recovered_at:
            return _unchanged(docs, goal, facts, place)
        record = _record(place.vault, "that Batch accepts changes of the account")
        before = place.described(lost=True)
        requests = (_accepted(place.account, goal), record)
        return _AcceptedAgain(
            before, {**before, "lost": False}, requests, goal=goal, facts=facts, place=place, task=self
        )


class DrillEnded(_OfDrill):
    """What the drill has changed is restored, Batch accepts changes of the account, and the drill has ended."""

    def decide(self, docs: Docs) -> Change:
        goal, facts = self.goal, self.facts
        place = _place(docs, goal, facts)
        drill = _own(place)
        if place is None or drill is None:
            return _unchanged(docs, goal, facts, place)
        back = _restoring(docs, place, drill, facts)
        before = place.described(lost=bool(back))
        end = _record(place.vault, "that the drill has ended")
        requests = (*back, _accepted(place.account, goal), end)
        return _Ended(before, {**before, "lost": False}, requests, goal=goal, facts=facts, place=place, task=self)


BY_STATE: Mapping[str, type[_OfDrill]] = {"lost": KeyTaken, "recovered": AccountRecovered, "ended": DrillEnded}


def of_account(docs: Docs, goal: DrillGoal, facts: Facts) -> Drill | None:
    """The drill of the account that is not finished."""
    return _own(_place(docs, goal, facts))


def _described(account: Account) -> dict[str, Any]:
    key = key_of(account)
    return {"exists": True, "id": account["id"], "name": account["name"], "key_identifier": str(key) if key else None}


def _place(docs: Docs, goal: DrillGoal, facts: Facts) -> _Place | None:
    """None if the account uses a Microsoft-managed key."""
    account = required(accounts.existing(docs, facts, goal.group, goal.name), goal.group, goal.name)
    key = key_of(account)
    if key is None:
        return None
    found = vaults.find(docs, key.vault, facts.vaults_in, goal.group)
    if found is None:
        remedy = "Recover the vault with the role azbatch.cmk.recover."
        raise NotFound(
            f"The key vault {key.vault} of the Batch account {goal.name} was not found. {remedy}",
            code="vault_not_found",
            remedy=remedy,
        )
    return _Place(account, key, found)


def _own(place: _Place | None) -> Drill | None:
    drill = of_vault(place.vault) if place else None
    return drill if place and drill and drill.is_of(place.id) else None


# The key is taken from the account


def _lost(docs: Docs, goal: DrillGoal, facts: Facts) -> Change:
    place = _place(docs, goal, facts)
    if place is None:
        remedy = "Move it to a customer-managed key first, with azbatch.cmk.provision."
        raise Refused(
            f"The Batch account {goal.name} uses a Microsoft-managed key, so it cannot lose its key. {remedy}",
            code="account_not_on_cmk",
            remedy=remedy,
        )
    require_ready(place.account)
    if (other := of_vault(place.vault)) is not None:
        raise _under_way(place, other)
    health.require_available(docs, facts, goal.group, goal.name)
    _refuse_own_pools_on_key(docs, place, facts, goal.kind)
    taken = _only_user(goal, lambda: _taken(docs, place, goal, facts))
    started_at = str(instant(docs.now))
    if goal.kind == DISABLE_KEY:
        taken = _tagged(docs, place.key, taken, started_at)
    drill = Drill(goal.kind, place.id, str(place.key.versionless), started_at, facts.caller["object_id"])
    properties = _firewall(place.vault, "None") if goal.kind == CLOSE_FIREWALL else {}
    mark = _tag(place.vault, drill, "begin", properties)
    requests = (
        # Shows that Batch accepts the request as long as the account has its key.
        _update(place.account, goal),
        replace(mark, rights=(*mark.rights, *_rights_to_restore(place, goal))),
        *taken,
        replace(
            _update(place.account, goal),
            waiting_for=f"Batch to refuse the Batch account {goal.name}",
            is_probe=True,
        ),
        _record(place.vault, "that Batch refused the account"),
    )
    return _Taken(
        place.described(lost=False),
        place.described(lost=True),
        requests,
        usage.not_shown(goal.vault_used_by),
        goal=goal,
        facts=facts,
        place=place,
        drill=drill,
        refs=tuple(one.ref for one in taken) or (mark.ref,),
    )


def _tagged(docs: Docs, key: KeyIdentifier, disabled: Sequence[Request], started_at: str) -> tuple[Request, ...]:
    """The requests that disable versions, with the tag by which the end of the drill finds the same versions."""
    tags = {version_of(item): item.get("tags", {}) for item in docs.items(refs.versions_of(key))}

    def tagged(one: Request) -> Request:
        has = tags[one.ref.rpartition("/")[2]]
        if DRILL_TAG not in has and len(has) >= MOST_TAGS:
            remedy = f"Remove a tag from the versions of the key {key.name}."
            raise Refused(
                f"The drill sets the tag {DRILL_TAG} of each version that it disables. A version already has the most "
                f"tags that Key Vault allows. {remedy}",
                code="drill_refused",
                remedy=remedy,
            )
        return replace(one, body={**(one.body or {}), "tags": {**has, DRILL_TAG: started_at}})

    return tuple(map(tagged, disabled))


def _taken(docs: Docs, place: _Place, goal: DrillGoal, facts: Facts) -> tuple[Request, ...]:
    """The requests that take the key from the account, without that which also changes the vault's tags. Raises an
    error if others use the key, the access or, if its firewall is closed, the vault."""
    of_key = RemovalGoal(place.key.vault, place.key.name, canary=place.id, vault_used_by=goal.vault_used_by)
    disabled = KeyDisabled(of_key, facts).decide(docs).requests
    if goal.kind == DISABLE_KEY:
        return disabled
    changes, problem, what = list[Change](), _why_not_closable(place.vault), "close the firewall of"
    if goal.kind == REVOKE_ACCESS:
        goals = [_access(place.key, one, canary=place.id, vault_used_by=goal.vault_used_by) for one in place.principals]
        changes = [AccessRevoked(one, facts).decide(docs) for one in goals]
        problem, what = _why_not_restorable(place, changes), "revoke the access to"
    if problem:
        remedy = f"Set O(kind={DISABLE_KEY})."
        raise Refused(
            f"The drill cannot {what} the vault {place.vault['name']}: {problem} {remedy}",
            code="drill_refused",
            option="kind",
            value=goal.kind,
            remedy=remedy,
        )
    if goal.kind == CLOSE_FIREWALL:
        _require_only_user_of_vault(docs, place, facts, goal.vault_used_by)
    return tuple(request for one in changes for request in one.requests)


def _access(key: KeyIdentifier, principal: str, *, present: bool = False, **more: Any) -> AccessGoal:
    return AccessGoal(None, key.vault, present, principal, None, None, False, unused_for=MARGIN_SECONDS, **more)


def _why_not_restorable(place: _Place, changes: Sequence[Change]) -> str:
    """Why access that was revoked could not be restored as it was, or would not be missing; empty if it can. The role
    recover grants all identities exactly the access that Batch needs, to the vault."""
    if any(one.after["granted"] and one.warnings for one in changes):
        return "role assignments at another scope grant it too."
    for principal, change in zip(place.principals, changes, strict=True):
        if not change.requests or set(change.before["granted"]) != set(access_document.NEEDED):
            return f"the identity {principal} lacks a permission that Batch needs."
        permissions = access_document.key_permissions(access_document.policy_of(place.vault, principal))
        if not vault_document.uses_rbac(place.vault) and "all" in map(str.lower, permissions):
            return f"the access policy of {principal} has the permission all, which would be replaced."
    return "" if changes else "the account has no identity."


def _require_only_user_of_vault(docs: Docs, place: _Place, facts: Facts, used_by: str) -> None:
    """Azure Resource Graph confirms nothing, so after the change, `used_by` is Batch."""
    name = place.vault["name"]
    visible = users.with_disks(docs, facts, usage.without(users.everywhere(docs, facts), place.id))
    visible, using = services.of_vault(docs, facts, name, visible, asks=used_by != usage.BATCH)
    usage.guard(using, visible, f"close the firewall of the vault {name}", force=False)


def _refuse_own_pools_on_key(docs: Docs, place: _Place, facts: Facts, kind: str) -> None:
    """The account's own pools are other users: their disks may need the key although the account does not."""
    disks, _unlisted = users.disks(docs, facts, [place.account])

    def may_use(key: str | None) -> bool:
        used = None if key is None else read_key_identifier(key)
        return used is None or (used.vault == place.key.vault if kind == CLOSE_FIREWALL else used.same_key(place.key))

    using = [one["id"] for one in disks if may_use(one["key"])]
    if using:
        raise _not_alone(
            place.account["name"], kind, f"{some_text([user_text(one) for one in using], 2)} may use it.", pools=using
        )


def _only_user(goal: DrillGoal, ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except Refused as refusal:
        facts = refusal.facts
        if refusal.code not in _NOT_ALONE:
            raise
        using = [user for kind in _USERS for user in facts.get(kind, ())]
        until = f" until {facts['kept_until']}" if facts.get("kept_until") else ""
        reasons = [f"{some_text([user_text(one) for one in using], 2)} may use it{until}."] if using else []
        if unlisted := facts.get("unlisted"):
            reasons.append(f"Not known: {some_text([scope_text(one['scope']) for one in unlisted], 1)}.")
        kept = {name: facts[name] for name in (*_USERS, "unlisted", "kept_until") if name in facts}
        remedy = usage.remedy_for(facts["unlisted"]) if refusal.code == "users_unknown" else None
        raise _not_alone(goal.name, goal.kind, " ".join(reasons), remedy, code=refusal.code, **kept) from refusal


def _not_alone(
    name: str, kind: str, reasons: str, remedy: str | None = None, *, code: Any = "in_use", **facts: Any
) -> Refused:
    what = "vault" if kind == CLOSE_FIREWALL else "key"
    remedy = remedy or f"Use a Batch account with a separate {what} for drills."
    return Refused(
        f"Refused the drill of the Batch account {name}, which may not be the only user of its {what}. {reasons} "
        f"{remedy}",
        code=code,
        remedy=remedy,
        **facts,
    )


def _under_way(place: _Place, other: Drill) -> Refused:
    name = other.account.rpartition("/")[2]
    remedy = f"Run azbatch.cmk.recover for the Batch account {name}, and then this task again."
    return Refused(
        f"The drill was not started, because that of {name}, begun at {other.started_at}, is not finished. {remedy}",
        code="drill_under_way",
        remedy=remedy,
    )


@dataclass
class _Progress:
    """What has happened during a drill."""

    # The refusal of an update, and when it was (time.monotonic()).
    refusal: str = ""
    refused_at: float = 0.0
    # Whether the users were asked for after the delay, and whether all was restored.
    is_asked_late: bool = False
    is_given_back: bool = False


@dataclass(frozen=True, kw_only=True)
class _OfPlace(Change):
    """A change of the canary, or of the tags and the network rules of its vault."""

    goal: DrillGoal
    facts: Facts
    place: _Place

    def wanted(self, docs: Docs, request: Request) -> None:
        if request.ref == self.place.id:
            _require_same_tags(docs, self.place.account)
        elif request.ref == self.place.vault["id"]:
            _require_same_vault(docs, self.place.vault, (request.body or {}).get("properties", {}))

    def heard(self, request: Request, refusal: CmkError | None) -> CmkError | None:
        """Wait until Batch accepts changes of the account."""
        if refusal is None:
            return None
        if not isinstance(refusal, Unavailable) and not _is_of_key(refusal):
            raise refusal
        remedy = "Run azbatch.cmk.recover for the account, which ends the drill."
        complaint = AccountUnavailable(
            f"Batch still refuses changes of the Batch account {self.goal.name} after {self.facts.wait_timeout} s. "
            f"{remedy}",
            remedy=remedy,
        )
        return complaint.extended(**refusal.texts)


@dataclass(frozen=True, kw_only=True)
class _AcceptedAgain(_OfPlace):
    task: Task

    def follow_up(self, request: Request, document: Any) -> Task | None:
        return _RecoveryRecorded(self.place.vault) if request.name == "record" else None

    def confirm(self, docs: Docs) -> Change:
        return self.task.decide(docs)


class _Ended(_AcceptedAgain):
    def follow_up(self, request: Request, document: Any) -> Task | None:
        return _EndRecorded(self.place.vault) if request.name == "record" else None


@dataclass(frozen=True, kw_only=True)
class _Taken(_OfPlace):
    """The key is taken from the account. `refs` are the resources that are written for that."""

    drill: Drill
    refs: tuple[str, ...]
    progress: _Progress = field(default_factory=_Progress)

    def wanted(self, docs: Docs, request: Request) -> None:
        super().wanted(docs, request)
        if request.is_probe:
            self._require_wanted(docs)

    def _require_wanted(self, docs: Docs) -> None:
        """Asked before each further update. Raises an error if others use what was taken away, until each list shows
        users that have not seen the change, or if another run has ended the drill. Then all is restored."""
        place, at = self.place, _taken_at(self.facts, self.refs)
        if not place.key.same_key(key_of(docs.get(refs.account(place.id)))):
            raise PlanOutdated(f"The Batch account {self.goal.name} was moved to another key during the drill.")
        if at is not None and docs.asked_at >= at + VALUE_LAG_SECONDS:
            found = docs.get(refs.vault(place.vault["id"]))
            if found is None or of_vault(found) != self.drill:
                raise PlanOutdated(f"Another run has ended the drill of the Batch account {self.goal.name}.")
        if not self.progress.is_asked_late:
            _only_user(self.goal, lambda: self._require_unused(docs))
            self.progress.is_asked_late = at is not None and docs.asked_at >= at + 2 * VALUE_LAG_SECONDS

    def _require_unused(self, docs: Docs) -> None:
        """Azure Resource Graph confirms nothing, so other services are not asked for."""
        place, facts, kind = self.place, self.facts, self.goal.kind
        if kind == CLOSE_FIREWALL:
            # The caller may no longer be allowed to read the key.
            _require_only_user_of_vault(docs, place, facts, usage.BATCH)
            return
        versions = [one.rpartition("/")[2] for one in self.refs] if kind == DISABLE_KEY else []
        of_key = RemovalGoal(place.key.vault, place.key.name, canary=place.id)
        KeyDisabled(of_key, facts).still_unused(docs, versions)
        if kind == REVOKE_ACCESS:
            for principal in place.principals:
                access_unused(docs, _access(place.key, principal, canary=place.id), facts)

    def heard(self, request: Request, refusal: CmkError | None) -> CmkError | None:
        """Wait until Batch refuses the account."""
        if refusal is None or isinstance(refusal, Unavailable):
            complaint = _not_refused(self.goal, self.facts)
            return complaint.extended(**refusal.texts) if refusal else complaint
        if not _is_of_key(refusal):
            raise refusal
        azure = refusal.facts.get("azure", {})
        self.progress.refusal = f"{azure.get('status')} {azure.get('code')}"
        self.progress.refused_at = max(one.answered_at for one in self.facts.journal.of(request.ref))
        return None

    def follow_up(self, request: Request, document: Any) -> Task | None:
        return _RefusalRecorded(self.place.vault, progress=self.progress) if request.name == "record" else None

    def confirm(self, docs: Docs) -> Change:
        place = _place(docs, self.goal, self.facts)
        if place is None:
            raise PlanOutdated(
                f"The Batch account {self.goal.name} was moved to a Microsoft-managed key during the drill."
            )
        drill = _own(place)
        is_lost = drill is not None and drill.refused_at is not None
        missing = () if is_lost else (_update(place.account, self.goal),)
        return Change(place.described(lost=is_lost), place.described(lost=True), missing)

    def back(self) -> Sequence[Task]:
        return [GivenBack(self.goal, self.facts, taken=self)]

    def undone(self, current: Mapping[str, Any]) -> str:
        return f"If the drill has begun, azbatch.cmk.recover ends it for the Batch account {self.goal.name}."


def _taken_at(facts: Facts, written: Sequence[str]) -> float | None:
    """When the key was taken away (time.monotonic()), or may have been. None if it was not."""
    writes = [facts.journal.last_effect(ref) for ref in written]
    return max((write.answered_at for write in writes if write), default=None)


@dataclass(frozen=True, kw_only=True)
class GivenBack(_OfDrill):
    """What was taken is restored without a wait for the account, because an interrupt may have ended the task. The tags
    stay, so that a later run waits for the account and ends the drill. A read that does not show the change yet does
    not show that there is nothing to restore."""

    taken: _Taken

    def decide(self, docs: Docs) -> Change:
        goal, facts, progress = self.goal, self.facts, self.taken.progress
        taken = self.taken.place
        account = required(accounts.existing(docs, facts, goal.group, goal.name), goal.group, goal.name)
        place = replace(taken, account=account, vault=docs.get(refs.vault(taken.vault["id"])) or taken.vault)
        back = tuple(replace(one, undoes=True) for one in _restoring(docs, place, self.taken.drill, facts))
        if not place.key.same_key(key_of(account)) and of_vault(place.vault):
            # No later run finds the drill of an account that does not use the vault any more.
            back += (_tag(place.vault, None, "end"),)
        at = _taken_at(facts, self.taken.refs)
        if not back and not progress.is_given_back and at and docs.asked_at < at + VALUE_LAG_SECONDS:
            raise NotFound(f"Azure does not show yet what the drill of {goal.name} has changed.")
        progress.is_given_back |= bool(back)
        before, after = place.described(lost=bool(back)), place.described(lost=False)
        return _AcceptedAgain(before, after, back, goal=goal, facts=facts, place=place, task=self)


def _not_refused(goal: DrillGoal, facts: Facts) -> CmkError:
    remedy = "Batch may notice a loss later: set O(wait_timeout) to a longer time."
    return TimedOut(
        f"Batch did not refuse the Batch account {goal.name} within {facts.wait_timeout} s. {remedy}",
        option="wait_timeout",
        value=facts.wait_timeout,
        remedy=remedy,
    )


# The account is recovered


def _unchanged(docs: Docs, goal: DrillGoal, facts: Facts, place: _Place | None) -> Change:
    account = required(accounts.existing(docs, facts, goal.group, goal.name), goal.group, goal.name)
    before = place.described(lost=False) if place else {**_described(account), "vault_id": None, "lost": False}
    return Change(before, before)


def _restoring(docs: Docs, place: _Place, drill: Drill, facts: Facts) -> tuple[Request, ...]:
    key = read_key_identifier(drill.key)
    if drill.kind == DISABLE_KEY:
        return tuple(_enable(key, item) for item in docs.items(refs.versions_of(key)) if _is_disabled_by(drill, item))
    if drill.kind == REVOKE_ACCESS:
        grants = (AccessGranted(_access(key, one, present=True), facts) for one in place.principals)
        return tuple(request for one in grants for request in one.decide(docs).requests)
    if vault_document.lets_azure_services_in(place.vault):
        return ()
    return (_tag(place.vault, drill, "restore_firewall", _firewall(place.vault, "AzureServices")),)


def _is_disabled_by(drill: Drill, item: KeyItem) -> bool:
    return not item["attributes"]["enabled"] and item.get("tags", {}).get(DRILL_TAG) == drill.started_at


def _enable(key: KeyIdentifier, item: KeyItem) -> Request:
    tags = {name: value for name, value in item.get("tags", {}).items() if name != DRILL_TAG}
    return key_requests.update(key, version_of(item), {"attributes": {"enabled": True}, "tags": tags})


# Requests


def _update(account: Account, goal: DrillGoal) -> Request:
    """Update the account without a change."""
    what = f"update the Batch account {goal.name} without a change"
    body = {"tags": account.get("tags") or {}}
    needed = (rights.to_change_account(goal.group, goal.name),)
    return Request("update_account", what, "PATCH", account["id"], body, needed)


def _accepted(account: Account, goal: DrillGoal) -> Request:
    waiting_for = f"Batch to accept changes of the Batch account {goal.name}"
    return replace(_update(account, goal), waiting_for=waiting_for, is_probe=True)


def _is_of_key(refusal: CmkError) -> bool:
    """Whether Batch refuses the account because of its key."""
    return is_unavailable(refusal) and refusal.facts.get("azure", {}).get("code") not in _NOT_OF_KEY


def _require_same_tags(docs: Docs, account: Account) -> None:
    found = docs.get(refs.account(account["id"]))
    if found is not None and (found.get("tags") or {}) != (account.get("tags") or {}):
        raise PlanOutdated(f"The tags of the Batch account {account['name']} were changed during the drill.")


def _tag(vault: Vault, drill: Drill | None, name: str, properties: Mapping[str, Any] | None = None) -> Request:
    """Set the tags of the drill, or remove them, and change properties of the vault in the same request."""
    body = {"tags": tags_with(vault, drill), **({"properties": properties} if properties else {})}
    needed = (Right(f"{rights.VAULTS}/write", vault["id"]),)
    what = f"set the tags of the drill at the key vault {vault['name']}"
    return Request(name, what, "PATCH", vault["id"], body, needed, wanted_first=True)


def _require_same_vault(docs: Docs, vault: Vault, properties: Mapping[str, Any]) -> None:
    """Tags and network rules in a request replace those of the vault. If somebody else has changed them since they were
    read, nothing is written."""
    found = docs.get(refs.vault(vault["id"]))
    is_same = (
        found is not None
        and (found.get("tags") or {}) == (vault.get("tags") or {})
        and (not properties or found["properties"].get("networkAcls") == vault["properties"].get("networkAcls"))
    )
    if not is_same:
        raise PlanOutdated(
            f"The tags or the network rules of the key vault {vault['name']} were changed by somebody else just before "
            "this task would have changed them. Run the task again."
        )


def _record(vault: Vault, what: str) -> Request:
    """Record an event of the drill in the vault's tags."""
    return Request("record", f"record {what}", "", vault["id"], waiting_for=f"Azure to show {what}")


@dataclass(frozen=True, kw_only=True)
class _Tagged(Change):
    vault: Vault

    def wanted(self, docs: Docs, request: Request) -> None:
        _require_same_vault(docs, self.vault, {})


@dataclass(frozen=True)
class _EventRecorded(Task):
    """An event is recorded in the vault's tags, with the time at which it happened."""

    vault: Vault
    # The drill with the event, once it is known.
    added: list[Drill] = field(default_factory=list)

    def decide(self, docs: Docs) -> Change:
        # It is read now, and the response has the time.
        found = docs.get(refs.vault(self.vault["id"]))
        drill = of_vault(found) if found else None
        if found is None or drill is None:
            name = self.vault["name"]
            complaint = PlanOutdated(f"Somebody has removed the tags of the drill at the key vault {name}.")
            raise Wait(complaint, f"Azure to show the tags of the key vault {name}", VALUE_LAG_SECONDS)
        if not self.added:
            self.added.append(self._with_event(docs, drill))
        requests = () if self.added[0] == drill else (_tag(found, self.added[0], "record"),)
        return _Tagged({}, {}, requests, vault=found)

    def _with_event(self, docs: Docs, drill: Drill) -> Drill:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class _RefusalRecorded(_EventRecorded):
    progress: _Progress

    def _with_event(self, docs: Docs, drill: Drill) -> Drill:
        # Azure may have shown the tags only some time after the refusal.
        refused_at = str(instant(docs.now - (docs.asked_at - self.progress.refused_at)))
        return replace(drill, refused_at=refused_at, refusal=self.progress.refusal)


class _RecoveryRecorded(_EventRecorded):
    def _with_event(self, docs: Docs, drill: Drill) -> Drill:
        # When Batch has made the update, by its own clock.
        changed_at = docs.of(refs.dated_account(drill.account)).changed_at
        return replace(drill, recovered_at=str(instant(changed_at or docs.now)))


@dataclass(frozen=True)
class _EndRecorded(Task):
    """The vault has no tags of the drill."""

    vault: Vault

    def decide(self, docs: Docs) -> Change:
        found = docs.get(refs.vault(self.vault["id"]))
        if found is None or of_vault(found) is None:
            return Change({}, {})
        return _Tagged({}, {}, (_tag(found, None, "end"),), vault=found)


def _why_not_closable(vault: Vault) -> str:
    """Why the drill cannot close the firewall for Batch only; empty if it can."""
    if vault_document.is_in_perimeter(vault):
        return "a network security perimeter controls the access instead."
    if vault_document.allows_all_networks(vault):
        return "the vault allows all networks, so a closed firewall would also shut out the caller and others."
    return ""


def _firewall(vault: Vault, bypass: str) -> dict[str, Any]:
    """All rules are sent, because Azure resets rules that are missing in the request."""
    return {"networkAcls": {**vault["properties"].get("networkAcls", {}), "bypass": bypass}}


def _rights_to_restore(place: _Place, goal: DrillGoal) -> tuple[Right, ...]:
    """The rights that only the restoring needs."""
    if goal.kind != REVOKE_ACCESS:
        return ()
    vault = place.vault
    return (
        rights.to_assign_role(vault["id"])
        if vault_document.uses_rbac(vault)
        else rights.to_change_policies(vault["id"]),
    )
