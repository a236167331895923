#!/usr/bin/python
# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: batch_encryption_audit
short_description: Audit the keys of Batch accounts
description:
  - Reads the Batch accounts of subscriptions or of a resource group, or a single account, with their vaults and keys.
    Checks them against a policy, and writes reports.
  - Changes nothing in Azure. The permission to read is sufficient. Items that cannot be read are reported as unknown,
    never as compliant.
  - The number of requests depends on the number of subscriptions, vaults and keys. The number of accounts matters only
    for lists of more than one page and for O(pools).
  - Lists the resources of other services that use the vaults, such as storage accounts (O(vault_used_by)).
version_added: 1.0.0
author:
  - The azbatch.cmk authors (@azbatch)
options:
  resource_group:
    description: Audit only the accounts of this resource group, in the subscription O(subscription_id).
    type: str
  account_name:
    description: Audit only this account of O(resource_group).
    type: str
  folder:
    description:
      - Folder for the reports, on the host that runs the task. The folder is created if it does not exist.
      - Without this option, and in check mode, no report is written.
    type: path
  name:
    description: File name of the reports, without extensions such as V(.json) and V(.junit.xml).
    type: str
    default: cmk-audit
  formats:
    description:
      - Formats of the reports.
      - V(json) contains all data, in the schema C(docs/audit.schema.json). V(csv) has a row for each account.
      - V(junit) is for pipelines, and V(sarif) for code scanning. V(html) is a human-readable page that needs no
        network.
      - V(evidence) is a page for auditors. It names for requirements of PCI DSS, ISO/IEC 27001 and NIST SP 800-57 what
        the data prove and what they cannot, with the owner, the versions and the users of each key. Beside it, the file
        with the extension C(.sha256) has the checksums of all reports.
    type: list
    elements: str
    choices: [json, csv, junit, sarif, html, evidence]
    default: [json, csv, junit, sarif, html]
  compare_with:
    description:
      - An earlier report in JSON. The module reports the changes since that report. The earlier report may be the file
        that this task replaces.
      - If the file does not exist, the module returns a warning.
    type: path
  drill_folder:
    description: Folder with the reports of drills, whose last results the reports then have. Other files are ignored.
    type: path
  vault_used_by:
    description:
      - Which services use the vaults.
      - With V(any), the reports have the resources of all services that use a vault of the accounts,
        with one query of Azure Resource Graph for twenty vaults. If the caller lacks the right C(*/read) at a
        subscription, or if a query fails, the reports have the resources that were found, and the reason why others
        may be missing. The task does not fail, and no finding depends on these resources.
      - Azure Resource Graph does not show encryption protectors of SQL, encryption scopes of storage accounts, volume
        groups of Elastic SAN and search indexes. The page says so.
      - With V(batch), no query is made.
    type: str
    default: any
    choices: [any, batch]
  return_accounts:
    description: Return RV(accounts) and RV(vaults). The values are large if there are many accounts.
    type: bool
    default: false
  fail_on:
    description:
      - Fail if there is an open finding of this severity or a higher severity, after the reports are written.
      - Also fail if accounts could not be listed, or if an account has the open finding V(not_read), because such an
        account may have any finding.
    type: str
    choices: [critical, high, medium, low, info, never]
    default: never
extends_documentation_fragment:
  - azbatch.cmk.azure
  - azbatch.cmk.azure.sign_in
  - azbatch.cmk.audit
  - azbatch.cmk.attributes
seealso:
  - module: azbatch.cmk.batch_encryption_info
  - module: azbatch.cmk.keyvault_cmk_users
"""

EXAMPLES = r"""
- name: Report on all accounts, and fail if a finding has the severity high or critical
  azbatch.cmk.batch_encryption_audit:
    required:
      - tags:
          environment: production
    max_version_age: P90D
    folder: reports
    compare_with: reports/cmk-audit.json
    fail_on: high
  register: audit

