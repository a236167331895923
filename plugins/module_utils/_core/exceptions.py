# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Exceptions: what is accepted of an account until a date, in the audit and in the playbooks.

This module util is private to the collection.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any, get_args

from .errors import MANUAL, Code, InvalidOption

# The option of the audit, and the variable of the playbooks.
OPTION: dict[str, Any] = {
    "type": "list",
    "elements": "dict",
    "default": [],
    "options": {
        # A choice of Ansible would list all ids in the message of a wrong one.
        "finding": {"type": "str"},
        "code": {"type": "str"},
        "accounts": {"type": "list", "elements": "str", "required": True},
        "reason": {"type": "str", "required": True},
        "expires_on": {"type": "str", "required": True},
    },
}
_CODES: tuple[str, ...] = get_args(Code)


@dataclass(frozen=True)
class Exemption:
    # What is accepted: a finding of the audit, a code of an error, or both.
    finding: str | None
    code: str | None
    # Patterns of names and ids, in lower case.
    accounts: tuple[str, ...]
    reason: str
    # The last day, such as 2027-03-31, and its end in seconds since 1970.
    expires_on: str
    ends: float

    def is_for(self, account: Mapping[str, Any], *, finding: str | None = None, code: str | None = None) -> bool:
        """Whether the exception accepts the finding, or the error with the code, of the account."""
        is_same = (finding and self.finding == finding) or (code and self.code == code)
        return bool(is_same) and matches(self.accounts, account)

    def describe(self) -> dict[str, Any]:
        return {"reason": self.reason, "expires_on": self.expires_on}


def exemption(wanted: Mapping[str, Any], findings: Collection[str] = (), manual: str = "") -> Exemption:
    """The exception of an item of the option `exceptions`. If there are `findings`, with the address of their `manual`,
    its finding must be one of them. Raises InvalidOption."""
    finding, code, day = wanted.get("finding"), wanted.get("code"), wanted["expires_on"]
    if not finding and not code:
        remedy = "Set finding to a finding of the audit, code to the code of an error, or both."
        raise InvalidOption("exceptions", wanted, "it has neither finding nor code.", remedy)
    for kind, name, known, page in (("finding", finding, findings, manual), ("error code", code, _CODES, MANUAL)):
        if name and known and name not in known:
            near = get_close_matches(name, known, n=1)
            advice = f"Did you mean {near[0]}?" if near else f"See {page}."
            raise InvalidOption("exceptions", wanted, f"there is no {kind} {name!r}.", advice)
    if not wanted["reason"].strip():
        raise InvalidOption("exceptions", wanted, "its reason is empty.", "Set it to the reason of the exception.")
    try:
        begins = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        problem = f"its expires_on, {day!r}, is not a date."
        raise InvalidOption("exceptions", wanted, problem, "Use for example 2027-03-31.") from None
    accounts = tuple(str(name).lower() for name in wanted["accounts"])
    return Exemption(finding, code, accounts, wanted["reason"].strip(), day, begins.timestamp() + 86400)


def matches(patterns: Sequence[str], account: Mapping[str, Any]) -> bool:
    """Whether the name or the id of the account matches a pattern with the wildcards * and ?. Patterns are in lower
    case."""
    names = account["name"].lower(), account["id"].lower()
    return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in patterns)
