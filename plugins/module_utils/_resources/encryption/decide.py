# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decides how a Batch account is moved to another key, how the move is confirmed, and how it is rolled back. Pure: asks
for documents.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

from ..._azure.facts import Facts
from ..._azure.journal import WriteOutcome
from ..._checks import preflight
from ..._checks.diagnosis import lost_after_change, lost_key
from ..._checks.preflight import Evidence, access_since
from ..._checks.rights import to_set_encryption
from ..._checks.versions import REPLACED_BEFORE_EXPIRY, VersionUser, updated_when_left, versions_of
from ..._core.docs import Docs, Ref, Wait
from ..._core.duration import instant
from ..._core.errors import (
    PLACE_NOT_FOUND,
    CmkError,
    Denied,
    NotConverged,
    NotFound,
    PlanOutdated,
    Refused,
    Rejected,
    Unavailable,
)
from ..._core.ids import KeyIdentifier, read_key_identifier
from ..._core.summary import key_text
from ..._core.tasks import VALUE_LAG_SECONDS, Change, Request, Task
from ..._documents import account as account_document
from ..._documents import refs
from ..._documents.account import Account, NotShown, availability, is_failed, key_of, require_known, required
from ..._documents.encryption import (
    account_unavailable,
    describe,
    describe_key,
    on_another_key,
    versions_not_kept,
)
from ..._documents.key import KeyBundle, identifier_of, newest_usable, updated_at, version_of
from ..._questions import accounts, evidence, health, users, vaults
from ..key.requests import touch
from .goal import ANY, FOLLOW, KEEP, PIN, UPDATE, EncryptionGoal

# In seconds. Time enough for the hosts of a wave to share an update.
_JUST_UPDATED_SECONDS = 60
_NO_PREVIOUS: Mapping[str, Any] = {"previous_key_identifier": None}


@dataclass(frozen=True)
class Move(Task):
    """The account uses the key, and is available."""

    goal: EncryptionGoal
    facts: Facts

    def is_subject(self, ref: Ref[Any]) -> bool:
        """Also the key, if the account may be pinned to its newest version, which the identifier does not name."""
        key, mode = self.goal.key, self.goal.mode
        may_pin_newest = key is not None and key.version is None and mode != FOLLOW
        return refs.is_of_account(ref) or (may_pin_newest and ref.kind == "key")

    def glance(self, docs: Docs) -> Change | None:
        """If the run's list of accounts, the key, its vault and its access show that there is nothing to do, and that
        Batch can use the key, neither the account nor its pools are read."""
        goal, facts = self.goal, self.facts
        if goal.patient:
            return None
        earlier = docs.earlier(accounts.ref_of(facts, goal.group, goal.account))
        if earlier is not None and not _wanted(docs, goal, earlier).is_satisfied_by(earlier):
            return None
        account = accounts.existing(docs, facts, goal.group, goal.account)
        if account is None or is_failed(account):
            return None
        wanted = _wanted(docs, goal, account)
        if not wanted.is_satisfied_by(account) or _expires_soon(docs, wanted, account):
            return None
        key = key_of(account)
        if key and any(
            lost_key(evidence.of_key_in_use(docs, account, evidence.of_account(account, key, facts), is_report=True))
        ):
            return None
        before = {**describe(account), "available": True}
        return Change(before, before, warnings=_other_form(goal, key), report=_NO_PREVIOUS)

    def decide(self, docs: Docs) -> Change:
        facts = self.facts
        account = _account(docs, self.goal, facts)
        goal = _wanted(docs, self.goal, account)
        if _expires_soon(docs, goal, account):
            goal = replace(goal, mode=UPDATE)
        leaves_alone = goal.is_satisfied_by(account)
        if goal.target and not leaves_alone:
            docs.want(refs.key(goal.target))
        reason = _reason(docs, facts, account, leaves_alone=leaves_alone)
        available = availability(reason)
        before = {**describe(account), "available": available}
        is_failing = available is None and isinstance(reason, Unavailable)
        if (available is False or is_failing) and goal.patient and goal.is_satisfied_by(account):
            return _Repaired.of(goal, facts, account, before, reason)
        if reason and (is_failing or (available is None and (goal.patient or not leaves_alone))):
            require_known(goal.account, reason)
        if reason and available is False:
            raise account_unavailable(goal.account, key_of(account), reason)
        change = _unchanged(goal, before, reason) if leaves_alone else _Moved.of(docs, goal, facts, account, before)
        return replace(change, warnings=(*_other_form(self.goal, key_of(account)), *change.warnings))


