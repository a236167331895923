# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The contents of resource groups: resources of all providers, as Resource Manager's own lists show them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Resource:
    id: str
    name: str
    type: str
    location: str
    tags: dict[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "type": self.type,
            "location": self.location,
            "tags": self.tags,
        }


class Holder(Protocol):
    """A service whose resources lie in resource groups."""

    def contents(self, subscription: str) -> Iterable[Resource]: ...

    def drop(self, resource: Resource) -> None:
        """Delete a resource with its group: vaults stay recoverable, as they do at Azure."""
