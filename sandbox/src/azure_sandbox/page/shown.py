# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the page formats times, principals and scopes, and how many rows of a table it shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar

from ..world import World

Row = TypeVar("Row")


@dataclass(frozen=True)
class Rows(Generic[Row]):
    """The rows that are shown, how many match, and how many there are."""

    shown: Sequence[Row]
    found: int
    total: int

    @classmethod
    def first(cls, most: int, found: Sequence[Row], total: int) -> Rows[Row]:
        return cls(found[:most], len(found), total)

    @property
    def summary(self) -> str:
        """`3`, `3 of 20`, or `the first 50 of 300`"""
        if len(self.shown) < self.found:
            found = f"the first {len(self.shown):,} of {self.found:,}"
            return found if self.found == self.total else f"{found} matching, of {self.total:,}"
        return f"{self.total:,}" if self.found == self.total else f"{self.found:,} of {self.total:,}"


def moment(seconds: float | None) -> str:
    """Format a time with a precision of one second, as Azure does; empty for None."""
    if seconds is None:
        return ""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OSError, OverflowError, ValueError):
        # A key may expire in a year that Python's datetime does not support.
        return f"{seconds:.0f} s after 1970"


def principal(world: World, object_id: str) -> dict[str, str]:
    """The name, kind and object id of a principal. The name of a deleted principal is not known."""
    found = world.directory.principal(object_id)
    if found is None:
        return {"name": "(not in the directory)", "kind": "", "id": object_id}
    kind = "managed identity" if found.kind == "ManagedIdentity" else "service principal"
    return {"name": found.display_name, "kind": kind, "id": object_id}


def place(world: World, scope: str) -> str:
    """A short description of the scope of a role assignment."""
    *above, name = scope.strip("/").split("/")
    if not name:
        return "root scope"
    kind = above[-1].lower() if above else "scope"
    if kind == "subscriptions":
        subscription = world.resources.subscription(name)
        return f"subscription {subscription.display_name if subscription else name}"
    kinds = {"resourcegroups": "resource group", "batchaccounts": "Batch account"}
    return f"{kinds.get(kind, kind.removesuffix('s'))} {name}"
