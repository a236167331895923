# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The clients of Azure's services for one caller. Each client is created when it is first used.

This module util is private to the collection.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import cached_property, partial
from itertools import chain, repeat
from typing import Any

from ._azure.driver import Driver
from ._azure.gateway import Gateway
from ._azure.predicting import Predicting
from ._azure.predictions import Predictions
from ._azure.run_store import vault_lock
from ._azure.session import Session, silent
from ._checks.preflight import KEEP_AVAILABLE, failed_checks
from ._core import placeholders
from ._core.documents import Account
from ._core.errors import CmkError, Denied, Refused
from ._core.ids import key_of
from ._core.plan import MAX_READ_DELAY, Outcome, Removed
from ._core.reconcile import Removal, kept, require_unused
from ._documents.vault import ACCESS_POLICY
from ._resources.access.client import Access, CallerRights
from ._resources.account.client import Accounts
from ._resources.encryption.client import Encryption
from ._resources.encryption.fleet import Fleet
from ._resources.key.client import Keys
from ._resources.key.evidence import EvidenceReader
from ._resources.key.newest import Newest
from ._resources.vault.client import Vaults
from ._resources.visible import HandledAccounts, VisibleAccounts

# The pauses, in seconds, between the checks that nothing uses what was removed. Batch does not notice at once that it
# has lost a key, so an early check seldom helps.
_PAUSES = (15.0, 30.0, 60.0)
# How long the result of a task that disables, deletes or revokes is used for the other tasks. Another task may undo
# the change meanwhile.
_ONCE_SECONDS = 60


