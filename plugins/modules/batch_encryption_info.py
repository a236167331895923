#!/usr/bin/python
# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: batch_encryption_info
short_description: See which key a Batch account is on
description:
  - Reads a Batch account and tells the key that it is on, the identity by which it reaches it, and whether it answers.
  - Changes nothing. The permission to read the account is enough, but for O(diagnose).
version_added: 0.1.0
author:
  - The azbatch.cmk authors (@azbatch)
options:
  resource_group:
    description: Name of the account's resource group.
    type: str
    required: true
  account_name:
    description: Name of the account.
    type: str
    required: true
  diagnose:
    description:
      - Find out what ails the account's key, its vault and the access to it, and what would mend it. This also reads
        the key and its vault, the identities, and the lists of what was deleted.
    type: bool
    default: false
extends_documentation_fragment:
  - azbatch.cmk.azure
  - azbatch.cmk.azure.sign_in
  - azbatch.cmk.attributes
seealso:
  - module: azbatch.cmk.batch_encryption
"""

EXAMPLES = r"""
- name: See which key an account is on
  azbatch.cmk.batch_encryption_info:
    resource_group: rg-batch
    account_name: mybatch
  register: account

- name: Find out why it does not answer
  azbatch.cmk.batch_encryption_info:
    resource_group: rg-batch
    account_name: mybatch
    diagnose: true
  register: account

- name: Show it
  ansible.builtin.debug:
    msg: "{{ account.key_identifier | default('a Microsoft-managed key', true) }}"
"""

RETURN = r"""
exists:
  description: Whether the account exists. The values below are there only if it does.
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
key_source:
  description: V(microsoft_keyvault) or V(microsoft_batch).
  returned: success, if it exists
  type: str
  sample: microsoft_keyvault
key_identifier:
  description: The key that the account is on; null for a Microsoft-managed one.
  returned: success, if it exists
  type: str
  sample: https://myvault.vault.azure.net/keys/batch/0123456789abcdef0123456789abcdef
vault_name:
  description: The vault of the key that the account is on, in lower case; null for a Microsoft-managed one.
  returned: success, if it exists
  type: str
  sample: myvault
key_name:
  description: The name of the key that the account is on; null for a Microsoft-managed one.
  returned: success, if it exists
  type: str
  sample: batch
key_version:
  description: The version that the account is pinned to; null if it follows the key.
  returned: success, if it exists
  type: str
  sample: 0123456789abcdef0123456789abcdef
follows_latest:
  description: Whether the account follows the key's newest version.
  returned: success, if it exists
  type: bool
  sample: false
identity:
  description: The account's managed identity, as in M(azbatch.cmk.batch_account_identity).
  returned: success, if it exists
  type: dict
principal_ids:
  description: Object ids of all of the account's identities.
  returned: success, if it exists
  type: list
  elements: str
  sample: [66666666-7777-8888-9999-000000000000]
answers:
  description: Whether the account does its work. One that lost its key still can be read, but does not.
  returned: success, if it exists
  type: bool
  sample: true
silence:
  description: Why the account does not answer.
  returned: success, if it exists
  type: str
  sample: null
diagnosis:
  description: What ails the key. Null without O(diagnose), and for an account on a Microsoft-managed key.
  returned: success, if it exists
  type: dict
  contains:
    causes:
      description: What keeps the account from its key, in the order in which it has to be mended.
      type: list
      elements: dict
      contains:
        name:
          description:
            - V(identity_missing), V(vault_deleted), V(vault_missing), V(vault_in_other_tenant), V(network_closed),
              V(key_deleted), V(key_missing), V(version_missing), V(version_unusable), V(operations_missing),
              V(key_unfit) or V(access_missing).
          type: str
        evidence:
          description: What was seen.
          type: str
        remedy:
          description: What mends it.
          type: str
        mend:
          description: Which part of the role azbatch.cmk.recover mends it; null if none can.
          type: str
    mendable:
      description: Whether there is a mend for each of them.
      type: bool
    vault:
      description: Where the vault is, or was until it was deleted; null if that is not known.
      type: dict
      contains:
        subscription_id:
          description: Id of its subscription.
          type: str
        resource_group:
          description: Name of its resource group.
          type: str
        name:
          description: Its name.
          type: str
    versions:
      description: Versions of the key that have to be usable for the account to answer.
      type: list
      elements: str
    preflight:
      description: All checks, as in M(azbatch.cmk.batch_encryption), each with name, status, evidence and remedy.
      type: list
      elements: dict
code:
  description: What went wrong, as a stable word; C(docs/errors.md) lists them.
  returned: failure
  type: str
  sample: permission_denied
"""

from collections.abc import Mapping
from typing import Any

from ansible_collections.azbatch.cmk.plugins.module_utils import _encryption
from ansible_collections.azbatch.cmk.plugins.module_utils._cloud.cloud import Cloud
from ansible_collections.azbatch.cmk.plugins.module_utils._ids import check_account_name
from ansible_collections.azbatch.cmk.plugins.module_utils._module import execute
from ansible_collections.azbatch.cmk.plugins.module_utils._plan import Outcome

ARGUMENTS: dict[str, dict[str, Any]] = {
    "resource_group": {"type": "str", "required": True},
    "account_name": {"type": "str", "required": True},
    "diagnose": {"type": "bool", "default": False},
}


def run(params: Mapping[str, Any], cloud: Cloud, *, check_mode: bool) -> Outcome:
    account = check_account_name(params["account_name"], "account_name")
    observed = cloud.encryption.survey(params["resource_group"], account, diagnose=params["diagnose"])
    seen = _encryption.survey(observed)
    return Outcome(False, seen, seen)


def main() -> None:
    execute(ARGUMENTS, run)


if __name__ == "__main__":
    main()
