#!/usr/bin/python
# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: keyvault_cmk_vault
short_description: Manage a key vault for the keys of Batch accounts
description:
  - Ensures that a key vault exists with soft delete and purge protection. Batch requires both for the vault of a
    customer-managed key.
  - B(Purge protection cannot be disabled.) The module enables purge protection on an existing vault permanently.
  - Access policies, tags and network rules of an existing vault are not changed.
version_added: 1.0.0
author:
  - The azbatch.cmk authors (@azbatch)
options:
  resource_group:
    description: Name of the vault's resource group, which must exist.
    type: str
    required: true
  name:
    description: Name of the vault. The names of vaults are unique in all of Azure.
    type: str
    required: true
  location:
    description:
      - Region of a new vault. The default is that of its resource group.
      - The region of an existing vault is not changed.
    type: str
  authorization:
    description:
      - Permission model of the vault, V(rbac) for Azure RBAC or V(access_policy) for access policies.
      - The default of a new vault is V(rbac). If an existing vault has another permission model, the module fails,
        because a change would revoke the access of all principals.
      - In a new vault with V(access_policy), the caller gets the key permissions that the modules of this collection
        need, because no other principal could grant them.
      - With V(rbac), the caller needs the role C(Key Vault Crypto Officer) at the vault or above to manage keys.
    type: str
    choices: [rbac, access_policy]
  sku:
    description:
      - SKU of a new vault. Keys of the type V(RSA-HSM) require V(premium).
      - The default is V(standard), or V(premium) if O(key_type=RSA-HSM).
    type: str
    choices: [standard, premium]
  key_type:
    description:
      - Type of the key that the vault is for.
      - With V(RSA-HSM), an existing vault of another SKU than V(premium) is refused, because it cannot have such a key.
    type: str
    choices: [RSA, RSA-HSM]
  retention_days:
    description: Retention period of a new vault for deleted objects, 7 to 90 days. It cannot be changed later.
    type: int
    default: 90
  tags:
    description: Tags of a new vault. The tags of an existing vault are not changed.
    type: dict
  public_network_access:
    description:
      - Public network access of a new vault. The network rules of an existing vault are not changed.
      - With V(disabled), a new vault accepts only trusted Microsoft services, such as Batch, and private endpoints.
        This module does not need a private endpoint. A caller without a private endpoint of the vault can neither read
        nor change its keys, so M(azbatch.cmk.keyvault_cmk_key) fails, and other modules cannot check the keys.
    type: str
    default: enabled
    choices: [enabled, disabled]
  allowed_repairs:
    description:
      - What the module may repair. V(vault) recovers a deleted vault of this name with its keys. By default, a deleted
        vault is refused.
      - V(network) allows trusted Microsoft services, such as Batch, in the firewall of an existing vault. Its other
        network rules are not changed. A new vault always allows these services.
      - The other values are repairs of other modules and have no effect here.
    type: list
    elements: str
    choices: [vault, network, key, access, other_versions, identity]
extends_documentation_fragment:
  - azbatch.cmk.azure
  - azbatch.cmk.azure.sign_in
  - azbatch.cmk.attributes
seealso:
  - module: azbatch.cmk.keyvault_cmk_access
  - module: azbatch.cmk.keyvault_cmk_key
"""

EXAMPLES = r"""
- name: Create a vault that uses Azure RBAC
  azbatch.cmk.keyvault_cmk_vault:
    resource_group: rg-keys
    name: myvault
    authorization: rbac

- name: Create a vault that uses access policies and keeps deleted objects for 30 days
  azbatch.cmk.keyvault_cmk_vault:
    resource_group: rg-keys
    name: myvault
    authorization: access_policy
    retention_days: 30

- name: Ensure that a vault exists, and recover a deleted vault of the same name
  azbatch.cmk.keyvault_cmk_vault:
    resource_group: rg-keys
    name: myvault
    allowed_repairs: [vault]

- name: Create a vault for keys in an HSM, in another region than its resource group
  azbatch.cmk.keyvault_cmk_vault:
    resource_group: rg-keys
    name: mypremiumvault
    location: northeurope
    key_type: RSA-HSM
    tags:
      cost_center: "4711"

- name: Create a premium vault
  azbatch.cmk.keyvault_cmk_vault:
    resource_group: rg-keys
    name: mypremiumvault
    sku: premium

