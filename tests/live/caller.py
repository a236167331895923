# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the caller of the experiments reaches Azure."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import requests
from azure.identity import ClientAssertionCredential, DefaultAzureCredential

from .azure import Credential


def credential() -> Credential:
    file = os.environ.get("AZURE_FEDERATED_TOKEN_FILE")
    if not file:
        return DefaultAzureCredential()
    # DefaultAzureCredential reads the file every ten minutes, but a token of GitHub is valid for five.
    tenant, client = os.environ["AZURE_TENANT_ID"], os.environ["AZURE_CLIENT_ID"]
    return ClientAssertionCredential(tenant, client, Path(file).read_text)


def session_through(environment: Mapping[str, str]) -> requests.Session:
    """A session that sends requests as a command with these environment variables does."""
    session = requests.Session()
    session.trust_env = False
    session.proxies = {"https": environment["HTTPS_PROXY"]}
    session.verify = environment["REQUESTS_CA_BUNDLE"]
    return session
