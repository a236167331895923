# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the caller of the experiments has beside them: accounts on keys in two subscriptions, vaults, and other people's
role assignments."""

from __future__ import annotations

import uuid

from sandbox_client import VAULT_SCOPE, VAULTS, Sandbox

# The names of these resources. No file of the experiments may contain them.
OTHERS = ("contoso-prod", "contosofinance", "contosopayroll", "contoso-keys", "fabrikam-keys", "contoso-admin")
_READER = "acdd72a7-3385-48ef-bd42-f606fba81ae7"


def furnish(azure: Sandbox) -> None:
    second = azure.control.call("POST", "/subscriptions", {"name": "contoso-prod"})["subscription_id"]
    admin = azure.control.principal("contoso-admin")
    for subscription, account, vault in (
        (azure.subscription_id, "contosofinance", "contoso-keys"),
        (second, "contosopayroll", "fabrikam-keys"),
    ):
        group = f"/subscriptions/{subscription}/resourceGroups/contoso-prod"
        assert azure.arm("PUT", group, "2022-09-01", {"location": "westeurope"}).ok
        path = f"{group}/providers/Microsoft.Batch/batchAccounts/{account}"
        body = {"location": "westeurope", "identity": {"type": "SystemAssigned"}, "tags": {"owner": "contoso-admin"}}
        assert azure.arm("PUT", path, "2025-06-01", body).ok
        principal = azure.arm("GET", path, "2025-06-01").json()["identity"]["principalId"]
        operator = azure.control.call("GET", "/principals")["principals"][0]["object_id"]
        allowed = {"keys": ["get", "wrapKey", "unwrapKey", "create"]}
        policies = [
            {"tenantId": azure.tenant_id, "objectId": one, "permissions": allowed} for one in (principal, operator)
        ]
        properties = {
            "tenantId": azure.tenant_id,
            "sku": {"family": "A", "name": "standard"},
            "enablePurgeProtection": True,
            "enableRbacAuthorization": False,
            "accessPolicies": policies,
        }
        vault_path = f"{group}/providers/Microsoft.KeyVault/vaults/{vault}"
        assert azure.arm("PUT", vault_path, VAULTS, {"location": "westeurope", "properties": properties}).ok
        created = azure.bearer(VAULT_SCOPE).post(
            f"https://{vault}.vault.azure.net/keys/cmk/create?api-version=2025-07-01",
            json={"kty": "RSA", "key_size": 2048},
            timeout=30,
        )
        assert created.ok, created.text
        key = {"keyIdentifier": created.json()["key"]["kid"]}
        encryption = {"keySource": "Microsoft.KeyVault", "keyVaultProperties": key}
        assert azure.arm("PATCH", path, "2025-06-01", {"properties": {"encryption": encryption}}).ok
        assignment = f"/subscriptions/{subscription}/providers/Microsoft.Authorization/roleAssignments/{uuid.uuid4()}"
        role = f"/subscriptions/{subscription}/providers/Microsoft.Authorization/roleDefinitions/{_READER}"
        who = {"roleDefinitionId": role, "principalId": admin["object_id"], "principalType": "ServicePrincipal"}
        assert azure.arm("PUT", assignment, "2022-04-01", {"properties": who}).ok
