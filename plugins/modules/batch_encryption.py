#!/usr/bin/python
# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: batch_encryption
short_description: Put a Batch account on a customer-managed key, on another one, or back on a Microsoft-managed key
description:
  - Makes sure that a Batch account is on the key asked for.
  - Before an account is pointed at a key, everything that Batch needs is checked, and all that is wrong is told at
    once. The result's RV(preflight) lists the checks.
  - After the change the account is read again, and it must answer. If Azure refuses the key, or takes it and the
    account is not available within O(wait_timeout), the previous setting is restored.
version_added: 0.1.0
author:
  - The azbatch.cmk authors (@azbatch)
options:
  resource_group:
    description: Name of the account's resource group.
    type: str
    required: true
  account_name:
    description: Name of the account. It must have an identity, see M(azbatch.cmk.batch_account_identity).
    type: str
    required: true
  key_source:
    description:
      - V(microsoft_keyvault) is the customer-managed key O(key_identifier).
      - V(microsoft_batch) is a key that Microsoft manages.
    type: str
    required: true
    choices: [microsoft_keyvault, microsoft_batch]
  key_identifier:
    description:
      - The key, as V(https://VAULT.vault.azure.net/keys/KEY/VERSION). The account is pinned to that version, unless
        O(follow_latest) says otherwise.
      - Without the version, the account follows the key's newest version, that is, Batch uses new versions by itself.
    type: str
  follow_latest:
    description:
      - Whether the account follows the newest version of the key. V(false) needs a version in O(key_identifier).
      - By default an account that follows this key already keeps following it, and any other account uses
        O(key_identifier) as it is.
    type: bool
  update_version:
    description:
      - Move an account that is pinned to another version of the key to the version in O(key_identifier).
      - With V(false) such an account stays on its version, unless that version expires within one hour.
    type: bool
    default: true
  expected_key_identifier:
    description:
      - The key that the account used when O(key_identifier) was chosen for it, as an earlier task returned it.
      - If the account uses another key by now, somebody else has moved it, and it is refused. An account that was moved
        to a newer version of the key in O(key_identifier) stays there.
    type: str
  missing:
    description: Whether it is a failure if there is no such account. With V(skip) it is a warning.
    type: str
    default: fail
    choices: [fail, skip]
  replace_key:
    description:
      - Move an account that is on a different customer-managed key, of another vault or another name.
      - By default such an account is refused. A different version of the same key is not a different key.
    type: bool
    default: false
  wait_until_available:
    description:
      - Wait for an account that is on O(key_identifier) already and is not available, up to O(wait_timeout) seconds.
        Once its key can be used again, Batch may need ten minutes until the account is available.
      - Without it, an account that is not available is refused.
    type: bool
    default: false
  pools_show_availability:
    description:
      - RV(azbatch.cmk.batch_encryption_info#module:pools_show_availability) of a check before the key was repaired.
      - If V(false), RV(available) of an account that this task does not change is null, because nothing shows when
        Batch can use the key again.
      - If V(true), an account whose pools Batch lists is available. Without it, RV(available) is null if the key, the
        access to it or the vault cannot be read.
    type: bool
  vault_resource_group:
    description:
      - Resource group of the key's vault. Without it, the vault is looked for in all subscriptions that the caller
        sees.
    type: str
extends_documentation_fragment:
  - azbatch.cmk.azure
  - azbatch.cmk.azure.sign_in
  - azbatch.cmk.attributes
notes:
  - The checks are C(identity_present), C(vault_reachable), C(vault_soft_delete), C(vault_purge_protection),
    C(same_tenant), C(key_exists), C(key_enabled), C(key_not_expired), C(key_type_rsa), C(key_size_supported),
    C(key_ops_wrap_unwrap), C(access_granted) and C(network_open_to_batch). A check that the caller's own permissions
    do not allow is V(unknown) and gives a warning.
seealso:
  - module: azbatch.cmk.batch_account_identity
  - module: azbatch.cmk.keyvault_cmk_key
"""

EXAMPLES = r"""
- name: Put an account on a version of a key
  azbatch.cmk.batch_encryption:
    resource_group: rg-batch
    account_name: mybatch
    key_source: microsoft_keyvault
    key_identifier: "{{ key.key_identifier }}"

- name: Have an account follow a key
  azbatch.cmk.batch_encryption:
    resource_group: rg-batch
    account_name: mybatch
    key_source: microsoft_keyvault
    key_identifier: https://myvault.vault.azure.net/keys/batch

- name: Take an account back to a Microsoft-managed key
  azbatch.cmk.batch_encryption:
    resource_group: rg-batch
    account_name: mybatch
    key_source: microsoft_batch
"""

RETURN = r"""
exists:
  description: Whether the account exists. The values below are there only if it does.
  returned: success
  type: bool
  sample: true
previous_key_identifier:
  description:
    - The customer-managed key that the task moved the account from; null if it did not change anything, or if that was
      a Microsoft-managed key.
  returned: success, if it exists
  type: str
  sample: https://myvault.vault.azure.net/keys/batch/fedcba9876543210fedcba9876543210
summary:
  description: One line for a person, on the state of the resource and on what was changed.
  returned: success
  type: str
  sample: "mybatch uses version 01234567… of key batch in vault myvault (before: version fedcba98…)."
id:
  description: Resource id of the account.
  returned: success
  type: str
  sample: /subscriptions/GUID/resourceGroups/rg-batch/providers/Microsoft.Batch/batchAccounts/mybatch
name:
  description: Name of the account.
  returned: success
  type: str
  sample: mybatch
key_source:
  description: V(microsoft_keyvault) or V(microsoft_batch).
  returned: success
  type: str
  sample: microsoft_keyvault
key_identifier:
  description: The key that the account is on; null for a Microsoft-managed one.
  returned: success
  type: str
  sample: https://myvault.vault.azure.net/keys/batch/0123456789abcdef0123456789abcdef
key_version:
  description: The version that the account is pinned to; null if it follows the key.
  returned: success
  type: str
  sample: 0123456789abcdef0123456789abcdef
follows_latest:
  description: Whether the account follows the key's newest version.
  returned: success
  type: bool
  sample: false
available:
  description:
    - Whether the account does its work. One that lost its key still can be read, but does not.
    - Null, with a warning, if the caller lacks the right C(Microsoft.Batch/batchAccounts/pools/read), or if the key,
      the access to it or the vault could not be read. See also O(pools_show_availability).
  returned: success
  type: bool
  sample: true
preflight:
  description: What was checked before the account was pointed at a key; empty when that was not necessary.
  returned: when the setting changes, and with a failure of code V(preflight_failed)
  type: list
  elements: dict
  contains:
    name:
      description: Name of the check.
      type: str
      sample: access_granted
    status:
      description: V(ok), V(failed) or V(unknown).
      type: str
      sample: ok
    evidence:
      description: What was seen.
      type: str
      sample: The identity may get, wrapKey and unwrapKey.
    remedy:
      description: What to do about a failed check.
      type: str
      sample: ""
applied:
  description: The writes that were made before the failure.
  returned: failure on the way
  type: list
  elements: str
  sample: []
restored:
  description: Whether the account has its previous setting again, read after the failure.
  returned: failure on the way
  type: bool
  sample: true
current_state:
  description: The state of the account after the failure, with the values of a success.
  returned: failure on the way, if it could be read
  type: dict
restore_failure:
  description: Why the previous setting could not be restored, with its own C(code) and C(msg).
  returned: failure on the way back
  type: dict
code:
  description: What went wrong, as a stable word; C(docs/errors.md) lists them.
  returned: failure
  type: str
  sample: preflight_failed
"""

from collections.abc import Mapping
from typing import Any

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.cloud import Cloud
from ansible_collections.azbatch.cmk.plugins.module_utils._core.plan import Outcome
from ansible_collections.azbatch.cmk.plugins.module_utils._core.reconcile import converge
from ansible_collections.azbatch.cmk.plugins.module_utils._module import execute
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption import document as encryption_document
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption import goal as encryption_goal
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption import plan as encryption_plan
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption import writes as encryption_writes
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key.forced_versions import counted_as

ARGUMENTS: dict[str, dict[str, Any]] = {
    "resource_group": {"type": "str", "required": True},
    "account_name": {"type": "str", "required": True},
    "key_source": {
        "type": "str",
        "required": True,
        "choices": ["microsoft_keyvault", "microsoft_batch"],
        "no_log": False,
    },
    # A key's identifier is no secret, whatever its name may suggest.
    "key_identifier": {"type": "str", "no_log": False},
    "vault_resource_group": {"type": "str"},
    "wait_until_available": {"type": "bool", "default": False},
    "pools_show_availability": {"type": "bool"},
    "replace_key": {"type": "bool", "default": False, "no_log": False},
    "follow_latest": {"type": "bool"},
    "update_version": {"type": "bool", "default": True},
    "expected_key_identifier": {"type": "str", "no_log": False},
    "missing": {"type": "str", "default": "fail", "choices": ["fail", "skip"]},
}


def run(params: Mapping[str, Any], cloud: Cloud) -> Outcome:
    goal = encryption_goal.desired(params)
    outcome = converge(goal, cloud.encryption, encryption_plan, rights=cloud.rights.of(encryption_writes.NEEDED))
    if goal.key:
        cloud.forced_versions.completed(*counted_as(goal.key, params))
    return outcome.summarized(encryption_document.summary(goal.account, outcome.before, outcome.after))


def main() -> None:
    execute(ARGUMENTS, run)


if __name__ == "__main__":
    main()
