# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of azbatch.cmk.batch_account_identity, checked.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..._core.errors import Problems
from ..._core.ids import KeyIdentifier, UserAssignedId, check_account_name, parse_key_identifier, parse_user_assigned_id
from .document import SYSTEM_ASSIGNED, USER_ASSIGNED


@dataclass(frozen=True)
class Goal:
    group: str
    name: str
    present: bool
    location: str | None
    identity_id: UserAssignedId | None
    # The key with which a new account is created.
    key: KeyIdentifier | None
    vault_group: str | None
    adopt_existing: bool
    force: bool
    # Whether this is the rollback of an account's creation with this key: the account is moved to a
    # Microsoft-managed key.
    leaves_key: bool = False

    @property
    def identity_type(self) -> str:
        return USER_ASSIGNED if self.identity_id else SYSTEM_ASSIGNED

    def described(self, current: Mapping[str, Any]) -> str:
        """A sentence on the state after the rollback."""
        if not current["exists"]:
            return "The account does not exist."
        return f"The account exists and uses {current['key_identifier'] or 'a Microsoft-managed key'} now."


def desired(params: Mapping[str, Any]) -> Goal:
    identity_id, key = params["identity_id"], params["key_identifier"]
    problems = Problems()
    identifier = problems.of(parse_key_identifier, key, "key_identifier") if key else None
    if key and not identity_id:
        problems.add(
            "key_identifier",
            key,
            "creating an account with a key requires a user-assigned identity, because a system-assigned identity "
            "exists only after the account is created.",
            "Set identity_id, or leave out key_identifier and use azbatch.cmk.batch_encryption afterwards.",
        )
    name = problems.of(check_account_name, params["name"], "name")
    identity = problems.of(parse_user_assigned_id, identity_id, "identity_id") if identity_id is not None else None
    problems.refuse()
    return Goal(
        group=params["resource_group"],
        name=name,
        present=params["state"] == "present",
        location=params["location"],
        identity_id=identity,
        key=identifier.versionless if identifier and params["follow_latest"] else identifier,
        vault_group=params["vault_resource_group"],
        adopt_existing=params["adopt_existing"],
        force=params["force"],
    )
