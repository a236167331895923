# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Experiments with locks and Azure policies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from azure_sandbox.shared.behavior import POSITIONS

from ..azure import BATCH, LOCKS, POLICIES, RESTRICTIONS, NoResult, Response
from ..experiment import Experiment, Length, Outcome
from ..lab import Lab, longer_than

# The built-in policy "Azure Batch account should use customer-managed keys to encrypt data".
_KEY_POLICY = "/providers/Microsoft.Authorization/policyDefinitions/99e9ccd8-3db9-4592-b0d1-14b1715a4d8a"
_HERE = "providers/Microsoft.Authorization"
_DENIED = "RequestDisallowedByPolicy"
_POLICY_WITHIN = 2700
# A change that the policy denies, and a change of an account that complies.
_CHANGE = "a change of the tags of an account without a key is denied"
_TAGS = "PATCH of the tags of an account with a key"
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
    on_key = lab.once("account on a key", lambda: lab.account_on_key(kid, identity))
    change = partial(lab.change, account, tags={"probe": "1"})
    # Otherwise a policy of the subscription would be measured.
    change().checked().required()
    assignment = f"{lab.group}/{_HERE}/policyAssignments/azbatch-live"
    parameters = {"effect": {"value": "Deny"}}
    body = {"properties": {"policyDefinitionId": _KEY_POLICY, "parameters": parameters}}
    assign = partial(lab.azure.arm, "PUT", assignment, POLICIES, body)
    assigned = lab.once("assigned", lambda: lab.timed(lambda: assign().required()))
    encrypted = {"identity": lab.assigned(identity), "properties": lab.encryption(kid)}
    named = "checkPolicyRestrictions names the assignment"

    def expected(**body: Any) -> str:
        """What Azure Policy says about the creation of an account."""
        content = {"type": "Microsoft.Batch/batchAccounts", "location": lab.place.location, **body}
        asked = {"resourceDetails": {"resourceContent": content, "apiVersion": BATCH}}
        path = f"{lab.group}/providers/Microsoft.PolicyInsights/checkPolicyRestrictions"
        return restrictions(lab.azure.arm("POST", path, RESTRICTIONS, asked).required(), assignment)

    asked = {
        _CHANGE: lambda: _DENIED if change().checked(_DENIED).code == _DENIED else "",
        named: expected,
    }
    found = lab.first_times(
        "policy", dict.fromkeys(asked, assigned), lambda what: asked[what](), limit=_POLICY_WITHIN, step=30
    )
    lab.case("creation without a key", lambda: lab.tried(_DENIED).end.said)
    lab.case("creation with a key", lambda: lab.tried(_DENIED, **encrypted).end.said)
    lab.case("PATCH with a key", partial(_said, partial(lab.change, account, **encrypted), _DENIED))
    lab.case(_TAGS, partial(_said, partial(lab.change, on_key, tags={"probe": "2"}), _DENIED))
    lab.case("checkPolicyRestrictions without a key", lambda: expected() or _NOTHING)
    lab.case("checkPolicyRestrictions with a key", lambda: expected(**encrypted) or _NOTHING)
    lab.azure.arm("DELETE", assignment, POLICIES).required()
    seen = " ".join(
        f"Not within {_POLICY_WITHIN // 60} minutes: {what}."
        if span is None
        else f"{span.within:.0f} s after the assignment, {what}."
        for what, (span, _) in found.items()
    )
    if _CHANGE not in found:
        raise NoResult(f"It is not known since when {_CHANGE}.")
    denied = found[_CHANGE][0]
    if denied is None:
        return Outcome(seen, spans={"policy_lag": longer_than(_POLICY_WITHIN)})
    positions: dict[str, tuple[str, ...]] = {}
    if patched := lab.answers.get(_TAGS):
        positions["policy_patch"] = ("bare",) if _DENIED in patched else ("merged",) if patched[0] == "2" else ()
    if named in found:
        # The caller can read all policies of the resource group.
        positions["policy_check_scopes"] = ("none",) if found[named][0] is None else ("readable", "all")
    return Outcome(seen, positions, spans={"policy_lag": denied})


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
        "Assign the policy to the resource group, change an account every 30 s until that is denied, and ask "
        "checkPolicyRestrictions what the policy denies.",
        policy,
        minutes=45,
        accounts=3,
        switches={
            "policy_lag": {one: f"after {one} s" for one in POSITIONS["policy_lag"]},
            "policy_patch": {"bare": "tags of an account with a key cannot be changed", "merged": "they can"},
            "policy_check_scopes": {
                "none": "checkPolicyRestrictions does not name the policy",
                **dict.fromkeys(("readable", "all"), "it names a policy that the caller can read"),
            },
        },
        length=Length.HOURS,
        creates="a vault, a key",
        cents=1,
    ),
)
