#!/usr/bin/python
# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: keyvault_cmk_key_state
short_description: Enable, disable, delete or recover a key, or one of its versions
description:
  - Ensures that a key or a version is enabled, disabled, deleted or recovered. No version is created.
  - Unless O(force) is set, the module does not disable or delete a key or a version that a Batch account, a pool or a
    resource of another service may use, as far as the caller can read them. Keys are never purged.
version_added: 1.0.0
author:
  - The azbatch.cmk authors (@azbatch)
options:
  vault_name:
    description: Name of the vault. O(vault_name) and O(name) are required unless O(key_identifier) is set.
    type: str
  name:
    description: Name of the key.
    type: str
  key_identifier:
    description:
      - Identifier of the key or V(VAULT/KEY), instead of O(vault_name) and O(name). A version in the identifier also
        replaces O(version).
    type: str
  version:
    description: The version to disable or to enable. Only valid with O(state=disabled) and O(state=enabled).
    type: str
  state:
    description:
      - V(enabled) ensures that O(version), by default the newest version, can be used again. The version is enabled,
        extended if it has expired, and allowed to wrap and unwrap. The returned values are those of this version.
      - V(disabled) disables O(version), or all versions if O(version) is not set.
      - V(absent) deletes the key. The vault keeps the deleted key for its retention period.
      - V(recovered) recovers a deleted key. A key that exists is not changed. After the recovery, the newest version is
        updated without a change, because Azure shows when a version was updated, but not when a key was recovered. This
        needs the right to update keys.
    type: str
    required: true
    choices: [enabled, disabled, absent, recovered]
  extend_expired_by:
    description:
      - With O(state=enabled), the new expiry of an expired version, counted from now, as a duration such as V(90d). The
        default is V(30d). Rotate within this time.
    type: str
  in_use:
    description:
      - With O(state=disabled) and O(state=absent), what to do if Batch accounts, the disks of pools or resources of
        other services may use the key or the version.
      - V(fail) fails the task. V(keep) keeps the key or the version unchanged. RV(in_use_by) then names the users, and
        RV(kept_until) the time when they no longer count as users.
      - An account that is pinned to another version counts as a user of O(version) until O(unused_for) after its last
        change. An account that follows the latest version counts as a user of an older version until it could use the
        newest version for O(unused_for).
      - An account that uses another key, but has access to this key, counts as a user until O(unused_for) after its
        last change, because it may have left this key.
      - A version that was updated after its creation stays enabled until O(unused_for) after the update.
        M(azbatch.cmk.batch_encryption) updates a version without a change before an account leaves it.
      - An unavailable account does not list its pools. Until the account is recovered or deleted, its pools count as
        users of every key, or in the state C(Failed) for seven days after its last change. A pool with a disk
        encryption set also counts as a user of every key, because the key of the set is not read.
      - Tasks of a run that disable the same key or version with V(keep) share one list of all accounts.
    type: str
    default: fail
    choices: [fail, keep]
  force:
    description:
      - Disable or delete the key although a Batch account uses the key, or may use it because the accounts of a
        subscription could not all be listed.
    type: bool
    default: false
extends_documentation_fragment:
  - azbatch.cmk.unused
  - azbatch.cmk.vault_users
  - azbatch.cmk.users_in
  - azbatch.cmk.azure
  - azbatch.cmk.azure.sign_in
  - azbatch.cmk.attributes
seealso:
  - module: azbatch.cmk.keyvault_cmk_key
  - module: azbatch.cmk.keyvault_cmk_unused_versions
"""

EXAMPLES = r"""
- name: Restore a version that was disabled or has expired
  azbatch.cmk.keyvault_cmk_key_state:
    vault_name: myvault
    name: batch
    version: 0123456789abcdef0123456789abcdef
    state: enabled

- name: Disable a version if no account or pool may use the version
  azbatch.cmk.keyvault_cmk_key_state:
    vault_name: myvault
    name: batch
    version: "{{ key.previous_version }}"
    state: disabled
    in_use: keep

- name: Disable the key that accounts have left, 14 days after the last of them was moved
  azbatch.cmk.keyvault_cmk_key_state:
    key_identifier: https://myvault.vault.azure.net/keys/batch
    state: disabled
    in_use: keep
    unused_for: P14D

- name: Make an expired version usable for two more weeks
  azbatch.cmk.keyvault_cmk_key_state:
    key_identifier: "{{ account.key_identifier }}"
    state: enabled
    extend_expired_by: P14D

- name: Delete a key if no account uses it
  azbatch.cmk.keyvault_cmk_key_state:
    vault_name: myvault
    name: batch
    state: absent

