# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Vaults on the management plane, and their firewall."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
import requests
from key_vault_calls import (
    NEW,
    OLD,
    data,
    error,
    make_vault,
    message,
    policy,
    put_vault,
    read_vault,
    vault_body,
    vault_path,
)
from sandbox_client import Control, Sandbox

GROUP = "rg-sandbox"


def delete(sandbox: Sandbox, name: str = "Vault-One") -> None:
    assert sandbox.arm("DELETE", vault_path(sandbox, name), NEW).status_code == 200


# Versions of the API


def test_older_versions_are_refused_after_their_retirement(sandbox: Sandbox, control: Control) -> None:
    """The retirement is on 27 February 2027, by the sandbox's clock."""
    control.behavior(retired_versions="refused")
    day = datetime(2027, 2, 27, tzinfo=UTC).timestamp()
    left = day - control.call("GET", "/clock")["time"]
    assert sandbox.arm("PUT", vault_path(sandbox), OLD, vault_body(sandbox, accessPolicies=[])).ok is (left > 0)
    control.advance(max(0, left))
    assert sandbox.arm("PUT", vault_path(sandbox), "2026-02-01", vault_body(sandbox, accessPolicies=[])).ok
    for version in (OLD, "2025-05-01"):
        answer = sandbox.arm("GET", vault_path(sandbox), version)
        assert error(answer)[:2] == (400, "NoRegisteredProviderFound")
        assert "'2026-02-01, 2026-05-15'" in message(answer)
    control.behavior(retired_versions="taken")
    assert sandbox.arm("GET", vault_path(sandbox), OLD).ok


# The bytes


def test_the_name_of_a_new_vault_resolves_after_a_delay(sandbox: Sandbox, control: Control) -> None:
    control.behavior(vault_name_delay="10")
    make_vault(sandbox)
    assert read_vault(sandbox)["properties"]["provisioningState"] == "Succeeded"
    with pytest.raises(requests.exceptions.ProxyError, match="502"):
        data(sandbox, "GET", "/keys")
    control.advance(11)
    assert data(sandbox, "GET", "/keys").status_code == 200


# Changing


def test_a_put_replaces(sandbox: Sandbox) -> None:
    deny = {"defaultAction": "Deny"}
    make_vault(sandbox, tags={"a": "1"}, enablePurgeProtection=True, networkAcls=deny, enabledForDiskEncryption=True)
    put_vault(sandbox)
    vault = read_vault(sandbox)
    assert vault["tags"] == {}
    assert "networkAcls" not in vault["properties"]
    assert "enabledForDiskEncryption" not in vault["properties"]
    # Purge protection cannot be disabled.
    assert vault["properties"]["enablePurgeProtection"] is True


def test_a_patch_merges(sandbox: Sandbox) -> None:
    before = make_vault(sandbox, tags={"a": "1"}, networkAcls={"defaultAction": "Deny"}, softDeleteRetentionInDays=7)
    nothing = sandbox.arm("PATCH", vault_path(sandbox), NEW, {}).json()
    assert nothing["properties"] == before["properties"]
    assert nothing["systemData"]["lastModifiedAt"] >= before["systemData"]["lastModifiedAt"]
    requested = {"enablePurgeProtection": True, "enabledForDeployment": True, "enableRbacAuthorization": None}
    after = sandbox.arm("PATCH", vault_path(sandbox), NEW, {"properties": requested}).json()
    assert after["tags"] == {"a": "1"}
    assert after["properties"] == {
        **before["properties"],
        "enablePurgeProtection": True,
        "enabledForDeployment": True,
    }
    for requested in ({"enablePurgeProtection": False}, {"softDeleteRetentionInDays": 8}):
        assert sandbox.arm("PATCH", vault_path(sandbox), NEW, {"properties": requested}).status_code == 400
    assert sandbox.arm("PATCH", vault_path(sandbox, "vault-two"), NEW, {}).status_code == 404


def test_access_policies_are_added_and_removed(sandbox: Sandbox) -> None:
    mine, theirs = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
    make_vault(sandbox, version=OLD, accessPolicies=[policy(sandbox, theirs, "list")])

    def change(operation: str, *policies: dict[str, Any]) -> dict[str, Any]:
        body = {"properties": {"accessPolicies": [*policies]}}
        response = sandbox.arm("PUT", f"{vault_path(sandbox)}/accessPolicies/{operation}", OLD, body)
        assert response.status_code == 200, response.text
        document: dict[str, Any] = response.json()
        assert list(document) == ["id", "type", "properties"]
        return document

    def now() -> dict[str, list[str]]:
        policies = read_vault(sandbox, version=OLD)["properties"]["accessPolicies"]
        return {entry["objectId"]: entry["permissions"].get("keys", []) for entry in policies}

    change("add", policy(sandbox, mine, "get"))
    merged = change("add", policy(sandbox, mine, "wrapKey", "GET"))
    assert merged["properties"]["accessPolicies"] == [policy(sandbox, mine, "get", "wrapKey")]
    assert now() == {theirs: ["list"], mine: ["get", "wrapKey"]}
    change("remove", policy(sandbox, mine, "get"))
    assert now() == {theirs: ["list"], mine: ["wrapKey"]}
    change("replace", policy(sandbox, mine, "sign"))
    assert now() == {theirs: ["list"], mine: ["sign"]}
    # With an applicationId, it is a separate entry.
    change("add", {**policy(sandbox, mine, "verify"), "applicationId": theirs})
    assert len(read_vault(sandbox, version=OLD)["properties"]["accessPolicies"]) == 3
    change("remove", policy(sandbox, mine, "sign"), policy(sandbox, theirs, "list"))
    assert now() == {mine: ["verify"]}
    wrong = {"properties": {"accessPolicies": [policy(sandbox, mine, "dance")]}}
    assert sandbox.arm("PUT", f"{vault_path(sandbox)}/accessPolicies/add", OLD, wrong).status_code == 400
    assert sandbox.arm("PUT", f"{vault_path(sandbox)}/accessPolicies/repair", OLD, wrong).status_code == 400


# Access to the data plane


def test_the_firewall(sandbox: Sandbox) -> None:
    make_vault(sandbox, networkAcls={"defaultAction": "Deny"})
    response = data(sandbox, "GET", "/keys")
    assert error(response) == (403, "Forbidden", "ForbiddenByFirewall")
    assert re.fullmatch(
        r"Client address is not authorized and caller is not a trusted service\.\r\nClient address: 127\.0\.0\.1\r\n"
        rf"Caller: appid={sandbox.client_id};oid=[0-9a-f-]+;iss=https://sts\.windows\.net/{sandbox.tenant_id}/\r\n"
        r"Vault: Vault-One;location=westeurope",
        message(response),
    )
    rules = {"defaultAction": "Deny", "ipRules": [{"value": "127.0.0.0/24"}]}
    sandbox.arm("PATCH", vault_path(sandbox), NEW, {"properties": {"networkAcls": rules}})
    assert data(sandbox, "GET", "/keys").status_code == 200
