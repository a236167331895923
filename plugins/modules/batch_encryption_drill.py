#!/usr/bin/python
# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: batch_encryption_drill
short_description: Rehearse that a Batch account loses its key
description:
  - Takes the key from a Batch account until Batch refuses the account, and restores all that the module has changed.
    The role azbatch.cmk.drill runs the states in their order.
  - The account must be the only user of its key and, if the firewall is closed, of its vault. Accounts that may have
    used the key within the last seven days count as users. Accounts, pools and resources that cannot be found count as
    users.
  - To find out whether Batch refuses the account, the module updates the account without a change.
  - Tags of the vault whose names begin with C(azbatch-cmk-drill-) describe the drill until it has ended. Any later run
    can therefore end it.
version_added: 1.0.0
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
  state:
    description:
      - V(lost) takes the key from the account and waits until Batch refuses the account. If that fails or is
        interrupted, the module restores what it has changed.
      - V(recovered) waits until Batch accepts changes of the account, and records the time. Nothing is restored.
      - V(ended) restores what the drill has changed exactly as it was, waits until Batch accepts changes of the
        account, and removes the tags. If there is no drill of the account, nothing is changed.
    type: str
    required: true
    choices: [lost, recovered, ended]
  kind:
    description:
      - How the key is taken from the account. Required with O(state=lost).
      - V(disable_key) disables all enabled versions of the key. V(revoke_access) revokes the access of the account's
        identities to the vault. V(close_firewall) closes the vault's firewall for trusted Microsoft services. The
        firewall must not allow all networks.
    type: str
    choices: [disable_key, revoke_access, close_firewall]
  canary:
    description:
      - The name of the account a second time, so that no other account is made unavailable by mistake. Required with
        O(state=lost).
    type: str
extends_documentation_fragment:
  - azbatch.cmk.azure
  - azbatch.cmk.azure.sign_in
  - azbatch.cmk.vault_users
  - azbatch.cmk.users_in
  - azbatch.cmk.attributes
seealso:
  - module: azbatch.cmk.batch_encryption_diagnosis
"""

EXAMPLES = r"""
- name: Disable the key of the canary, and wait up to two hours until Batch refuses the account
  azbatch.cmk.batch_encryption_drill:
    resource_group: rg-canary
    account_name: mycanary
    canary: mycanary
    kind: disable_key
    vault_used_by: batch
    users_in: [11111111-2222-3333-4444-555555555555]
    state: lost
    wait_timeout: 7200

- name: Recover the account
  ansible.builtin.include_role:
    name: azbatch.cmk.recover
  vars:
    cmk_resource_group: rg-canary
    cmk_account_name: mycanary

- name: Measure when Batch accepts changes of the account again
  azbatch.cmk.batch_encryption_drill:
    resource_group: rg-canary
    account_name: mycanary
    state: recovered

- name: Restore what is left of the drill, and end it, with the session of the Azure CLI
  azbatch.cmk.batch_encryption_drill:
    resource_group: rg-canary
    account_name: mycanary
    state: ended
    auth_source: cli
"""

RETURN = r"""
summary:
  description: One human-readable line about the drill.
  returned: success
  type: str
  sample: "Drill of mycanary: the key was disabled at 2026-02-01T12:00:00Z. Batch refused the account 1205 s later."
exists:
  description: Always V(true).
  returned: success
  type: bool
  sample: true
id:
  description: Resource id of the account.
  returned: success
  type: str
  sample: /subscriptions/GUID/resourceGroups/rg-canary/providers/Microsoft.Batch/batchAccounts/mycanary
name:
  description: Name of the account.
  returned: success
  type: str
  sample: mycanary
key_identifier:
  description: The key that the account uses; null for a Microsoft-managed key.
  returned: success
  type: str
  sample: https://myvault.vault.azure.net/keys/batch
vault_id:
  description: Resource id of the vault; null for a Microsoft-managed key.
  returned: success
  type: str
  sample: /subscriptions/GUID/resourceGroups/rg-canary/providers/Microsoft.KeyVault/vaults/myvault
lost:
  description: Whether a drill has taken the key from the account, and has not restored it.
  returned: success
  type: bool
  sample: false
subscriptions_left_out:
  description: Ids of the subscriptions that Azure lists for the caller, and that O(users_in) leaves out.
  returned: success, with O(state=lost)
  type: list
  elements: str
  sample: []
drill:
  description:
    - The drill of the account that has not ended or, with O(state=ended), that the task has ended. Null if there is
      none.
  returned: success
  type: dict
  contains:
    kind:
      description: How the key was taken from the account.
      type: str
    account_id:
      description: Resource id of the account.
      type: str
    key_identifier:
      description: Identifier of the key without a version.
      type: str
    started_at:
      description: When the drill began, in UTC. The key was taken from the account in the seconds after that.
      type: str
    started_by:
      description: Object id of the principal that began the drill.
      type: str
    refused_at:
      description: When Batch refused a change of the account, in UTC; null if Batch did not refuse it.
      type: str
    refusal:
      description: HTTP status and error code of the refusal.
      type: str
    recovered_at:
      description:
        - When Batch accepted a change of the account again, in UTC; null if no task with O(state=recovered) has seen
          that.
      type: str
    seconds_until_refused:
      description:
        - The time from C(started_at) to C(refused_at). Batch is asked every 30 seconds at least.
      type: int
    seconds_until_recovered:
      description: The time from C(refused_at) to C(recovered_at).
      type: int
    passed:
      description: Whether Batch has refused the account and then accepted it again.
      type: bool
code:
  description: Machine-readable error code. The code is stable across releases; C(docs/errors.md) lists all codes.
  returned: failure
  type: str
  sample: in_use
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from ansible_collections.azbatch.cmk.plugins.module_utils._arguments import USERS_IN, VAULT_USERS
from ansible_collections.azbatch.cmk.plugins.module_utils._cloud import Cloud
from ansible_collections.azbatch.cmk.plugins.module_utils._core.outcome import Outcome
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import drill as drill_document
from ansible_collections.azbatch.cmk.plugins.module_utils._documents.account import key_of
from ansible_collections.azbatch.cmk.plugins.module_utils._module import execute
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.drill import decide as drill_decide
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.drill import goal as drill_goal

ARGUMENTS: dict[str, dict[str, Any]] = {
    "resource_group": {"type": "str", "required": True},
    "account_name": {"type": "str", "required": True},
    "state": {"type": "str", "required": True, "choices": ["lost", "recovered", "ended"]},
    "kind": {"type": "str", "choices": [*drill_document.KINDS]},
    "canary": {"type": "str"},
    **VAULT_USERS,
    **USERS_IN,
}


def run(params: Mapping[str, Any], cloud: Cloud) -> Outcome:
    goal, facts = drill_goal.desired(params), cloud.facts
    account = cloud.account(goal.group, goal.name, options=("account_name", "resource_group"), is_glance=True)
    key = key_of(account)
    task = drill_decide.BY_STATE[goal.state](goal, facts, key.vault if key else None)
    of_account = partial(drill_decide.of_account, goal=goal, facts=facts)
    before = cloud.driver.solve(of_account) if goal.state == "ended" else None
    outcome = cloud.changes.ensure(task)
    drill = before if goal.state == "ended" else cloud.driver.now(of_account)
    described = drill_document.describe(drill)
    report = {**outcome.report, "drill": described}
    return Outcome(outcome.changed, outcome.before, outcome.after, outcome.warnings, report).summarized(
        drill_document.summary(goal.name, described)
    )


def main() -> None:
    execute(ARGUMENTS, run)


if __name__ == "__main__":
    main()
