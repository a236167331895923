# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A sandbox with a resource of each kind, and valid requests. `@name@` is replaced by a value that is known after
the sandbox has started."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from batch_calls import VERSION, batch, create, user_assigned_identity
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from key_vault_calls import ENCRYPTION_USER, NEW, assign, data, make_key, make_vault, policy, vault_path, version_of
from sandbox_client import VAULT_SCOPE, Sandbox

from azure_sandbox.authorization import http as authorization
from azure_sandbox.batch import http as batch_routes
from azure_sandbox.control import routes as control_routes
from azure_sandbox.key_vault import http as key_vault
from azure_sandbox.key_vault_keys import documents as key_documents
from azure_sandbox.key_vault_keys import http as key_vault_keys
from azure_sandbox.key_vault_keys.material import base64url
from azure_sandbox.managed_identity import http as managed_identity
from azure_sandbox.resource_graph import http as resource_graph
from azure_sandbox.resource_manager import http as resource_manager
from azure_sandbox.server import Sandbox as Server
from azure_sandbox.shared.web import Route

GUID = "11111111-0000-4000-8000-000000000001"
OTHER_GUID = "11111111-0000-4000-8000-000000000002"
NEW_GUID = "11111111-0000-4000-8000-000000000003"

SUBSCRIPTION = "subscriptions/@subscription@"
GROUP = f"{SUBSCRIPTION}/resourceGroups/rg-sandbox"
# Values of the parameters of paths, the usual value first.
KNOWN: dict[str, tuple[str, ...]] = {
    "subscription": ("@subscription@",),
    "group": ("rg-sandbox", "rg-new"),
    "namespace": ("Microsoft.Batch", "Microsoft.KeyVault", "Microsoft.Nothing"),
    "account": ("account1", "account2", "newaccount"),
    "vault": ("vault-one", "vault-two", "vault-gone", "vault-new"),
    "identity": ("identity1", "identity-new"),
    "location": ("westeurope", "West Europe"),
    "operation": ("add", "replace", "remove", "@operation@"),
    "name": (NEW_GUID, GUID, OTHER_GUID, "pool1"),
    "scope": (SUBSCRIPTION, GROUP, f"{GROUP}/providers/Microsoft.KeyVault/vaults/vault-one", f"{SUBSCRIPTION}/x"),
    "key": ("key1", "curve", "gone", "key-new"),
    "version": ("@version@", "@curve-version@"),
}

