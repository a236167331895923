# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The modules create an account that uses a customer-managed key, also in separate processes, and
in a national cloud."""

from __future__ import annotations

import pytest
from harness import Ansible, checked, fails, task
from service import GROUP, Service


def test_user_assigned(ansible: Ansible, service: Service, way: str) -> None:
    """An account is created with its key. Before its identity has access, the account is not created."""
    identity = service.make_identity()
    identity_id = service.identity_id()
    vault = task("vault", "keyvault_cmk_vault", resource_group=GROUP, name="vault-one", authorization="access_policy")
    key = task("key", "keyvault_cmk_key", "key", vault_name="vault-one", name="key1")
    grant = task("grant", "keyvault_cmk_access", vault_name="vault-one", identity_id=identity_id, key_name="key1")
    created = task(
        "created",
        "batch_account_identity",
        resource_group=GROUP,
        name="account1",
        identity_id=identity_id,
        key_identifier="{{ key.versionless_identifier }}",
    )
    run = ansible.play(
        [
            vault,
            key,
            fails({**created, "name": "too early"}),
            fails(checked({**created, "name": "too early"})),
            grant,
            checked(created),
            created,
            {**created, "name": "created again"},
            task(
                "on another key",
                "batch_account_identity",
                resource_group=GROUP,
                name="account1",
                identity_id=identity_id,
                key_identifier="https://vault-one.vault.azure.net/keys/another",
            ),
        ],
        way=way,
    )
    for name in ("too early", "too early (check)"):
        assert run[name].refused("preflight_failed")["failed_checks"] == ["access_granted"]
    assert run["grant"]["principal_id"] == identity["properties"]["principalId"]
    assert run["created (check)"].untouched()["changed"] is True
    assert run["created (check)"]["key_identifier"] == run["key"]["versionless_identifier"]
    made = run["created"]
    assert made["changed"] is True
    assert (made["key_source"], made["key_identifier"]) == ("microsoft_keyvault", run["key"]["versionless_identifier"])
    assert {check["status"] for check in made["preflight"]} == {"ok"}
    assert run["created again"].untouched()["changed"] is False
    # The module does not change the key of an existing account, and warns.
    assert run["on another key"].untouched()["changed"] is False
    assert any("does not change its key" in warning for warning in run["on another key"].warnings)
    assert service.encryption() == run["key"]["versionless_identifier"]
    assert service.is_available()


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
