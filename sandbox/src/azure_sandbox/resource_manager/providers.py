# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The resource providers, each with its operations and the API versions that it accepts."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

from ..shared.behavior import Behavior
from ..shared.web import Route, Routes


@dataclass(frozen=True)
class Retirement:
    """From `at` on (seconds since 1970-01-01 UTC), API versions before `first_kept` are refused."""

    at: float
    first_kept: str


@dataclass(frozen=True)
class Provider:
    namespace: str
    api_versions: frozenset[str]
    routes: Routes
    retirement: Retirement | None = None

    def versions(self, now: float, behavior: Behavior) -> frozenset[str]:
        """The API versions that are accepted at the time `now` (seconds since 1970-01-01 UTC)."""
        retirement = self.retirement
        if retirement is None or now < retirement.at or behavior.retired_versions == "taken":
            return self.api_versions
        return frozenset(version for version in self.api_versions if version >= retirement.first_kept)

    @property
    def resource_types(self) -> list[str]:
        """The resource types in the paths of the operations: `batchAccounts`, `batchAccounts/pools`, ..."""
        paths = {route.path for route in self.routes}
        # A POST below the path of another operation is an action, not a resource type.
        actions = {r.path for r in self.routes if r.method == "POST" and r.path.rpartition("/")[0] in paths}
        return sorted({kind for path in paths - actions if (kind := resource_type(path, self.namespace))})

    def knows(self, kind: str) -> bool:
        return kind.lower() in _lowered(tuple(self.resource_types))


@lru_cache(maxsize=64)
def _lowered(names: tuple[str, ...]) -> frozenset[str]:
    return frozenset(name.lower() for name in names)


def resource_type(path: str, namespace: str) -> str:
    """The resource type in a path or template: every other segment after the last `/providers/NAMESPACE/`."""
    parts = re.split(f"/providers/{re.escape(namespace)}/", path, flags=re.IGNORECASE)
    return "/".join(parts[-1].strip("/").split("/")[0::2]) if len(parts) > 1 else ""


# By namespace in lower case. `azure_sandbox.services` adds the providers, so they need not import each other.
PROVIDERS: dict[str, Provider] = {}


def add(
    namespace: str, api_versions: Collection[str], routes: Collection[Route], retirement: Retirement | None = None
) -> Provider:
    provider = PROVIDERS[namespace.lower()] = Provider(namespace, frozenset(api_versions), Routes(routes), retirement)
    return provider
