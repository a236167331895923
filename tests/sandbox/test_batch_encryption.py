# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Batch on a customer's key: what it refuses, what it does when it cannot use the key, and how it comes back."""

from __future__ import annotations

import html
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from azure.core.exceptions import HttpResponseError
from azure.identity import ClientSecretCredential
from azure.keyvault.keys import KeyClient, KeyVaultKey
from azure.mgmt.batch import BatchManagementClient
from batch_calls import batch, create, read, refused, user_assigned_identity
from sandbox_client import Control, Sandbox

VAULTS = "2023-07-01"
ROLES = "2022-04-01"
ENCRYPTION_USER = "e147488a-f6f5-4113-8e2d-b22465e65bf6"
NEEDED = ["get", "wrapKey", "unwrapKey"]
MICROSOFT = {"properties": {"encryption": {"keySource": "Microsoft.Batch"}}}


def customer(key_identifier: str) -> dict[str, Any]:
    vault = {"keyIdentifier": key_identifier}
    return {"properties": {"encryption": {"keySource": "Microsoft.KeyVault", "keyVaultProperties": vault}}}


@dataclass
class Vault:
    """A vault that goes by access policies, or by roles."""

    sandbox: Sandbox
    rbac: bool = False
    name: str = "vault1"

    def __post_init__(self) -> None:
        self.keys = KeyClient(f"https://{self.name}.vault.azure.net", self.credential())
        self.assignments: list[str] = []

    @property
    def path(self) -> str:
        return f"{self.sandbox.group}/providers/Microsoft.KeyVault/vaults/{self.name}"

    def make(self, **properties: Any) -> Vault:
        operator = next(
            principal["object_id"]
            for principal in self.sandbox.control.call("GET", "/principals")["principals"]
            if principal["client_id"] == self.sandbox.client_id
        )
        wanted = {
            "tenantId": self.sandbox.tenant_id,
            "sku": {"family": "A", "name": "premium"},
            "accessPolicies": [self._policy(operator, ["all", "purge"])],
            "enableRbacAuthorization": self.rbac,
            "enablePurgeProtection": True,
            **properties,
        }
        wanted = {name: value for name, value in wanted.items() if value is not None}
        response = self.sandbox.arm("PUT", self.path, VAULTS, {"location": "westeurope", "properties": wanted})
        assert response.status_code == 200, response.text
        return self

    def rsa_key(self, name: str = "key1", **options: Any) -> KeyVaultKey:
        return self.keys.create_rsa_key(name, **{"size": 2048, **options})

    def permit(self, principal_id: str, permissions: list[str] | None = None) -> None:
        if self.rbac:
            self._assign(principal_id)
        else:
            self._change_policy("add", principal_id, NEEDED if permissions is None else permissions)

    def forbid(self, principal_id: str) -> None:
        if self.rbac:
            response = self.sandbox.arm("DELETE", self.assignments.pop(), ROLES)
            assert response.status_code == 200, response.text
        else:
            self._change_policy("remove", principal_id, NEEDED)

    def patch(self, **properties: Any) -> None:
        response = self.sandbox.arm("PATCH", self.path, VAULTS, {"properties": properties})
        assert response.status_code == 200, response.text

    def delete(self) -> None:
        assert self.sandbox.arm("DELETE", self.path, VAULTS).status_code == 200

    def recover(self) -> None:
        properties = {
            "createMode": "recover",
            "tenantId": self.sandbox.tenant_id,
            "sku": {"family": "A", "name": "premium"},
            "accessPolicies": [],
        }
        response = self.sandbox.arm("PUT", self.path, VAULTS, {"location": "westeurope", "properties": properties})
        assert response.status_code == 200, response.text

    def _assign(self, principal_id: str) -> None:
        path = f"{self.path}/providers/Microsoft.Authorization/roleAssignments/{uuid.uuid4()}"
        properties = {
            "roleDefinitionId": f"/providers/Microsoft.Authorization/roleDefinitions/{ENCRYPTION_USER}",
            "principalType": "ServicePrincipal",
            "principalId": principal_id,
        }
        response = self.sandbox.arm("PUT", path, ROLES, {"properties": properties})
        assert response.status_code == 201, response.text
        self.assignments.append(path)

    def _change_policy(self, change: str, principal_id: str, permissions: list[str]) -> None:
        body = {"properties": {"accessPolicies": [self._policy(principal_id, permissions)]}}
        response = self.sandbox.arm("PUT", f"{self.path}/accessPolicies/{change}", VAULTS, body)
        assert response.status_code in (200, 201), response.text

    def _policy(self, principal_id: str, permissions: list[str]) -> dict[str, Any]:
        return {
            "tenantId": self.sandbox.tenant_id,
            "objectId": principal_id,
            "permissions": {"keys": permissions},
        }

    def credential(self) -> ClientSecretCredential:
        return ClientSecretCredential(self.sandbox.tenant_id, self.sandbox.client_id, self.sandbox.secret)


