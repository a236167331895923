# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs keep the settings and permissions of others. The tests compare whole resources before and after a
run."""

from __future__ import annotations

import copy
from typing import Any

from harness import Ansible, Run, task
from service import GROUP, NEEDED, OFFICER, Service

SOMEBODY = "5b0d1f0e-9c55-4b07-8d0f-1b8a2b7f6a01"
APPLICATION = "7c6a3f0c-2f3e-4f0b-9c11-6f0d5b9d2a02"
TAGS = {"owner": "somebody", "Cost-Center": "42"}


def steady(document: dict[str, Any]) -> dict[str, Any]:
    """A copy that can be compared: without `systemData`, and with sorted access policies."""
    left = copy.deepcopy(document)
    left.get("systemData", {}).clear()
    for policy in left["properties"].get("accessPolicies", []):
        for kind in policy["permissions"].values():
            kind.sort()
    left["properties"].get("accessPolicies", []).sort(key=lambda p: (p["objectId"], p.get("applicationId", "")))
    return left


def with_policy(vault: dict[str, Any], policy: dict[str, Any] | None, principal: str) -> dict[str, Any]:
    """The vault with `policy` as the principal's access policy, or without an access policy for it if that is None."""
    wanted = copy.deepcopy(vault)
    policies = wanted["properties"]["accessPolicies"]
    policies[:] = [p for p in policies if p["objectId"] != principal or p.get("applicationId")]
    policies += [policy] if policy else []
    return steady(wanted)


def crowded_vault(service: Service, *policies: dict[str, Any], **properties: Any) -> dict[str, Any]:
    everything = {
        "keys": ["get", "list", "sign"],
        "secrets": ["get", "list"],
        "certificates": ["get"],
        "storage": ["get", "list"],
    }
    return service.make_vault(
        tags=TAGS,
        properties={
            "accessPolicies": [
                service.policy(service.operator, *OFFICER, permissions={"secrets": ["get", "set"]}),
                service.policy(SOMEBODY, permissions=everything),
                *policies,
            ],
            "enabledForDeployment": True,
            "enabledForDiskEncryption": True,
            "enabledForTemplateDeployment": True,
            "softDeleteRetentionInDays": 30,
            "networkAcls": {
                "bypass": "AzureServices",
                "defaultAction": "Allow",
                "ipRules": [{"value": "203.0.113.0/24"}],
                "virtualNetworkRules": [],
            },
            **properties,
        },
    )


def test_access(ansible: Ansible, service: Service, way: str) -> None:
    """A principal keeps its other permissions on keys, its permissions on secrets, and its access policy for an
    application."""
    principal = service.make_identity()["properties"]["principalId"]
    own = service.policy(principal, "list", "get", permissions={"secrets": ["get", "list"]})
    through = service.policy(principal, "sign", applicationId=APPLICATION)
    before = crowded_vault(service, through, own)

    def access(title: str, **options: Any) -> Run:
        requested = {"vault_name": "vault-one", "principal_id": principal, "vault_resource_group": GROUP}
        return ansible.play([task(title, "keyvault_cmk_access", **requested, **options)], way=way)

    done = access("grant")["grant"]
    assert done["changed"] is True
    # The whole access policy is sent, because only one recording shows whether Azure adds to a policy or replaces it.
    (sent,) = [write["body"]["properties"]["accessPolicies"] for write in done.writes]
    assert [policy["objectId"] for policy in sent] == [principal]
    assert set(sent[0]["permissions"]["keys"]) == {"list", *NEEDED}
    assert set(sent[0]["permissions"]["secrets"]) == {"get", "list"}
    granted = service.policy(principal, "get", "list", "unwrapKey", "wrapKey", permissions={"secrets": ["get", "list"]})
    assert steady(service.vault()) == with_policy(before, granted, principal)

    assert access("revocation", state="absent")["revocation"]["changed"] is True
    left = service.policy(principal, "list", permissions={"secrets": ["get", "list"]})
    assert steady(service.vault()) == with_policy(before, left, principal)


