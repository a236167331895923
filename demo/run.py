# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the playbooks of the collection against the sandbox, and reads the account from Azure's API after each playbook.

Run it with `make demo`. The values in the table at the end are read with Azure's SDK, except the column "changed".
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml
from azure.identity import ClientSecretCredential
from azure.mgmt.batch import BatchManagementClient

VARS = Path(__file__).with_name("vars.yml")
STEPS = (
    ("provision", "provision", ()),
    ("provision again", "provision", ()),
    ("rotate", "rotate", ("cmk_key_new_version=true",)),
    ("rotate again", "rotate", ()),
    ("revert", "revert", ()),
)
ROW = "{:<16} {:<20} {:<34} {}"


def main() -> int:
    if "AZURE_SANDBOX_URL" not in os.environ:
        return subprocess.call(["azure-sandbox", "run", "--", sys.executable, __file__])
    rows = []
    for title, playbook, extra_vars in STEPS:
        print(f"\n=== {title}", flush=True)
        changed = play(playbook, extra_vars)
        if changed is None:
            return 1
        rows.append((title, *end_state(), changed))
    print("\n" + ROW.format("step", "key source", "key version", "changed"))
    for row in rows:
        print(ROW.format(*row))
    return 0


def play(playbook: str, extra_vars: tuple[str, ...]) -> str | None:
    """Run a playbook as a user does, and print its output. Returns whether it reports a change ("yes" or "no"), or None
    if it failed."""
    arguments = [argument for variable in extra_vars for argument in ("-e", variable)]
    command = ["ansible-playbook", f"azbatch.cmk.{playbook}", "-e", f"@{VARS}", *arguments]
    print("$ " + " ".join(["ansible-playbook", f"azbatch.cmk.{playbook}", "-e", f"@demo/{VARS.name}", *arguments]))
    quiet = {"ANSIBLE_LOCALHOST_WARNING": "false", "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false"}
    output = ""
    with subprocess.Popen(command, env={**os.environ, **quiet}, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            output += line
    recap = re.search(r"changed=(\d+)", output)
    if process.returncode or recap is None:
        return None
    return "yes" if int(recap[1]) else "no"


def end_state() -> tuple[str, str]:
    """The account's key source and key version, as Azure's API returns them."""
    variables = yaml.safe_load(VARS.read_text())
    environment = os.environ
    credential = ClientSecretCredential(
        environment["AZURE_TENANT_ID"], environment["AZURE_CLIENT_ID"], environment["AZURE_CLIENT_SECRET"]
    )
    client = BatchManagementClient(credential, environment["AZURE_SUBSCRIPTION_ID"])
    account = client.batch_account.get(variables["cmk_resource_group"], variables["cmk_account_name"])
    encryption = account.encryption
    properties = encryption.key_vault_properties
    version = properties.key_identifier.rsplit("/", 1)[-1] if properties else "-"
    source = encryption.key_source
    # A string in older releases of the SDK, an Enum in newer releases.
    return getattr(source, "value", source), version


if __name__ == "__main__":
    sys.exit(main())
