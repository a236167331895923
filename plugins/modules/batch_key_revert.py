# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Batch accounts that go back to a Microsoft-managed key, with what they leave behind."""

from __future__ import annotations

DOCUMENTATION = r"""
module: batch_key_revert
short_description: Take a Batch account back to a Microsoft-managed key
description:
  - Takes the account back, confirms it, and then, if asked, disables or deletes the key and withdraws the access of the
    account's identity to the vault's keys. What another Batch account still uses, as far as the caller can see, stays.
  - In one task it does what M(azbatch.cmk.batch_encryption), M(azbatch.cmk.keyvault_cmk_key) and
    M(azbatch.cmk.keyvault_cmk_access) do in several, with their guards and their rollback.
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
  vault_resource_group:
    description: Name of the vault's resource group. The default is the account's.
    type: str
  key_name:
    description: Name of the key. An account on another one is refused if anything is to be put away.
    type: str
    required: true
  key:
    description:
      - What becomes of the key. V(delete) can be undone for as long as the vault keeps it; nothing is purged.
      - With another value than V(keep), the task fails before it changes anything if the accounts of a subscription
        cannot all be listed, which needs C(Microsoft.Batch/batchAccounts/read) and
        C(Microsoft.Authorization/permissions/read) there.
    type: str
    default: keep
    choices: [keep, disable, delete]
  access:
    description:
      - What becomes of the access of the account's identities to the vault's keys.
      - For V(withdraw), the accounts have to be listed as for O(key).
    type: str
    default: keep
    choices: [keep, withdraw]
  previous_key_identifier:
    description:
      - Identifier of the key that the account used before, with a version or without. It must name the key of
        O(vault_name) and O(key_name).
      - An account that is on a Microsoft-managed key already does not say which key it used before. By default the key
        and the access to it are then left as they are, with a warning. Name the key here to complete a run that was
        interrupted after it had taken the account back.
    type: str
extends_documentation_fragment:
  - azbatch.cmk.azure
  - azbatch.cmk.azure.sign_in
  - azbatch.cmk.attributes
seealso:
  - module: azbatch.cmk.batch_encryption
"""

EXAMPLES = r"""
- name: Go back to a Microsoft-managed key, disable the key and withdraw the access
  azbatch.cmk.batch_key_revert:
    resource_group: rg-batch
    account_name: mybatch
    vault_name: kv-mybatch
    key_name: batch-cmk
    key: disable
    access: withdraw
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
  description: V(microsoft_batch).
  returned: success, if it exists
  type: str
  sample: microsoft_batch
key_identifier:
  description: The key that the account is on; null on a Microsoft-managed key.
  returned: success, if it exists
  type: str
key_version:
  description: The version that the account is pinned to, null if there is none.
  returned: success, if it exists
  type: str
follows_latest:
  description: Whether the account follows a key's newest version.
  returned: success, if it exists
  type: bool
  sample: false
answers:
  description:
    - Whether the account does its work.
    - Null, with a warning, if the caller lacks the right C(Microsoft.Batch/batchAccounts/pools/read).
  returned: success, if it exists
  type: bool
  sample: true
former_key_identifier:
  description: The key that the account was on before; null if there was none.
  returned: success, if it exists
  type: str
  sample: https://kv-mybatch.vault.azure.net/keys/batch-cmk/0123456789abcdef0123456789abcdef
key_kept_for:
  description: Ids of the Batch accounts for which the key was not disabled or deleted.
  returned: success, if it exists
  type: list
  elements: str
  sample: []
access_kept_for:
  description: Ids of the Batch accounts for which the access was not withdrawn.
  returned: success, if it exists
  type: list
  elements: str
  sample: []
changed_steps:
  description: Which of C(encryption), C(key) and C(access) were changed, or in check mode would be.
  returned: success, if it exists
  type: dict
  sample: {access: true, encryption: true, key: true}
so_far:
  description: Where the account was moved, as on success, before something else failed.
  returned: failure, if it was moved
  type: dict
code:
  description: What went wrong, as a stable word; C(docs/errors.md) lists them.
  returned: failure
  type: str
  sample: account_not_answering
"""

from collections.abc import Mapping
from typing import Any

from ansible_collections.azbatch.cmk.plugins.module_utils import _revert
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
    "vault_resource_group": {"type": "str"},
    # No key material is among these, whatever the options' names may suggest.
    "key_name": {"type": "str", "required": True, "no_log": False},
    "key": {"type": "str", "default": "keep", "choices": ["keep", "disable", "delete"], "no_log": False},
    "access": {"type": "str", "default": "keep", "choices": ["keep", "withdraw"]},
    "previous_key_identifier": {"type": "str", "no_log": False},
}


def run(params: Mapping[str, Any], cloud: Cloud) -> Outcome:
    goal = _revert.desired(params)
    account = cloud.accounts.seen(
        goal.group, goal.account, anew_if=lambda _seen: True, group_may_be_missing=goal.may_be_missing
    )
    return in_turn(_revert.stages(goal, account), cloud)


def main() -> None:
    execute(ARGUMENTS, run)


if __name__ == "__main__":
    main()
