# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The findings of one account by the rules and the organization's policy. Pure: sends no requests.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from .._core.duration import instant, moment
from .._documents import account as account_document
from .._documents import vault as vault_document
from . import causes
from .assessment import Assessment, Newer
from .policy import Policy
from .rules import CRITICAL, INFO, RULES, SEVERITIES

Record = Mapping[str, Any]

AT_RISK, BREAKS_RULES, UNKNOWN, CHANGING, OK = "at_risk", "non_compliant", "unknown", "under_way", "ok"
# The most severe first.
STATES = (AT_RISK, BREAKS_RULES, UNKNOWN, CHANGING, OK)


class Found(NamedTuple):
    rule: str
    evidence: str
    # If it differs from that of the rule.
    remedy: str = ""
    # The time until which somebody can repair the finding, or until which the account keeps its key. None if there is
    # no such time, or if it is not known.
    deadline: str | None = None


def with_findings(assessment: Assessment, policy: Policy, now: float) -> dict[str, Any]:
    """The account's record with its findings, and with the state that follows from the findings."""
    record = assessment.record
    if record["provisioning_state"] in account_document.UNDER_WAY:
        # The roles and modules leave such an account alone, so no remedy applies.
        return {**record, "findings": [], "state": CHANGING}
    found = [_finding(one, record, policy, now) for one in _of_account(assessment, policy, now)]
    found.sort(key=lambda one: SEVERITIES.index(one["severity"]))
    of_findings = causes.of_account(record, found)
    with_causes = [{**one, "cause": cause} for one, cause in zip(found, of_findings, strict=True)]
    return {**record, "findings": with_causes, "state": _state(found)}


def _finding(found: Found, record: Record, policy: Policy, now: float) -> dict[str, Any]:
    rule = RULES[found.rule]
    fitting = (one for one in policy.exceptions if one.is_for(record, finding=found.rule))
    exception = max(fitting, key=lambda one: one.ends, default=None)
    return {
        "id": found.rule,
        "severity": rule.severity,
        "evidence": found.evidence,
        "remedy": found.remedy or rule.remedy,
        "deadline": found.deadline,
        "accepted": exception is not None and now < exception.ends,
        "exception": exception.describe() if exception else None,
    }


def _state(found: list[dict[str, Any]]) -> str:
    open_ones = [one for one in found if not one["accepted"]]
    if any(one["severity"] == CRITICAL for one in open_ones):
        return AT_RISK
    if any(one["id"] != "not_read" and one["severity"] != INFO for one in open_ones):
        return BREAKS_RULES
    return UNKNOWN if any(one["id"] == "not_read" for one in found) else OK


def _of_account(assessment: Assessment, policy: Policy, now: float) -> Iterator[Found]:
    for cause in assessment.causes:
        # The remedy of a cause names a module, and the files that repair the finding may run a role.
        remedy = "" if RULES[cause.name].repair else cause.remedy
        yield Found(cause.name, cause.evidence, remedy, cause.deadline)
    if assessment.newer:
        yield _of_newer(assessment.newer, assessment.record["key_version"])
    yield from _of_expiry(assessment, policy)
    yield from (Found(*one) for one in _of_record(assessment.record, policy, now))


def _of_newer(newer: Newer, pinned: str) -> Found:
    evidence = f"Version {newer.version} is newer than version {pinned}, and can be used."
    if newer.newest_unusable:
        evidence += f" The newest version cannot be used: {newer.newest_unusable[0].lower()}{newer.newest_unusable[1:]}"
    return Found("newer_version_unused", evidence, newer.remedy)