def _account(docs: Docs, goal: EncryptionGoal, facts: Facts) -> Account:
    return required(accounts.existing(docs, facts, goal.group, goal.account), goal.group, goal.account)


def _other_form(goal: EncryptionGoal, has: KeyIdentifier | None) -> tuple[str, ...]:
    """The warning that an account stays pinned or keeps following the latest version, although the identifier of the
    key says otherwise, and no mode is given."""
    if goal.is_mode_given or goal.key is None or has is None or (goal.key.version is None) == (has.version is None):
        return ()
    is_pinned = has.version is not None
    stays, names = ("stays pinned to a", "none") if is_pinned else ("keeps following the latest", "one")
    return (
        f"The Batch account {goal.account} {stays} version of its key, although O(key_identifier) names {names}. Set "
        f"O(version_mode={FOLLOW if is_pinned else PIN}) to change that, or O(version_mode={UPDATE}) to keep it.",
    )


def _wanted(docs: Docs, goal: EncryptionGoal, account: Account) -> EncryptionGoal:
    """The goal with the key identifier for this account: one that uses a customer-managed key keeps whether it follows
    the latest version of its key, unless the mode says otherwise. An account that is pinned to a version is pinned to
    the newest version that can be used, if the goal names none."""
    if goal.key is None or goal.mode == FOLLOW:
        return goal
    if goal.mode != PIN:
        has = key_of(account)
        if has is None:
            return goal
        if has.version is None:
            return replace(goal, key=goal.key.versionless)
    if goal.key.version:
        return goal
    newest = _newest_usable(docs, goal.key)
    return replace(goal, key=identifier_of(newest)) if newest else goal


def _newest_usable(docs: Docs, key: KeyIdentifier) -> KeyBundle | None:
    """The newest version of the key that is enabled and valid now, or the newest version if there is none; None if the
    key does not exist."""
    docs.want(refs.key(key.versionless), refs.versions_of(key))
    newest = docs.get(refs.key(key.versionless))
    if newest is None:
        return None

    def read(version: str) -> KeyBundle | None:
        return docs.get(refs.key(replace(key, version=version)))

    return newest_usable(newest, docs.items(refs.versions_of(key)), _now(docs, key), read, counts_disabled=False)


def _now(docs: Docs, key: KeyIdentifier) -> float:
    """The time by Key Vault's clock, because the times of keys are by that clock."""
    return docs.of(refs.key(key.versionless)).now or docs.now


def _expires_soon(docs: Docs, goal: EncryptionGoal, account: Account) -> bool:
    """Whether the account would keep a version that expires within REPLACED_BEFORE_EXPIRY, and before the wanted
    version."""
    has = key_of(account)
    if goal.mode != KEEP or goal.target is None or has is None or has.version is None:
        return False
    if not has.same_key(goal.key) or has.same(goal.key):
        return False
    docs.want(refs.key(has), refs.key(goal.target), refs.key(has.versionless))
    bundles = [docs.known(refs.key(key)) for key in (has, goal.target)]
    expires, wanted = (one["attributes"].get("exp") if isinstance(one, Mapping) else None for one in bundles)
    return expires is not None and expires <= _now(docs, has) + REPLACED_BEFORE_EXPIRY and (wanted or inf) > expires


def _reason(docs: Docs, facts: Facts, account: Account, *, leaves_alone: bool) -> CmkError | None:
    """Why the account is not available. Batch refuses to change an unavailable account, so before a change, less is
    read; but a refusal may mean that the key was lost."""
    was_refused = any(write.outcome is WriteOutcome.REFUSED for write in facts.journal.of(account["id"]))
    if leaves_alone or was_refused:
        return health.unavailable_reason(docs, facts, account)
    return health.reason_before_change(docs, account)


def _unchanged(goal: EncryptionGoal, before: Mapping[str, Any], reason: CmkError | None) -> Change:
    warnings: tuple[str, ...] = ()
    if reason is not None and before["available"] is None:
        if goal.requires_readable:
            account_document.require_readable(goal.account, reason)
        warnings = (account_document.availability_warning(goal.account, reason),)
    known_from = reason.known_from if isinstance(reason, NotShown) else None
    known = {"available_known_from": instant(known_from)} if known_from else {}
    return Change(before, before, (), warnings, {**_NO_PREVIOUS, **known})


# The versions that the account leaves


