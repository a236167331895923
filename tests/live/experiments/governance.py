# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Experiments with locks and Azure policies."""

from __future__ import annotations

from functools import partial

from ..azure import LOCKS, POLICIES
from ..experiment import Experiment, Length, Outcome
from ..lab import Lab

# The built-in policy "Azure Batch account should use customer-managed keys to encrypt data".
_KEY_POLICY = "/providers/Microsoft.Authorization/policyDefinitions/99e9ccd8-3db9-4592-b0d1-14b1715a4d8a"
_HERE = "providers/Microsoft.Authorization"
_POLICY_WITHIN = 2700


def locks(lab: Lab) -> Outcome:
    account = lab.once("account", lab.account)
    found = {}
    for level in ("ReadOnly", "CanNotDelete"):
        lock = f"{lab.account_path(account)}/{_HERE}/locks/azbatch-live"
        lab.azure.arm("PUT", lock, LOCKS, {"properties": {"level": level}}).required()
        lab.settle()
        for what, response in lab.uses(account).items():
            found[f"{level}: {what}"] = response.said
        found[f"{level}: delete the account"] = lab.delete_account(account).said
        lab.azure.arm("DELETE", lock, LOCKS).required()
        lab.settle()
    return Outcome("Used and deleted an account with each kind of lock.", details=found)


def policy(lab: Lab) -> Outcome:
    account = lab.once("account", lab.account)
    assignment = f"{lab.group}/{_HERE}/policyAssignments/azbatch-live"
    parameters = {"effect": {"value": "Deny"}}
    body = {"properties": {"policyDefinitionId": _KEY_POLICY, "parameters": parameters}}
    began = lab.once(
        "assigned", partial(lab.timed, lambda: lab.azure.arm("PUT", assignment, POLICIES, body).required())
    )
    change = partial(lab.change, account, tags={"probe": "1"})
    seconds = lab.first(lambda: not change().ok, limit=_POLICY_WITHIN, step=60, began=began)
    if seconds is None:
        seen = f"Azure accepted changes for {_POLICY_WITHIN // 60} minutes."
    else:
        seen = f"Azure denied a change of the tags {seconds:.0f} s after the assignment: {change().said}."
    found = {}
    identity = lab.once("identity", lab.identity)
    kid = lab.once("key", lambda: lab.key(lab.vault(identity["principal"])))
    encrypted = {"identity": lab.assigned(identity), "properties": lab.encryption(kid)}
    found["creation without a key"] = lab.created().said
    found["creation with a key"] = lab.created(**encrypted).said
    found["PATCH with a key"] = lab.change(account, **encrypted).said
    lab.azure.arm("DELETE", assignment, POLICIES).required()
    return Outcome(seen, details=found)


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
