# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules of Batch that requests cannot test."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
from sandbox_client import VAULTS

from azure_sandbox import seed
from azure_sandbox.batch import account_settings
from azure_sandbox.batch.account import Account, Health
from azure_sandbox.batch.key_check import KeyCheck
from azure_sandbox.key_vault.grants import Grants
from azure_sandbox.key_vault.rules import Order
from azure_sandbox.key_vault.vault import AccessPolicy, Vault
from azure_sandbox.key_vault_keys.key import KeySettings
from azure_sandbox.shared.behavior import Behavior
from azure_sandbox.shared.web import AzureError
from azure_sandbox.world import World

KEY = "https://vault1.vault.azure.net/keys/key1"


def world_with_account() -> tuple[World, Account, Vault]:
    world = seed.new_world(behavior=Behavior(key_loss_noticed="0"))
    subscription = world.operator.subscription_id
    body = {"location": "westeurope", "identity": {"type": "SystemAssigned"}}
    world.batch.create(subscription, "rg-sandbox", "account1", account_settings.of_put(body), "batch.azure.com")
    account = world.batch.get(subscription, "rg-sandbox", "account1")
    properties = {
        "tenantId": world.directory.tenant_id,
        "sku": {"family": "A", "name": "standard"},
        "enableRbacAuthorization": True,
        "enablePurgeProtection": True,
    }
    vault_body = {"location": "westeurope", "properties": properties}
    order = Order(subscription, "rg-sandbox", "vault1", vault_body, VAULTS, ".vault.azure.net", "somebody")
    vault, _ = world.vaults.put(order)
    role = "Key Vault Crypto Service Encryption User"
    world.authorization.assign(vault.id, role, account.identity.principal_id)
    return world, account, vault


def make_key(world: World, vault: Vault, size: int = 2048) -> None:
    wanted = KeySettings("RSA", size=size, key_ops=("wrapKey", "unwrapKey"))
    asyncio.run(world.keys.create(vault, "key1", wanted))


def encrypt(world: World, account: Account) -> None:
    vault = {"keyIdentifier": KEY}
    body: dict[str, Any] = {"encryption": {"keySource": "Microsoft.KeyVault", "keyVaultProperties": vault}}
    world.batch.update(account, account_settings.of_patch({"properties": body}))


def test_each_change_of_the_key_wraps_and_unwraps_a_new_data_encryption_key(
    key_operations: list[tuple[str, bytes]],
) -> None:
    world, account, vault = world_with_account()
    make_key(world, vault)
    encrypt(world, account)
    encrypt(world, account)
    assert [name for name, _data in key_operations] == ["encrypt", "decrypt"] * 2
    data_keys = {data for name, data in key_operations if name == "encrypt"}
    assert [len(data_key) for data_key in data_keys] == [32, 32]
    assert not any(data_key in pickle.dumps(world) for data_key in data_keys)


def close_firewall(world: World, vault: Vault) -> None:
    vault.network.bypass, vault.network.default_action = "None", "Deny"


def use_perimeter(world: World, vault: Vault) -> None:
    vault.public_network_access = "SecuredByPerimeter"


def revoke_access(world: World, vault: Vault) -> None:
    world.authorization.forget_below(vault.id)


CONDITIONS: dict[str, tuple[Callable[[World, Vault], Any], bool]] = {
    "no change": (lambda world, vault: None, True),
    "new version": (lambda world, vault: asyncio.run(world.keys.rotate(vault, "key1")), True),
    "key disabled": (
        lambda world, vault: world.keys.update(vault, "key1", "", {"attributes": {"enabled": False}}),
        False,
    ),
    "wrapKey missing": (lambda world, vault: world.keys.update(vault, "key1", "", {"key_ops": ["unwrapKey"]}), True),
    "unwrapKey missing": (lambda world, vault: world.keys.update(vault, "key1", "", {"key_ops": ["wrapKey"]}), False),
    "key deleted": (lambda world, vault: world.keys.delete(vault, "key1"), False),
    "vault deleted": (lambda world, vault: world.vaults.delete(vault), False),
    "host name unknown": (lambda world, vault: setattr(vault, "dns_ready_at", world.clock.time() + 60), False),
    "access revoked": (revoke_access, False),
    "permission model changed": (lambda world, vault: setattr(vault, "rbac_setting", False), False),
    "private network": (lambda world, vault: setattr(vault, "public_network_access", "Disabled"), True),
    "firewall closed": (close_firewall, False),
    "perimeter": (use_perimeter, False),
}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_check_agrees_with_key_vault(condition: str) -> None:
    """The check finds what Key Vault would do, although the check unwraps nothing."""
    world, account, vault = world_with_account()
    make_key(world, vault)
    encrypt(world, account)
    principal = world.directory.principal(account.identity.principal_id)
    assert principal is not None
    version, wrapped = world.keys.wrap(principal, KEY, b"data")
    change, is_usable = CONDITIONS[condition]
    change(world, vault)
    with nullcontext() if is_usable else pytest.raises(AzureError):
        world.keys.unwrap(principal, version, wrapped)
    unusable = KeyCheck(world, Grants(world)).unusable(account)
    assert (unusable == "") is is_usable
    assert world.batch.health(account) == (Health("available") if is_usable else Health("unavailable", unusable))


def following_account() -> tuple[World, Account, Vault]:
    """An account that changes at once to a new version of its key, and that needs no previous version."""
    world, account, vault = world_with_account()
    world.behavior = Behavior(key_loss_noticed="0", follower_delay="0", previous_version_needed="0")
    make_key(world, vault)
    encrypt(world, account)
    return world, account, vault


def used_version(world: World, vault: Vault, account: Account) -> int:
    """The position of the version that the account uses among the versions of the key."""
    assert account.protection is not None
    key, _, version = account.protection.version.rpartition("/")
    assert key == KEY
    return [one.version for one in world.keys.key(vault, "key1").versions].index(version)


def revoke_wrap(world: World, vault: Vault) -> None:
    [account] = world.batch.existing()
    permissions = {"keys": ("get", "unwrapKey")}
    policy = AccessPolicy(vault.tenant_id, account.identity.principal_id, permissions=permissions)
    vault.rbac_setting = False
    vault.set_policies([policy], world.clock.time(), 0)


OBSTACLES: dict[str, Callable[[World, Vault], Any]] = {
    "new version disabled": CONDITIONS["key disabled"][0],
    "new version without wrapKey": CONDITIONS["wrapKey missing"][0],
    "purge protection disabled": lambda world, vault: setattr(vault, "purge_protection", False),
    "identity without wrapKey": revoke_wrap,
}


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_a_follower_keeps_its_version_if_it_cannot_change_to_the_new_version(obstacle: str) -> None:
    world, account, vault = following_account()
    asyncio.run(world.keys.rotate(vault, "key1"))
    OBSTACLES[obstacle](world, vault)
    world.batch.reassess()
    assert used_version(world, vault, account) == 0
    assert world.batch.health(account) == Health("available")
