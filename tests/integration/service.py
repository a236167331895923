# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Creates the resources that a test begins with, and reads the resources that a module changed, by Azure's SDKs."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from azure.core.exceptions import ResourceExistsError
from azure.core.pipeline.policies import SansIOHTTPPolicy
from azure.identity import ClientSecretCredential
from azure.keyvault.keys import KeyClient, KeyVaultKey
from azure.mgmt.authorization import AuthorizationManagementClient
from azure.mgmt.batch import BatchManagementClient
from azure.mgmt.keyvault import KeyVaultManagementClient
from azure.mgmt.msi import ManagedServiceIdentityClient
from sandbox_client import VAULTS, Control, Sandbox

GROUP = "rg-sandbox"
LOCATION = "westeurope"
DAY = 86400
NEEDED = ["get", "unwrapKey", "wrapKey"]
OFFICER = ["get", "list", "create", "update", "import", "delete", "recover", "getrotationpolicy", "setrotationpolicy"]
ENCRYPTION_USER = "e147488a-f6f5-4113-8e2d-b22465e65bf6"
_BATCH = "2024-07-01"
# The first API version with customer-managed keys of pools.
_POOLS = "2025-06-01"
_ROLES = "2022-04-01"
_IDENTITIES = "2023-01-31"
_GROUPS = "2021-04-01"


def _wire(response: Any, _deserialized: Any, _headers: Any) -> Any:
    """The JSON of the response, because the models differ between the releases of the SDKs."""
    return json.loads(response.http_response.text())


class _StatedVersion(SansIOHTTPPolicy[Any, Any]):
    """Replaces the API version of a request, because older SDKs cannot send this version."""

    def on_request(self, request: Any) -> None:
        sent = request.http_request
        sent.url = re.sub(r"(?<=[?&]api-version=)[^&]*", VAULTS, sent.url)


# Most tests use these positions of switches, and the default positions of all others. Batch reports at once why an
# account is not available. Accounts that follow a key take a new version at once. A previous version can be disabled at
# once.
USED = {"pools_without_key": "409", "key_loss_noticed": "0", "follower_delay": "0", "previous_version_needed": "0"}


def reset(control: Control) -> None:
    """Reset the sandbox, and set the switches as most tests need them. Tests of the switches set other positions."""
    control.reset()
    control.behavior(**USED)


