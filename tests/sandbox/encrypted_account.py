# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A Batch account that uses a customer-managed key, for tests of Batch and the key."""

from __future__ import annotations

import html
import re
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import requests
from azure.identity import ClientSecretCredential
from azure.keyvault.keys import KeyClient, KeyVaultKey
from batch_calls import batch, create, read, refused
from sandbox_client import VAULTS, Control, Sandbox

ROLES = "2022-04-01"
ENCRYPTION_USER = "e147488a-f6f5-4113-8e2d-b22465e65bf6"
NEEDED = ["get", "wrapKey", "unwrapKey"]
MICROSOFT = {"properties": {"encryption": {"keySource": "Microsoft.Batch"}}}


def customer(key_identifier: str) -> dict[str, Any]:
    vault = {"keyIdentifier": key_identifier}
    return {"properties": {"encryption": {"keySource": "Microsoft.KeyVault", "keyVaultProperties": vault}}}


@dataclass
class Vault:
    """A vault that uses access policies or Azure RBAC."""

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


def principal_id(sandbox: Sandbox) -> str:
    found: str = read(sandbox)["identity"]["principalId"]
    return found


def encrypt(sandbox: Sandbox, key_identifier: str) -> requests.Response:
    return batch(sandbox, "PATCH", "account1", customer(key_identifier))


def protected(vault: Vault, versioned: bool = True) -> KeyVaultKey:
    """Create account1 with a customer-managed key, and return the key."""
    create(vault.sandbox, identity={"type": "SystemAssigned"})
    vault.permit(principal_id(vault.sandbox))
    key = vault.rsa_key()
    response = encrypt(vault.sandbox, key.id if versioned else versionless(key))
    assert response.status_code == 200, response.text
    return key


def versionless(key: KeyVaultKey) -> str:
    return str(key.id).rpartition("/")[0]


def works(sandbox: Sandbox) -> bool:
    """Whether the account can be used, according to one of its operations."""
    return use(sandbox) == ""


def reason(sandbox: Sandbox) -> str:
    reported = use(sandbox)
    assert reported
    return reported


def use(sandbox: Sandbox) -> str:
    """The reason why the account cannot be used, or "". The page of the sandbox must show the reason before the
    request, because the page changes nothing."""
    predicted = reason_on_page(sandbox)
    response = batch(sandbox, "POST", "account1", below="/listKeys")
    reported = "" if response.ok else refused(response, 409, "KeyVaultKeyNotAccessible")["Reason"]
    assert reported == predicted == reason_on_page(sandbox)
    return reported


def reason_on_page(sandbox: Sandbox) -> str:
    state, said = state_on_page(sandbox)
    assert state != "available" or said == "" or said.startswith("Batch has not noticed this yet: ")
    return "" if state == "available" else said


def state_on_page(sandbox: Sandbox) -> tuple[str, str]:
    """The state of the only account, and the text below it."""
    response = requests.get(sandbox.url, headers={"accept": "text/html"}, timeout=30)
    cell = r'<td data-label="State"><strong class="(\w+)">[^<]*</strong>(?:<small>(.*?)</small>)?'
    ((state, said),) = re.findall(cell, response.text.partition('id="accounts-table"')[2].partition("</table>")[0])
    return state, html.unescape(said)


def refusal(sandbox: Sandbox, key_identifier: str) -> str:
    """The reason why the key is refused. The account is not changed."""
    before = read(sandbox)
    details = refused(encrypt(sandbox, key_identifier), 400, "InvalidKeyVaultProperties")
    assert details["PropertyPath"] == "properties.encryption.keyVaultProperties.keyIdentifier"
    assert read(sandbox) == before
    return details["Reason"]


def later(control: Control, seconds: float) -> datetime:
    return datetime.fromtimestamp(control.call("GET", "/clock")["time"] + seconds, UTC)


def disable(vault: Vault, key: KeyVaultKey) -> None:
    vault.keys.update_key_properties(key.name, key.properties.version, enabled=False)


def enable(vault: Vault, key: KeyVaultKey) -> None:
    vault.keys.update_key_properties(key.name, key.properties.version, enabled=True)
