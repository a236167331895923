# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules of Batch that requests cannot test: keys and vaults that Key Vault no longer creates, many accounts, saved
states."""

from __future__ import annotations

import asyncio
import pickle
import time
from typing import Any

import pytest

from azure_sandbox import seed
from azure_sandbox.batch import wishes
from azure_sandbox.batch.account import Account, Health
from azure_sandbox.batch.errors import Refusal
from azure_sandbox.key_vault.rules import Order
from azure_sandbox.key_vault.vault import Vault
from azure_sandbox.key_vault_keys.key import Wish
from azure_sandbox.shared.behavior import Behavior
from azure_sandbox.world import World

KEY = "https://vault1.vault.azure.net/keys/key1"


def world_with_account() -> tuple[World, Account, Vault]:
    world = seed.new_world(behavior=Behavior(key_loss_noticed="0"))
    subscription = world.operator.subscription_id
    body = {"location": "westeurope", "identity": {"type": "SystemAssigned"}}
    world.batch.create(subscription, "rg-sandbox", "account1", wishes.of_put(body), "batch.azure.com")
    account = world.batch.get(subscription, "rg-sandbox", "account1")
    properties = {
        "tenantId": world.directory.tenant_id,
        "sku": {"family": "A", "name": "standard"},
        "enableRbacAuthorization": True,
        "enablePurgeProtection": True,
    }
    vault_body = {"location": "westeurope", "properties": properties}
    order = Order(subscription, "rg-sandbox", "vault1", vault_body, "2023-07-01", ".vault.azure.net", "somebody")
    vault, _ = world.vaults.put(order)
    role = "Key Vault Crypto Service Encryption User"
    world.authorization.assign(vault.id, role, account.identity.principal_id)
    return world, account, vault


def make_key(world: World, vault: Vault, size: int = 2048) -> None:
    wish = Wish("RSA", size=size, key_ops=("wrapKey", "unwrapKey"))
    asyncio.run(world.keys.create(vault, "key1", wish))


def encrypt(world: World, account: Account) -> None:
    vault = {"keyIdentifier": KEY}
    body: dict[str, Any] = {"encryption": {"keySource": "Microsoft.KeyVault", "keyVaultProperties": vault}}
    world.batch.update(account, wishes.of_patch({"properties": body}))


def test_key_of_another_size_is_refused() -> None:
    world, account, vault = world_with_account()
    make_key(world, vault, 1024)
    with pytest.raises(Refusal) as caught:
        encrypt(world, account)
    assert caught.value.reason == f"The key '{KEY}' has 1024 bits; one of 2048, 3072, 4096 is needed."


def test_vault_without_soft_delete_is_refused() -> None:
    world, account, vault = world_with_account()
    make_key(world, vault)
    vault.soft_delete = False  # type: ignore[attr-defined]
    with pytest.raises(Refusal) as caught:
        encrypt(world, account)
    assert caught.value.reason == "Soft delete is not enabled on the key vault 'vault1'."


def test_the_data_encryption_key_is_stored_wrapped_and_changes_with_each_move() -> None:
    world, account, vault = world_with_account()
    make_key(world, vault)
    encrypt(world, account)
    first = account.protection
    encrypt(world, account)
    second = account.protection
    assert first is not None
    assert second is not None
    principal = world.directory.principal(account.identity.principal_id)
    assert principal is not None
    keys = {world.keys.unwrap(principal, each.version, each.wrapped) for each in (first, second)}
    assert [len(key) for key in keys] == [32, 32]
    assert not any(key in pickle.dumps(world) for key in keys)


def test_another_key_of_the_same_name_and_version_is_noticed() -> None:
    world, account, vault = world_with_account()
    make_key(world, vault)
    encrypt(world, account)
    assert world.batch.health(account) == Health("answers")
    key = world.keys.key(vault, "key1")
    version = key.latest.version
    make_key(world, vault)
    key.versions = [key.latest]
    key.latest.version = version
    assert world.batch.health(account).reason.startswith("Key Vault answered 400")


def test_a_saved_state_can_be_loaded() -> None:
    world, account, vault = world_with_account()
    make_key(world, vault)
    encrypt(world, account)
    restored = pickle.loads(pickle.dumps(world))
    again = restored.batch.by_id(account.id)
    assert again == account
    assert restored.batch.health(again) == Health("answers")


def test_ten_thousand_accounts_are_created_quickly() -> None:
    # Processor time, because elapsed time depends on other processes.
    started = time.process_time()
    world = seed.new_world(accounts=10_000)
    assert time.process_time() - started < 2
    accounts = [*world.batch.standing()]
    assert len({account.name for account in accounts}) == 10_000
    assert all(account.protection is None for account in accounts)
    groups = {
        (held.id, group.name) for held in world.resources.subscriptions() for group in world.resources.groups(held)
    }
    assert {(account.subscription, account.group) for account in accounts} <= groups
