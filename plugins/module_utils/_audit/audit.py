# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An audit from its options to its reports.

This module util is private to the collection.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .._checks.usage import not_listed
from .._core.errors import InvalidOption, Refused
from .._core.outcome import Outcome
from . import comparison, drill_page, files
from .options import POLICY, SCOPE, scope
from .policy import Policy, policy
from .report import FORMAT, at_least, not_read, unseen, whole
from .rules import CRITICAL

_NAME = re.compile(r"[\w.-]+")
# The number of lines that are returned beside the reports.
_MOST_LINES = 100


def run(params: Mapping[str, Any], cloud: Any, *, writes: bool) -> Outcome:
    """Run an audit and write its reports. Invalid options and folders are refused before any data is read."""
    asked = {name: params[name] for name in (*SCOPE, *POLICY, "vault_used_by")}
    rules, where, name = policy(params), scope(params), params["name"]
    if not _NAME.fullmatch(name):
        raise InvalidOption(
            "name", name, "this is not a file name.", "Use letters, digits, dots, hyphens, underscores."
        )
    previous = files.read(params["compare_with"], "compare_with", FORMAT) if params["compare_with"] else None
    folder = files.prepared(params["folder"]) if params["folder"] and writes else None
    report = whole(cloud.fleet(where), rules, asked)
    report["comparison"] = comparison.compared(previous, report) if previous else None
    report["drills"] = _last_drills(report, params["drill_folder"])
    written = files.write(report, folder, name, params["formats"]) if folder else {}
    if folder and "evidence" in written:
        written["checksums"] = files.write_checksums(written.values(), folder, name)
    may_fail = params["fail_on"] != "never"
    grave = at_least(report, params["fail_on"] if may_fail else CRITICAL)
    hidden = unseen(report)
    returned = describe(report, grave, hidden, written)
    if params["return_accounts"]:
        returned |= {"accounts": report["accounts"], "vaults": report["vaults"]}
    warnings = tuple(_warnings(report, rules, params, previous))
    if may_fail and (grave or hidden):
        result = {**returned, **({"warnings": list(warnings)} if warnings else {})}
        raise _failed(report, grave, hidden, params["fail_on"], result)
    return Outcome(False, {}, {}, warnings, returned)


def _last_drills(report: Mapping[str, Any], folder: str | None) -> list[dict[str, Any]] | None:
    """The last drill of each account of the report; None without a folder."""
    if not folder:
        return None
    accounts = {one["id"].lower() for one in report["accounts"]}
    last = {one["account_id"].lower(): dict(one) for one in drill_page.reports(Path(folder).expanduser())}
    return [one for name, one in last.items() if name in accounts]


def summary(counts: Mapping[str, Any], unread: str) -> str:
    """One line for a person. `unread` is what could not be read (`incomplete`)."""
    states, number = counts["states"], counts["accounts"]
    if not number:
        return f"Incomplete: {unread}"
    findings = ", ".join(f"{name} ({count})" for name, count in counts["findings"].items())
    accepted = counts["accepted"]
    exceptions = f" Accepted by exceptions: {accepted} finding{'' if accepted == 1 else 's'}." if accepted else ""
    under_way = f"{states['under_way']} being created or deleted, " if states["under_way"] else ""
    return (
        f"{states['at_risk']} of {number} Batch account{'' if number == 1 else 's'} at risk, "
        f"{states['non_compliant']} non-compliant, {states['unknown']} unknown, {under_way}{states['ok']} ok."
        f"{f' Incomplete: {unread}' if unread else ''}{f' Findings: {findings}.' if findings else ''}"
        f"{exceptions} On customer-managed keys: {counts['on_customer_managed_key']}."
    )


def describe(
    report: Mapping[str, Any], grave: Sequence[str], hidden: Sequence[str], written: Mapping[str, str]
) -> dict[str, Any]:
    """The values that are returned beside the reports. `grave` are lines of the most severe findings, and `hidden` what
    could not be read."""
    return {
        "summary": " ".join(filter(None, (summary(report["summary"], incomplete(report, hidden)), _changes(report)))),
        "counts": report["summary"],
        "unlisted_subscriptions": report["unlisted_subscriptions"],
        "unlisted": report["unlisted"],
        "files": dict(written),
        "findings": list(grave[:_MOST_LINES]),
        "comparison": _counted(report["comparison"]),
    }