@pytest.fixture(params=["policies", "roles"])
def vault(sandbox: Sandbox, request: pytest.FixtureRequest) -> Vault:
    return Vault(sandbox, rbac=request.param == "roles").make()


@pytest.fixture
def policy_vault(sandbox: Sandbox) -> Vault:
    return Vault(sandbox).make()


def principal_id(sandbox: Sandbox) -> str:
    found: str = read(sandbox)["identity"]["principalId"]
    return found


def encrypt(sandbox: Sandbox, key_identifier: str) -> requests.Response:
    return batch(sandbox, "PATCH", "account1", customer(key_identifier))


def protected(vault: Vault, versioned: bool = True) -> KeyVaultKey:
    """The key that account1 is encrypted with."""
    create(vault.sandbox, identity={"type": "SystemAssigned"})
    vault.permit(principal_id(vault.sandbox))
    key = vault.rsa_key()
    response = encrypt(vault.sandbox, key.id if versioned else versionless(key))
    assert response.status_code == 200, response.text
    return key


def versionless(key: KeyVaultKey) -> str:
    return str(key.id).rpartition("/")[0]


def works(sandbox: Sandbox) -> bool:
    """Whether the account can be used, asked in one of many ways."""
    return use(sandbox) == ""


def reason(sandbox: Sandbox) -> str:
    told = use(sandbox)
    assert told
    return told


def use(sandbox: Sandbox) -> str:
    """Why the account can't be used, or nothing; the sandbox's page, which only looks, has to know it beforehand."""
    foretold = reason_on_page(sandbox)
    response = batch(sandbox, "POST", "account1", below="/listKeys")
    told = "" if response.ok else refused(response, 409, "KeyVaultKeyNotAccessible")["Reason"]
    assert told == foretold == reason_on_page(sandbox)
    return told


def reason_on_page(sandbox: Sandbox) -> str:
    response = requests.get(sandbox.url, headers={"accept": "text/html"}, timeout=30)
    cell = r'<td data-label="State"><strong class="(\w+)">[^<]*</strong>(?:<small>(.*?)</small>)?'
    (state,) = re.findall(cell, response.text.partition('id="accounts-table"')[2].partition("</table>")[0])
    assert (state[0] == "answers") is (state[1] == "")
    return html.unescape(state[1])


def refusal(sandbox: Sandbox, key_identifier: str) -> str:
    """Why the key is refused; the account stays as it was."""
    before = read(sandbox)
    details = refused(encrypt(sandbox, key_identifier), 400, "InvalidKeyVaultProperties")
    assert details["PropertyPath"] == "properties.encryption.keyVaultProperties.keyIdentifier"
    assert read(sandbox) == before
    return details["Reason"]


# Onto the key, to another one, and off it


def test_sdk_encrypts_rotates_and_reverts(vault: Vault) -> None:
    sandbox = vault.sandbox
    client = BatchManagementClient(vault.credential(), sandbox.subscription_id)
    client.batch_account.begin_create(
        "rg-sandbox", "account1", {"location": "westeurope", "identity": {"type": "SystemAssigned"}}
    ).result()
    vault.permit(principal_id(sandbox))
    first, second = vault.rsa_key(), vault.rsa_key()
    other = vault.rsa_key("key2", size=3072)
    for identifier in (first.id, second.id, versionless(second), other.id, versionless(first)):
        account = client.batch_account.update("rg-sandbox", "account1", customer(str(identifier)))
        assert account.encryption.key_source == "Microsoft.KeyVault"
        assert account.encryption.key_vault_properties.key_identifier == identifier
        assert read(sandbox)["properties"]["encryption"] == customer(str(identifier))["properties"]["encryption"]
    account = client.batch_account.update("rg-sandbox", "account1", MICROSOFT)
    assert account.encryption.key_vault_properties is None
    assert read(sandbox)["properties"]["encryption"] == {"keySource": "Microsoft.Batch"}


def test_account_with_a_user_assigned_identity_is_born_encrypted(vault: Vault) -> None:
    sandbox = vault.sandbox
    identity = user_assigned_identity(sandbox)
    vault.permit(identity["properties"]["principalId"])
    wanted = {"type": "UserAssigned", "userAssignedIdentities": {identity["id"]: {}}}
    account = create(sandbox, identity=wanted, **customer(versionless(vault.rsa_key())))
    assert account["properties"]["encryption"]["keySource"] == "Microsoft.KeyVault"
    assert works(sandbox)


def test_born_encrypted_needs_a_grant_first(policy_vault: Vault) -> None:
    sandbox = policy_vault.sandbox
    sandbox.control.behavior(refused_creation="at_once")
    before = sandbox.control.call("GET", "/principals")
    key = policy_vault.rsa_key()
    body = {"location": "westeurope", "identity": {"type": "SystemAssigned"}, **customer(str(key.id))}
    refused(batch(sandbox, "PUT", "account1", body), 400, "InvalidKeyVaultProperties")
    assert batch(sandbox, "GET", "account1").status_code == 404
    assert sandbox.control.call("GET", "/principals") == before


