# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The goal of azbatch.cmk.keyvault_cmk_vault.

This module util is private to the collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..._core.errors import Problems
from ..._core.ids import check_tags, check_vault_name
from ..._documents.vault import HSM, PREMIUM

# The default retention period of a new vault.
RETENTION_DAYS = 90


@dataclass(frozen=True)
class VaultGoal:
    group: str
    name: str
    location: str | None
    authorization: str | None
    # Of a new vault. None: the default.
    sku: str | None
    # Of a new vault.
    retention_days: int
    # Whether a deleted vault is recovered.
    recover: bool
    # Whether the firewall of an existing vault lets trusted Microsoft services in.
    trusted_services: bool
    # Of a new vault.
    is_public: bool = True
    # The type of the key that the vault is for.
    key_type: str | None = None
    # Of a new vault.
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def sku_of_new(self) -> str:
        return self.sku or (PREMIUM if self.key_type == HSM else "standard")


def desired(params: Mapping[str, Any]) -> VaultGoal:
    retention, problems = params["retention_days"], Problems()
    if not 7 <= retention <= 90:
        problems.add("retention_days", retention, "Key Vault allows 7 to 90 days.", "Use 7 to 90.")
    if params["key_type"] == HSM and params["sku"] not in (None, PREMIUM):
        problems.add(
            "sku",
            params["sku"],
            f"keys of the type {HSM} require a premium vault.",
            "Use premium, or leave out O(sku).",
        )
    name = problems.of(check_vault_name, params["name"], "name")
    tags = problems.of(check_tags, params["tags"])
    problems.refuse()
    return VaultGoal(
        group=params["resource_group"],
        name=name,
        location=params["location"],
        authorization=params["authorization"],
        sku=params["sku"],
        key_type=params["key_type"],
        is_public=params["public_network_access"] == "enabled",
        retention_days=retention,
        recover="vault" in (params["allowed_repairs"] or ()),
        trusted_services="network" in (params["allowed_repairs"] or ()),
        tags=tags,
    )
