# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The modules create an account that uses a customer-managed key, with both kinds of identity and both permission
models."""

from __future__ import annotations

import pytest
from harness import Ansible, checked, fails, task
from service import GROUP, Service

SIZES = (2048, 3072, 4096)
# Separate processes take three times as long, so each job uses one permission model that way.
HERE = [("in_process", "access_policy"), ("in_process", "rbac")]


@pytest.mark.parametrize(("way", "mode"), [*HERE, ("module", "rbac")], indirect=["way"])
@pytest.mark.slow(every=3)
def test_system_assigned(ansible: Ansible, service: Service, way: str, mode: str) -> None:
    """The account moves to keys of all sizes. Each task uses results of previous tasks."""
    account = task("account", "batch_account_identity", "account", resource_group=GROUP, name="account1")
    vault = task("vault", "keyvault_cmk_vault", resource_group=GROUP, name="vault-one", authorization=mode)
    grant = task(
        "grant",
        "keyvault_cmk_access",
        vault_resource_group=GROUP,
        vault_name="vault-one",
        principal_id="{{ account.identity.principal_id }}",
    )
    keys = [
        task(f"key {bits}", "keyvault_cmk_key", f"key{bits}", vault_name="vault-one", name=f"key{bits}", key_size=bits)
        for bits in SIZES
    ]
    switches = [
        task(
            f"switch {bits}",
            "batch_encryption",
            resource_group=GROUP,
            account_name="account1",
            key_source="microsoft_keyvault",
            key_identifier=f"{{{{ key{bits}.key_identifier }}}}",
            previous_key="any",
        )
        for bits in SIZES
    ]
    run = ansible.play([account, vault, grant, *keys, *switches], way=way)
    assert len(run.changed) == 3 + 2 * len(SIZES)
    for bits in SIZES:
        assert len(service.key(f"key{bits}").key.n) * 8 == bits
        assert run[f"switch {bits}"]["key_identifier"] == run[f"key {bits}"]["key_identifier"]
    before = [run[f"switch {bits}"]["diff"]["before"]["key_identifier"] for bits in SIZES]
    assert before == [None, run["key 2048"]["key_identifier"], run["key 3072"]["key_identifier"]]
    assert service.encryption() == run["key 4096"]["key_identifier"]
    assert service.is_available()
    assert service.vault()["properties"]["enableRbacAuthorization"] is (mode == "rbac")


@pytest.mark.parametrize(("way", "mode"), [*HERE, ("module", "access_policy")], indirect=["way"])
@pytest.mark.slow(every=3)
def test_user_assigned(ansible: Ansible, service: Service, way: str, mode: str) -> None:
    """An account is created with its key. Before its identity has access, the account is not created."""
    identity = service.make_identity()
    identity_id = service.identity_id()
    vault = task("vault", "keyvault_cmk_vault", resource_group=GROUP, name="vault-one", authorization=mode)
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


@pytest.mark.parametrize(
    ("cloud", "how"),
    [("AzureUSGovernment", "in_process"), ("AzureUSGovernment", "module"), ("AzureChinaCloud", "in_process")],
)
@pytest.mark.slow(every=3)
def test_other_clouds(ansible: Ansible, service: Service, cloud: str, how: str) -> None:
    """The modules send all requests to hosts of the other cloud."""
    suffix, hosts = {
        "AzureUSGovernment": ("vault.usgovcloudapi.net", ("usgovcloudapi.net", "microsoftonline.us")),
        "AzureChinaCloud": ("vault.azure.cn", ("chinacloudapi.cn", "vault.azure.cn")),
    }[cloud]
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
        way=how,
        environment={"AZURE_CLOUD_ENVIRONMENT": cloud},
    )
    assert len(run.changed) == 5
    assert run["key"]["key_identifier"].startswith(f"https://vault-one.{suffix}/keys/key1/")
    assert {request["host"] for request in run.requests if not request["host"].endswith(hosts)} == set()
    assert service.encryption() == run["switch"]["key_identifier"] == run["key"]["key_identifier"]