def crowded_account(service: Service, **body: Any) -> dict[str, Any]:
    return service.make_account(
        tags=TAGS,
        **body,
        properties={
            "publicNetworkAccess": "Disabled",
            "allowedAuthenticationModes": ["AAD", "TaskAuthenticationToken"],
        },
    )


def test_account(ansible: Ansible, service: Service, way: str) -> None:
    """An account gets an identity, a pinned key, the key without a version, and a Microsoft-managed key. It keeps all
    other properties."""
    before = crowded_account(service, identity={"type": "None"})
    assert before["properties"]["publicNetworkAccess"] == "Disabled"
    assert before["properties"]["allowedAuthenticationModes"] == ["AAD", "TaskAuthenticationToken"]
    assert before["tags"] == TAGS
    run = ansible.play(
        [
            task(
                "identity",
                "batch_account_identity",
                resource_group=GROUP,
                name="account1",
                allowed_repairs=["identity"],
            )
        ],
        way=way,
    )
    wanted = {**copy.deepcopy(before), "identity": service.account()["identity"]}
    assert wanted["identity"]["type"] == "SystemAssigned"
    assert service.account() == wanted
    assert run["identity"]["tags"] == TAGS

    vault = crowded_vault(service)
    principal = wanted["identity"]["principalId"]
    service.grant(principal)
    vault, key = service.vault(), service.make_key()
    account = {"resource_group": GROUP, "account_name": "account1"}
    followed = key.id.rpartition("/")[0]
    for identifier, mode in ((key.id, "pin"), (followed, "follow")):
        to = {"key_source": "microsoft_keyvault", "key_identifier": identifier, "version_mode": mode}
        run = ansible.play([task("to a key", "batch_encryption", **account, **to)], way=way)
        assert run["to a key"]["changed"] is True
        wanted["properties"]["encryption"] = {
            "keySource": "Microsoft.KeyVault",
            "keyVaultProperties": {"keyIdentifier": identifier},
        }
        assert service.account() == wanted
    run = ansible.play([task("back", "batch_encryption", **account, key_source="microsoft_batch")], way=way)
    assert run["back"]["changed"] is True
    assert service.account() == {**before, "identity": wanted["identity"]}
    # None of the tasks changed the vault or the key.
    assert service.vault() == vault
    assert service.key().properties.updated_on == key.properties.updated_on


def test_key(ansible: Ansible, service: Service, way: str) -> None:
    """A key keeps its tags, its operations and the notifications of its rotation policy. Other keys are not changed."""
    from azure.keyvault.keys import KeyRotationLifetimeAction, KeyRotationPolicy

    crowded_vault(service)
    made = service.make_key(tags=TAGS, key_operations=["sign", "wrapKey"])
    other = service.make_key("other")
    notify = KeyRotationLifetimeAction("Notify", time_before_expiry="P30D")
    service.keys().update_key_rotation_policy("key1", KeyRotationPolicy(lifetime_actions=[notify], expires_in="P1Y"))
    vault = service.vault()
    run = ansible.play(
        [
            task(
                "key",
                "keyvault_cmk_key",
                vault_name="vault-one",
                name="key1",
                expires_in="P90D",
                rotation_policy={"expiry_time": "P1Y", "time_after_create": "P60D"},
            )
        ],
        way=way,
    )
    assert run["key"]["changed"] is True
    after = service.key()
    assert after.id == made.id
    assert after.properties.tags == TAGS
    assert after.properties.enabled
    assert after.key_operations == ["sign", "wrapKey", "unwrapKey"]
    assert after.properties.not_before == made.properties.not_before
    policy = service.keys().get_key_rotation_policy("key1")
    by_action = {str(a.action).rpartition(".")[2].lower(): a for a in policy.lifetime_actions}
    assert by_action["notify"].time_before_expiry == "P30D"
    assert by_action["rotate"].time_after_create == "P60D"
    assert service.key("other").properties.updated_on == other.properties.updated_on
    assert service.vault() == vault
