# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes a task true: the decision, the caller's rights, the requests, the confirmation, and the rollback.

This module util is private to the collection.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

from .._core import interrupts
from .._core.concurrent import map_concurrent
from .._core.docs import Docs
from .._core.errors import CmkError, Denied, PlanOutdated, Unavailable, numbered
from .._core.interrupts import as_failure
from .._core.outcome import Outcome
from .._core.placeholders import is_placeholder
from .._core.rights import Missing, Needed, grant
from .._core.summary import changed_values, scope_text
from .._core.tasks import Change, Task
from .._documents import refs
from .._documents.access import allows
from .driver import Driver
from .gateway import Gateway
from .rollback import Rollback
from .run_store import vault_lock
from .sending import Sender
from .session import Session

# A deny assignment forbids what a role grants.
_REFUSED_IN_VAULT = re.compile(
    r"Resource: '(?P<id>/[^']*/vaults/[^/']+)[^']*'(?!.*DenyAssignmentId: (?!null))", re.IGNORECASE
)

FindMissing = Callable[[Docs, Sequence[Needed], str, str], Missing]


class Executor:
    """`find_missing` decides which rights the caller lacks."""

    def __init__(self, session: Session, driver: Driver, gateway: Gateway, find_missing: FindMissing) -> None:
        self._session = session
        self._driver = driver
        self._find_missing = find_missing
        self._sender = Sender(session, driver, gateway)
        self._rollback = Rollback(session, driver, self._sender)

    def ensure(self, task: Task) -> Outcome:
        """Decide, send the requests and confirm the change. If the change fails or is interrupted, it is undone.

        If another task has held the lock, the change is decided from new reads. If another task or user has created the
        resource or moved the account since it was read, the change is decided a second time.
        """
        try:
            return self._ensured(task)
        except Denied as denied:
            raise self._judged(denied) from denied.__cause__

    def _ensured(self, task: Task) -> Outcome:
        began, todo = time.monotonic(), self._glanced(task)
        if todo is not None and not todo.requests:
            return todo.unchanged()
        with ExitStack() as held:
            may_have_waited = task.lock is not None and held.enter_context(self._locked(task.lock))
            if may_have_waited:
                # Another task or run may have made the change meanwhile.
                began = time.monotonic()
                todo = self._driver.since(task.decide, began, task.is_subject)
            elif task.lock is not None or todo is None:
                # What another task of the run has changed since the first decision is read again.
                todo = self._driver.solve(task.decide, task.is_subject, asked_at=began)
            try:
                return self._made(task, todo, began, held)
            except PlanOutdated as outdated:
                if outdated.facts.get("applied"):
                    raise
                began = time.monotonic()
                return self._made(task, self._driver.solve(task.decide, task.is_subject), began, held)

    def _glanced(self, task: Task) -> Change | None:
        """The change, as what other hosts have read for the same task shows it. None if the task has to read itself:
        before a change or a refusal."""
        glance = self._driver.glance(task.glance)
        if glance.error is not None and glance.is_shared:
            return None
        seen = glance.get()
        return None if seen and seen.requests and glance.is_shared else seen

    def _locked(self, vault: str) -> AbstractContextManager[bool]:
        """A lock that is held while a task changes the vault, its keys or the access to them (`RunFiles.locked`)."""
        return vault_lock(self._session.files, vault)

    def _made(self, task: Task, todo: Change, began: float, held: ExitStack) -> Outcome:
        """Make the change. `began` is when the task began to decide it (time.monotonic()), and `held` the lock."""
        if not todo.requests:
            return todo.unchanged()

        def require_rights() -> tuple[str, ...]:
            return self.require_rights([*todo.rights, *task.later])

        checks: tuple[Callable[[], Any], ...] = lambda: self._make_first(task, todo, began), require_rights
        lacking = map_concurrent(lambda check: check(), checks)[require_rights]
        applied, is_released = list[str](), False
        with interrupts.raised():
            try:
                self._sender.send(todo, applied)
                since = self._sender.answered_at
                if todo.delay and not self._session.predicts:
                    if todo.shares_delay:
                        held.close()
                        is_released = True
                    self._session.notify(f"Waiting {todo.delay:.0f} s until Azure shows who uses what was removed")
                    since = time.monotonic() + todo.delay
                    time.sleep(todo.delay)
                latest = self._sender.confirmed(todo, min(since, time.monotonic()))
            except BaseException as ended:
                # In check mode, where missing rights are only warnings: the change also fails for a caller who has
                # them.
                failure = as_failure(ended).extended(*lacking, applied=applied)
                if isinstance(failure, PlanOutdated) and not applied:
                    # Nothing was written, so there is nothing to restore.
                    raise failure from failure.__cause__
                try:
                    with interrupts.deferred():
                        if is_released and task.lock is not None:
                            held.enter_context(self._locked(task.lock))
                        failure = self._rollback.undone(todo, failure)
                except BaseException as interrupt:
                    # A signal that was deferred during the rollback. The rollback has ended.
                    raise failure from interrupt
                return todo.failed(failure)
        altered = () if self._session.predicts else _altered(todo, latest.before)
        warnings = dict.fromkeys((*todo.warnings, *lacking, *latest.warnings, *altered, *self._session.warnings))
        return Outcome(True, todo.before, latest.before, tuple(warnings), todo.report)

    def _make_first(self, task: Task, todo: Change, began: float) -> None:
        """Make what is done before the change. What cannot be done is a warning."""
        try:
            try:
                self._make_all(task, todo, began)
            except Unavailable as lost:
                # A single lost connection is no reason to leave something out.
                if lost.code != "vault_unreachable":
                    raise
                self._make_all(task, todo, time.monotonic())
        except CmkError as failure:
            excused = failure
            warning = self._driver.solve(lambda docs: todo.excuse(docs, excused))
            self._session.warnings.extend([warning] if warning else ())

    def _make_all(self, task: Task, todo: Change, began: float) -> None:
        """Send the requests of tasks that need no confirmation."""
        for first in self._driver.solve(todo.first, task.is_subject, asked_at=began):
            change = self._driver.check(first.decide)
            if not change.requests:
                continue
            if self._session.predicts and (lacks := self._missing(change.rights).rights):
                raise Denied(" ".join(_lacking(*one) for one in lacks))
            with nullcontext() if first.lock is None else self._locked(first.lock):
                self._sender.send(self._driver.solve(first.decide, first.is_subject, asked_at=began), [])

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
            action = missing[0][0]
            # The error of a vault that was not found also names the right that would show the vault.
            lacks = [*(f"{_lacking(*one)} {grant(one[0])}" for one in missing), *found.hidden]
            remedy = numbered(list(dict.fromkeys(grant(action) for action, _scope in missing))).lstrip()
            raise Denied(
                f"The change was not started.{numbered(lacks)}",
                action=action,
                missing_rights=[{"action": action, "scope": scope} for action, scope in missing],
                remedy=remedy,
            )
        return tuple(f"{_lacking(*one)} A run by this caller would be refused." for one in missing)

    def _judged(self, denied: Denied) -> CmkError:
        """If Key Vault denies what a role of the caller grants, the caller lacks no role: the role is new, or the
        service fails."""
        azure, action = denied.facts.get("azure") or {}, str(denied.facts.get("action"))
        vault = _REFUSED_IN_VAULT.search(str(azure.get("message")))
        if azure.get("inner_code") != "ForbiddenByRbac" or vault is None:
            return denied
        ref = refs.permissions_at(vault["id"])
        granted = self._driver.now(lambda docs: docs.known(ref))
        if isinstance(granted, CmkError) or not allows(granted or (), action, data=True):
            return denied
        remedy = "Run the task again in ten minutes."
        said = f"Key Vault refuses {action}, which the caller's roles grant. {remedy}"
        text = denied.msg.replace(f"the caller lacks {action}. {denied.facts['remedy']}", said)
        return Unavailable(text, is_of_account=True, **{**denied.facts, "remedy": remedy})

    def _missing(self, needed: Sequence[Needed]) -> Missing:
        own, vaults_in = self._session.subscription_id, self._session.vault_subscription_id
        return self._driver.check(lambda docs: self._find_missing(docs, needed, own, vaults_in))


