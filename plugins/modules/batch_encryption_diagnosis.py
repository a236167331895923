#!/usr/bin/python
# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: batch_encryption_diagnosis
short_description: Find out why a Batch account cannot use its key
description:
  - Finds the problems of the account's key, of its vault and of the access to the key, and the repair of each problem.
  - Changes nothing. The role azbatch.cmk.recover makes the repairs.
  - Needs the permission to read the account, its pools, the key, its vault, the access to the key, the identities, and
    the lists of deleted vaults and keys.
version_added: 1.0.0
author:
  - The azbatch.cmk authors (@azbatch)
options:
  resource_group:
    description: Name of the account's resource group.
    type: str
    required: true
  account_name:
    description: Name of the account. The account must exist.
    type: str
    required: true
  allowed_repairs:
    description:
      - Fail with all reasons if these repairs cannot make an unavailable account available, or if the caller may not
        read a possible cause. By default, the module only reports.
      - V(vault) recovers a deleted vault. V(network) allows trusted Microsoft services in the vault's firewall. V(key)
        recovers a deleted key, and enables or extends the versions that the account may use. V(access) grants the
        account's identities access to the key.
      - V(other_versions) enables or extends the other versions that the account may still use, if it is not known
        whether the account needs them. Somebody may have disabled such a version because it was leaked.
      - V(identity) is a repair of M(azbatch.cmk.batch_account_identity) and has no effect here.
    type: list
    elements: str
    choices: [vault, network, key, access, other_versions, identity]
extends_documentation_fragment:
  - azbatch.cmk.azure
  - azbatch.cmk.azure.sign_in
  - azbatch.cmk.attributes
seealso:
  - module: azbatch.cmk.batch_encryption_info
"""

EXAMPLES = r"""
- name: Find out why the account is not available
  azbatch.cmk.batch_encryption_diagnosis:
    resource_group: rg-batch
    account_name: mybatch
  register: account

- name: Show the causes
  ansible.builtin.debug:
    msg: "{{ account.causes | map(attribute='evidence') }}"

- name: Fail if the account needs more than a repair of the vault or of its firewall
  azbatch.cmk.batch_encryption_diagnosis:
    resource_group: rg-batch
    account_name: mybatch
    allowed_repairs: [vault, network]

- name: Find out why an account in another subscription is not available, with the session of the Azure CLI
  azbatch.cmk.batch_encryption_diagnosis:
    resource_group: rg-batch
    account_name: mybatch
    auth_source: cli
    subscription_id: 11111111-2222-3333-4444-555555555555
"""

RETURN = r"""
summary:
  description: One human-readable line about the account.
  returned: success
  type: str
  sample: "mybatch uses version 01234567… of key batch in vault myvault and is not available: version_unusable."
exists:
  description: Always V(true).
  returned: success
  type: bool
  sample: true
id:
  description: Resource id of the account.
  returned: success
  type: str
  sample: /subscriptions/GUID/resourceGroups/rg-batch/providers/Microsoft.Batch/batchAccounts/mybatch
name:
  description: Name of the account.
  returned: success
  type: str
  sample: mybatch
provisioning_state:
  description: The state of the last operation on the account, as in M(azbatch.cmk.batch_encryption_info).
  returned: success
  type: str
  sample: Succeeded
available:
  description: Whether the account is available, as in M(azbatch.cmk.batch_encryption_info); null if not known.
  returned: success
  type: bool
  sample: false
unavailable_reason:
  description: Why the account is not available.
  returned: success
  type: str
  sample: null
key_identifier:
  description: The key that the account uses; null for a Microsoft-managed key.
  returned: success
  type: str
  sample: https://myvault.vault.azure.net/keys/batch/0123456789abcdef0123456789abcdef
vault_name:
  description: The vault of the key that the account uses, in lower case; null for a Microsoft-managed key.
  returned: success
  type: str
  sample: myvault
key_name:
  description: The name of the key that the account uses; null for a Microsoft-managed key.
  returned: success
  type: str
  sample: batch