class Cloud:
    """For the arguments see Session."""

    def __init__(
        self,
        connection: Mapping[str, Any],
        folder: str | None = None,
        notify: Callable[[str], None] = silent,
        *,
        predicts: bool = False,
        task: str | None = None,
        handed: Mapping[str, Any] | None = None,
    ) -> None:
        self._session = Session(connection, folder, notify, predicts=predicts, task=task, handed=handed)
        self.predicts = predicts
        self.sent = self._session.sent
        self.written = self._session.written

    def resolved(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """The task's options. In check mode, placeholders replace texts such as `(known after apply: ...)`."""
        if not self.predicts:
            return params
        if params.get("authorization") == ACCESS_POLICY:
            names = ("name", "vault_name")
            self._predicting.with_policies = {str(params[one]).lower() for one in names if one in params}
        self.learn_placeholders()
        return {name: placeholders.resolved(value) for name, value in params.items()}

    @contextmanager
    def task(self) -> Iterator[None]:
        """The block of a task. A failure concerns the run, and not only an account, if the task may have changed the
        account."""
        try:
            yield
        except CmkError as failure:
            failure.is_of_account &= not self._session.journal.may_have_changed_account
            raise
        finally:
            self.learn_placeholders()

    def learn_placeholders(self) -> None:
        """In check mode, learn the texts of the placeholders that other tasks have made, before a result that may have
        them is shown."""
        if self.predicts:
            self._predictions.learn_placeholders()

    def _failed_checks(self, account: Account) -> list[str]:
        """The names of the checks that fail, each a reason why the account could not use its key."""
        key = key_of(account)
        return failed_checks(self._evidence.of_account(account, key), KEEP_AVAILABLE) if key else []

    def run_once(self, make: Callable[[], Outcome], *name: str) -> Outcome:
        """Call `make` once for all tasks of the run by this caller. `make` disables, deletes or revokes something if no
        account uses it.

        To skip the call is always safe. If accounts use the resource, `make` is called again only after as many
        tasks as there were accounts. A result is used for at most _ONCE_SECONDS, and not after a task in another
        process, which may have enabled the key.
        """
        files, name = self._session.files, (self._session.fingerprint, *name)
        with files.locked("once", *name):
            kept = files.load("once", *name)
            is_out_of_date = kept is None or self._session.journal.is_written_since(kept["at"])
            if not is_out_of_date and kept["skips"] != 0 and time.monotonic() - kept["at"] < _ONCE_SECONDS:
                files.store({**kept, "skips": kept["skips"] - 1}, "once", *name)
                return Outcome(False, kept["after"], kept["after"], report=kept["report"])
            outcome = make()
            users = len(outcome.report["in_use_by"])
            # Without users no further call is needed: -1 never becomes 0.
            kept = {
                "at": time.monotonic(),
                "after": dict(outcome.after),
                "report": dict(outcome.report),
                "skips": users - 1,
            }
            files.store(kept, "once", *name)
        return outcome

    def once(self, make: Callable[[], Outcome], *name: str) -> Outcome:
        """Call `make` for the first task of the run by this caller. Other tasks get its outcome without its change, or
        its refusal."""
        files, name = self._session.files, (self._session.fingerprint, *name)
        with files.locked("once in the run", *name):
            kept = files.load("once in the run", *name)
            if kept is None:
                try:
                    outcome = make()
                except (Denied, Refused) as failure:
                    kept = {"failure": [failure.msg, failure.code, failure.is_of_account, failure.facts]}
                    files.store(kept, "once in the run", *name)
                    raise
                kept = {"before": dict(outcome.after), "report": dict(outcome.report)}
                files.store(kept, "once in the run", *name)
                return outcome
        if "failure" in kept:
            message, code, is_of_account, facts = kept["failure"]
            raise CmkError(message, code=code, is_of_account=is_of_account, **facts)
        return Outcome(False, kept["before"], kept["before"], report=kept["report"])

    def locked(self, vault: str) -> AbstractContextManager[None]:
        """A lock that is held while a task changes the vault, its keys or the access to them."""
        return vault_lock(self._session.files, vault)

    def confirmed(
        self, outcome: Outcome, removal: Removal, *, later: bool, earlier: Removed | None = None, is_noted: bool = True
    ) -> Outcome:
        """The outcome of a removal, after it was confirmed that nothing uses what was removed. Lists of Azure may be
        out of date, so that is asked until no list can be older than the removal. The removal is noted meanwhile, so
        that no other task of the run reports it as confirmed. With `later`, it stays noted for a later task, unless
        there is nothing to wait for.

        `earlier` is a removal by a run that may have ended too early. Without `is_noted`, the notes of the run are
        lost.
        """
        journal, removed = self._session.journal, outcome.removed
        is_kept = self.predicts or removed is None or self._note(removal, removed)
        noted = journal.removals(removal.name)
        pending = [
            *(removal.of(one.versions, one.at) for one in noted),
            *(one for one in (removed, earlier) if one is not None),
        ]
        if not is_noted and not pending and not later:
            pending = [removal.of((), time.monotonic())]
        if self.predicts or not pending:
            return _reported(outcome, confirmed=not pending)
        together = removal.of(_versions_of(pending), max(one.at for one in pending))
        if later and is_kept and together.at + removal.delay > time.monotonic():
            return _reported(outcome, confirmed=False)
        try:
            require_unused(
                together,
                removal.service,
                removal.planner,
                partial(self._until_shown, together.at, removal.delay),
                partial(self.locked, removal.vault),
            )
        except CmkError as failure:
            journal.end_removals(noted)
            if not removal.keeps_used:
                raise
            undone = kept(failure)
            return _reported(replace(undone, warnings=(*outcome.warnings, *undone.warnings)), confirmed=True)
        journal.end_removals(noted)
        removal.confirm(together)
        return _reported(outcome, confirmed=True)

    def _note(self, removal: Removal, removed: Removed) -> bool:
        return self._session.journal.note_removal(removal.name, _versions_of([removed]), removed.at)

    def _until_shown(self, at: float, delay: float, used: Callable[[], CmkError | None]) -> CmkError | None:
        """Call `used` until its reads have begun after the delay since `at`, and return its last result."""
        session, pauses, shown_at = self._session, chain(_PAUSES, repeat(MAX_READ_DELAY)), at + delay
        while (left := shown_at - time.monotonic()) > 0:
            session.notify(f"Waiting until no list of Azure is out of date ({delay - left:.0f} of {delay:.0f} s)")
            time.sleep(min(next(pauses), left))
            if time.monotonic() < shown_at:
                used()
        self.visible.not_before = shown_at
        try:
            return session.poll_until(
                used, time.monotonic() + session.wait_timeout, "Azure to show who uses what was removed"
            )
        finally:
            self.visible.not_before = None

    @property
    def are_notes_kept(self) -> bool:
        """Whether the tasks of the run can read each other's notes."""
        return self._session.files.are_kept

    @cached_property
    def newest(self) -> Newest:
        return Newest(self._session, self._driver, self.keys)

    @cached_property
    def rights(self) -> CallerRights:
        return CallerRights(self._session, self._driver)

    @cached_property
    def accounts(self) -> Accounts:
        return Accounts(self._session, self._driver, self._gateway, self._evidence, self._handled)

    @cached_property
    def vaults(self) -> Vaults:
        return Vaults(self._session, self._driver, self._gateway, self.visible, self.access)

    @cached_property
    def access(self) -> Access:
        return Access(self._session, self._driver, self._gateway, self.visible)

    @cached_property
    def keys(self) -> Keys:
        return Keys(self._session, self._driver, self._gateway, self.visible, self.access)

    @cached_property
    def visible(self) -> VisibleAccounts:
        return VisibleAccounts(self._session, self._driver, self._handled)

    @cached_property
    def encryption(self) -> Encryption:
        return Encryption(self._session, self._driver, self.accounts, self._evidence, self.keys)

    @cached_property
    def fleet(self) -> Fleet:
        return Fleet(self._session, self._driver, self.visible)

    @cached_property
    def _driver(self) -> Driver:
        return Driver(self._session, self._gateway)

    @cached_property
    def _gateway(self) -> Gateway:
        return self._predicting if self.predicts else Gateway(self._session)

    @cached_property
    def _predicting(self) -> Predicting:
        gateway = Predicting(self._session, self._predictions, self._failed_checks)
        self._session.complete_operations = gateway.complete_operations
        return gateway

    @cached_property
    def _predictions(self) -> Predictions:
        return Predictions(self._session.files)

    @cached_property
    def _handled(self) -> HandledAccounts:
        return HandledAccounts(self._session.files)

    @cached_property
    def _evidence(self) -> EvidenceReader:
        return EvidenceReader(self._session, self._driver)


def _versions_of(removals: Sequence[Removed]) -> list[str]:
    """The versions that were disabled; empty if something else was removed."""
    taken = [one.goal.taken_away for one in removals]
    return list(dict.fromkeys(version for of_one in taken if isinstance(of_one, tuple) for version in of_one))


def _reported(outcome: Outcome, *, confirmed: bool) -> Outcome:
    return replace(outcome, removed=None, report={**outcome.report, "confirmed": confirmed})
