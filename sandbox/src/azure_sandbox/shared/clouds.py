# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Azure clouds with the host names of their services. A tenant exists in all clouds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cloud:
    name: str
    # The current name first, then older names that still work.
    login_hosts: tuple[str, ...]
    management_host: str
    management_audiences: frozenset[str]
    vault_suffix: str
    vault_audience: str
    issuer_host: str
    instance_name: str

    @property
    def authority(self) -> str:
        return f"https://{self.login_hosts[0]}"

    def issuer(self, tenant_id: str) -> str:
        """The issuer of v1.0 access tokens, the format that both Resource Manager and Key Vault request."""
        return f"https://{self.issuer_host}/{tenant_id}/"


def _with_and_without_slash(*urls: str) -> frozenset[str]:
    return frozenset([*urls, *(f"{url}/" for url in urls)])


PUBLIC = Cloud(
    name="AzureCloud",
    login_hosts=("login.microsoftonline.com", "login.windows.net", "login.microsoft.com", "sts.windows.net"),
    management_host="management.azure.com",
    management_audiences=_with_and_without_slash("https://management.azure.com", "https://management.core.windows.net"),
    vault_suffix=".vault.azure.net",
    vault_audience="https://vault.azure.net",
    issuer_host="sts.windows.net",
    instance_name="microsoftonline.com",
)

US_GOVERNMENT = Cloud(
    name="AzureUSGovernment",
    login_hosts=("login.microsoftonline.us", "login-us.microsoftonline.com"),
    management_host="management.usgovcloudapi.net",
    management_audiences=_with_and_without_slash(
        "https://management.usgovcloudapi.net", "https://management.core.usgovcloudapi.net"
    ),
    vault_suffix=".vault.usgovcloudapi.net",
    vault_audience="https://vault.usgovcloudapi.net",
    issuer_host="sts.windows.net",
    instance_name="microsoftonline.us",
)

CHINA = Cloud(
    name="AzureChinaCloud",
    login_hosts=("login.chinacloudapi.cn", "login.partner.microsoftonline.cn", "sts.chinacloudapi.cn"),
    management_host="management.chinacloudapi.cn",
    management_audiences=_with_and_without_slash(
        "https://management.chinacloudapi.cn", "https://management.core.chinacloudapi.cn"
    ),
    vault_suffix=".vault.azure.cn",
    vault_audience="https://vault.azure.cn",
    issuer_host="sts.chinacloudapi.cn",
    instance_name="partner.microsoftonline.cn",
)

CLOUDS = (PUBLIC, US_GOVERNMENT, CHINA)
# The domain of the data plane of Batch accounts in the public cloud.
BATCH_DOMAIN = "batch.azure.com"


def by_login_host(host: str) -> Cloud | None:
    # With AZURE_REGIONAL_AUTHORITY_NAME, clients put the region in front: westeurope.login.microsoft.com.
    parent = host.partition(".")[2]
    return next((cloud for cloud in CLOUDS if host in cloud.login_hosts or parent in cloud.login_hosts), None)


def by_management_host(host: str) -> Cloud | None:
    parent = host.partition(".")[2]
    return next((cloud for cloud in CLOUDS if cloud.management_host in (host, parent)), None)


def is_batch_host(host: str) -> bool:
    """Whether it is the host of an account's data plane, which the sandbox has in the public cloud only."""
    return host.endswith(f".{BATCH_DOMAIN}") and host.count(".") == BATCH_DOMAIN.count(".") + 2


def by_vault_host(host: str) -> Cloud | None:
    return next((cloud for cloud in CLOUDS if host.partition(".")[2] == cloud.vault_suffix[1:]), None)
