# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Placeholders for values that only Azure can assign: the principal of a new identity, and a new key version.

In check mode, a placeholder is a well-formed GUID or version, so that it can be used in requests. Results show
`(known after apply)` instead, and later tasks in check mode accept this text.

This module util is private to the collection.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

KNOWN_AFTER_APPLY = "(known after apply)"
_PLACEHOLDER = re.compile(r"\bc3c3c3c3-0000-4000-8000-[0-9a-f]{12}\b|\bc3c3c3c300000000[0-9a-f]{16}\b", re.IGNORECASE)
# The values that Key Vault sets together with a version.
_WITH_VERSION = ("created_on",)


def guid(*name: str) -> str:
    """The placeholder of a GUID. The same name always has the same placeholder."""
    return f"c3c3c3c3-0000-4000-8000-{_digits(name)[:12]}"


def version(*name: str) -> str:
    """The placeholder of a key version. The same name always has the same placeholder."""
    return f"c3c3c3c300000000{_digits(name)[:16]}"


def is_placeholder(value: str) -> bool:
    return _PLACEHOLDER.fullmatch(value) is not None


def shown(value: Any) -> Any:
    """The value with `(known after apply)` in place of every placeholder in it."""
    if isinstance(value, str):
        return _PLACEHOLDER.sub(KNOWN_AFTER_APPLY, value)
    if isinstance(value, Mapping):
        new = is_placeholder(str(value.get("version")))
        return {name: KNOWN_AFTER_APPLY if new and name in _WITH_VERSION else shown(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        # The position of a placeholder in a sorted list is random, so placeholders are moved to the end.
        return sorted(map(shown, value), key=lambda one: bool(one == KNOWN_AFTER_APPLY))
    return value


def _digits(name: tuple[str, ...]) -> str:
    return hashlib.sha256("\n".join(name).lower().encode()).hexdigest()