- name: Delete a key of a vault that only Batch accounts use
  azbatch.cmk.keyvault_cmk_key_state:
    vault_name: myvault
    name: batch
    state: absent
    vault_used_by: batch
    users_in: [11111111-2222-3333-4444-555555555555]

- name: Recover a deleted key
  azbatch.cmk.keyvault_cmk_key_state:
    vault_name: myvault
    name: batch
    state: recovered

- name: Recover a deleted key with a profile of the credential file
  azbatch.cmk.keyvault_cmk_key_state:
    vault_name: myvault
    name: batch
    state: recovered
    auth_source: credential_file
    profile: production
"""

RETURN = r"""
summary:
  description: One human-readable line about the state of the resource and the changes.
  returned: success
  type: str
  sample: Disabled version 01234567… of key batch in vault myvault.
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
  description: Identifier of RV(version).
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
    - The newest version; with O(state=enabled), the version that was enabled.
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
subscriptions_left_out:
  description: Ids of the subscriptions that Azure lists for the caller, and that O(users_in) leaves out.
  returned: success, with O(state=disabled) or O(state=absent)
  type: list
  elements: str
  sample: []
disabled_versions:
  description: The versions that the task disabled.
  returned: success, with O(state=disabled) or O(state=absent)
  type: list
  elements: str
  sample: [fedcba9876543210fedcba9876543210]
restored_versions:
  description: The versions that the task disabled and enabled again, because accounts or pools turned out to use them.
  returned: failure with code V(in_use), if versions were enabled again
  type: list
  elements: str
  sample: [fedcba9876543210fedcba9876543210]
kept_versions:
  description: The versions that stay enabled, because accounts or pools may use them.
  returned: success, with O(state=disabled) or O(state=absent)
  type: list
  elements: str
  sample: []
in_use_by:
  description:
    - Ids of the Batch accounts, pools and resources of other services for which the key or versions were kept.
  returned: success, with O(state=disabled) or O(state=absent)
  type: list
  elements: str
  sample: []
restored:
  description: Whether the task has restored the key or the versions that this run had removed, because something uses
    them.
  returned: success, with O(in_use=keep), if they were restored
  type: bool
  sample: true
kept_until:
  description:
    - When the resources in RV(in_use_by) no longer count as users, in UTC.
    - Null if nothing is kept, if one of them uses the key or the version now, or if that time is not known.
  returned: success, with O(state=disabled) or O(state=absent); failure with code
    V(recently_used)
  type: str
  sample: "2026-02-01T12:00:00Z"
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
accounts:
  description: The Batch accounts that would, or may, lose their key.
  returned: failure with code V(in_use) or V(recently_used)
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
from typing import Any

from ansible_collections.azbatch.cmk.plugins.module_utils._arguments import NAMED_KEY, UNUSED, USERS_IN, VAULT_USERS
from ansible_collections.azbatch.cmk.plugins.module_utils._cloud import Cloud
from ansible_collections.azbatch.cmk.plugins.module_utils._core.outcome import Outcome
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import key as key_document
from ansible_collections.azbatch.cmk.plugins.module_utils._module import execute
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key import goal as key_goal
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key import removal as key_removal
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key.decide import by_state

ARGUMENTS: dict[str, dict[str, Any]] = {
    **NAMED_KEY,
    "version": {"type": "str"},
    "state": {"type": "str", "required": True, "choices": ["enabled", "disabled", "absent", "recovered"]},
    "extend_expired_by": {"type": "str"},
    "in_use": {"type": "str", "default": "fail", "choices": ["fail", "keep"]},
    **UNUSED,
    **VAULT_USERS,
    **USERS_IN,
    "force": {"type": "bool", "default": False},
}


def run(params: Mapping[str, Any], cloud: Cloud) -> Outcome:
    goal = key_goal.in_state(params)
    outcome = cloud.changes.ensure(by_state(goal, cloud.facts))
    if goal.state in ("disabled", "absent"):
        # A deleted key that was recovered has no versions in the report.
        outcome = replace(outcome, report={**key_removal.report({}), **outcome.report})
    kept = key_document.kept_summary(goal.vault, goal.name, outcome.report)
    changed = key_document.summary(goal.vault, goal.name, outcome.before, outcome.after)
    shown = replace(outcome, before=_shown(outcome.before), after=_shown(outcome.after))
    return shown.summarized(kept if kept and not outcome.changed else changed)


def _shown(key: Mapping[str, Any]) -> dict[str, Any]:
    """What is returned of the key. The module does not read the rotation policy."""
    return {name: value for name, value in key.items() if name != "rotation_policy"}


def exclusive(params: Mapping[str, Any]) -> str:
    """The name of the vault whose lock a task of the run holds, on whatever host the task runs."""
    return key_goal.in_state(params).vault


def main() -> None:
    execute(ARGUMENTS, run)


if __name__ == "__main__":
    main()