def _lacking(action: str, scope: str) -> str:
    return f"The caller lacks {action} on {scope_text(scope)}."


def _altered(change: Change, shown: Mapping[str, Any]) -> tuple[str, ...]:
    """The warning that Resource Manager shows other values than were sent: a policy with the effect `modify` changes a
    request without an error. `shown` is the state that was read back."""
    if not any(one.ref.startswith("/subscriptions/") and one.method in ("PATCH", "PUT") for one in change.requests):
        return ()
    has, sent = dict(_values(shown)), dict(_values(change.after))
    differing = {name: value for name, value in sent.items() if _folded(value) != _folded(has.get(name))}
    if not differing:
        return ()
    named = changed_values(differing, {name: has.get(name) for name in differing})
    why = "An Azure Policy with the effect modify may have changed them."
    return (f"Azure shows other values than were sent: {named}. {why}",)


def _values(state: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The values that are known, also those in mappings, such as `tags.owner`."""
    for name, value in state.items():
        if isinstance(value, Mapping):
            yield from _values(value, f"{above}{name}.")
        elif isinstance(value, str | bool | int) and not is_placeholder(str(value)):
            yield f"{above}{name}", value


def _folded(value: Any) -> Any:
    """Without the letter case and the blanks, in which Azure may differ, such as in the name of a region."""
    return value.casefold().replace(" ", "") if isinstance(value, str) else value