causes:
  description: The causes why the account cannot use its key, in the order in which they have to be repaired.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description:
        - V(identity_missing), V(vault_deleted), V(vault_missing), V(vault_in_other_tenant), V(network_closed),
          V(key_deleted), V(key_missing), V(version_missing), V(version_unusable), V(operations_missing),
          V(key_not_supported) or V(access_missing).
      type: str
    evidence:
      description: The evidence in Azure, or the error that Batch reports about a key that the caller cannot read.
      type: str
    remedy:
      description: How to fix the cause.
      type: str
    repair:
      description: The repair in O(allowed_repairs) that fixes the cause; null if this collection cannot repair it.
      type: str
repairs:
  description:
    - The repairs that the account needs, in their order, see O(allowed_repairs). Empty for an account that is
      available.
    - A deleted vault and a deleted key hide other causes. After their recovery, run the module again.
  returned: success
  type: list
  elements: str
  sample: [key]
recoverable:
  description:
    - Whether this collection can repair every cause. False if the last operation on the account has failed.
  returned: success
  type: bool
  sample: true
unknown:
  description: Why possible causes could not be read; empty if all could be read.
  returned: success
  type: list
  elements: str
  sample: []
vault:
  description: Location of the vault, also of a deleted vault; null if the location is not known.
  returned: success
  type: dict
  contains:
    subscription_id:
      description: Id of the vault's subscription.
      type: str
    resource_group:
      description: Name of the vault's resource group.
      type: str
    name:
      description: Name of the vault.
      type: str
key_identifiers:
  description: Identifiers of the key versions that must be usable before the account can be available.
  returned: success
  type: list
  elements: str
  sample: [https://myvault.vault.azure.net/keys/batch/0123456789abcdef0123456789abcdef]
unfinished_drill:
  description:
    - The drill of the account that has not ended, as in M(azbatch.cmk.batch_encryption_drill); null if there is none.
  returned: success
  type: dict
  sample: null
preflight:
  description: All checks, as in M(azbatch.cmk.batch_encryption), each with name, status, evidence and remedy.
  returned: success
  type: list
  elements: dict
code:
  description: Machine-readable error code. The code is stable across releases; C(docs/errors.md) lists all codes.
  returned: failure
  type: str
  sample: not_recoverable
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ansible_collections.azbatch.cmk.plugins.module_utils._arguments import ALLOWED_REPAIRS
from ansible_collections.azbatch.cmk.plugins.module_utils._checks.diagnosis import OTHER_VERSIONS
from ansible_collections.azbatch.cmk.plugins.module_utils._checks.recovery import require_recoverable
from ansible_collections.azbatch.cmk.plugins.module_utils._cloud import Cloud
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import check_account_name
from ansible_collections.azbatch.cmk.plugins.module_utils._core.outcome import Outcome
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import encryption as encryption_document
from ansible_collections.azbatch.cmk.plugins.module_utils._documents.account import require_ready, required
from ansible_collections.azbatch.cmk.plugins.module_utils._module import execute
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption import survey as encryption_survey

ARGUMENTS: dict[str, dict[str, Any]] = {
    "resource_group": {"type": "str", "required": True},
    "account_name": {"type": "str", "required": True},
    **ALLOWED_REPAIRS,
}


def run(params: Mapping[str, Any], cloud: Cloud) -> Outcome:
    group, name = params["resource_group"], check_account_name(params["account_name"], "account_name")
    observed = cloud.survey(group, name, diagnose=True)
    account = required(observed.account, group, name)
    allowed: list[str] | None = params["allowed_repairs"]
    if observed.symptoms and OTHER_VERSIONS in (allowed or ()):
        observed = replace(observed, symptoms=replace(observed.symptoms, repairs_other_versions=True))
    warnings: tuple[str, ...] = ()
    if allowed is not None:
        require_ready(account)
        warnings = require_recoverable(name, observed, allowed)
    described = encryption_survey.diagnosis(observed)
    outcome = Outcome(False, described, described, (*encryption_survey.survey_warnings(observed), *warnings))
    return outcome.summarized(encryption_document.survey_summary(name, described))


def main() -> None:
    execute(ARGUMENTS, run)


if __name__ == "__main__":
    main()