HERE = "providers/Microsoft.Authorization"
POLICIES = f"{HERE}/policyDefinitions"
ROLE_ID = f"/{SUBSCRIPTION}/providers/Microsoft.Authorization/roleDefinitions/"
STORAGE_ID = f"/{GROUP}/providers/Microsoft.Storage/storageAccounts/storage1"
ENCRYPTION = {"keySource": "Microsoft.KeyVault", "keyVaultProperties": {"keyIdentifier": "@key@"}}
OWN_IDENTITY = {"type": "SystemAssigned"}
OTHER_IDENTITY = {"type": "UserAssigned", "userAssignedIdentities": {"@identity@": {}}}
POLICY = {"tenantId": "@tenant@", "objectId": "@operator@", "permissions": {"keys": ["get", "wrapKey"], "secrets": []}}
NETWORK = {
    "bypass": "AzureServices",
    "defaultAction": "Deny",
    "ipRules": [{"value": "127.0.0.1"}],
    "virtualNetworkRules": [{"id": f"/{GROUP}/x"}],
}
VAULT = {"tenantId": "@tenant@", "sku": {"family": "A", "name": "premium"}, "enableRbacAuthorization": True}
ATTRIBUTES = {"enabled": True, "nbf": 1, "exp": 4102444800}
CURVE_JWK = {"kty": "EC", "crv": "P-256", "x": "@x@", "y": "@y@", "d": "@d@", "key_ops": ["sign", "verify"]}
RSA_JWK = {"kty": "RSA", **{name: f"@rsa-{name}@" for name in ("n", "e", "d", "p", "q", "dp", "dq", "qi")}}
ROTATE = {"trigger": {"timeAfterCreate": "P90D"}, "action": {"type": "Rotate"}}
# Valid bodies, by the method and the end of the route that accepts them.
BODIES: dict[str, tuple[Any, ...]] = {
    "PUT /subscriptions/{subscription}/resourceGroups/{group}": ({"location": "westeurope", "tags": {"a": "b"}},),
    "PATCH /subscriptions/{subscription}/resourceGroups/{group}": ({"tags": {"a": "b"}},),
    "PUT /batchAccounts/{account}": (
        {"location": "westeurope", "identity": OWN_IDENTITY, "tags": {"a": "b"}},
        {"location": "westeurope", "identity": OTHER_IDENTITY, "properties": {"encryption": ENCRYPTION}},
        {
            "location": "West Europe",
            "properties": {
                "poolAllocationMode": "UserSubscription",
                "keyVaultReference": {"id": f"/{GROUP}/providers/Microsoft.KeyVault/vaults/x", "url": "https://x"},
                "publicNetworkAccess": "Disabled",
                "allowedAuthenticationModes": ["AAD"],
            },
        },
    ),
    "PATCH /batchAccounts/{account}": (
        {"properties": {"encryption": ENCRYPTION}},
        {"properties": {"encryption": {"keySource": "Microsoft.Batch"}}, "identity": {"type": "None"}},
        {
            "tags": {"a": "b"},
            "identity": OTHER_IDENTITY,
            "properties": {
                "autoStorage": {"storageAccountId": STORAGE_ID, "nodeIdentityReference": {"resourceId": "@identity@"}},
                "networkProfile": {"accountAccess": {"defaultAction": "Deny", "ipRules": []}},
            },
        },
    ),
    "POST /regenerateKeys": ({"keyName": "Primary"},),
    "POST /providers/Microsoft.Batch/locations/{location}/checkNameAvailability": (
        {"name": "account9", "type": "Microsoft.Batch/batchAccounts"},
    ),
    "PUT /pools/{name}": ({"properties": {"vmSize": "a"}, "identity": OTHER_IDENTITY},),
    "PUT /Microsoft.KeyVault/vaults/{vault}": (
        {"location": "westeurope", "properties": {**VAULT, "softDeleteRetentionInDays": 7}, "tags": {"a": "b"}},
        {"location": "westeurope", "properties": {**VAULT, "accessPolicies": [POLICY], "networkAcls": NETWORK}},
        {"location": "westeurope", "properties": {**VAULT, "createMode": "recover"}, "tags": {"a": "b"}},
    ),
    "PATCH /vaults/{vault}": (
        {"properties": {"enablePurgeProtection": True, "networkAcls": NETWORK}, "tags": {"a": "b"}},
        {"properties": {"accessPolicies": [POLICY], "enabledForDeployment": True, "publicNetworkAccess": "Enabled"}},
    ),
    "PUT /accessPolicies/{operation}": ({"properties": {"accessPolicies": [POLICY]}},),
    "POST /Microsoft.KeyVault/checkNameAvailability": ({"name": "vault-x", "type": "Microsoft.KeyVault/vaults"},),
    "PUT /roleAssignments/{name}": (
        {
            "properties": {
                "roleDefinitionId": f"{ROLE_ID}{ENCRYPTION_USER}",
                "principalId": "@stranger@",
                "principalType": "ServicePrincipal",
                "description": "a",
            }
        },
    ),
    "PUT /roleDefinitions/{name}": (
        {
            "properties": {
                "roleName": "Mine",
                "description": "a",
                "assignableScopes": [f"/{SUBSCRIPTION}"],
                "permissions": [{"actions": ["*/read"], "notActions": [], "dataActions": [], "notDataActions": []}],
            }
        },
    ),
    "PUT /userAssignedIdentities/{identity}": (
        {"location": "westeurope", "tags": {"a": "b"}, "properties": {"isolationScope": "None"}},
    ),
    "PATCH /userAssignedIdentities/{identity}": ({"tags": {"a": "b"}},),
    "POST /keys/{key}/create": (
        {"kty": "EC", "crv": "P-256", "key_ops": ["sign"], "attributes": ATTRIBUTES, "tags": {"a": "b"}},
        {"kty": "EC-HSM", "crv": "P-384", "attributes": {"exportable": False}, "release_policy": {"data": "a"}},
        {"kty": "RSA", "key_size": 2048, "public_exponent": 65537, "key_ops": ["wrapKey", "unwrapKey"]},
    ),
    "PUT /keys/{key}": (
        {"key": CURVE_JWK, "attributes": ATTRIBUTES, "tags": {"a": "b"}},
        {"key": RSA_JWK, "Hsm": False},
    ),
    "PATCH /keys/{key}": ({"attributes": ATTRIBUTES, "key_ops": ["sign"], "tags": {"a": "b"}},),
    "PATCH /keys/{key}/": ({"attributes": {"enabled": False}},),
    "PATCH /keys/{key}/{version}": ({"attributes": {**ATTRIBUTES, "enabled": False}, "key_ops": ["wrapKey"]},),
    "PUT /rotationpolicy": (
        {
            "lifetimeActions": [ROTATE, {"trigger": {"timeBeforeExpiry": "P30D"}, "action": {"type": "Notify"}}],
            "attributes": {"expiryTime": "P2Y"},
        },
    ),
    "POST /keys/restore": ({"value": "@backup@"},),
    **{f"POST /{name}": ({"alg": "RSA-OAEP", "value": "YWJj"},) for name in ("encrypt", "wrapkey")},
    **{f"POST /{name}": ({"alg": "RSA-OAEP", "value": "@wrapped@"},) for name in ("decrypt", "unwrapkey")},
    "POST /sign": ({"alg": "RS256", "value": "@digest@"}, {"alg": "ES256", "value": "@digest@"}),
    "POST /verify": tuple({"alg": name, "digest": "@digest@", "value": "@signature@"} for name in ("PS256", "ES256")),
    "POST /providers/Microsoft.ResourceGraph/resources": (
        {"query": "resources | project id", "subscriptions": ["@subscription@"]},
        {
            "query": "where properties contains 'a' or not(type =~ 'b') | order by id asc",
            "managementGroups": ["@tenant@"],
            "options": {"$top": 1},
        },
    ),
    "POST /other-resources": ({"id": STORAGE_ID, "location": "westeurope", "properties": {"encryption": {}}},),
    "POST /clock/advance": ({"seconds": 60},),
    "PATCH /behavior": ({"subscription_list": "denied"},),
    "PATCH /timing": ({"batch_create": 3, "throttling": True, "role_propagation": 0.5, "retry_after": 2},),
    "POST /faults": (
        {
            "match": {"method": "PATCH", "host": "management", "path": "batchAccounts"},
            "skip": 1,
            "times": 2,
            "answer": {"status": 500, "headers": {"Retry-After": "2"}, "body": {"error": {"code": "X"}}},
        },
        {"match": {"path": "/nothing"}, "drop": "after", "handled": True, "times": None},
    ),
    "POST /subscriptions": ({"name": "other", "object_id": "@operator@"},),
    "POST /principals": (
        {
            "name": "somebody",
            "secret_lifetime": 3600,
            "token_lifetime": 3600,
            "roles": [{"role": "Reader", "scope": f"/{SUBSCRIPTION}"}],
        },
        {"name": "somebody", "certificate": ""},
    ),
    "POST /federated-token": ({"object_id": "@operator@"},),
}

