# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The session of a caller: credentials, endpoints of the cloud, timeout, waits, and clients of the SDKs.

This module util is private to the collection.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from typing import Any

from .._core.errors import CmkError, InvalidOption, Unavailable
from .._core.sent_writes import SentWrites
from . import credentials, rate_limit, sdk
from .credentials import Environment, environment_of
from .journal import Journal
from .run_store import RunFiles

_LONGEST_PAUSE = 30
# Most waits are shorter, and show nothing.
_SHOWN_AFTER = 10


def silent(message: str) -> None:
    """Show nothing: a module cannot show lines before it ends."""


class Session:
    """`connection` has the options of the doc fragment azbatch.cmk.azure.

    `folder` is a private directory in which the tasks of a run share data. `notify` is called with lines that show
    what the task is waiting for. With `predicts` (check mode), no write is sent. `task` is the same for the hosts that
    run a task of the playbook at the same time: the previous tasks of each of them had ended before the first of them
    began the task. `handed` is what the run's earlier tasks have written, if this process does not share their store.
    """

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
        self._connection = connection
        self._task = task
        # When this task of this host began (time.monotonic()).
        self.began_at = time.monotonic()
        # Tokens and rate limits are the same for all tasks of a run.
        self._shared = RunFiles(folder)
        self.files = self._shared.for_predictions() if predicts else self._shared
        self.predicts = predicts
        # In check mode, predicts that the operations which a task waits for are complete.
        self.complete_operations: Callable[[], None] = lambda: None
        self.notify = notify
        # Warnings of the task's writes.
        self.warnings: list[str] = []
        self.sent = SentWrites()
        self.journal = Journal(self.files, self.sent)
        # A name of the run that all its tasks know, also without its folder. None if the task is alone.
        self.run: str | None = self._shared.run if handed is None else handed["run"]
        if handed is not None:
            self.journal.merge(handed)
        # The timeout of a change, in seconds.
        self.wait_timeout: int = connection["wait_timeout"]
        if self.wait_timeout < 0:
            raise InvalidOption("wait_timeout", self.wait_timeout, "it is negative.", "Use seconds, 0 or more.")

    @cached_property
    def _options(self) -> Mapping[str, Any]:
        return credentials.completed(self._connection)

    @cached_property
    def task_began(self) -> float:
        """When the first of the hosts began the playbook's task (time.monotonic()). A read from then on cannot miss a
        change that an earlier task of this host has made, with whatever tool."""
        if self._task is None:
            return self.began_at
        began: float = self.files.first(self.began_at, "task", self._task)
        return began

    @cached_property
    def environment(self) -> Environment:
        return environment_of(self._options["cloud_environment"])

    @cached_property
    def subscription_id(self) -> str:
        subscription = self._options["subscription_id"]
        if not subscription:
            raise InvalidOption(
                "subscription_id",
                subscription,
                "no subscription is known.",
                "Set O(subscription_id) (environment: AZURE_SUBSCRIPTION_ID).",
            )
        return str(subscription)

    @property
    def vault_subscription_id(self) -> str:
        """The subscription in which vaults are searched for first."""
        return str(self._connection.get("vault_subscription_id") or self.subscription_id)

    @property
    def users_in(self) -> list[str]:
        """The subscriptions of all users of keys, in lower case. Empty: all that Azure lists for the caller."""
        return list(dict.fromkeys(one.lower() for one in self._connection.get("users_in") or ()))

    @cached_property
    def credential(self) -> Any:
        def make() -> Any:
            return credentials.credential(self._options, self.environment, rate_limit.transport(self._patience))

        # `auto` uses the Azure CLI after all other sources, and the error names all of them.
        is_automatic = self._connection["auth_source"] == "auto" and self._options["auth_source"] == "cli"
        source = "auto" if is_automatic else self._options["auth_source"]
        # The inventory, and a module in its own process, share no token with a later task.
        scopes = (self.environment.resource_manager_scope, self.key_vault_scope) if self._task else ()
        return credentials.SharedTokens(make, self.fingerprint, self._shared, source, scopes)

    @property
    def policies(self) -> dict[str, Any]:
        """The policies and the transport of one client of the SDKs. Each try takes a token from the run's buckets."""
        buckets = rate_limit.Buckets(self._shared, self.fingerprint)
        renewal = [sdk.renewal(self.credential)]
        return {
            "per_call_policies": renewal,
            "per_retry_policies": [rate_limit.policy(buckets, self._patience, self.sent)],
            "transport": self._transport,
        }

    @cached_property
    def _transport(self) -> Any:
        return sdk.transport()

    def bare_policies(self, scope: str) -> list[Any]:
        """The policies that a client without an SDK's own policies needs, with tokens for the scope (such as
        `https://vault.azure.net/.default`).

        The policies of Key Vault's SDK send the first request of each client without a token, because the response
        of the vault names the scope and the tenant. Here both are known: the scope of the cloud, and the caller's
        tenant, because a key is in the tenant of its account.
        """
        policies = sdk.load("azure-core").pipeline.policies
        challenge = sdk.load("azure-mgmt-core").policies.ARMChallengeAuthenticationPolicy
        return [policies.RetryPolicy(), challenge(self.credential, scope), policies.CustomHookPolicy()]

    @property
    def key_vault_scope(self) -> str:
        return f"https://{self.environment.vault_suffix}/.default"

    @property
    def _patience(self) -> rate_limit.Patience:
        # In check mode, nothing has to be confirmed or rolled back.
        return rate_limit.Patience(
            self.wait_timeout, self.notify, lambda: not self.predicts and self.sent.may_have_changed
        )

    @cached_property
    def fingerprint(self) -> str:
        return credentials.fingerprint(self._options)

    @cached_property
    def caller(self) -> dict[str, str]:
        """The object id and the tenant of the caller."""
        with sdk.translated("sign in"):
            token = self.credential.get_token(self.environment.resource_manager_scope).token
        said = credentials.claims(token)
        return {"object_id": said["oid"], "tenant_id": said["tid"]}

    def poll_until(self, ask: Callable[[], CmkError | None], deadline: float, waiting_for: str) -> CmkError | None:
        """Call `ask` at growing intervals until it returns None or the deadline has passed. Returns its last result.

        `waiting_for` completes the line "Waiting for ...".
        """
        pause, began = 1.0, time.monotonic()
        while (complaint := ask()) is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                return complaint
            if self.predicts:
                self.complete_operations()
                return ask()
            elapsed, total = time.monotonic() - began, deadline - began
            if elapsed >= _SHOWN_AFTER:
                # After SIGINT, ansible-playbook no longer reads the lines of its workers.
                with suppress(OSError):
                    self.notify(f"Waiting for {waiting_for} ({elapsed:.0f} of {total:.0f} s){_reason(complaint)}")
            time.sleep(min(pause, left))
            pause = min(pause * 2, _LONGEST_PAUSE)
        return None


def _reason(complaint: CmkError) -> str:
    """The reason of the wait as the end of a line: Azure's code, or the message of an Unavailable error. Other messages
    describe the end of the wait."""
    azure = complaint.facts.get("azure")
    if azure:
        return f": {azure['code']}"
    return f": {complaint.msg}" if isinstance(complaint, Unavailable) else ""
