# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans the change of the key that a Batch account uses.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..._checks import preflight
from ..._checks.rights import to_set_encryption
from ..._core.errors import CmkError, Refused, Unavailable
from ..._core.ids import KeyIdentifier, key_of
from ..._core.plan import Plan, step
from ..._documents import account as account_document
from ..._documents.encryption import account_unavailable, describe, describe_key
from .goal import ANY, FOLLOW, PIN, UPDATE, EncryptionWrites, Goal, Observed


def plan(goal: Goal, observed: Observed) -> Plan[EncryptionWrites]:
    account = account_document.required(observed["account"], goal.group, goal.account)
    if observed.get("expires_soon"):
        goal = replace(goal, mode=UPDATE)
    # A key that a read shows is written anyway if the read may be older than a write of the run.
    leaves_alone = goal.leaves_alone(account) and not observed.get("may_be_stale")
    unavailable_reason = observed["unavailable_reason"]
    available = account_document.availability(unavailable_reason)
    before = {**describe(account), "available": available}
    is_failing = available is None and isinstance(unavailable_reason, Unavailable)
    if (available is False or is_failing) and goal.patient and goal.is_satisfied_by(account):
        wait = step(EncryptionWrites.wait_until_available, group=goal.group, name=goal.account)
        return Plan(goal, before, {**before, "available": True}, (wait,))
    if unavailable_reason and (
        is_failing or (available is None and not goal.undoes and (goal.patient or not leaves_alone))
    ):
        account_document.require_known(goal.account, unavailable_reason)
    if unavailable_reason and available is False and goal.undoes is None:
        raise account_unavailable(goal.account, key_of(account), unavailable_reason)
    if leaves_alone:
        if observed.get("evidence"):
            read = observed["evidence"] if goal.undoes else preflight.lasting(observed["evidence"])
            preflight.require(read, "and could when the account was moved to it")
        return _unchanged(goal, before, unavailable_reason)
    has = key_of(account)
    if not goal.allows_previous(has):
        raise _on_another_key(goal, has)
    checks: tuple[preflight.Check, ...] = ()
    if goal.key:
        evidence = observed["evidence"]
        checks = preflight.require(evidence) if goal.undoes else preflight.require_for_change(evidence)
    body = {"properties": {"encryption": account_document.encryption_body(goal.target)}}
    switch = step(
        EncryptionWrites.set_encryption,
        group=goal.group,
        name=goal.account,
        body=body,
        previous=has,
        evidence=observed.get("evidence"),
        even_if_unavailable=goal.undoes is not None,
    ).needing(*to_set_encryption(goal.group, goal.account))
    mode = FOLLOW if has and has.version is None else PIN
    previous = Goal(goal.group, goal.account, has, None, mode=mode, previous=ANY, undoes=goal)
    return Plan(
        goal,
        before,
        {**before, **describe_key(goal.target), "available": True},
        (switch,),
        warnings=preflight.warnings(checks),
        rollback_goal=previous,
        # If neither the new nor the previous key may be used, the account would become unavailable. A
        # Microsoft-managed key is always usable.
        if_refused=replace(previous, key=None) if previous.key else None,
        report={"preflight": preflight.describe(checks), "previous_key_identifier": str(has) if has else None},
    )


def _unchanged(goal: Goal, before: Mapping[str, Any], reason: CmkError | None) -> Plan[EncryptionWrites]:
    warnings: tuple[str, ...] = ()
    if reason is not None and before["available"] is None:
        if goal.requires_readable:
            account_document.require_readable(goal.account, reason)
        warnings = (account_document.availability_warning(goal.account, reason),)
    return Plan(goal, before, before, warnings=warnings, report={"previous_key_identifier": None})


def _on_another_key(goal: Goal, has: KeyIdentifier | None) -> Refused:
    if isinstance(goal.previous, tuple):
        vault, name = goal.previous
        wanted, remedy = f"the key {name} in {vault}", "Correct the names of the vault and the key."
    else:
        # The wanted key may be a typing error.
        wanted = f"the key {goal.key.versionless if goal.key else ''}"
        remedy = (
            "Correct the names of the vault and the key, or set O(previous_key) to the key that the account may leave."
        )
    return Refused(
        f"The Batch account {goal.account} uses {has or 'a Microsoft-managed key'}, not {wanted}. This task changed "
        f"nothing. {remedy}",
        code="account_on_another_key",
        option="previous_key",
        value="/".join(goal.previous) if isinstance(goal.previous, tuple) else goal.previous,
        key_identifier=str(has or "") or None,
        remedy=remedy,
    )
