# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of the modules that audit many accounts."""

from __future__ import annotations


class ModuleDocFragment:
    # The options are those of module_utils/_audit/options.py; tests/unit/project/test_documentation.py ties the two.
    DOCUMENTATION = r"""
options:
  subscriptions:
    description:
      - Ids of the subscriptions to audit. Without O(subscriptions) and O(resource_group), the module audits all
        subscriptions that the caller can read.
    type: list
    elements: str
    default: []
  pools:
    description:
      - List the pools of each account. The pools show whether their disks are encrypted, and whether the account is
        available.
      - This needs one request for each account. All other reads need a few requests for each subscription, vault and
        key.
    type: bool
    default: false
  required:
    description:
      - Accounts that must use a customer-managed key. An item matches an account if all conditions of the item match.
        The empty item V({}) matches all accounts.
    type: list
    elements: dict
    default: []
    suboptions:
      subscriptions:
        description: Ids of subscriptions.
        type: list
        elements: str
        default: []
      resource_groups:
        description: Names of resource groups.
        type: list
        elements: str
        default: []
      locations:
        description: Names of regions, such as V(westeurope).
        type: list
        elements: str
        default: []
      accounts:
        description: Names or resource ids of accounts, with the wildcards V(*) and V(?).
        type: list
        elements: str
        default: []
      tags:
        description: Tags with their values.
        type: dict
        default: {}
  allowed_vaults:
    description: Names of the vaults that may hold keys. By default, all vaults are allowed.
    type: list
    elements: str
    default: []
  max_version_age:
    description: Maximum age of a version, such as V(90d) or the ISO 8601 duration V(P90D). By default, the age is not
      limited.
    type: str
  min_days_to_expiry:
    description: Report a version that expires in fewer days.
    type: int
    default: 30
  expiry_required:
    description: Report versions that never expire.
    type: bool
    default: false
  rbac_only:
    description: Report vaults that use access policies.
    type: bool
    default: false
  key_types:
    description: Allowed types of keys. By default, all types that Batch supports.
    type: list
    elements: str
    choices: [RSA, RSA-HSM]
    default: []
  min_key_size:
    description: Minimum size of a key in bits. By default, all sizes that Batch supports.
    type: int
    choices: [2048, 3072, 4096]
  exceptions:
    description:
      - Findings that are accepted until a date. These findings stay in the result, marked as RV(ignore:accepted), and
        count as open from the next day on.
    type: list
    elements: dict
    default: []
    suboptions:
      finding:
        description: Id of the finding; C(docs/findings.md) lists them.
        type: str
      code:
        description:
          - Code of an error for which the playbooks leave the account alone; C(docs/errors.md) lists them.
          - The playbooks read the same exceptions from the variable C(cmk_exceptions). The audit ignores an item
            without O(exceptions[].finding).
        type: str
      accounts:
        description: Names or resource ids of accounts, with the wildcards V(*) and V(?).
        type: list
        elements: str
        required: true
      reason:
        description: Why the finding is accepted.
        type: str
        required: true
      expires_on:
        description: The last day on which the finding is accepted, such as V(2027-03-31) (UTC).
        type: str
        required: true
"""
