# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rotation of 300 accounts while Python switches often between the threads of each process."""

from __future__ import annotations

from pathlib import Path

import pytest
from batch_calls import VERSION
from harness import Ansible
from key_vault_calls import data
from sandbox_client import MANAGEMENT, Sandbox, serving
from service import DAY

ACCOUNTS = 300
VAULT, KEY = "kv-sandbox-1", "batch-cmk"
# Python imports this module when it starts. An SDK calls hasattr for each attribute of a model that it completes. A
# pause lets another thread run meanwhile.
SITECUSTOMIZE = """
import builtins, random, sys, time

def with_pauses(instance, name, has=hasattr):
    if name == "_type":
        time.sleep(random.random() / 1000)
    return has(instance, name)

builtins.hasattr = with_pauses
sys.setswitchinterval(1e-5)
"""


@pytest.mark.slow
def test_threads_of_each_process_read_keys_at_the_same_time(tmp_path: Path) -> None:
    """No account fails, the run creates one version, and all accounts use this version."""
    with serving("--accounts-on-key", str(ACCOUNTS)) as sandbox:
        sandbox.control.advance(31 * DAY)
        ansible = Ansible(sandbox, tmp_path)
        ansible.write("sitecustomize.py", SITECUSTOMIZE)
        inventory = ansible.write("accounts.batch_accounts.yml", {"plugin": "azbatch.cmk.batch_accounts"})
        [before] = data(sandbox, "GET", f"/keys/{KEY}/versions", vault=VAULT).json()["value"]

        run = ansible.playbook(
            "azbatch.cmk.rotate",
            extra_vars={"cmk_hosts": "all", "cmk_key_max_version_age": "P30D"},
            arguments=["-i", str(inventory)],
            # The recorder would read the sandbox's log after each task.
            environment={"PYTHONPATH": str(tmp_path), "ANSIBLE_CALLBACKS_ENABLED": None},
            timeout=600,
        )

        assert run.rc == 0, run.output[-4000:]
        versions = [one["kid"] for one in data(sandbox, "GET", f"/keys/{KEY}/versions", vault=VAULT).json()["value"]]
        [created] = set(versions) - {before["kid"]}
        assert keys_of_accounts(sandbox) == [created] * ACCOUNTS


def keys_of_accounts(sandbox: Sandbox) -> list[str]:
    session, keys = sandbox.bearer(), []
    link = f"{MANAGEMENT}{sandbox.subscription}/providers/Microsoft.Batch/batchAccounts?api-version={VERSION}"
    while link:
        page = session.get(link, timeout=30).json()
        encryptions = (account["properties"]["encryption"] for account in page["value"])
        keys += [encryption["keyVaultProperties"]["keyIdentifier"] for encryption in encryptions]
        link = page.get("nextLink")
    return keys