class Service:
    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox

    # Reads

    def account(self, name: str = "account1") -> dict[str, Any]:
        """The JSON of the account."""
        found: dict[str, Any] = self.batch.batch_account.get(GROUP, name, cls=_wire)
        return found

    def accounts(self) -> list[str]:
        return [account.name for account in self.batch.batch_account.list()]

    def is_available(self, name: str = "account1") -> bool:
        """Whether the account can use its key. The list of outbound endpoints needs the key. A read of the account does
        not, and the list of its pools may not."""
        try:
            return bool(list(self.batch.batch_account.list_outbound_network_dependencies_endpoints(GROUP, name)))
        except ResourceExistsError:
            return False

    def is_safe(self, name: str = "account1") -> bool:
        """Whether the account is available and Batch can use its key. Batch may not have noticed yet that it cannot."""
        found = self._in_sandbox(name)
        return found is not None and found["available"] and not found["key_unusable_reason"]

    def _in_sandbox(self, name: str) -> dict[str, Any] | None:
        accounts = self.sandbox.control.call("GET", "/accounts")["accounts"]
        return next((one for one in accounts if one["id"] == self.account_id(name)), None)

    def encryption(self, name: str = "account1") -> str | None:
        """The identifier of the customer-managed key that the account uses, or None for a Microsoft-managed key."""
        encryption = self.account(name)["properties"]["encryption"]
        if encryption["keySource"] == "Microsoft.Batch":
            return None
        assert encryption["keySource"] == "Microsoft.KeyVault"
        identifier: str = encryption["keyVaultProperties"]["keyIdentifier"]
        return identifier

    def vault(self, name: str = "vault-one") -> dict[str, Any]:
        """The JSON of the vault."""
        found: dict[str, Any] = self.vaults.vaults.get(GROUP, name, cls=_wire)
        return found

    def permissions(self, principal: str, vault: str = "vault-one") -> dict[str, list[str]] | None:
        """The permissions in the principal's access policy."""
        for policy in self.vault(vault)["properties"]["accessPolicies"]:
            if policy["objectId"] == principal and not policy.get("applicationId"):
                found: dict[str, list[str]] = policy["permissions"]
                return found
        return None

    def assignments(self, principal: str) -> list[tuple[str, str]]:
        """The scope and the role's GUID of each of a principal's role assignments."""
        found = self.authorization.role_assignments.list_for_subscription(filter=f"principalId eq '{principal}'")
        return [(one.scope, one.role_definition_id.rpartition("/")[2]) for one in found]

    def key(self, name: str = "key1", version: str | None = None, vault: str = "vault-one") -> KeyVaultKey:
        return self.keys(vault).get_key(name, version)

    def versions(self, name: str = "key1", vault: str = "vault-one") -> list[Any]:
        """The properties of a key's versions, the oldest first."""
        return sorted(self.keys(vault).list_properties_of_key_versions(name), key=lambda one: one.created_on)

    def enabled(self, name: str = "key1", vault: str = "vault-one") -> list[bool]:
        """Whether each version of a key is enabled, the oldest first."""
        return [version.enabled for version in self.versions(name, vault)]

    # Resources that a test begins with

    def make_account(self, name: str = "account1", **body: Any) -> dict[str, Any]:
        """An account, by default with a system-assigned identity."""
        wanted = {"location": LOCATION, "identity": {"type": "SystemAssigned"}, **body}
        self._arm("PUT", f"{self.account_id(name)}", _BATCH, wanted)
        return self.account(name)

    def delete_account(self, name: str = "account1") -> None:
        self._arm("DELETE", self.account_id(name), _BATCH)

    def make_pool(
        self, name: str, account: str = "account1", identity: dict[str, Any] | None = None, **properties: Any
    ) -> None:
        body = {
            "properties": {"vmSize": "standard_d2s_v3", **properties},
            **({"identity": identity} if identity else {}),
        }
        self._arm("PUT", f"{self.account_id(account)}/pools/{name}", _POOLS, body)

    def change_account(self, name: str = "account1", **body: Any) -> None:
        self._arm("PATCH", self.account_id(name), _BATCH, body)

    def point(self, identifier: str | None, name: str = "account1") -> None:
        """Move the account to a key, or to a Microsoft-managed key if `identifier` is None, without the collection."""
        encryption: dict[str, Any] = {"keySource": "Microsoft.Batch"}
        if identifier:
            encryption = {"keySource": "Microsoft.KeyVault", "keyVaultProperties": {"keyIdentifier": identifier}}
        self.change_account(name, properties={"encryption": encryption})

    def make_vault(self, name: str = "vault-one", *, rbac: bool = False, **body: Any) -> dict[str, Any]:
        """A vault, by default with the settings that Batch needs. With access policies, the caller has all permissions
        on keys that the collection uses."""
        properties = {
            "tenantId": self.sandbox.tenant_id,
            "sku": {"family": "A", "name": "standard"},
            "enablePurgeProtection": True,
            "enableRbacAuthorization": rbac,
            "accessPolicies": [] if rbac else [self.policy(self.operator, *OFFICER)],
            **body.pop("properties", {}),
        }
        self._arm("PUT", self.vault_id(name), VAULTS, {"location": LOCATION, "properties": properties, **body})
        return self.vault(name)

    def change_vault(self, name: str = "vault-one", **body: Any) -> None:
        self._arm("PATCH", self.vault_id(name), VAULTS, body)

    def delete_vault(self, name: str = "vault-one") -> None:
        self._arm("DELETE", self.vault_id(name), VAULTS)

    def policy(self, principal: str, *keys: str, **more: Any) -> dict[str, Any]:
        permissions = {"keys": [*keys], **more.pop("permissions", {})}
        return {"tenantId": self.sandbox.tenant_id, "objectId": principal, "permissions": permissions, **more}

    def set_policy(self, kind: str, *policies: Mapping[str, Any], vault: str = "vault-one") -> None:
        """`kind` is add, replace or remove."""
        body = {"properties": {"accessPolicies": policies}}
        self._arm("PUT", f"{self.vault_id(vault)}/accessPolicies/{kind}", VAULTS, body)

    def grant(self, principal: str, vault: str = "vault-one") -> None:
        """Grant the permissions that Batch needs: a role or an access policy, by the permission model of the vault."""
        if self.vault(vault)["properties"]["enableRbacAuthorization"]:
            self.assign(principal, self.vault_id(vault))
        else:
            self.set_policy("add", self.policy(principal, *NEEDED), vault=vault)

    def revoke(self, principal: str, vault: str = "vault-one") -> None:
        if self.vault(vault)["properties"]["enableRbacAuthorization"]:
            for one in self.authorization.role_assignments.list_for_subscription(
                filter=f"principalId eq '{principal}'"
            ):
                self.authorization.role_assignments.delete_by_id(one.id)
        else:
            self.set_policy("remove", self.policy(principal, *NEEDED), vault=vault)

    def assign(self, principal: str, scope: str, role: str = ENCRYPTION_USER) -> None:
        properties = {
            "roleDefinitionId": f"{self.sandbox.subscription}/providers/Microsoft.Authorization/roleDefinitions/{role}",
            "principalId": principal,
            "principalType": "ServicePrincipal",
        }
        path = f"{scope}/providers/Microsoft.Authorization/roleAssignments/{uuid.uuid4()}"
        self._arm("PUT", path, _ROLES, {"properties": properties})

    def make_key(self, name: str = "key1", vault: str = "vault-one", size: int = 2048, **options: Any) -> KeyVaultKey:
        """Create a key, or a further version of the key if it exists. Key Vault returns a version's time of creation in
        whole seconds, so the clock advances by a second to make this version the newest."""
        self.sandbox.control.advance(1)
        operations = options.pop("key_operations", ["wrapKey", "unwrapKey"])
        return self.keys(vault).create_rsa_key(name, size=size, key_operations=operations, **options)

    def disable(self, name: str = "key1", version: str | None = None, vault: str = "vault-one") -> None:
        self.keys(vault).update_key_properties(name, version, enabled=False)

    def make_group(self, name: str) -> None:
        self._arm("PUT", f"{self.sandbox.subscription}/resourceGroups/{name}", _GROUPS, {"location": LOCATION})

    def make_identity(self, name: str = "identity1") -> dict[str, Any]:
        identity: dict[str, Any] = self._arm("PUT", self.identity_id(name), _IDENTITIES, {"location": LOCATION})
        return identity

    def on_key(self, *, rbac: bool = False, follow: bool = False) -> tuple[str, str]:
        """Create account1, which uses key1 of vault-one. Returns its principal and the key version's identifier."""
        self.make_vault(rbac=rbac)
        principal: str = self.make_account()["identity"]["principalId"]
        self.grant(principal)
        identifier = self.make_key().id
        self.point(identifier.rpartition("/")[0] if follow else identifier)
        return principal, identifier

    # Names

    def account_id(self, name: str = "account1") -> str:
        return f"{self.sandbox.group}/providers/Microsoft.Batch/batchAccounts/{name}"

    def vault_id(self, name: str = "vault-one") -> str:
        return f"{self.sandbox.group}/providers/Microsoft.KeyVault/vaults/{name}"

    def identity_id(self, name: str = "identity1") -> str:
        return f"{self.sandbox.group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"

    @property
    def operator(self) -> str:
        """The object id of the principal of the environment's credentials."""
        principals = self.sandbox.control.call("GET", "/principals")["principals"]
        found: str = next(one["object_id"] for one in principals if one["client_id"] == self.sandbox.client_id)
        return found

    # The SDK

    def sign_in_again(self) -> None:
        """Forget the tokens and the clients, because the SDK does not replace a token that a test made expire."""
        self.sandbox.tokens.clear()
        for name in vars(self).keys() - {"sandbox"}:
            delattr(self, name)

    @cached_property
    def batch(self) -> BatchManagementClient:
        return BatchManagementClient(*self._who, **self._through)

    @cached_property
    def vaults(self) -> KeyVaultManagementClient:
        return KeyVaultManagementClient(*self._who, per_call_policies=[_StatedVersion()], **self._through)

    @cached_property
    def authorization(self) -> AuthorizationManagementClient:
        return AuthorizationManagementClient(*self._who, api_version=_ROLES, **self._through)

    @cached_property
    def identities(self) -> ManagedServiceIdentityClient:
        return ManagedServiceIdentityClient(*self._who, **self._through)

    def keys(self, vault: str = "vault-one") -> KeyClient:
        return KeyClient(f"https://{vault}.vault.azure.net", self.credential, **self._through)

    @cached_property
    def _through(self) -> dict[str, Any]:
        """The proxy as arguments of a client, because the environment of the test process does not name the proxy."""
        url, bundle = self.sandbox.url, self.sandbox.environment["REQUESTS_CA_BUNDLE"]
        proxies = {"http": url, "https": url}
        return {"proxies": proxies, "connection_verify": bundle, "retry_total": 0, "use_env_settings": False}

    @cached_property
    def credential(self) -> ClientSecretCredential:
        own = self.sandbox
        return ClientSecretCredential(own.tenant_id, own.client_id, own.secret, **self._through)

    @property
    def _who(self) -> tuple[ClientSecretCredential, str]:
        return self.credential, self.sandbox.subscription_id

    def _arm(self, method: str, path: str, version: str, body: Any = None) -> Any:
        response = self.sandbox.arm(method, path, version, body)
        assert response.ok, response.text
        return response.json() if response.content else None


def raised(call: Callable[[], Any]) -> str:
    """The code of the error that the SDK raises, or an empty string if the call succeeds."""
    from azure.core.exceptions import HttpResponseError

    try:
        call()
    except HttpResponseError as error:
        return str(error.error.code if error.error else error.reason)
    return ""
