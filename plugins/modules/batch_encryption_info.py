#!/usr/bin/python
# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: batch_encryption_info
short_description: See which keys Batch accounts are on
description:
  - Reads a Batch account and tells the key that it is on, the identity by which it reaches it, and whether it answers.
  - Without O(account_name), or with O(findings), tells of all accounts of subscriptions or of a resource group how they
    stand, with their vaults and keys, and what is wrong with them. M(azbatch.cmk.batch_encryption_audit) writes reports
    of the same.
  - Changes nothing. The permission to read is enough; for one account, that to read the account is, but for O(diagnose)
    and O(findings).
version_added: 0.1.0
author:
  - The azbatch.cmk authors (@azbatch)
options:
  resource_group:
    description: Name of the account's resource group, or of the group whose accounts are told.
    type: str
  account_name:
    description: Name of the account. Without it, all accounts are told.
    type: str
  diagnose:
    description:
      - Find out what ails the account's key, its vault and the access to it, and what would mend it. This also reads
        the key and its vault, the identities, and the lists of what was deleted.
    type: bool
    default: false
  require_rights:
    description:
      - With O(diagnose), fail if the caller is seen to lack a right that is needed to mend what was found. The failure
        has the code V(permission_denied), C(action) and C(missing_rights).
    type: bool
    default: false
  findings:
    description:
      - Tell RV(accounts), RV(summary) and RV(unseen_subscriptions). This also reads the vaults, the keys and who may
        use them. Without O(account_name) this is always done.
    type: bool
    default: false
extends_documentation_fragment:
  - azbatch.cmk.azure
  - azbatch.cmk.azure.sign_in
  - azbatch.cmk.audit
  - azbatch.cmk.attributes
seealso:
  - module: azbatch.cmk.batch_encryption
"""

EXAMPLES = r"""
- name: See which key an account is on
  azbatch.cmk.batch_encryption_info:
    resource_group: rg-batch
    account_name: mybatch
  register: account

- name: Find out why it does not answer
  azbatch.cmk.batch_encryption_info:
    resource_group: rg-batch
    account_name: mybatch
    diagnose: true
  register: account

- name: See how all accounts of a subscription stand
  azbatch.cmk.batch_encryption_info:
    subscriptions:
      - 11111111-2222-3333-4444-555555555555
    max_version_age: P90D
  register: fleet

- name: Name those that have lost their key, or are about to
  ansible.builtin.debug:
    msg: "{{ fleet.accounts | selectattr('state', 'equalto', 'at_risk') | map(attribute='name') }}"

- name: Show it
  ansible.builtin.debug:
    msg: "{{ account.key_identifier | default('a Microsoft-managed key', true) }}"
"""

RETURN = r"""
exists:
  description: Whether the account exists. The values below are there only if it does.
  returned: success, with O(account_name)
  type: bool
  sample: true
id:
  description: Resource id of the account.
  returned: success, with O(account_name), if it exists
  type: str
  sample: /subscriptions/GUID/resourceGroups/rg-batch/providers/Microsoft.Batch/batchAccounts/mybatch
name:
  description: Name of the account.
  returned: success, with O(account_name), if it exists
  type: str
  sample: mybatch
key_source:
  description: V(microsoft_keyvault) or V(microsoft_batch).
  returned: success, with O(account_name), if it exists
  type: str
  sample: microsoft_keyvault
key_identifier:
  description: The key that the account is on; null for a Microsoft-managed one.
  returned: success, with O(account_name), if it exists
  type: str
  sample: https://myvault.vault.azure.net/keys/batch/0123456789abcdef0123456789abcdef
vault_name:
  description: The vault of the key that the account is on, in lower case; null for a Microsoft-managed one.
  returned: success, with O(account_name), if it exists
  type: str
  sample: myvault
key_name:
  description: The name of the key that the account is on; null for a Microsoft-managed one.
  returned: success, with O(account_name), if it exists
  type: str
  sample: batch
key_version:
  description: The version that the account is pinned to; null if it follows the key.
  returned: success, with O(account_name), if it exists
  type: str
  sample: 0123456789abcdef0123456789abcdef
follows_latest:
  description: Whether the account follows the key's newest version.
  returned: success, with O(account_name), if it exists
  type: bool
  sample: false
identity:
  description: The account's managed identity, as in M(azbatch.cmk.batch_account_identity).
  returned: success, with O(account_name), if it exists
  type: dict
principal_ids:
  description: Object ids of all of the account's identities.
  returned: success, with O(account_name), if it exists
  type: list
  elements: str
  sample: [66666666-7777-8888-9999-000000000000]
answers:
  description:
    - Whether the account does its work. One that lost its key still can be read, but does not.
    - Null, with a warning, if the caller lacks the right C(Microsoft.Batch/batchAccounts/pools/read).
  returned: success, with O(account_name), if it exists
  type: bool
  sample: true
