#!/usr/bin/python
# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: keyvault_cmk_key
short_description: Ensure that Batch can use a key, and rotate it when rotation is due
description:
  - Ensures that an RSA key exists in a vault, is enabled, has not expired, and allows C(wrapKey) and C(unwrapKey).
  - The newest version that is enabled and valid now counts. If there is none, a disabled version is enabled only with
    O(allowed_repairs). A new version is created if the key has no version, if the newest version expires within nine
    days, or if O(max_version_age) or O(new_version) requires one. A version that is valid later does not prevent that.
    RV(staged_versions) names such versions.
  - M(azbatch.cmk.keyvault_cmk_key_state) enables, disables, deletes and recovers keys and versions, and
    M(azbatch.cmk.keyvault_cmk_unused_versions) disables versions that nothing uses.
version_added: 1.0.0
author:
  - The azbatch.cmk authors (@azbatch)
options:
  vault_name:
    description: Name of the vault.
    type: str
    required: true
  name:
    description: Name of the key.
    type: str
    required: true
  used_by_account:
    description:
      - Name of a Batch account that must use the key. The module fails if the account uses another key. Nothing is
        changed if the account is not available.
      - If tasks of a run request a new version for several accounts with O(new_version) or O(max_version_age), the
        tasks share one new version.
    type: str
  account_resource_group:
    description: Name of the resource group of O(used_by_account).
    type: str
  allowed_repairs:
    description:
      - What the module may repair. V(key) recovers the key if the key was deleted, and enables the newest version if
        the version is disabled.
      - By default, an older version counts that can be used. If there is none, the key is refused, because somebody may
        have deleted or disabled it to revoke it. If rotation is due and another version is enabled, the new version is
        created in any case.
      - The other values are repairs of other modules and have no effect here.
    type: list
    elements: str
    choices: [vault, network, key, access, other_versions, identity]
  max_version_age:
    description:
      - Create a new version if the newest version is older than this duration, such as V(90d) or the ISO 8601
        duration V(P90D). A nightly run therefore changes something only if rotation is due.
    type: str
  new_version:
    description:
      - Create a new version in any case. The value is the purpose of the version, such as the number of a change, or
        V(true). The version gets the tag C(azbatch-cmk-new-version-for) with the purpose, at most 256 characters.
      - With V(true) and O(used_by_account), the purpose is a text that only this run of Ansible has. With V(true) and
        without O(used_by_account), each task creates a version.
      - If the key has an enabled version for the same purpose that is younger than seven days, no version is created.
        Independent runs therefore share a version. Two runs that start at the same moment may create one version each.
        From then on, both use the newest of them. The other is unused once the next run has moved its accounts.
      - The new version keeps all other tags of the previous version. If the previous version already has 15 tags, the
        most that Key Vault allows, the new version does not get the tag, and the module returns a warning.
    type: str
  remove_rotation_policy:
    description:
      - Remove the rotation policy, so that Key Vault no longer creates new versions automatically. Unless O(force) is
        set, the module fails while a Batch account that the caller can read follows the latest version.
    type: bool
    default: false
  force:
    description:
      - Remove the rotation policy although a Batch account follows the latest version, or may follow it because the
        accounts of a subscription could not all be listed.
    type: bool
    default: false
extends_documentation_fragment:
  - azbatch.cmk.new_key
  - azbatch.cmk.users_in
  - azbatch.cmk.azure
  - azbatch.cmk.azure.sign_in
  - azbatch.cmk.attributes
seealso:
  - module: azbatch.cmk.keyvault_cmk_key_state
  - module: azbatch.cmk.keyvault_cmk_vault
  - module: azbatch.cmk.batch_encryption
"""

EXAMPLES = r"""
- name: Create a key
  azbatch.cmk.keyvault_cmk_key:
    vault_name: myvault
    name: batch
    key_size: 3072
  register: key

- name: Create a new version if the newest version is older than 90 days
  azbatch.cmk.keyvault_cmk_key:
    vault_name: myvault
    name: batch
    max_version_age: P90D
  register: key

- name: Create a single new version for a change, even if several runs request it
  azbatch.cmk.keyvault_cmk_key:
    vault_name: myvault
    name: batch
    new_version: CHG0012345
  register: key