# The key that signs assertions. Its parts are also used as a key to import.
SIGNER = rsa.generate_private_key(65537, 2048)

VERSIONS = {
    "Microsoft.Batch": VERSION,
    "Microsoft.KeyVault": NEW,
    "Microsoft.ManagedIdentity": "2023-01-31",
    "Microsoft.Authorization": "2022-04-01",
    "Microsoft.ResourceGraph": "2024-04-01",
}


@dataclass(frozen=True)
class Plane:
    """The routes of a host, and the token that they accept."""

    url: str
    routes: tuple[Route, ...]
    version: Callable[[Route], str]
    token: str = ""

    def documents(self, route: Route) -> tuple[Any, ...]:
        """The valid bodies of the route, by its method and the end of its path."""
        for place, bodies in BODIES.items():
            method, _, end = place.partition(" ")
            if route.method == method and route.path.endswith(end):
                return bodies
        return ()


def management_version(route: Route) -> str:
    return next((version for name, version in VERSIONS.items() if f"/{name}/" in route.path), "2022-09-01")


PLANES = {
    "management": Plane(
        "https://management.azure.com",
        (
            *resource_manager.PUBLIC_ROUTES,
            *(
                route
                for module in (
                    resource_manager,
                    batch_routes,
                    key_vault,
                    authorization,
                    managed_identity,
                    resource_graph,
                )
                for route in module.ROUTES
            ),
        ),
        management_version,
        "@arm-token@",
    ),
    "vault": Plane(
        "https://vault-one.vault.azure.net", key_vault_keys.ROUTES, lambda _: key_documents.NEWEST, "@vault-token@"
    ),
    "control": Plane(
        "http://127.0.0.1:@port@",
        tuple(Route(method, path, lambda call: None) for method, path, _ in control_routes._TABLE),  # type: ignore[arg-type,return-value]
        lambda _: "",
    ),
}


