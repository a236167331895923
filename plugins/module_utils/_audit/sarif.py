# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A report in SARIF 2.1.0 (docs.oasis-open.org/sarif), which code scanning services accept.

This module util is private to the collection.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .report import unseen
from .rules import CRITICAL, HIGH, INFO, LOW, MANUAL, MEDIUM

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS = {CRITICAL: "error", HIGH: "error", MEDIUM: "warning", LOW: "note", INFO: "note"}
# GitHub sorts by this number, from 0 to 10 ("SARIF support for code scanning", security-severity).
_SCORES = {CRITICAL: "9.5", HIGH: "8.0", MEDIUM: "5.5", LOW: "2.0", INFO: "0.0"}


def as_sarif(report: Mapping[str, Any]) -> str:
    names, hidden = list(report["rules"]), unseen(report)
    run = {
        "tool": {
            "driver": {
                "name": "azbatch.cmk",
                "informationUri": MANUAL,
                "rules": [_rule(name, report["rules"][name]) for name in names],
            }
        },
        "columnKind": "unicodeCodePoints",
        # Otherwise a run without results would mean that there are no findings.
        "invocations": [
            {
                "executionSuccessful": not hidden,
                "toolExecutionNotifications": [{"level": "error", "message": {"text": line}} for line in hidden],
            }
        ],
        "results": [
            _result(account, finding, names) for account in report["accounts"] for finding in account["findings"]
        ],
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1) + "\n"


def _rule(name: str, rule: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": name,
        "shortDescription": {"text": rule["title"]},
        "fullDescription": {"text": rule["why"]},
        "help": {"text": rule["remedy"]},
        "helpUri": f"{MANUAL}#{name}",
        "defaultConfiguration": {"level": _LEVELS[rule["severity"]]},
        "properties": {"security-severity": _SCORES[rule["severity"]], "tags": ["security"]},
    }


def _result(account: Mapping[str, Any], finding: Mapping[str, Any], names: list[str]) -> dict[str, Any]:
    suppressions = []
    if finding["accepted"]:
        justification = finding["exception"]["reason"]
        suppressions.append({"kind": "external", "status": "accepted", "justification": justification})
    return {
        "ruleId": finding["id"],
        "ruleIndex": names.index(finding["id"]),
        "level": _LEVELS[finding["severity"]],
        "message": {"text": f"{account['name']}: {finding['evidence']} {finding['remedy']}"},
        "locations": [
            {
                # Services that show results require the path of a file in a repository. The account's id is used
                # instead.
                "physicalLocation": {"artifactLocation": {"uri": account["id"].lstrip("/")}},
                "logicalLocations": [{"fullyQualifiedName": account["id"], "kind": "resource"}],
            }
        ],
        "partialFingerprints": {"azbatch/v1": f"{account['id'].lower()}#{finding['id']}"},
        **({"suppressions": suppressions} if suppressions else {}),
    }
