# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs playbooks for many accounts, and reads the state of the accounts after a rotation."""

from __future__ import annotations

import functools
import math
import operator
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import requests
from batch_calls import VERSION
from key_vault_calls import ENCRYPTION_USER, ROLES, data
from measuring import ANSIBLE_PLAYBOOK, Bench, Cost, Traffic
from sandbox_client import MANAGEMENT, Sandbox

DAY = 86400
AGED = ("-e", "cmk_key_max_version_age=P30D")
SUBSCRIPTIONS = "2022-09-01"
IDENTITIES = "2023-01-31"
KEY = "batch-cmk"
MESSAGE = """
- hosts: all
  gather_facts: false
  strategy: linear
  serial: [1, 10, 25%]
  tasks:
    - ansible.builtin.debug:
        msg: Hello
"""
_threads = threading.local()


@dataclass(frozen=True)
class Run:
    cost: Cost
    traffic: Traffic

    def __add__(self, other: Run) -> Run:
        return Run(self.cost + other.cost, self.traffic + other.traffic)


@dataclass(frozen=True)
class Rotation(Run):
    accounts: int
    # Messages about the accounts that do not use a new version or are unavailable.
    behind: list[str]

    @property
    def failed(self) -> bool:
        return bool(self.cost.status or self.behind)

    @property
    def failures(self) -> str:
        """The number of failures and their messages, human-readable."""
        if not self.failed:
            return f"none of {self.accounts}"
        some = f", such as {self.behind[0]}" if self.behind else ""
        return f"{len(self.behind)} of {self.accounts}{some}; ansible-playbook ended with {self.cost.status}"


def play(bench: Bench, sandbox: Sandbox, playbook: str, *arguments: str) -> Run:
    """Run the playbook for all accounts. `arguments` are added to the command."""
    command = [ANSIBLE_PLAYBOOK, "-i", bench.inventory(), f"azbatch.cmk.{playbook}", "-e", "cmk_hosts=all", *arguments]
    before = sandbox.control.last
    cost = bench.measured(command, bench.ansible(sandbox), may_fail=True)
    print(f"{playbook} {' '.join(arguments)}: {cost.seconds:.1f} s, ended with {cost.status}", flush=True)
    return Run(cost, Traffic.after(sandbox, before))


def message(bench: Bench, sandbox: Sandbox, *arguments: str) -> Cost:
    """Run a playbook that only prints a message for each account. It shows the speed of the machine. `arguments` are
    added to the command."""
    playbook = bench.folder / "message.yml"
    playbook.write_text(MESSAGE)
    cost = bench.measured([ANSIBLE_PLAYBOOK, "-i", bench.inventory(), playbook, *arguments], bench.ansible(sandbox))
    print(f"a message for each account: {cost.seconds:.1f} s", flush=True)
    return cost


def rotate(bench: Bench, sandbox: Sandbox, *arguments: str, slices: int = 1) -> Rotation:
    """Run the playbook rotate for all accounts, in one run or in slices one after the other. Their key versions are 31
    days old, and the maximum age is 30 days. `arguments` are added to the command."""
    sandbox.control.advance(31 * DAY)
    with _no_limits(sandbox):
        keys_before = {account["id"]: _key_of(account) for account in _accounts(sandbox)}
    size = math.ceil(len(keys_before) / slices)
    limits = [[limit_to(size, first)] if slices > 1 else [] for first in range(0, len(keys_before), size)]
    runs = [play(bench, sandbox, "rotate", *AGED, *arguments, *limit) for limit in limits]
    run = functools.reduce(operator.add, runs)
    with _no_limits(sandbox):
        rotation = Rotation(run.cost, run.traffic, len(keys_before), list(_behind(sandbox, keys_before)))
    print(f"{rotation.accounts} accounts: failed {rotation.failures}", flush=True)
    return rotation


def limit_to(accounts: int, first: int = 0) -> str:
    return f"--limit=all[{first}:{first + accounts - 1}]"