def _changes(report: Mapping[str, Any]) -> str:
    return comparison.summary(report["comparison"]) if report["comparison"] else ""


def _counted(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {name: value if isinstance(value, str) else len(value) for name, value in found.items()}


def _failed(
    report: Mapping[str, Any],
    grave: Sequence[str],
    hidden: Sequence[str],
    severity: str,
    returned: Mapping[str, Any],
) -> Refused:
    unread = f"The audit is incomplete. {incomplete(report, hidden)}" if hidden else ""
    where, changes = _where(returned["files"]), _changes(report)
    if not grave:
        remedy = _remedy_of_incomplete(report)
        message = " ".join(filter(None, (unread, changes, where, remedy)))
        return Refused(message, code="audit_incomplete", remedy=remedy, **returned)
    kind = severity if severity == CRITICAL else f"{severity} or higher"
    # An account that has lost its key has two findings. The message names as many accounts as possible.
    first: dict[str, str] = {}
    for line in grave:
        first.setdefault(line.partition(":")[0], line)
    some = _some([*dict.fromkeys([*first.values(), *grave])])
    found = f"{len(grave)} open {'finding' if len(grave) == 1 else 'findings'} of severity {kind}: {some}"
    return Refused(
        " ".join(filter(None, (found, changes, unread, where))),
        code="audit_failed",
        remedy="Fix the findings as the report describes, or set O(exceptions) to accept them until a date.",
        **returned,
    )


def _remedy_of_incomplete(report: Mapping[str, Any]) -> str:
    accounts, unread = report["accounts"], not_read(report)
    advice = []
    if not accounts or report["unlisted"] or any(one["missing_rights"] for one in unread):
        advice.append("grant the caller the roles Reader and Key Vault Reader at the subscriptions")
    if not accounts or report["unlisted"]:
        advice.append("correct the scope of the audit")
    if not all(one["missing_rights"] for one in unread):
        advice.append("follow the remedies in the report")
    if unread:
        advice.append("set O(exceptions) to accept the finding not_read until a date")
    remedy = ", ".join(advice)
    return f"{remedy[0].upper()}{remedy[1:]}, or set O(fail_on=never)."


def _where(files: Mapping[str, str]) -> str:
    """Names the folder and the page only, because the names of all files are longer than the message."""
    if not files:
        return ""
    folder = os.path.dirname(next(iter(files.values()))) or "."
    page = f"See {files['html']}. " if "html" in files else ""
    return f"{page}The folder {folder} has the reports."


def incomplete(report: Mapping[str, Any], hidden: Sequence[str]) -> str:
    """What could not be read, with all accounts that were read in part, however many subscriptions were not listed."""
    unlisted = len(report["unlisted"])
    return " ".join(filter(None, (_some(hidden[:unlisted]), *hidden[unlisted:])))


def _some(lines: Sequence[str]) -> str:
    return " ".join(lines[:3]) + (f" And {len(lines) - 3} more." if len(lines) > 3 else "")


def _warnings(
    report: Mapping[str, Any], rules: Policy, params: Mapping[str, Any], previous: Mapping[str, Any] | None
) -> Iterator[str]:
    accounts = report["accounts"]
    yield from map(not_listed, report["unlisted"])
    if not accounts:
        yield "The caller can read no Batch account in this scope."
    if params["compare_with"] and previous is None:
        yield f"The earlier report {params['compare_with']} does not exist, so no changes are reported."
    if params["drill_folder"] and not report["drills"]:
        yield f"O(drill_folder) {params['drill_folder']} has no report of a drill of these accounts."
    if previous:
        for name in SCOPE:
            now, before = report["options"][name], previous["options"].get(name)
            if now != before:
                yield (
                    f"O({name}) is {json.dumps(now)}, and was {json.dumps(before)} in the earlier report, so some "
                    "differences may not be changes."
                )
    # If an item is misspelled, it requires a key of no account, and no finding shows that.
    for selector, given in zip(rules.required, params["required"], strict=True):
        if accounts and not any(selector.fits(account) for account in accounts):
            said = {name: value for name, value in given.items() if value}
            near = "".join(f" Did you mean {one}?" for one in selector.closest(accounts))
            yield f"No account matches the item {json.dumps(said)}.{near} Correct O(required)."
    for one in report["unused_exceptions"]:
        yield f"The exception of {one['finding']} for {', '.join(one['accounts'])} matches no finding."
