# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Undoes a change that has failed.

This module util is private to the collection.
"""

from __future__ import annotations

import time

from .._core.errors import PLACE_NOT_FOUND, CmkError, NotConverged, NotFound, PlanOutdated, Refused, Unavailable
from .._core.interrupts import as_failure
from .._core.tasks import VALUE_LAG_SECONDS, Change, Removal, Task
from .driver import Driver
from .sending import Sender
from .session import Session

# Errors that end a rollback at once: the rollback has already waited, Azure requires a wait longer than the
# timeout, or another task or user has deleted the resource.
_NOT_RETRIED = (
    "account_unavailable",
    "throttled",
    "account_not_found",
    *PLACE_NOT_FOUND,
)


class Rollback:
    def __init__(self, session: Session, driver: Driver, sender: Sender) -> None:
        self._session = session
        self._driver = driver
        self._sender = sender
        self._journal = session.journal

    def undone(self, todo: Change, failure: CmkError) -> CmkError:
        """The failure, with the outcome of the rollback. A removal that may have taken effect is undone without asking
        who uses what was removed: only after the delay do the lists show all users."""
        is_removal = isinstance(todo, Removal)
        if is_removal and not self._may_have_taken_effect(todo):
            return failure
        for number, back in enumerate(todo.back()):
            must_go = is_removal
            if number:
                must_go, failure = self._must_go(todo, failure)
            elif not is_removal:
                must_go, failure = self._may_not_stay(todo, failure)
            if not must_go:
                break
            is_done, failure = self._put_back(back, todo, failure)
            if is_done:
                break
        if not self._session.sent.is_abandoned:
            return failure
        doubted = failure.extended("The last request may still take effect: run the task again after ten minutes.")
        return doubted.extended(restored=False) if "restored" in failure.facts else doubted

    def _may_have_taken_effect(self, todo: Change) -> bool:
        return any(self._journal.last_effect(one.ref) for one in todo.requests)

    def _may_not_stay(self, todo: Change, failure: CmkError) -> tuple[bool, CmkError]:
        """Whether a change has to be undone: if it has not taken effect, or cannot be used. Otherwise it stays,
        although the task fails: another run may have made the same change and confirmed it. The current state is
        added."""
        if isinstance(failure, Refused):
            return True, failure
        try:
            current = self._read_again(todo)
        except Exception:
            return True, failure
        if current.requests or not current.before.get("available"):
            return True, failure
        said = f"The change took effect, and stays. {todo.undone(current.before)}"
        return False, failure.extended(said, restored=False, current_state=dict(current.before))

    def _must_go(self, todo: Change, failure: CmkError) -> tuple[bool, CmkError]:
        """Whether the confirmation refuses the change, even if the change has failed before for another reason. If it
        does not, the current state is added."""
        if isinstance(failure, Refused):
            return True, failure
        try:
            current = self._read_again(todo)
        except Exception as ended:
            found = as_failure(ended)
            # If a setting could be neither confirmed nor rolled back, it stays, unless a check refuses it.
            return isinstance(found, Refused), failure.extended(found.msg)
        return False, failure.extended(todo.undone(current.before), current_state=dict(current.before))

    def _read_again(self, todo: Change) -> Change:
        """Confirm from Azure, because another task or user may have changed the resource. A rollback must not undo that
        change."""
        self._driver.forget()
        return self._driver.since(todo.confirm, time.monotonic(), todo.is_subject, waits=False)

    def _put_back(self, back: Task, todo: Change, failure: CmkError) -> tuple[bool, CmkError]:
        """Restore the previous state by a decision, so that the rollback is also checked in advance, and writes nothing
        if nothing has changed. Returns whether it was completed, and the failure with the resulting state."""
        applied = failure.facts["applied"]
        try:
            sent = self._write_back(back, todo)
            current, _missing = self._sender.confirmation(sent, self._sender.answered_at)
        except Exception as ended:
            obstacle = as_failure(ended)
            failed = failure.extended(*(["The change may be in effect."] if applied else []))
            text = f"{failed.msg}\nRestoring the previous setting also failed:\n{obstacle.msg}"
            return False, failed.extended(msg=text, restored=False, restore_failure=obstacle.result())
        # It may not be known whether the account is available.
        is_as_before = current.before in (todo.before, {**todo.before, "available": None})
        restored = not current.requests if isinstance(todo, Removal) else is_as_before
        said = ["The change was rolled back."] if restored and applied else []
        if not isinstance(todo, Removal):
            # After a rollback, the state is as it was before.
            said += [] if said and current.before == todo.before else [todo.undone(current.before)]
        elif not restored:
            said.append(_removal_not_shown().msg)
        else:
            said.append(todo.undone(current.before))
            failure = failure.extended(restored_versions=list(todo.versions)) if todo.versions else failure
        return True, failure.extended(*said, restored=restored, current_state=dict(current.before))

    def _write_back(self, back: Task, todo: Change) -> Change:
        """Write the previous setting. Repeat that while Azure does not respond, or does not show the resource: a key
        that is being deleted can be recovered only once its deletion is complete. A read that does not show a removal
        yet does not show that there is nothing to restore."""
        sent = list[Change]()
        shown_at = time.monotonic() + VALUE_LAG_SECONDS if isinstance(todo, Removal) else 0.0

        def attempt() -> CmkError | None:
            try:
                self._driver.forget()
                began = time.monotonic()
                change = self._driver.now(back.decide)
                if not change.requests and began < shown_at:
                    return _removal_not_shown()
                sent.append(change)
                self._sender.send(change, [])
            except (NotFound, PlanOutdated, Unavailable) as obstacle:
                if obstacle.code in _NOT_RETRIED:
                    raise
                return obstacle
            return None

        obstacle = self._sender.until_shown(attempt)
        if obstacle is not None:
            raise obstacle
        return sent[-1]


def _removal_not_shown() -> CmkError:
    return NotConverged(
        "Later reads do not show whether the previous setting was restored. Run azbatch.cmk.recover for the accounts."
    )
