#!/usr/bin/python
# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: batch_encryption_audit
short_description: Report where Batch accounts stand with their keys
description:
  - Looks at all Batch accounts of subscriptions, of a resource group, or at one, with the vaults and keys that they
    depend on, judges them by a policy, and writes reports.
  - Nothing in Azure is changed, and the permission to read is enough. What could not be seen is reported as not seen.
  - The number of requests grows with that of the subscriptions, vaults and keys, and not with that of the accounts,
    lists of more than a page and O(pools) aside.
version_added: 0.1.0
author:
  - The azbatch.cmk authors (@azbatch)
options:
  resource_group:
    description: Look at the accounts of this resource group only, in the subscription O(subscription_id).
    type: str
  account_name:
    description: Look at this account of O(resource_group) only.
    type: str
  folder:
    description:
      - Folder that the reports are written to, where the task runs. It is made if it is not there. Without it, nothing
        is written; nor is it in check mode.
    type: path
  name:
    description: What the reports' files are called, before V(.json), V(.csv), V(.junit.xml), V(.sarif) and V(.html).
    type: str
    default: cmk-audit
  formats:
    description:
      - Formats of the reports. V(json) has everything (its schema is C(docs/audit.schema.json)), V(csv) a row for each
        account, V(junit) is for pipelines, V(sarif) for code scanning, V(html) a page for people that needs no network.
    type: list
    elements: str
    choices: [json, csv, junit, sarif, html]
    default: [json, csv, junit, sarif, html]
  compare_with:
    description:
      - An earlier report in JSON. What has changed since is told. It may be the one that is about to be replaced. If
        there is no such file, this is said as a warning.
    type: path
  return_accounts:
    description: Return RV(accounts), which is long for many accounts.
    type: bool
    default: false
  fail_on:
    description: Fail if there is an open finding of this severity or a graver one, after the reports are written.
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
"""

EXAMPLES = r"""
- name: Report on all accounts, and fail if one is at risk or breaks a rule
  azbatch.cmk.batch_encryption_audit:
    required:
      - tags:
          environment: production
    max_version_age: P90D
    folder: reports
    compare_with: reports/cmk-audit.json
    fail_on: high
  register: audit

- name: Accept what is known, until a day
  azbatch.cmk.batch_encryption_audit:
    subscriptions:
      - 11111111-2222-3333-4444-555555555555
    rbac_only: true
    exceptions:
      - finding: vault_uses_access_policies
        accounts: [legacy*]
        reason: Moves to the new vault with the next release
        expires_on: "2027-03-31"
    folder: reports

- name: Read the findings as data
  azbatch.cmk.batch_encryption_audit:
    max_version_age: P90D
    return_accounts: true
  register: fleet

- name: Name the accounts that have lost their key, or are about to
  ansible.builtin.debug:
    msg: "{{ fleet.accounts | selectattr('state', 'equalto', 'at_risk') | map(attribute='name') }}"
"""

RETURN = r"""
summary:
  description: One line for a person, on how many accounts there are and in which state.
  returned: success, and failure because of O(fail_on)
  type: str
  sample: "120 Batch accounts, 117 on customer-managed keys: 1 at risk, 4 break rules, 0 unknown, 115 ok."
counts:
  description: How many accounts there are, on which keys and in which state, and how many open findings of which kind.
  returned: success, and failure because of O(fail_on)
  type: dict
  sample:
    accounts: 120
    on_customer_managed_key: 117
    states: {at_risk: 1, breaks_rules: 4, unknown: 0, ok: 115}
accounts:
  description:
    - Each account with its findings, those at risk first. C(docs/audit.schema.json) has all fields, C(docs/audit.md)
      all findings.
    - What could not be seen is null, and is named in C(unknown) with the reason.
  returned: success, and failure because of O(fail_on), with O(return_accounts=true)
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
files:
  description: Paths of the reports by format; empty without O(folder) and in check mode.
  returned: success, and failure because of O(fail_on)
  type: dict
  sample:
    json: reports/cmk-audit.json
    html: reports/cmk-audit.html
findings:
  description:
    - The open findings that are as grave as O(fail_on) or graver, as lines to read, the gravest accounts first; without
      O(fail_on) those that are critical.
    - At most 100 of them; the reports have all.
  returned: success, and failure because of O(fail_on)
  type: list
  elements: str
  sample:
    - "mybatch: vault_uses_access_policies (medium): kv-legacy goes by access policies."
comparison:
  description: How many accounts have appeared, vanished and changed, and how many findings were opened and closed,
    since O(compare_with); null without.
  returned: success, and failure because of O(fail_on)
  type: dict
  sample:
    since: "2026-11-24T06:00:00Z"
    appeared: 1
    vanished: 0
    changed: 3
    opened: 1
    closed: 2
unseen_subscriptions:
  description: Ids of the subscriptions whose accounts could not all be listed.
  returned: success, and failure because of O(fail_on)
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
  returned: success, and failure because of O(fail_on)
  type: list
  elements: dict
  sample: []
code:
  description: What went wrong, as a stable word; C(docs/errors.md) lists them.
  returned: failure
  type: str
  sample: audit_failed
"""

from collections.abc import Mapping
from typing import Any

from ansible_collections.azbatch.cmk.plugins.module_utils._audit import audit, files, options
from ansible_collections.azbatch.cmk.plugins.module_utils._audit.rules import SEVERITIES
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.cloud import Cloud
from ansible_collections.azbatch.cmk.plugins.module_utils._core.plan import Outcome
from ansible_collections.azbatch.cmk.plugins.module_utils._module import execute

ARGUMENTS: dict[str, dict[str, Any]] = {
    **options.SCOPE,
    **options.POLICY,
    "folder": {"type": "path"},
    "name": {"type": "str", "default": "cmk-audit"},
    "formats": {"type": "list", "elements": "str", "choices": list(files.FORMATS), "default": list(files.FORMATS)},
    "compare_with": {"type": "path"},
    "return_accounts": {"type": "bool", "default": False},
    "fail_on": {"type": "str", "choices": [*SEVERITIES, "never"], "default": "never"},
}


def run(params: Mapping[str, Any], cloud: Cloud) -> Outcome:
    return audit.run(params, cloud, writes=not cloud.is_rehearsal)


def main() -> None:
    execute(ARGUMENTS, run)


if __name__ == "__main__":
    main()
