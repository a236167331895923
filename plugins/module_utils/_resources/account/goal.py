# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The goal of azbatch.cmk.batch_account_identity.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..._core.errors import Problems
from ..._core.ids import (
    KeyIdentifier,
    UserAssignedId,
    check_account_name,
    check_tags,
    parse_key_identifier,
    parse_user_assigned_id,
)
from ..._documents.identity import SYSTEM_ASSIGNED, USER_ASSIGNED


@dataclass(frozen=True)
class AccountGoal:
    group: str
    name: str
    present: bool
    location: str | None
    identity_id: UserAssignedId | None
    # The key with which a new account is created.
    key: KeyIdentifier | None
    vault_group: str | None
    # Whether an existing account gets the identity that it lacks.
    repairs: bool
    force: bool
    # Of a new account.
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def identity_type(self) -> str:
        return USER_ASSIGNED if self.identity_id else SYSTEM_ASSIGNED


def desired(params: Mapping[str, Any]) -> AccountGoal:
    identity_id, key = params["identity_id"], params["key_identifier"]
    problems = Problems()
    identifier = problems.of(parse_key_identifier, key, "key_identifier") if key else None
    if key and not identity_id:
        problems.add(
            "key_identifier",
            key,
            "an account is created with a key only if it has a user-assigned identity.",
            "Set O(identity_id), or set the key later.",
        )
    name = problems.of(check_account_name, params["name"], "name")
    identity = problems.of(parse_user_assigned_id, identity_id, "identity_id") if identity_id is not None else None
    tags = problems.of(check_tags, params["tags"])
    problems.refuse()
    return AccountGoal(
        group=params["resource_group"],
        name=name,
        present=params["state"] == "present",
        location=params["location"],
        identity_id=identity,
        key=identifier.versionless if identifier and params["version_mode"] == "follow" else identifier,
        vault_group=params["vault_resource_group"],
        repairs="identity" in (params["allowed_repairs"] or ()),
        force=params["force"],
        tags=tags,
    )
