# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keys: their life and what can be done with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..entra.rules import Principal
    from ..world import World


@dataclass
class Keys:
    world: World

    def wrap(self, principal: Principal, key_identifier: str, data: bytes) -> tuple[str, bytes]:
        """The identifier of the version that was used, and what it made of `data`."""
        raise NotImplementedError

    def unwrap(self, principal: Principal, key_identifier: str, wrapped: bytes) -> bytes:
        raise NotImplementedError

    def look(self, key_identifier: str) -> dict[str, Any]:
        raise NotImplementedError
