# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cost of a task that reads an account for each of many hosts, with this collection and with other clients."""

from __future__ import annotations

import json
from typing import Any

from batch_calls import VERSION
from measuring import ANSIBLE_PLAYBOOK, Bench, Cost, Traffic, by_xargs
from sandbox_client import Sandbox, serving
from tables import Result, Wanted, times

HOSTS = 100
# Ansible's default.
FORKS = 5
OURS = {"azbatch.cmk.batch_encryption_info": {"resource_group": "{{ group }}", "account_name": "{{ account }}"}}
THEIRS = {"azure.azcollection.azure_rm_batchaccount_info": {"resource_group": "{{ group }}", "name": "{{ account }}"}}

IN_PROCESS, MODULE = "azbatch.cmk, in process", "azbatch.cmk, as a plain module"
AZCOLLECTION = "azure.azcollection"
# The first can use several processors. The second is a common shell loop.
AZ, AZ_IN_A_LOOP = f"az, {FORKS} at a time", "az, one after the other"
PROCESSES = {AZ: FORKS, AZ_IN_A_LOOP: 1}


def main(bench: Bench) -> Result:
    hosts = bench.sized(HOSTS)
    with serving("--accounts", str(hosts)) as sandbox:
        _give_storage(sandbox, hosts)
        costs: dict[str, Cost] = {}
        requests: dict[str, int] = {}
        for way in (IN_PROCESS, MODULE, AZCOLLECTION, AZ, AZ_IN_A_LOOP):
            # An unmeasured read first, because some work is done only once, such as the compilation of Python files.
            _read(bench, sandbox, way, 1)
            before = sandbox.control.last
            costs[way] = _read(bench, sandbox, way, hosts)
            requests[way] = Traffic.after(sandbox, before).requests
            print(f"{way}: {costs[way].seconds:.1f} s", flush=True)
    ours = costs[IN_PROCESS]
    return Result(
        ("one task on one host", "times ours in process", "wall, ms", "processor, ms", "requests"),
        [
            (
                way,
                times(cost.seconds, ours.seconds),
                f"{1000 * cost.seconds / hosts:.0f}",
                f"{1000 * cost.processor_seconds / hosts:.0f}",
                f"{requests[way] / hosts:.2f}",
            )
            for way, cost in costs.items()
        ],
        [_wanted(AZCOLLECTION, 30, costs), _wanted(AZ_IN_A_LOOP, 8, costs)],
    )


def _wanted(peer: str, least: int, costs: dict[str, Cost]) -> Wanted:
    ratio = costs[peer].seconds / costs[IN_PROCESS].seconds
    return Wanted(f"in process at least {least} times faster than {peer}", f"{ratio:.1f} times", ratio >= least)


def _places(hosts: int) -> list[tuple[str, str]]:
    """The resource group and the name of each account."""
    return [(f"batch-{number // 50:03d}", f"batch{number:05d}") for number in range(hosts)]


def _give_storage(sandbox: Sandbox, hosts: int) -> None:
    """Set a storage account, because the module of azure.azcollection fails for a Batch account without one."""
    storage = f"{sandbox.group}/providers/Microsoft.Storage/storageAccounts/storage"
    body = {"properties": {"autoStorage": {"storageAccountId": storage}}}
    for group, account in _places(hosts):
        path = f"{sandbox.subscription}/resourceGroups/{group}/providers/Microsoft.Batch/batchAccounts/{account}"
        response = sandbox.arm("PATCH", path, VERSION, body)
        assert response.ok, response.text


def _read(bench: Bench, sandbox: Sandbox, way: str, hosts: int) -> Cost:
    places = _places(hosts)
    if way in PROCESSES:
        az = bench.az(sandbox)
        lines = [f"--resource-group {group} --name {account}" for group, account in places]
        return bench.measured(by_xargs(az, "batch account show", lines, PROCESSES[way], bench.folder), az.environment)
    environment = bench.ansible(sandbox)
    inventory = {account: {"group": group, "account": account} for group, account in places}
    variables = {
        "ansible_connection": "local",
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        "cmk_in_process": way == IN_PROCESS,
    }
    task = {"name": "Read", **(THEIRS if way == AZCOLLECTION else OURS)}
    command = bench.clients / "azcollection" / "bin" / "ansible-playbook" if way == AZCOLLECTION else ANSIBLE_PLAYBOOK
    return bench.measured(
        [
            command,
            "--forks",
            str(FORKS),
            "--inventory",
            _written(bench, "inventory.json", {"all": {"hosts": inventory, "vars": variables}}),
            _written(bench, "playbook.json", [{"hosts": "all", "gather_facts": False, "tasks": [task]}]),
        ],
        environment,
    )


def _written(bench: Bench, name: str, content: Any) -> str:
    (bench.folder / name).write_text(json.dumps(content))
    return name
