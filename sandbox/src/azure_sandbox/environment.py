# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The credentials of the operator, and the environment with which unchanged clients use the sandbox."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


# urllib and requests prefer the lower-case names; another proxy in them would win over the sandbox.
@dataclass
class Operator:
    """A service principal that may do everything, and where it may do it."""

    tenant_id: str = ""
    client_id: str = ""
    secret: str = ""
    object_id: str = ""
    subscription_id: str = ""
    resource_group: str = ""
    location: str = ""
    # The system-assigned identity of the machine that 169.254.169.254 serves.
    machine_object_id: str = ""
    machine_resource_id: str = ""


IN_THE_WAY = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ALL_PROXY")


def environment(url: str, certificate: Path, operator: Operator) -> dict[str, str]:
    return {
        "HTTPS_PROXY": url,
        "HTTP_PROXY": url,
        # 169.254.169.254 is not in it: the metadata service is the sandbox's as well.
        "NO_PROXY": "127.0.0.1,localhost",
        "REQUESTS_CA_BUNDLE": str(certificate),
        "SSL_CERT_FILE": str(certificate),
        "CURL_CA_BUNDLE": str(certificate),
        "AZURE_TENANT": operator.tenant_id,
        "AZURE_TENANT_ID": operator.tenant_id,
        "AZURE_CLIENT_ID": operator.client_id,
        "AZURE_SECRET": operator.secret,
        "AZURE_CLIENT_SECRET": operator.secret,
        "AZURE_SUBSCRIPTION_ID": operator.subscription_id,
        "AZURE_SANDBOX_URL": url,
    }


# The names of all variables.
NAMES = frozenset(environment("", Path(), Operator()))
