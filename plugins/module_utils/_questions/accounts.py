# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One Batch account, once its current operation has finished. Pure: asks for documents.

This module util is private to the collection.
"""

from __future__ import annotations

from typing import Any

from .._azure.facts import Facts
from .._core.docs import Docs, Ref, Wait
from .._core.errors import CmkError, Refused, TimedOut
from .._core.tasks import VALUE_LAG_SECONDS
from .._documents import refs
from .._documents.account import UNDER_WAY, Account, require_ready
from .creation import not_shown


def ref_of(facts: Facts, group: str, name: str) -> Ref[Account]:
    return refs.account(refs.account_id(facts.subscription, group, name))


def existing(docs: Docs, facts: Facts, group: str, name: str) -> Account | None:
    """The account. Raises an error if it is being created or deleted. If a read does not find an account that is
    listed, or shows a creation that another read has shown as finished, waits until a read shows it."""
    account = docs.get(ref_of(facts, group, name))
    if account is None:
        # Without the right to list accounts, only the read decides. That is safe, because no account is created here.
        listed = docs.known(refs.accounts_of(facts.subscription, group))
        if not isinstance(listed, CmkError):
            _require_unlisted(listed, facts, name)
        return None
    state = account["properties"].get("provisioningState")
    if state == "Creating":
        try:
            require_ready(account)
        except Refused as under_way:
            # A read may show a creation that has finished.
            seconds = min(facts.wait_timeout, VALUE_LAG_SECONDS)
            raise Wait(under_way, _waiting_for(name), seconds) from None
    if state in UNDER_WAY:
        require_ready(account)
    return account


def settled(docs: Docs, facts: Facts, group: str, name: str) -> Account | None:
    """The account after its current operation has finished. An interrupted run may have begun the operation."""
    account = docs.get(ref_of(facts, group, name))
    state = account["properties"].get("provisioningState") if account else None
    if state in UNDER_WAY:
        complaint = TimedOut(
            f"The Batch account {name} is still {state} after {facts.wait_timeout} s. Try again.",
            option="wait_timeout",
            value=facts.wait_timeout,
            is_of_account=True,
        )
        raise Wait(complaint, _waiting_for(name))
    return account


def require_unlisted(docs: Docs, facts: Facts, group: str, name: str) -> None:
    """Wait until a read finds the account, or until the account is no longer listed. Azure is eventually consistent: a
    listed account exists even if a read does not find it."""
    _require_unlisted(docs.get(refs.accounts_of(facts.subscription, group)), facts, name)


def _require_unlisted(listed: Any, facts: Facts, name: str) -> None:
    if name.lower() in [account["name"].lower() for account in listed or ()]:
        raise not_shown(f"Batch account {name}", facts.wait_timeout)


def _waiting_for(name: str) -> str:
    return f"Azure to finish the current change of the Batch account {name}"
