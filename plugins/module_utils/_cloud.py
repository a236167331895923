# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a module needs of Azure for one caller. Each part is created when it is first used.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, TypeVar

from ._azure.driver import Driver
from ._azure.executor import Executor
from ._azure.facts import Facts
from ._azure.gateway import Gateway
from ._azure.predicting import Predicting
from ._azure.predictions import Predictions
from ._azure.session import Session, silent
from ._checks.diagnosis import AccountState
from ._checks.preflight import KEEP_AVAILABLE, failed_checks
from ._checks.usage import Listed
from ._core import placeholders
from ._core.concurrent import value_or_error
from ._core.docs import Docs
from ._core.errors import CmkError
from ._core.ids import check_places
from ._documents import refs
from ._documents.account import Account, key_of, require_ready, required
from ._documents.vault import ACCESS_POLICY
from ._questions import accounts, evidence, fleet, health, rights, users

T = TypeVar("T")

# Refusals that say that an account is not ready for a change.
_NOT_READY = ("account_unavailable", "account_failed", "account_under_way")
# Refusals whose cause is not that the account is not available.
_ON_ANOTHER_KEY = ("account_on_another_key", "account_not_on_cmk")


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
        self.written = self._session.journal.handed_over
        self.warnings = self._session.warnings

    def resolved(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """The task's options. In check mode, placeholders replace texts such as `(known after apply: ...)`."""
        check_places(params).refuse()
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
        account, or could not restore what it has changed."""
        try:
            yield
        except CmkError as failure:
            is_changed = any(map(refs.is_in_account, self._session.journal.resources_changed))
            if failure.is_of_account and (is_changed or "restore_failure" in failure.facts):
                raise failure.extended(is_of_account=False) from failure.__cause__
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
        if key is None:
            return []
        wanted = evidence.of_account(account, key, self.facts)
        return failed_checks(self.driver.check(lambda docs: evidence.certain(docs, wanted)), KEEP_AVAILABLE)

    def account(self, group: str, name: str, *, options: tuple[str, str], is_glance: bool) -> Account:
        """The account. Raises an error if it does not exist, or is being created or deleted. With `is_glance`, other
        hosts may have read it for the same task. `options` are the options of its name and its resource group."""
        facts = self.facts

        def question(docs: Docs) -> Account | None:
            return accounts.existing(docs, facts, group, name)

        found = self.driver.glance(question).get() if is_glance else self.driver.solve(question)
        return required(found, group, name, options=options)

    def require_available(self, group: str, name: str) -> None:
        """Raise an error if the account is not available, or if that is not known."""
        facts = self.facts
        self.driver.solve(lambda docs: health.require_available(docs, facts, group, name), refs.is_of_account)

    def explained(self, make: Callable[[], T], group: str, name: str) -> T:
        """The result of `make`. If `make` is refused before its first write, and the account is not ready, the error
        says that: the cause of the refusal, such as a disabled key, may be why the account is not available. If the
        account uses another key than the task expects, the error says both."""
        sent = self._session.sent
        before = sent.accepted + sent.in_doubt
        try:
            return make()
        except CmkError as refusal:
            if not refusal.is_of_account or sent.accepted + sent.in_doubt > before:
                raise
            account = accounts.ref_of(self.facts, group, name)
            for check in (lambda: require_ready(self.driver.get(account)), lambda: self.require_available(group, name)):
                reason = value_or_error(check, CmkError)
                if reason is not None and reason.code == refusal.code:
                    break
                if reason is not None and reason.code in _NOT_READY:
                    if refusal.code in _ON_ANOTHER_KEY:
                        raise refusal.extended(reason.msg, **reason.texts) from refusal.__cause__
                    raise reason from refusal
            raise

    def survey(self, group: str, name: str, *, diagnose: bool) -> AccountState:
        """The account with its state (health.survey). Other hosts may have read it for the same task of the
        playbook."""
        facts = self.facts
        found = self.driver.glance(lambda docs: health.survey(docs, facts, group, name, diagnose=diagnose)).get()
        if found.account and (name := health.without_key(found.account, found.unavailable_reason)):
            self.facts.journal.note(name)
        return found

    def fleet(self, scope: Any) -> dict[str, Any]:
        """The accounts of the scope (_audit.options), and what their keys depend on (_questions/fleet.py)."""
        facts, own, tenant = self.facts, self._subscription, self._session.caller["tenant_id"]

        def question(docs: Docs) -> dict[str, Any]:
            listed, pools = fleet.listed(docs, scope, facts, own), scope.pools
            read = fleet.read(docs, listed["accounts"], tenant, with_pools=pools, vault_used_by=scope.vault_used_by)
            return {**read, "unlisted": listed["unlisted"]}

        return self.driver.now(question)

    def listed(self, subscriptions: Sequence[str]) -> Listed:
        """The accounts of these subscriptions, by default of all that the caller can read."""
        own = self._subscription
        return self.driver.now(lambda docs: users.of_subscriptions(docs, subscriptions, own))

    @property
    def _subscription(self) -> str | None:
        """The task's own subscription, if it is known."""
        known = value_or_error(lambda: self.facts.subscription, CmkError)
        return known if isinstance(known, str) else None

    @cached_property
    def facts(self) -> Facts:
        return Facts(self._session)

    @cached_property
    def driver(self) -> Driver:
        return Driver(self._session, self._gateway)

    @cached_property
    def changes(self) -> Executor:
        return Executor(self._session, self.driver, self._gateway, rights.missing)

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