def furnished(server: Server, sandbox: Sandbox) -> dict[str, str]:
    """Create a resource of each kind, and return the values that replace `@name@`."""
    control = sandbox.control
    operator = server.world.operator
    for role in ("Owner", "Key Vault Administrator"):
        server.world.authorization.assign("/", role, operator.object_id)
    identity = user_assigned_identity(sandbox)
    make_vault(sandbox, "vault-one", enablePurgeProtection=True, sku={"family": "A", "name": "premium"})
    policies = [policy(sandbox, operator.object_id, "all", "purge")]
    make_vault(sandbox, "vault-two", enableRbacAuthorization=False, accessPolicies=policies)
    make_vault(sandbox, "vault-gone")
    assert sandbox.arm("DELETE", vault_path(sandbox, "vault-gone"), NEW).ok
    key = make_key(sandbox, "key1")
    curve = make_key(sandbox, "curve", kty="EC", crv="P-256")
    for vault in ("vault-one", "vault-two"):
        assert data(sandbox, "POST", "/keys/gone/create", {"kty": "EC"}, vault=vault).ok
        assert data(sandbox, "DELETE", "/keys/gone", vault=vault).ok
    assert data(sandbox, "POST", "/keys/curve/create", {"kty": "EC"}, vault="vault-two").ok
    account = create(sandbox, "account1", identity=OWN_IDENTITY)
    where = vault_path(sandbox, "vault-one")
    assert assign(sandbox, where, ENCRYPTION_USER, account["identity"]["principalId"], GUID).ok
    assert assign(sandbox, where, ENCRYPTION_USER, identity["properties"]["principalId"], OTHER_GUID).ok
    encryption = {"keySource": "Microsoft.KeyVault", "keyVaultProperties": {"keyIdentifier": key["key"]["kid"]}}
    assert batch(sandbox, "PATCH", "account1", {"properties": {"encryption": encryption}}).ok
    create(sandbox, "account2", identity={"type": "UserAssigned", "userAssignedIdentities": {identity["id"]: {}}})
    assert batch(sandbox, "PUT", "account2", {"properties": {"vmSize": "a"}}, "/pools/pool1").ok
    stranger = control.principal("stranger")
    vault_token = sandbox.token(VAULT_SCOPE)
    wrapped = data(sandbox, "POST", "/keys/key1/wrapkey", {"alg": "RSA-OAEP", "value": "YWJj"}).json()["value"]
    digest = "A" * 43
    signed = data(sandbox, "POST", "/keys/curve/sign", {"alg": "ES256", "value": digest}).json()["value"]
    for path in ("key1", "backed-up"):
        assert data(sandbox, "POST", f"/keys/{path}/create", {"kty": "EC"}, vault="vault-two").ok
    backup = data(sandbox, "POST", "/keys/backed-up/backup", vault="vault-two").json()["value"]
    return {
        "port": sandbox.url.rpartition(":")[2],
        "subscription": sandbox.subscription_id,
        "tenant": sandbox.tenant_id,
        "client": sandbox.client_id,
        "secret": sandbox.secret,
        "operator": operator.object_id,
        "stranger": stranger["object_id"],
        "arm-token": sandbox.token(),
        "vault-token": vault_token,
        "stranger-token": sandbox.token(client_id=stranger["client_id"], secret=stranger["secret"]),
        "identity": identity["id"],
        "key": key["key"]["kid"],
        "version": version_of(key),
        "curve-version": version_of(curve),
        "wrapped": wrapped,
        "digest": digest,
        "signature": signed,
        "backup": backup,
        **key_parts(),
    }


def key_parts() -> dict[str, str]:
    """The parts of keys to import, by their names in a JSON Web Key."""
    curve = ec.generate_private_key(ec.SECP256R1()).private_numbers()
    numbers = SIGNER.private_numbers()
    numbered = {"x": curve.public_numbers.x, "y": curve.public_numbers.y, "d": curve.private_value}
    public = {"rsa-n": numbers.public_numbers.n, "rsa-e": numbers.public_numbers.e, "rsa-d": numbers.d}
    primes = {"rsa-p": numbers.p, "rsa-q": numbers.q}
    rest = {"rsa-dp": numbers.dmp1, "rsa-dq": numbers.dmq1, "rsa-qi": numbers.iqmp}
    return {
        name: base64url(number.to_bytes((number.bit_length() + 7) // 8, "big"))
        for name, number in {**numbered, **public, **primes, **rest}.items()
    }
