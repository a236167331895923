# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The operator's credentials, and the environment variables that make unmodified clients use the sandbox."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass
class Operator:
    """A service principal with full access to a subscription, and the resource group in this subscription."""

    tenant_id: str = ""
    client_id: str = ""
    secret: str = ""
    object_id: str = ""
    subscription_id: str = ""
    resource_group: str = ""
    location: str = ""
    # The system-assigned managed identity of the emulated machine. 169.254.169.254 issues its tokens.
    machine_object_id: str = ""
    machine_resource_id: str = ""


# urllib and requests prefer the lower-case names, so another proxy in them would be used instead of the sandbox.
IN_THE_WAY = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ALL_PROXY")


def environment(url: str, certificate: Path, operator: Operator) -> dict[str, str]:
    return {
        "HTTPS_PROXY": url,
        "HTTP_PROXY": url,
        # 169.254.169.254 is not listed, because the sandbox also emulates the metadata service.
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
