# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The modules create an account that uses a customer-managed key, also in separate processes, and
in a national cloud."""

from __future__ import annotations

import pytest
from harness import Ansible, task
from service import GROUP, Service


@pytest.mark.parametrize("way", ["module"], indirect=True)
def test_another_cloud(ansible: Ansible, service: Service, way: str) -> None:
    """The modules send all requests to hosts of the other cloud."""
    run = ansible.play(
        [
            task("account", "batch_account_identity", "account", resource_group=GROUP, name="account1"),
            task("vault", "keyvault_cmk_vault", resource_group=GROUP, name="vault-one", authorization="access_policy"),
            task(
                "grant",
                "keyvault_cmk_access",
                vault_name="vault-one",
                principal_id="{{ account.identity.principal_id }}",
            ),
            task("key", "keyvault_cmk_key", "key", vault_name="vault-one", name="key1"),
            task(
                "switch",
                "batch_encryption",
                resource_group=GROUP,
                account_name="account1",
                key_source="microsoft_keyvault",
                key_identifier="{{ key.key_identifier }}",
            ),
        ],
        way=way,
        environment={"AZURE_CLOUD_ENVIRONMENT": "AzureUSGovernment"},
    )
    assert len(run.changed) == 5
    assert run["key"]["key_identifier"].startswith("https://vault-one.vault.usgovcloudapi.net/keys/key1/")
    hosts = ("usgovcloudapi.net", "microsoftonline.us")
    assert {request["host"] for request in run.requests if not request["host"].endswith(hosts)} == set()
    assert service.encryption() == run["switch"]["key_identifier"] == run["key"]["key_identifier"]
