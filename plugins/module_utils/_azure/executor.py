# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Carries out what a decision has decided: the caller's rights, the requests, the confirmation, and the rollback.

This module util is private to the collection.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from functools import partial
from typing import Any

from .._core import interrupts
from .._core.changes import VALUE_LAG_SECONDS, Change, Decide, Missing, Needed, Outcome, Probe, Request
from .._core.concurrent import map_concurrent, value_or_error
from .._core.docs import Docs, Rule
from .._core.errors import (
    PLACE_NOT_FOUND,
    CmkError,
    Denied,
    NotConverged,
    NotFound,
    PlanOutdated,
    Refused,
    Rejected,
    Unavailable,
    created_by_others,
)
from .._core.interrupts import as_failure
from . import sdk
from .driver import Driver
from .gateway import Gateway
from .journal import WriteOutcome
from .run_store import vault_lock
from .session import Session

# Errors that end a rollback at once: the rollback has already waited, Azure requires a wait longer than the
# timeout, or another task or user has deleted the resource.
_NOT_RETRIED = (
    "account_unavailable",
    "throttled",
    "account_not_found",
    *PLACE_NOT_FOUND,
)
# Refusals that no wait ends.
_FOR_GOOD = (
    *("InvalidRequestBody", "MissingRequiredProperty", "InvalidPropertyValue", "InvalidRequestContent"),
    *(sdk.LOCKED, sdk.QUOTA_EXCEEDED),
)


FollowUp = Callable[[Docs, Any], Change]
FindMissing = Callable[[Docs, Sequence[Needed], str, str], Missing]


