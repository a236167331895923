#!/usr/bin/python
# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: batch_encryption
short_description: Move a Batch account to a customer-managed key or to a Microsoft-managed key
description:
  - Ensures that a Batch account uses the requested key.
  - Before the account is moved to a key, the module checks all requirements of Batch and reports all failed checks
    together. RV(preflight) lists the checks.
  - After the change, the module confirms that Azure's response has the key and that the account is available. If Azure
    refuses the key, or the account is not available within O(wait_timeout), the module restores the previous setting.
  - Before the account leaves a customer-managed key, the module updates the versions of that key that the account may
    use, except the newest, without a change. Their time of update shows M(azbatch.cmk.keyvault_cmk_unused_versions)
    that Batch may still need them. If the caller may not update them, the module returns a warning and moves the
    account.
version_added: 1.0.0
author:
  - The azbatch.cmk authors (@azbatch)
options:
  resource_group:
    description: Name of the account's resource group.
    type: str
    required: true
  account_name:
    description: Name of the account. The account must have a managed identity, see
      M(azbatch.cmk.batch_account_identity).
    type: str
    required: true
  key_source:
    description:
      - V(microsoft_keyvault) is the customer-managed key O(key_identifier).
      - V(microsoft_batch) is a Microsoft-managed key.
    type: str
    required: true
    choices: [microsoft_keyvault, microsoft_batch]
  key_identifier:
    description:
      - Identifier of the key, as V(https://VAULT.vault.azure.net/keys/KEY/VERSION).
      - Without the version, the account follows the latest version of the key. Batch then uses new versions
        automatically. An account that already uses a customer-managed key stays pinned or keeps following, unless
        O(version_mode) says otherwise.
    type: str
  version_mode:
    description:
      - Whether the account is pinned to a version of the key or follows the latest version.
      - With V(update), an account that uses a customer-managed key stays pinned, to the version in O(key_identifier),
        or keeps following the latest version. For any other account, O(key_identifier) decides.
      - With V(keep), an account that is pinned to another version of the key also keeps its version, unless that
        version expires within nine days. An account on another key is moved as with V(update).
      - With V(pin), the account is pinned to the version in O(key_identifier).
      - With V(follow), the account follows the latest version, although O(key_identifier) may name one.
      - If O(key_identifier) names no version, an account that is pinned is pinned to the newest version that can be
        used.
      - The default is V(update), with a warning if O(key_identifier) says something else than the account does.
    type: str
    choices: [update, keep, pin, follow]
  previous_key:
    description:
      - The only customer-managed key that the account may use before the change, as a key identifier or as
        V(VAULT/KEY), or V(any). The version does not matter.
      - The module refuses an account that uses another key or, unless it is V(any), a Microsoft-managed key. An account
        that already meets the goal is not refused.
      - By default, the module refuses to move an account from another customer-managed key to O(key_identifier).
    type: str
  wait_until_available:
    description:
      - If the account already uses O(key_identifier) and is not available, wait up to O(wait_timeout) seconds.
        After the key can be used again, Batch may need ten minutes until the account is available.
      - By default, the module refuses an account that is not available.
    type: bool
    default: false
  require_readable:
    description:
      - Fail if it is not known whether the account is available, because the caller cannot read the pools, the vault,
        the key or the access to it, or because a network security perimeter or IP rules restrict access to the vault.
      - By default, the module then succeeds with a warning, and RV(available) is null.
    type: bool
    default: false
  vault_resource_group:
    description:
      - Resource group of the key's vault. By default, the module searches all subscriptions that the caller can read.
      - With O(key_source=microsoft_batch), that of the vault in O(previous_key). If the resource group or the
        subscription does not exist, the module fails before it moves the account.
    type: str
  vault_subscription_id:
    description: Id of the subscription of the vault, if it differs from O(subscription_id).
    type: str
extends_documentation_fragment:
  - azbatch.cmk.azure
  - azbatch.cmk.azure.sign_in
  - azbatch.cmk.attributes
notes:
  - The checks are C(identity_present), C(vault_reachable), C(vault_soft_delete), C(vault_purge_protection),
    C(same_tenant), C(key_exists), C(key_enabled), C(key_not_expired), C(key_type_rsa), C(key_size_supported),
    C(key_ops_wrap_unwrap), C(access_granted) and C(network_open_to_batch). If the caller's own
    permissions do not allow a check, the check is V(unknown) and the module returns a warning.
seealso:
  - module: azbatch.cmk.batch_account_identity
  - module: azbatch.cmk.keyvault_cmk_key
"""

EXAMPLES = r"""
- name: Move an account to a version of a key
  azbatch.cmk.batch_encryption:
    resource_group: rg-batch
    account_name: mybatch
    key_source: microsoft_keyvault
    key_identifier: "{{ key.key_identifier }}"

- name: Move an account from a Microsoft-managed key to the latest version of a key, which it follows
  azbatch.cmk.batch_encryption:
    resource_group: rg-batch
    account_name: mybatch
    key_source: microsoft_keyvault
    key_identifier: https://myvault.vault.azure.net/keys/batch

- name: Revert an account to a Microsoft-managed key
  azbatch.cmk.batch_encryption:
    resource_group: rg-batch
    account_name: mybatch
    key_source: microsoft_batch

- name: Make an account that is pinned to a version follow the latest version
  azbatch.cmk.batch_encryption:
    resource_group: rg-batch
    account_name: mybatch
    key_source: microsoft_keyvault
    key_identifier: "{{ key.key_identifier }}"
    version_mode: follow

- name: Switch an account to a different key in a vault of another resource group
  azbatch.cmk.batch_encryption:
    resource_group: rg-batch
    account_name: mybatch
    key_source: microsoft_keyvault
    key_identifier: https://othervault.vault.azure.net/keys/batch
    previous_key: any
    vault_resource_group: rg-keys
    vault_subscription_id: 11111111-2222-3333-4444-555555555555

- name: Configure a key, but leave an account that is pinned to another version of the key on its version
  azbatch.cmk.batch_encryption:
    resource_group: rg-batch
    account_name: mybatch
    key_source: microsoft_keyvault
    key_identifier: "{{ key.key_identifier }}"
    version_mode: keep

- name: Pin an account that follows the latest version
  azbatch.cmk.batch_encryption:
    resource_group: rg-batch
    account_name: mybatch
    key_source: microsoft_keyvault
    key_identifier: "{{ key.key_identifier }}"
    version_mode: pin

- name: Move a pinned account to a new version of its key; an account that follows the latest version keeps following it
  azbatch.cmk.batch_encryption:
    resource_group: rg-batch
    account_name: mybatch
    key_source: microsoft_keyvault
    key_identifier: "{{ key.key_identifier }}"
    version_mode: update

- name: Revert an account that uses this key or a Microsoft-managed key
  azbatch.cmk.batch_encryption:
    resource_group: rg-batch
    account_name: mybatch
    key_source: microsoft_batch
    previous_key: myvault/batch

- name: After a repair of the key, wait up to 15 minutes until the account is available
  azbatch.cmk.batch_encryption:
    resource_group: rg-batch
    account_name: mybatch
    key_source: microsoft_keyvault
    key_identifier: "{{ account.key_identifier }}"
    wait_until_available: true
    wait_timeout: 900

- name: Move an account to a version of a key, and fail if the caller cannot read whether the account is available
  azbatch.cmk.batch_encryption:
    resource_group: rg-batch
    account_name: mybatch
    key_source: microsoft_keyvault
    key_identifier: "{{ key.key_identifier }}"
    require_readable: true

- name: Move an account as a service principal, and wait up to 20 minutes until the change is confirmed
  azbatch.cmk.batch_encryption:
    resource_group: rg-batch
    account_name: mybatch
    key_source: microsoft_keyvault
    key_identifier: "{{ key.key_identifier }}"
    auth_source: env
    subscription_id: 11111111-2222-3333-4444-555555555555
    tenant: example.onmicrosoft.com
    client_id: 22222222-3333-4444-5555-666666666666
    secret: "{{ batch_secret }}"
    wait_timeout: 1200
"""

RETURN = r"""
exists:
  description: Whether the account exists. The values below are returned only if the account exists.
  returned: success
  type: bool
  sample: true
previous_key_identifier:
  description:
    - The customer-managed key that the task moved the account from.
    - Null if the task changed nothing, or if the account used a Microsoft-managed key.
  returned: success, if it exists
  type: str
  sample: https://myvault.vault.azure.net/keys/batch/fedcba9876543210fedcba9876543210
summary:
  description: One human-readable line about the state of the resource and the changes.
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
  description: The key that the account uses; null for a Microsoft-managed key.
  returned: success
  type: str
  sample: https://myvault.vault.azure.net/keys/batch/0123456789abcdef0123456789abcdef
key_version:
  description: The version that the account is pinned to; null if the account follows the latest version.
  returned: success
  type: str
  sample: 0123456789abcdef0123456789abcdef
follows_latest:
  description: Whether the account follows the latest version of the key.
  returned: success
  type: bool
  sample: false
available:
  description:
    - Whether the account is available. An account that has lost its key can still be read, but is not available.
    - Null, with a warning, if the caller lacks the right C(Microsoft.Batch/batchAccounts/pools/read), or if the key,
      the access to it or the vault could not be read.
    - Null also if Batch lists the pools of the account, but its key was repaired a moment ago, or some of the versions
      that the account may use are disabled or have expired. The warning names these versions.
    - With O(require_readable=true), the task fails if something could not be read.
  returned: success
  type: bool
  sample: true
available_known_from:
  description: From when on Azure shows whether the account is available, in UTC.
  returned: success, if RV(available) is null because of a recent repair
  type: str
  sample: "2026-01-31T12:10:00Z"
preflight:
  description: The checks that were made before the account was moved to a key; empty if no check was necessary.
  returned: when the setting changes. With a failure of code V(preflight_failed), only the checks that failed
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
      description: The evidence that the check found in Azure.
      type: str
      sample: The identity may get, wrapKey and unwrapKey.
    remedy:
      description: How to fix a failed check.
      type: str
      sample: ""
applied:
  description: The writes that were made before the failure.
  returned: failure after the first write
  type: list
  elements: str
  sample: []
restored:
  description: Whether the account has its previous setting again, as read after the failure.
  returned: failure after the first write
  type: bool
  sample: true
current_state:
  description: The state of the account after the failure, with the values that are returned on success.
  returned: failure after the first write, if the account could be read
  type: dict
restore_failure:
  description: Why the previous setting could not be restored, with its own C(code) and C(msg).
  returned: failure of the rollback
  type: dict
code:
  description: Machine-readable error code. The code is stable across releases; C(docs/errors.md) lists all codes.
  returned: failure
  type: str
  sample: preflight_failed
"""

from collections.abc import Mapping
from typing import Any

from ansible_collections.azbatch.cmk.plugins.module_utils._arguments import VERSION_MODE
from ansible_collections.azbatch.cmk.plugins.module_utils._cloud import Cloud
from ansible_collections.azbatch.cmk.plugins.module_utils._core.concurrent import value_or_error
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError, Unavailable
from ansible_collections.azbatch.cmk.plugins.module_utils._core.outcome import Outcome
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import encryption as encryption_document
from ansible_collections.azbatch.cmk.plugins.module_utils._module import execute
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption import goal as encryption_goal
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption.decide import Move
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption.survey import survey_warnings

ARGUMENTS: dict[str, dict[str, Any]] = {
    "resource_group": {"type": "str", "required": True},
    "account_name": {"type": "str", "required": True},
    "key_source": {
        "type": "str",
        "required": True,
        "choices": ["microsoft_keyvault", "microsoft_batch"],
        "no_log": False,
    },
    # The identifier of a key is no secret, although Ansible suspects that by the name of the option.
    "key_identifier": {"type": "str", "no_log": False},
    "vault_resource_group": {"type": "str"},
    "vault_subscription_id": {"type": "str"},
    "wait_until_available": {"type": "bool", "default": False},
    "require_readable": {"type": "bool", "default": False},
    **VERSION_MODE,
    "previous_key": {"type": "str", "no_log": False},
}


def run(params: Mapping[str, Any], cloud: Cloud) -> Outcome:
    goal = encryption_goal.desired(params)

    def move() -> Outcome:
        outcome = cloud.changes.ensure(Move(goal, cloud.facts))
        return outcome.summarized(encryption_document.summary(goal.account, outcome.before, outcome.after))

    try:
        return cloud.explained(move, goal.group, goal.account)
    except Unavailable as failure:
        if not goal.patient or failure.code != "account_unavailable":
            raise
        surveyed = value_or_error(lambda: cloud.survey(goal.group, goal.account, diagnose=True), CmkError)
        hidden = () if isinstance(surveyed, CmkError) else survey_warnings(surveyed)
        if not hidden:
            raise
        raise failure.extended(details=" ".join(hidden)) from failure.__cause__


def main() -> None:
    execute(ARGUMENTS, run)


if __name__ == "__main__":
    main()
