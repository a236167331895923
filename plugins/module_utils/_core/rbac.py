# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether permissions of Azure RBAC allow an action.

This module util is private to the collection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from .documents import Permission


def allows(permissions: Iterable[Permission], action: str, *, data: bool = False) -> bool:
    """Whether one of the permissions allows the action. With `data`, the action is a data action."""
    return any(_allows(one, action, data=data) for one in permissions)


def _allows(permission: Permission, action: str, *, data: bool) -> bool:
    if data:
        granted, excepted = permission.get("dataActions"), permission.get("notDataActions")
    else:
        granted, excepted = permission.get("actions"), permission.get("notActions")
    return _matches(granted, action) and not _matches(excepted, action)


def _matches(patterns: Iterable[str] | None, action: str) -> bool:
    return any(_pattern(pattern).fullmatch(action) for pattern in patterns or ())


@cache
def _pattern(wildcard: str) -> re.Pattern[str]:
    """A pattern in which `*` matches any text. `vaults/*/read` also matches `vaults/read`: Key Vault Reader has
    only the first action and may read vaults."""
    text = ".*".join(re.escape(part) for part in wildcard.split("*"))
    return re.compile(text.replace("/.*/", "/(?:.*/)?"), re.IGNORECASE)
