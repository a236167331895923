# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The protocol that every service needs of the world, and the principals that send requests.

A service that needs other services declares its own protocol, with this one as its base. So services name those below
them, and nothing names the world that holds them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from .behavior import Behavior
from .timing import Clock, Timing


class World(Protocol):
    clock: Clock
    timing: Timing
    behavior: Behavior


@dataclass
class Principal:
    object_id: str
    app_id: str
    tenant_id: str
    display_name: str
    # ServicePrincipal or ManagedIdentity
    kind: str = "ServicePrincipal"
    # A managed identity's resource.
    resource_id: str | None = None
    # By the sandbox's clock
    created: float = 0
