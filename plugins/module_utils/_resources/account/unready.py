# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Accounts that were not ready before the task: missing, not available, failed, or being created or deleted. A task for
one of many accounts leaves them alone, so that they do not stop the others (invariant I9).

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..._core.concurrent import value_or_error
from ..._core.documents import Account
from ..._core.errors import CmkError, Refused
from ..._core.plan import Outcome, SentWrites
from .document import UNDER_WAY, is_failed

LEAVE = "leave"
ARGUMENTS: dict[str, dict[str, Any]] = {"unready": {"type": "str", "default": "fail", "choices": ["fail", LEAVE]}}
_CODES = ("account_not_found", "account_unavailable", "account_failed", "account_under_way")


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


def left_alone(
    unready: str,
    name: str,
    sent: SentWrites,
    make: Callable[[], Outcome],
    require_available: Callable[[], None] = lambda: None,
) -> Outcome:
    """The outcome of `make`. With `unready: leave`, the error of an account that is not ready is an outcome without a
    change, if `make` has sent no write before.

    `require_available` raises an error if the account is not available. It is called after other errors: for example,
    the key of the account may be disabled."""
    before = sent.accepted + sent.in_doubt
    try:
        return make()
    except CmkError as error:
        if unready != LEAVE or sent.accepted + sent.in_doubt > before:
            raise
        failure = error
        if failure.code not in _CODES:
            failure = value_or_error(require_available, CmkError)
        if failure is None or failure.code not in _CODES:
            raise
        return outcome(name, failure, {"account_ready": False})


def outcome(name: str, failure: CmkError, described: Mapping[str, Any]) -> Outcome:
    """The outcome for an account that is left alone because of the error."""
    remedy = failure.facts["remedy"]
    left_alone = {"code": failure.code, "reason": failure.msg.removesuffix(remedy).rstrip(), "remedy": remedy}
    return Outcome(False, described, described, (failure.msg,), {"left_alone": left_alone}).summarized(
        f"{name} was left alone."
    )
