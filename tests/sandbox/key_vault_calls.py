# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Helpers of the tests of Key Vault and of role assignments."""

from __future__ import annotations

from typing import Any

import requests
from sandbox_client import VAULT_SCOPE, Control, Sandbox

# The last version whose new vaults use access policies by default, and the newest version.
OLD = "2023-07-01"
NEW = "2026-05-15"
DATA = "2025-07-01"
ROLES = "2022-04-01"
DAY = 86400

ENCRYPTION_USER = "e147488a-f6f5-4113-8e2d-b22465e65bf6"
CRYPTO_OFFICER = "14b46e9e-c2b7-41b4-b07b-48a6ebf60603"


def vault_path(sandbox: Sandbox, name: str = "Vault-One") -> str:
    return f"{sandbox.group}/providers/Microsoft.KeyVault/vaults/{name}"


def vault_body(sandbox: Sandbox, tags: dict[str, str] | None = None, **properties: Any) -> dict[str, Any]:
    wanted = {"tenantId": sandbox.tenant_id, "sku": {"family": "A", "name": "standard"}, **properties}
    return {"location": "westeurope", "properties": wanted, **({"tags": tags} if tags else {})}


def put_vault(sandbox: Sandbox, name: str = "Vault-One", version: str = NEW, **properties: Any) -> requests.Response:
    return sandbox.arm("PUT", vault_path(sandbox, name), version, vault_body(sandbox, **properties))


def make_vault(sandbox: Sandbox, name: str = "Vault-One", version: str = NEW, **properties: Any) -> dict[str, Any]:
    """Create a vault, and return it as a GET shows it."""
    response = put_vault(sandbox, name, version, **properties)
    assert response.status_code == 200, response.text
    return read_vault(sandbox, name)


def read_vault(sandbox: Sandbox, name: str = "Vault-One", version: str = NEW) -> dict[str, Any]:
    response = sandbox.arm("GET", vault_path(sandbox, name), version)
    assert response.status_code == 200, response.text
    vault: dict[str, Any] = response.json()
    return vault


def policy(sandbox: Sandbox, object_id: str, *keys: str) -> dict[str, Any]:
    return {"tenantId": sandbox.tenant_id, "objectId": object_id, "permissions": {"keys": [*keys]}}


def data(
    sandbox: Sandbox,
    method: str,
    path: str,
    body: Any = None,
    *,
    vault: str = "vault-one",
    version: str = DATA,
    who: dict[str, Any] | None = None,
) -> requests.Response:
    """Send a request to the data plane, as the operator or as a principal (`who`) that the control API created."""
    other = {"client_id": who["client_id"], "secret": who["secret"]} if who else {}
    session = sandbox.bearer(VAULT_SCOPE, **other)
    separator = "&" if "?" in path else "?"
    url = f"https://{vault}.vault.azure.net{path}{separator}api-version={version}"
    return session.request(method, url, json=body, timeout=30)


def make_key(sandbox: Sandbox, name: str = "key1", **settings: Any) -> dict[str, Any]:
    response = data(sandbox, "POST", f"/keys/{name}/create", {"kty": "RSA", **settings})
    assert response.status_code == 200, response.text
    bundle: dict[str, Any] = response.json()
    return bundle


def version_of(bundle: dict[str, Any]) -> str:
    return str(bundle["key"]["kid"]).rpartition("/")[2]


def error(response: requests.Response) -> tuple[int, str, str]:
    """The status, the code and the inner code of an error response."""
    found = response.json()["error"]
    return response.status_code, found["code"], found.get("innererror", {}).get("code", "")


def message(response: requests.Response) -> str:
    return str(response.json()["error"]["message"])


def assign(
    sandbox: Sandbox, scope: str, role: str, principal_id: str, guid: str = "11111111-0000-4000-8000-000000000001"
) -> requests.Response:
    properties = {
        "roleDefinitionId": f"{sandbox.subscription}/providers/Microsoft.Authorization/roleDefinitions/{role}",
        "principalId": principal_id,
        "principalType": "ServicePrincipal",
    }
    path = f"{scope}/providers/Microsoft.Authorization/roleAssignments/{guid}"
    return sandbox.arm("PUT", path, ROLES, {"properties": properties})


def somebody(control: Control, **settings: Any) -> dict[str, Any]:
    return control.principal("somebody", **settings)