class Executor:
    """`find_missing` decides which rights the caller lacks."""

    def __init__(self, session: Session, driver: Driver, gateway: Gateway, find_missing: FindMissing) -> None:
        self._session = session
        self._driver = driver
        self._gateway = gateway
        self._journal = session.journal
        self._find_missing = find_missing

    def ensure(
        self,
        decide: Decide,
        *,
        glance: Callable[[Docs], Change | None] | None = None,
        before_change: Callable[[], object] = lambda: None,
        later: Sequence[Needed] = (),
        lock: str | None = None,
    ) -> Outcome:
        """Decide, send the requests and confirm the change. If the change fails or is interrupted, it is undone.

        `glance` decides from what other hosts have read for the same task that there is nothing to do, by default as
        `decide` does; None if it cannot. `before_change` is called if there is something to change, and raises an error
        if the change must not begin. `later` are rights that the next task needs. `lock` is the vault whose lock is
        held during a change; if another task has held it, the change is decided from new reads. If another task or user
        has created the resource or moved the account since it was read, the change is decided a second time.
        """
        began, todo = time.monotonic(), self._glanced(glance or decide)
        if todo is not None and not todo.requests:
            return todo.unchanged()
        with ExitStack() as held:
            may_have_waited = lock is not None and held.enter_context(self.locked(lock))
            if may_have_waited:
                # Another task or run may have made the change meanwhile.
                todo = self._driver.solve(decide, time.monotonic())
            elif lock is not None or todo is None:
                # What another task of the run has changed since the first decision is read again.
                todo = self._driver.solve(decide, asked_at=began)
            return self._decided_twice(todo, decide, held, lock, before_change, later)

    def remove(self, decide: Decide, vault: str, *, keeps_used: bool) -> Outcome:
        """Ensure a removal under the lock of the vault: a task that only glances would report what another task
        restores a moment later. If accounts began to use meanwhile what was removed, so that it was restored, that is a
        failure. With `keeps_used`, it is an outcome with a warning."""
        with ExitStack() as held:
            held.enter_context(self.locked(vault))
            try:
                return self._decided_twice(self._driver.solve(decide), decide, held, vault)
            except CmkError as failure:
                if not keeps_used:
                    raise
                return _kept(failure)

    def locked(self, vault: str) -> AbstractContextManager[bool]:
        """A lock that is held while a task changes the vault, its keys or the access to them (`RunFiles.locked`)."""
        return vault_lock(self._session.files, vault)

    def _glanced(self, glance: Callable[[Docs], Change | None]) -> Change | None:
        """The change, as what other hosts have read for the same task shows it. None if the task has to read itself:
        before a change or a refusal."""
        self._driver.has_shared = False
        try:
            seen = self._driver.solve(glance, Rule.GLANCE)
        except CmkError:
            if not self._driver.has_shared:
                raise
            return None
        return None if seen and seen.requests and self._driver.has_shared else seen

    def _decided_twice(
        self,
        todo: Change,
        decide: Decide,
        held: ExitStack,
        lock: str | None,
        before_change: Callable[[], object] = lambda: None,
        later: Sequence[Needed] = (),
    ) -> Outcome:
        try:
            return self._ensure(todo, decide, held, lock, before_change, later)
        except PlanOutdated as outdated:
            if outdated.facts.get("applied"):
                raise
            return self._ensure(self._driver.solve(decide), decide, held, lock, before_change, later)

    def _ensure(
        self,
        todo: Change,
        decide: Decide,
        held: ExitStack,
        lock: str | None,
        before_change: Callable[[], object],
        later: Sequence[Needed],
    ) -> Outcome:
        if not todo.requests:
            return todo.unchanged()
        require_rights = partial(self.require_rights, [*todo.rights, *later])
        checks: tuple[Callable[[], Any], ...] = before_change, require_rights
        lacking = map_concurrent(lambda check: check(), checks)[require_rights]
        applied, is_released = list[str](), False
        with interrupts.raised():
            try:
                self.send(todo.requests, applied)
                sent_at = time.monotonic()
                if todo.delay and not self._session.predicts:
                    if todo.shares_delay:
                        held.close()
                        is_released = True
                    self._session.notify(f"Waiting {todo.delay:.0f} s until Azure shows who uses what was removed")
                    time.sleep(todo.delay)
                latest = self._confirmed(todo.confirm or decide, min(sent_at + todo.delay, time.monotonic()))
            except BaseException as ended:
                # In check mode, where missing rights are only warnings: the change also fails for a caller who has
                # them.
                failure = as_failure(ended).extended(*lacking, applied=applied)
                if isinstance(failure, PlanOutdated) and not applied:
                    # Nothing was written, so there is nothing to restore.
                    raise failure from failure.__cause__
                try:
                    with interrupts.deferred():
                        if is_released and lock is not None:
                            held.enter_context(self.locked(lock))
                        failure = self._undone(todo, decide, failure)
                except BaseException as interrupt:
                    # A signal that was deferred during the rollback. The rollback has ended.
                    failure.__cause__ = interrupt
                raise failure from failure.__cause__
        warnings = dict.fromkeys((*todo.warnings, *lacking, *latest.warnings, *self._session.warnings))
        return Outcome(True, todo.before, latest.before, tuple(warnings), todo.report)

    # Rights

    def require_rights(self, needed: Iterable[Needed]) -> tuple[str, ...]:
        """Raise Denied if the permissions show that the caller lacks one of the rights.

        In check mode, return the missing rights as warnings, because another caller may make the change.
        """
        rights = list(needed)
        found = self._missing(rights)
        if found.rights:
            # The rights may have been granted since another task of the run read the permissions.
            self._driver.forget("permissions", "vault")
            found = self._missing(rights)
        missing = found.rights
        if missing and not self._session.predicts:
            action, scope = missing[0]
            # The error of a vault that was not found also names the right that would show the vault.
            hidden = [f" {one}" for one in found.hidden]
            remedy = f"Grant the caller a role (or access policy) that allows {action} at {scope}."
            raise Denied(
                f"The change was not started. {' '.join(_lacking(*one) for one in missing)}{''.join(hidden)} {remedy}",
                action=action,
                missing_rights=[{"action": action, "scope": scope} for action, scope in missing],
                remedy=remedy,
            )
        return tuple(f"{_lacking(*one)} A run by this caller would be refused." for one in missing)

    def lacking_rights(self, needed: Iterable[Needed]) -> tuple[str, ...]:
        """A sentence for each of the rights that the caller lacks, as far as the permissions show that."""
        return tuple(_lacking(*one) for one in self._missing(list(needed)).rights)

    def _missing(self, needed: Sequence[Needed]) -> Missing:
        own, vaults_in = self._session.subscription_id, self._session.vault_subscription_id
        return self._driver.solve(lambda docs: self._find_missing(docs, needed, own, vaults_in), Rule.RECENT)

    # Requests

    def send(self, requests: Sequence[Request], applied: list[str]) -> None:
        """Send the requests, one after the other. Adds the names of those that were accepted to `applied`."""
        for one in requests:
            accepted = self._session.sent.accepted
            try:
                self._send(one)
            except BaseException:
                # A request may be accepted, and then its effect may fail.
                if self._session.sent.accepted > accepted:
                    applied.append(one.name)
                raise
            applied.append(one.name)

    def _send(self, one: Request) -> None:
        """Repeat the request while Azure refuses it for a reason that may end by itself. Access that was granted a
        moment ago may not have reached Batch yet, so that Batch refuses the key."""
        tries = itertools.count()

        def refusal() -> CmkError | None:
            try:
                self._try(one, is_repetition=next(tries) > 0)
            except Rejected as refused:
                if one.retries is None or refused.facts["azure"]["code"] in _FOR_GOOD:
                    raise
                self._driver.solve(one.retries, time.monotonic())
                return refused
            return None

        def probed(probe: Probe) -> CmkError | None:
            try:
                self._try(one, is_repetition=next(tries) > 0)
            except (Denied, Rejected) as refused:
                if not probe.is_refusal(refused):
                    raise
                said = probe.complaint.extended(refused.msg, azure=refused.facts.get("azure"))
                return None if probe.until_refused else said
            except Unavailable as unknown:
                # Azure has neither accepted nor refused it.
                if unknown.code == "throttled":
                    raise
                return probe.complaint.extended(unknown.msg)
            return probe.complaint if probe.until_refused else None

        ask = partial(probed, one.probe) if one.probe else refusal
        refused = self._session.poll_until(ask, self._deadline, one.waiting_for)
        if refused is not None:
            raise refused

    @property
    def _deadline(self) -> float:
        return time.monotonic() + self._session.wait_timeout

    def _try(self, one: Request, *, is_repetition: bool) -> None:
        try:
            if is_repetition or one.guard_first:
                self._require_wanted(one)
            document = self._write(one)
        except BaseException as failure:
            if not self._is_created(one, failure):
                # The request may have reached Azure, whatever the error is.
                if one.follow_up and any(write.may_have_taken_effect for write in self._journal.of(one.ref)):
                    with suppress(CmkError):
                        self._follow_up(one, one.follow_up, None)
                raise
            document = None
        if one.follow_up:
            self._follow_up(one, one.follow_up, document)

    def _require_wanted(self, one: Request) -> None:
        """Asked just before the request is sent, if time has passed since it was decided."""
        warnings = one.guard and self._driver.solve(one.guard, time.monotonic())
        if self._session.predicts:
            self._session.warnings.extend(warnings or ())

    def _write(self, one: Request) -> Any:
        """The document in the response."""
        arguments = one.what, one.method, one.ref, one.body
        if_late = partial(self._require_wanted, one)
        if not one.method:
            document = shown = None
            is_finished = False
        elif not one.operation:
            document = shown = self._gateway.write(*arguments, if_late=if_late, undoes=one.undoes)
            is_finished = False
        else:
            operation = self._gateway.begin(*arguments, if_late=if_late, undoes=one.undoes)
            is_finished = self._gateway.finish(one.what, operation)
            # The poll has read the resource after the write.
            document, shown = operation.document, operation.polled
        if one.noted:
            self._journal.note(one.noted)
        if one.shown is not None and not is_finished:
            self._driver.solve(one.shown, time.monotonic())
        if one.shows is not None and shown is not None:
            self._driver.keep(one.shows, shown)
        return document

    def _is_created(self, one: Request, refused: BaseException) -> bool:
        """Whether an earlier try of the request has created the resource. Raises PlanOutdated if somebody else has."""
        if one.creates is None or not isinstance(refused, Denied | NotFound | PlanOutdated | Rejected):
            return False
        last, creates = self._journal.last(one.ref), one.creates
        if isinstance(refused, PlanOutdated):
            return any(write.may_have_taken_effect for write in self._journal.of(one.ref))
        if last is None or last.outcome is WriteOutcome.ACCEPTED:
            return False
        exists = isinstance(value_or_error(lambda: self._driver.get(creates, time.monotonic()), CmkError), Mapping)
        if exists and isinstance(refused, Rejected) and not self._journal.is_in_doubt(one.ref):
            # Azure refuses, for example, a different location of an existing account.
            raise created_by_others(one.what.removeprefix("create the ")) from refused
        return exists and self._journal.is_in_doubt(one.ref)

    def _follow_up(self, one: Request, follow_up: FollowUp, document: Any) -> None:
        """Send what follows from the response until nothing is left to do, and again while Azure does not respond: the
        next run may not see any more that it is needed."""

        def obstacle() -> CmkError | None:
            try:
                change = self._driver.solve(lambda docs: follow_up(docs, document))
                self.send(change.requests, [])
            except (NotFound, Unavailable) as failure:
                if failure.code == "throttled":
                    raise
                self._driver.forget()
                return failure
            self._session.warnings.extend(change.warnings)
            if not change.requests:
                return None
            self._driver.forget()
            return _not_shown(change)

        with interrupts.deferred():
            failure = self._session.poll_until(obstacle, self._deadline, one.waiting_for)
        if failure is not None:
            raise failure

    # Confirmation

    def _confirmed(self, decide: Decide, asked_at: float) -> Change:
        """The decision after the requests, once Azure shows the change. Azure is eventually consistent, so it is asked
        again until `wait_timeout` has passed. A refusal is raised at once."""
        latest, missing = self._shown(decide, asked_at)
        if missing is not None:
            raise missing
        return latest

    def _shown(self, decide: Decide, asked_at: float | None = None) -> tuple[Change, CmkError | None]:
        """The last decision, and the error that describes the difference if the timeout has passed. `asked_at` is when
        the question counts as asked (time.monotonic()), by default now."""
        found = list[Change]()

        def look() -> CmkError | None:
            found.clear()
            try:
                found.append(self._driver.solve(decide, asked_at=asked_at))
            except (NotFound, NotConverged) as missing:
                return missing
            return _not_shown(found[0]) if found[0].requests else None

        missing = self._until_shown(look)
        if not found:
            raise missing or AssertionError
        return found[0], missing

    def _until_shown(self, look: Callable[[], CmkError | None]) -> CmkError | None:
        """Call `look` until it returns None, or until `wait_timeout` has passed, and at least as long as reads may
        lag. Returns its last result. All calls but the first read from Azure."""
        calls = itertools.count()

        def look_again() -> CmkError | None:
            if next(calls):
                self._driver.forget()
            return look()

        deadline = max(self._deadline, time.monotonic() + VALUE_LAG_SECONDS)
        return self._session.poll_until(look_again, deadline, "Azure to show the change")

    # The rollback

    def _undone(self, todo: Change, decide: Decide, failure: CmkError) -> CmkError:
        """The failure, with the outcome of the rollback. A removal that may have taken effect is undone without asking
        who uses what was removed: only after the delay do the lists show all users."""
        is_removal = todo.removed is not None
        if is_removal and not self._may_have_taken_effect(todo):
            return failure
        for number, back in enumerate(todo.undo):
            must_go = is_removal
            if number:
                must_go, failure = self._must_go(todo, decide, failure)
            elif not is_removal:
                must_go, failure = self._may_not_stay(todo, decide, failure)
            if not must_go:
                break
            is_done, failure = self._put_back(back, todo, failure)
            if is_done:
                if todo.removed:
                    failure = failure.extended(restored_versions=list(todo.removed))
                break
        if not self._session.sent.is_abandoned:
            return failure
        doubted = failure.extended(
            "The task did not wait any longer for the response to its request. The request may still take effect. Wait "
            "ten minutes before you run the task again."
        )
        return doubted.extended(restored=False) if "restored" in failure.facts else doubted

    def _may_have_taken_effect(self, todo: Change) -> bool:
        return any(self._journal.last_effect(one.ref) for one in todo.requests)

    def _may_not_stay(self, todo: Change, decide: Decide, failure: CmkError) -> tuple[bool, CmkError]:
        """Whether a change has to be undone: if it has not taken effect, or cannot be used. Otherwise it stays,
        although the task fails: another run may have made the same change and confirmed it. The current state is
        added."""
        if isinstance(failure, Refused):
            return True, failure
        try:
            current = self._read_again(todo.confirm or decide)
        except Exception:
            return True, failure
        if current.requests or not current.before.get("available"):
            return True, failure
        said = f"The change took effect, and stays. {todo.undone(current.before)}"
        return False, failure.extended(said, restored=False, current_state=dict(current.before))

    def _must_go(self, todo: Change, decide: Decide, failure: CmkError) -> tuple[bool, CmkError]:
        """Whether the confirmation refuses the change, even if the change has failed before for another reason. If it
        does not, the current state is added."""
        if isinstance(failure, Refused):
            return True, failure
        try:
            current = self._read_again(todo.confirm or decide)
        except Exception as ended:
            found = as_failure(ended)
            # If a setting could be neither confirmed nor rolled back, it stays, unless a check refuses it.
            return isinstance(found, Refused), failure.extended(found.msg)
        return False, failure.extended(todo.undone(current.before), current_state=dict(current.before))

    def _read_again(self, decide: Decide) -> Change:
        """Decide from Azure, because another task or user may have changed the resource. A rollback must not undo that
        change."""
        self._driver.forget()
        return self._driver.solve(decide, waits=False)

    def _put_back(self, back: Decide, todo: Change, failure: CmkError) -> tuple[bool, CmkError]:
        """Restore the previous state by a decision, so that the rollback is also checked in advance, and writes nothing
        if nothing has changed. Returns whether it was completed, and the failure with the resulting state."""
        applied = failure.facts["applied"]
        try:
            sent = self._write_back(back, todo)
            current, _missing = self._shown(sent.confirm or back)
        except Exception as ended:
            obstacle = as_failure(ended)
            said = [f"Restoring the previous setting also failed: {obstacle.msg}"]
            said += ["Azure had accepted the change, so it may be in effect."] if applied else []
            return False, failure.extended(*said, restored=False, restore_failure=obstacle.result())
        # It may not be known whether the account is available.
        is_as_before = current.before in (todo.before, {**todo.before, "available": None})
        restored = not current.requests if todo.removed is not None else is_as_before
        said = ["The change was rolled back."] if restored and applied else []
        said.append(todo.undone(current.before))
        return True, failure.extended(*said, restored=restored, current_state=dict(current.before))

    def _write_back(self, back: Decide, todo: Change) -> Change:
        """Write the previous setting. Repeat that while Azure does not respond, or does not show the resource: a key
        that is being deleted can be recovered only once its deletion is complete. A read that does not show a removal
        yet does not show that there is nothing to restore."""
        sent = list[Change]()
        shown_at = time.monotonic() + VALUE_LAG_SECONDS if todo.removed is not None else 0.0

        def attempt() -> CmkError | None:
            try:
                self._driver.forget()
                began = time.monotonic()
                change = self._driver.solve(back)
                if not change.requests and began < shown_at:
                    return _removal_not_shown()
                sent.append(change)
                self.send(change.requests, [])
            except (NotFound, PlanOutdated, Unavailable) as obstacle:
                if obstacle.code in _NOT_RETRIED:
                    raise
                return obstacle
            return None

        obstacle = self._until_shown(attempt)
        if obstacle is not None:
            raise obstacle
        return sent[-1]