- name: Make Key Vault create a new version 30 days before the newest version expires
  azbatch.cmk.keyvault_cmk_key:
    vault_name: myvault
    name: batch
    rotation_policy:
      expiry_time: P1Y
      time_before_expiry: P30D

- name: Make Key Vault create a new version every 90 days
  azbatch.cmk.keyvault_cmk_key:
    vault_name: myvault
    name: batch
    rotation_policy:
      expiry_time: P1Y
      time_after_create: P90D

- name: Create a key in an HSM whose versions expire, or recover a deleted key of this name
  azbatch.cmk.keyvault_cmk_key:
    vault_name: mypremiumvault
    name: batch
    key_type: RSA-HSM
    expires_in: P1Y
    allowed_repairs: [key]

- name: Ensure that the key can be used, even if its newest version was disabled
  azbatch.cmk.keyvault_cmk_key:
    vault_name: myvault
    name: batch
    allowed_repairs: [key]

- name: Create a version when rotation is due; leave an account alone that is not ready
  azbatch.cmk.keyvault_cmk_key:
    vault_name: myvault
    name: batch
    used_by_account: mybatch
    account_resource_group: rg-batch
    max_version_age: P90D

- name: Stop the automatic creation of versions
  azbatch.cmk.keyvault_cmk_key:
    vault_name: myvault
    name: batch
    remove_rotation_policy: true
    users_in: [11111111-2222-3333-4444-555555555555]

- name: Create a key with a profile of the credential file
  azbatch.cmk.keyvault_cmk_key:
    vault_name: myvault
    name: batch
    auth_source: credential_file
    profile: production
    subscription_id: 11111111-2222-3333-4444-555555555555
"""

RETURN = r"""
summary:
  description: One human-readable line about the state of the resource and the changes.
  returned: success
  type: str
  sample: "Created version 01234567… of key batch in vault myvault (before: version fedcba98…)."
exists:
  description: Whether the key exists. The values below are returned only if the key exists.
  returned: success
  type: bool
  sample: true
soft_deleted:
  description: Whether a deleted key of that name can be recovered.
  returned: success
  type: bool
  sample: false
key_identifier:
  description: Identifier of the newest version that can be used. In check mode, a text names a new version.
  returned: success, if it exists
  type: str
  sample: https://myvault.vault.azure.net/keys/batch/0123456789abcdef0123456789abcdef
versionless_identifier:
  description: Identifier of the key without a version. An account with this identifier follows the latest version.
  returned: success, if it exists
  type: str
  sample: https://myvault.vault.azure.net/keys/batch
version:
  description:
    - The newest version that can be used, or the newest version if there is none. In check mode, a text names a new
      version.
  returned: success, if it exists
  type: str
  sample: 0123456789abcdef0123456789abcdef
previous_version:
  description: The version before the newest, if there is one and the caller may list versions.
  returned: success, if it exists
  type: str
  sample: fedcba9876543210fedcba9876543210
previous_key_identifier:
  description: Identifier of RV(previous_version), or null.
  returned: success, if it exists
  type: str
  sample: https://myvault.vault.azure.net/keys/batch/fedcba9876543210fedcba9876543210
key_type:
  description: V(RSA) or V(RSA-HSM).
  returned: success, if it exists
  type: str
  sample: RSA
key_size:
  description: Bits of the newest version.
  returned: success, if it exists
  type: int
  sample: 2048
key_ops:
  description: Operations that the newest version allows.
  returned: success, if it exists
  type: list
  elements: str
  sample: [wrapKey, unwrapKey]
enabled:
  description: Whether the newest version is enabled.
  returned: success, if it exists
  type: bool
  sample: true
created_on:
  description: When the newest version was created, in UTC.
  returned: success, if it exists
  type: str
  sample: "2026-01-31T12:00:00Z"
expires_on:
  description: When the newest version expires, in UTC; null if the version does not expire.
  returned: success, if it exists
  type: str
  sample: "2027-01-31T12:00:00Z"
enabled_versions:
  description:
    - All versions that are enabled, sorted, as far as the caller may list them.
  returned: success, if it exists
  type: list
  elements: str
  sample: [0123456789abcdef0123456789abcdef]
staged_versions:
  description:
    - Enabled versions that are valid later, with their C(version) and the time C(valid_from), in UTC.
  returned: success, if it exists
  type: list
  elements: dict
  sample: [{version: 00112233445566778899aabbccddeeff, valid_from: "2026-03-01T00:00:00Z"}]