- name: Allow trusted Microsoft services, such as Batch, in the firewall of a vault
  azbatch.cmk.keyvault_cmk_vault:
    resource_group: rg-keys
    name: myvault
    allowed_repairs: [network]

- name: Create a vault without public network access
  azbatch.cmk.keyvault_cmk_vault:
    resource_group: rg-keys
    name: myvault
    public_network_access: disabled

- name: Create a vault in another subscription, with the managed identity of the machine
  azbatch.cmk.keyvault_cmk_vault:
    resource_group: rg-keys
    name: myvault
    auth_source: msi
    subscription_id: 11111111-2222-3333-4444-555555555555
    cloud_environment: AzureUSGovernment
"""

RETURN = r"""
summary:
  description: One human-readable line about the state of the resource and the changes.
  returned: success
  type: str
  sample: Created the key vault myvault in westeurope with soft delete and purge protection.
exists:
  description: V(true).
  returned: success
  type: bool
  sample: true
id:
  description: Resource id of the vault.
  returned: success
  type: str
  sample: /subscriptions/GUID/resourceGroups/rg-keys/providers/Microsoft.KeyVault/vaults/myvault
name:
  description: Name of the vault.
  returned: success
  type: str
  sample: myvault
location:
  description: Region of the vault.
  returned: success
  type: str
  sample: westeurope
vault_uri:
  description: URL of the vault, without a slash at its end.
  returned: success
  type: str
  sample: https://myvault.vault.azure.net
tenant_id:
  description: Tenant of the vault.
  returned: success
  type: str
  sample: aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee
sku:
  description: V(standard) or V(premium).
  returned: success
  type: str
  sample: standard
authorization:
  description: V(rbac) or V(access_policy).
  returned: success
  type: str
  sample: rbac
soft_delete:
  description: Whether deleted keys can be recovered.
  returned: success
  type: bool
  sample: true
purge_protection:
  description: Whether deleted keys cannot be purged.
  returned: success
  type: bool
  sample: true
retention_days:
  description: Retention period of deleted objects in days.
  returned: success
  type: int
  sample: 90
public_network_access:
  description: V(enabled), V(disabled) or V(secured_by_perimeter).
  returned: success
  type: str
  sample: enabled
trusted_services:
  description: Whether the vault's firewall allows trusted Microsoft services, such as Batch.
  returned: success
  type: bool
  sample: true
tags:
  description: The vault's tags.
  returned: success
  type: dict
  sample: {}
code:
  description: Machine-readable error code. The code is stable across releases; C(docs/errors.md) lists all codes.
  returned: failure
  type: str
  sample: vault_soft_deleted
"""

from collections.abc import Mapping
from typing import Any

from ansible_collections.azbatch.cmk.plugins.module_utils._arguments import ALLOWED_REPAIRS
from ansible_collections.azbatch.cmk.plugins.module_utils._cloud import Cloud
from ansible_collections.azbatch.cmk.plugins.module_utils._core.outcome import Outcome
from ansible_collections.azbatch.cmk.plugins.module_utils._module import execute
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.vault import decide as vault_decide
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.vault import goal as vault_goal

ARGUMENTS: dict[str, dict[str, Any]] = {
    "resource_group": {"type": "str", "required": True},
    "name": {"type": "str", "required": True},
    "location": {"type": "str"},
    "authorization": {"type": "str", "choices": ["rbac", "access_policy"]},
    "sku": {"type": "str", "choices": ["standard", "premium"]},
    # The type of a key is no secret, although Ansible suspects that by the name of the option.
    "key_type": {"type": "str", "choices": ["RSA", "RSA-HSM"], "no_log": False},
    "retention_days": {"type": "int", "default": 90},
    "tags": {"type": "dict"},
    "public_network_access": {"type": "str", "default": "enabled", "choices": ["enabled", "disabled"]},
    **ALLOWED_REPAIRS,
}


def run(params: Mapping[str, Any], cloud: Cloud) -> Outcome:
    goal = vault_goal.desired(params)
    outcome = cloud.changes.ensure(vault_decide.VaultPresent(goal, cloud.facts))
    return outcome.summarized(vault_decide.summary(goal, outcome.before, outcome.after))


def exclusive(params: Mapping[str, Any]) -> str:
    """The name of the vault whose lock a task of the run holds, on whatever host the task runs."""
    return str(params["name"])


def main() -> None:
    execute(ARGUMENTS, run)


if __name__ == "__main__":
    main()
