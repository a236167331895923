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

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ..._azure.facts import Facts
from ..._checks import rights, usage
from ..._core.changes import VALUE_LAG_SECONDS, Change, Probe, Request, Right
from ..._core.docs import Docs, Wait
from ..._core.documents import Account, KeyItem, Vault
from ..._core.duration import instant
from ..._core.errors import AccountUnavailable, CmkError, NotFound, PlanOutdated, Refused, TimedOut
from ..._core.ids import KeyIdentifier, key_of, principals_of, read_key_identifier
from ..._documents import access as access_document
from ..._documents import refs
from ..._documents import vault as vault_document
from ..._documents.account import is_unavailable, require_ready, required
from ..._documents.drill import CLOSE_FIREWALL, DISABLE_KEY, REVOKE_ACCESS, Drill, of_vault, tags_with
from ..._documents.key import DRILL_TAG, MOST_TAGS, version_of
from ..._questions import accounts, health, services, users, vaults
from ..key import requests as key_requests
from .goal import Goal

# Refusals of an update that have other reasons than the key.
_NOT_OF_KEY = ("ScopeLocked", "RequestDisallowedByPolicy", "AccountOperationInProgress")
_NOT_ALONE = ("in_use", "recently_used", "users_unknown")
# The users in the facts of these refusals.
_USERS = ("accounts", "pools", "resources")


@dataclass(frozen=True)
class Others:
    """The decisions of other resources. `disable` and `revoke` raise an error if another account or pool than the
    canary (its id) may use the key or the principal's access, or a resource of the services that use the vault.
    `key_unused` and `access_unused` raise it after the change, and do not ask for other services."""

    disable: Callable[[Docs, KeyIdentifier, str, str], Change]
    key_unused: Callable[[Docs, KeyIdentifier, str, Sequence[str]], Change]
    revoke: Callable[[Docs, KeyIdentifier, str, str, str], Change]
    access_unused: Callable[[Docs, KeyIdentifier, str, str], Change]
    grant: Callable[[Docs, KeyIdentifier, str], Change]


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


def decide(docs: Docs, goal: Goal, facts: Facts, others: Others) -> Change:
    if goal.state == "lost":
        return users.with_left_out(docs, facts, _lost(docs, goal, facts, others))
    return (_recovered if goal.state == "recovered" else _ended)(docs, goal, facts, others)


def of_account(docs: Docs, goal: Goal, facts: Facts) -> Drill | None:
    """The drill of the account that is not finished."""
    return _own(_place(docs, goal, facts))


def _described(account: Account) -> dict[str, Any]:
    key = key_of(account)
    return {"exists": True, "id": account["id"], "name": account["name"], "key_identifier": str(key) if key else None}


def _place(docs: Docs, goal: Goal, facts: Facts) -> _Place | None:
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


