# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Batch accounts: what can be done with them, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .account import Account

if TYPE_CHECKING:
    from ..world import World


class BatchAccounts:
    def __init__(self, world: World) -> None:
        self._world = world

    def by_id(self, resource_id: str) -> Account | None:
        raise NotImplementedError

    def seed(self, count: int) -> None:
        """Plain accounts on Microsoft-managed keys, spread over resource groups of the seeded subscription."""
        raise NotImplementedError

    def reassess(self, vault_name: str | None = None) -> None:
        """Look again at the accounts whose key lies in that vault, or at all."""

    def health(self, account: Account) -> str:
        """`ok`, or why the account cannot be used."""
        return "ok"
