# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The collection azure.azcollection from the package `ansible`: alone, and in a play with this collection."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from key_vault_calls import CRYPTO_OFFICER, ROLES, data
from sandbox_client import VAULTS, Control, Sandbox, plain_environment

Task = dict[str, Any]
Results = dict[str, dict[str, Any]]
Play = Callable[..., Results]

BATCH = "2024-07-01"
GROUPS = "2021-04-01"
IDENTITIES = "2023-01-31"
# Each run of a module takes seconds, most of which are for importing the SDKs.
SECONDS = 300


def task(title: str, module: str, /, environment: Mapping[str, str] | None = None, **arguments: Any) -> Task:
    """A task. Its result is registered as the title with underscores."""
    wanted = {"name": title, module: arguments, "register": title.replace(" ", "_")}
    return {**wanted, "environment": dict(environment)} if environment else wanted


def theirs(title: str, module: str, /, environment: Mapping[str, str] | None = None, **arguments: Any) -> Task:
    return task(title, f"azure.azcollection.azure_rm_{module}", environment, **arguments)


def ours(title: str, module: str, /, **arguments: Any) -> Task:
    return task(title, f"azbatch.cmk.{module}", None, **arguments)


def again(one: Task) -> Task:
    return {**one, "name": f"{one['name']} again", "register": f"{one['register']}_again"}


