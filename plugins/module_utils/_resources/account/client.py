# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Batch accounts.

This module util is private to the collection.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any

from ..._azure import sdk
from ..._azure.creation import is_name_free, outdated, require_missing, until_shown
from ..._azure.driver import Driver
from ..._azure.gateway import Gateway
from ..._azure.journal import WriteOutcome
from ..._azure.polled import Polled
from ..._azure.session import Session
from ..._checks.preflight import Evidence, failed_checks, lasting
from ..._core.concurrent import in_background, value_or_error
from ..._core.docs import Docs, Freshness, Rule
from ..._core.documents import Account
from ..._core.errors import (
    AccountUnavailable,
    CmkError,
    Denied,
    NotConverged,
    NotFound,
    PlanOutdated,
    Rejected,
    TimedOut,
)
from ..._core.ids import key_of, place_of
from ..._core.plan import MAX_READ_DELAY
from ..._documents import refs
from ..._documents.access import allows
from ..._documents.account import POOLS_READ, UNDER_WAY, availability, availability_unknown, is_failed, name_taken
from ..._questions import identities, users
from ..._questions.regions import of_type
from ..key.evidence import EvidenceReader
from ..visible import HandledAccounts
from .goal import Observed
from .readiness import require_ready

# Error codes of requests that Azure never accepts, so retries are useless.
_FOR_GOOD = (
    *("InvalidRequestBody", "MissingRequiredProperty", "InvalidPropertyValue", "InvalidRequestContent"),
    *(sdk.LOCKED, sdk.QUOTA_EXCEEDED),
)
# If the account was not available earlier than this after the change, the key and the access to it are read again.
_RECENT_SECONDS = 20