def poll(sandbox: Sandbox, accepted: requests.Response) -> requests.Response:
    assert accepted.status_code == 202, accepted.text
    url = urlsplit(accepted.headers["location"])
    return sandbox.arm("GET", url.path, parse_qs(url.query)["api-version"][0])


def without_a_grant(vault: Vault) -> tuple[dict[str, Any], str]:
    """The body of a creation with a key that the account's identity may not use, and the identity's principal."""
    identity = user_assigned_identity(vault.sandbox)
    user = {"type": "UserAssigned", "userAssignedIdentities": {identity["id"]: {}}}
    body = {"location": "westeurope", "identity": user, "tags": {"a": "b"}, **customer(str(vault.rsa_key().id))}
    return body, identity["properties"]["principalId"]


def test_a_creation_that_fails_and_leaves_an_account(policy_vault: Vault) -> None:
    sandbox = policy_vault.sandbox
    sandbox.control.timing(batch_create=8)
    body, principal = without_a_grant(policy_vault)
    accepted = batch(sandbox, "PUT", "account1", body)
    assert poll(sandbox, accepted).status_code == 202
    assert read(sandbox)["properties"]["provisioningState"] == "Creating"
    sandbox.control.advance(8)

    refused(poll(sandbox, accepted), 400, "InvalidKeyVaultProperties")

    account = read(sandbox)
    assert account["properties"]["provisioningState"] == "Failed"
    assert account["properties"]["encryption"] == body["properties"]["encryption"]
    assert account["tags"] == {"a": "b"}
    for method, below, sent in (("GET", "/pools", None), ("POST", "/listKeys", None), ("PATCH", "", MICROSOFT)):
        refused(batch(sandbox, method, "account1", sent, below), 409, "AccountCreationFailed")
    # As before, until the key can be used.
    again = batch(sandbox, "PUT", "account1", body)
    sandbox.control.advance(8)
    refused(poll(sandbox, again), 400, "InvalidKeyVaultProperties")
    policy_vault.permit(principal)
    last = batch(sandbox, "PUT", "account1", body)
    sandbox.control.advance(8)
    assert poll(sandbox, last).json()["properties"]["provisioningState"] == "Succeeded"
    assert works(sandbox)


def test_an_account_whose_creation_failed_is_deleted(policy_vault: Vault) -> None:
    sandbox = policy_vault.sandbox
    body, _principal = without_a_grant(policy_vault)
    batch(sandbox, "PUT", "account1", body)
    assert batch(sandbox, "DELETE", "account1").status_code == 202
    assert batch(sandbox, "GET", "account1").status_code == 404


def test_a_creation_that_fails_and_leaves_nothing(policy_vault: Vault) -> None:
    sandbox = policy_vault.sandbox
    sandbox.control.behavior(refused_creation="no_account")
    before = sandbox.control.call("GET", "/principals")
    body = {
        "location": "westeurope",
        "identity": {"type": "SystemAssigned"},
        **customer(str(policy_vault.rsa_key().id)),
    }
    refused(poll(sandbox, batch(sandbox, "PUT", "account1", body)), 400, "InvalidKeyVaultProperties")
    assert batch(sandbox, "GET", "account1").status_code == 404
    assert sandbox.control.call("GET", "/principals") == before


def test_identifier_is_shown_as_it_was_written(policy_vault: Vault) -> None:
    key = protected(policy_vault)
    for written in (str(key.id).upper().replace("HTTPS", "https").replace("KEYS", "keys"), f"{versionless(key)}/"):
        encrypted = encrypt(policy_vault.sandbox, written)
        assert encrypted.status_code == 200, encrypted.text
        shown = read(policy_vault.sandbox)["properties"]["encryption"]["keyVaultProperties"]["keyIdentifier"]
        assert shown == written


@pytest.mark.parametrize("options", [{"size": 3072}, {"size": 4096}, {"hardware_protected": True}], ids=str)
def test_other_rsa_keys_are_taken(policy_vault: Vault, options: dict[str, Any]) -> None:
    protected(policy_vault)
    key = policy_vault.rsa_key("key2", **options)
    assert encrypt(policy_vault.sandbox, str(key.id)).status_code == 200
    assert works(policy_vault.sandbox)


def test_a_key_with_just_the_needed_operations_is_taken(policy_vault: Vault) -> None:
    protected(policy_vault)
    key = policy_vault.rsa_key("key2", key_operations=["wrapKey", "unwrapKey"])
    assert encrypt(policy_vault.sandbox, str(key.id)).status_code == 200


def test_vault_behind_a_firewall_lets_batch_in_as_a_trusted_service(policy_vault: Vault) -> None:
    key = protected(policy_vault)
    policy_vault.patch(networkAcls={"bypass": "AzureServices", "defaultAction": "Deny"})
    assert encrypt(policy_vault.sandbox, str(key.id)).status_code == 200
    policy_vault.patch(networkAcls={"bypass": "None", "defaultAction": "Deny"})
    assert "ForbiddenByFirewall" in reason(policy_vault.sandbox)


