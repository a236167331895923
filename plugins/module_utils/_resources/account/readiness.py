# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Accounts that are not ready for a change: missing, not available, failed, or being created or deleted.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable

from ..._core.concurrent import value_or_error
from ..._core.documents import Account
from ..._core.errors import CmkError, Refused
from ..._core.plan import Outcome, SentWrites
from ..._documents.account import UNDER_WAY, is_failed

# The errors that replace the error of a task.
_CODES = ("account_unavailable", "account_failed", "account_under_way")


def require_ready(account: Account | None) -> None:
    """Raise an error if the account is being created or deleted, or if its last operation has failed."""
    name = account["name"] if account else ""
    state = account["properties"].get("provisioningState") if account else None
    if state in UNDER_WAY:
        remedy = "Wait until that has finished."
        raise Refused(f"The Batch account {name} {UNDER_WAY[state]}. {remedy}", code="account_under_way", remedy=remedy)
    if is_failed(account):
        remedy = "If its creation has failed, run the role azbatch.cmk.provision again, or delete the account."
        raise Refused(
            f"The last operation on the Batch account {name} has failed (provisioning state Failed). {remedy}",
            code="account_failed",
            remedy=remedy,
        )


def explained(
    make: Callable[[], Outcome],
    sent: SentWrites,
    account: Callable[[], Account | None],
    require_available: Callable[[], None],
) -> Outcome:
    """The outcome of `make`. If `make` is refused before its first write, and the account is not ready, the error says
    that: the cause of the refusal, such as a disabled key, may be why the account is not available."""
    before = sent.accepted + sent.in_doubt
    try:
        return make()
    except CmkError as refusal:
        if not refusal.is_of_account or sent.accepted + sent.in_doubt > before:
            raise
        for check in (lambda: require_ready(account()), require_available):
            reason = value_or_error(check, CmkError)
            if reason is not None and reason.code == refusal.code:
                break
            if reason is not None and reason.code in _CODES:
                raise reason from refusal
        raise
