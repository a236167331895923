# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A Batch account's encryption setting, and the waiting that goes with it.

This module util is private to the collection.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from .._concurrent import in_background
from .._encryption import not_answering
from .._errors import CmkError, Unavailable
from .._ids import key_of
from .accounts import Accounts
from .diagnosis import Diagnosis
from .evidence import Evidence
from .session import Session


class Encryption:
    def __init__(self, session: Session, accounts: Accounts, evidence: Evidence, diagnosis: Diagnosis) -> None:
        self._session = session
        self._accounts = accounts
        self._evidence = evidence
        self._diagnosis = diagnosis
        # Accounts that have answered since this task changed them, with what was to be seen of their keys by then.
        self._confirmed: dict[tuple[str, str], Mapping[str, Any] | None] = {}

    def read(self, goal: Any) -> dict[str, Any]:
        account = self._accounts.seen(goal.group, goal.account, anew_if=goal.leaves_alone)
        observed: dict[str, Any] = {"account": account, "silence": None}
        if account is None:
            return observed
        if goal.leaves_alone(account):
            observed["silence"] = self._silence(goal.group, goal.account)
            if goal.is_met_by(account):
                observed["evidence"] = self._confirmed.get((goal.group, goal.account))
        elif goal.key is not None:
            observed["evidence"] = self._evidence.of_account(account, goal.key, goal.vault_group)
        return observed

    def survey(self, group: str, name: str, *, diagnose: bool) -> dict[str, Any]:
        """The account, why it does not answer if it does not, and what ails its key if that is asked for."""
        account = self._accounts.get(group, name)
        key = key_of(account) if account and diagnose else None
        return {
            "account": account,
            "silence": self._silence(group, name) if account else None,
            "diagnosis": self._diagnosis.read(account, key) if account and key else None,
        }

    def require_answer(self, group: str, name: str) -> None:
        """An account that does not answer takes no other setting."""
        silence = self._silence(group, name)
        if silence is not None:
            raise not_answering(name, key_of(self._accounts.get(group, name) or {}), silence)

    def _silence(self, group: str, name: str) -> CmkError | None:
        return None if (group, name) in self._confirmed else self._accounts.silence(group, name)

    def await_answer(self, group: str, name: str) -> None:
        """Once its key can be used again, an account may need up to ten minutes (the vendor's guide)."""
        self._require_answer(group, name, time.monotonic() + self._session.wait_timeout, None)

    def set_encryption(
        self,
        group: str,
        name: str,
        body: Mapping[str, Any],
        *,
        evidence: Mapping[str, Any] | None,
        despite_silence: bool,
    ) -> None:
        """Ask until Batch takes the key, then until the account answers on it.

        Once Batch has taken a key, the account may need up to ten minutes (the vendor's guide). One that does not
        answer as it is takes nothing, unless what silenced it is what is taken back (`despite_silence`).

        As a grant takes a while to reach Batch, so does a withdrawal, and until then it takes the key. So that part of
        the `evidence` is read again, now that whoever withdraws can see the account there (_usage). Where many accounts
        are changed it is not: Azure's limit on reads would be what all of them wait for.
        """
        deadline = time.monotonic() + self._session.wait_timeout
        self._confirmed.pop((group, name), None)

        self._accounts.until_taken(
            lambda: self._accounts.update(group, name, body),
            deadline,
            f"Batch does not take the new setting of {name} yet",
            look=lambda: None if despite_silence else self.require_answer(group, name),
        )
        self._require_answer(group, name, deadline, None if self._accounts.are_many else evidence)

    def _require_answer(self, group: str, name: str, deadline: float, evidence: Mapping[str, Any] | None) -> None:
        # The account itself is read meanwhile, because the next step needs it.
        account = in_background(self._accounts.get, group, name)
        again = in_background(self._evidence.with_access_now, evidence) if evidence else None
        silent = self._session.until_none(
            lambda: self._accounts.silence(group, name), deadline, f"{name} does not answer yet"
        )
        # If this read failed, the next step reads the account again.
        account.exception()
        if silent is not None:
            raise Unavailable(
                f"The Batch account {name} is on its key and did not answer for {self._session.wait_timeout} s: "
                f"{silent.msg}",
                code="account_not_answering",
            )
        self._confirmed[group, name] = again.result() if again else None
