# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a Batch account can be recovered with certain repairs. Pure: sends no requests.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .._core.errors import AccountUnavailable, CmkError, Denied, Refused, numbered
from .._documents.account import availability_unknown
from .diagnosis import BATCH_REPORTS, AccountState, Cause, Diagnosis, diagnosed, may_recover
from .preflight import OK


def require_recoverable(name: str, observed: AccountState, allowed: Sequence[str]) -> tuple[str, ...]:
    """Raise an error with all reasons if these repairs cannot make the account available. Returns warnings.

    `observed` is the state of the account `name` with a diagnosis. If Batch has refused to list the pools of the
    account before, a list shows that a repair of the run has helped.
    """
    unavailable, available = observed.unavailable_reason, observed.available
    if isinstance(unavailable, Denied) and available is None:
        raise availability_unknown(name, unavailable)
    if observed.symptoms is None:
        if unavailable and not available:
            raise _not_of_key(name, unavailable)
        return ()
    diagnosis = diagnosed(observed.symptoms)
    causes, repairs = diagnosis.causes, diagnosis.repairs
    if available:
        return _about_to_be_lost(name, causes)
    may_end = may_recover(observed.symptoms)
    unread = list(_unread(diagnosis, is_confirmed_later=observed.was_refused and may_end))
    if unavailable and available is False and not (causes or repairs or unread or may_end):
        raise _no_cause(name, unavailable)
    refusals = [*_not_repaired(causes, repairs, allowed), *unread]
    if refusals:
        evidence = (_evidence(one) for one in causes if one.repair)
        sentences = [*evidence, *(one.msg for one in refusals), *_lets_batch_in(refusals, diagnosis)]
        first, state = refusals[0], "is not available" if available is False else "may not be available"
        raise first.extended(
            msg="\n".join([f"The Batch account {name} {state}. This task changed nothing.", *sentences]),
            causes=[one.described for one in causes],
            **(unavailable.texts if unavailable else {}),
        )
    return tuple(_HIDES[one.name] for one in causes if one.name in _HIDES)


def _evidence(cause: Cause) -> str:
    """The evidence in an error, without the text of Batch."""
    own = cause.evidence.partition(BATCH_REPORTS)[0].strip()
    return own or f"Batch reports the cause {cause.name}."


def _not_of_key(name: str, unavailable: CmkError) -> AccountUnavailable:
    remedy = "Fix the problem that Azure reports (azure.message), and run the task again."
    return AccountUnavailable(
        f"The Batch account {name} is not available, but uses a Microsoft-managed key. {remedy}",
        remedy=remedy,
        **unavailable.texts,
    )


def _no_cause(name: str, unavailable: CmkError) -> AccountUnavailable:
    remedy = "Run the task again in ten minutes. If that fails, fix the problem that Batch reports (azure.message)."
    return AccountUnavailable(
        f"The Batch account {name} is not available, and no cause was found. {remedy} This task changed nothing.",
        remedy=remedy,
        **unavailable.texts,
    )


def _about_to_be_lost(name: str, causes: Sequence[Cause]) -> tuple[str, ...]:
    """Warnings about causes although the account is available: a revocation, for example, takes effect later."""
    if not causes:
        return ()
    message = " ".join(f"{cause.name}: {cause.evidence} {cause.remedy}" for cause in causes)
    return (
        f"The Batch account {name} is available, so nothing is repaired, but it may be about to lose its key. "
        f"{message} Otherwise, recover the account once it is not available.",
    )


# Causes that hide data before the repair.
_HIDES = {
    "vault_deleted": "Azure does not show the network rules and the keys of a deleted vault, or who may use them. "
    "After the recovery of the vault, more repairs may be necessary.",
    "key_deleted": "Azure does not show the versions of a deleted key. After the recovery of the key, more repairs may "
    "be necessary.",
}


def _not_repaired(causes: Sequence[Cause], repairs: Sequence[str], allowed: Sequence[str]) -> Iterator[CmkError]:
    lost = [cause for cause in causes if cause.repair is None]
    if lost:
        message = numbered([f"{_evidence(cause)} {cause.remedy}" for cause in lost]).strip()
        described = [cause.described for cause in lost]
        yield Refused(message, code="not_recoverable", remedy=lost[0].remedy, causes=described)
    excluded = [repair for repair in repairs if repair not in allowed]
    if excluded:
        remedy = f"Add {' and '.join(excluded)} to O(allowed_repairs), or repair that in another way."
        yield Refused(
            remedy,
            code="repair_not_allowed",
            option="allowed_repairs",
            value=list(allowed),
            remedy=remedy,
        )


def _lets_batch_in(refusals: Sequence[CmkError], diagnosis: Diagnosis) -> Iterator[str]:
    """The firewall blocks the caller, but not Batch. An earlier task of the role may have repaired the firewall."""
    if any(one.code == "network_denied" for one in refusals):
        checks = (one for one in diagnosis.checks if one.name == "network_open_to_batch")
        yield from (one.evidence for one in checks if one.status == OK)


def _unread(diagnosis: Diagnosis, *, is_confirmed_later: bool) -> Iterator[CmkError]:
    """The errors of reads, if a repair needs the data, or if the data may show another cause."""
    repairs = diagnosis.repairs
    if "vault" in repairs:
        # Azure does not show the data of a deleted vault before it is recovered.
        return
    for error in diagnosis.unread:
        # A caller whom the vault's firewall blocks can still allow Batch in the firewall.
        if error.code != "network_denied" or "key" in repairs or not (repairs or is_confirmed_later):
            yield error
