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
  - Use M(azbatch.cmk.batch_encryption_diagnosis) to find out why an account is not available, and
    M(azbatch.cmk.batch_encryption_audit) to report on many accounts.
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
extends_documentation_fragment:
  - azbatch.cmk.azure
  - azbatch.cmk.azure.sign_in
  - azbatch.cmk.attributes
seealso:
  - module: azbatch.cmk.batch_encryption
  - module: azbatch.cmk.batch_encryption_diagnosis
  - module: azbatch.cmk.keyvault_cmk_users
"""

EXAMPLES = r"""
- name: Read the key that an account uses
  azbatch.cmk.batch_encryption_info:
    resource_group: rg-batch
    account_name: mybatch
  register: account

- name: Show the key
  ansible.builtin.debug:
    msg: "{{ account.key_identifier | default('a Microsoft-managed key', true) }}"

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
      that the account may use are disabled or have expired. M(azbatch.cmk.batch_encryption_diagnosis) names these
      versions.
  returned: success, if the account exists
  type: bool
  sample: true
unavailable_reason:
  description: Why the account is not available.
  returned: success, if the account exists
  type: str
  sample: null
code:
  description: Machine-readable error code. The code is stable across releases; C(docs/errors.md) lists all codes.
  returned: failure
  type: str
  sample: permission_denied
"""

from collections.abc import Mapping
from typing import Any

from ansible_collections.azbatch.cmk.plugins.module_utils._checks.diagnosis import AccountState
from ansible_collections.azbatch.cmk.plugins.module_utils._cloud import Cloud
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import NotFound
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import check_account_name
from ansible_collections.azbatch.cmk.plugins.module_utils._core.outcome import Outcome
from ansible_collections.azbatch.cmk.plugins.module_utils._documents import encryption as encryption_document
from ansible_collections.azbatch.cmk.plugins.module_utils._module import execute
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption import survey as encryption_survey

ARGUMENTS: dict[str, dict[str, Any]] = {
    "resource_group": {"type": "str", "required": True},
    "account_name": {"type": "str", "required": True},
}


def run(params: Mapping[str, Any], cloud: Cloud) -> Outcome:
    group, name = params["resource_group"], check_account_name(params["account_name"], "account_name")
    try:
        observed = cloud.survey(group, name, diagnose=False)
    except NotFound as gone:
        if gone.code != "resource_group_not_found":
            raise
        observed = AccountState()
    described = encryption_survey.survey(observed)
    outcome = Outcome(False, described, described, encryption_survey.survey_warnings(observed))
    return outcome.summarized(encryption_document.survey_summary(name, described))


def main() -> None:
    execute(ARGUMENTS, run)


if __name__ == "__main__":
    main()