- name: Accept known findings until a date
  azbatch.cmk.batch_encryption_audit:
    subscriptions:
      - 11111111-2222-3333-4444-555555555555
    rbac_only: true
    exceptions:
      - finding: vault_uses_access_policies
        accounts: [legacy*]
        reason: Moves to the new vault with the next release
        expires_on: "2027-03-31"
      # The same list accepts errors in the playbooks.
      - finding: not_read
        code: network_denied
        accounts: [batch-private]
        reason: The job in its network rotates its key
        expires_on: "2027-03-31"
    folder: reports

- name: Require customer-managed keys of a resource group in two regions, and of some accounts of a subscription
  azbatch.cmk.batch_encryption_audit:
    required:
      - resource_groups: [rg-batch]
        locations: [westeurope, northeurope]
      - subscriptions: [11111111-2222-3333-4444-555555555555]
        accounts: [prod*]
    folder: reports

- name: Read the findings as data
  azbatch.cmk.batch_encryption_audit:
    max_version_age: P90D
    return_accounts: true
  register: fleet

- name: Show the accounts that have lost their key, or will lose it soon
  ansible.builtin.debug:
    msg: "{{ fleet.accounts | selectattr('state', 'equalto', 'at_risk') | map(attribute='name') }}"

- name: Check keys and vaults against all rules, and write two formats
  azbatch.cmk.batch_encryption_audit:
    allowed_vaults: [kv-batch-west, kv-batch-north]
    key_types: [RSA-HSM]
    min_key_size: 3072
    expiry_required: true
    min_days_to_expiry: 45
    folder: reports
    name: weekly
    formats: [json, sarif]

- name: Write evidence for auditors
  azbatch.cmk.batch_encryption_audit:
    max_version_age: P365D
    folder: reports
    formats: [json, html, evidence]
    drill_folder: cmk-drill

- name: Report on one account, with the disk encryption of its pools
  azbatch.cmk.batch_encryption_audit:
    resource_group: rg-batch
    account_name: mybatch
    pools: true
    return_accounts: true

- name: Report on the accounts of two subscriptions, whose vaults no other service uses
  azbatch.cmk.batch_encryption_audit:
    subscriptions:
      - 11111111-2222-3333-4444-555555555555
      - 66666666-7777-8888-9999-000000000000
    vault_used_by: batch
    folder: reports

- name: Report on all accounts of a national cloud, with a user-assigned managed identity of the machine
  azbatch.cmk.batch_encryption_audit:
    folder: reports
    auth_source: msi
    client_id: 22222222-3333-4444-5555-666666666666
    cloud_environment: AzureChinaCloud
"""

RETURN = r"""
summary:
  description:
    - One human-readable line with the number of accounts in each state. If not everything could be read, C(Incomplete)
      and the reason follow. The open findings are sorted by severity.
  returned: success, and failure because of O(fail_on)
  type: str
  sample: "1 of 120 Batch accounts at risk, 4 non-compliant, 0 unknown, 115 ok. On customer-managed keys: 117."
counts:
  description: The number of accounts by key and by state, and the number of open findings by kind.
  returned: success, and failure because of O(fail_on)
  type: dict
  sample:
    accounts: 120
    on_customer_managed_key: 117
    states: {at_risk: 1, non_compliant: 4, unknown: 0, under_way: 0, ok: 115}
accounts:
  description:
    - Each account with its findings, those at risk first. C(docs/audit.schema.json) has all fields, C(docs/findings.md)
      all findings.
    - Values that could not be read are null. C(unknown) names each of them with the reason, and C(missing_rights) has
      the rights that the caller lacks.
  returned: success, and failure because of O(fail_on), with O(return_accounts=true)
  type: list
  elements: dict
  sample:
    - name: mybatch
      state: non_compliant
      key_source: microsoft_keyvault
      version_age_days: 120
      days_left: 245
      findings:
        - id: version_too_old
          severity: medium
          evidence: Version 0123456789abcdef0123456789abcdef was created 120 days ago; 90 days are allowed.
          remedy: "Rotate: create a new version and move the account to it."
          deadline: null
          accepted: false
