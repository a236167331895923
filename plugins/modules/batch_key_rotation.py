# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Batch accounts on a version of their key that is not too old."""

from __future__ import annotations

DOCUMENTATION = r"""
module: batch_key_rotation
short_description: Move a Batch account to a new version of its key, or to a different key
description:
  - Makes a new version of the key when the newest is too old (O(max_version_age)), has expired, or when that is
    forced, moves the account to it and confirms it. With O(new_key_identifier) the account is moved to that key.
  - In one task it does what M(azbatch.cmk.keyvault_cmk_key), M(azbatch.cmk.keyvault_cmk_access) and
    M(azbatch.cmk.batch_encryption) do in several, with their preflight and their rollback.
  - Where many hosts of a run have accounts on one key, one of them makes the new version, and all move to that one.
    What one of them has read of vaults, keys and access, the others go by for a few seconds. Each account is read anew
    after its change.
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
  missing:
    description: Whether the task fails if there is no such account, or does nothing, with a warning.
    type: str
    default: fail
    choices: [fail, skip]
  vault_name:
    description: Name of the vault that holds the key.
    type: str
    required: true
  key_name:
    description: Name of the key that the account is on. An account on another key is refused.
    type: str
    required: true
  vault_resource_group:
    description:
      - Name of the vault's resource group. Without it, the vault is looked for in all subscriptions seen.
    type: str
  key_size:
    description: Bits of a new version, 2048, 3072 or 4096. By default it is as its predecessor.
    type: int
  follow_latest:
    description:
      - Whether the account follows the key's newest version, or is pinned to the version that it was put on.
      - If this is not set, the account stays as it is.
    type: bool
  enable_key:
    description:
      - Enable the newest version of the key if somebody disabled it.
      - By default a disabled version is refused, because disabling is how a key is revoked. If a new version is due and
        another version is enabled, the new version is made in any case.
    type: bool
    default: false
  max_version_age:
    description:
      - Age at which a version is followed by a new one, as an ISO 8601 duration such as V(P90D). A nightly run thus
        changes something only when it is due.
    type: str
  new_version:
    description:
      - Make a new version now, whatever the age of the newest.
      - The accounts of a run that share a key share the new version. An account that the same run rotates a second time
        gets a second one.
    type: bool
    default: false
  expires_in:
    description:
      - When a version expires, counted from its creation, as an ISO 8601 duration such as V(P1Y).
      - A version that a Batch account is on keeps its expiry where this one would be earlier; the next version has it.
    type: str
  rotation_policy:
    description: When Key Vault makes new versions by itself, as in M(azbatch.cmk.keyvault_cmk_key).
    type: dict
    suboptions:
      expiry_time:
        description: When versions made by the policy expire, as an ISO 8601 duration of 28 days or more.
        type: str
      time_after_create:
        description: How long after its creation a version is followed by a new one, as an ISO 8601 duration.
        type: str
      time_before_expiry:
        description: How long before it expires a version is followed by a new one, as an ISO 8601 duration.
        type: str
  new_key_identifier:
    description:
      - Identifier of a different key that the account is switched to, in place of a new version. With a version the
        account is pinned to it, without one it follows.
      - The account's identity is granted access to that key first.
    type: str
  previous_version:
    description:
      - What becomes of the version that the account was on. V(disable) disables it once no Batch account uses it, and
        O(previous_version_grace) is over; after a switch to a different key, the whole former key. The newest version,
        and one that is newer than the account's, are never disabled.
      - With V(disable), the task fails before it changes anything if the accounts of a subscription cannot all be
        listed, which needs C(Microsoft.Batch/batchAccounts/read) and C(Microsoft.Authorization/permissions/read) there.
    type: str
    default: keep
    choices: [keep, disable]
  previous_version_grace:
    description:
      - How long the previous version stays enabled with O(previous_version=disable), as an ISO 8601 duration. V(P0D)
        disables it at once.
      - The time begins when the newest version is created, and when an account is moved. The task that moves an account
        leaves the previous version enabled. A task of a later run, such as that of the next night, disables it.
      - After a switch to a different key, the same time applies to the whole previous key.
      - An account that follows the key may use the previous version for 24 hours after a new one was created. For that
        time the previous version stays enabled even with V(P0D).
    type: str
    default: P1D
  previous_key_identifier:
    description:
      - Identifier of the key that the account used before, with a version or without. Only with
        O(previous_version=disable).
      - By default the task disables only what it sees the account use. An account that a former run switched to
        O(new_key_identifier) no longer says which key it used before; name that key here to have it disabled.
    type: str
extends_documentation_fragment:
  - azbatch.cmk.azure
  - azbatch.cmk.azure.sign_in
  - azbatch.cmk.attributes
attributes:
  idempotent:
    support: partial
    details:
      - With O(new_version=true) every run makes a new version.
seealso:
  - module: azbatch.cmk.batch_encryption
  - module: azbatch.cmk.keyvault_cmk_key
"""

