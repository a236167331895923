# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a task wants of a key.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import _rotation_policy
from ._duration import seconds
from ._errors import InvalidOption, NotFound
from ._ids import check_key_name, check_vault_name
from ._key_document import SIZES, TYPES
from ._plan import Step


@dataclass(frozen=True)
class Goal:
    vault: str
    name: str
    state: str
    version: str | None
    key_type: str | None
    key_size: int | None
    expires_in: int | None
    rotation_policy: Mapping[str, str] | None
    max_version_age: int | None
    new_version: bool
    force: bool
    # Once a new version has been wished for: the one it must differ from.
    other_than: str | None = None

    @property
    def guarded(self) -> bool:
        """Whether what is asked for can take the key away from those who use it."""
        return self.state in ("absent", "disabled")


def desired(params: Mapping[str, Any]) -> Goal:
    key_type, key_size = params["key_type"], params["key_size"]
    if key_type is not None and key_type not in TYPES:
        raise InvalidOption(
            "key_type", key_type, "Batch takes RSA keys only.", "Use RSA or RSA-HSM.", code="key_type_not_supported"
        )
    if key_size is not None and key_size not in SIZES:
        raise InvalidOption(
            "key_size",
            key_size,
            "Batch takes RSA keys of other sizes.",
            "Use 2048, 3072 or 4096.",
            code="key_size_not_supported",
        )
    version, state = params["version"], params["state"]
    if version and state != "disabled":
        raise InvalidOption("version", version, f"it has no meaning with state: {state}.", "Leave it out.")
    return Goal(
        vault=check_vault_name(params["vault_name"], "vault_name"),
        name=check_key_name(params["name"], "name"),
        state=state,
        version=version,
        key_type=key_type,
        key_size=key_size,
        expires_in=seconds(params["expires_in"], "expires_in"),
        rotation_policy=_rotation_policy.checked(params["rotation_policy"]),
        max_version_age=seconds(params["max_version_age"], "max_version_age"),
        new_version=params["new_version"],
        force=params["force"],
    )


def step(action: str, goal: Goal, **arguments: Any) -> Step:
    return Step(action, {"vault": goal.vault, "name": goal.name, **arguments})


def key_not_found(goal: Goal) -> NotFound:
    return NotFound(
        f"There is no key {goal.name} in the vault {goal.vault}, nor a deleted one that could be recovered. Correct "
        "name or vault_name.",
        code="key_not_found",
        option="name",
        value=goal.name,
        remedy="Correct name or vault_name.",
    )
