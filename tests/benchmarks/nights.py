# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Playbooks for three hundred accounts on one key, in a subscription with Azure's rate limits."""

from __future__ import annotations

from dataclasses import dataclass

from fleet import AGED, DAY, Run, message, ok, play
from key_vault_calls import data
from measuring import Bench
from sandbox_client import Sandbox, serving
from tables import Result, Wanted, times

ACCOUNTS = 300
VAULT, OTHER = "kv-sandbox-1", "batch-cmk-2"


@dataclass(frozen=True)
class Limit:
    """The highest number of Resource Manager's reads for an account, and the most processor time, relative to a
    playbook that only prints a message for each account."""

    reads: float
    messages: float | None = None


LIMITS = {
    "provision again: nothing to do": Limit(3),
    "rotate: nothing is due": Limit(0.2, 7),
    "switch to a different key": Limit(3),
    "recover: the key was disabled": Limit(4, 18),
    "revert": Limit(2.5),
}


def main(bench: Bench) -> Result:
    accounts = bench.sized(ACCOUNTS)
    with serving("--realistic", "--accounts-on-key", str(accounts)) as sandbox:
        messages = message(bench, sandbox).processor_seconds
        runs = dict(zip(LIMITS, _runs(bench, sandbox), strict=True))
    return Result(
        (
            f"{accounts} accounts",
            "Resource Manager's reads an account",
            "requests an account",
            "processor an account, ms",
            "processor, times a message",
            "wall, s",
            "429s",
        ),
        [(name, *_row(run, accounts, messages)) for name, run in runs.items()],
        [one for name, run in runs.items() for one in _wanted(name, run, accounts, messages)],
    )


def _runs(bench: Bench, sandbox: Sandbox) -> list[Run]:
    """One run after the other, each with full rate limits."""
    runs = []

    def run(playbook: str, *arguments: str) -> None:
        sandbox.control.advance(DAY)
        runs.append(play(bench, sandbox, playbook, *arguments))

    run("provision", "-e", "cmk_vault_resource_group=rg-sandbox")
    run("rotate", *AGED)
    other = ok(data(sandbox, "POST", f"/keys/{OTHER}/create", {"kty": "RSA", "key_size": 3072}, vault=VAULT))
    new = f"https://{VAULT}.vault.azure.net/keys/{OTHER}"
    run("switch", "-e", f"cmk_new_key_identifier={new}")
    version = other["key"]["kid"].partition(".net")[2]
    ok(data(sandbox, "PATCH", version, {"attributes": {"enabled": False}}, vault=VAULT))
    run("recover")
    run("revert")
    return runs


def _row(run: Run, accounts: int, messages: float) -> tuple[str, ...]:
    cost, traffic = run.cost, run.traffic
    return (
        f"{traffic.reads / accounts:.2f}",
        f"{traffic.requests / accounts:.2f}",
        f"{1000 * cost.processor_seconds / accounts:.0f}",
        times(cost.processor_seconds, messages),
        f"{cost.seconds:.0f}",
        str(traffic.throttled),
    )


def _wanted(name: str, run: Run, accounts: int, messages: float) -> list[Wanted]:
    limit, reads = LIMITS[name], run.traffic.reads / accounts
    processor = run.cost.processor_seconds
    wanted = [
        Wanted(
            f"{name}: at most {limit.reads} of Resource Manager's reads an account",
            f"{reads:.2f}",
            reads <= limit.reads,
        ),
        Wanted(f"{name}: no failed account", f"ansible-playbook ended with {run.cost.status}", not run.cost.status),
    ]
    if limit.messages:
        wanted.append(
            Wanted(
                f"{name}: at most {limit.messages} times the processor time of a message",
                f"{times(processor, messages)} times",
                processor <= limit.messages * messages,
            )
        )
    return wanted