# What is wrong with the request


@pytest.mark.parametrize(
    ("encryption", "path"),
    [
        ({"keySource": "Microsoft.KeyVault"}, "properties.encryption.keyVaultProperties"),
        (
            {"keySource": "Microsoft.KeyVault", "keyVaultProperties": None},
            "properties.encryption.keyVaultProperties",
        ),
        (
            {"keySource": "Microsoft.KeyVault", "keyVaultProperties": {"keyIdentifier": ""}},
            "properties.encryption.keyVaultProperties.keyIdentifier",
        ),
        ({"keyVaultProperties": {"keyIdentifier": "x"}}, "properties.encryption.keySource"),
    ],
)
def test_what_is_missing_is_told(sandbox: Sandbox, encryption: dict[str, Any], path: str) -> None:
    create(sandbox)
    response = batch(sandbox, "PATCH", "account1", {"properties": {"encryption": encryption}})
    details = refused(response, 400, "MissingRequiredProperty")
    assert details == {"PropertyName": path.rpartition(".")[2], "PropertyPath": path}
    assert response.json()["error"]["message"].startswith(
        "A required property was not specified in the request body.\nRequestId:"
    )


def test_key_source_must_be_known(sandbox: Sandbox) -> None:
    create(sandbox)
    response = batch(sandbox, "PATCH", "account1", {"properties": {"encryption": {"keySource": "Mine"}}})
    refused(response, 400, "InvalidPropertyValue")


def test_batchs_own_key_has_no_identifier(sandbox: Sandbox) -> None:
    create(sandbox)
    body = customer("https://vault1.vault.azure.net/keys/key1")
    body["properties"]["encryption"]["keySource"] = "Microsoft.Batch"
    refused(batch(sandbox, "PATCH", "account1", body), 400, "InvalidRequestBody")


def test_no_encryption_in_a_patch_changes_none(policy_vault: Vault) -> None:
    protected(policy_vault)
    before = read(policy_vault.sandbox)
    for properties in ({}, {"encryption": None}):
        assert batch(policy_vault.sandbox, "PATCH", "account1", {"properties": properties}).json() == before


# What is wrong with the key


@pytest.mark.parametrize(
    "identifier",
    [
        "key1",
        "http://vault1.vault.azure.net/keys/key1",
        "https://vault1.vault.azure.net/secrets/key1",
        "https://vault1.vault.azure.net//keys/key1",
        "https://vault1.vault.azure.net/keys/key1/1234",
        "https://vault1.example.org/keys/key1",
        "https://hsm1.managedhsm.azure.net/keys/key1",
    ],
)
def test_malformed_identifier(policy_vault: Vault, identifier: str) -> None:
    protected(policy_vault)
    assert "is not the identifier of a key" in refusal(policy_vault.sandbox, identifier)


def test_account_without_identity(policy_vault: Vault) -> None:
    create(policy_vault.sandbox)
    key = policy_vault.rsa_key()
    assert "no identity" in refusal(policy_vault.sandbox, str(key.id))


def test_identity_that_was_deleted(policy_vault: Vault) -> None:
    sandbox = policy_vault.sandbox
    identity = user_assigned_identity(sandbox)
    create(sandbox, identity={"type": "UserAssigned", "userAssignedIdentities": {identity["id"]: {}}})
    assert sandbox.arm("DELETE", identity["id"], "2023-01-31").status_code == 200
    assert "does not exist any more" in refusal(sandbox, str(policy_vault.rsa_key().id))


def test_missing_grant(vault: Vault) -> None:
    create(vault.sandbox, identity={"type": "SystemAssigned"})
    told = refusal(vault.sandbox, str(vault.rsa_key().id))
    assert "does not have the permission(s) get, wrapKey, unwrapKey" in told
    assert principal_id(vault.sandbox) in told


@pytest.mark.parametrize("missing", NEEDED)
def test_missing_permission(policy_vault: Vault, missing: str) -> None:
    create(policy_vault.sandbox, identity={"type": "SystemAssigned"})
    policy_vault.permit(principal_id(policy_vault.sandbox), [name for name in NEEDED if name != missing])
    told = refusal(policy_vault.sandbox, str(policy_vault.rsa_key().id))
    assert f"does not have the permission(s) {missing} on the key 'key1'" in told


def test_any_of_several_identities_will_do(policy_vault: Vault) -> None:
    sandbox = policy_vault.sandbox
    first, second = (user_assigned_identity(sandbox, name) for name in ("first", "second"))
    ids: dict[str, Any] = {first["id"]: {}, second["id"]: {}}
    create(sandbox, identity={"type": "UserAssigned", "userAssignedIdentities": ids})
    key = policy_vault.rsa_key()
    assert first["properties"]["principalId"] in refusal(sandbox, str(key.id))
    policy_vault.permit(second["properties"]["principalId"])
    assert encrypt(sandbox, str(key.id)).status_code == 200
    assert works(sandbox)


