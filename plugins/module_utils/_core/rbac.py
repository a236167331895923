# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether permissions of Azure RBAC allow an action.

This module util is private to the collection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

# `actions`, `notActions`, `dataActions` and `notDataActions`, as role definitions and the permissions API have them.
Permission = Mapping[str, Any]


def allows(permissions: Iterable[Permission], action: str, *, data: bool = False) -> bool:
    """Whether one of the permissions allows the action, which is a data action if `data`."""
    granted, excepted = ("dataActions", "notDataActions") if data else ("actions", "notActions")
    return any(_matches(one.get(granted), action) and not _matches(one.get(excepted), action) for one in permissions)


def _matches(patterns: Iterable[str] | None, action: str) -> bool:
    return any(_pattern(pattern).fullmatch(action) for pattern in patterns or ())


@cache
def _pattern(wildcard: str) -> re.Pattern[str]:
    """A `*` stands for any text. `vaults/*/read` includes `vaults/read`: Key Vault Reader, which has only the former,
    may read vaults."""
    text = ".*".join(re.escape(part) for part in wildcard.split("*"))
    return re.compile(text.replace("/.*/", "/(?:.*/)?"), re.IGNORECASE)