@pytest.fixture
def play(sandbox: Sandbox, clients: Path, tmp_path: Path) -> Play:
    """Runs tasks with ansible-playbook, and returns the results by task name. A task may fail only with `failures`."""
    bin_folder = clients / "azcollection" / "bin"

    def run(*tasks: Task, failures: bool = False) -> Results:
        playbook = tmp_path / "playbook.yml"
        book = [{"hosts": "localhost", "gather_facts": False, "ignore_errors": failures, "tasks": list(tasks)}]
        playbook.write_text(json.dumps(book))
        done = subprocess.run(
            [bin_folder / "ansible-playbook", playbook],
            env={**plain_environment(), **sandbox.environment, **_settings(tmp_path)},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        results = _results(done.stdout)
        assert done.returncode == 0, {name: result.get("msg") for name, result in results.items()} or done.stderr
        assert list(results) == [one["name"] for one in tasks]
        return results

    return run


def _settings(home: Path) -> dict[str, str]:
    """Hides the settings and credentials of the user who runs the tests, but keeps ANSIBLE_COLLECTIONS_PATH."""
    settings = home / "ansible.cfg"
    settings.touch()
    return {"HOME": str(home), "ANSIBLE_CONFIG": str(settings), "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"}


def _results(output: str) -> Results:
    start = output.find("{")
    if start < 0:
        return {}
    document = json.loads(output[start:])
    tasks = [one for one_play in document["plays"] for one in one_play["tasks"]]
    return {one["task"]["name"]: one["hosts"]["localhost"] for one in tasks}


def changing(results: Results) -> list[str]:
    return [name for name, result in results.items() if result["changed"]]


def group(sandbox: Sandbox) -> str:
    return f"{sandbox.subscription}/resourceGroups/rg-one"


def storage(sandbox: Sandbox) -> str:
    """The ID of a storage account. azure_rm_batchaccount fails for a Batch account without a storage account, because
    Azure's response then lacks that property."""
    return f"{group(sandbox)}/providers/Microsoft.Storage/storageAccounts/storage1"


def shown(sandbox: Sandbox, path: str, version: str) -> dict[str, Any] | None:
    """The JSON of the resource, or None if it does not exist."""
    response = sandbox.arm("GET", path, version)
    assert response.status_code in (200, 404), response.text
    return response.json() if response.ok else None


def test_group_identity_and_account(play: Play, sandbox: Sandbox) -> None:
    account = f"{group(sandbox)}/providers/Microsoft.Batch/batchAccounts/account1"
    identity = f"{group(sandbox)}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/identity1"
    # Only the module for all resources supports identities. It uses the provider's newest API version.
    kind = {"provider": "ManagedIdentity", "resource_type": "userAssignedIdentities", "resource_group": "rg-one"}
    place = {"resource_group": "rg-one", "name": "account1", "auto_storage_account": storage(sandbox)}
    whose = {"type": "UserAssigned", "user_assigned_identity": identity}
    have_group = theirs("group", "resourcegroup", name="rg-one", location="westeurope", tags={"made": "once"})
    have_identity = theirs(
        "identity", "resource", **kind, resource_name="identity1", body={"location": "westeurope"}, idempotency=True
    )
    have_account = theirs("account", "batchaccount", **place, identity=whose, tags={"made": "once"})

    results = play(
        have_group,
        again(have_group),
        have_identity,
        again(have_identity),
        theirs("identities", "resource_info", **kind),
        have_account,
        again(have_account),
        theirs("accounts", "batchaccount_info", resource_group="rg-one"),
        theirs("tagged account", "batchaccount", **place, tags={"changed": "later"}),
    )

    assert changing(results) == ["group", "identity", "account", "tagged account"]
    made, made_identity = shown(sandbox, account, BATCH), shown(sandbox, identity, IDENTITIES)
    assert made is not None
    assert made_identity is not None
    assert made["tags"] == {"made": "once", "changed": "later"}
    assert made["properties"]["autoStorage"]["storageAccountId"] == storage(sandbox)
    assert [*made["identity"]["userAssignedIdentities"]] == [identity]
    (listed,) = results["accounts"]["batch_account"]
    assert (listed["id"], listed["tags"]) == (account, {"made": "once"})
    assert listed["account_endpoint"] == made["properties"]["accountEndpoint"]
    assert [one["properties"] for one in results["identities"]["response"]] == [made_identity["properties"]]
    assert (shown(sandbox, group(sandbox), GROUPS) or {})["tags"] == {"made": "once"}

    no_account = theirs("no account", "batchaccount", **place, state="absent")
    no_group = theirs("no group", "resourcegroup", name="rg-one", state="absent")
    results = play(
        no_account,
        again(no_account),
        theirs("no identity", "resource", **kind, resource_name="identity1", state="absent"),
        no_group,
        again(no_group),
    )

    assert changing(results) == ["no account", "no identity", "no group"]
    assert shown(sandbox, account, BATCH) is None
    assert shown(sandbox, group(sandbox), GROUPS) is None


def test_vault_with_policies_key_and_role_assignment(play: Play, sandbox: Sandbox, control: Control) -> None:
    who = control.principal("reader")["object_id"]
    me = next(one for one in control.call("GET", "/principals")["principals"] if one["client_id"] == sandbox.client_id)
    vault = f"{sandbox.group}/providers/Microsoft.KeyVault/vaults/kv-one"
    place = {"resource_group": "rg-sandbox", "vault_name": "kv-one", "vault_tenant": sandbox.tenant_id}
    kind = {"sku": {"family": "A", "name": "standard"}, "enable_rbac_authorization": False}
    mine = {"object_id": me["object_id"], "keys": ["get", "list", "create", "delete"]}
    have_vault = theirs("vault", "keyvault", **place, **kind, access_policies=[mine])
    policies = [mine, {"object_id": who, "keys": ["get", "wrapkey", "unwrapkey"]}]
    have_access = theirs("access", "keyvault", **place, **kind, access_policies=policies)
    key = {"keyvault_uri": "https://kv-one.vault.azure.net", "key_name": "key1"}
    have_key = theirs("key", "keyvaultkey", **key, key_size=3072, tags={"made": "once"})
    role = f"{sandbox.subscription}/providers/Microsoft.Authorization/roleDefinitions/{CRYPTO_OFFICER}"
    grant = {"scope": vault, "assignee_object_id": who, "role_definition_id": role}
    have_role = theirs("role", "roleassignment", **grant)

    results = play(
        have_vault,
        again(have_vault),
        have_access,
        again(have_access),
        theirs("vaults", "keyvault_info", resource_group="rg-sandbox", name="kv-one"),
        have_key,
        again(have_key),
        theirs("keys", "keyvaultkey_info", vault_uri="https://kv-one.vault.azure.net", name="key1"),
        have_role,
        again(have_role),
        theirs("roles", "roleassignment_info", scope=vault, strict_scope_match=True),
    )

    assert changing(results) == ["vault", "access", "key", "role"]
    properties = (shown(sandbox, vault, VAULTS) or {})["properties"]
    held = {policy["objectId"]: policy["permissions"]["keys"] for policy in properties["accessPolicies"]}
    assert held == {me["object_id"]: mine["keys"], who: ["get", "wrapkey", "unwrapkey"]}
    assert properties["enableRbacAuthorization"] is False
    bundle = data(sandbox, "GET", "/keys/key1", vault="kv-one").json()
    assert (bundle["attributes"]["key_size"], bundle["tags"]) == (3072, {"made": "once"})
    assert [one["kid"] for one in results["keys"]["keys"]] == [bundle["key"]["kid"]]
    assert [one["vault_uri"] for one in results["vaults"]["keyvaults"]] == [properties["vaultUri"]]
    (listed,) = results["roles"]["roleassignments"]
    assignment = shown(sandbox, listed["id"], ROLES)
    assert assignment is not None
    assert assignment["properties"]["principalId"] == who
    assert assignment["properties"]["roleDefinitionId"] == role

    no_role = theirs("no role", "roleassignment", **grant, state="absent")
    no_key = theirs("no key", "keyvaultkey", **key, state="absent")
    no_vault = theirs("no vault", "keyvault", **place, state="absent")
    results = play(
        no_role,
        again(no_role),
        no_key,
        again(no_key),
        theirs("deleted keys", "keyvaultkey_info", vault_uri="https://kv-one.vault.azure.net", show_deleted_key=True),
        no_vault,
        again(no_vault),
        theirs("purged vault", "keyvault", **place, state="absent", is_purge_deleted=True),
    )

    assert changing(results) == ["no role", "no key", "no vault", "purged vault"]
    assert [one["kid"].split("/")[4] for one in results["deleted keys"]["keys"]] == ["key1"]
    assert shown(sandbox, listed["id"], ROLES) is None
    assert shown(sandbox, vault, VAULTS) is None
    deleted = f"{sandbox.subscription}/providers/Microsoft.KeyVault/locations/westeurope/deletedVaults/kv-one"
    assert shown(sandbox, deleted, VAULTS) is None


def test_the_managed_identity_of_the_machine(play: Play, sandbox: Sandbox) -> None:
    # Without AZURE_CLIENT_ID, because it would select a user-assigned identity.
    results = play(
        theirs("groups", "resourcegroup_info", {"AZURE_CLIENT_ID": ""}, auth_source="msi", name="rg-sandbox")
    )

    assert [one["id"] for one in results["groups"]["resourcegroups"]] == [sandbox.group]


def test_both_collections_in_one_play(play: Play, sandbox: Sandbox) -> None:
    account = f"{group(sandbox)}/providers/Microsoft.Batch/batchAccounts/account1"
    vault_place = {"resource_group": "rg-one", "vault_name": "kv-one"}
    place = {"resource_group": "rg-one", "name": "account1", "auto_storage_account": storage(sandbox)}
    have = [
        theirs("group", "resourcegroup", name="rg-one", location="westeurope"),
        theirs(
            "vault",
            "keyvault",
            **vault_place,
            vault_tenant=sandbox.tenant_id,
            sku={"family": "A", "name": "standard"},
            enable_rbac_authorization=True,
            enable_purge_protection=True,
        ),
        theirs("account", "batchaccount", **place, identity={"type": "SystemAssigned"}),
        ours("key", "keyvault_cmk_key", vault_name="kv-one", name="batch"),
        ours(
            "access",
            "keyvault_cmk_access",
            vault_resource_group="rg-one",
            vault_name="kv-one",
            principal_id="{{ account.new.identity.principal_id }}",
        ),
        ours(
            "encryption",
            "batch_encryption",
            resource_group="rg-one",
            account_name="account1",
            key_source="microsoft_keyvault",
            key_identifier="{{ key.key_identifier }}",
        ),
    ]

    results = play(*have, *(again(one) for one in have), theirs("tags", "batchaccount", **place, tags={"made": "once"}))

    assert changing(results) == [*(one["name"] for one in have), "tags"]
    made = shown(sandbox, account, BATCH)
    assert made is not None
    assert made["tags"] == {"made": "once"}
    key_identifier = data(sandbox, "GET", "/keys/batch", vault="kv-one").json()["key"]["kid"]
    assert made["properties"]["encryption"] == {
        "keySource": "Microsoft.KeyVault",
        "keyVaultProperties": {"keyIdentifier": key_identifier},
    }