def test_vault_without_purge_protection(sandbox: Sandbox) -> None:
    vault = Vault(sandbox).make(enablePurgeProtection=None)
    create(sandbox, identity={"type": "SystemAssigned"})
    vault.permit(principal_id(sandbox))
    key = vault.rsa_key()
    assert "Purge protection is not enabled" in refusal(sandbox, str(key.id))
    vault.patch(enablePurgeProtection=True)
    assert encrypt(sandbox, str(key.id)).status_code == 200


def test_vault_of_another_tenant(policy_vault: Vault) -> None:
    create(policy_vault.sandbox, identity={"type": "SystemAssigned"})
    policy_vault.permit(principal_id(policy_vault.sandbox))
    key = policy_vault.rsa_key()
    policy_vault.patch(tenantId=str(uuid.uuid4()))
    told = refusal(policy_vault.sandbox, str(key.id))
    assert told == "The key vault 'vault1' belongs to another tenant than the account."


def test_missing_vault(policy_vault: Vault) -> None:
    protected(policy_vault)
    told = refusal(policy_vault.sandbox, "https://other.vault.azure.net/keys/key1")
    assert told == "The key vault 'other.vault.azure.net' was not found."
    told = refusal(policy_vault.sandbox, "https://vault1.vault.azure.cn/keys/key1")
    assert told == "The key vault 'vault1.vault.azure.cn' was not found."


def test_missing_key(policy_vault: Vault) -> None:
    key = protected(policy_vault)
    for missing in ("https://vault1.vault.azure.net/keys/key2", f"{versionless(key)}/{'0' * 32}"):
        assert refusal(policy_vault.sandbox, missing) == f"The key '{missing}' was not found."


def test_disabled_key(policy_vault: Vault) -> None:
    protected(policy_vault)
    key = policy_vault.rsa_key("key2", enabled=False)
    assert refusal(policy_vault.sandbox, str(key.id)) == f"The key '{key.id}' is disabled."


def test_expired_key(policy_vault: Vault, control: Control) -> None:
    protected(policy_vault)
    key = policy_vault.rsa_key("key2", expires_on=later(control, 3600))
    assert encrypt(policy_vault.sandbox, str(key.id)).status_code == 200
    batch(policy_vault.sandbox, "PATCH", "account1", MICROSOFT)
    control.advance(3601)
    assert refusal(policy_vault.sandbox, str(key.id)) == f"The key '{key.id}' has expired."


def test_key_that_is_not_valid_yet(policy_vault: Vault, control: Control) -> None:
    protected(policy_vault)
    key = policy_vault.rsa_key("key2", not_before=later(control, 3600))
    assert refusal(policy_vault.sandbox, str(key.id)) == f"The key '{key.id}' is not valid yet."
    control.advance(3601)
    assert encrypt(policy_vault.sandbox, str(key.id)).status_code == 200


def later(control: Control, seconds: float) -> datetime:
    return datetime.fromtimestamp(control.call("GET", "/clock")["time"] + seconds, timezone.utc)


def test_elliptic_curve_key(policy_vault: Vault) -> None:
    protected(policy_vault)
    key = policy_vault.keys.create_ec_key("key2")
    assert refusal(policy_vault.sandbox, str(key.id)) == f"The key '{key.id}' is of type EC; RSA or RSA-HSM is needed."


@pytest.mark.parametrize("missing", ["wrapKey", "unwrapKey"])
def test_key_without_a_needed_operation(policy_vault: Vault, missing: str) -> None:
    protected(policy_vault)
    operations = [name for name in ("encrypt", "wrapKey", "unwrapKey") if name != missing]
    key = policy_vault.rsa_key("key2", key_operations=operations)
    assert f"does not permit the operation(s) {missing}" in refusal(policy_vault.sandbox, str(key.id))


# Access lost, and back

Change = Callable[[Vault, KeyVaultKey], Any]


def disable(vault: Vault, key: KeyVaultKey) -> None:
    vault.keys.update_key_properties(key.name, key.properties.version, enabled=False)


def enable(vault: Vault, key: KeyVaultKey) -> None:
    vault.keys.update_key_properties(key.name, key.properties.version, enabled=True)


LOSSES: dict[str, tuple[Change, Change, str]] = {
    "key disabled": (disable, enable, "is disabled"),
    "key deleted": (
        lambda vault, key: vault.keys.begin_delete_key(key.name).wait(),
        lambda vault, key: vault.keys.begin_recover_deleted_key(key.name).wait(),
        "was not found",
    ),
    "grant withdrawn": (
        lambda vault, key: vault.forbid(principal_id(vault.sandbox)),
        lambda vault, key: vault.permit(principal_id(vault.sandbox)),
        "does not have the permission(s) get, unwrapKey",
    ),
    "unwrapKey taken from the key": (
        lambda vault, key: vault.keys.update_key_properties(key.name, key_operations=["wrapKey"]),
        lambda vault, key: vault.keys.update_key_properties(key.name, key_operations=["wrapKey", "unwrapKey"]),
        "unwrapKey",
    ),
    "vault moved to another tenant": (
        lambda vault, key: vault.patch(tenantId=str(uuid.uuid4())),
        lambda vault, key: vault.patch(tenantId=vault.sandbox.tenant_id),
        "belongs to another tenant",
    ),
    "network closed": (
        lambda vault, key: vault.patch(networkAcls={"bypass": "None", "defaultAction": "Deny"}),
        lambda vault, key: vault.patch(networkAcls={"bypass": "AzureServices", "defaultAction": "Deny"}),
        "ForbiddenByFirewall",
    ),
}


