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
  check_before:
    description:
      - Name of the role of this collection whose tasks run next. The module refuses now, before the first change, every
        request that these tasks would refuse. The module also fails if the caller lacks a right that these tasks need.
      - The options below are the values that the tasks will use. All choices except V(recover) require O(vault_name)
        and O(key_name).
      - With V(recover), the module reads the same data as with O(diagnose). The module fails if the account cannot be
        recovered, or if the caller may not read a possible cause. The error names every reason.
      - Without V(recover), the module may use a read of the account that another task of the run made a moment ago, and
        RV(available) is not returned.
    type: str
    choices: [provision, rotate, revert, recover]
  missing:
    description: Whether a missing account is a failure, with O(check_before). With V(skip), a missing account is a
      warning.
    type: str
    default: fail
    choices: [fail, skip]
  location:
    description: Region of a new account and vault.
    type: str
  identity_id:
    description: Resource id of the user-assigned identity of the account. By default, the identity is system-assigned.
    type: str
  adopt_existing:
    description: Whether an existing account is given the identity.
    type: bool
    default: false
  vault_name:
    description: Name of the vault of the key.
    type: str
  vault_resource_group:
    description: Name of the resource group of the vault. The default is O(resource_group).
    type: str
  authorization:
    description: Permission model of the vault, V(rbac) for Azure RBAC or V(access_policy) for access policies.
    type: str
    choices: [rbac, access_policy]
  recover_vault:
    description: Whether a deleted vault is recovered.
    type: bool
    default: false
  recover_key:
    description: Whether a deleted key is recovered.
    type: bool
    default: false
  key_name:
    description: Name of the key that the account uses or is to use.
    type: str
  enable_key:
    description: Whether a disabled version is enabled.
    type: bool
    default: false
  replace_key:
    description: Whether an account that uses a different customer-managed key is moved.
    type: bool
    default: false
  follow_latest:
    description: Whether the account is to follow the latest version of the key.
    type: bool
  new_key_identifier:
    description: Identifier of a different key that the account is to be moved to.
    type: str
  previous_key:
    description: What to do with the key or the version that the account uses now.
    type: str
    default: keep
    choices: [keep, disable, delete]
  previous_key_identifier:
    description: Identifier of the key that the account used before, if the account no longer shows this key.
    type: str
  grace_period:
    description:
      - How long the previous key stays enabled, as an ISO 8601 duration. Only the format is checked, with
        O(check_before=rotate).
    type: str
  revokes_access:
    description: Whether the access of the account's identities to the vault is revoked.
    type: bool
    default: false
  allowed_repairs:
    description:
      - Repairs that are allowed, with O(check_before=recover). V(vault) recovers a deleted vault. V(network) lets
        trusted Microsoft services through the vault's firewall. V(key) recovers a deleted key, and enables or extends
        the version that the account uses. V(access) grants the account's identities access to the key.
    type: list
    elements: str
    choices: [vault, network, key, access]
    default: [vault, network, key, access]
  causes_so_far:
    description:
      - RV(causes_so_far) of the previous check, with O(check_before=recover), if this check follows a repair. A repair
        may reveal another cause, because only a recovered vault shows the state of its key.
      - The error message names the causes that have been repaired since.
    type: list
    elements: str
    default: []
  pools_show_availability:
    description:
      - RV(pools_show_availability) of the first check, with O(check_before=recover), if this check follows a repair.
      - If V(true), the last task of the role can confirm the repairs even if the caller cannot read the key.
    type: bool
  extend_expired_by:
    description:
      - Period by which an expired version is extended, as an ISO 8601 duration. Only the format is checked, with
        O(check_before=recover).
    type: str
extends_documentation_fragment:
  - azbatch.cmk.new_key
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

- name: Check all requirements and rights before an account is put on a new key
  azbatch.cmk.batch_encryption_info:
    check_before: provision
    resource_group: rg-batch
    account_name: mybatch
    location: westeurope
    identity_id: "{{ batch_identity_id }}"
    adopt_existing: true
    vault_name: myvault
    vault_resource_group: rg-keys
    authorization: rbac
    recover_vault: true
    key_name: batch
    key_type: RSA
    key_size: 3072
    expires_in: P1Y
    rotation_policy:
      expiry_time: P1Y
      time_before_expiry: P30D
    recover_key: true
    enable_key: true
    replace_key: true
    follow_latest: true

- name: Check all requirements and rights before an account is switched to a different key
  azbatch.cmk.batch_encryption_info:
    check_before: rotate
    resource_group: rg-batch
    account_name: mybatch
    missing: skip
    vault_name: myvault
    key_name: batch
    new_key_identifier: https://othervault.vault.azure.net/keys/batch
    previous_key: disable
    grace_period: P2D

