# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Functions that create the documents of Azure's services. Unset fields are omitted, as the services do."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ansible_collections.azbatch.cmk.plugins.module_utils._checks.diagnosis import Symptoms
from ansible_collections.azbatch.cmk.plugins.module_utils._checks.preflight import Evidence
from ansible_collections.azbatch.cmk.plugins.module_utils._checks.usage import Times
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import parse_key_identifier

SUBSCRIPTION = "00000000-1111-2222-3333-444444444444"
TENANT = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
PRINCIPAL = "abcdef01-7777-8888-9999-000000000000"
OTHER = "abcdef02-7777-8888-9999-000000000000"
GROUP_OF_PEOPLE = "abcdef03-7777-8888-9999-000000000000"
CALLER = {"object_id": "abcdef04-7777-8888-9999-000000000000", "tenant_id": TENANT}

NOW = 1_780_000_000
DAY = 86400
OLD, MIDDLE, NEW = "c" * 32, "a" * 32, "b" * 32  # not in alphabetical order
KEY = "https://myvault.vault.azure.net/keys/batch"
VAULT_ID = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-keys/providers/Microsoft.KeyVault/vaults/myvault"
NEEDED = ["get", "unwrapKey", "wrapKey"]

ENCRYPTION_USER = "e147488a-f6f5-4113-8e2d-b22465e65bf6"
CRYPTO_OFFICER = "14b46e9e-c2b7-41b4-b07b-48a6ebf60603"


def identity_id(name: str = "id-batch", *, groups: str = "resourceGroups") -> str:
    return (
        f"/subscriptions/{SUBSCRIPTION}/{groups}/rg-batch"
        f"/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
    )


def system_assigned(principal: str = PRINCIPAL) -> dict[str, Any]:
    return {"principalId": principal, "tenantId": TENANT, "type": "SystemAssigned"}


def user_assigned(**principals: str) -> dict[str, Any]:
    """Identities by name, each with the object id of its principal."""
    assigned = {
        identity_id(name): {"principalId": principal, "clientId": f"client-of-{name}"}
        for name, principal in principals.items()
    }
    return {"type": "UserAssigned", "userAssignedIdentities": assigned}


def account_id(name: str = "mybatch") -> str:
    return f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-batch/providers/Microsoft.Batch/batchAccounts/{name}"


def account(
    name: str = "mybatch",
    *,
    key: str | None = None,
    identity: dict[str, Any] | None = None,
    tags: dict[str, str] | None = None,
) -> dict[str, Any]:
    encryption: dict[str, Any] = {"keySource": "Microsoft.Batch"}
    if key is not None:
        encryption = {"keySource": "Microsoft.KeyVault", "keyVaultProperties": {"keyIdentifier": key}}
    return {
        "id": account_id(name),
        "name": name,
        "type": "Microsoft.Batch/batchAccounts",
        "location": "westeurope",
        "properties": {
            "provisioningState": "Succeeded",
            "poolAllocationMode": "BatchService",
            "publicNetworkAccess": "Enabled",
            "encryption": encryption,
        },
        **({"tags": tags} if tags else {}),
        "identity": identity or {"type": "None"},
    }


def visible(
    *accounts: dict[str, Any],
    unlisted: tuple[str, ...] = (),
    disks: tuple[dict[str, Any], ...] = (),
    services: tuple[dict[str, Any], ...] = (),
) -> dict[str, Any]:
    """`unlisted` are scopes that the caller may not list, `disks` and `services` are results of `disk`."""
    return {
        "accounts": list(accounts),
        "disks": list(disks),
        "services": list(services),
        "unlisted": [not_listed(scope) for scope in unlisted],
    }