@pytest.mark.parametrize("versioned", [True, False], ids=["pinned", "following"])
@pytest.mark.parametrize("cause", LOSSES)
def test_access_lost_and_back(vault: Vault, control: Control, cause: str, versioned: bool) -> None:
    lose, mend, told = LOSSES[cause]
    key = protected(vault, versioned)
    control.timing(batch_recovery=600)
    assert works(vault.sandbox)
    lose(vault, key)
    assert told in reason(vault.sandbox)
    mend(vault, key)
    assert "has not recovered yet" in reason(vault.sandbox)
    control.advance(590)
    assert not works(vault.sandbox)
    control.advance(10)
    assert works(vault.sandbox)


@pytest.mark.parametrize("versioned", [True, False], ids=["pinned", "following"])
@pytest.mark.parametrize("cause", LOSSES)
def test_a_loss_is_noticed_though_nobody_uses_the_account(
    vault: Vault, control: Control, cause: str, versioned: bool
) -> None:
    lose, restore, _told = LOSSES[cause]
    key = protected(vault, versioned)
    control.timing(batch_recovery=600)
    lose(vault, key)
    restore(vault, key)
    assert "has not recovered yet" in reason(vault.sandbox)
    control.advance(600)
    assert works(vault.sandbox)


def test_a_loss_is_that_of_the_accounts_that_have_the_identity(policy_vault: Vault, control: Control) -> None:
    sandbox = policy_vault.sandbox
    key = protected(policy_vault)
    other = user_assigned_identity(sandbox, "other")
    policy_vault.permit(other["properties"]["principalId"])
    identity = {"type": "UserAssigned", "userAssignedIdentities": {other["id"]: {}}}
    create(sandbox, "other", identity=identity, **customer(str(key.id)))
    control.timing(batch_recovery=600)
    policy_vault.forbid(principal_id(sandbox))
    policy_vault.permit(principal_id(sandbox))
    refused(batch(sandbox, "POST", "account1", below="/listKeys"), 409, "KeyVaultKeyNotAccessible")
    assert batch(sandbox, "POST", "other", below="/listKeys").ok


def test_vault_deleted_and_back(policy_vault: Vault) -> None:
    protected(policy_vault)
    policy_vault.delete()
    assert reason(policy_vault.sandbox) == "The key vault 'vault1.vault.azure.net' was not found."
    policy_vault.recover()
    assert works(policy_vault.sandbox)


def test_key_expires_while_in_use(policy_vault: Vault, control: Control) -> None:
    sandbox = policy_vault.sandbox
    key = protected(policy_vault)
    policy_vault.keys.update_key_properties(key.name, expires_on=later(control, 3600))
    assert works(sandbox)
    control.advance(3601)
    assert "has expired" in reason(sandbox)
    policy_vault.keys.update_key_properties(key.name, expires_on=later(control, 7200))
    assert works(sandbox)


def test_loss_during_recovery_begins_it_anew(policy_vault: Vault, control: Control) -> None:
    key = protected(policy_vault)
    control.timing(batch_recovery=600)
    disable(policy_vault, key)
    enable(policy_vault, key)
    control.advance(500)
    disable(policy_vault, key)
    enable(policy_vault, key)
    control.advance(500)
    assert not works(policy_vault.sandbox)
    control.advance(100)
    assert works(policy_vault.sandbox)


def test_role_is_felt_late(sandbox: Sandbox, control: Control) -> None:
    vault = Vault(sandbox, rbac=True).make()
    control.timing(role_propagation=60)
    create(sandbox, identity={"type": "SystemAssigned"})
    vault.permit(principal_id(sandbox))
    key = str(vault.rsa_key().id)
    assert "does not have the permission(s)" in refusal(sandbox, key)
    control.advance(60)
    assert encrypt(sandbox, key).status_code == 200
    vault.forbid(principal_id(sandbox))
    assert works(sandbox)
    control.advance(60)
    assert not works(sandbox)


def test_identity_deleted_under_the_account(policy_vault: Vault) -> None:
    sandbox = policy_vault.sandbox
    identity = user_assigned_identity(sandbox)
    policy_vault.permit(identity["properties"]["principalId"])
    wanted = {"type": "UserAssigned", "userAssignedIdentities": {identity["id"]: {}}}
    create(sandbox, identity=wanted, **customer(str(policy_vault.rsa_key().id)))
    sandbox.arm("DELETE", identity["id"], "2023-01-31")
    assert reason(sandbox) == "The account's identity does not exist any more."


