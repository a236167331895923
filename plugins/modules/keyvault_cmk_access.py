#!/usr/bin/python
# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: keyvault_cmk_access
short_description: Let an identity use a vault's keys for encryption, and no more than that
description:
  - Makes sure that a principal may C(get), C(wrapKey) and C(unwrapKey), the three permissions that Batch needs.
  - In a vault that goes by access policies, they are merged into the principal's own policy. Its other permissions and
    the policies of others stay as they are.
  - In a vault that goes by roles, the principal is assigned C(Key Vault Crypto Service Encryption User), at the key or
    at the vault. Nothing is assigned if it has the permissions already, by whichever role, there or above.
version_added: 0.1.0
author:
  - The azbatch.cmk authors (@azbatch)
options:
  resource_group:
    description:
      - Name of the vault's resource group. Without it, the vault is looked for in all subscriptions that the caller
        sees.
    type: str
  vault_name:
    description: Name of the vault.
    type: str
    required: true
  principal_id:
    description:
      - Object id of the principal, such as RV(azbatch.cmk.batch_account_identity#module:identity.principal_id).
      - One of O(principal_id) and O(identity_id) is needed.
    type: str
  identity_id:
    description: Resource id of a user-assigned identity, in place of O(principal_id).
    type: str
  key_name:
    description:
      - Name of the one key to which access is given in a vault that goes by roles. Without it, access is given to all
        keys of the vault.
      - A vault that goes by access policies knows no access to a single key; there it has no effect.
    type: str
  state:
    description:
      - V(present) grants the permissions.
      - V(absent) takes them away. In a vault that goes by roles that is this module's own role assignment at that
        scope; what the principal may do by other assignments, it still may.
    type: str
    default: present
    choices: [present, absent]
  force:
    description: Take away the permissions although a Batch account uses its key by them, or may do so because the
      accounts of a subscription could not all be listed.
    type: bool
    default: false
extends_documentation_fragment:
  - azbatch.cmk.azure
  - azbatch.cmk.azure.sign_in
  - azbatch.cmk.attributes
seealso:
  - module: azbatch.cmk.keyvault_cmk_vault
  - module: azbatch.cmk.batch_account_identity
"""

EXAMPLES = r"""
- name: Let a Batch account's own identity use the keys of a vault
  azbatch.cmk.keyvault_cmk_access:
    resource_group: rg-keys
    vault_name: myvault
    principal_id: "{{ account.identity.principal_id }}"

- name: Let a user-assigned identity use one key
  azbatch.cmk.keyvault_cmk_access:
    resource_group: rg-keys
    vault_name: myvault
    key_name: batch
    identity_id: "{{ batch_identity_id }}"

- name: Take the access away once no account uses it
  azbatch.cmk.keyvault_cmk_access:
    resource_group: rg-keys
    vault_name: myvault
    principal_id: "{{ account.identity.principal_id }}"
    state: absent
"""

RETURN = r"""
summary:
  description: One line for a person, on the state of the resource and on what was changed.
  returned: success
  type: str
  sample: >-
    The principal 66666666-7777-8888-9999-000000000000 has get, unwrapKey and wrapKey on the keys
    in vault myvault (before: no access).
vault_id:
  description: Resource id of the vault.
  returned: success
  type: str
  sample: /subscriptions/GUID/resourceGroups/rg-keys/providers/Microsoft.KeyVault/vaults/myvault
authorization:
  description: By what the vault decides, V(rbac) or V(access_policy).
  returned: success
  type: str
  sample: rbac
principal_id:
  description: Object id of the principal.
  returned: success
  type: str
  sample: 66666666-7777-8888-9999-000000000000
scope:
  description: Resource id of what the access is to, the vault or a key of it.
  returned: success
  type: str
  sample: /subscriptions/GUID/resourceGroups/rg-keys/providers/Microsoft.KeyVault/vaults/myvault
granted:
  description: Which of the three permissions the principal has.
  returned: success
  type: list
  elements: str
  sample: [get, unwrapKey, wrapKey]
accounts:
  description: The Batch accounts that would lose their key.
  returned: failure with code V(in_use)
  type: list
  elements: str
code:
  description: What went wrong, as a stable word; C(docs/errors.md) lists them.
  returned: failure
  type: str
  sample: in_use
"""

from collections.abc import Mapping
from typing import Any

from ansible_collections.azbatch.cmk.plugins.module_utils import _access
from ansible_collections.azbatch.cmk.plugins.module_utils._cloud.cloud import Cloud
from ansible_collections.azbatch.cmk.plugins.module_utils._converge import converge
from ansible_collections.azbatch.cmk.plugins.module_utils._module import execute
from ansible_collections.azbatch.cmk.plugins.module_utils._plan import Outcome

# The option that names the vault that one task of a run at a time changes, wherever the task runs.
EXCLUSIVE = "vault_name"
ARGUMENTS: dict[str, dict[str, Any]] = {
    "resource_group": {"type": "str"},
    "vault_name": {"type": "str", "required": True},
    "principal_id": {"type": "str"},
    "identity_id": {"type": "str"},
    # A key's name is no secret, whatever its option's name may suggest.
    "key_name": {"type": "str", "no_log": False},
    "state": {"type": "str", "default": "present", "choices": ["present", "absent"]},
    "force": {"type": "bool", "default": False},
}


def run(params: Mapping[str, Any], cloud: Cloud, *, check_mode: bool) -> Outcome:
    rights = cloud.rights.of("access", refuse=not check_mode)
    with cloud.turn(params[EXCLUSIVE]):
        outcome = converge(_access.desired(params), cloud.access, _access, check_mode=check_mode, rights=rights)
    return outcome.summarized(_access.summary(outcome.before, outcome.after))


def main() -> None:
    execute(ARGUMENTS, run)


if __name__ == "__main__":
    main()
