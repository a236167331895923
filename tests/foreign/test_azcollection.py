# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The collection azure.azcollection from the package `ansible` in a play with this collection."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from key_vault_calls import data
from sandbox_client import Sandbox, plain_environment

Task = dict[str, Any]
Results = dict[str, dict[str, Any]]
Play = Callable[..., Results]

BATCH = "2024-07-01"
# Each run of a module takes seconds, most of which are for importing the SDKs.
SECONDS = 300


def task(title: str, module: str, /, **arguments: Any) -> Task:
    """A task. Its result is registered as its title."""
    return {"name": title, module: arguments, "register": title}


def theirs(title: str, module: str, /, **arguments: Any) -> Task:
    return task(title, f"azure.azcollection.azure_rm_{module}", **arguments)


def ours(title: str, module: str, /, **arguments: Any) -> Task:
    return task(title, f"azbatch.cmk.{module}", **arguments)


def again(one: Task) -> Task:
    return {**one, "name": f"{one['name']} again", "register": f"{one['register']}_again"}


@pytest.fixture
def play(sandbox: Sandbox, clients: Path, tmp_path: Path) -> Play:
    """Runs tasks with ansible-playbook, and returns the results by task name. No task may fail."""
    bin_folder = clients / "azcollection" / "bin"

    def run(*tasks: Task) -> Results:
        playbook = tmp_path / "playbook.yml"
        book = [{"hosts": "localhost", "gather_facts": False, "tasks": list(tasks)}]
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


def test_both_collections_in_one_play(play: Play, sandbox: Sandbox) -> None:
    group = f"{sandbox.subscription}/resourceGroups/rg-one"
    # azure_rm_batchaccount fails for a Batch account without a storage account, because Azure's response then lacks it.
    storage = f"{group}/providers/Microsoft.Storage/storageAccounts/storage1"
    vault_place = {"resource_group": "rg-one", "vault_name": "kv-one"}
    place = {"resource_group": "rg-one", "name": "account1", "auto_storage_account": storage}
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

    changed = [name for name, result in results.items() if result["changed"]]
    assert changed == [*(one["name"] for one in have), "tags"]
    made = sandbox.arm("GET", f"{group}/providers/Microsoft.Batch/batchAccounts/account1", BATCH).json()
    assert made["tags"] == {"made": "once"}
    key_identifier = data(sandbox, "GET", "/keys/batch", vault="kv-one").json()["key"]["kid"]
    assert made["properties"]["encryption"] == {
        "keySource": "Microsoft.KeyVault",
        "keyVaultProperties": {"keyIdentifier": key_identifier},
    }
