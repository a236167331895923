# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The use of a key by another service of Azure. No request is sent, so the tests call the rules directly."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from key_vault_calls import ENCRYPTION_USER

from azure_sandbox.entra.rules import Principal
from azure_sandbox.key_vault.rules import KeyVaultDenied, Order
from azure_sandbox.key_vault.vault import Vault
from azure_sandbox.key_vault_keys.key import KeySettings
from azure_sandbox.seed import new_world
from azure_sandbox.shared.web import AzureError
from azure_sandbox.world import World

URL = "https://vault-one.vault.azure.net/keys/key1"
SECRET = b"a key of Batch's own"


@dataclass
class Scene:
    world: World
    vault: Vault
    principal: Principal

    def wrap(self, identifier: str = URL) -> tuple[str, bytes]:
        return self.world.keys.wrap(self.principal, identifier, SECRET)


@pytest.fixture
def scene() -> Scene:
    """A vault that uses Azure RBAC, with a key and an identity that may wrap and unwrap."""
    world = new_world()
    place = (world.operator.subscription_id, world.operator.resource_group, "vault-one")
    properties = {"tenantId": world.directory.tenant_id, "sku": {"name": "standard"}}
    document = {"location": "westeurope", "properties": properties}
    vault, _ = world.vaults.put(Order(*place, document, "2026-05-15", ".vault.azure.net", "operator"))
    asyncio.run(world.keys.create(vault, "key1", KeySettings("RSA", key_ops=("wrapKey", "unwrapKey"))))
    principal = world.directory.add_principal(
        world.directory.tenant_id, "account1", "ManagedIdentity", "/subscriptions/s/batchAccounts/account1"
    )
    world.authorization.assign(f"{vault.id}/keys/KEY1", ENCRYPTION_USER, principal.object_id)
    return Scene(world, vault, principal)


def code(refusal: pytest.ExceptionInfo[AzureError]) -> str:
    assert refusal.value.body is not None
    error = refusal.value.body["error"]
    return str(error.get("innererror", error)["code"])


def test_wrapped_key_can_be_unwrapped(scene: Scene) -> None:
    version, wrapped = scene.wrap()
    assert version == scene.world.keys.look(URL)["key"]["kid"]
    assert scene.wrap(version)[0] == version
    assert scene.world.keys.unwrap(scene.principal, version, wrapped) == SECRET


def test_a_wrapped_key_can_be_unwrapped_after_a_rotation(scene: Scene) -> None:
    version, wrapped = scene.wrap()
    asyncio.run(scene.world.keys.rotate(scene.vault, "key1"))
    assert scene.wrap()[0] != version
    assert scene.world.keys.unwrap(scene.principal, version, wrapped) == SECRET


@pytest.mark.parametrize(("bypass", "let_in"), [("AzureServices", True), ("None", False)])
@pytest.mark.parametrize("shut", ["firewall", "private"])
def test_trusted_services_pass_the_firewall_if_allowed(scene: Scene, bypass: str, let_in: bool, shut: str) -> None:
    scene.vault.network.bypass = bypass
    if shut == "firewall":
        scene.vault.network.default_action = "Deny"
    else:
        scene.vault.public_network_access = "Disabled"
    if let_in:
        assert scene.wrap()
        return
    with pytest.raises(KeyVaultDenied) as refusal:
        scene.wrap()
    assert refusal.value.reason == {"firewall": "ForbiddenByFirewall", "private": "ForbiddenByConnection"}[shut]
    assert ";xms_mirid=/subscriptions/s/batchAccounts/account1;xms_az_rid=" in str(refusal.value.body)


def test_refusals(scene: Scene) -> None:
    directory = scene.world.directory
    keys, stranger = scene.world.keys, directory.add_principal(directory.tenant_id, "stranger")
    with pytest.raises(AzureError) as refusal:
        keys.wrap(stranger, URL, SECRET)
    assert code(refusal) == "ForbiddenByRbac"
    with pytest.raises(AzureError) as refusal:
        keys.look(f"{URL}/{'0' * 32}")
    assert code(refusal) == "KeyNotFound"
    with pytest.raises(AzureError) as refusal:
        keys.look("https://vault-two.vault.azure.net/keys/key1")
    assert code(refusal) == "VaultNotFound"
    for nonsense in ("https://vault-one.vault.azure.net/secrets/key1", "https://vault-one.vault.azure.net/keys", "x"):
        with pytest.raises(AzureError):
            keys.look(nonsense)
    version, wrapped = scene.wrap()
    keys.update(scene.vault, "key1", "", {"attributes": {"enabled": False}})
    assert scene.wrap()
    with pytest.raises(AzureError) as refusal:
        keys.unwrap(scene.principal, version, wrapped)
    assert code(refusal) == "KeyDisabled"
    scene.world.vaults.delete(scene.vault)
    with pytest.raises(AzureError) as refusal:
        keys.unwrap(scene.principal, version, wrapped)
    assert code(refusal) == "VaultNotFound"
