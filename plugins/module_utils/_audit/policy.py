# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The policy of an organization for its Batch accounts, and the exceptions.

This module util is private to the collection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from .._checks.regions import normalized
from .._core.duration import seconds
from .._core.errors import InvalidOption
from .._core.exceptions import Exemption, exemption, matches
from .._core.ids import check_vault_name
from .rules import MANUAL, RULES

_SELECTORS = ("subscriptions", "resource_groups", "locations", "accounts")
# A pattern of names, or an id.
_PATTERN = re.compile(r"[*?/]")
_LOCATED = {"subscriptions": "subscription_id", "resource_groups": "resource_group", "locations": "location"}


@dataclass(frozen=True)
class Selector:
    """Selects the accounts that match all of its conditions. A selector without conditions selects all accounts."""

    # By field of an account, the values that match, in lower case.
    fields: Mapping[str, frozenset[str]]
    # Patterns of names and ids, in lower case.
    accounts: tuple[str, ...]
    tags: Mapping[str, str]

    def fits(self, account: Mapping[str, Any]) -> bool:
        placed = all(account[name].lower() in values for name, values in self.fields.items())
        tags = {name.lower(): value for name, value in account["tags"].items()}
        tagged = all(tags.get(name.lower()) == value for name, value in self.tags.items())
        return placed and tagged and (not self.accounts or matches(self.accounts, account))

    def closest(self, accounts: Sequence[Mapping[str, Any]]) -> list[str]:
        """For each value that no account has, the closest value that an account has, if there is one."""
        pairs = [(values, {account[name].lower() for account in accounts}) for name, values in self.fields.items()]
        tags = {f"{name.lower()}={value}" for account in accounts for name, value in account["tags"].items()}
        pairs.append((frozenset(f"{name.lower()}={value}" for name, value in self.tags.items()), tags))
        names = {account["name"].lower() for account in accounts}
        pairs.append((frozenset(one for one in self.accounts if not _PATTERN.search(one)), names))
        return [
            near
            for values, there in pairs
            for value in sorted(values - there)
            for near in get_close_matches(value, there, n=1)
        ]


@dataclass(frozen=True)
class Policy:
    required: tuple[Selector, ...]
    # In lower case. If empty, all vaults are allowed.
    allowed_vaults: frozenset[str]
    # In seconds.
    max_version_age: int | None
    min_days_to_expiry: int
    expiry_required: bool
    rbac_only: bool
    # If empty, all types that Batch supports are allowed.
    key_types: tuple[str, ...]
    min_key_size: int | None
    exceptions: tuple[Exemption, ...]

    def requires_key_of(self, account: Mapping[str, Any]) -> bool:
        return any(selector.fits(account) for selector in self.required)


def policy(params: Mapping[str, Any]) -> Policy:
    days = params["min_days_to_expiry"]
    if days < 0:
        raise InvalidOption("min_days_to_expiry", days, "it is negative.", "Use 0 or more.")
    accepted = [exemption(one, RULES, MANUAL) for one in params["exceptions"]]
    return Policy(
        required=tuple(_selector(one) for one in params["required"]),
        allowed_vaults=frozenset(check_vault_name(name, "allowed_vaults").lower() for name in params["allowed_vaults"]),
        max_version_age=seconds(params["max_version_age"], "max_version_age"),
        min_days_to_expiry=days,
        expiry_required=params["expiry_required"],
        rbac_only=params["rbac_only"],
        key_types=tuple(params["key_types"]),
        min_key_size=params["min_key_size"],
        exceptions=tuple(one for one in accepted if one.finding),
    )


def _selector(wanted: Mapping[str, Any]) -> Selector:
    given = {name: wanted.get(name) or () for name in _SELECTORS}
    given["locations"] = [normalized(str(one)) for one in given["locations"]]
    return Selector(
        fields={field: frozenset(_lower(given[name])) for name, field in _LOCATED.items() if given[name]},
        accounts=_lower(given["accounts"]),
        tags={name: str(value) for name, value in (wanted.get("tags") or {}).items()},
    )


def _lower(names: Sequence[Any]) -> tuple[str, ...]:
    return tuple(str(name).lower() for name in names)
