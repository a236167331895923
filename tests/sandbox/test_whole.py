# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All services together, as in Microsoft's guide: an account with a customer-managed key, which loses its key and
is recovered."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.identity import DefaultAzureCredential
from azure.keyvault.keys import KeyClient
from azure.mgmt.authorization import AuthorizationManagementClient
from azure.mgmt.batch import BatchManagementClient
from azure.mgmt.keyvault import KeyVaultManagementClient
from azure.mgmt.msi import ManagedServiceIdentityClient
from sandbox_client import Control, Sandbox

GROUP = "rg-sandbox"
LOCATION = "westeurope"
VAULT = "whole-vault"
URL = f"https://{VAULT}.vault.azure.net"
ENCRYPTION_USER = "e147488a-f6f5-4113-8e2d-b22465e65bf6"


class Azure:
    """The clients of the SDKs, and the steps of the guide."""

    def __init__(self, sandbox: Sandbox) -> None:
        credential, subscription = DefaultAzureCredential(), sandbox.subscription_id
        self.sandbox = sandbox
        self.batch = BatchManagementClient(credential, subscription).batch_account
        self.vaults = KeyVaultManagementClient(credential, subscription).vaults
        self.assignments = AuthorizationManagementClient(credential, subscription).role_assignments
        self.identities = ManagedServiceIdentityClient(credential, subscription).user_assigned_identities
        self.keys = KeyClient(URL, credential)

    def vault(self, **properties: Any) -> str:
        body = {
            "location": LOCATION,
            "properties": {
                "tenantId": self.sandbox.tenant_id,
                "sku": {"family": "A", "name": "standard"},
                "accessPolicies": [],
                "enablePurgeProtection": True,
                "enableRbacAuthorization": True,
                **properties,
            },
        }
        return str(self.vaults.begin_create_or_update(GROUP, VAULT, body).result().id)

    def account(self, identity: dict[str, Any], key: str = "") -> Any:
        body: dict[str, Any] = {"location": LOCATION, "identity": identity}
        if key:
            body["properties"] = {"encryption": encryption(key)}
        return self.batch.begin_create(GROUP, "whole", body).result()

    def grant(self, vault: str, principal: str) -> str:
        role = f"{self.sandbox.subscription}/providers/Microsoft.Authorization/roleDefinitions/{ENCRYPTION_USER}"
        properties = {"roleDefinitionId": role, "principalId": principal, "principalType": "ServicePrincipal"}
        return str(self.assignments.create(vault, str(uuid.uuid4()), {"properties": properties}).id)

    def encrypt(self, key: str) -> str:
        updated = self.batch.update(GROUP, "whole", {"properties": {"encryption": encryption(key)}})
        return str(updated.encryption.key_vault_properties.key_identifier)

    def usable(self) -> bool:
        try:
            self.batch.update(GROUP, "whole", {"tags": {"touched": str(uuid.uuid4())}})
        except HttpResponseError:
            return False
        return True


def encryption(key: str) -> dict[str, Any]:
    return {"keySource": "Microsoft.KeyVault", "keyVaultProperties": {"keyIdentifier": key}}


@pytest.fixture
def azure(sandbox: Sandbox) -> Azure:
    return Azure(sandbox)


def test_an_account_on_a_key_of_a_vault_with_roles(azure: Azure, control: Control) -> None:
    vault = azure.vault()
    account = azure.account({"type": "SystemAssigned"})
    key = azure.keys.create_rsa_key("cmk", size=2048)
    with pytest.raises(HttpResponseError):
        azure.encrypt(key.id)
    azure.grant(vault, account.identity.principal_id)
    assert azure.encrypt(key.id) == key.id
    assert azure.usable()
    newer = azure.keys.rotate_key("cmk")
    assert azure.encrypt(newer.id) == newer.id
    assert control.unknown() == []


def test_an_account_on_a_key_of_a_vault_with_access_policies(azure: Azure) -> None:
    operator = azure.sandbox.control.call("GET", "/principals")["principals"][0]["object_id"]
    own = {"tenantId": azure.sandbox.tenant_id, "objectId": operator, "permissions": {"keys": ["all"]}}
    azure.vault(enableRbacAuthorization=False, accessPolicies=[own])
    account = azure.account({"type": "SystemAssigned"})
    key = azure.keys.create_rsa_key("cmk")
    its = {
        "tenantId": azure.sandbox.tenant_id,
        "objectId": account.identity.principal_id,
        "permissions": {"keys": ["get", "wrapKey"]},
    }
    azure.vaults.update_access_policy(GROUP, VAULT, "add", {"properties": {"accessPolicies": [its]}})
    with pytest.raises(HttpResponseError):
        azure.encrypt(key.id)
    its["permissions"]["keys"].append("unwrapKey")
    azure.vaults.update_access_policy(GROUP, VAULT, "replace", {"properties": {"accessPolicies": [its]}})
    assert azure.encrypt(key.id) == key.id
    assert azure.usable()


def test_an_account_is_created_with_a_key(azure: Azure) -> None:
    vault = azure.vault()
    identity = azure.identities.create_or_update(GROUP, "whole-id", {"location": LOCATION})
    azure.grant(vault, identity.principal_id)
    key = azure.keys.create_rsa_key("cmk")
    account = azure.account({"type": "UserAssigned", "userAssignedIdentities": {identity.id: {}}}, key.id)
    assert account.encryption.key_vault_properties.key_identifier == key.id


@pytest.mark.parametrize("loss", ["disabled", "deleted", "vault deleted", "grant revoked", "firewall"])
def test_an_account_that_loses_its_key_and_is_recovered(azure: Azure, control: Control, loss: str) -> None:
    vault = azure.vault()
    account = azure.account({"type": "SystemAssigned"})
    grant = azure.grant(vault, account.identity.principal_id)
    key = azure.keys.create_rsa_key("cmk")
    azure.encrypt(key.id)
    control.timing(batch_recovery=600)

    if loss == "disabled":
        azure.keys.update_key_properties("cmk", enabled=False)
    elif loss == "deleted":
        azure.keys.begin_delete_key("cmk").wait()
    elif loss == "vault deleted":
        azure.vaults.delete(GROUP, VAULT)
    elif loss == "grant revoked":
        azure.assignments.delete_by_id(grant)
    else:
        closed = {"bypass": "None", "defaultAction": "Deny"}
        azure.vaults.update(GROUP, VAULT, {"properties": {"networkAcls": closed}})
    assert not azure.usable()

    if loss == "disabled":
        azure.keys.update_key_properties("cmk", enabled=True)
    elif loss == "deleted":
        azure.keys.begin_recover_deleted_key("cmk").wait()
    elif loss == "vault deleted":
        azure.vault(createMode="recover")
        azure.grant(vault, account.identity.principal_id)
    elif loss == "grant revoked":
        azure.grant(vault, account.identity.principal_id)
    else:
        azure.vaults.update(GROUP, VAULT, {"properties": {"networkAcls": {"bypass": "AzureServices"}}})
    assert not azure.usable(), "it takes a while"
    control.advance(601)
    assert azure.usable()


def test_requests_that_an_account_without_its_key_accepts(azure: Azure) -> None:
    vault = azure.vault()
    account = azure.account({"type": "SystemAssigned"})
    azure.grant(vault, account.identity.principal_id)
    azure.encrypt(azure.keys.create_rsa_key("cmk").id)
    azure.keys.begin_delete_key("cmk").wait()
    assert not azure.usable()
    azure.batch.begin_delete(GROUP, "whole").result()
    assert list(azure.batch.list()) == []
