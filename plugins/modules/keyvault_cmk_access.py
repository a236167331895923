#!/usr/bin/python
# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: keyvault_cmk_access
short_description: Grant or revoke the access of an identity to the keys of a vault
description:
  - Ensures that a principal has C(get), C(wrapKey) and C(unwrapKey), the three permissions that Batch needs.
  - If the vault uses access policies, the permissions are merged into the principal's policy. Other permissions of the
    principal and the policies of other principals are not changed.
  - If the vault uses Azure RBAC, the principal is assigned C(Key Vault Crypto Service Encryption User) at the key or at
    the vault. If another role already grants the permissions at this scope or above, no role is assigned.
version_added: 1.0.0
author:
  - The azbatch.cmk authors (@azbatch)
options:
  vault_resource_group:
    description:
      - Name of the vault's resource group. By default, the module searches O(account_resource_group) if it is set,
        and then all subscriptions that the caller can read.
    type: str
  vault_subscription_id:
    description: Id of the subscription of the vault, if it differs from O(subscription_id).
    type: str
  vault_name:
    description: Name of the vault. One of O(vault_name) and O(key_identifier) is required.
    type: str
  key_identifier:
    description: Identifier of a key of the vault, instead of O(vault_name). Access is granted to all keys of the vault.
    type: str
  principal_id:
    description:
      - Object id of the principal, such as RV(azbatch.cmk.batch_account_identity#module:identity.principal_id).
      - One of O(principal_id), O(identity_id) and O(account_name) is required.
    type: str
  account_name:
    description:
      - Name of a Batch account, instead of O(principal_id). The module manages the access of all identities of the
        account, because no field of an account shows which of several identities Batch uses for the key.
    type: str
  account_resource_group:
    description: Name of the resource group of O(account_name).
    type: str
  previous_key:
    description:
      - The only customer-managed key from which O(account_name) may be moved to O(key_identifier) afterwards, as a key
        identifier or as V(VAULT/KEY), or V(any). The module fails before it grants access if the account uses neither
        of the two keys.
      - By default, the module does not check which key the account uses.
    type: str
  identity_id:
    description: Resource id of a user-assigned identity, instead of O(principal_id).
    type: str
  key_name:
    description:
      - Name of the key to grant access to, if the vault uses Azure RBAC. By default, access is granted to all keys of
        the vault.
      - This option has no effect if the vault uses access policies, because an access policy applies to all keys.
    type: str
  state:
    description:
      - V(present) grants the permissions.
      - V(absent) revokes the permissions. If the vault uses Azure RBAC, the module deletes only its own role assignment
        at this scope. Permissions that other role assignments grant are not revoked. A role assignment is not in use if
        another one of the principal itself, at least ten minutes old, grants the same permissions.
    type: str
    default: present
    choices: [present, absent]
  in_use:
    description:
      - What to do with O(state=absent) if a Batch account, the disks of a pool or a resource of another service need
        these permissions to use their key.
      - V(fail) fails the task. V(keep) keeps the permissions, and RV(in_use_by) names the users.
      - No resource of another service can have the system-assigned identity of an account.
      - An account that has the principal also counts as a user until O(unused_for) after its last change, because the
        account may have left a key of the vault. RV(kept_until) is the end of that time.
    type: str
    default: fail
    choices: [fail, keep]
  force:
    description: Revoke the permissions although a Batch account needs them to use its key, or may need them because the
      accounts of a subscription could not all be listed.
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
  - module: azbatch.cmk.keyvault_cmk_vault
  - module: azbatch.cmk.batch_account_identity
"""

EXAMPLES = r"""
- name: Grant a Batch account's system-assigned identity access to the keys of a vault
  azbatch.cmk.keyvault_cmk_access:
    vault_resource_group: rg-keys
    vault_name: myvault
    principal_id: "{{ account.identity.principal_id }}"

- name: Grant a user-assigned identity access to one key
  azbatch.cmk.keyvault_cmk_access:
    vault_resource_group: rg-keys
    vault_name: myvault
    key_name: batch
    identity_id: "{{ batch_identity_id }}"

- name: Grant all identities of a Batch account access to the keys in the vault of a key
  azbatch.cmk.keyvault_cmk_access:
    key_identifier: https://myvault.vault.azure.net/keys/batch
    account_name: mybatch
    account_resource_group: rg-batch

- name: Grant an account access to a different key, unless it uses another key than the one that it is to leave
  azbatch.cmk.keyvault_cmk_access:
    key_identifier: https://othervault.vault.azure.net/keys/batch
    account_name: mybatch
    account_resource_group: rg-batch
    previous_key: myvault/batch

- name: Grant an account access to a vault in another subscription
  azbatch.cmk.keyvault_cmk_access:
    vault_resource_group: rg-keys
    vault_name: myvault
    vault_subscription_id: 11111111-2222-3333-4444-555555555555
    account_name: mybatch
    account_resource_group: rg-batch

- name: Revoke the access if no account uses it
  azbatch.cmk.keyvault_cmk_access:
    vault_resource_group: rg-keys
    vault_name: myvault
    principal_id: "{{ account.identity.principal_id }}"
    state: absent

- name: Revoke the access of an account 14 days after its last change, or keep it if another account needs it
  azbatch.cmk.keyvault_cmk_access:
    vault_name: myvault
    account_name: mybatch
    account_resource_group: rg-batch
    state: absent
    in_use: keep
    unused_for: P14D

- name: Revoke the access of a user-assigned identity to a vault that only Batch accounts use
  azbatch.cmk.keyvault_cmk_access:
    vault_name: myvault
    identity_id: "{{ batch_identity_id }}"
    state: absent
    vault_used_by: batch
    users_in: [11111111-2222-3333-4444-555555555555]

- name: Grant access as a service principal that signs in with a certificate
  azbatch.cmk.keyvault_cmk_access:
    key_identifier: https://myvault.vault.azure.net/keys/batch
    account_name: mybatch
    account_resource_group: rg-batch
    auth_source: env
    subscription_id: 11111111-2222-3333-4444-555555555555
    tenant: example.onmicrosoft.com
    client_id: 22222222-3333-4444-5555-666666666666
    x509_certificate_path: /etc/azure/batch.pem
"""

RETURN = r"""
summary:
  description: One human-readable line about the state of the resource and the changes.
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
vault_uri:
  description: URL of the vault, without a slash at its end.
  returned: success
  type: str
  sample: https://myvault.vault.azure.net
authorization:
  description: Permission model of the vault, V(rbac) for Azure RBAC or V(access_policy) for access policies.
  returned: success
  type: str
  sample: rbac
principal_id:
  description: Object id of the principal.
  returned: success
  type: str
  sample: 66666666-7777-8888-9999-000000000000
scope:
  description: Resource id of the vault or the key to which access is granted.
  returned: success
  type: str
  sample: /subscriptions/GUID/resourceGroups/rg-keys/providers/Microsoft.KeyVault/vaults/myvault
granted:
  description: Which of the three permissions the principal has.
  returned: success
  type: list
  elements: str
  sample: [get, unwrapKey, wrapKey]
in_use_by:
  description: Ids of the Batch accounts, pools and resources for which the permissions were kept, with O(in_use=keep).
  returned: success, with O(state=absent)
  type: list
  elements: str
  sample: []
subscriptions_left_out:
  description: Ids of the subscriptions that Azure lists for the caller, and that O(users_in) leaves out.
  returned: success, with O(state=absent)
  type: list
  elements: str
  sample: []
restored:
  description: Whether the task has restored the permissions that this run had removed, because something uses them.
  returned: success, with O(in_use=keep), if they were restored
  type: bool
  sample: true
kept_until:
  description:
    - When the accounts in RV(in_use_by) no longer count as users, in UTC.
    - If only the age of another role assignment requires that the permissions are kept, the end of its first ten
      minutes.
    - Null if nothing is kept, or if an account or a pool needs the permissions now.
  returned: success, with O(state=absent); failure with code V(recently_used)
  type: str
  sample: "2026-02-01T12:00:00Z"
principals:
  description: The values above for each identity, if the account has several identities.
  returned: success, with O(account_name) of an account with several identities
  type: list
  elements: dict
  sample: []
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
from functools import partial
from typing import Any

from ansible_collections.azbatch.cmk.plugins.module_utils._arguments import UNUSED, USERS_IN, VAULT_USERS
from ansible_collections.azbatch.cmk.plugins.module_utils._cloud import Cloud
from ansible_collections.azbatch.cmk.plugins.module_utils._core.outcome import Outcome, together
from ansible_collections.azbatch.cmk.plugins.module_utils._core.summary import used_by_text
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import access as access_document
from ansible_collections.azbatch.cmk.plugins.module_utils._module import execute
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.access import goal as access_goal
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.access.decide import AccessGranted, AccessRevoked

ARGUMENTS: dict[str, dict[str, Any]] = {
    "vault_resource_group": {"type": "str"},
    "vault_subscription_id": {"type": "str"},
    "vault_name": {"type": "str"},
    # The identifier of a key is no secret, although Ansible suspects that by the name of the option.
    "key_identifier": {"type": "str", "no_log": False},
    "principal_id": {"type": "str"},
    "account_name": {"type": "str"},
    "account_resource_group": {"type": "str"},
    "previous_key": {"type": "str", "no_log": False},
    "identity_id": {"type": "str"},
    # The name of a key is no secret either.
    "key_name": {"type": "str", "no_log": False},
    "state": {"type": "str", "default": "present", "choices": ["present", "absent"]},
    "in_use": {"type": "str", "default": "fail", "choices": ["fail", "keep"]},
    **UNUSED,
    **VAULT_USERS,
    **USERS_IN,
    "force": {"type": "bool", "default": False},
}


def run(params: Mapping[str, Any], cloud: Cloud) -> Outcome:
    goal = access_goal.desired(params)
    account = params["account_name"]
    goals = _goals(params, cloud, goal) if account else [goal]
    tasks = [(AccessGranted if one.present else AccessRevoked)(one, cloud.facts) for one in goals]
    if len(tasks) > 1:
        # All are checked before the first change.
        for task in tasks:
            cloud.driver.solve(task.decide)
    outcomes = [cloud.changes.ensure(task) for task in tasks]
    summary = " ".join(_summary(one) for one in outcomes)
    return together(outcomes).summarized(summary or f"{account} has no identity, and no access.")


def _goals(params: Mapping[str, Any], cloud: Cloud, goal: access_goal.AccessGoal) -> list[access_goal.AccessGoal]:
    """A goal for each identity of the account."""
    place, options = (
        (params["account_resource_group"], params["account_name"]),
        ("account_name", "account_resource_group"),
    )
    read = partial(cloud.account, *place, options=options)

    def ask() -> list[access_goal.AccessGoal]:
        found = read(is_glance=goal.present)
        return access_goal.of_account(goal, found if access_goal.allows(goal, found) else read(is_glance=False))

    # An account that is moved afterwards has to be ready for that.
    return cloud.explained(ask, *place) if goal.previous else ask()


def _summary(outcome: Outcome) -> str:
    users = outcome.report.get("in_use_by")
    summary = access_document.summary(outcome.before, outcome.after)
    if not users or outcome.changed:
        return summary
    until = f" before {outcome.report['kept_until']}" if outcome.report["kept_until"] else ""
    return f"{summary} The access is not revoked{until}, {used_by_text(users)}."


def exclusive(params: Mapping[str, Any]) -> str:
    """The name of the vault whose lock a task of the run holds, on whatever host the task runs."""
    return access_goal.desired(params).vault


def main() -> None:
    execute(ARGUMENTS, run)


if __name__ == "__main__":
    main()
