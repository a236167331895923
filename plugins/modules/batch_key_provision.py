# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Batch accounts that are put on a customer-managed key, with all that this takes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: batch_key_provision
short_description: Put a Batch account on a customer-managed key, from nothing or from any half-done state
description:
  - Makes sure of a vault with soft delete and purge protection, an account with an identity, that identity's access to
    the key, the key, and that the account is on it.
  - In one task it does what M(azbatch.cmk.keyvault_cmk_vault), M(azbatch.cmk.batch_account_identity),
    M(azbatch.cmk.keyvault_cmk_access), M(azbatch.cmk.keyvault_cmk_key) and M(azbatch.cmk.batch_encryption) do in
    several, with their preflight and their rollback.
  - Whatever these would refuse is told before anything is written.
  - An account that is pinned to a version of the key stays on that version. M(azbatch.cmk.batch_key_rotation) moves it
    on.
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
  location:
    description: Region of a new account and a new vault. The default is that of the resource group.
    type: str
  identity_id:
    description:
      - Resource id of the user-assigned identity by which the account reaches its key. Without it, that is a
        system-assigned one.
      - A new account with a user-assigned identity is created on its key.
    type: str
  adopt_existing:
    description: Give an existing account that has another identity, or none, the one asked for.
    type: bool
    default: false
  vault_name:
    description: Name of the vault that holds the key.
    type: str
    required: true
  vault_resource_group:
    description: Name of the vault's resource group. The default is the account's.
    type: str
  authorization:
    description:
      - By what a new vault decides who may use its keys. By default it goes by roles.
      - An existing vault that differs is refused.
    type: str
    choices: [rbac, access_policy]
  recover:
    description: Bring back a deleted vault of that name, with the keys in it. Without it, such a vault is refused.
    type: bool
    default: false
  key_name:
    description: Name of the key.
    type: str
    required: true
  key_type:
    description: V(RSA) or V(RSA-HSM). By default a new key is V(RSA).
    type: str
  key_size:
    description: Bits of the key, 2048, 3072 or 4096. By default a new key has 2048.
    type: int
  follow_latest:
    description:
      - Whether the account follows the key's newest version, or is pinned to the version that it was put on.
      - If this is not set, an account that is on the key stays as it is, and an account that is put on the key is
        pinned.
    type: bool
  replace_key:
    description:
      - Move an account that is on a different customer-managed key, of another vault or another name.
      - By default such an account is refused before anything is written.
    type: bool
    default: false
  enable_key:
    description:
      - Enable the newest version of the key if somebody disabled it.
      - By default a disabled version is refused, because disabling is how a key is revoked. If a new version is due and
        another version is enabled, the new version is made in any case.
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
extends_documentation_fragment:
  - azbatch.cmk.azure
  - azbatch.cmk.azure.sign_in
  - azbatch.cmk.attributes
seealso:
  - module: azbatch.cmk.batch_key_rotation
"""

EXAMPLES = r"""
- name: Put an account on a key, with all that this takes
  azbatch.cmk.batch_key_provision:
    resource_group: rg-batch
    location: westeurope
    account_name: mybatch
    vault_name: kv-mybatch
    authorization: rbac
    key_name: batch-cmk
    key_size: 3072
"""

RETURN = r"""
account:
  description: Name of the account.
  returned: success
  type: str
  sample: mybatch
exists:
  description: Whether the account exists.
  returned: success
  type: bool
  sample: true
key_source:
  description: V(microsoft_keyvault) or V(microsoft_batch).
  returned: success
  type: str
  sample: microsoft_keyvault
key_identifier:
  description: The key that the account is on; null on a Microsoft-managed key.
  returned: success
  type: str
  sample: https://kv-mybatch.vault.azure.net/keys/batch-cmk/0123456789abcdef0123456789abcdef
key_version:
  description: The version that the account is pinned to, null if there is none.
  returned: success
  type: str
  sample: 0123456789abcdef0123456789abcdef
follows_latest:
  description: Whether the account follows the key's newest version.
  returned: success
  type: bool
  sample: false
answers:
  description:
    - Whether the account does its work on that key.
    - Null, with a warning, if the caller lacks the right C(Microsoft.Batch/batchAccounts/pools/read).
  returned: success
  type: bool
  sample: true
former_key_identifier:
  description: The key that the account was on before; null if there was none.
  returned: success
  type: str
expiry_kept_for:
  description: Ids of the Batch accounts whose version would have expired earlier than it does, and keeps its expiry.
  returned: success
  type: list
  elements: str
  sample: []
changed_steps:
  description:
    - Which of C(vault), C(account), C(born_on_key), C(access), C(key) and C(encryption) were changed, or in check mode
      would be.
  returned: success
  type: dict
  sample: {access: true, account: true, born_on_key: false, encryption: true, key: true, vault: true}
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

from ansible_collections.azbatch.cmk.plugins.module_utils import _provision
from ansible_collections.azbatch.cmk.plugins.module_utils._cloud.cloud import Cloud
from ansible_collections.azbatch.cmk.plugins.module_utils._converge import in_turn
from ansible_collections.azbatch.cmk.plugins.module_utils._module import execute
from ansible_collections.azbatch.cmk.plugins.module_utils._plan import Outcome

# The option that names the vault that one task of a run at a time changes, wherever the task runs.
EXCLUSIVE = "vault_name"
ARGUMENTS: dict[str, dict[str, Any]] = {
    "resource_group": {"type": "str", "required": True},
    "account_name": {"type": "str", "required": True},
    "location": {"type": "str"},
    "identity_id": {"type": "str"},
    "adopt_existing": {"type": "bool", "default": False},
    "vault_name": {"type": "str", "required": True},
    "vault_resource_group": {"type": "str"},
    "authorization": {"type": "str", "choices": ["rbac", "access_policy"]},
    "recover": {"type": "bool", "default": False},
    # No key material is among these, whatever the options' names may suggest.
    "key_name": {"type": "str", "required": True, "no_log": False},
    "key_type": {"type": "str", "no_log": False},
    "key_size": {"type": "int", "no_log": False},
    "follow_latest": {"type": "bool"},
    "replace_key": {"type": "bool", "default": False, "no_log": False},
    "enable_key": {"type": "bool", "default": False, "no_log": False},
    "expires_in": {"type": "str"},
    "rotation_policy": {
        "type": "dict",
        "options": {
            "expiry_time": {"type": "str"},
            "time_after_create": {"type": "str"},
            "time_before_expiry": {"type": "str"},
        },
    },
}


def run(params: Mapping[str, Any], cloud: Cloud) -> Outcome:
    return in_turn(_provision.stages(_provision.desired(params)), cloud)


def main() -> None:
    execute(ARGUMENTS, run)


if __name__ == "__main__":
    main()
