# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long an error may be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

LONGEST = 200
# The values of an error that may have several lines, each of at most LONGEST characters.
SEVERAL = {
    "problems": "all wrong options",
    "missing_rights": "all missing rights",
    "failed_checks": "all failed checks of a key",
    "causes": "all causes",
    "pools": "the users, and why there may be more",
    "restored": "why the change failed, and what happened to it",
    "applied": "why the change failed, and what happened to it",
}
# The path of Python in a command is as long as it is.
_INTERPRETER = re.compile(r"\S*/python[\d.]*")
# The account is not available either.
TWO = ("account_on_another_key",)
# Codes of reports as errors, which name as many accounts as possible with the reasons.
REPORTS = ("audit_failed", "audit_incomplete")


def why_too_long(msg: str, facts: Mapping[str, Any]) -> str | None:
    """Why the message of an error with these values is too long; None if it is short enough."""
    if facts.get("code") in REPORTS:
        return None
    lines = _INTERPRETER.sub("python", msg).splitlines()
    if len(lines) > 1 and not SEVERAL.keys() & facts.keys() and facts.get("code") not in TWO:
        return f"several lines: {msg}"
    return next((f"{len(line)} characters: {line}" for line in lines if len(line) > LONGEST), None)
