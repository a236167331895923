# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The protocol of the world that every service needs, and the principals that send requests.

A service that needs other services declares its own protocol, with `World` as its base. So a service imports only the
services that it needs, and no service imports the world of all services.
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
    # The id of the resource that a managed identity belongs to.
    resource_id: str | None = None
    # By the sandbox's clock
    created: float = 0
