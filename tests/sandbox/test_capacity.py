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

from azure_sandbox.batch.account import AVAILABLE, Health
from azure_sandbox.seed import new_world
from azure_sandbox.shared.behavior import Behavior
from azure_sandbox.shared.timing import REALISTIC
from azure_sandbox.world import World

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


@pytest.mark.slow
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


def test_long_lists_have_pages(full: Sandbox, subscriptions: list[str]) -> None:
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
    """At its start, the sandbox wraps and unwraps a data-encryption key for each account. A write to another resource
    does not do that."""
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


def following_world(accounts: int) -> World:
    world = new_world(REALISTIC, accounts, on_key=True, behavior=Behavior(follower_delay="0"))
    for account in world.batch.existing():
        assert account.protection is not None
        account.protection.key_identifier = account.protection.version.rpartition("/")[0]
    return world


def rotate(world: World, vault_name: str) -> None:
    vault = world.vaults.by_name(vault_name)
    assert vault is not None
    asyncio.run(world.keys.rotate(vault, "batch-cmk"))


def test_followers_change_to_a_new_version_without_the_private_key(key_operations: list[tuple[str, bytes]]) -> None:
    world = following_world(2000)
    key_operations.clear()
    previous = versions(world)
    for number in (1, 2):
        rotate(world, f"kv-sandbox-{number}")
    world.batch.reassess()
    assert len(previous) == len(versions(world)) == 2
    assert not previous & versions(world)
    assert key_operations == []


def versions(world: World) -> set[str]:
    return {account.protection.version for account in world.batch.existing() if account.protection is not None}


@pytest.mark.parametrize("newest", ["in use", "disabled"])
def test_accounts_that_follow_a_key_are_checked_together(newest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world = following_world(300)
    if newest == "disabled":
        rotate(world, "kv-sandbox-1")
        vault = world.vaults.by_name("kv-sandbox-1")
        assert vault is not None
        world.keys.update(vault, "batch-cmk", "", {"attributes": {"enabled": False}})
    reads, peek = [], world.keys.peek
    monkeypatch.setattr(world.keys, "peek", lambda *named: reads.append(named) or peek(*named))
    world.batch.reassess()
    # The key, the version in use and the new version are read once, and not for each account.
    assert len(reads) == len(set(map(str, reads))) == {"in use": 2, "disabled": 3}[newest]
    assert {world.batch.health(account) for account in world.batch.existing()} == {Health(AVAILABLE)}
