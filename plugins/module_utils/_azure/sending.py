# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sends the requests of a change, and confirms the change.

This module util is private to the collection.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from .._core import interrupts
from .._core.errors import (
    CmkError,
    Denied,
    NotConverged,
    NotFound,
    PlanOutdated,
    Rejected,
    Unavailable,
    created_by_others,
)
from .._core.summary import some_text
from .._core.tasks import VALUE_LAG_SECONDS, Change, Request, Task
from . import sdk
from .driver import Driver
from .gateway import Gateway
from .journal import WriteOutcome
from .session import Session

# Refusals that no wait ends.
_FOR_GOOD = (
    *("InvalidRequestBody", "MissingRequiredProperty", "InvalidPropertyValue", "InvalidRequestContent"),
    *(sdk.LOCKED, sdk.QUOTA_EXCEEDED),
)


class Sender:
    def __init__(self, session: Session, driver: Driver, gateway: Gateway) -> None:
        self._session = session
        self._driver = driver
        self._gateway = gateway
        self._journal = session.journal
        # When the last response was received (time.monotonic()). A read that began since then shows the write.
        self.answered_at = 0.0

    def send(self, change: Change, applied: list[str]) -> None:
        """Send the requests, one after the other. Adds the names of those that were accepted to `applied`."""
        for one in change.requests:
            accepted = self._session.sent.accepted
            try:
                self._send(change, one)
            except BaseException:
                # A request may be accepted, and then its effect may fail.
                if self._session.sent.accepted > accepted:
                    applied.append(one.name)
                raise
            applied.append(one.name)

    def _send(self, change: Change, one: Request) -> None:
        """Repeat the request while Azure refuses it for a reason that may end by itself. Access that was granted a
        moment ago may not have reached Batch yet, so that Batch refuses the key."""
        tries = itertools.count()

        def refusal() -> CmkError | None:
            try:
                self._try(change, one, is_repetition=next(tries) > 0)
            except Rejected as refused:
                if refused.facts["azure"]["code"] in _FOR_GOOD:
                    raise
                self._driver.now(partial(change.will_end, request=one, refusal=refused))
                return refused
            return None

        def probed() -> CmkError | None:
            try:
                self._try(change, one, is_repetition=next(tries) > 0)
            except (Denied, Rejected, Unavailable) as refused:
                if refused.code == "throttled":
                    raise
                return change.heard(one, refused)
            return change.heard(one, None)

        refused = self._session.poll_until(probed if one.is_probe else refusal, self._deadline, one.waiting_for)
        if refused is not None:
            raise refused

    @property
    def _deadline(self) -> float:
        return time.monotonic() + self._session.wait_timeout

    def _try(self, change: Change, one: Request, *, is_repetition: bool) -> None:
        try:
            if is_repetition or one.wanted_first:
                self._require_wanted(change, one)
            document = self._write(change, one)
        except BaseException as failure:
            if not self._is_created(one, failure):
                # The request may have reached Azure, whatever the error is.
                if self._journal.last_effect(one.ref):
                    with suppress(CmkError):
                        self._follow_up(one, change.follow_up(one, None))
                raise
            document, self.answered_at = None, time.monotonic()
        self._follow_up(one, change.follow_up(one, document))

    def _require_wanted(self, change: Change, one: Request) -> None:
        """Asked just before the request is sent, if time has passed since it was decided."""
        warnings = self._driver.now(partial(change.wanted, request=one))
        if self._session.predicts:
            self._session.warnings.extend(warnings or ())

    def _write(self, change: Change, one: Request) -> Any:
        """The document in the response."""
        arguments = one.what, one.method, one.ref, one.body
        if_late = partial(self._require_wanted, change, one)
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
        self.answered_at = time.monotonic()
        if one.noted:
            self._journal.note(one.noted)
        if not is_finished:
            self._driver.now(partial(change.shown, request=one))
        if one.shows is not None and shown is not None:
            self._driver.keep(one.shows, shown)
        return document

    def _is_created(self, one: Request, refused: BaseException) -> bool:
        """Whether an earlier try of the request has created the resource. Raises PlanOutdated if somebody else has."""
        if one.creates is None or not isinstance(refused, Denied | NotFound | PlanOutdated | Rejected):
            return False
        last, creates = self._journal.last(one.ref), one.creates
        if isinstance(refused, PlanOutdated):
            return self._journal.last_effect(one.ref) is not None
        if last is None or last.outcome is WriteOutcome.ACCEPTED:
            return False
        exists = isinstance(self._driver.now(lambda docs: docs.known(creates)), Mapping)
        if exists and isinstance(refused, Rejected) and not self._journal.is_in_doubt(one.ref):
            # Azure refuses, for example, a different location of an existing account.
            raise created_by_others(one.what.removeprefix("create the ")) from refused
        return exists and self._journal.is_in_doubt(one.ref)

    def _follow_up(self, one: Request, task: Task | None) -> None:
        """Send what follows from the response until nothing is left to do, and again while Azure does not respond: the
        next run may not see any more that it is needed."""
        if task is None:
            return

        def obstacle() -> CmkError | None:
            try:
                change = self._driver.now(task.decide)
                self.send(change, [])
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

    def confirmed(self, change: Change, since: float) -> Change:
        """The decision after the requests, once Azure shows the change. Azure is eventually consistent, so it is asked
        again until `wait_timeout` has passed. A refusal is raised at once."""
        latest, missing = self.confirmation(change, since)
        if missing is not None:
            raise missing
        return latest

    def confirmation(self, change: Change, since: float) -> tuple[Change, CmkError | None]:
        """The last decision, and the error that describes the difference if the timeout has passed."""
        found = list[Change]()

        def look() -> CmkError | None:
            found.clear()
            try:
                found.append(self._driver.since(change.confirm, since, change.is_subject))
            except (NotFound, NotConverged) as missing:
                return missing
            return _not_shown(found[0]) if found[0].requests else None

        missing = self.until_shown(look)
        if not found:
            raise missing or AssertionError
        return found[0], missing

    def until_shown(self, look: Callable[[], CmkError | None]) -> CmkError | None:
        """Call `look` until it returns None, or until `wait_timeout` has passed, and at least as long as reads may
        lag. Returns its last result. All calls but the first read from Azure."""
        calls = itertools.count()

        def look_again() -> CmkError | None:
            if next(calls):
                self._driver.forget()
            return look()

        deadline = max(self._deadline, time.monotonic() + VALUE_LAG_SECONDS)
        return self._session.poll_until(look_again, deadline, "Azure to show the change")


def _not_shown(latest: Change) -> CmkError:
    names = [name for name, value in latest.after.items() if value != latest.before.get(name)] or ["it"]
    return NotConverged(
        f"Azure accepted the change, but a later read does not show {some_text(names, most=2)}. Run the task again. If "
        "it fails again, an Azure Policy may change the value (`missing`).",
        missing={"before": dict(latest.before), "after": dict(latest.after)},
    )