@dataclass(frozen=True)
class Keep(Task):
    """Before the account leaves its key, the versions that it may use are updated without a change, unless no version
    is newer. Azure shows no trace of an account that has left a key. A version that was updated inside the margin is
    not disabled (`usage.users_of_version`)."""

    goal: EncryptionGoal
    facts: Facts
    vault: str

    @property
    def lock(self) -> str:
        return self.vault

    def is_subject(self, ref: Ref[Any]) -> bool:
        return refs.is_of_account(ref) or (ref.kind == "key" and ref.is_list)

    def decide(self, docs: Docs) -> Change:
        account = accounts.existing(docs, self.facts, self.goal.group, self.goal.account)
        key = key_of(account)
        if account is None or key is None or (self.goal.key and key.same_key(self.goal.key)):
            return Change({}, {})
        return _Kept({}, {}, tuple(_updates(docs, self.facts, account, key)))


class _Kept(Change):
    def shown(self, docs: Docs, request: Request) -> None:
        """Before the account leaves its key, because another task may disable unused versions just after that."""
        key = read_key_identifier(request.ref)
        read = docs.of(refs.key(key))
        if isinstance(read.value, CmkError):
            raise read.value
        # A version may be created, replaced and left within a second.
        updated = (read.value["attributes"].get("updated") or 0) if read.value else 0
        if updated > (read.now or docs.now) - _JUST_UPDATED_SECONDS:
            return
        complaint = NotConverged(
            f"Azure accepted the update of version {key.version} of the key {key.name}, but later reads do not show "
            "it. The account was not moved. Run the task again."
        )
        raise Wait(complaint, f"Azure to show the update of version {key.version}", VALUE_LAG_SECONDS)


def _updates(docs: Docs, facts: Facts, account: Account, has: KeyIdentifier) -> list[Request]:
    """The updates of the versions of this key that the account may use."""
    docs.want(refs.versions_of(has))
    newest, items = docs.get(refs.key(has.versionless)), docs.items(refs.versions_of(has))
    if newest is None:
        return []
    versions = versions_of(newest, items, _now(docs, has))
    if not updated_when_left(versions, VersionUser(has.version, None, inf)):
        return []
    since = 0.0
    if has.version is None:
        since = access_since(evidence.certain(docs, evidence.of_account(account, has, facts)))
    changed_at = users.changed_at(docs, [account])[account["id"]]
    found = updated_when_left(versions, VersionUser(has.version, changed_at, since))
    # Another host may have updated some a moment ago.
    recent = {version_of(item) for item in items if updated_at(item) > versions.now - _JUST_UPDATED_SECONDS}
    return [touch(has.versionless, version) for version in found if version not in recent]


# Wait for a key that was repaired


@dataclass(frozen=True, kw_only=True)
class _Repaired(Change):
    """Nothing is written. The account uses the key, and will be available again."""

    goal: EncryptionGoal
    facts: Facts
    account: Account

    @classmethod
    def of(
        cls, goal: EncryptionGoal, facts: Facts, account: Account, before: Mapping[str, Any], reason: CmkError | None
    ) -> Change:
        what, noted = f"wait for the Batch account {goal.account}", health.without_key(account, reason)
        wait = Request("wait_until_available", what, "", account["id"], noted=noted)
        return cls(before, {**before, "available": True}, (wait,), goal=goal, facts=facts, account=account)

    def is_subject(self, ref: Ref[Any]) -> bool:
        return refs.is_of_account(ref)

    def shown(self, docs: Docs, request: Request) -> None:
        reason = health.unavailable_reason(docs, self.facts, self.account)
        # Batch may respond with server errors as long as it cannot use the key.
        if reason is not None and (availability(reason) is False or isinstance(reason, Unavailable)):
            raise health.wait_until_available(self.facts, self.goal.account, reason)

    def confirm(self, docs: Docs) -> Change:
        return Move(self.goal, self.facts).decide(docs)


# Move


@dataclass(frozen=True, kw_only=True)
class _KeySet(Change):
    """The account is set to the key of the goal. Repeated until Batch accepts the key. `account` is as it was before,
    and `used` what preflight has seen."""

    goal: EncryptionGoal
    facts: Facts
    account: Account
    used: Evidence | None

    def wanted(self, docs: Docs, request: Request) -> None:
        """Another task or user may have moved the account while Batch refused the key, or while a rate limit delayed
        the request."""
        now = docs.get(refs.account(self.account["id"]))
        has, previous = key_of(now), key_of(self.account)
        if now is None or any(has.same(one) if has else one is None for one in (previous, self.goal.target)):
            return
        raise PlanOutdated(
            f"Somebody else has just moved the Batch account {self.account['name']} to "
            f"{key_text(str(has)) if has else 'a Microsoft-managed key'}. It stays there. Run the task again.",
            key_identifier=str(has) if has else None,
        )

    def _left_over(self, before: Mapping[str, Any]) -> Change:
        """No read shows the key yet."""
        before = {**before, "available": None}
        return Change(before, {**before, **describe_key(self.goal.target)}, self.requests)