def _kept(failure: CmkError) -> Outcome:
    """The outcome if accounts began to use what the task has removed, so that the removal was undone. Raises other
    errors. The removal is not tried again: reads may still show the state before the accounts were moved."""
    facts = failure.facts
    if failure.code != "in_use" or not facts.get("restored"):
        raise failure
    users = [*facts["accounts"], *facts["pools"]]
    report = {"in_use_by": users, "kept_until": facts.get("kept_until"), "restored": True}
    if facts.get("restored_versions") is not None:
        report |= {"kept_versions": facts["restored_versions"], "disabled_versions": []}
    return Outcome(False, facts["current_state"], facts["current_state"], (failure.msg,), report)


def _lacking(action: str, scope: str) -> str:
    return f"The caller lacks {action} at {scope}."


def _not_shown(latest: Change) -> CmkError:
    return NotConverged(
        "Azure accepted the change, but a later read does not show it. Run the task again. If the task fails in the "
        "same way, see `missing` for the difference.",
        missing={"before": dict(latest.before), "after": dict(latest.after)},
    )


def _removal_not_shown() -> CmkError:
    return NotConverged(
        "Azure accepted the change, but later reads do not show it, so it is not known whether the previous setting "
        "was restored. Run azbatch.cmk.recover for the accounts."
    )