EXAMPLES = r"""
- name: Move the account to a new version when the newest is older than 90 days
  azbatch.cmk.batch_key_rotation:
    resource_group: rg-batch
    account_name: mybatch
    vault_name: kv-mybatch
    key_name: batch-cmk
    max_version_age: P90D

- name: Switch the account to a key in another vault, and disable the former one once no account uses it
  azbatch.cmk.batch_key_rotation:
    resource_group: rg-batch
    account_name: mybatch
    vault_name: kv-mybatch
    key_name: batch-cmk
    new_key_identifier: https://kv-other.vault.azure.net/keys/batch-cmk
    previous_version: disable
"""

RETURN = r"""
account:
  description: Name of the account.
  returned: success
  type: str
  sample: mybatch
exists:
  description: Whether the account exists. The values below are there only if it does.
  returned: success
  type: bool
  sample: true
key_source:
  description: V(microsoft_keyvault).
  returned: success, if it exists
  type: str
  sample: microsoft_keyvault
key_identifier:
  description: The key that the account is on.
  returned: success, if it exists
  type: str
  sample: https://kv-mybatch.vault.azure.net/keys/batch-cmk/0123456789abcdef0123456789abcdef
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
answers:
  description:
    - Whether the account does its work on that key.
    - Null, with a warning, if the caller lacks the right C(Microsoft.Batch/batchAccounts/pools/read).
  returned: success, if it exists
  type: bool
  sample: true
former_key_identifier:
  description: The key that the account was on before.
  returned: success, if it exists
  type: str
  sample: https://kv-mybatch.vault.azure.net/keys/batch-cmk/fedcba9876543210fedcba9876543210
former_kept_for:
  description:
    - Ids of the Batch accounts for which the former version or key was not disabled.
    - Empty as well for a task that left looking to a later one of the run.
  returned: success, if it exists
  type: list
  elements: str
  sample: []
previous_kept_until:
  description:
    - When a later run may disable the previous version or key, in UTC; null if nothing is kept for
      O(previous_version_grace).
  returned: success, if it exists
  type: str
  sample: "2026-02-01T12:00:00Z"
expiry_kept_for:
  description: Ids of the Batch accounts whose version would have expired earlier than it does, and keeps its expiry.
  returned: success, if it exists
  type: list
  elements: str
  sample: []
changed_steps:
  description: Which of C(key), C(access), C(encryption) and C(former_disabled) were changed, or in check mode would be.
  returned: success, if it exists
  type: dict
  sample: {access: false, encryption: true, former_disabled: false, key: true}
so_far:
  description: Where the account was moved, as on success, before something else failed.
  returned: failure, if it was moved
  type: dict
code:
  description: What went wrong, as a stable word; C(docs/errors.md) lists them.
  returned: failure
  type: str
  sample: preflight_failed
"""

from collections.abc import Mapping
from typing import Any

from ansible_collections.azbatch.cmk.plugins.module_utils import _rotation
from ansible_collections.azbatch.cmk.plugins.module_utils._cloud.cloud import Cloud
from ansible_collections.azbatch.cmk.plugins.module_utils._converge import in_turn
from ansible_collections.azbatch.cmk.plugins.module_utils._module import execute
from ansible_collections.azbatch.cmk.plugins.module_utils._plan import Outcome

# The option that names the vault that one task of a run at a time changes, wherever the task runs.
EXCLUSIVE = "vault_name"
ARGUMENTS: dict[str, dict[str, Any]] = {
    "resource_group": {"type": "str", "required": True},
    "account_name": {"type": "str", "required": True},
    "missing": {"type": "str", "default": "fail", "choices": ["fail", "skip"]},
    "vault_name": {"type": "str", "required": True},
    # No key material is among these, whatever the options' names may suggest.
    "key_name": {"type": "str", "required": True, "no_log": False},
    "vault_resource_group": {"type": "str"},
    "key_size": {"type": "int", "no_log": False},
    "follow_latest": {"type": "bool"},
    "enable_key": {"type": "bool", "default": False, "no_log": False},
    "max_version_age": {"type": "str"},
    "new_version": {"type": "bool", "default": False},
    "expires_in": {"type": "str"},
    "rotation_policy": {
        "type": "dict",
        "options": {
            "expiry_time": {"type": "str"},
            "time_after_create": {"type": "str"},
            "time_before_expiry": {"type": "str"},
        },
    },
    "new_key_identifier": {"type": "str", "no_log": False},
    "previous_version": {"type": "str", "default": "keep", "choices": ["keep", "disable"]},
    "previous_version_grace": {"type": "str", "default": "P1D"},
    "previous_key_identifier": {"type": "str", "no_log": False},
}


def run(params: Mapping[str, Any], cloud: Cloud) -> Outcome:
    goal = _rotation.desired(params)
    account = cloud.accounts.seen(
        goal.group,
        goal.account,
        anew_if=lambda seen: not goal.names_key_of(seen),
        group_may_be_missing=goal.may_be_missing,
    )
    outcome = in_turn(_rotation.stages(goal, account), cloud)
    cloud.forced_versions.completed(*goal.counted_as, counts=goal.key.new_version)
    return outcome


def forced_version(params: Mapping[str, Any]) -> tuple[str, tuple[str, str]]:
    """The option that forces a new version, and what a run counts these by; for a task that runs as a module."""
    return "new_version", _rotation.counted_as(params)


def main() -> None:
    execute(ARGUMENTS, run)


if __name__ == "__main__":
    main()
