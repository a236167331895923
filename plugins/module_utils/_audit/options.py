# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of an audit: its scope and its policy. The doc fragment azbatch.cmk.audit documents them.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._core import exceptions
from .._core.errors import InvalidOption
from .._core.ids import check_account_name, check_subscription

_NAMES: dict[str, Any] = {"type": "list", "elements": "str", "default": []}
SCOPE: dict[str, dict[str, Any]] = {
    "subscriptions": _NAMES,
    "resource_group": {"type": "str"},
    "account_name": {"type": "str"},
    "pools": {"type": "bool", "default": False},
}
POLICY: dict[str, dict[str, Any]] = {
    "required": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "subscriptions": _NAMES,
            "resource_groups": _NAMES,
            "locations": _NAMES,
            "accounts": _NAMES,
            "tags": {"type": "dict", "default": {}},
        },
    },
    "allowed_vaults": _NAMES,
    "max_version_age": {"type": "str"},
    "min_days_to_expiry": {"type": "int", "default": 30},
    "expiry_required": {"type": "bool", "default": False},
    "rbac_only": {"type": "bool", "default": False},
    "key_types": {"type": "list", "elements": "str", "choices": ["RSA", "RSA-HSM"], "default": []},
    "min_key_size": {"type": "int", "choices": [2048, 3072, 4096]},
    "exceptions": exceptions.OPTION,
}


@dataclass(frozen=True)
class Scope:
    subscriptions: tuple[str, ...]
    group: str | None
    account: str | None
    pools: bool
    vault_used_by: str


def scope(params: Mapping[str, Any]) -> Scope:
    subscriptions, group, account = params["subscriptions"], params["resource_group"], params["account_name"]
    if subscriptions and group:
        raise InvalidOption(
            "subscriptions", subscriptions, "O(resource_group) is set, too.", "Leave out one of the two."
        )
    if account and not group:
        raise InvalidOption("resource_group", group, "O(account_name) requires it.", "Set it to the account's group.")
    return Scope(
        tuple(dict.fromkeys(check_subscription(one, "subscriptions").lower() for one in subscriptions)),
        group,
        check_account_name(account, "account_name") if account else None,
        params["pools"],
        params["vault_used_by"],
    )
