# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Provision, rotate and revert an account, with network latency, by our playbooks and by commands of `az`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from typing import Any

from key_vault_calls import ENCRYPTION_USER
from measuring import ANSIBLE_PLAYBOOK, Bench, Cost, Traffic
from sandbox_client import Sandbox, serving
from tables import Result, Wanted, times

LATENCY = 100
# The round with the median ratio is reported.
ROUNDS = 3
GROUP = "rg-sandbox"
STEPS = {"provision": (), "rotate": ("--extra-vars", "cmk_key_new_version=true"), "revert": ()}
Spent = tuple[Cost, int]


def main(bench: Bench) -> Result:
    # An unmeasured round first, because some work is done only once, such as the compilation of Python files.
    _lived(bench)
    lives = [_lived(bench, "--latency", str(bench.sized(LATENCY))) for _round in range(ROUNDS)]
    both = sorted(lives, key=lambda life: _ratio(*life["all"]))[ROUNDS // 2]
    (_, our_requests), (_, their_requests) = both["all"]
    ratio = _ratio(*both["all"])
    return Result(
        ("", "azbatch.cmk, times az", "azbatch.cmk, s", "az, s", "azbatch.cmk, requests", "az, requests"),
        [
            (
                step,
                times(mine.seconds, other.seconds),
                f"{mine.seconds:.1f}",
                f"{other.seconds:.1f}",
                str(my_requests),
                str(other_requests),
            )
            for step, ((mine, my_requests), (other, other_requests)) in both.items()
        ],
        [
            Wanted(
                "at most 1.2 times as long as az, because azbatch.cmk verifies each change",
                f"{ratio:.2f} times as long, with {our_requests} requests instead of {their_requests}",
                ratio <= 1.2,
            )
        ],
    )


def _lived(bench: Bench, *arguments: str) -> dict[str, tuple[Spent, Spent]]:
    """The cost of each step, with this collection and with `az`."""
    with serving(*arguments) as sandbox:
        ours = _by_playbooks(bench, sandbox)
        theirs = _by_az(bench, sandbox)
    return {**{step: (ours[step], theirs[step]) for step in STEPS}, "all": (ours["all"], _sum(theirs))}


def _ratio(ours: Spent, theirs: Spent) -> float:
    return ours[0].seconds / theirs[0].seconds


def _by_playbooks(bench: Bench, sandbox: Sandbox) -> dict[str, Spent]:
    """The cost of each playbook, and of all playbooks in one command for another account (`all`)."""
    environment = bench.ansible(sandbox)
    commands = {step: ("ours", [step], arguments) for step, arguments in STEPS.items()}
    commands["all"] = "ours2", list(STEPS), STEPS["rotate"]
    spent = {}
    for step, (name, steps, arguments) in commands.items():
        before = sandbox.control.last
        playbooks = [f"azbatch.cmk.{one}" for one in steps]
        command = [ANSIBLE_PLAYBOOK, *playbooks, "--extra-vars", _variables(name), *arguments]
        cost = bench.measured(command, environment)
        spent[step] = cost, Traffic.after(sandbox, before).requests
        print(f"azbatch.cmk, {step}: {cost.seconds:.1f} s", flush=True)
    return spent


def _variables(name: str) -> str:
    return json.dumps(
        {
            "cmk_resource_group": GROUP,
            "cmk_account_name": name,
            "cmk_vault_name": f"kv-{name}",
            "cmk_vault_authorization": "rbac",
            "cmk_key_name": "cmk",
        }
    )


def _by_az(bench: Bench, sandbox: Sandbox) -> dict[str, Spent]:
    az = bench.az(sandbox)
    spent: dict[str, Spent] = {}
    costs: list[Cost] = []

    def run(line: str) -> Any:
        costs.append(bench.measured([az.command, *shlex.split(line)], az.environment))
        return json.loads(bench.output.read_text())

    steps = _steps(run)
    for step in STEPS:
        before = sandbox.control.last
        next(steps)
        spent[step] = sum(costs[1:], costs[0]), Traffic.after(sandbox, before).requests
        print(f"az, {step}: {spent[step][0].seconds:.1f} s in {len(costs)} commands", flush=True)
        costs.clear()
    return spent


def _steps(az: Callable[[str], Any]) -> Iterator[None]:
    """The commands of each step. They check neither existing resources before the step nor the result after it."""
    account = f"--name theirs --resource-group {GROUP}"
    vault = az(f"keyvault create --name kv-theirs --resource-group {GROUP} --enable-purge-protection true")
    principal = az(f"batch account create {account} --location westeurope --mi-system-assigned true")["identity"]
    whom = f"--assignee-object-id {principal['principalId']} --assignee-principal-type ServicePrincipal"
    az(f"role assignment create --role {ENCRYPTION_USER} --scope {vault['id']} {whom}")
    key = az("keyvault key create --vault-name kv-theirs --name cmk --kty RSA --size 2048")
    put = f"batch account set {account} --encryption-key-source Microsoft.KeyVault --encryption-key-identifier"
    az(f"{put} {key['key']['kid']}")
    yield
    newer = az("keyvault key rotate --vault-name kv-theirs --name cmk")
    az(f"{put} {newer['key']['kid']}")
    yield
    az(f"batch account set {account} --encryption-key-source Microsoft.Batch")
    yield


def _sum(spent: dict[str, Spent]) -> Spent:
    costs = [cost for cost, _requests in spent.values()]
    return sum(costs[1:], costs[0]), sum(requests for _cost, requests in spent.values())
