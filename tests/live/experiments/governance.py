# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Experiments with locks and Azure policies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ..azure import BATCH, LOCKS, POLICIES, RESTRICTIONS, Response
from ..experiment import Experiment, Length, Outcome
from ..lab import Lab

# The built-in policy "Azure Batch account should use customer-managed keys to encrypt data".
_KEY_POLICY = "/providers/Microsoft.Authorization/policyDefinitions/99e9ccd8-3db9-4592-b0d1-14b1715a4d8a"
_HERE = "providers/Microsoft.Authorization"
_DENIED = "RequestDisallowedByPolicy"
_POLICY_WITHIN = 2700
_NOTHING = "it does not name the assignment"


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
    encrypted = {"identity": lab.assigned(identity), "properties": lab.encryption(kid)}

    def expected(**body: Any) -> str:
        """What Azure Policy says about the creation of an account."""
        content = {"type": "Microsoft.Batch/batchAccounts", "location": lab.place.location, **body}
        asked = {"resourceDetails": {"resourceContent": content, "apiVersion": BATCH}}
        path = f"{lab.group}/providers/Microsoft.PolicyInsights/checkPolicyRestrictions"
        return restrictions(lab.azure.arm("POST", path, RESTRICTIONS, asked).required(), assignment)

    asked = {
        "a change of the tags is denied": lambda: _DENIED if change().checked(_DENIED).code == _DENIED else "",
        "checkPolicyRestrictions names the assignment": expected,
    }
    found = lab.first_times(
        "policy", dict.fromkeys(asked, assigned), lambda what: asked[what](), limit=_POLICY_WITHIN, step=60
    )
    lab.case("creation without a key", lambda: lab.tried(_DENIED).end.said)
    lab.case("creation with a key", lambda: lab.tried(_DENIED, **encrypted).end.said)
    lab.case("PATCH with a key", partial(_said, partial(lab.change, account, **encrypted), _DENIED))
    lab.case("checkPolicyRestrictions without a key", lambda: expected() or _NOTHING)
    lab.case("checkPolicyRestrictions with a key", lambda: expected(**encrypted) or _NOTHING)
    lab.azure.arm("DELETE", assignment, POLICIES).required()
    return Outcome(
        " ".join(
            f"Not within {_POLICY_WITHIN // 60} minutes: {what}."
            if span is None
            else f"{span.within:.0f} s after the assignment, {what}."
            for what, (span, _) in found.items()
        )
    )


def restrictions(document: Mapping[str, Any], assignment: str) -> str:
    """What a response of checkPolicyRestrictions says about the assignment; empty if it does not name it."""

    def names(policy: Mapping[str, Any]) -> bool:
        return str(policy.get("policyAssignmentId", "")).lower() == assignment.lower()

    evaluations = (document.get("contentEvaluationResult") or {}).get("policyEvaluations") or ()
    said = [
        f"{one.get('evaluationResult')} {(one.get('effectDetails') or {}).get('policyEffect', '')}".strip()
        for one in evaluations
        if names(one.get("policyInfo") or {})
    ]
    said += [
        f"{field.get('field')}: {one.get('result')} {', '.join(map(str, one.get('values') or ()))}".strip()
        for field in document.get("fieldRestrictions") or ()
        for one in field.get("restrictions") or ()
        if names(one.get("policy") or {})
    ]
    return "; ".join(said)


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
        "What does an Azure Policy deny that requires customer-managed keys, and does checkPolicyRestrictions show it?",
        "Assign the policy to the resource group, change an account every minute until that is denied, and ask "
        "checkPolicyRestrictions what the policy denies.",
        policy,
        minutes=45,
        accounts=2,
        length=Length.HOURS,
        cost="a vault, a key: less than a cent",
    ),
)