def disk(
    name: str,
    key: str | None,
    *,
    follows: bool = False,
    principals: tuple[str, ...] | None = (PRINCIPAL,),
    changed_at: float | None = 0.0,
) -> dict[str, Any]:
    """The disk key of a pool of an account that uses a Microsoft-managed key. By default, the pool was changed long
    ago. Without a key: the account is unavailable, and its pools are not known."""
    pool = f"{account_id('pools')}/pools/{name}" if key else account_id(name)
    holders = principals and list(principals)
    return {"id": pool, "key": key, "follows_latest": follows, "principals": holders, "changed_at": changed_at}


def times(
    *accounts: dict[str, Any], left: tuple[str, ...] = (), access_since: dict[str, float] | None = None, **ages: Any
) -> Times:
    """The times of accounts, which were changed long ago. `ages` are the seconds since an account was last changed, by
    its name; None if that is not known. `left` are the names of accounts that may have left the key."""
    changed = {one["id"]: 0.0 for one in accounts}
    changed |= {account_id(name): None if age is None else NOW - age for name, age in ages.items()}
    since = {account_id(name): at for name, at in (access_since or {}).items()}
    return Times(changed, since, [account_id(name) for name in left])


def not_listed(scope: str, action: str | None = "Microsoft.Batch/batchAccounts/read") -> dict[str, Any]:
    return {"scope": scope, "reason": "The list was refused.", "action": action}


def policy(
    principal: str = PRINCIPAL,
    keys: list[str] | None = None,
    *,
    application: str | None = None,
    **others: list[str],
) -> dict[str, Any]:
    """An entry of a vault's access policies. `others` are permissions on secrets, certificates and storage."""
    return {
        "tenantId": TENANT,
        "objectId": principal,
        **({"applicationId": application} if application else {}),
        "permissions": {"keys": NEEDED if keys is None else keys, **others},
    }


def vault(*policies: dict[str, Any], rbac: bool = False, **properties: Any) -> dict[str, Any]:
    """A vault that meets the requirements of Batch. A property that is None is omitted."""
    said = {
        "sku": {"family": "A", "name": "standard"},
        "tenantId": TENANT,
        "accessPolicies": list(policies),
        "enabledForDeployment": False,
        "enableSoftDelete": True,
        "softDeleteRetentionInDays": 90,
        "enableRbacAuthorization": True if rbac else None,
        "enablePurgeProtection": True,
        "vaultUri": "https://myvault.vault.azure.net/",
        "provisioningState": "Succeeded",
        "publicNetworkAccess": "Enabled",
        **properties,
    }
    return {
        "id": VAULT_ID,
        "name": "myvault",
        "type": "Microsoft.KeyVault/vaults",
        "location": "westeurope",
        "tags": {},
        "properties": {name: value for name, value in said.items() if value is not None},
    }


def deleted_vault(*, protected: bool = True, tags: dict[str, str] | None = None) -> dict[str, Any]:
    return {
        "id": f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.KeyVault/locations/northeurope/deletedVaults/myvault",
        "name": "myvault",
        "type": "Microsoft.KeyVault/deletedVaults",
        "properties": {
            "vaultId": VAULT_ID,
            "location": "northeurope",
            "tags": tags or {},
            "deletionDate": "2026-05-22T06:24:25Z",
            "scheduledPurgeDate": "2026-08-20T06:24:25Z",
            **({"purgeProtectionEnabled": True} if protected else {}),
        },
    }


def assignment(
    role: str, scope: str, *, principal: str = PRINCIPAL, name: str = "an-assignment", age: int = 30 * DAY
) -> dict[str, Any]:
    made = datetime.fromtimestamp(NOW - age, UTC)
    return {
        "properties": {
            "roleDefinitionId": f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Authorization"
            f"/roleDefinitions/{role}",
            "principalId": principal,
            "principalType": "ServicePrincipal",
            "scope": scope,
            "condition": None,
            "createdOn": f"{made:%Y-%m-%dT%H:%M:%S}.1234567Z",
        },
        "id": f"{scope.rstrip('/')}/providers/Microsoft.Authorization/roleAssignments/{name}",
        "type": "Microsoft.Authorization/roleAssignments",
        "name": name,
    }