def test_identity_taken_away_from_the_account(policy_vault: Vault) -> None:
    sandbox = policy_vault.sandbox
    protected(policy_vault)
    response = batch(sandbox, "PATCH", "account1", {"identity": {"type": "None"}})
    assert response.status_code == 200
    assert response.json()["properties"]["encryption"]["keySource"] == "Microsoft.KeyVault"
    assert reason(sandbox) == "The account has no identity to read the key with."


def test_identity_changed_with_its_grant_there(policy_vault: Vault) -> None:
    sandbox = policy_vault.sandbox
    protected(policy_vault)
    identity = user_assigned_identity(sandbox)
    wanted = {"type": "UserAssigned", "userAssignedIdentities": {identity["id"]: {}}}
    policy_vault.permit(identity["properties"]["principalId"])
    assert batch(sandbox, "PATCH", "account1", {"identity": wanted}).status_code == 200
    assert works(sandbox)


def test_account_without_its_key_can_be_seen_and_deleted_only(policy_vault: Vault) -> None:
    sandbox = policy_vault.sandbox
    key = protected(policy_vault)
    pool = {"properties": {"vmSize": "STANDARD_D2S_V3"}}
    batch(sandbox, "PUT", "account1", pool, "/pools/pool-1")
    sandbox.control.behavior(pools_without_key="409")
    before = read(sandbox)
    disable(policy_vault, key)
    assert read(sandbox) == before
    listed = sandbox.arm("GET", f"{sandbox.subscription}/providers/Microsoft.Batch/batchAccounts", "2025-06-01")
    assert listed.json() == {"value": [before]}

    for method, below, body in (
        ("PATCH", "", {"tags": {"a": "b"}}),
        ("PATCH", "", MICROSOFT),
        ("PATCH", "", customer(versionless(policy_vault.rsa_key("key2")))),
        ("PUT", "", {"location": "westeurope"}),
        ("POST", "/listKeys", None),
        ("POST", "/regenerateKeys", {"keyName": "Primary"}),
        ("POST", "/syncAutoStorageKeys", None),
        ("GET", "/outboundNetworkDependenciesEndpoints", None),
        ("GET", "/pools", None),
        ("GET", "/pools/pool-1", None),
        ("PUT", "/pools/pool-1", pool),
        ("DELETE", "/pools/pool-1", None),
    ):
        response = batch(sandbox, method, "account1", body, below)
        details = refused(response, 409, "KeyVaultKeyNotAccessible")
        assert details == {"Reason": f"The key '{key.id}' is disabled.", "KeyIdentifier": key.id}
        assert "retry-after" not in response.headers

    location = batch(sandbox, "DELETE", "account1").headers["location"]
    assert sandbox.bearer().get(location).status_code == 200
    assert batch(sandbox, "GET", "account1").status_code == 404


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("200", None),
        ("409", "KeyVaultKeyNotAccessible"),
        ("403", "KeyVaultKeyNotAccessible"),
        ("500", "InternalError"),
    ],
)
def test_pools_without_key(policy_vault: Vault, status: str, code: str | None) -> None:
    sandbox = policy_vault.sandbox
    key = protected(policy_vault)
    sandbox.control.behavior(pools_without_key=status)
    assert batch(sandbox, "GET", "account1", below="/pools").status_code == 200
    disable(policy_vault, key)

    response = batch(sandbox, "GET", "account1", below="/pools")

    assert response.status_code == int(status)
    assert (response.json().get("error") or {}).get("code") == code
    refused(batch(sandbox, "PATCH", "account1", MICROSOFT), 409, "KeyVaultKeyNotAccessible")


def test_sdk_is_told_why(policy_vault: Vault) -> None:
    policy_vault.sandbox.control.behavior(pools_without_key="409")
    disable(policy_vault, protected(policy_vault))
    client = BatchManagementClient(policy_vault.credential(), policy_vault.sandbox.subscription_id)
    with pytest.raises(HttpResponseError) as caught:
        list(client.pool.list_by_batch_account("rg-sandbox", "account1"))
    assert caught.value.error is not None
    assert caught.value.error.code == "KeyVaultKeyNotAccessible"


# Versions


def test_account_follows_a_key_without_a_version(vault: Vault) -> None:
    vault.sandbox.control.behavior(follower_delay="0", previous_version_needed="0")
    first = protected(vault, versioned=False)
    second = vault.keys.rotate_key("key1")
    disable(vault, first)
    assert works(vault.sandbox)
    disable(vault, second)
    assert reason(vault.sandbox) == f"The key '{second.id}' is disabled."


def test_account_stays_with_a_key_that_has_a_version(vault: Vault) -> None:
    first = protected(vault)
    vault.keys.rotate_key("key1")
    assert works(vault.sandbox)
    disable(vault, first)
    assert reason(vault.sandbox) == f"The key '{first.id}' is disabled."


