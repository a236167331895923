#!/usr/bin/python
# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: batch_encryption_info
short_description: Report which key a Batch account uses
description:
  - Reports the key that a Batch account uses, the identity with which the account accesses the key, and whether the
    account is available.
  - Changes nothing. Needs the permission to read the account and its pools. To report that the account is available, it
    also needs to read the key, its vault and the access to the key.
  - Use M(azbatch.cmk.batch_encryption_audit) to report on many accounts.
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
  diagnose:
    description:
      - Find problems of the account's key, of its vault and of the access to the key, and the repair of each problem.
      - The module then also reads the key and its vault, the identities, and the lists of deleted vaults and keys.
    type: bool
    default: false
  allowed_repairs:
    description:
      - Repairs that are allowed. The module then diagnoses the account as with O(diagnose). The module fails with all
        reasons if these repairs cannot make an unavailable account available, or if the caller may not read a possible
        cause.
      - V(vault) recovers a deleted vault. V(network) allows trusted Microsoft services in the vault's firewall. V(key)
        recovers a deleted key, and enables or extends the versions that the account may use. V(access) grants the
        account's identities access to the key.
      - The module itself repairs nothing. By default, it only reports.
    type: list
    elements: str
    choices: [vault, network, key, access]
extends_documentation_fragment:
  - azbatch.cmk.azure
  - azbatch.cmk.azure.sign_in
  - azbatch.cmk.attributes
seealso:
  - module: azbatch.cmk.batch_encryption
"""

EXAMPLES = r"""
- name: Read the key that an account uses
  azbatch.cmk.batch_encryption_info:
    resource_group: rg-batch
    account_name: mybatch
  register: account

- name: Find out why the account is not available
  azbatch.cmk.batch_encryption_info:
    resource_group: rg-batch
    account_name: mybatch
    diagnose: true
  register: account

- name: Show the key
  ansible.builtin.debug:
    msg: "{{ account.key_identifier | default('a Microsoft-managed key', true) }}"

- name: Find all causes, and fail if the allowed repairs cannot recover the account
  azbatch.cmk.batch_encryption_info:
    resource_group: rg-batch
    account_name: mybatch
    allowed_repairs: [vault, network]
  register: account

- name: Read the key of an account in another subscription, with the session of the Azure CLI
  azbatch.cmk.batch_encryption_info:
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
  sample: mybatch uses version 01234567… of key batch in vault myvault and is available.
exists:
  description: Whether the account exists. The values below are returned only if the account exists.
  returned: success
  type: bool
  sample: true
id:
  description: Resource id of the account.
  returned: success, if the account exists
  type: str
  sample: /subscriptions/GUID/resourceGroups/rg-batch/providers/Microsoft.Batch/batchAccounts/mybatch
name:
  description: Name of the account.
  returned: success, if the account exists
  type: str
  sample: mybatch
key_source:
  description: V(microsoft_keyvault) or V(microsoft_batch).
  returned: success, if the account exists
  type: str
  sample: microsoft_keyvault
key_identifier:
  description: The key that the account uses; null for a Microsoft-managed key.
  returned: success, if the account exists
  type: str
  sample: https://myvault.vault.azure.net/keys/batch/0123456789abcdef0123456789abcdef
vault_name:
  description: The vault of the key that the account uses, in lower case; null for a Microsoft-managed key.
  returned: success, if the account exists
  type: str
  sample: myvault
key_name:
  description: The name of the key that the account uses; null for a Microsoft-managed key.
  returned: success, if the account exists
  type: str
  sample: batch
key_version:
  description: The version that the account is pinned to; null if the account follows the latest version.
  returned: success, if the account exists
  type: str
  sample: 0123456789abcdef0123456789abcdef
follows_latest:
  description: Whether the account follows the latest version of the key.
  returned: success, if the account exists
  type: bool
  sample: false
identity:
  description: The account's managed identity, as in M(azbatch.cmk.batch_account_identity).
  returned: success, if the account exists
  type: dict
principal_ids:
  description: Object ids of all of the account's identities.
  returned: success, if the account exists
  type: list
  elements: str
  sample: [66666666-7777-8888-9999-000000000000]
