#!/usr/bin/python
# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: keyvault_cmk_unused_versions
short_description: Disable versions of a key that nothing uses any more
description:
  - Ensures that each version of a key is disabled that is older than the newest version that can be used, was replaced
    at least O(unused_for) ago, and that no Batch account, no pool and no resource of another service may use.
  - A version that one of them may use stays enabled. RV(in_use_by) names them, except accounts that have left the
    key.
  - An account that is pinned to another version may use a version until O(unused_for) after its last change. An account
    that follows the latest version may use an older version until it could use the newest version for O(unused_for).
  - A version that was updated after its creation stays enabled until O(unused_for) after the update.
    M(azbatch.cmk.batch_encryption) updates a version without a change before an account leaves it. An account that uses
    another key does not count.
  - An unavailable account does not list its pools. Until the account is recovered or deleted, its pools count as users
    of every key, or in the state C(Failed) for seven days after its last change. A pool with a disk encryption set also
    counts as a user of every key, because the key of the set is not read.
  - A resource of another service that is pinned to a version uses that version. One that follows the latest version may
    use an older version until it could use the newest version for O(unused_for).
  - The module changes nothing and fails with the code V(users_unknown) if not all users can be listed, unless O(force)
    is set.
  - Users are listed before and after the change. If one appears, the version is enabled again.
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
    description: Identifier of the key without a version or V(VAULT/KEY), instead of O(vault_name) and O(name).
    type: str
  force:
    description: Disable unused versions although the accounts or pools of a subscription could not all be listed.
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
  - module: azbatch.cmk.batch_encryption
"""

EXAMPLES = r"""
- name: Disable the versions that nothing has used for seven days
  azbatch.cmk.keyvault_cmk_unused_versions:
    vault_name: myvault
    name: batch

- name: Disable a leaked version at once, after the accounts were moved to a new version
  azbatch.cmk.keyvault_cmk_unused_versions:
    key_identifier: https://myvault.vault.azure.net/keys/batch
    unused_for: P0D

- name: Disable the unused versions of a key in a vault that only Batch accounts use
  azbatch.cmk.keyvault_cmk_unused_versions:
    vault_name: myvault
    name: batch
    vault_used_by: batch
    users_in: [11111111-2222-3333-4444-555555555555]

- name: Disable unused versions with a profile of the credential file
  azbatch.cmk.keyvault_cmk_unused_versions:
    vault_name: myvault
    name: batch
    auth_source: credential_file
    profile: production
"""

RETURN = r"""
summary:
  description: One human-readable line about the state of the resource and the changes.
  returned: success
  type: str
  sample: "Disabled version fedcba98… of key batch in vault myvault."
exists:
  description: Whether the key exists. The values of the key are returned only if the key exists.
  returned: success
  type: bool
  sample: true
key_identifier:
  description: Identifier of the newest version that can be used.
  returned: success, if it exists
  type: str
  sample: https://myvault.vault.azure.net/keys/batch/0123456789abcdef0123456789abcdef
versionless_identifier:
  description: Identifier of the key without a version.
  returned: success, if it exists
  type: str
  sample: https://myvault.vault.azure.net/keys/batch
version:
  description: The newest version that can be used, or the newest if there is none.
  returned: success, if it exists
  type: str
  sample: 0123456789abcdef0123456789abcdef
enabled_versions:
  description: All versions that are enabled, sorted.
  returned: success, if it exists
  type: list
  elements: str
  sample: [0123456789abcdef0123456789abcdef]
disabled_versions:
  description: The versions that the task disabled.
  returned: success
  type: list
  elements: str
  sample: [fedcba9876543210fedcba9876543210]
kept_versions:
  description: The older versions that stay enabled, because accounts or pools may use them, or because they were
    replaced less than O(unused_for) ago.
  returned: success
  type: list
  elements: str
  sample: []
in_use_by:
  description: Ids of the Batch accounts, pools and resources of other services for which versions were kept.
  returned: success
  type: list
  elements: str
  sample: []
restored:
  description: Whether the task has restored the versions that this run had removed, because something uses them.
  returned: success, if they were restored
  type: bool
  sample: true
kept_until:
  description:
    - When the resources in RV(in_use_by) no longer count as users, and O(unused_for) has passed since the
      versions were replaced, in UTC. Accounts that use a version then keep it enabled.
    - Null if nothing is kept, if one of them uses the version now, or if that time is not known.
  returned: success
  type: str
  sample: "2026-02-01T12:00:00Z"
subscriptions_left_out:
  description: Ids of the subscriptions that Azure lists for the caller, and that O(users_in) leaves out.
  returned: success
  type: list
  elements: str
  sample: []
restored_versions:
  description: The versions that the task disabled and enabled again, because accounts or pools turned out to use them.
  returned: failure with code V(in_use), if versions were enabled again
  type: list
  elements: str
  sample: [fedcba9876543210fedcba9876543210]
code:
  description: Machine-readable error code. The code is stable across releases; C(docs/errors.md) lists all codes.
  returned: failure
  type: str
  sample: users_unknown
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
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key.removal import UnusedDisabled

ARGUMENTS: dict[str, dict[str, Any]] = {
    **NAMED_KEY,
    **UNUSED,
    **VAULT_USERS,
    **USERS_IN,
    "force": {"type": "bool", "default": False},
}
# What is returned of the key.
SHOWN = ("exists", "key_identifier", "versionless_identifier", "version", "enabled_versions")


def run(params: Mapping[str, Any], cloud: Cloud) -> Outcome:
    goal = key_goal.unused(params)
    outcome = cloud.changes.ensure(UnusedDisabled(goal, cloud.facts))
    summary = key_document.summary(goal.vault, goal.name, outcome.before, outcome.after) if outcome.changed else ""
    kept = key_document.kept_summary(goal.vault, goal.name, outcome.report)
    shown = replace(outcome, before=_shown(outcome.before), after=_shown(outcome.after))
    nothing = f"No unused version of the key {goal.name} in vault {goal.vault} is enabled."
    return shown.summarized(" ".join(filter(None, (summary, kept))) or nothing)


def _shown(key: Mapping[str, Any]) -> dict[str, Any]:
    return {name: key[name] for name in SHOWN if name in key}


def exclusive(params: Mapping[str, Any]) -> str:
    """The name of the vault whose lock a task of the run holds, on whatever host the task runs."""
    return key_goal.unused(params).vault


def main() -> None:
    execute(ARGUMENTS, run)


if __name__ == "__main__":
    main()