class Accounts(Polled):
    def __init__(
        self,
        session: Session,
        driver: Driver,
        gateway: Gateway,
        evidence: EvidenceReader,
        handled: HandledAccounts,
    ) -> None:
        self._session = session
        self._driver = driver
        self._gateway = gateway
        self._evidence = evidence
        self._handled = handled
        self._journal = session.journal

    def read(self, goal: Any) -> Observed:
        # A rollback does not wait for the creation of the account, which may have used up the timeout.
        account = (self.get if goal.leaves_key else self.settled)(goal.group, goal.name)
        failed = self._creation_failed(account)
        observed: Observed = {
            "account": account,
            "created_in": self._created_in(goal.group, goal.name),
            "creation_failed": failed,
        }
        if (account is None or failed) and goal.present and not goal.leaves_key:
            own = self._session.subscription_id
            observed.update(self._driver.solve(partial(_for_creation, goal=goal, subscription=own)))
            if account is None and self._is_listed(goal.group, goal.name):
                observed["account"] = account = self._await(goal.group, goal.name)
            if (account is None or failed) and goal.key is not None:
                question = partial(identities.get, identity_id=goal.identity_id)
                identity = self._driver.solve(question)["properties"]
                principals = (identity["principalId"],)
                observed["evidence"] = self._evidence.gather(
                    goal.key, goal.vault_group, principals, identity["tenantId"]
                )
        observed["confirmed"] = self.confirmed(goal.group, goal.name)
        return observed

    def get(self, group: str, name: str, fresh: Freshness = Rule.OWN) -> Account | None:
        account = self._driver.get(refs.account(self.ref(group, name)), fresh)
        if account is not None:
            self._handled.add(account["id"])
        return account

    def listed(self, group: str, name: str) -> Account | None:
        """The account as a host has listed it for the same task of the playbook, a few seconds ago at most. None if the
        run reads few accounts, if this task has changed the account, or if an operation on it is running."""
        with self._driver.glancing(self._session.task_began):
            return self._driver.listed(refs.account(self.ref(group, name)))

    def existing(self, group: str, name: str) -> Account | None:
        """The account, read from Azure. Raises an error if the account is being created or deleted. If a read does not
        find an account that is listed, or shows a creation that another read has shown as finished, wait until a read
        shows it."""
        account = self.get(group, name)
        if _state(account) == "Creating":
            account = self._after_operation(group, name, min(self._session.wait_timeout, MAX_READ_DELAY))
        if _state(account) in UNDER_WAY:
            require_ready(account)
        # Without the right to list accounts, only the read decides. That is safe, because no account is created here.
        is_listed = account is None and value_or_error(lambda: self._is_listed(group, name)) is True
        return self._await(group, name) if is_listed else account

    def changed_at(self, account: Account) -> float | None:
        """When the account was changed; None if that is not known."""
        changed, _now = self._driver.solve(partial(users.changed_at, accounts=[account]))
        return self._journal.dated(changed)[account["id"]]

    def forget_one(self, group: str, name: str) -> None:
        """Later reads of the account are from Azure."""
        self._driver.forget(refs.account_kind(self.ref(group, name)))

    def settled(self, group: str, name: str) -> Account | None:
        """The account after its current operation has finished. An interrupted run may have begun the operation."""
        waits = self._session.wait_timeout
        account = self._after_operation(group, name, waits)
        state = _state(account)
        if state in UNDER_WAY:
            raise TimedOut(
                f"The Batch account {name} is still {state} after {waits} s. Try again.",
                option="wait_timeout",
                value=waits,
                is_of_account=True,
            )
        return account

    def _after_operation(self, group: str, name: str, seconds: float) -> Account | None:
        """The account after its current operation has finished, or after this time."""
        account: Account | None = None

        def under_way() -> CmkError | None:
            nonlocal account
            account = self.get(group, name)
            state = _state(account)
            if state not in UNDER_WAY:
                return None
            self.forget_one(group, name)
            return NotConverged(f"The Batch account {name} is {state}.")

        self._session.poll_until(
            under_way,
            time.monotonic() + seconds,
            f"Azure to finish the current change of the Batch account {name}",
        )
        return account

    def _is_listed(self, group: str, name: str) -> bool:
        """Whether the account is listed. Azure is eventually consistent: a listed account exists even if a read
        does not find it."""

        return name.lower() in self._names_in(group, Rule.OWN)

    def _names_in(self, group: str, fresh: Freshness) -> list[str]:
        listed = self._driver.get(refs.accounts_of(self._session.subscription_id, group), fresh)
        return [account["name"].lower() for account in listed or ()]

    def _await(self, group: str, name: str) -> Account | None:
        """Wait until a read finds the account, or until the account is no longer listed. Returns the account or
        None."""
        until_shown(
            self._session,
            self._driver,
            f"Batch account {name}",
            is_shown=lambda: self.get(group, name) is not None,
            is_listed=lambda: name.lower() in self._names_in(group, time.monotonic()),
        )
        return self.settled(group, name)

    def _creation_failed(self, account: Account | None) -> bool:
        """Whether the creation of the account has failed. The state Failed is not enough: the account must also be
        unavailable."""
        if account is None or not is_failed(account):
            return False
        return availability(self.unavailable_reason(*place_of(account["id"])[1:])) is False

    def _is_name_free(self, location: str, name: str) -> bool:
        provider = f"/subscriptions/{self._session.subscription_id}/providers/Microsoft.Batch/locations/{location}"
        return is_name_free(self._driver, provider, "Microsoft.Batch/batchAccounts", name)

    def create(self, group: str, name: str, body: Mapping[str, Any], *, evidence: Evidence | None = None) -> None:
        """Create the account. `evidence` is the evidence on the key in the body, if there is a key. In that case,
        availability and access are confirmed as after a change of the key.

        If the account exists now, nothing is written (PlanOutdated), because a PUT would replace the account of
        another task or user. If the creation of the account has failed, the creation is repeated, because a refused
        key may leave an account in the state Failed.
        """

        def require_still_missing() -> None:
            try:
                require_missing(
                    self._session,
                    f"Batch account {name}",
                    name_taken(name),
                    is_free=lambda: self._is_name_free(body["location"], name),
                    is_shown=lambda: self.get(group, name) is not None,
                )
            except PlanOutdated:
                if not self._creation_failed(self.get(group, name)):
                    raise

        def write() -> None:
            try:
                require_still_missing()
                self._put(group, name, body, require_still_missing)
            except PlanOutdated:
                # Azure has accepted an earlier request of this task, although the task has not received the response.
                if not self._created_in(group, name):
                    raise

        if evidence is not None:
            deadline = time.monotonic() + self._session.wait_timeout
            self.retry_until_accepted(
                write,
                deadline,
                f"Batch to accept the key of the Batch account {name}",
                look=lambda: self._evidence.require_usable(evidence),
            )
            self.confirm_key(group, name, deadline, evidence)
        else:
            write()

    def _put(self, group: str, name: str, body: Mapping[str, Any], if_late: Callable[[], None]) -> None:
        what, ref = f"create the Batch account {name}", self.ref(group, name)
        try:
            self._gateway.finish(what, self._gateway.begin(what, "PUT", ref, body, if_late=if_late))
        except (Denied, NotFound, PlanOutdated, Rejected) as refused:
            put = self._journal.last(ref)
            if put and put.outcome is WriteOutcome.ACCEPTED:
                raise
            exists = isinstance(value_or_error(lambda: self.get(group, name), CmkError), Mapping)
            if self._journal.is_in_doubt(ref):
                if exists:
                    # An earlier try of the request has created the account.
                    return
                raise
            # Azure refuses, for example, a different location of an existing account.
            if isinstance(refused, Rejected) and exists:
                raise outdated(f"Batch account {name}") from refused
            raise

    def _created_in(self, group: str, name: str) -> str | None:
        """The location of the account if a request of this task may have created it."""
        puts = (one for one in self._journal.of(self.ref(group, name)) if one.method == "PUT")
        return next((one.body["location"] for one in puts if one.may_have_taken_effect), None)

    def retry_until_accepted(
        self,
        write: Callable[[], None],
        deadline: float,
        waiting_for: str,
        look: Callable[[], None] = lambda: None,
    ) -> None:
        """Repeat the write until Batch accepts the key. Access that was granted a moment ago may not have reached Batch
        yet, so that Batch refuses the key. After each refusal, `look` checks the key and may raise an error."""

        def refusal() -> CmkError | None:
            try:
                write()
            except Rejected as error:
                if error.facts["azure"]["code"] in _FOR_GOOD:
                    raise
                look()
                return error
            return None

        refused = self._session.poll_until(refusal, deadline, waiting_for)
        if refused is not None:
            raise refused

    def update(
        self,
        group: str,
        name: str,
        body: Mapping[str, Any],
        *,
        if_late: Callable[[], None] | None = None,
        undoes: bool = False,
    ) -> None:
        """Change the account, or with `undoes` restore its setting. `if_late` is called before a delayed request
        (rate_limit.IF_LATE). By default, a delayed change of the identity is not sent if another task or user has
        meanwhile moved the account to a key (PlanOutdated)."""

        def require_no_key() -> None:
            self.forget_one(group, name)
            if "identity" in body and "properties" in body and key_of(self.get(group, name)):
                raise PlanOutdated(
                    f"The Batch account {name} was moved to a key by somebody else while this task waited to change "
                    "its identity. This task changed nothing. Run the task again."
                )

        what = f"change the Batch account {name}"
        ref = self.ref(group, name)
        account = self._gateway.write(what, "PATCH", ref, body, if_late=if_late or require_no_key, undoes=undoes)
        if account is not None:
            self._driver.keep(refs.account(ref), account)

    def delete(self, group: str, name: str) -> None:
        what = f"delete the Batch account {name}"
        self._gateway.finish(what, self._gateway.begin(what, "DELETE", self.ref(group, name)))

    def confirm_key(
        self, group: str, name: str, deadline: float, evidence: Evidence | None, *, is_new: bool = True
    ) -> None:
        """Wait until the account is available with the key that was just set, and read the access to the key again.

        A revocation needs some time until Batch enforces it, and until then Batch accepts the key. Therefore the
        access is read again after each change. From now on, a run that revokes access finds that the account uses
        the key (usage). If the account used the key before (`is_new` is false), such a run has found that all the time,
        so the access may have been read since this task began.
        """

        def again() -> Future[Evidence] | None:
            now = time.monotonic()
            read = partial(self._evidence.with_access_now, access_since=now if is_new else self._session.began_at)
            return in_background(read, evidence, now) if evidence else None

        changed_at, later = time.monotonic(), again()

        def not_available() -> CmkError | None:
            reason = self.unavailable_reason(group, name)
            if reason is None:
                return None
            if availability(reason) is None:
                raise availability_unknown(name, reason)
            # If a check of the key fails, do not wait: the account will not become available, and soon Batch
            # refuses to move it to another key.
            return None if later and failed_checks(lasting(later.result())) else reason

        self.wait_until_available(name, deadline, not_available)
        if time.monotonic() - changed_at > _RECENT_SECONDS:
            # During the wait, somebody may have taken the key away.
            later = again()
        write = self._journal.last(self.ref(group, name))
        if write is not None:
            write.evidence, write.is_confirmed = later.result() if later else None, True

    def wait_until_available(self, name: str, deadline: float, ask: Callable[[], CmkError | None]) -> None:
        unavailable = self._session.poll_until(ask, deadline, f"the Batch account {name} to become available")
        if unavailable is not None:
            remedy = "Wait some minutes, and run the task again."
            raise AccountUnavailable(
                f"The Batch account {name} uses its key and was not available for {self._session.wait_timeout} s: "
                f"{unavailable.msg} {remedy}",
                remedy=remedy,
            )

    def confirmed(self, group: str, name: str) -> Evidence | None:
        """The evidence read by `confirm_key` since this task changed the account's key."""
        write = self._journal.last(self.ref(group, name))
        evidence: Evidence | None = write.evidence if write else None
        return evidence

    def is_confirmed(self, group: str, name: str) -> bool:
        """Whether the account was available after this task changed its key."""
        write = self._journal.last(self.ref(group, name))
        return write is not None and write.is_confirmed

    def unavailable_reason(self, group: str, name: str) -> CmkError | None:
        """Why the account is not available, or why the caller cannot find that out (`account_document.availability`).

        A read of the account does not show that, because it works without the key too. Therefore its pools are
        listed, which needs only read permission.
        """
        if self.is_confirmed(group, name):
            return None
        try:
            self._driver.get(refs.first_pools_of(self.ref(group, name)), time.monotonic())
        except (Denied, Rejected) as error:
            return error
        return None

    def unavailable_reason_before_change(self, group: str, name: str) -> CmkError | None:
        """The same before a change. The change must not begin if it could not be confirmed.

        Batch refuses to change an unavailable account, so only the caller's right to list pools is checked. The
        permissions at the resource group, which the tasks of a run share, are enough for all accounts of the group. If
        they do not include the right, the pools are listed. If the permissions are wrong, the change is rolled back.
        """
        scope = f"/subscriptions/{self._session.subscription_id}/resourceGroups/{group}"
        permissions = value_or_error(partial(self._driver.get, refs.permissions_at(scope), Rule.RECENT), CmkError)
        if not isinstance(permissions, CmkError) and allows(permissions, POOLS_READ):
            return None
        return self.unavailable_reason(group, name)

    def ref(self, group: str, name: str) -> str:
        """The id of the account."""
        return refs.account_id(self._session.subscription_id, group, name)


def _for_creation(docs: Docs, goal: Any, subscription: str) -> Observed:
    """What a creation depends on, besides the key. The permissions are read too, because they are checked next."""
    regions, place = refs.provider(subscription, "Microsoft.Batch"), refs.group(subscription, goal.group)
    docs.want(refs.accounts_of(subscription, goal.group), fresh=Rule.OWN)
    docs.want(refs.permissions_at(place.id), regions, *(() if goal.location else (place,)))
    found: Observed = {"regions": of_type(docs, regions, "batchAccounts")}
    return found if goal.location else {**found, "group": docs.get(place) or {}}


def _state(account: Account | None) -> str | None:
    return account["properties"].get("provisioningState") if account else None
