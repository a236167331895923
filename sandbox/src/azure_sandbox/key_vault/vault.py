# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The state of a vault."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

# From this API version of the management plane on, a new vault uses Azure RBAC by default.
RBAC_BY_DEFAULT_SINCE = "2026-02-01"


@dataclass(frozen=True)
class AccessPolicy:
    tenant_id: str
    object_id: str
    application_id: str | None = None
    # Names of permissions for keys, secrets, certificates and storage, in the letter case of the request.
    permissions: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def holder(self) -> tuple[str, str]:
        return self.object_id.lower(), (self.application_id or "").lower()

    def allows_keys(self, permission: str) -> bool:
        granted = {name.lower() for name in self.permissions.get("keys", ())}
        # `all` does not include purge.
        return permission.lower() in granted or ("all" in granted and permission.lower() != "purge")


@dataclass
class NetworkRules:
    bypass: str = "AzureServices"
    default_action: str = "Allow"
    ip_rules: tuple[str, ...] = ()
    subnets: tuple[dict[str, Any], ...] = ()

    @property
    def is_default(self) -> bool:
        return self == NetworkRules()


@dataclass
class Vault:
    subscription: str
    resource_group: str
    name: str
    location: str
    host: str
    tenant_id: str
    sku: str = "standard"
    tags: dict[str, str] = field(default_factory=dict)
    access_policies: list[AccessPolicy] = field(default_factory=list)
    network: NetworkRules = field(default_factory=NetworkRules)
    public_network_access: str = "Enabled"
    # enabledForDeployment and similar flags, if a request has set them.
    flags: dict[str, bool] = field(default_factory=dict)
    # None: not set by a request, nor by the default of the API version that created the vault.
    rbac_setting: bool | None = None
    purge_protection: bool = False
    retention_days: int = 90
    created_by: str = ""
    created_at: str = ""
    modified_by: str = ""
    modified_at: str = ""
    # As in the request that created the vault, for example `West Europe`.
    sent_location: str = ""
    # From this time on, the vault is registered in the DNS.
    dns_ready_at: float = 0
    # From this time on, the host name resolves for callers. For Batch, it resolves from `dns_ready_at` on.
    name_resolves_at: float = 0
    deleted_at: float | None = None
    # Identifies the keys of this vault. A later vault of the same name has another uid.
    uid: str = field(default_factory=lambda: uuid.uuid4().hex)
    # The permission models that the data plane applies, each with its start time, if the model was changed. True: Azure
    # RBAC.
    effective_models: list[tuple[float, bool]] = field(default_factory=list)
    # The lists of access policies that the data plane applies, each with its start time. The vault shows the last list.
    effective_policies: list[tuple[float, list[AccessPolicy]]] = field(default_factory=list)

    @property
    def id(self) -> str:
        return (
            f"/subscriptions/{self.subscription}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.KeyVault/vaults/{self.name}"
        )

    def is_in(self, subscription: str, group: str | None) -> bool:
        """Whether the vault is in the subscription, and in the resource group unless `group` is None."""
        in_group = group is None or self.resource_group.lower() == group.lower()
        return in_group and self.subscription.lower() == subscription.lower()

    @property
    def rbac(self) -> bool:
        return bool(self.rbac_setting)

    def rbac_at(self, now: float) -> bool:
        """Whether the data plane applies role assignments."""
        return next((rbac for since, rbac in reversed(self.effective_models) if since <= now), self.rbac)

    def change_model(self, now: float, delay: float) -> None:
        """Change the permission model to the other one. The data plane applies it after the delay."""
        self.effective_models = [(0, self.rbac_at(now)), (now + delay, not self.rbac)]
        self.rbac_setting = not self.rbac

    @property
    def recovery_level(self) -> str:
        level = "Recoverable" if self.retention_days >= 90 else "CustomizedRecoverable"
        return level if self.purge_protection else f"{level}+Purgeable"

    def policies_at(self, now: float) -> list[AccessPolicy]:
        effective = [policies for since, policies in self.effective_policies if since <= now]
        return effective[-1] if effective else []

    def changes(self) -> Iterator[float]:
        """The times at which the vault is in the DNS, and at which the data plane applies access policies and a
        permission model."""
        yield self.dns_ready_at
        yield from (since for since, _rbac in self.effective_models)
        yield from (since for since, _policies in self.effective_policies)

    def set_policies(self, policies: list[AccessPolicy], now: float, delay: float) -> None:
        current = self.policies_at(now)
        self.effective_policies = [(0, current), *((at, old) for at, old in self.effective_policies if at > now)]
        self.effective_policies.append((now + delay, policies))
        self.access_policies = policies