silence:
  description: Why the account does not answer.
  returned: success, with O(account_name), if it exists
  type: str
  sample: null
diagnosis:
  description: What ails the key. Null without O(diagnose), and for an account on a Microsoft-managed key.
  returned: success, with O(account_name), if it exists
  type: dict
  contains:
    causes:
      description: What keeps the account from its key, in the order in which it has to be mended.
      type: list
      elements: dict
      contains:
        name:
          description:
            - V(identity_missing), V(vault_deleted), V(vault_missing), V(vault_in_other_tenant), V(network_closed),
              V(key_deleted), V(key_missing), V(version_missing), V(version_unusable), V(operations_missing),
              V(key_unfit) or V(access_missing).
          type: str
        evidence:
          description: What was seen.
          type: str
        remedy:
          description: What mends it.
          type: str
        mend:
          description: Which part of the role azbatch.cmk.recover mends it; null if none can.
          type: str
    mendable:
      description: Whether there is a mend for each of them.
      type: bool
    vault:
      description: Where the vault is, or was until it was deleted; null if that is not known.
      type: dict
      contains:
        subscription_id:
          description: Id of its subscription.
          type: str
        resource_group:
          description: Name of its resource group.
          type: str
        name:
          description: Its name.
          type: str
    versions:
      description: Versions of the key that have to be usable for the account to answer.
      type: list
      elements: str
    preflight:
      description: All checks, as in M(azbatch.cmk.batch_encryption), each with name, status, evidence and remedy.
      type: list
      elements: dict
accounts:
  description:
    - How each account stands, those at risk first. C(docs/audit.schema.json) has all fields, C(docs/audit.md) all
      findings.
    - What could not be seen is null, and stands under C(unknown) with the reason.
  returned: success, without O(account_name) or with O(findings)
  type: list
  elements: dict
  sample:
    - name: mybatch
      state: breaks_rules
      key_source: microsoft_keyvault
      version_age_days: 120
      days_left: 245
      findings:
        - id: version_too_old
          severity: medium
          evidence: Version 0123456789abcdef0123456789abcdef was made 120 days ago; 90 are allowed.
          remedy: "Rotate: make a new version and move the account to it."
          accepted: false
summary:
  description: How many accounts there are, on which keys and in which state, and how many open findings of which kind.
  returned: success, without O(account_name) or with O(findings)
  type: dict
  sample:
    accounts: 120
    on_customer_managed_key: 117
    states: {at_risk: 1, breaks_rules: 4, unknown: 0, ok: 115}
unseen_subscriptions:
  description: Ids of the subscriptions whose accounts could not all be listed.
  returned: success, without O(account_name) or with O(findings)
  type: list
  elements: str
  sample: []
unlisted:
  description:
    - The subscriptions of RV(unseen_subscriptions), each with the reason why its accounts could not all be listed.
  contains:
    scope:
      description: Resource id of the subscription.
      type: str
    reason:
      description: Why its accounts could not be listed, or why the list may be incomplete.
      type: str
    action:
      description: The action that the caller lacks there; null if no right is missing.
      type: str
  returned: success, without O(account_name) or with O(findings)
  type: list
  elements: dict
  sample: []
code:
  description: What went wrong, as a stable word; C(docs/errors.md) lists them.
  returned: failure
  type: str
  sample: permission_denied
"""

from collections.abc import Mapping
from typing import Any

from ansible_collections.azbatch.cmk.plugins.module_utils import _diagnosis, _encryption
from ansible_collections.azbatch.cmk.plugins.module_utils._audit import audit, options
from ansible_collections.azbatch.cmk.plugins.module_utils._cloud.cloud import Cloud
from ansible_collections.azbatch.cmk.plugins.module_utils._module import execute
from ansible_collections.azbatch.cmk.plugins.module_utils._plan import Outcome

ARGUMENTS: dict[str, dict[str, Any]] = {
    **options.SCOPE,
    **options.POLICY,
    "diagnose": {"type": "bool", "default": False},
    "require_rights": {"type": "bool", "default": False},
    "findings": {"type": "bool", "default": False},
}


def run(params: Mapping[str, Any], cloud: Cloud) -> Outcome:
    where = options.scope(params)
    seen: dict[str, Any] = {}
    warnings: tuple[str, ...] = ()
    if where.account:
        observed = cloud.encryption.survey(where.group or "", where.account, diagnose=params["diagnose"])
        seen, warnings = _encryption.survey(observed), _encryption.survey_warnings(observed)
        if params["require_rights"] and observed["diagnosis"]:
            cloud.rights.require(_diagnosis.repairs(observed["diagnosis"]))
    fleet = audit.findings_of(params, cloud) if params["findings"] or not where.account else {}
    return Outcome(False, seen, seen, warnings, fleet)


def main() -> None:
    execute(ARGUMENTS, run)


if __name__ == "__main__":
    main()