vaults:
  description:
    - The vaults of the accounts, each with the resources of other services that use the vault.
    - RV(vaults[].resources) is null if no resource was found and not all are known. RV(vaults[].unknown) is the reason
      why resources may be missing, and null if none are missing.
  returned: success, and failure because of O(fail_on), with O(return_accounts=true)
  type: list
  elements: dict
  contains:
    vault_name:
      description: Name of the vault, in lower case.
      type: str
    resources:
      description: The resources, each with its C(id), C(name), C(type) and C(used_keys). If C(used_keys) is empty, the
        resource uses the vault otherwise, for example a secret.
      type: list
      elements: dict
    unknown:
      description: Why not all resources may be known.
      type: str
  sample:
    - vault_name: myvault
      resources:
        - id: /subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/rg/providers/Microsoft.Sql/servers/sql1
          name: SQL server sql1
          type: microsoft.sql/servers
          used_keys:
            - name: batch
              version: 0123456789abcdef0123456789abcdef
              follows_latest: false
      unknown: null
files:
  description: Paths of the reports by format; empty without O(folder) and in check mode.
  returned: success, and failure because of O(fail_on)
  type: dict
  sample:
    json: reports/cmk-audit.json
    html: reports/cmk-audit.html
findings:
  description:
    - The open findings of the severity O(fail_on) or higher, as human-readable lines, the most urgent first. Without
      O(fail_on), the critical findings.
    - At most 100 findings. The reports contain all findings.
  returned: success, and failure because of O(fail_on)
  type: list
  elements: str
  sample:
    - "mybatch: vault_uses_access_policies (medium): kv-legacy uses access policies."
comparison:
  description: The number of added, removed and changed accounts, and of findings that were opened and
    closed, since O(compare_with); null without O(compare_with).
  returned: success, and failure because of O(fail_on)
  type: dict
  sample:
    since: "2026-11-24T06:00:00Z"
    added: 1
    removed: 0
    changed: 3
    opened: 1
    closed: 2
unlisted_subscriptions:
  description: Ids of the subscriptions whose accounts could not all be listed.
  returned: success, and failure because of O(fail_on)
  type: list
  elements: str
  sample: []
unlisted:
  description:
    - The subscriptions of RV(unlisted_subscriptions), each with the reason why its accounts could not all be listed.
  contains:
    scope:
      description: Resource id of the subscription.
      type: str
    reason:
      description: Why its accounts could not be listed, or why the list may be incomplete.
      type: str
    action:
      description: The action that the caller lacks at this scope; null if no right is missing.
      type: str
  returned: success, and failure because of O(fail_on)
  type: list
  elements: dict
  sample: []
code:
  description: Machine-readable error code. The code is stable across releases; C(docs/errors.md) lists all codes.
  returned: failure
  type: str
  sample: audit_failed
"""

from collections.abc import Mapping
from typing import Any

from ansible_collections.azbatch.cmk.plugins.module_utils._arguments import VAULT_USERS
from ansible_collections.azbatch.cmk.plugins.module_utils._audit import audit, files, options
from ansible_collections.azbatch.cmk.plugins.module_utils._audit.rules import SEVERITIES
from ansible_collections.azbatch.cmk.plugins.module_utils._cloud import Cloud
from ansible_collections.azbatch.cmk.plugins.module_utils._core.outcome import Outcome
from ansible_collections.azbatch.cmk.plugins.module_utils._module import execute

ARGUMENTS: dict[str, dict[str, Any]] = {
    **options.SCOPE,
    **options.POLICY,
    **VAULT_USERS,
    "folder": {"type": "path"},
    "name": {"type": "str", "default": "cmk-audit"},
    "formats": {"type": "list", "elements": "str", "choices": list(files.FORMATS), "default": list(files.USUAL)},
    "compare_with": {"type": "path"},
    "drill_folder": {"type": "path"},
    "return_accounts": {"type": "bool", "default": False},
    "fail_on": {"type": "str", "choices": [*SEVERITIES, "never"], "default": "never"},
}


def run(params: Mapping[str, Any], cloud: Cloud) -> Outcome:
    return audit.run(params, cloud, writes=not cloud.predicts)


def main() -> None:
    execute(ARGUMENTS, run)


if __name__ == "__main__":
    main()
