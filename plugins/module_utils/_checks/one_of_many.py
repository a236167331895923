# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The evidence on the key of one of many accounts. Pure: sends no requests.

_questions/fleet.py describes the data. If data could not be read, its value is the error with the reason.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .._core.errors import CmkError, Unavailable
from .._core.ids import KeyIdentifier
from .._documents.access import NEEDED, RoleAssignment
from .._documents.access import granted as granted_by
from .._documents.account import Account
from .._documents.identity import principals_of
from .diagnosis import Symptoms
from .preflight import Evidence

FleetData = Mapping[str, Any]


def observed_of(account: Account, key: KeyIdentifier, fleet: FleetData) -> Symptoms:
    """The evidence on the key of the account, and the versions of the key."""
    versions = fleet["keys"][key.versionless.folded]["versions"]
    return Symptoms(_evidence(account, key, fleet), versions=versions, is_report=True)


def _evidence(account: Account, key: KeyIdentifier, fleet: FleetData) -> Evidence:
    identity = account.get("identity", {})
    principals = principals_of(identity)
    vault = fleet["vaults"].get(key.vault)
    assignments, definitions = _grants(key, principals, vault, fleet)
    return Evidence(
        key=key,
        principals=principals,
        tenant_id=identity.get("tenantId") or fleet["tenant_id"],
        vault=vault,
        # The newest version, if the account follows the key.
        bundle=fleet["named"][key.folded] if key.version else fleet["keys"][key.folded]["newest"],
        assignments=assignments,
        definitions=definitions,
        now=fleet["now"],
    )


def _grants(
    key: KeyIdentifier, principals: Sequence[str], vault: Any, fleet: FleetData
) -> tuple[Any, Mapping[str, Any]]:
    """Role assignments by principal, and role definitions. If they could not be read, the error instead of the
    assignments. A vault with access policies has no assignments."""
    granted = fleet["grants"].get(key.versionless.folded, {})
    if isinstance(granted, CmkError):
        return granted, {}
    assignments = {one: granted.get("by_principal", {}).get(one.lower(), []) for one in principals}
    definitions, groups = fleet["definitions"], granted.get("of_groups", [])

    def may_use(principal: str, given: Sequence[RoleAssignment]) -> bool:
        return granted_by(vault, principal, key.name, given, definitions) == set(NEEDED)

    for principal, given in assignments.items():
        if groups and not may_use(principal, given) and may_use(principal, [*given, *groups]):
            through = ", ".join(sorted({one["properties"]["principalId"] for one in groups}))
            return Unavailable(
                f"{principal} may be a member of a group that has access ({through}); members of groups are not read."
            ), {}
    return assignments, definitions