def _request(goal: EncryptionGoal, account: Account, *, undoes: bool = False) -> Request:
    name = goal.account
    return Request(
        "set_encryption",
        f"change the Batch account {name}",
        "PATCH",
        account["id"],
        {"properties": {"encryption": account_document.encryption_body(goal.target)}},
        to_set_encryption(goal.group, name),
        waiting_for=f"Batch to accept the new encryption setting of the Batch account {name}",
        undoes=undoes,
    )


@dataclass(frozen=True, kw_only=True)
class _Moved(_KeySet):
    @classmethod
    def of(cls, docs: Docs, goal: EncryptionGoal, facts: Facts, account: Account, before: Mapping[str, Any]) -> Change:
        has = key_of(account)
        if not goal.allows_previous(has):
            raise _on_another_key(goal, has)
        used, checks = None, tuple[preflight.Check, ...]()
        near = vaults.group_of(account["id"], facts.vaults_in) or ""
        if goal.target:
            used = evidence.certain(docs, evidence.of_account(account, goal.target, facts, goal.vault_group))
            checks = preflight.require_for_change(used)
        elif goal.vault_group and goal.vault_group.lower() != near.lower() and isinstance(goal.previous, tuple):
            place = refs.vault(refs.vault_id(facts.vaults_in, goal.vault_group, goal.previous[0]))
            if isinstance(found := docs.known(place), CmkError) and found.code in PLACE_NOT_FOUND:
                raise found
        request = _request(goal, account)
        if _is_newest(docs, goal.target):
            request = replace(request, shows=refs.account(account["id"]))
        return cls(
            before,
            {**before, **describe_key(goal.target), "available": True},
            (request,),
            preflight.warnings(checks),
            {"preflight": preflight.describe(checks), "previous_key_identifier": str(has) if has else None},
            goal=goal,
            facts=facts,
            account=account,
            used=used,
        )

    @property
    def _keeps_key(self) -> bool:
        previous = key_of(self.account)
        return previous is not None and self.used is not None and previous.same_key(self.used.key)

    def is_subject(self, ref: Ref[Any]) -> bool:
        """If the account used the key before, a run that revokes access has found that all the time. Therefore the
        hosts of a wave share the reads of the access."""
        return not (self._keeps_key and ref.kind in ("vault", "access"))

    def first(self, docs: Docs) -> Sequence[Task]:
        has = key_of(self.account)
        leaves_key = has is not None and not (self.goal.key and has.same_key(self.goal.key))
        return [Keep(self.goal, self.facts, has.vault)] if has and leaves_key else []

    def excuse(self, docs: Docs, failure: CmkError) -> str:
        """If the versions cannot be updated, the account is moved nevertheless."""
        if isinstance(failure, NotFound):
            return ""
        if not isinstance(failure, Denied | Rejected) and failure.code != "vault_unreachable":
            raise failure from failure.__cause__
        has = key_of(docs.get(accounts.ref_of(self.facts, self.goal.group, self.goal.account)))
        return versions_not_kept(self.goal.account, has, failure) if has else str(failure)

    def will_end(self, docs: Docs, request: Request, refusal: CmkError) -> None:
        """The key may have been disabled since it was read."""
        health.require_available(docs, self.facts, self.goal.group, self.goal.account)
        if self.used is not None:
            preflight.require(preflight.lasting(evidence.again(docs, self.used, self.facts)))

    def confirm(self, docs: Docs) -> Change:
        """The account uses the key and is available, and Batch may still use the key."""
        account, previous, used = _account(docs, self.goal, self.facts), key_of(self.account), self.used
        before = {**describe(account), "available": True}
        if not self.goal.has_set(account):
            return self._left_over(before)
        if self._keeps_key and previous:
            docs.want(refs.versions_of(previous))
        health.confirmed(docs, self.facts, account, used)
        if doubts := _left_unusable(docs, previous, used):
            return _unchanged(self.goal, {**before, "available": None}, NotShown(doubts[:1]))
        return _unchanged(self.goal, before, None)

    def back(self) -> Sequence[Task]:
        # If neither the new nor the previous key may be used, the account would become unavailable. A Microsoft-managed
        # key is always usable.
        return [Return(self.goal, self.facts, key) for key in dict.fromkeys((key_of(self.account), None))]

    def undone(self, current: Mapping[str, Any]) -> str:
        on = current["key_identifier"] or "a Microsoft-managed key"
        state = {True: "is available", False: "is not available", None: "its availability is not known"}
        return f"The account uses {on} now and {state[current['available']]}."


