# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads and changes the encryption setting of a Batch account, and waits until the account is available.

This module util is private to the collection.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from math import inf
from typing import Any, cast

from ..._azure.driver import Driver
from ..._azure.journal import WriteOutcome
from ..._azure.polled import Polled
from ..._azure.run_store import vault_lock
from ..._azure.session import Session
from ..._checks.diagnosis import Surveyed, Symptoms, is_unread, lost_after_change, lost_key
from ..._checks.preflight import Evidence, access_since, for_rollback
from ..._checks.rights import to_use_key
from ..._checks.versions import REPLACED_BEFORE_EXPIRY, User, updated_when_left, versions_of
from ..._core.concurrent import in_background, value_or_error
from ..._core.docs import Freshness, Rule
from ..._core.documents import Account
from ..._core.errors import CmkError, Denied, NotConverged, NotFound, PlanOutdated, Rejected, Unavailable
from ..._core.ids import KeyIdentifier, key_of
from ..._core.plan import MAX_READ_DELAY, Needed
from ..._documents.account import (
    KeyUnusable,
    NotShown,
    availability,
    is_failed,
    is_refused,
    require_known,
    why_unavailable,
)
from ..._documents.encryption import account_unavailable, versions_not_kept
from ..._documents.key import identifier_of, updated_at, version_of
from ..account.client import Accounts
from ..key.client import Keys
from ..key.evidence import EvidenceReader
from .goal import FOLLOW, KEEP, PIN, UPDATE, Goal, Observed
from .survey import survey_warnings

# Another host that has left the same version has updated it in this time.
_JUST_UPDATED_SECONDS = 60


