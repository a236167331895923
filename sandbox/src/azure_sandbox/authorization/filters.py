# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The few OData filters that Microsoft.Authorization supports."""

from __future__ import annotations

import re
from dataclasses import dataclass

from . import errors
from .roles import RoleDefinition

_TERMS = {
    "at_scope": re.compile(r"atScope\(\)", re.IGNORECASE),
    "at_scope_and_below": re.compile(r"atScopeAndBelow\(\)", re.IGNORECASE),
    # Some clients put the guid in braces.
    "principal_id": re.compile(r"(?:principalId\s+eq\s+'\{?|assignedTo\('\{?)([^'{}]*)\}?'\)?", re.IGNORECASE),
    "role_name": re.compile(r"roleName\s+eq\s+'((?:[^']|'')*)'", re.IGNORECASE),
    "role_type": re.compile(r"type\s+eq\s+'([^']*)'", re.IGNORECASE),
}
_AND = re.compile(r"\s+and\s+(?=\w+(?:\(|\s+eq\s))", re.IGNORECASE)


@dataclass(frozen=True)
class Filter:
    at_scope: bool = False
    principal_id: str | None = None
    role_name: str | None = None
    role_type: str | None = None

    def takes(self, role: RoleDefinition) -> bool:
        return (self.role_name is None or self.role_name.lower() == role.name.lower()) and (
            self.role_type is None or self.role_type.lower() == role.kind.lower()
        )


def read(text: str) -> Filter:
    found: dict[str, str] = {}
    for term in _AND.split(text.strip()) if text.strip() else ():
        name, value = _term(term.strip(), text)
        found[name] = value
    return Filter("at_scope" in found, found.get("principal_id"), found.get("role_name"), found.get("role_type"))


def _term(term: str, text: str) -> tuple[str, str]:
    for name, pattern in _TERMS.items():
        if matched := pattern.fullmatch(term):
            return name, matched[1].replace("''", "'") if pattern.groups else ""
    raise errors.unsupported_filter(text)