def _lost(docs: Docs, goal: Goal, facts: Facts, others: Others) -> Change:
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
    taken = _only_user(goal, lambda: _taken(docs, place, goal, facts, others))
    started_at = str(instant(docs.now))
    if goal.kind == DISABLE_KEY:
        taken = _tagged(docs, place.key, taken, started_at)
    drill = Drill(goal.kind, place.id, str(place.key.versionless), started_at, facts.caller["object_id"])
    properties = _firewall(place.vault, "None") if goal.kind == CLOSE_FIREWALL else {}
    mark = _tag(place.vault, drill, "begin", properties)
    said = _Said()
    refused = Probe(said.is_refusal, _not_refused(goal, facts), until_refused=True)
    taken_key = _TakenKey(place, goal, facts, others, drill, [one.ref for one in taken] or [mark.ref])
    requests = (
        # Shows that Batch accepts the request as long as the account has its key.
        _probe(place.account, goal),
        replace(mark, rights=(*mark.rights, *_rights_to_restore(place, goal))),
        *taken,
        replace(
            _probe(place.account, goal, refused),
            guard=taken_key.require_wanted,
            waiting_for=f"Batch to refuse the Batch account {goal.name}",
        ),
        _record(place.vault, "that Batch refused the account", partial(_with_refusal, said=said)),
    )
    return Change(
        place.described(lost=False),
        place.described(lost=True),
        requests,
        usage.not_shown(goal.vault_used_by),
        confirm=partial(_confirmed, goal=goal, facts=facts),
        undo=(taken_key.given_back,),
        undone=lambda _current: (
            f"If the drill has begun, azbatch.cmk.recover ends it for the Batch account {goal.name}."
        ),
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


def _taken(docs: Docs, place: _Place, goal: Goal, facts: Facts, others: Others) -> tuple[Request, ...]:
    """The requests that take the key from the account, without that which also changes the vault's tags. Raises an
    error if others use the key, the access or, if its firewall is closed, the vault."""
    disabled = others.disable(docs, place.key, place.id, goal.vault_used_by).requests
    if goal.kind == DISABLE_KEY:
        return disabled
    changes, problem, what = list[Change](), _why_not_closable(place.vault), "close the firewall of"
    if goal.kind == REVOKE_ACCESS:
        changes = [others.revoke(docs, place.key, one, place.id, goal.vault_used_by) for one in place.principals]
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


def _why_not_restorable(place: _Place, changes: Sequence[Change]) -> str:
    """Why access that was revoked could not be restored as it was, or would not be missing; empty if it can. The role
    recover grants all identities exactly the access that Batch needs, to the vault."""
    left = [warning for one in changes if one.after["granted"] for warning in one.warnings]
    if left:
        return " ".join(left)
    for principal, change in zip(place.principals, changes, strict=True):
        if not change.requests or set(change.before["granted"]) != set(access_document.NEEDED):
            return f"the identity {principal} lacks get, wrapKey or unwrapKey there, which the restoring would grant."
        permissions = access_document.key_permissions(access_document.policy_of(place.vault, principal))
        if not vault_document.uses_rbac(place.vault) and "all" in map(str.lower, permissions):
            return f"the access policy of {principal} has the permission all, which would be replaced by other names."
    return "" if changes else "the account has no identity."


def _require_only_user_of_vault(docs: Docs, place: _Place, facts: Facts, used_by: str) -> None:
    """Azure Resource Graph confirms nothing, so after the change, `used_by` is Batch."""
    now, name = docs.fresh(), place.vault["name"]
    listed = usage.without(users.everywhere(now, facts), place.id)
    disks, unlisted = users.disks(now, facts, listed["accounts"])
    unlisted = [*listed["unlisted"], *unlisted]
    visible: usage.Visible = {**listed, "disks": disks, "services": [], "unlisted": unlisted}
    visible, using = services.of_vault(now, facts, name, visible, asks=used_by != usage.BATCH)
    usage.guard(using, visible, f"close the firewall of the vault {name}", force=False)


def _refuse_own_pools_on_key(docs: Docs, place: _Place, facts: Facts, kind: str) -> None:
    """The account's own pools are other users: their disks may need the key although the account does not."""
    disks, _unlisted = users.disks(docs, facts, [place.account])

    def may_use(key: str | None) -> bool:
        used = None if key is None else read_key_identifier(key)
        return used is None or (used.vault == place.key.vault if kind == CLOSE_FIREWALL else used.same_key(place.key))

    using = [one["id"] for one in disks if may_use(one["key"])]
    if using:
        raise _not_alone(place.account["name"], kind, f"These pools may use it: {', '.join(using)}.", pools=using)


def _only_user(goal: Goal, ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except Refused as refusal:
        facts = refusal.facts
        if refusal.code not in _NOT_ALONE:
            raise
        using = [user for kind in _USERS for user in facts.get(kind, ())]
        reasons = [f"These use it, or may use it: {', '.join(using)}."] if using else []
        if facts.get("kept_until"):
            reasons.append(f"They count as users until {facts['kept_until']}.")
        reasons += map(usage.not_listed, facts.get("unlisted", ()))
        kept = {name: facts[name] for name in (*_USERS, "unlisted", "kept_until") if name in facts}
        remedy = usage.remedy_for(facts["unlisted"]) if refusal.code == "users_unknown" else None
        raise _not_alone(goal.name, goal.kind, " ".join(reasons), remedy, code=refusal.code, **kept) from refusal


def _not_alone(
    name: str, kind: str, reasons: str, remedy: str | None = None, *, code: Any = "in_use", **facts: Any
) -> Refused:
    what = "vault" if kind == CLOSE_FIREWALL else "key"
    remedy = remedy or f"Use a Batch account with a separate {what} for drills."
    return Refused(
        f"Refused the drill of the Batch account {name}, because it is not certainly the only user of its {what}. "
        f"{reasons} {remedy}",
        code=code,
        remedy=remedy,
        **facts,
    )


def _under_way(place: _Place, other: Drill) -> Refused:
    name = other.account.rpartition("/")[2]
    remedy = f"Run azbatch.cmk.recover for the Batch account {name}, which ends the drill, and then this task again."
    return Refused(
        f"The drill was not started, because the drill of the Batch account {name} in the vault "
        f"{place.vault['name']}, which began at {other.started_at}, is not finished. {remedy}",
        code="drill_under_way",
        remedy=remedy,
    )


class _TakenKey:
    """What a task has taken from the account. `refs` are the resources that it writes for that."""

    def __init__(
        self, place: _Place, goal: Goal, facts: Facts, others: Others, drill: Drill, refs: Sequence[str]
    ) -> None:
        self._place, self._goal, self._facts, self._others, self._drill = place, goal, facts, others, drill
        self._refs = refs
        self._is_asked_late = self._is_given_back = False

    @property
    def _at(self) -> float | None:
        """When it was taken away (time.monotonic()), or may have been. None if nothing was."""
        writes = [self._facts.journal.last_effect(ref) for ref in self._refs]
        return max((write.answered_at for write in writes if write), default=None)

    def require_wanted(self, docs: Docs) -> None:
        """Asked before each further update. Raises an error if others use what was taken away, until each list shows
        users that have not seen the change, or if another run has ended the drill. Then all is restored."""
        place, at = self._place, self._at
        _require_same_tags(docs, place.account)
        if at is None or docs.asked_at < at + VALUE_LAG_SECONDS:
            is_ended = False
        else:
            found = docs.get(refs.vault(place.vault["id"]))
            is_ended = found is None or of_vault(found) != self._drill
        if is_ended:
            raise PlanOutdated(f"Another run has ended the drill of the Batch account {self._goal.name}.")
        if not self._is_asked_late:
            _only_user(self._goal, lambda: self._require_unused(docs))
            self._is_asked_late = at is not None and docs.asked_at >= at + 2 * VALUE_LAG_SECONDS

    def _require_unused(self, docs: Docs) -> None:
        place, others, kind = self._place, self._others, self._goal.kind
        if kind == CLOSE_FIREWALL:
            # The caller may no longer be allowed to read the key.
            _require_only_user_of_vault(docs, place, self._facts, usage.BATCH)
            return
        versions = [one.rpartition("/")[2] for one in self._refs] if kind == DISABLE_KEY else []
        others.key_unused(docs, place.key, place.id, versions)
        if kind == REVOKE_ACCESS:
            for principal in place.principals:
                others.access_unused(docs, place.key, principal, place.id)

    def given_back(self, docs: Docs) -> Change:
        """Restore it without a wait for the account, because an interrupt may have ended the task. The tags stay, so
        that a later run waits for the account and ends the drill. A read that does not show the change yet does not
        show that there is nothing to restore."""
        place = _place(docs, self._goal, self._facts) or self._place
        back = [replace(one, undoes=True) for one in _restoring(docs, place, self._drill, self._others)]
        if not back and not self._is_given_back and self._at and docs.asked_at < self._at + VALUE_LAG_SECONDS:
            raise NotFound(f"Azure does not show yet what the drill of {self._goal.name} has changed.")
        self._is_given_back |= bool(back)
        return Change(place.described(lost=bool(back)), place.described(lost=False), tuple(back))


def _confirmed(docs: Docs, goal: Goal, facts: Facts) -> Change:
    """The decision after the requests."""
    place = _place(docs, goal, facts)
    if place is None:
        raise PlanOutdated(f"The Batch account {goal.name} was moved to a Microsoft-managed key during the drill.")
    drill = _own(place)
    is_lost = drill is not None and drill.refused_at is not None
    missing = () if is_lost else (_probe(place.account, goal),)
    return Change(place.described(lost=is_lost), place.described(lost=True), missing)


def _not_refused(goal: Goal, facts: Facts) -> CmkError:
    remedy = "Batch may notice a loss later: set O(wait_timeout) to a longer time."
    return TimedOut(
        f"Batch did not refuse the Batch account {goal.name} within {facts.wait_timeout} s. {remedy}",
        option="wait_timeout",
        value=facts.wait_timeout,
        remedy=remedy,
    )


# The account is recovered


def _recovered(docs: Docs, goal: Goal, facts: Facts, _others: Others) -> Change:
    """Wait until Batch accepts changes of the account, and record when it did."""
    place = _place(docs, goal, facts)
    drill = _own(place)
    if place is None or drill is None or drill.recovered_at:
        return _unchanged(docs, goal, facts, place)
    requests = (
        _accepted(place, goal, facts),
        _record(place.vault, "that Batch accepts changes of the account", _with_recovery),
    )
    before = place.described(lost=True)
    return Change(before, {**before, "lost": False}, requests)


def _ended(docs: Docs, goal: Goal, facts: Facts, others: Others) -> Change:
    """Restore what the drill has changed, wait until Batch accepts changes of the account, and end the drill."""
    place = _place(docs, goal, facts)
    drill = _own(place)
    if place is None or drill is None:
        return _unchanged(docs, goal, facts, place)
    back = _restoring(docs, place, drill, others)
    before = place.described(lost=bool(back))
    end = _record(place.vault, "that the drill has ended", None)
    requests = (*back, _accepted(place, goal, facts), end)
    return Change(before, {**before, "lost": False}, requests)


def _unchanged(docs: Docs, goal: Goal, facts: Facts, place: _Place | None) -> Change:
    account = required(accounts.existing(docs, facts, goal.group, goal.name), goal.group, goal.name)
    before = place.described(lost=False) if place else {**_described(account), "vault_id": None, "lost": False}
    return Change(before, before)


def _restoring(docs: Docs, place: _Place, drill: Drill, others: Others) -> tuple[Request, ...]:
    key = read_key_identifier(drill.key)
    if drill.kind == DISABLE_KEY:
        return tuple(_enable(key, item) for item in docs.items(refs.versions_of(key)) if _is_disabled_by(drill, item))
    if drill.kind == REVOKE_ACCESS:
        return tuple(request for one in place.principals for request in others.grant(docs, key, one).requests)
    if vault_document.lets_azure_services_in(place.vault):
        return ()
    return (_tag(place.vault, drill, "restore_firewall", _firewall(place.vault, "AzureServices")),)


def _is_disabled_by(drill: Drill, item: KeyItem) -> bool:
    return not item["attributes"]["enabled"] and item.get("tags", {}).get(DRILL_TAG) == drill.started_at


def _enable(key: KeyIdentifier, item: KeyItem) -> Request:
    tags = {name: value for name, value in item.get("tags", {}).items() if name != DRILL_TAG}
    return key_requests.update(key, version_of(item), {"attributes": {"enabled": True}, "tags": tags})


# Requests


def _probe(account: Account, goal: Goal, probe: Probe | None = None) -> Request:
    """Update the account without a change."""
    what = f"update the Batch account {goal.name} without a change"
    body = {"tags": account.get("tags") or {}}
    needed = (rights.to_change_account(goal.group, goal.name),)
    guard = partial(_require_same_tags, account=account)
    return Request("update_account", what, "PATCH", account["id"], body, needed, guard=guard, probe=probe)


def _accepted(place: _Place, goal: Goal, facts: Facts) -> Request:
    remedy = "Run azbatch.cmk.recover for the account, which ends the drill."
    complaint = AccountUnavailable(
        f"Batch still refuses changes of the Batch account {goal.name} after {facts.wait_timeout} s. {remedy}",
        remedy=remedy,
    )
    probe = _probe(place.account, goal, Probe(_Said().is_refusal, complaint))
    return replace(probe, waiting_for=f"Batch to accept changes of the Batch account {goal.name}")


class _Said:
    """The refusal of an update, and when it was (time.monotonic())."""

    def __init__(self) -> None:
        self.refusal, self.at = "", 0.0

    def is_refusal(self, error: CmkError) -> bool:
        """Whether Batch refuses the account because of its key."""
        azure = error.facts.get("azure", {})
        if not is_unavailable(error) or azure.get("code") in _NOT_OF_KEY:
            return False
        self.refusal, self.at = f"{azure.get('status')} {azure.get('code')}", time.monotonic()
        return True


def _require_same_tags(docs: Docs, account: Account) -> None:
    found = docs.get(refs.account(account["id"]))
    if found is not None and (found.get("tags") or {}) != (account.get("tags") or {}):
        raise PlanOutdated(f"The tags of the Batch account {account['name']} were changed during the drill.")


def _tag(vault: Vault, drill: Drill | None, name: str, properties: Mapping[str, Any] | None = None) -> Request:
    """Set the tags of the drill, or remove them, and change properties of the vault in the same request."""
    body = {"tags": tags_with(vault, drill), **({"properties": properties} if properties else {})}
    guard = partial(_require_same_vault, vault=vault, properties=properties or {})
    needed = (Right(f"{rights.VAULTS}/write", vault["id"]),)
    what = f"set the tags of the drill at the key vault {vault['name']}"
    return Request(name, what, "PATCH", vault["id"], body, needed, guard=guard, guard_first=True)


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


def _record(vault: Vault, what: str, add: Callable[[Docs, Drill], Drill] | None) -> Request:
    """Record an event of the drill in the vault's tags, with the time at which it happened. Without `add`, remove the
    tags of the drill."""
    added = list[Drill]()

    def follow_up(docs: Docs, _document: Any) -> Change:
        # Read now, because the response has the time.
        docs = docs.fresh(docs.began)
        found = docs.get(refs.vault(vault["id"]))
        drill = of_vault(found) if found else None
        if found and add is None:
            return Change({}, {}, (_tag(found, None, "end"),) if drill else ())
        if found is None or drill is None or add is None:
            complaint = PlanOutdated(f"Somebody has removed the tags of the drill at the key vault {vault['name']}.")
            raise Wait(complaint, f"Azure to show the tags of the key vault {vault['name']}", VALUE_LAG_SECONDS)
        if not added:
            added.append(add(docs, drill))
        return Change({}, {}, () if added[0] == drill else (_tag(found, added[0], "record"),))

    waiting_for = f"Azure to show {what}"
    return Request("record", f"record {what}", "", vault["id"], follow_up=follow_up, waiting_for=waiting_for)


def _with_refusal(docs: Docs, drill: Drill, said: _Said) -> Drill:
    # Azure may have shown the tags only some time after the refusal.
    return replace(drill, refused_at=str(instant(docs.now - (docs.began - said.at))), refusal=said.refusal)


def _with_recovery(docs: Docs, drill: Drill) -> Drill:
    # When Batch has made the update, by its own clock.
    changed_at = docs.of(refs.dated_account(drill.account)).changed_at
    return replace(drill, recovered_at=str(instant(changed_at or docs.now)))


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


def _rights_to_restore(place: _Place, goal: Goal) -> tuple[Right, ...]:
    """The rights that only the restoring needs."""
    if goal.kind != REVOKE_ACCESS:
        return ()
    vault = place.vault
    return (
        rights.to_assign_role(vault["id"])
        if vault_document.uses_rbac(vault)
        else rights.to_change_policies(vault["id"]),
    )