repairs:
  description:
    - The repairs that the account needs, in their order, see O(allowed_repairs). Empty for an account that is
      available, and without O(diagnose) and O(allowed_repairs).
    - A deleted vault and a deleted key hide other causes. After their recovery, run the module again.
  returned: success
  type: list
  elements: str
  sample: [key]
provisioning_state:
  description: The state of the last operation on the account, C(Succeeded), C(Failed), C(Creating) or C(Deleting).
  returned: success, if the account exists
  type: str
  sample: Succeeded
available:
  description:
    - Whether the account is available. An account that has lost its key can still be read, but is not available.
    - Null, with a warning, if the caller lacks the right C(Microsoft.Batch/batchAccounts/pools/read), or if the key,
      the access to it or the vault could not be read.
    - Null also if Batch lists the pools of the account, but its key was repaired a moment ago, or some of the versions
      that the account may use are disabled or have expired. The warning names these versions.
  returned: success, if the account exists
  type: bool
  sample: true
unavailable_reason:
  description: Why the account is not available.
  returned: success, if the account exists
  type: str
  sample: null
diagnosis:
  description: Why the account cannot use its key. Null without O(diagnose) and O(allowed_repairs), and for an account
    that uses a Microsoft-managed key.
  returned: success, if the account exists
  type: dict
  contains:
    causes:
      description: The causes why the account cannot use its key, in the order in which they have to be repaired.
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
    recoverable:
      description:
        - Whether this collection can repair every cause. False if the last operation on the account has failed.
      type: bool
    unknown:
      description: Why possible causes could not be read; empty if all could be read.
      type: list
      elements: str
    vault:
      description: Location of the vault, also of a deleted vault; null if the location is not known.
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
      type: list
      elements: str
    preflight:
      description: All checks, as in M(azbatch.cmk.batch_encryption), each with name, status, evidence and remedy.
      type: list
      elements: dict
code:
  description: Machine-readable error code. The code is stable across releases; C(docs/errors.md) lists all codes.
  returned: failure
  type: str
  sample: permission_denied
"""

from collections.abc import Mapping
from typing import Any

from ansible_collections.azbatch.cmk.plugins.module_utils._checks.recovery import require_recoverable
from ansible_collections.azbatch.cmk.plugins.module_utils._cloud import Cloud
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import NotFound
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import check_account_name
from ansible_collections.azbatch.cmk.plugins.module_utils._core.plan import Outcome
from ansible_collections.azbatch.cmk.plugins.module_utils._module import execute
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.account import readiness
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.account.document import required
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption import document as encryption_document
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption import survey as encryption_survey

ARGUMENTS: dict[str, dict[str, Any]] = {
    "resource_group": {"type": "str", "required": True},
    "account_name": {"type": "str", "required": True},
    "diagnose": {"type": "bool", "default": False},
    "allowed_repairs": {"type": "list", "elements": "str", "choices": ["vault", "network", "key", "access"]},
}


def run(params: Mapping[str, Any], cloud: Cloud) -> Outcome:
    group, name = params["resource_group"], check_account_name(params["account_name"], "account_name")
    allowed: list[str] | None = params["allowed_repairs"]
    # Whether Batch refused to list the pools when an earlier task of the run asked, for example before a repair.
    shown_before = cloud.encryption.pools_show_availability(group, name)
    try:
        observed = cloud.encryption.survey(group, name, diagnose=params["diagnose"] or allowed is not None)
    except NotFound as gone:
        if gone.code != "resource_group_not_found":
            raise
        observed = {"account": None, "unavailable_reason": None, "diagnosis": None}
    warnings: tuple[str, ...] = ()
    account = observed["account"]
    if allowed is not None:
        readiness.require_ready(required(account, group, name))
        warnings = require_recoverable(observed, allowed, pools_show=shown_before)
    described = encryption_survey.survey(observed)
    outcome = Outcome(False, described, described, (*encryption_survey.survey_warnings(observed), *warnings))
    return outcome.summarized(encryption_document.survey_summary(name, described))


def main() -> None:
    execute(ARGUMENTS, run)


if __name__ == "__main__":
    main()