- name: Check all requirements and rights before an account is reverted and its key is deleted
  azbatch.cmk.batch_encryption_info:
    check_before: revert
    resource_group: rg-batch
    account_name: mybatch
    vault_name: myvault
    key_name: batch
    previous_key: delete
    previous_key_identifier: https://myvault.vault.azure.net/keys/batch
    revokes_access: true

- name: Find all causes, and fail if they cannot be repaired by the allowed repairs
  azbatch.cmk.batch_encryption_info:
    check_before: recover
    resource_group: rg-batch
    account_name: mybatch
    allowed_repairs: [vault, network]
    extend_expired_by: P14D
  register: before

- name: Check the account again after the vault was recovered
  azbatch.cmk.batch_encryption_info:
    check_before: recover
    resource_group: rg-batch
    account_name: mybatch
    causes_so_far: "{{ before.causes_so_far }}"
    pools_show_availability: "{{ before.pools_show_availability | default(omit) }}"

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
    - The repairs that the account needs, see O(allowed_repairs). Empty for an account that is available.
    - A deleted vault and a deleted key hide other causes. After their recovery, check again with O(causes_so_far).
  returned: success, with O(check_before=recover), if the account exists
  type: list
  elements: str
  sample: [key]
causes_so_far:
  description: O(causes_so_far) with the names of the causes that this check found.
  returned: success, with O(check_before=recover), if the account exists
  type: list
  elements: str
  sample: [vault_deleted]
previous_key_identifier:
  description: The key that the account uses, or the key that O(previous_key_identifier) names; null if no key is known.
  returned: success, with O(check_before=revert)
  type: str
  sample: https://myvault.vault.azure.net/keys/batch/0123456789abcdef0123456789abcdef
available:
  description:
    - Whether the account is available. An account that has lost its key can still be read, but is not available.
    - Null, with a warning, if the caller lacks the right C(Microsoft.Batch/batchAccounts/pools/read), or if the key,
      the access to it or the vault could not be read.
    - Null also if Batch lists the pools of the account, but the account may need a version that was disabled or has
      expired, or its key was repaired a moment ago.
  returned: success, if the account exists
  type: bool
  sample: true
unavailable_reason:
  description: Why the account is not available.
  returned: success, if the account exists
  type: str
  sample: null
pools_show_availability:
  description:
    - Whether the list of pools shows that the account has lost its key.
    - V(true) if Batch refuses to list the pools, so the account is unavailable. V(false) if Batch lists the pools
      although the account has or may have lost its key.
  returned: success, if the account exists and is not available or this is not known, without O(check_before) or with
    O(check_before=recover)
  type: bool
  sample: true
diagnosis:
  description: Why the account cannot use its key. Null without O(diagnose) and O(check_before=recover), and for an
    account that uses a Microsoft-managed key.
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
      description: Whether this collection can repair every cause.
      type: bool
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

from ansible_collections.azbatch.cmk.plugins.module_utils._azure.cloud import Cloud
from ansible_collections.azbatch.cmk.plugins.module_utils._checks.recovery import require_recoverable
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import NotFound
from ansible_collections.azbatch.cmk.plugins.module_utils._core.ids import check_account_name
from ansible_collections.azbatch.cmk.plugins.module_utils._core.plan import Outcome
from ansible_collections.azbatch.cmk.plugins.module_utils._module import execute
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.account.document import missing, required
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption import document as encryption_document
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.encryption import survey as encryption_survey

ARGUMENTS: dict[str, dict[str, Any]] = {
    "resource_group": {"type": "str", "required": True},
    "account_name": {"type": "str", "required": True},
    "diagnose": {"type": "bool", "default": False},
    "allowed_repairs": {"type": "list", "elements": "str", "choices": ["vault", "network", "key", "access"]},
    "missing": {"type": "str", "default": "skip", "choices": ["fail", "skip"]},
}


def run(params: Mapping[str, Any], cloud: Cloud) -> Outcome:
    group, name = params["resource_group"], check_account_name(params["account_name"], "account_name")
    cloud.change_nothing()
    allowed: list[str] | None = params["allowed_repairs"]
    try:
        observed = cloud.encryption.survey(group, name, diagnose=params["diagnose"] or allowed is not None)
    except NotFound as gone:
        if gone.code != "resource_group_not_found" or params["missing"] == "fail":
            raise
        observed = {"account": None}
    warnings: tuple[str, ...] = ()
    if params["missing"] == "fail":
        required(observed["account"], group, name)
    if allowed is not None:
        if observed["account"] is None:
            warnings = (missing(group, name),)
        else:
            shows = cloud.encryption.pools_show_availability(group, name)
            warnings = require_recoverable(observed, allowed, pools_show=shows)
    described = encryption_survey.survey(observed)
    outcome = Outcome(False, described, described, (*encryption_survey.survey_warnings(observed), *warnings))
    return outcome.summarized(encryption_document.survey_summary(name, described))


def main() -> None:
    execute(ARGUMENTS, run)


if __name__ == "__main__":
    main()
