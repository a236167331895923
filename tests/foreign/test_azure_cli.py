# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The unchanged Azure CLI works against the sandbox: the steps of Microsoft's guide.

A test runs `az` only for the operations that it is about. Other resources are created by plain requests, which take
milliseconds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from azure_cli import Az
from batch_calls import batch, create, read
from key_vault_calls import (
    ENCRYPTION_USER,
    assign,
    make_key,
    make_vault,
    vault_path,
)
from sandbox_client import Control, Sandbox

GROUP = "rg-sandbox"
DEFINITIONS = sorted((Path(__file__).resolve().parents[2] / "examples" / "roles").glob("*.json"))
MICROSOFT = {"keySource": "Microsoft.Batch"}


def operator_id(sandbox: Sandbox) -> str:
    principals = sandbox.control.call("GET", "/principals")["principals"]
    return str(next(one["object_id"] for one in principals if one["client_id"] == sandbox.client_id))


def encryption(sandbox: Sandbox, account: str = "account1") -> Any:
    return read(sandbox, account)["properties"]["encryption"]


def customer(key: str) -> dict[str, Any]:
    return {"keySource": "Microsoft.KeyVault", "keyVaultProperties": {"keyIdentifier": key}}


def on_key(key: str, account: str = "account1", verb: str = "set", group: str = GROUP) -> str:
    """The arguments of `az` that move an account to a key."""
    named = f"batch account {verb} --name {account} --resource-group {group}"
    return f"{named} --encryption-key-source Microsoft.KeyVault --encryption-key-identifier {key}"


def encrypted(sandbox: Sandbox) -> str:
    """Create an account that uses a key of a vault with Azure RBAC. Returns the key's identifier."""
    make_vault(sandbox, enablePurgeProtection=True)
    principal = create(sandbox, identity={"type": "SystemAssigned"})["identity"]["principalId"]
    assign(sandbox, vault_path(sandbox), ENCRYPTION_USER, principal)
    key = str(make_key(sandbox)["key"]["kid"])
    response = batch(sandbox, "PATCH", "account1", {"properties": {"encryption": customer(key)}})
    assert response.status_code == 200, response.text
    return key


# The steps of Microsoft's guide


def test_the_guide_with_access_policies(az: Az, sandbox: Sandbox) -> None:
    place = "--resource-group rg-az"
    assert az("group create --name rg-az --location westeurope")["properties"]["provisioningState"] == "Succeeded"
    flags = "--enable-purge-protection true --enable-rbac-authorization false --no-self-perms true"
    vault = az(f"keyvault create --name az-vault {place} {flags} --retention-days 7")["properties"]
    assert (vault["enablePurgeProtection"], vault["softDeleteRetentionInDays"]) == (True, 7)
    assert (vault["enableRbacAuthorization"], vault["accessPolicies"]) == (False, [])
    az.refused("Forbidden", "keyvault key create --vault-name az-vault --name cmk")
    az(f"keyvault set-policy --name az-vault --object-id {operator_id(sandbox)} --key-permissions all purge")
    key = az("keyvault key create --vault-name az-vault --name cmk --kty RSA --size 3072")["key"]["kid"]

    account = az(f"batch account create --name azaccount {place} --location westeurope --mi-system-assigned true")
    principal = account["identity"]["principalId"]
    assert account["encryption"]["keySource"] == "Microsoft.Batch"
    refusal = az.refused("InvalidKeyVaultProperties", on_key(key, "azaccount", group="rg-az"))
    assert f"'{principal}' does not have the permission(s) get, wrapKey, unwrapKey" in refusal

    grant = f"keyvault set-policy --name az-vault --object-id {principal} --key-permissions get wrapKey unwrapKey"
    holders = [one["objectId"] for one in az(grant)["properties"]["accessPolicies"]]
    assert holders == [operator_id(sandbox), principal]
    assert az(on_key(key, "azaccount", group="rg-az"))["encryption"] == customer(key)
    newer = az("keyvault key rotate --vault-name az-vault --name cmk")["key"]["kid"]
    assert newer != key
    assert az(on_key(newer, "azaccount", group="rg-az"))["encryption"] == customer(newer)
    shown = az(f"batch account show --name azaccount {place}")
    assert (shown["encryption"], shown["identity"]["principalId"]) == (customer(newer), principal)

    az(f"keyvault delete-policy --name az-vault --object-id {principal}")
    az.refused("KeyVaultKeyNotAccessible", f"batch account keys list --name azaccount {place}")
    az(grant)
    back = az(f"batch account set --name azaccount {place} --encryption-key-source Microsoft.Batch")
    assert back["encryption"] == {**MICROSOFT, "keyVaultProperties": None}
    az(f"batch account delete --name azaccount {place} --yes")
    az("group delete --name rg-az --yes")
    assert [one["name"] for one in az("keyvault list-deleted")] == ["az-vault"]


# Unexpected behavior of `az batch`


@pytest.mark.parametrize("file", DEFINITIONS, ids=lambda file: file.stem)
def test_a_role_definition_of_the_examples_is_created(az: Az, sandbox: Sandbox, tmp_path: Path, file: Path) -> None:
    """As docs/credentials.md describes."""
    subscription = sandbox.subscription.removeprefix("/subscriptions/")
    definition = file.read_text(encoding="utf-8").replace("11111111-2222-3333-4444-555555555555", subscription)
    (tmp_path / file.name).write_text(definition, encoding="utf-8")

    created = az(f"role definition create --role-definition @{tmp_path / file.name}")

    [permission] = created["permissions"]
    assert (created["roleName"], created["roleType"]) == (f"azbatch.cmk {file.stem}", "CustomRole")
    assert permission["actions"] == json.loads(definition)["Actions"]
    assert permission["dataActions"] == json.loads(definition)["DataActions"]


def test_az_does_not_send_a_key_identifier_without_a_key_source(az: Az, sandbox: Sandbox, control: Control) -> None:
    key = encrypted(sandbox)
    newer = make_key(sandbox)["key"]["kid"]
    line = f"batch account set --name account1 --resource-group {GROUP} --encryption-key-identifier {newer}"
    assert az(line)["encryption"] == customer(key)
    last = control.requests(writes=True)[-1]
    assert (last["method"], last["body"]) == ("PATCH", {})
    assert encryption(sandbox) == customer(key)


def test_az_identity_assign_enables_public_network_access(az: Az, sandbox: Sandbox) -> None:
    create(sandbox, properties={"publicNetworkAccess": "Disabled"})
    named = f"--name account1 --resource-group {GROUP}"
    assert az(f"batch account identity assign {named} --system-assigned")["type"] == "SystemAssigned"
    assert read(sandbox)["properties"]["publicNetworkAccess"] == "Enabled"
    assert az(f"batch account identity remove {named} --system-assigned --yes")["type"] == "None"
    assert read(sandbox)["identity"] == {"type": "None"}
