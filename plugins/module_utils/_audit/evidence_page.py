# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The keys of the accounts as one HTML page for auditors: what the data prove for a requirement of a standard, what
they cannot prove, and the data of each key.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from .._checks.usage import ANY, NOT_IN_GRAPH
from .key_records import ACTIVE, DEACTIVATED, OWNER, PRE_ACTIVATION, SUSPENDED
from .page_frame import Page, framed
from .page_text import cards, count, day, length, names, prose, with_azure
from .report import open_findings, unseen

Report = Mapping[str, Any]
_STATES = (PRE_ACTIVATION, ACTIVE, SUSPENDED, DEACTIVATED)
_TONES = {ACTIVE: "ok", SUSPENDED: "info", DEACTIVATED: "medium", PRE_ACTIVATION: "low"}
_NOT_KNOWN, _NONE = "not known", "none"

_STYLE = """
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.5rem; margin: .5rem 0 }
dt { color: var(--soft) }
dd { margin: 0; overflow-wrap: anywhere }
@media screen and (max-width: 48rem) { dl { display: block } dd { margin-bottom: .5rem } }
"""


def as_evidence(report: Report) -> str:
    return framed(
        Page(
            title=f"Evidence for the keys of Batch accounts, {report['generated_on'][:10]}",
            header=_header(report),
            main=_not_seen(report) + _standards(report) + _changes(report) + "".join(_keys(report)),
            target="standards",
            skip="To the requirements",
            style=_STYLE,
        )
    )


def _header(report: Report) -> str:
    summary = report["summary"]
    return (
        "<h1>Evidence for the keys of Batch accounts</h1>"
        f'<p class="state">{count(len(report["keys"]), "key")} of '
        f"{summary['on_customer_managed_key']:,} of {count(summary['accounts'], 'account')}.</p>"
        f'<p class="soft">Read from Azure on {prose(report["generated_on"])}. What was not read is named, and is not '
        "proven.</p>"
    )


def _not_seen(report: Report) -> str:
    lines = [with_azure(one) for one in unseen(report)]
    lines += [
        f"Key {escape(key['key_name'])} in {escape(key['vault_name'])}: {escape(what)}: {with_azure(why)}"
        for key in report["keys"]
        for what, why in key["unknown"].items()
    ]
    shown = "".join(f"<div>{one}</div>" for one in lines)
    return f'<section><h2>Not seen</h2><div class="warning">{shown}</div></section>' if lines else ""


# Requirements of standards, in our own words


def _standards(report: Report) -> str:
    keys, versions = report["keys"], [one for key in report["keys"] for one in key["versions"] or ()]
    asked = report["options"]["max_version_age"]
    replaced = [one for one in versions if one["replaced_on"]]
    findings = [one for account in report["accounts"] for one in open_findings(account)]
    late = sum(one["id"] == "version_too_old" for one in findings)
    outdated = sum(one["id"] == "newer_version_unused" for one in findings)
    period = f"The cryptoperiod that was asked for is {escape(asked)}." if asked else "No cryptoperiod was asked for."
    ages = [one["version_age_days"] for one in report["accounts"] if one["key_identifier"]]
    said = f"Accounts beyond it: {late:,}{_hidden('account', ages)}." if asked else ""
    disabled = sum(not one["enabled"] for one in replaced)
    unlisted = _hidden("key", [one["versions"] for one in keys])
    rows = [
        (
            "PCI DSS 4.0.1, 3.7.4",
            "Keys are replaced at the end of a defined cryptoperiod.",
            f"{period} {said} {_rotated(keys)}",
            "That the cryptoperiod is adequate, and that a procedure exists.",
        ),
        (
            "PCI DSS 4.0.1, 3.7.5",
            "Keys that have ended, are weakened or may be compromised are replaced, and encrypt nothing more.",
            f"Replaced versions: {len(replaced):,}; disabled: {disabled:,}{unlisted}. "
            f"Accounts pinned to a replaced version: {outdated:,}.",
            "Whether a key was compromised. That a version is destroyed: Azure destroys whole keys only.",
        ),
        (
            "ISO/IEC 27001:2022, A.8.24",
            "Rules for the use of cryptography and for keys are defined and implemented.",
            f"The rules that were asked for are in <code>options</code> of the JSON report. Open findings: "
            f"{len(findings):,}; accepted by an exception: {report['summary']['accepted']:,}.",
            "That the rules are approved, and known to the people who apply them.",
        ),
        (
            "ISO/IEC 27001:2022, A.5.9",
            "An inventory of assets has their owners.",
            f"The JSON report lists all accounts, keys and their users. {_owned(keys)}",
            "That an owner knows of the key. Resources that Azure does not list.",
        ),
        (
            "NIST SP 800-57 Part 1",
            "Each key is in a known state.",
            f"Versions by state: {', '.join(f'{state} {_of_state(versions, state)}' for state in _STATES)}{unlisted}.",
            "The states compromised and destroyed. A suspended version can be enabled again.",
        ),
    ]
    heads = ("Requirement", "In our words", "What the data prove", "What they cannot prove")
    shown = [[f"<b>{name}</b>", *texts] for name, *texts in rows]
    return f'<section><h2 id="standards" tabindex="-1">Requirements</h2>{cards("Requirements", heads, shown)}</section>'


def _hidden(noun: str, values: Sequence[Any]) -> str:
    """For how many the value is not known."""
    hidden = sum(one is None for one in values)
    return f"; not known of {count(hidden, noun)}" if hidden else ""


def _rotated(keys: Sequence[Report]) -> str:
    policies = [one["rotation_policy"] for one in keys]
    return f"Keys that Key Vault rotates: {sum(map(_rotates, policies)):,}{_hidden('key', policies)}."


