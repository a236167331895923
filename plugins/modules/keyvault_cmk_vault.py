#!/usr/bin/python
# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: keyvault_cmk_vault
short_description: Have a key vault fit to hold a Batch account's key
description:
  - Makes sure that a key vault exists with soft delete and purge protection, which Batch demands of the vault of a
    customer-managed key.
  - B(Purge protection cannot be taken back.) An existing vault without it gets it, and keeps it for good.
  - Nothing else of an existing vault is changed; its access policies, tags and network rules stay as they are.
version_added: 0.1.0
author:
  - The azbatch.cmk authors (@azbatch)
options:
  resource_group:
    description: Name of the vault's resource group, which must exist.
    type: str
    required: true
  name:
    description: Name of the vault. Vaults' names are unique in all of Azure.
    type: str
    required: true
  state:
    description:
      - V(present) has the vault, safe from being purged.
      - V(absent) deletes it; Azure keeps it for its retention time. Refused while the key of a Batch account that the
        caller can see lies in it, such an account refers to it because its pools are in the user's subscription
        (C(keyVaultReference)), or one of its pools encrypts its disks with a key of the vault, unless O(force) is set.
    type: str
    default: present
    choices: [present, absent]
  location:
    description:
      - Region of a new vault. The default is that of its resource group.
      - An existing vault stays where it is.
    type: str
  authorization:
    description:
      - By what the vault decides who may use its keys.
      - A new vault is created with V(rbac) where this is left out. An existing vault that differs is refused, because
        a change would take away everybody's access.
      - In a new vault with V(access_policy), the caller gets the key permissions that the modules of this collection
        need, since nobody else could give them. With V(rbac), the caller needs the role C(Key Vault Crypto Officer)
        on the vault or above it to manage keys.
    type: str
    choices: [rbac, access_policy]
  sku:
    description: The kind of a new vault. Keys of type C(RSA-HSM) need V(premium).
    type: str
    default: standard
    choices: [standard, premium]
  retention_days:
    description: For how many days a new vault keeps what was deleted, 7 to 90. It cannot be changed later.
    type: int
    default: 90
  trusted_services:
    description:
      - Let trusted Microsoft services in, which Batch is one of, where the vault's firewall keeps them out. Its other
        network rules stay as they are. A new vault lets them in.
    type: bool
    default: false
  force:
    description: Delete the vault although the key of a Batch account lies in it, or may lie in it because the accounts
      of a subscription could not all be listed.
    type: bool
    default: false
  recover:
    description: Bring back a deleted vault of that name, with the keys in it. Without it, such a vault is refused.
    type: bool
    default: false
extends_documentation_fragment:
  - azbatch.cmk.azure
  - azbatch.cmk.azure.sign_in
  - azbatch.cmk.attributes
seealso:
  - module: azbatch.cmk.keyvault_cmk_access
  - module: azbatch.cmk.keyvault_cmk_key
"""

EXAMPLES = r"""
- name: Have a vault that goes by roles
  azbatch.cmk.keyvault_cmk_vault:
    resource_group: rg-keys
    name: myvault
    authorization: rbac

- name: Have a vault that goes by access policies and keeps what was deleted for 30 days
  azbatch.cmk.keyvault_cmk_vault:
    resource_group: rg-keys
    name: myvault
    authorization: access_policy
    retention_days: 30

- name: Bring a deleted vault back, should there be one
  azbatch.cmk.keyvault_cmk_vault:
    resource_group: rg-keys
    name: myvault
    recover: true
"""

RETURN = r"""
summary:
  description: One line for a person, on the state of the resource and on what was changed.
  returned: success
  type: str
  sample: Created the key vault myvault in westeurope with soft delete and purge protection.
exists:
  description: Whether the vault exists. The values below are there only if it does.
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
  description: Whether deleted keys are safe from being purged.
  returned: success
  type: bool
  sample: true
retention_days:
  description: For how many days the vault keeps what was deleted.
  returned: success
  type: int
  sample: 90
trusted_services:
  description: Whether the vault's firewall lets Azure's services in, Batch among them.
  returned: success
  type: bool
  sample: true
tags:
  description: The vault's tags, which this module leaves as they are.
  returned: success
  type: dict
  sample: {}
accounts:
  description: The Batch accounts that would lose their key or their vault.
  returned: failure with code V(in_use)
  type: list
  elements: str
code:
  description: What went wrong, as a stable word; C(docs/errors.md) lists them.
  returned: failure
  type: str
  sample: vault_soft_deleted
"""

from collections.abc import Mapping
from typing import Any

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.cloud import Cloud
from ansible_collections.azbatch.cmk.plugins.module_utils._core.plan import Outcome
from ansible_collections.azbatch.cmk.plugins.module_utils._core.reconcile import converge
from ansible_collections.azbatch.cmk.plugins.module_utils._module import execute
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.vault import goal as vault_goal
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.vault import plan as vault_plan
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.vault import writes as vault_writes

ARGUMENTS: dict[str, dict[str, Any]] = {
    "resource_group": {"type": "str", "required": True},
    "name": {"type": "str", "required": True},
    "location": {"type": "str"},
    "authorization": {"type": "str", "choices": ["rbac", "access_policy"]},
    "sku": {"type": "str", "default": "standard", "choices": ["standard", "premium"]},
    "retention_days": {"type": "int", "default": 90},
    "recover": {"type": "bool", "default": False},
    "trusted_services": {"type": "bool", "default": False},
    "state": {"type": "str", "default": "present", "choices": ["present", "absent"]},
    "force": {"type": "bool", "default": False},
}


def run(params: Mapping[str, Any], cloud: Cloud) -> Outcome:
    goal = vault_goal.desired(params)
    with cloud.locked(exclusive(params)):
        outcome = converge(goal, cloud.vaults, vault_plan, rights=cloud.rights.of(vault_writes.NEEDED))
    return outcome.summarized(vault_plan.summary(goal, outcome.before, outcome.after))


def exclusive(params: Mapping[str, Any]) -> str:
    """The vault that one task of a run at a time changes, wherever the task runs."""
    return str(params["name"])


def main() -> None:
    execute(ARGUMENTS, run)


if __name__ == "__main__":
    main()