rotation_policy:
  description:
    - The key's rotation policy, with the names of O(rotation_policy).
    - Null if neither O(rotation_policy) nor O(remove_rotation_policy) is set.
  returned: success, if it exists
  type: dict
  sample: {expiry_time: P1Y, time_after_create: null, time_before_expiry: P30D}
accounts:
  description: The Batch accounts that follow the latest version, or may follow it.
  returned: failure with code V(in_use)
  type: list
  elements: str
code:
  description: Machine-readable error code. The code is stable across releases; C(docs/errors.md) lists all codes.
  returned: failure
  type: str
  sample: in_use
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from ansible_collections.azbatch.cmk.plugins.module_utils._arguments import ALLOWED_REPAIRS, NEW_KEY, USERS_IN
from ansible_collections.azbatch.cmk.plugins.module_utils._checks import rights
from ansible_collections.azbatch.cmk.plugins.module_utils._cloud import Cloud
from ansible_collections.azbatch.cmk.plugins.module_utils._core.outcome import Outcome
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import encryption as encryption_document
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import key as key_document
from ansible_collections.azbatch.cmk.plugins.module_utils._documents.account import key_of
from ansible_collections.azbatch.cmk.plugins.module_utils._module import execute
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key import goal as key_goal
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key.goal import KeyGoal
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key.present import KeyPresent, UsedBy

ARGUMENTS: dict[str, dict[str, Any]] = {
    "vault_name": {"type": "str", "required": True},
    "name": {"type": "str", "required": True},
    "used_by_account": {"type": "str"},
    "account_resource_group": {"type": "str"},
    **ALLOWED_REPAIRS,
    **NEW_KEY,
    "max_version_age": {"type": "str"},
    "new_version": {"type": "str"},
    "remove_rotation_policy": {"type": "bool", "default": False},
    **USERS_IN,
    "force": {"type": "bool", "default": False},
}


def run(params: Mapping[str, Any], cloud: Cloud) -> Outcome:
    goal = key_goal.present(params)
    group, account = params["account_resource_group"], params["used_by_account"]
    if account:
        return cloud.explained(partial(_for_account, goal, group, account, cloud), group, account)
    task = KeyPresent(goal, cloud.facts)
    outcome = cloud.changes.ensure(task)
    if goal.repairs and outcome.before.get("soft_deleted", False) and outcome.after["exists"]:
        # Azure shows only after the recovery what else has to change, such as a disabled version.
        more = cloud.changes.ensure(task)
        outcome = replace(outcome, after=more.after, warnings=(*outcome.warnings, *more.warnings), report=more.report)
    return _described(goal, outcome)


def _for_account(goal: KeyGoal, group: str, name: str, cloud: Cloud) -> Outcome:
    """The key for an account that uses it. Nothing is changed if the account does not use the key, or, if there is
    something to change, is not available."""
    account = partial(cloud.account, group, name, options=("used_by_account", "account_resource_group"))
    seen = account(is_glance=True)
    if not goal.names(key_of(seen)):
        seen = account(is_glance=False)
    used = encryption_document.required_key(seen, goal.vault, goal.name)
    # An account that is pinned to a version has to be moved to the new version. Without the rights for that, no version
    # is created.
    to_move = (*rights.to_set_encryption(group, name), rights.to_see_access(used.vault, group)) if used.version else ()
    # The version that the run forces is shared. Its tag shows that, even if the notes of the run are lost.
    purpose = goal.purpose or cloud.facts.run if goal.new_version else None
    goal = replace(goal, at_least=used.version, is_shared=True, purpose=purpose)
    task = KeyPresent(goal, cloud.facts, UsedBy(group, name, to_move))
    return _described(goal, cloud.changes.ensure(task))


def _described(goal: KeyGoal, outcome: Outcome) -> Outcome:
    return outcome.summarized(key_document.summary(goal.vault, goal.name, outcome.before, outcome.after))


def exclusive(params: Mapping[str, Any]) -> str:
    """The name of the vault whose lock a task of the run holds, on whatever host the task runs."""
    return key_goal.present(params).vault


def main() -> None:
    execute(ARGUMENTS, run)


if __name__ == "__main__":
    main()
