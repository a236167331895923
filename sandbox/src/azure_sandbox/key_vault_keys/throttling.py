# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rate limits of a vault: the number of requests in ten seconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from ..key_vault.vault import Vault
from ..shared import web
from ..shared import world as shared
from . import errors

WINDOW_SECONDS = 10
# For software-protected RSA keys of 2048 bits ("Azure Key Vault service limits"). The creation of an HSM-protected key
# counts as HARDWARE_COST requests.
LIMITS = {"create": 20, "other": 4000}
HARDWARE_COST = 2


@dataclass
class Throttle:
    """By vault and kind of request: the number of the last window, and the cost of its requests."""

    windows: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)

    def take(self, vault: str, kind: str, cost: int, now: float) -> bool:
        """Count a request, unless it exceeds the limit. Returns whether it is within the limit."""
        current = int(now // WINDOW_SECONDS)
        window, used = self.windows.get((vault, kind), (current, 0))
        used = used + cost if window == current else cost
        if used > LIMITS[kind]:
            return False
        self.windows[vault, kind] = current, used
        return True


class World(shared.World, Protocol):
    key_vault_throttle: Throttle


Call = web.Call[World]


def check(call: Call, vault: Vault) -> None:
    if not call.world.timing.throttling or call.route is None:
        return
    makes_key = call.route.action in ("create", "rotate")
    cost = HARDWARE_COST if makes_key and str(call.json.get("kty")).endswith("-HSM") else 1
    kind = "create" if makes_key else "other"
    if not call.world.key_vault_throttle.take(vault.uid, kind, cost, call.world.clock.time()):
        raise errors.throttled()