def definition(*permissions: tuple[list[str], list[str]]) -> dict[str, Any]:
    """A role definition. Each permission has data actions and excluded data actions."""
    return {
        "roleName": "A role",
        "permissions": [
            {"actions": [], "notActions": [], "dataActions": actions, "notDataActions": but}
            for actions, but in permissions
        ],
    }


_KEYS = "Microsoft.KeyVault/vaults/keys"
DEFINITIONS = {
    ENCRYPTION_USER: definition(([f"{_KEYS}/read", f"{_KEYS}/wrap/action", f"{_KEYS}/unwrap/action"], [])),
    CRYPTO_OFFICER: definition(([f"{_KEYS}/*", "Microsoft.KeyVault/vaults/keyrotationpolicies/*"], [])),
}

# By size of a key in bits, the number of characters of its modulus in base64url without padding.
_MODULUS = {2048: 342, 3072: 512, 4096: 683}


def key(
    version: str = NEW, *, kty: str = "RSA", size: int = 2048, name: str = "batch", **fields: Any
) -> dict[str, Any]:
    """A key version. `key_ops` and `tags` are fields of the bundle, all other fields are attributes."""
    operations = fields.pop("key_ops", ["wrapKey", "unwrapKey"])
    tags = fields.pop("tags", None)
    attributes = {
        "enabled": True,
        "created": NOW - 10 * DAY,
        "updated": NOW - 10 * DAY,
        "recoveryLevel": "Recoverable",
        "recoverableDays": 90,
        **fields,
    }
    elliptic = {"crv": "P-256", "x": "x", "y": "y"}
    material = elliptic if kty.startswith("EC") else {"n": "A" * _MODULUS[size], "e": "AQAB"}
    return {
        "key": {
            "kid": f"https://myvault.vault.azure.net/keys/{name}/{version}",
            "kty": kty,
            "key_ops": operations,
            **material,
        },
        "attributes": attributes,
        **({"tags": tags} if tags else {}),
    }


def deleted_key() -> dict[str, Any]:
    dates = {"deletedDate": NOW - DAY, "scheduledPurgeDate": NOW + 89 * DAY}
    return {"recoveryId": "https://myvault.vault.azure.net/deletedkeys/batch", **dates, **key()}


def listed(bundle: dict[str, Any]) -> dict[str, Any]:
    """A key version as the list of versions shows it."""
    tags = {"tags": bundle["tags"]} if "tags" in bundle else {}
    return {"kid": bundle["key"]["kid"], "attributes": bundle["attributes"], **tags}


def rotation_policy(**trigger: str) -> dict[str, Any]:
    """A rotation policy as Key Vault returns it. Key Vault adds a notification."""
    notify = {"trigger": {"timeBeforeExpiry": "P30D"}, "action": {"type": "Notify"}}
    rotate = [{"trigger": trigger, "action": {"type": "Rotate"}}] if trigger else []
    return {"id": f"{KEY}/rotationpolicy", "lifetimeActions": [*rotate, notify], "attributes": {"created": NOW}}


def evidence(identifier: str = KEY, **others: Any) -> Evidence:
    """The evidence of preflight, by default of a key that Batch can use."""
    given: dict[str, Any] = {
        "principals": (PRINCIPAL,),
        "tenant_id": TENANT,
        "vault": vault(policy()),
        "bundle": key(),
        "assignments": {},
        "definitions": {},
        "now": NOW,
        **others,
    }
    return Evidence(parse_key_identifier(identifier, "key_identifier"), **given)


def symptoms(identifier: str = f"{KEY}/{NEW}", *versions: dict[str, Any], **others: Any) -> Symptoms:
    """The documents of an account that uses this key, with no other problems than the given ones."""
    beside = {
        "available": False,
        "versions": [listed(version) for version in versions or (key(),)],
        **{name: others.pop(name) for name in [*others] if name in Symptoms.__dataclass_fields__},
    }
    return Symptoms(evidence(identifier, **others), **beside)
