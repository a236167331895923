# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests with ten thousand accounts in ten subscriptions that a client is the bottleneck, not the sandbox.

Processor times of the same run are compared with each other, so that the machine and other processes have little
influence. `pytest -s tests/sandbox/test_capacity.py` prints them.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from azure.identity import DefaultAzureCredential
from azure.mgmt.batch import BatchManagementClient
from sandbox_client import MANAGEMENT, Sandbox, point_at, serving

from azure_sandbox.batch.encryption import KeyUse
from azure_sandbox.seed import new_world
from azure_sandbox.shared.behavior import Behavior
from azure_sandbox.shared.timing import REALISTIC

SUBSCRIPTIONS = "2022-09-01"


@pytest.fixture(scope="module")
def full() -> Iterator[Sandbox]:
    with serving("--accounts", "10000") as sandbox:
        assert sandbox.processor_seconds() < 5
        yield sandbox


@pytest.fixture
def subscriptions(full: Sandbox, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    point_at(full, monkeypatch)
    listed = full.arm("GET", "/subscriptions", SUBSCRIPTIONS).json()["value"]
    return [one["subscriptionId"] for one in listed]


def test_accounts_are_spread_over_subscriptions(subscriptions: list[str]) -> None:
    credential = DefaultAzureCredential()
    found: Counter[str] = Counter()
    names = set()
    for subscription in subscriptions:
        with BatchManagementClient(credential, subscription) as client:
            for account in client.batch_account.list():
                found[account.id.split("/")[2]] += 1
                names.add(account.name)
    assert found == dict.fromkeys(subscriptions, 1000)
    assert len(subscriptions) == 10
    assert len(names) == 10000


def test_long_lists_come_page_by_page(full: Sandbox, subscriptions: list[str]) -> None:
    found: list[int] = []
    link = f"{MANAGEMENT}/subscriptions/{subscriptions[3]}/resources?$top=400&api-version={SUBSCRIPTIONS}"
    while link:
        document = full.bearer().get(link, timeout=30).json()
        found.append(len(document["value"]))
        link = document.get("nextLink")
    assert found == [400, 400, 200]


def test_the_client_is_the_bottleneck(full: Sandbox, subscriptions: list[str]) -> None:
    requests = 400
    with BatchManagementClient(DefaultAzureCredential(), subscriptions[0]) as client:
        client.batch_account.get("batch-000", "batch00000")
        sandbox_before, client_before = full.processor_seconds(), time.process_time()
        for number in range(requests):
            client.batch_account.get(f"batch-{number // 50:03d}", f"batch{number:05d}")
        client_took, sandbox_took = time.process_time() - client_before, full.processor_seconds() - sandbox_before
    print(
        f"\n{requests} reads: {1000 * client_took / requests:.2f} ms each in Azure's SDK, "
        f"{1000 * sandbox_took / requests:.2f} ms in the sandbox: {client_took / sandbox_took:.1f} times"
    )
    assert client_took > 2 * sandbox_took


def test_a_write_unwraps_no_account() -> None:
    """At its start, the sandbox wraps and unwraps the key of each account once. A write to another resource does
    not do that."""
    writes = 20
    with serving("--realistic", "--accounts-on-key", "1000") as sandbox:
        began = sandbox.processor_seconds()
        session = sandbox.bearer()
        before = sandbox.processor_seconds()
        for number in range(writes):
            tags = {"tags": {"number": str(number)}}
            assert sandbox.arm("PATCH", sandbox.group, SUBSCRIPTIONS, tags, session=session).ok
        took = (sandbox.processor_seconds() - before) / writes
    print(f"\n1,000 accounts on keys: {began:.2f} s to start, {1000 * took:.1f} ms for a write to a resource group")
    assert began > 20 * took


@pytest.mark.parametrize("newest", ["in use", "disabled"])
def test_accounts_that_follow_a_key_are_checked_together(newest: str) -> None:
    world = new_world(REALISTIC, 300, on_key=True, behavior=Behavior(follower_delay="0"))
    accounts = [*world.batch.standing()]
    vault = world.vaults.by_name("kv-sandbox-1")
    assert vault is not None
    for account in accounts:
        assert account.protection is not None
        account.protection.key_identifier = account.protection.version.rpartition("/")[0]
    if newest == "disabled":
        asyncio.run(world.keys.rotate(vault, "batch-cmk"))
        world.keys.update(vault, "batch-cmk", "", {"attributes": {"enabled": False}})
    began = time.process_time()
    assert [KeyUse(world).unusable(account) for account in accounts] == [""] * 300
    each = time.process_time() - began
    began = time.process_time()
    world.batch.reassess()
    together = time.process_time() - began
    print(f"\n300 accounts that follow a key: {1000 * each:.1f} ms one by one, {1000 * together:.1f} ms together")
    assert each > 10 * together
