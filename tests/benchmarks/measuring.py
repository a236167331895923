# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Measures the cost of a command and its requests to the sandbox."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from azure_cli import Az
from harness import BIN, Ansible
from sandbox_client import Sandbox

ANSIBLE_PLAYBOOK = BIN / "ansible-playbook"
MOST_ACCOUNTS = 10_000


@dataclass(frozen=True)
class Cost:
    """The cost of a process, including the child processes that it waited for."""

    seconds: float
    processor_seconds: float
    # The peak memory of the largest of these processes, in bytes.
    peak: int
    status: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.seconds + other.seconds,
            self.processor_seconds + other.processor_seconds,
            max(self.peak, other.peak),
            self.status or other.status,
        )


@dataclass(frozen=True)
class Bench:
    """Runs and measures commands in a folder."""

    folder: Path
    # The folder with a virtual environment for each other client, which scripts/foreign-clients creates.
    clients: Path
    # The part of the full size of each benchmark, from 0 to 1.
    fraction: float

    def sized(self, size: int) -> int:
        return max(1, round(size * self.fraction))

    @property
    def growing(self) -> list[int]:
        """Numbers of accounts, each ten times the previous number."""
        return [max(1, self.sized(MOST_ACCOUNTS) // divisor) for divisor in (1000, 100, 10, 1)]

    def inventory(self) -> Path:
        """An inventory source of the plugin azbatch.cmk.batch_accounts with all accounts that the caller can read."""
        source = self.folder / "accounts.batch_accounts.yml"
        source.write_text("plugin: azbatch.cmk.batch_accounts\n")
        return source

    def ansible(self, sandbox: Sandbox) -> dict[str, str]:
        """An environment for ansible-playbook, of this or another virtual environment."""
        return Ansible(sandbox, self.folder).environment(ANSIBLE_CALLBACKS_ENABLED=None, ANSIBLE_CALLBACK_PLUGINS=None)

    def az(self, sandbox: Sandbox) -> Az:
        """The Azure CLI, signed in."""
        az = Az(self.clients / "azure-cli" / "bin" / "az", sandbox, self.folder / f"az-{sandbox.client_id}")
        if not az.folder.exists():
            az.sign_in(sandbox.client_id, f"--password={sandbox.secret}")
        return az

    def measured(
        self, command: Sequence[str | Path], environment: Mapping[str, str], *, may_fail: bool = False
    ) -> Cost:
        """Run a command. Its output is in the file `output` until the next command."""
        with self.output.open("w") as output, self.errors.open("w") as errors:
            began = time.monotonic()
            process = subprocess.Popen(
                command, env=environment, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=output, stderr=errors
            )
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode and not may_fail:
            output = (self.output.read_text() + self.errors.read_text())[-4000:]
            raise SystemExit(f"{' '.join(map(str, command))}\nended with {process.returncode}:\n{output}")
        # The unit of ru_maxrss is KiB on Linux.
        return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, process.returncode)

    @property
    def output(self) -> Path:
        return self.folder / "output"

    @property
    def errors(self) -> Path:
        return self.folder / "errors"


def by_xargs(az: Az, command: str, lines: Sequence[str], processes: int, folder: Path) -> list[str | Path]:
    """A command that runs `az` with the arguments of each line, in up to that number of concurrent processes."""
    arguments = folder / "arguments"
    arguments.write_text("".join(f"{line}\n" for line in lines))
    xargs = ["xargs", "--arg-file", arguments, "--max-lines=1", f"--max-procs={processes}"]
    return [*xargs, az.command, *command.split()]


@dataclass(frozen=True)
class Traffic:
    """The requests to the services that the sandbox emulates."""

    requests: int
    # The requests that count against Resource Manager's rate limit for reads.
    reads: int
    throttled: int

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.requests + other.requests, self.reads + other.reads, self.throttled + other.throttled)

    @classmethod
    def after(cls, sandbox: Sandbox, number: int) -> Traffic:
        """The requests after the request with that number."""
        entries = sandbox.control.requests(number)
        assert len(entries) == sandbox.control.last - number, "the sandbox's log has forgotten the oldest requests"
        # In a new configuration folder, `az` requests its newest version from a host that the sandbox does not emulate.
        answered = [entry for entry in entries if entry["service"] != "unknown"]
        reads = sum(entry["method"] == "GET" and entry["host"].startswith("management.") for entry in answered)
        return cls(len(answered), reads, sum(entry["status"] == 429 for entry in answered))
