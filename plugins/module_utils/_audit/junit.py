# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A report as JUnit XML for pipelines, with a test case for each account. The case fails if the account has an open
finding of a higher severity than info, which requires no action. Each line of what could not be read (report.unseen)
is a test case with an error.

The strictest schema in use is that of Apache Ant, in which a test case has no output. Therefore the output of the suite
has the other findings.

This module util is private to the collection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as xml

from .report import open_findings, unseen
from .rules import INFO

# Characters that XML 1.0 cannot contain.
_UNSAYABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def as_junit(report: Mapping[str, Any]) -> str:
    accounts, hidden = report["accounts"], unseen(report)
    failures = sum(1 for account in accounts if _failing(account))
    suites = xml.Element("testsuites")
    counts = {"id": 0, "tests": len(accounts) + len(hidden), "failures": failures, "errors": len(hidden), "time": 0}
    suite = xml.SubElement(
        suites,
        "testsuite",
        {
            "name": "Batch accounts and their keys",
            "package": "azbatch.cmk.audit",
            "hostname": "localhost",
            "timestamp": report["generated_on"].removesuffix("Z"),
            **{name: str(value) for name, value in counts.items()},
        },
    )
    xml.SubElement(suite, "properties")
    for number, line in enumerate(hidden, 1):
        named = {"classname": "azbatch.cmk.audit", "name": f"Not read: {number}", "time": "0"}
        error = xml.SubElement(xml.SubElement(suite, "testcase", named), "error", {"type": "not_read"})
        error.set("message", _text(line))
    for account in accounts:
        _case(suite, account)
    xml.SubElement(suite, "system-out").text = _text("\n".join(line for one in accounts for line in _others(one)))
    xml.SubElement(suite, "system-err")
    return xml.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _case(suite: xml.Element, account: Mapping[str, Any]) -> None:
    place = f"{account['subscription_id']}.{account['resource_group']}"
    case = xml.SubElement(suite, "testcase", {"classname": _text(place), "name": _text(account["name"]), "time": "0"})
    failing = _failing(account)
    if failing:
        kinds = ", ".join(one["id"] for one in failing)
        failure = xml.SubElement(case, "failure", {"type": failing[0]["severity"], "message": _text(kinds)})
        failure.text = _text("\n".join(_line(one) for one in failing))


def _others(account: Mapping[str, Any]) -> list[str]:
    """The findings for which the test case does not fail."""
    others = [_line(one) for one in open_findings(account) if one["severity"] == INFO]
    accepted = [one for one in account["findings"] if one["accepted"]]
    others += [f"Accepted: {_line(one)} {one['exception']['reason']}" for one in accepted]
    return [f"{account['name']}: {line}" for line in others]


def _failing(account: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [one for one in open_findings(account) if one["severity"] != INFO]


def _line(finding: Mapping[str, Any]) -> str:
    return f"{finding['severity']}: {finding['id']}: {finding['evidence']} {finding['remedy']}"


def _text(text: str) -> str:
    return _UNSAYABLE.sub("?", text)
