#!/usr/bin/python
# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: batch_account_identity
short_description: Manage a Batch account and the managed identity that customer-managed keys need
description:
  - Ensures that a Batch account exists with a system-assigned or a user-assigned managed identity, or that the account
    does not exist.
  - Azure's guide says that customer-managed keys are for accounts that were created with an identity. The module
    refuses an existing account without an identity, unless O(allowed_repairs) has V(identity).
version_added: 1.0.0
author:
  - The azbatch.cmk authors (@azbatch)
options:
  resource_group:
    description: Name of the account's resource group, which must exist.
    type: str
    required: true
  name:
    description: Name of the account, 3 to 24 letters and digits.
    type: str
    required: true
  state:
    description:
      - V(present) ensures that the account exists with the identity.
      - V(absent) deletes the account and its contents. Deletion is the only operation that Batch accepts for an account
        that has lost its key.
    type: str
    default: present
    choices: [present, absent]
  location:
    description:
      - Region of a new account. The default is that of its resource group.
      - The region of an existing account is not changed.
    type: str
  tags:
    description: Tags of a new account. The tags of an existing account are not changed.
    type: dict
  identity_id:
    description:
      - Resource id of the user-assigned identity to give to the account.
      - Without it, the account has a system-assigned identity.
    type: str
  key_identifier:
    description:
      - The key that a new account is created with, as V(https://VAULT.vault.azure.net/keys/KEY/VERSION), or without
        the version to follow the latest version.
      - Requires O(identity_id). That identity must have access to the key.
      - This option has no effect on an existing account. Use M(azbatch.cmk.batch_encryption) to change its key.
    type: str
  version_mode:
    description:
      - With V(follow), a new account follows the latest version of the key, although O(key_identifier) may name one.
        With the other values, O(key_identifier) decides.
      - The values are those of M(azbatch.cmk.batch_encryption), so that one variable can be used for both modules.
    type: str
    choices: [update, keep, pin, follow]
  vault_resource_group:
    description:
      - Resource group of the vault that O(key_identifier) names. By default, the module searches all subscriptions that
        the caller can read.
    type: str
  vault_subscription_id:
    description: Id of the subscription of the vault, if it differs from O(subscription_id).
    type: str
  allowed_repairs:
    description:
      - What the module may repair. V(identity) gives an existing account the identity if the account has no identity or
        a different identity.
      - The other values are repairs of other modules and have no effect here.
    type: list
    elements: str
    choices: [vault, network, key, access, other_versions, identity]
  force:
    description: Change the identity of an account that uses the identity to access its key, although the account may
      lose the key.
    type: bool
    default: false
extends_documentation_fragment:
  - azbatch.cmk.azure
  - azbatch.cmk.azure.sign_in
  - azbatch.cmk.attributes
seealso:
  - module: azbatch.cmk.batch_encryption
  - module: azbatch.cmk.keyvault_cmk_access
"""

EXAMPLES = r"""
- name: Create an account with a system-assigned identity
  azbatch.cmk.batch_account_identity:
    resource_group: rg-batch
    name: mybatch
    location: westeurope
  register: account

- name: Show the principal that needs access to the key
  ansible.builtin.debug:
    var: account.identity.principal_id

- name: Create an account with a customer-managed key
  azbatch.cmk.batch_account_identity:
    resource_group: rg-batch
    name: mybatch
    identity_id: "{{ batch_identity_id }}"
    key_identifier: https://myvault.vault.azure.net/keys/batch

- name: Delete an account, even one that has lost its key
  azbatch.cmk.batch_account_identity:
    resource_group: rg-batch
    name: mybatch
    state: absent

- name: Create an account that follows the latest version of a key in another subscription
  azbatch.cmk.batch_account_identity:
    resource_group: rg-batch
    name: mybatch
    identity_id: "{{ batch_identity_id }}"
    key_identifier: "{{ key.key_identifier }}"
    version_mode: follow
    vault_resource_group: rg-keys
    vault_subscription_id: 11111111-2222-3333-4444-555555555555

- name: Give an existing account without an identity a system-assigned identity
  azbatch.cmk.batch_account_identity:
    resource_group: rg-batch
    name: mybatch
    allowed_repairs: [identity]

- name: Create an account with tags
  azbatch.cmk.batch_account_identity:
    resource_group: rg-batch
    name: mybatch
    tags:
      cost_center: "4711"

- name: Create an account in another subscription, with the managed identity of the machine
  azbatch.cmk.batch_account_identity:
    resource_group: rg-batch
    name: mybatch
    auth_source: msi
    subscription_id: 11111111-2222-3333-4444-555555555555
    cloud_environment: AzureUSGovernment
"""

RETURN = r"""
summary:
  description: One human-readable line about the state of the resource and the changes.
  returned: success
  type: str
  sample: Created the Batch account mybatch in westeurope with a system-assigned identity.
exists:
  description: Whether the account exists. The values below are returned only if the account exists.
  returned: success
  type: bool
  sample: true
id:
  description: Resource id of the account.
  returned: success, if it exists
  type: str
  sample: /subscriptions/GUID/resourceGroups/rg-batch/providers/Microsoft.Batch/batchAccounts/mybatch
name:
  description: Name of the account.
  returned: success, if it exists
  type: str
  sample: mybatch
location:
  description: Region of the account.
  returned: success, if it exists
  type: str
  sample: westeurope
identity:
  description: The account's managed identity.
  returned: success, if it exists
  type: dict
  contains:
    type:
      description: V(system_assigned), V(user_assigned) or V(none).
      type: str
      sample: system_assigned
    principal_id:
      description: Object id of a system-assigned identity. This principal needs access to the key.
      type: str
      sample: 66666666-7777-8888-9999-000000000000
    tenant_id:
      description: Tenant of a system-assigned identity.
      type: str
      sample: aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee
    user_assigned_identities:
      description: The C(principal_id) and C(client_id) of each user-assigned identity, by resource id.
      type: dict
      sample: {}
key_source:
  description: V(microsoft_batch) or V(microsoft_keyvault).
  returned: success, if it exists
  type: str
  sample: microsoft_batch
key_identifier:
  description: The customer-managed key that the account uses; null for a Microsoft-managed key.
  returned: success, if it exists
  type: str
  sample: https://myvault.vault.azure.net/keys/batch/0123456789abcdef0123456789abcdef
tags:
  description: The account's tags.
  returned: success, if it exists
  type: dict
  sample: {}
preflight:
  description: The checks that were made before a new account was created with a key, as in
    M(azbatch.cmk.batch_encryption).
  returned: when an account is created with O(key_identifier)
  type: list
  elements: dict
code:
  description: Machine-readable error code. The code is stable across releases; C(docs/errors.md) lists all codes.
  returned: failure
  type: str
  sample: account_without_identity
"""

from collections.abc import Mapping
from typing import Any

from ansible_collections.azbatch.cmk.plugins.module_utils._arguments import ALLOWED_REPAIRS, VERSION_MODE
from ansible_collections.azbatch.cmk.plugins.module_utils._cloud import Cloud
from ansible_collections.azbatch.cmk.plugins.module_utils._core.outcome import Outcome
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import account as account_document
from ansible_collections.azbatch.cmk.plugins.module_utils._module import execute
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.account import goal as account_goal
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.account.decide import AccountAbsent, AccountPresent

ARGUMENTS: dict[str, dict[str, Any]] = {
    "resource_group": {"type": "str", "required": True},
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "default": "present", "choices": ["present", "absent"]},
    "location": {"type": "str"},
    "tags": {"type": "dict"},
    "identity_id": {"type": "str"},
    # The identifier of a key is no secret, although Ansible suspects that by the name of the option.
    "key_identifier": {"type": "str", "no_log": False},
    **VERSION_MODE,
    "vault_resource_group": {"type": "str"},
    "vault_subscription_id": {"type": "str"},
    **ALLOWED_REPAIRS,
    "force": {"type": "bool", "default": False},
}


def run(params: Mapping[str, Any], cloud: Cloud) -> Outcome:
    goal = account_goal.desired(params)
    outcome = cloud.changes.ensure((AccountPresent if goal.present else AccountAbsent)(goal, cloud.facts))
    return outcome.summarized(account_document.summary(params["name"], outcome.before, outcome.after))


def main() -> None:
    execute(ARGUMENTS, run)


if __name__ == "__main__":
    main()