class Encryption(Polled):
    def __init__(
        self, session: Session, driver: Driver, accounts: Accounts, evidence: EvidenceReader, keys: Keys
    ) -> None:
        self._session = session
        self._driver = driver
        self._keys = keys
        self._accounts = accounts
        self._evidence = evidence
        self._journal = session.journal
        # Why the version that the account has left cannot be used, although Batch may still need it.
        self._previous_lost: NotShown | None = None

    def for_account(self, goal: Goal) -> Goal:
        """The goal with the key identifier for this account: one that uses a customer-managed key keeps whether it
        follows the latest version of its key, unless the mode says otherwise. An account that is pinned to a version is
        pinned to the newest version that can be used, if the goal names none."""
        if goal.key is None or goal.mode == FOLLOW:
            return goal
        if goal.mode != PIN:
            with self._driver.glancing(self._session.task_began):
                has = key_of(self._accounts.existing(goal.group, goal.account))
            if has is None:
                return goal
            if has.version is None:
                return replace(goal, key=goal.key.versionless)
        newest = None if goal.key.version else self._keys.newest_usable(goal.key)
        return replace(goal, key=identifier_of(newest)) if newest else goal

    def _may_be_moved(self, group: str, name: str) -> bool:
        """Whether a request of this task may have moved the account to another key, and was not undone."""
        write = self._journal.last_effect(self._accounts.ref(group, name))
        return write is not None and not (write.undoes and write.outcome is WriteOutcome.ACCEPTED)

    def read(self, goal: Any) -> Observed:
        group, name = goal.group, goal.account
        account = None if goal.undoes else self._accounts.listed(group, name)
        if account is None or not goal.is_satisfied_by(account):
            # Before a change, the account is read now, because another controller may have moved it a moment ago.
            account = self._accounts.existing(group, name)
        observed: Observed = {"account": account, "unavailable_reason": None}
        if account is None:
            return observed
        self._require_shown(account, goal)
        observed["expires_soon"] = self._expires_soon(account, goal)
        if observed["expires_soon"]:
            goal = replace(goal, mode=UPDATE)
        # If a read shows the wanted key, the read may be older than a write of this run that has set another key, so
        # the wanted key is written anyway.
        observed["may_be_stale"] = goal.is_satisfied_by(account) and (
            self._may_be_moved(group, name) if goal.undoes else self._journal.may_hide_write(account)
        )
        if goal.leaves_alone(account) and not observed["may_be_stale"]:
            # If this task has changed the key, the evidence of the change or rollback decides about the key. If
            # Batch has refused the change, a list of the pools is still no proof of availability.
            is_judged = not self._may_be_moved(group, name)
            ask = self._unavailable_reason if is_judged else self._accounts.unavailable_reason
            reason = ask(group, name)
            if reason is None and not goal.undoes:
                reason = self._previous_lost
            observed["unavailable_reason"] = reason
            confirmed = self._accounts.confirmed(group, name)
            if goal.is_satisfied_by(account) and confirmed and confirmed.key.same(goal.target):
                observed["evidence"] = confirmed
            elif goal.key and not goal.undoes and goal.has_set(account) and self._may_be_moved(group, name):
                # The change of the key has failed before the key was read again.
                observed["evidence"] = self._evidence.of_account(account, goal.target, goal.vault_group)
            return observed
        if goal.undoes is None:
            # A refusal may mean that the key was lost.
            writes = self._journal.of(self._accounts.ref(group, name))
            was_refused = any(write.outcome is WriteOutcome.REFUSED for write in writes)
            ask = self._unavailable_reason if was_refused else self._accounts.unavailable_reason_before_change
            observed["unavailable_reason"] = ask(group, name)
        if goal.key is not None and isinstance(observed["unavailable_reason"], NotShown | None):
            found = self._evidence.of_account(account, goal.target, goal.vault_group)
            observed["evidence"] = for_rollback(found) if goal.undoes else found
        return observed

    def glance(self, goal: Any) -> Observed | None:
        """If the run's list of accounts, the key, its vault and its access show that there is nothing to do, and that
        Batch can use the key, neither the account nor its pools are read."""
        self._driver.has_shared = False
        if goal.patient:
            return None
        with self._driver.glancing(self._session.task_began):
            account = self._accounts.existing(goal.group, goal.account)
            if account is None or is_failed(account) or not goal.is_satisfied_by(account):
                return None
            if self._journal.may_hide_write(account) or self._expires_soon(account, goal):
                return None
            key = key_of(account)
            if key and any(lost_key(self._evidence.of_key_in_use(account, key, is_report=True))):
                return None
        return {"account": account, "unavailable_reason": None}

    def _require_shown(self, account: Account, goal: Any) -> None:
        """After a rollback, reads that are out of date show first the setting before the change, then the undone
        change, and at last the rollback. Raise NotConverged until the undone change has been read, or until no read
        can be that old: before that, a read of the previous setting does not show the rollback."""
        if (goal.undoes or goal).has_set(account):
            for write in self._journal.of(self._accounts.ref(goal.group, goal.account)):
                write.is_shown = True
            self._polls_until = 0.0
        if time.monotonic() < self._polls_until:
            raise NotConverged(
                f"Azure accepted the rollback of the Batch account {goal.account}, but later reads do not show it yet. "
                "For some minutes, they may show the undone change. Wait ten minutes before you run the task again."
            )

    def _expires_soon(self, account: Account, goal: Any) -> bool:
        """Whether the account would keep a version that expires within REPLACED_BEFORE_EXPIRY, and before the wanted
        version."""
        has = key_of(account)
        if goal.mode != KEEP or has is None or has.version is None:
            return False
        if not has.same_key(goal.key) or has.same(goal.key):
            return False
        expires, wanted = (self._expiry(key) for key in (has, goal.target))
        return expires is not None and expires <= self._keys.now + REPLACED_BEFORE_EXPIRY and (wanted or inf) > expires

    def _expiry(self, key: KeyIdentifier) -> float | None:
        """When the version expires; None if it does not expire or cannot be read."""
        bundle = value_or_error(partial(self._keys.bundle, key), CmkError)
        return bundle["attributes"].get("exp") if isinstance(bundle, Mapping) else None

    def survey(self, group: str, name: str, *, diagnose: bool) -> Surveyed:
        """The account, the reason if it is not available, and with `diagnose` the data of the diagnosis. Other hosts
        may have read them for the same task of the playbook."""
        with self._driver.glancing(self._session.task_began):
            account = self._accounts.get(group, name)
        if account and self._journal.may_hide_write(account):
            account = self._shown(group, name)
        with self._driver.glancing(self._session.task_began):
            key = key_of(account) if account and diagnose else None
            found = self._evidence.symptoms(account, key) if account and key else None
            reason = self._surveyed_reason(group, name, found) if account else None
        if found:
            found = {**found, "available": availability(reason), "unavailable_reason": reason}
        return {"account": account, "unavailable_reason": reason, "diagnosis": found}

    def _shown(self, group: str, name: str) -> Account | None:
        """The account, once a read shows the key that the run has set, or no read can be older than that write."""
        account: Account | None = None

        def hidden() -> CmkError | None:
            nonlocal account
            account = self._accounts.get(group, name, time.monotonic())
            if account is None or not self._journal.may_hide_write(account):
                return None
            return NotConverged(f"Reads of the Batch account {name} do not show yet which key this run has set.")

        deadline = time.monotonic() + MAX_READ_DELAY
        self._session.poll_until(hidden, deadline, f"Azure to show the key of the Batch account {name}")
        return account

    def _surveyed_reason(self, group: str, name: str, found: Symptoms | None) -> CmkError | None:
        lost = lost_key(found)[0] if found else []
        seen = self._seen(group, name)
        if lost and seen and not self._journal.is_written_since(seen["at"], "vault", "key", "access"):
            # The run has asked Batch already, and has repaired nothing since.
            refusal = seen["refusal"]
            return Rejected(refusal["msg"], **refusal["facts"]) if refusal else KeyUnusable(lost, pools_listed=True)
        return self._unavailable_reason(group, name, (lambda: found) if found else None)

    def require_available(self, group: str, name: str) -> None:
        """Raise an error if the account is not available, because Batch refuses to change it, or if its
        availability is not known."""
        # The key is judged too if Batch lists the pools, which it usually does.
        key_in_use = in_background(partial(self._key_in_use, group, name, is_report=False))
        reason = self._unavailable_reason(group, name, key_in_use.result)
        if reason is not None and availability(reason) is None:
            require_known(name, reason)
        elif reason is not None:
            raise account_unavailable(name, key_of(self._accounts.get(group, name)), reason)

    def _unavailable_reason(
        self, group: str, name: str, read: Callable[[], Symptoms | None] | None = None
    ) -> CmkError | None:
        """Why the account is not available, or why that is not known (`account_document.availability`).

        The key, the access and the network count too (`why_unavailable`). `read` returns their data. By default, they
        are read now. After a change of the key by this task, they do not count, because Batch has used the key.

        Whether Batch refuses to list the pools of an account without its key is not documented. If a task of the run
        has seen it, a list shows that the account is available again, unless the key was lost a second time: Batch may
        notice a loss late. If a task of the run has seen the contrary, a list shows nothing.
        """
        reason: CmkError | None
        at = time.monotonic()
        try:
            reason = self._accounts.unavailable_reason(group, name)
        except Unavailable as failing:
            if failing.facts.get("azure", {}).get("status", 0) < 500:
                raise
            reason = failing
        is_shown = reason is not None and not isinstance(reason, Unavailable)
        if not is_shown and not self._accounts.is_confirmed(group, name):
            found = (read or partial(self._key_in_use, group, name, is_report=True))()
            if found:
                lost, unknown = lost_key(found)
                shows = self._shows(group, name)
                reason = why_unavailable(reason, lost, [] if reason is None and shows else unknown)
                if isinstance(reason, NotShown):
                    reason.is_unread = is_unread(found)
                if reason is None and shows is False:
                    reason = NotShown(["After a repair of the key, Batch may need ten minutes."])
        if reason and availability(reason) is False:
            refusal = {"msg": reason.msg, "facts": reason.facts} if is_refused(reason) else None
            self._session.files.store({"at": at, "refusal": refusal}, *self._seen_as(group, name))
        return reason

    def _seen(self, group: str, name: str) -> dict[str, Any] | None:
        """When a task of the run has seen the account without its key (`at`), and with what Batch has refused to list
        its pools (`refusal`; None if Batch has listed them). None if no task has seen the account without its key."""
        seen: dict[str, Any] | None = self._session.files.load(*self._seen_as(group, name))
        return seen

    def _shows(self, group: str, name: str) -> bool | None:
        """Whether Batch refuses to list the pools of the account without its key; None if no task has seen that."""
        seen = self._seen(group, name)
        return None if seen is None else seen["refusal"] is not None

    def pools_show_availability(self, group: str, name: str) -> bool:
        """Whether a task of the run has seen that Batch refuses to list the pools of the account without its key."""
        return bool(self._shows(group, name))

    def _seen_as(self, group: str, name: str) -> tuple[str, ...]:
        own = self._session.fingerprint, self._session.subscription_id.lower()
        return "seen without its key", *own, group.lower(), name.lower()

    def _key_in_use(self, group: str, name: str, *, is_report: bool) -> Symptoms | None:
        """The key, the access and the network of an account that uses a customer-managed key. For `is_report` see
        `unnoticed_repairs`."""
        account = self._accounts.listed(group, name) or self._accounts.get(group, name)
        key = key_of(account)
        return self._evidence.of_key_in_use(account, key, is_report=is_report) if account and key else None

    def _require_unmoved(self, group: str, name: str, expected: Sequence[KeyIdentifier | None]) -> None:
        """Raise PlanOutdated if another task or user has moved the account while Batch refused the key, or while a
        rate limit delayed the request."""
        account = self._accounts.get(group, name, time.monotonic())
        has = key_of(account)
        if account is None or any(has.same(one) if has else one is None for one in expected):
            return
        raise PlanOutdated(
            f"The Batch account {name} was moved to {has or 'a Microsoft-managed key'} by somebody else while this "
            "task waited to change its key. It stays there. Run the task again."
        )

    def wait_until_available(self, group: str, name: str) -> None:
        """Wait until the account is available. Once its key can be used again, it may need up to ten minutes
        (Microsoft's guide)."""

        def not_available() -> CmkError | None:
            reason = self._unavailable_reason(group, name)
            # Batch may respond with server errors as long as it cannot use the key.
            return reason if availability(reason) is False or isinstance(reason, Unavailable) else None

        try:
            self._accounts.wait_until_available(name, time.monotonic() + self._session.wait_timeout, not_available)
        except Unavailable as failure:
            with suppress(CmkError):
                self._driver.forget()
                for warning in survey_warnings(self.survey(group, name, diagnose=True)):
                    failure.add(warning)
            raise

    def set_encryption(
        self,
        group: str,
        name: str,
        body: Mapping[str, Any],
        *,
        previous: KeyIdentifier | None,
        evidence: Evidence | None,
        even_if_unavailable: bool,
    ) -> None:
        """Repeat the change until Batch accepts the key, then wait until the account is available with the key.

        After Batch has accepted a key, the account may need up to ten minutes (Microsoft's guide). Batch refuses to
        change an unavailable account. A rollback is tried nevertheless (`even_if_unavailable`), because the setting
        to be undone may have made the account unavailable. If Batch has refused the key, or the request was
        delayed, and the account no longer uses `previous`, nothing more is written (PlanOutdated).
        """
        deadline = time.monotonic() + self._session.wait_timeout

        def look() -> None:
            if not even_if_unavailable:
                self.require_available(group, name)
            if evidence is not None:
                self._evidence.require_usable(evidence, rollback=even_if_unavailable)

        writes = itertools.count()
        require_unmoved = partial(self._require_unmoved, group, name, (previous, key_of(cast(Account, body))))

        def write() -> None:
            if next(writes):
                require_unmoved()
            self._accounts.update(group, name, body, if_late=require_unmoved, undoes=even_if_unavailable)
            if even_if_unavailable:
                # Later runs must not read the undone change, so reads have to show the rollback.
                self._accounts.forget_one(group, name)

        self._accounts.retry_until_accepted(
            write,
            deadline,
            f"Batch to accept the new encryption setting of the Batch account {name}",
            look=look,
        )
        if even_if_unavailable and self._is_hidden_change(group, name):
            self._polls_until = time.monotonic() + MAX_READ_DELAY
        left = None if even_if_unavailable else previous
        unusable = in_background(self._previous_unusable, left, evidence, time.monotonic())
        try:
            is_new = previous is None or evidence is None or not previous.same_key(evidence.key)
            self._accounts.confirm_key(group, name, deadline, evidence, is_new=is_new)
            if reason := unusable.result():
                self._previous_lost = NotShown([reason])
        except (Denied, NotFound, Unavailable) as unread:
            # A rollback is complete even if some data cannot be read, because there is no other key to move the
            # account to.
            if not even_if_unavailable or unread.code == "account_unavailable":
                raise

    def keep_versions(self, goal: Any, missing: Callable[[Iterable[Needed]], Sequence[str]]) -> None:
        """Before the account leaves its key, update the versions that it may use without a change, unless no version is
        newer. Azure shows no trace of an account that has left a key. A version that was updated inside the margin is
        not disabled (`usage.users_of_version`).

        If the caller may not do that, the account is moved nevertheless, with a warning. `missing` returns the rights
        that the caller lacks.
        """
        account = self._accounts.existing(goal.group, goal.account)
        has = key_of(account)
        if account is None or has is None or (goal.target and has.same_key(goal.target)):
            return
        try:
            if not self._to_update(account, has, Rule.RECENT):
                return
            lacks = missing([to_use_key("update", has.vault)]) if self._session.predicts else ()
            if lacks:
                raise Denied(" ".join(lacks))
            with vault_lock(self._session.files, has.vault):
                for version in self._to_update(account, has, Rule.OWN):
                    self._keys.touch(replace(has, version=version))
        except (Denied, Rejected) as refused:
            self._session.warnings.append(versions_not_kept(goal.account, has, refused))
        except NotFound:
            pass
        except Unavailable as unreachable:
            if unreachable.code != "vault_unreachable":
                raise
            self._session.warnings.append(versions_not_kept(goal.account, has, unreachable))

    def _to_update(self, account: Account, has: KeyIdentifier, fresh: Freshness) -> list[str]:
        """The versions to be updated (`updated_when_left`). Another host may have updated some a moment ago."""
        items, newest = self._keys.versions(has, fresh), self._keys.bundle(has.versionless, Rule.RECENT)
        if newest is None:
            return []
        versions = versions_of(newest, items, self._keys.now)
        if not updated_when_left(versions, User(has.version, None, inf)):
            return []
        since = 0.0 if has.version else access_since(self._evidence.of_account(account, has))
        found = updated_when_left(versions, User(has.version, self._accounts.changed_at(account), since))
        recent = {version_of(item) for item in items if updated_at(item) > versions.now - _JUST_UPDATED_SECONDS}
        return [version for version in found if version not in recent]

    def _is_hidden_change(self, group: str, name: str) -> bool:
        """Whether Azure has accepted a change of this task that no read has shown yet. Reads may be out of date for a
        while."""
        since = time.monotonic() - MAX_READ_DELAY
        return any(
            write.outcome is WriteOutcome.ACCEPTED
            and not (write.undoes or write.is_shown)
            and write.answered_at > since
            for write in self._journal.of(self._accounts.ref(group, name))
        )

    def _previous_unusable(
        self, previous: KeyIdentifier | None, evidence: Evidence | None, changed_at: float
    ) -> str | None:
        """Why Batch cannot use a version that the account may have used before it was moved to another version of the
        key; None if Batch can, or if the versions cannot be read.

        Batch may still need that version, and it may have lost the version a moment before the move.
        """
        if previous is None or evidence is None or not previous.same_key(evidence.key):
            return None
        items = value_or_error(partial(self._keys.versions, previous, changed_at), CmkError)
        if isinstance(items, CmkError):
            return None
        return lost_after_change(previous, evidence.key, items, self._keys.now)
