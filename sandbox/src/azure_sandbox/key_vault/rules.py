# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Vaults: their life and their rules."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..web import AzureError
from .vault import Vault

if TYPE_CHECKING:
    from ..entra.rules import Principal
    from ..world import World


class KeyVaultDenied(AzureError):
    pass


@dataclass
class Vaults:
    world: World
    _live: dict[str, Vault] = field(default_factory=dict)

    def by_name(self, name: str) -> Vault | None:
        return self._live.get(name.lower())

    def permits(self, vault: Vault, principal: Principal, permission: str, key_name: str = "") -> None:
        raise NotImplementedError
