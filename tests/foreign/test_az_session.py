# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The modules of this collection, signed in by the session of `az login`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from azure_cli import QUIET, Az
from sandbox_client import TOKEN, Sandbox, plain_environment

WHO = ("AZURE_CLIENT_ID", "AZURE_SECRET", "AZURE_CLIENT_SECRET", "AZURE_TENANT", "AZURE_TENANT_ID")


@pytest.fixture
def session(stranger: Az, sandbox: Sandbox) -> Path:
    """The configuration folder of `az`, signed in as a principal with the permissions that the tasks need."""
    roles = ("Contributor", "Key Vault Crypto Officer")
    grants = [{"role": role, "scope": sandbox.subscription} for role in roles]
    somebody = sandbox.control.principal("az-user", roles=grants)
    stranger.sign_in(somebody["client_id"], f"--password={somebody['secret']}")
    return stranger.folder


@pytest.mark.parametrize("in_process", [True, False], ids=["in_process", "module"])
def test_the_session_of_the_cli(
    clients: Path, sandbox: Sandbox, session: Path, tmp_path: Path, in_process: bool
) -> None:
    """The tokens for both Resource Manager and Key Vault are from the session. There are no other credentials."""
    vault = {"resource_group": "rg-sandbox", "name": "kv-one"}
    tasks: list[dict[str, Any]] = [
        {
            "name": "vault",
            "azbatch.cmk.keyvault_cmk_vault": {**vault, "auth_source": source},
            "register": f"vault_{source}",
        }
        for source in ("cli", "auto")
    ]
    tasks.append({"name": "key", "azbatch.cmk.keyvault_cmk_key": {"vault_name": "kv-one", "name": "batch"}})
    refused = {"vault_name": "kv-nowhere", "name": "batch"}
    tasks.append(
        {"name": "no", "azbatch.cmk.keyvault_cmk_key": refused, "register": "no", "failed_when": "no is success"}
    )
    variables = {"cmk_in_process": in_process, "ansible_python_interpreter": sys.executable}
    play = {"hosts": "localhost", "gather_facts": False, "vars": variables, "tasks": tasks}
    playbook = tmp_path / "playbook.json"
    playbook.write_text(json.dumps([play]))
    environment = {
        **plain_environment(),
        **{name: value for name, value in sandbox.environment.items() if name not in WHO},
        **QUIET,
        "AZURE_CONFIG_DIR": str(session),
        "HOME": str(tmp_path),
        "PATH": f"{clients / 'azure-cli' / 'bin'}{os.pathsep}{os.environ['PATH']}",
    }
    since = sandbox.control.call("GET", "/requests")["last"]
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", playbook, "-i", "localhost,", "-c", "local", "-vvvv"],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"code": ' in done.stdout, "the refusal is shown"
    assert not TOKEN.search(done.stdout + done.stderr)
    principals = {entry["principal"] for entry in sandbox.control.requests(since) if entry["principal"]}
    names = {one["object_id"]: one["name"] for one in sandbox.control.call("GET", "/principals")["principals"]}
    assert {names[principal] for principal in principals} == {"az-user"}
    assert [entry["method"] for entry in sandbox.control.requests(since, writes=True)] == ["PUT", "POST"]