@pytest.mark.parametrize("delay", ["3600", "86400"])
def test_account_follows_late(policy_vault: Vault, delay: str) -> None:
    control = policy_vault.sandbox.control
    control.behavior(follower_delay=delay, previous_version_needed="0")
    first = protected(policy_vault, versioned=False)
    policy_vault.keys.rotate_key("key1")
    control.advance(int(delay) - 10)
    disable(policy_vault, first)
    assert reason(policy_vault.sandbox) == f"The key '{first.id}' is disabled."
    enable(policy_vault, first)
    control.advance(20)
    disable(policy_vault, first)
    assert works(policy_vault.sandbox)


def test_account_that_begins_to_follow_takes_the_newest_version(policy_vault: Vault) -> None:
    """However young it is: an account goes to no earlier version than the one it has."""
    first = protected(policy_vault)
    policy_vault.sandbox.control.advance(2 * 86400)
    second = policy_vault.keys.rotate_key("key1")
    policy_vault.sandbox.control.behavior(previous_version_needed="0")
    assert encrypt(policy_vault.sandbox, versionless(first)).status_code == 200
    disable(policy_vault, first)
    assert works(policy_vault.sandbox)
    disable(policy_vault, second)
    assert reason(policy_vault.sandbox) == f"The key '{second.id}' is disabled."


def test_account_does_not_follow_to_a_version_it_cannot_use(policy_vault: Vault) -> None:
    policy_vault.sandbox.control.behavior(follower_delay="0", previous_version_needed="0")
    first = protected(policy_vault, versioned=False)
    second = policy_vault.rsa_key(enabled=False)
    assert works(policy_vault.sandbox)
    disable(policy_vault, first)
    assert not works(policy_vault.sandbox)
    enable(policy_vault, second)
    # The data-encryption key still lies under the first version.
    assert reason(policy_vault.sandbox) == f"The key '{first.id}' is disabled."
    enable(policy_vault, first)
    disable(policy_vault, first)
    assert works(policy_vault.sandbox)


@pytest.mark.parametrize("needed", ["0", "600", "86400"])
@pytest.mark.parametrize("versioned", [True, False], ids=["pinned", "follows"])
def test_rotated_account_needs_its_former_version_for_a_while(
    policy_vault: Vault, needed: str, versioned: bool
) -> None:
    control = policy_vault.sandbox.control
    control.behavior(previous_version_needed=needed, follower_delay="0")
    first = protected(policy_vault, versioned)
    second = policy_vault.keys.rotate_key("key1")
    if versioned:
        assert encrypt(policy_vault.sandbox, str(second.id)).status_code == 200
    if needed != "0":
        control.advance(int(needed) - 10)
        disable(policy_vault, first)
        assert reason(policy_vault.sandbox) == f"The key '{first.id}' is disabled."
        enable(policy_vault, first)
        assert works(policy_vault.sandbox)
        control.advance(20)
    disable(policy_vault, first)
    assert works(policy_vault.sandbox)


def test_account_that_goes_back_to_a_version_needs_the_one_it_came_from(policy_vault: Vault) -> None:
    policy_vault.sandbox.control.behavior(previous_version_needed="86400")
    first = protected(policy_vault)
    second = policy_vault.keys.rotate_key("key1")
    for key in (second, first):
        assert encrypt(policy_vault.sandbox, str(key.id)).status_code == 200
    disable(policy_vault, second)
    assert reason(policy_vault.sandbox) == f"The key '{second.id}' is disabled."


def test_account_on_another_key_needs_no_version_of_the_former_one(policy_vault: Vault) -> None:
    policy_vault.sandbox.control.behavior(previous_version_needed="86400")
    first = protected(policy_vault)
    second = policy_vault.keys.rotate_key("key1")
    other = policy_vault.rsa_key("key2")
    for key in (second, other):
        assert encrypt(policy_vault.sandbox, str(key.id)).status_code == 200
    disable(policy_vault, first)
    disable(policy_vault, second)
    assert works(policy_vault.sandbox)


def test_reverted_account_needs_no_key(policy_vault: Vault) -> None:
    key = protected(policy_vault)
    assert batch(policy_vault.sandbox, "PATCH", "account1", MICROSOFT).status_code == 200
    policy_vault.keys.begin_delete_key(key.name).wait()
    assert works(policy_vault.sandbox)


def test_refused_change_leaves_the_account_on_its_key(policy_vault: Vault) -> None:
    key = protected(policy_vault)
    body = {**customer("https://vault1.vault.azure.net/keys/missing"), "tags": {"a": "b"}, "identity": {"type": "None"}}
    refused(batch(policy_vault.sandbox, "PATCH", "account1", body), 400, "InvalidKeyVaultProperties")
    account = read(policy_vault.sandbox)
    assert account["properties"]["encryption"]["keyVaultProperties"] == {"keyIdentifier": key.id}
    assert account["identity"]["type"] == "SystemAssigned"
    assert "tags" not in account
    assert works(policy_vault.sandbox)
