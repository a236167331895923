# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The endpoints of Azure's clouds.

Source: azure-core's `azure.core.AzureClouds` and the clouds' metadata endpoint; names as in azure.azcollection.

This module util is private to the collection.
"""

from __future__ import annotations

from dataclasses import dataclass

from .._core.errors import InvalidOption


@dataclass(frozen=True)
class Environment:
    name: str
    authority: str
    resource_manager: str
    vault_suffix: str

    @property
    def resource_manager_scope(self) -> str:
        return f"{self.resource_manager}/.default"


_ENVIRONMENTS = (
    Environment("AzureCloud", "login.microsoftonline.com", "https://management.azure.com", "vault.azure.net"),
    Environment(
        "AzureUSGovernment",
        "login.microsoftonline.us",
        "https://management.usgovcloudapi.net",
        "vault.usgovcloudapi.net",
    ),
    Environment("AzureChinaCloud", "login.chinacloudapi.cn", "https://management.chinacloudapi.cn", "vault.azure.cn"),
)


def environment_of(name: str) -> Environment:
    by_name = {environment.name.lower(): environment for environment in _ENVIRONMENTS}
    if name.lower() not in by_name:
        names = ", ".join(environment.name for environment in _ENVIRONMENTS)
        raise InvalidOption(
            "cloud_environment", name, "this cloud is not known.", f"Use one of {names}.", code="unknown_cloud"
        )
    return by_name[name.lower()]
