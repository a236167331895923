# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Experiments with locks and Azure policies."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ..azure import LOCKS, POLICIES, Response
from ..experiment import Experiment, Length, Outcome
from ..lab import Lab

# The built-in policy "Azure Batch account should use customer-managed keys to encrypt data".
_KEY_POLICY = "/providers/Microsoft.Authorization/policyDefinitions/99e9ccd8-3db9-4592-b0d1-14b1715a4d8a"
_HERE = "providers/Microsoft.Authorization"
_DENIED = "RequestDisallowedByPolicy"
_POLICY_WITHIN = 2700


def locks(lab: Lab) -> Outcome:
    account = lab.once("account", lab.account)
    for level in ("ReadOnly", "CanNotDelete"):
        lock = f"{lab.account_path(account)}/{_HERE}/locks/azbatch-live"
        lab.azure.arm("PUT", lock, LOCKS, {"properties": {"level": level}}).required()
        lab.settle()
        requests: dict[str, Callable[[], Response]] = {
            **lab.uses(account),
            "delete the account": partial(lab.delete_account, account),
        }
        for what, request in requests.items():
            lab.case(f"{level}: {what}", partial(_said, request, "ScopeLocked"))
        lab.azure.arm("DELETE", lock, LOCKS).required()
        lab.settle()
    return Outcome("Used and deleted an account with each kind of lock.")


def _said(request: Callable[[], Response], code: str) -> str:
    return request().checked(code).said


def policy(lab: Lab) -> Outcome:
    account = lab.once("account", lab.account)
    identity = lab.once("identity", lab.identity)
    kid = lab.once("key", lambda: lab.key(lab.vault(identity["principal"])))
    change = partial(lab.change, account, tags={"probe": "1"})
    # Otherwise a policy of the subscription would be measured.
    change().checked().required()
    assignment = f"{lab.group}/{_HERE}/policyAssignments/azbatch-live"
    parameters = {"effect": {"value": "Deny"}}
    body = {"properties": {"policyDefinitionId": _KEY_POLICY, "parameters": parameters}}
    assign = partial(lab.azure.arm, "PUT", assignment, POLICIES, body)
    assigned = lab.once("assigned", lambda: lab.timed(lambda: assign().required()))
    span = lab.first(lambda: change().checked(_DENIED).code == _DENIED, assigned, limit=_POLICY_WITHIN, step=60)
    encrypted = {"identity": lab.assigned(identity), "properties": lab.encryption(kid)}
    lab.case("creation without a key", lambda: lab.tried(_DENIED).end.said)
    lab.case("creation with a key", lambda: lab.tried(_DENIED, **encrypted).end.said)
    lab.case("PATCH with a key", partial(_said, partial(lab.change, account, **encrypted), _DENIED))
    lab.azure.arm("DELETE", assignment, POLICIES).required()
    if span is None:
        return Outcome(f"Azure accepted changes for {_POLICY_WITHIN // 60} minutes.")
    return Outcome(f"Azure denied a change of the tags {span.within:.0f} s after the assignment.")


EXPERIMENTS = (
    Experiment(
        "locks",
        "What does a lock refuse, and how?",
        "Lock an account against changes and against its deletion, use it, try to delete it, and remove the lock.",
        locks,
        minutes=3,
    ),
    Experiment(
        "policy",
        "What does an Azure Policy deny that requires customer-managed keys, and how?",
        "Assign the policy to the resource group, and change an account every minute until that is denied.",
        policy,
        minutes=45,
        accounts=2,
        length=Length.HOURS,
        cost="a vault, a key: less than a cent",
    ),
)