def _rotates(policy: Report | None) -> bool:
    return bool(policy and (policy["time_after_create"] or policy["time_before_expiry"]))


def _owned(keys: Sequence[Report]) -> str:
    missing = [one["key_name"] for one in keys if not one["owner"]]
    without = f" No owner: {names(missing)}." if missing else ""
    return f"Keys with the tag {OWNER}: {len(keys) - len(missing):,} of {len(keys):,}.{without}"


def _of_state(versions: Iterable[Report], state: str) -> int:
    return sum(one["state"] == state for one in versions)


def _changes(report: Report) -> str:
    found = report["comparison"]
    if found is None:
        return ""
    facts = [
        [name, f"{len(found[what]):,}", names([f"{one['name']}{_detail(one)}" for one in found[what]]) or _NONE]
        for name, what in (
            ("Accounts added", "added"),
            ("Accounts removed", "removed"),
            ("Findings opened", "opened"),
            ("Findings closed", "closed"),
            ("Values changed", "changed"),
        )
    ]
    table = cards("Changes", ("Change", "Number", "Accounts"), facts)
    return f"<section><h2>Changes since {prose(found['since'])}</h2>{table}</section>"


def _detail(change: Report) -> str:
    return f" ({change['finding']})" if "finding" in change else f" ({change['field']})" if "field" in change else ""


# Each key


def _keys(report: Report) -> Iterable[str]:
    accounts = {one["id"]: one for one in report["accounts"]}
    resources = {one["id"]: one["name"] for vault in report["vaults"] for one in vault["resources"] or ()}
    for key in report["keys"]:
        of_key = [accounts[one] for one in key["accounts"]]
        title = f"Key {escape(key['key_name'])} in vault {escape(key['vault_name'])}"
        labels = {**resources, **{one["id"]: one["name"] for one in of_key}}
        yield (
            f"<section><h2>{title}</h2>{_facts(key, of_key, resources, report)}{_versions(key, labels)}"
            f"{_exceptions(of_key)}{_drills(of_key, report['drills'])}</section>"
        )
    if report["keys"]:
        note = f" {NOT_IN_GRAPH}" if report["options"]["vault_used_by"] == ANY else ""
        yield (
            '<p class="soft">Azure records neither the first nor the last use of a version. Who disabled one is in '
            "the log AuditEvent of the vault, if a diagnostic setting keeps it, and not in the Activity Log."
            f"{escape(note)}</p>"
        )


def _facts(key: Report, accounts: Sequence[Report], resources: Mapping[str, str], report: Report) -> str:
    policy = key["rotation_policy"]
    period = ", ".join(f"{name} {value}" for name, value in (policy or {}).items() if value)
    users = None if key["resources"] is None else [resources[one] for one in key["resources"]]
    facts = {
        "Owner": escape(key["owner"] or _NONE),
        "Cryptoperiod asked for": escape(report["options"]["max_version_age"] or _NONE),
        "Rotation policy of Key Vault": escape(period) or (_NONE if policy else _NOT_KNOWN),
        "Accounts": names([one["name"] for one in accounts]),
        "Other services": _NOT_KNOWN if users is None else names(users) or _NONE,
    }
    if key["exists"] is False:
        gone = (
            prose(f"deleted on {key['deleted_on']}, purged on {key['purged_on']}") if key["deleted_on"] else "missing"
        )
        facts["State"] = gone
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{value}</dd>' for name, value in facts.items())}</dl>"


def _versions(key: Report, labels: Mapping[str, str]) -> str:
    if key["versions"] is None:
        return "<p>The versions are not known.</p>"
    rows = [
        [
            f'<code class="id" title="{escape(one["version"])}">{escape(one["version"])}</code>',
            f'<span class="mark {_TONES[one["state"]]}">{one["state"]}</span>',
            day(one["created_on"]),
            day(one["replaced_on"]) if one["replaced_on"] else "not replaced",
            day(one["changed_on"]) if not one["enabled"] and one["changed_on"] else "enabled" if one["enabled"] else "",
            day(one["expires_on"]) if one["expires_on"] else "no expiry",
            names([labels[user] for user in one["used_by"]]) or _NONE,
        ]
        for one in key["versions"]
    ]
    heads = ("Version", "State", "Created", "Replaced", "Disabled", "Expires", "Pinned to it")
    note = '<p class="soft">Disabled: the last change of the version. It was disabled on that day or earlier.</p>'
    is_disabled = any(not one["enabled"] for one in key["versions"])
    return cards(f"Versions of {escape(key['key_name'])}", heads, rows) + (note if is_disabled else "")


def _exceptions(accounts: Sequence[Report]) -> str:
    rows = [
        [escape(account["name"]), one["id"], escape(one["exception"]["reason"]), escape(one["exception"]["expires_on"])]
        for account in accounts
        for one in account["findings"]
        if one["accepted"]
    ]
    return cards("Exceptions", ("Account", "Finding", "Reason", "Last day"), rows)


def _drills(accounts: Sequence[Report], drills: Sequence[Report] | None) -> str:
    if drills is None:
        return "<p>Reports of drills were not asked for.</p>"
    ids = {one["id"].lower() for one in accounts}
    last = max(
        (one for one in drills if one["account_id"].lower() in ids),
        key=lambda one: str(one["started_at"]),
        default=None,
    )
    if last is None:
        return "<p>No drill of an account on this key is reported.</p>"
    took = last["seconds_until_recovered"]
    recovered = f", recovered after {length(took)}" if took is not None else ""
    result = "passed" if last["passed"] else "not passed"
    name = escape(last["account_id"].rpartition("/")[2])
    return f"<p>Last drill: {name}, {prose(last['started_at'])}, {escape(last['kind'])}, {result}{recovered}.</p>"
