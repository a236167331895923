# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a Batch account is available, and whether Batch can use its key. Pure: asks for documents.

A read of the account does not show that, because it works without the key too. Therefore its pools are listed, which
needs only read permission.

This module util is private to the collection.
"""

from __future__ import annotations

from dataclasses import replace

from .._azure.facts import Facts
from .._checks.diagnosis import AccountState, Symptoms, all_noticed_at, is_unread, lost_key
from .._checks.preflight import Evidence, failed_checks, for_rollback, lasting, require
from .._core.docs import Docs, Wait
from .._core.errors import AccountUnavailable, CmkError, Denied, Rejected, Unavailable
from .._core.ids import place_of
from .._documents import refs
from .._documents.access import allows
from .._documents.account import (
    POOLS_READ,
    Account,
    availability,
    availability_unknown,
    is_refused,
    key_of,
    require_known,
    required,
    why_unavailable,
)
from .._documents.encryption import account_unavailable
from . import accounts, evidence

_REFUSED, _LISTED = "refused pools of", "listed pools of"
# The longest time between the reads of a confirmation, in seconds.
_SPREAD_SECONDS = 20


def unavailable_reason(
    docs: Docs, facts: Facts, account: Account, found: Symptoms | None = None, *, is_report: bool = True
) -> CmkError | None:
    """Why the account is not available, or why that is not known (`account_document.availability`).

    The key, the access and the network count too (`why_unavailable`). `found` are their data, by default read now. For
    `is_report` see `unnoticed_repairs`.

    Whether Batch refuses to list the pools of an account without its key is not documented. If the run has seen it, a
    list shows that the account is available again, unless the key was lost a second time: Batch may notice a loss late.
    If the run has seen the contrary, a list shows nothing (`without_key`).
    """
    name, key = account["id"], key_of(account)
    shows, hides = (facts.journal.noted_at(f"{how} {name.lower()}") for how in (_REFUSED, _LISTED))
    docs.want(refs.first_pools_of(name))
    if found is None and key is not None:
        wanted = evidence.of_account(account, key, facts)
        found = evidence.of_key_in_use(docs, account, wanted, is_report=is_report)
    reason = docs.known(refs.first_pools_of(name))
    pools = reason if isinstance(reason, CmkError) else None
    if isinstance(pools, Unavailable):
        if pools.facts.get("azure", {}).get("status", 0) < 500:
            raise pools
    elif pools is not None:
        return _of_pools(pools)
    if found is None:
        return pools
    lost, unknown = lost_key(found)
    known_from = all_noticed_at(found) if len(unknown) == 1 else None
    if pools is None and (shows or hides):
        unknown = [] if shows else [*unknown, "After a repair of the key, Batch may need ten minutes."]
    return why_unavailable(pools, lost, unknown, is_unread=is_unread(found), known_from=known_from)


def without_key(account: Account, reason: CmkError | None) -> str:
    """The name under which a run notes that Batch refuses or lists the pools of the account without its key. Empty if
    the account is available."""
    if reason is None or availability(reason) is not False:
        return ""
    return f"{_REFUSED if is_refused(reason) else _LISTED} {account['id'].lower()}"


def _of_pools(pools: CmkError) -> CmkError:
    """The error of a list of pools. Raises one that says nothing of the account."""
    if not isinstance(pools, Denied | Rejected):
        raise pools
    return pools


def pools_reason(docs: Docs, account_id: str) -> CmkError | None:
    """Why the account is not available, or why the caller cannot find that out, by a list of its pools only."""
    found = docs.known(refs.first_pools_of(account_id))
    return _of_pools(found) if isinstance(found, CmkError) else None


def reason_before_change(docs: Docs, account: Account) -> CmkError | None:
    """The same before a change. The change must not begin if it could not be confirmed.

    Batch refuses to change an unavailable account, so only the caller's right to list pools is checked. The permissions
    at the resource group, which the tasks of a run share, are enough for all accounts of the group. If they do not
    include the right, the pools are listed. If the permissions are wrong, the change is rolled back.
    """
    subscription, group, _name = place_of(account["id"])
    permissions = docs.known(refs.permissions_at(refs.group(subscription, group).id))
    if not isinstance(permissions, CmkError) and allows(permissions or (), POOLS_READ):
        return None
    return pools_reason(docs, account["id"])


def require_available(docs: Docs, facts: Facts, group: str, name: str) -> None:
    """Raise an error if the account is not available, because Batch refuses to change it, or if its availability is not
    known."""
    account = required(accounts.existing(docs, facts, group, name), group, name)
    reason = unavailable_reason(docs, facts, account, is_report=False)
    if reason is not None and availability(reason) is None:
        require_known(name, reason)
    elif reason is not None:
        key = key_of(account)
        read = docs.known(refs.key(key)) if key else None
        is_blocked = isinstance(read, CmkError) and read.code == "network_denied"
        raise account_unavailable(name, key, reason, is_blocked=is_blocked)


# After a change of the key


def confirmed(
    docs: Docs,
    facts: Facts,
    account: Account,
    used: Evidence | None,
    *,
    is_rollback: bool = False,
    how: str = "moved to it",
) -> None:
    """Wait until the account is available with the key that was just set, and read the access to the key again. Raises
    an error if Batch can no longer use the key. `used` is the evidence of the change, and `how` the change.

    A revocation needs some time until Batch enforces it, and until then Batch accepts the key. Therefore the access is
    read again after each change. From now on, a run that revokes access finds that the account uses the key (usage).
    """
    name, pools = account["name"], refs.first_pools_of(account["id"])
    docs.want(pools)
    now = used and evidence.with_access_now(docs.after(facts.began_at), used)
    read = docs.of(pools)
    if now and read.ended > docs.asked_at + _SPREAD_SECONDS:
        # While the list of pools was delayed, somebody may have taken the key away.
        now = evidence.with_access_now(docs.after(read.ended), now)
    judged = now and (for_rollback(now) if is_rollback else lasting(now))
    if isinstance(read.value, CmkError):
        reason = _of_pools(read.value)
        if availability(reason) is None:
            raise availability_unknown(name, reason)
        # If a check of the key fails, do not wait: the account will not become available, and soon Batch refuses to
        # move it to another key.
        if not (judged and failed_checks(judged)):
            raise wait_until_available(facts, name, reason)
    if judged:
        require(judged, f"The account was {how}, but Batch can no longer use the key {judged.key.name}")


def wait_until_available(facts: Facts, name: str, reason: CmkError) -> Wait:
    """To be raised until the account is available. Once its key can be used again, it may need up to ten minutes
    (Microsoft's guide)."""
    remedy = "Wait some minutes, and run the task again."
    complaint = AccountUnavailable(
        f"The Batch account {name} uses its key, but was not available for {facts.wait_timeout} s. {remedy}",
        remedy=remedy,
        **reason.texts,
    )
    return Wait(complaint, f"the Batch account {name} to become available")


# Reports


def survey(docs: Docs, facts: Facts, group: str, name: str, *, diagnose: bool) -> AccountState:
    """The account, the reason if it is not available, and with `diagnose` the data of the diagnosis."""
    account = docs.get(accounts.ref_of(facts, group, name))
    if account is None:
        return AccountState()
    key, was_refused = key_of(account), facts.journal.noted_at(f"{_REFUSED} {account['id'].lower()}") is not None
    wanted = key and evidence.of_account(account, key, facts)
    docs.want(refs.first_pools_of(account["id"]))
    found = evidence.symptoms(docs, account, wanted) if diagnose and wanted else None
    reason = unavailable_reason(docs, facts, account, found)
    if found:
        found = replace(found, available=availability(reason), unavailable_reason=reason)
    return AccountState(account, reason, found, was_refused)