def give_each_its_identity(sandbox: Sandbox) -> None:
    """Replace the identity that the accounts share by a user-assigned identity for each account, with access to the
    key."""

    def give(account: dict[str, Any]) -> None:
        session = _session_of_thread(sandbox)
        group = account["id"].partition("/providers/")[0]
        path = f"{group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id-{account['name']}"
        identity = ok(sandbox.arm("PUT", path, IDENTITIES, {"location": account["location"]}, session=session))
        vault_name = _key_of(account).removeprefix("https://").partition(".")[0]
        subscription = account["id"].split("/")[2]
        vault = (
            f"/subscriptions/{subscription}/resourceGroups/rg-sandbox/providers/Microsoft.KeyVault/vaults/{vault_name}"
        )
        role = f"/subscriptions/{subscription}/providers/Microsoft.Authorization/roleDefinitions/{ENCRYPTION_USER}"
        principal = {"principalId": identity["properties"]["principalId"], "principalType": "ServicePrincipal"}
        grant = {"properties": {"roleDefinitionId": role, **principal}}
        assignment = f"{vault}/providers/Microsoft.Authorization/roleAssignments/{uuid.uuid4()}"
        ok(sandbox.arm("PUT", assignment, ROLES, grant, session=session))
        body = {"identity": {"type": "UserAssigned", "userAssignedIdentities": {identity["id"]: {}}}}
        ok(sandbox.arm("PATCH", account["id"], VERSION, body, session=session))

    with _no_limits(sandbox), ThreadPoolExecutor(8) as pool:
        accounts = list(pool.map(give, list(_accounts(sandbox))))
    # A grant takes up to ten minutes to take effect.
    sandbox.control.advance(DAY)
    print(f"{len(accounts)} accounts have a separate identity", flush=True)


def _session_of_thread(sandbox: Sandbox) -> requests.Session:
    if not hasattr(_threads, "session"):
        _threads.session = sandbox.bearer()
    session: requests.Session = _threads.session
    return session


def ok(response: requests.Response) -> Any:
    assert response.ok, response.text
    return response.json()


@contextmanager
def _no_limits(sandbox: Sandbox) -> Iterator[None]:
    """Turn off the rate limits for requests of the benchmark, which must not use the tokens of the run."""
    limits = sandbox.control.call("GET", "/timing")["throttling"]
    sandbox.control.timing(throttling=False)
    yield
    sandbox.control.timing(throttling=limits)


def _behind(sandbox: Sandbox, keys_before: dict[str, str]) -> Iterator[str]:
    session = sandbox.bearer()
    newest: dict[str, str] = {}
    for account in _accounts(sandbox):
        key = _key_of(account)
        vault = key.removeprefix("https://").partition(".")[0]
        if vault not in newest:
            newest[vault] = data(sandbox, "GET", f"/keys/{KEY}", vault=vault).json()["key"]["kid"]
        if key == keys_before[account["id"]]:
            yield f"{account['name']}: still on {key}"
        elif key != newest[vault]:
            yield f"{account['name']}: on {key}, not on {newest[vault]}"
        elif not (response := sandbox.arm("GET", f"{account['id']}/pools", VERSION, session=session)).ok:
            yield f"{account['name']}: {response.json()['error']['code']}"


def _key_of(account: dict[str, Any]) -> str:
    return str(account["properties"]["encryption"]["keyVaultProperties"]["keyIdentifier"])


def _accounts(sandbox: Sandbox) -> Iterator[dict[str, Any]]:
    """The accounts of all subscriptions."""
    session = sandbox.bearer()
    for subscription in sandbox.arm("GET", "/subscriptions", SUBSCRIPTIONS, session=session).json()["value"]:
        yield from _pages(session, f"{subscription['id']}/providers/Microsoft.Batch/batchAccounts")


def _pages(session: requests.Session, path: str) -> Iterator[dict[str, Any]]:
    link: str | None = f"{MANAGEMENT}{path}?api-version={VERSION}"
    while link:
        response = session.get(link, timeout=30)
        assert response.ok, response.text
        document = response.json()
        yield from document["value"]
        link = document.get("nextLink")