def _is_newest(docs: Docs, target: KeyIdentifier | None) -> bool:
    """Whether the account is moved to the newest version of a key, or to a Microsoft-managed key. Then the response is
    sufficient. An older version may be disabled at once by the next task, so a read has to show that the account uses
    it."""
    if target is None or target.version is None:
        return True
    newest = docs.known(refs.key(target.versionless))
    return isinstance(newest, Mapping) and version_of(newest["key"]) == target.version


def _left_unusable(docs: Docs, left: KeyIdentifier | None, used: Evidence | None) -> list[str]:
    """Why Batch may have lost a version of its key that it may still need, although the account has left that for
    another version: it may have become unusable a moment before the move."""
    if left is None or used is None or not left.same_key(used.key):
        return []
    items = docs.known(refs.versions_of(left))
    lost = lost_after_change(left, used.key, items, used.now) if isinstance(items, list) else {}
    never_used = evidence.unsupported(docs, left, lost)
    return [reason for version, reason in lost.items() if version not in never_used]


def _on_another_key(goal: EncryptionGoal, has: KeyIdentifier | None) -> Refused:
    if isinstance(goal.previous, tuple):
        return on_another_key(goal.account, has, goal.previous)
    # The wanted key may be a typing error.
    remedy = "Correct the key, or set O(previous_key) to the one that it may leave."
    wanted = (goal.key.vault, goal.key.name) if goal.key else ("", "")
    return on_another_key(goal.account, has, wanted, remedy, is_option=False)


# The rollback


@dataclass(frozen=True)
class Return(Task):
    """The account returns to this key from that of the goal, unless another task or user has moved it."""

    undone: EncryptionGoal
    facts: Facts
    key: KeyIdentifier | None

    def decide(self, docs: Docs) -> Change:
        undone, facts, key = self.undone, self.facts, self.key
        mode = FOLLOW if key and key.version is None else PIN
        goal = EncryptionGoal(undone.group, undone.account, key, None, mode=mode, previous=ANY)
        account = _account(docs, goal, facts)
        is_back, is_moved = goal.is_satisfied_by(account), not undone.has_set(account)
        # If Azure may have accepted the change, a read that shows the previous key may be out of date.
        may_stay = facts.journal.may_be_in_effect(account["id"])
        if (is_moved and not is_back) or (is_back and not may_stay):
            return _left_alone(docs, facts, account)
        used, checks = None, tuple[preflight.Check, ...]()
        if key:
            used = preflight.for_rollback(evidence.certain(docs, evidence.of_account(account, key, facts)))
            checks = preflight.require(used)
        before = {**describe(account), "available": None}
        return _Returned(
            before,
            {**before, **describe_key(goal.target)},
            (_request(goal, account, undoes=True),),
            preflight.warnings(checks),
            goal=goal,
            facts=facts,
            account=account,
            used=used,
            undone_goal=undone,
        )


@dataclass(frozen=True, kw_only=True)
class _Returned(_KeySet):
    undone_goal: EncryptionGoal

    def will_end(self, docs: Docs, request: Request, refusal: CmkError) -> None:
        """Tried even if the account is not available, because the setting to be undone may have made it unavailable."""
        if self.used is not None:
            preflight.require(preflight.for_rollback(evidence.again(docs, self.used, self.facts)))

    def confirm(self, docs: Docs) -> Change:
        """Complete even if some data cannot be read, because there is no other key to move the account to."""
        goal, facts, account = self.goal, self.facts, _account(docs, self.goal, self.facts)
        before = {**describe(account), "available": True}
        if self.undone_goal.has_set(account) and not goal.is_satisfied_by(account):
            return self._left_over(before)
        if not goal.is_satisfied_by(account):
            return _left_alone(docs, facts, account)
        try:
            health.confirmed(docs, facts, account, self.used, is_rollback=True)
        except (Denied, NotFound, Unavailable):
            return _left_alone(docs, facts, account)
        if _left_unusable(docs, self.undone_goal.key, self.used):
            before["available"] = None
        return Change(before, before)


def _left_alone(docs: Docs, facts: Facts, account: Account) -> Change:
    """The account is not changed."""
    before = {**describe(account), "available": availability(health.unavailable_reason(docs, facts, account))}
    return Change(before, before)