def _of_expiry(assessment: Assessment, policy: Policy) -> Iterator[Found]:
    record, others = assessment.record, assessment.expiring
    expires_on, left = record["expires_on"], record["days_left"]
    # An expired version is reported as a cause why the account cannot use its key.
    if left is not None and 0 <= left < policy.min_days_to_expiry:
        evidence = f"Version {record['version']} expires on {expires_on}, in {left} days."
        if others:
            evidence, expires_on = f"{evidence} {others.evidence}", min(expires_on, others.first)
        yield Found("key_expires_soon", evidence, deadline=expires_on)
    elif others:
        remedy = "Set a later expiry of that version, for example with az keyvault key set-attributes. A rotation does "
        remedy += "not help, because Batch may need the version nevertheless."
        yield Found("key_expires_soon", others.evidence, remedy, others.first)


def _of_record(record: Record, policy: Policy, now: float) -> Iterator[tuple[str, str]]:
    if record["available"] is False:
        yield "account_unavailable", record["unavailable_reason"]
    if record["provisioning_state"] == account_document.FAILED:
        yield "account_failed", "The account is in the provisioning state Failed."
    if record["key_identifier"]:
        yield from _of_vault(record, policy)
        yield from _of_key(record, policy)
        yield from _of_version(record, policy, now)
    elif policy.requires_key_of(record):
        yield "not_on_customer_managed_key", "The account uses a Microsoft-managed key."
    yield from _of_pools(record)
    if record["unknown"]:
        yield "not_read", " ".join(f"{what}: {why}" for what, why in record["unknown"].items())


def _of_vault(record: Record, policy: Policy) -> Iterator[tuple[str, str]]:
    name, vault = record["vault_name"], record["vault"]
    if policy.allowed_vaults and name not in policy.allowed_vaults:
        yield "vault_not_allowed", f"The vault {name} is not one of {', '.join(sorted(policy.allowed_vaults))}."
    if vault is None:
        return
    if not vault["soft_delete"]:
        yield "vault_without_soft_delete", f"Soft delete is off on {name}."
    if not vault["purge_protection"]:
        yield "vault_without_purge_protection", f"Purge protection is off on {name}."
    if policy.rbac_only and vault["authorization"] != vault_document.RBAC:
        yield "vault_uses_access_policies", f"{name} uses access policies."


def _of_key(record: Record, policy: Policy) -> Iterator[tuple[str, str]]:
    kind, size = record["key_type"], record["key_size"]
    if kind and policy.key_types and kind not in policy.key_types:
        yield "key_type_not_allowed", f"The key's type is {kind}, which is not one of {', '.join(policy.key_types)}."
    if size and policy.min_key_size and size < policy.min_key_size:
        yield "key_too_small", f"The key has {size} bits, fewer than {policy.min_key_size}."
    if record["follows_latest"] and record["rotated_by_key_vault"] is False:
        yield "follows_without_rotation", f"No rotation policy creates new versions of the key {record['key_name']}."


def _of_version(record: Record, policy: Policy, now: float) -> Iterator[tuple[str, str]]:
    version, created = record["version"], moment(record["version_created_on"])
    if version and record["expires_on"] is None and policy.expiry_required:
        yield "key_without_expiry", f"Version {version} does not expire."
    if created is not None and policy.max_version_age is not None and now - created >= policy.max_version_age:
        until = instant(created + policy.max_version_age)
        yield (
            "version_too_old",
            f"Version {version} was created {record['version_age_days']} days ago, and was to be replaced by {until}.",
        )


def _of_pools(record: Record) -> Iterator[tuple[str, str]]:
    pools = record["pools"] or ()
    bare = [pool["name"] for pool in pools if not pool["encrypted_by"]]
    keyed = [f"{pool['name']} ({pool['key']})" for pool in pools if pool["key"]]
    pinned = [f"{pool['name']} ({pool['key']})" for pool in pools if pool["key_follows_latest"] is False]
    if bare:
        yield "pool_disks_not_encrypted", f"These pools have no disk encryption: {', '.join(bare)}."
    if pinned:
        yield "pool_key_pinned", f"These pools with their own key are pinned to a version: {', '.join(pinned)}."
    if keyed:
        yield "pool_uses_other_key", f"These pools use their own keys: {', '.join(keyed)}."
