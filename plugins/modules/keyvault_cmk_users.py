#!/usr/bin/python
# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: keyvault_cmk_users
short_description: Report who uses a vault and its keys, and what may be disabled
description:
  - Reports the Batch accounts, pools and resources of other services that use a vault, each with its version of the
    key, and from when on each version may be disabled, by the rules of M(azbatch.cmk.keyvault_cmk_unused_versions).
  - Changes nothing in Azure. It needs the permissions to list keys and their versions, and to read all users
    (O(vault_used_by)). With O(vault_used_by=any), a warning names the users that Azure Resource Graph does not show.
version_added: 1.0.0
author:
  - The azbatch.cmk authors (@azbatch)
options:
  vault_name:
    description: Name of the vault.
    type: str
    required: true
  name:
    description: Name of a key. By default, all keys of the vault are reported.
    type: str
  unused_for:
    description:
      - How long accounts and pools must not have used a version before it may be disabled, as a duration such as
        V(14d), as in M(azbatch.cmk.keyvault_cmk_unused_versions).
    type: str
    default: P7D
  folder:
    description:
      - Folder on the host that runs the module, to which the report is written in O(formats). It is created if
        necessary. By default, and in check mode, no file is written.
    type: path
  report_name:
    description: Name of the files, without a folder and without a suffix.
    type: str
    default: cmk-users
  formats:
    description: Formats of the files.
    type: list
    elements: str
    choices: [json, html]
    default: [json, html]
extends_documentation_fragment:
  - azbatch.cmk.vault_users
  - azbatch.cmk.users_in
  - azbatch.cmk.azure
  - azbatch.cmk.azure.sign_in
  - azbatch.cmk.attributes
seealso:
  - module: azbatch.cmk.keyvault_cmk_unused_versions
  - module: azbatch.cmk.keyvault_cmk_key_state
"""

EXAMPLES = r"""
- name: Report who uses a vault
  azbatch.cmk.keyvault_cmk_users:
    vault_name: myvault
  register: users

- name: Show the versions that may be disabled now
  ansible.builtin.debug:
    msg: "{{ users.vault_keys | map(attribute='versions') | flatten | selectattr('may_be_disabled') }}"

- name: Write a page and a JSON file on one key
  azbatch.cmk.keyvault_cmk_users:
    vault_name: myvault
    name: batch
    unused_for: P14D
    folder: reports
    report_name: myvault
    formats: [json, html]

- name: Report on a vault that only Batch accounts use, with the session of the Azure CLI
  azbatch.cmk.keyvault_cmk_users:
    vault_name: myvault
    vault_used_by: batch
    users_in: [11111111-2222-3333-4444-555555555555]
    auth_source: cli
"""

RETURN = r"""
summary:
  description: One human-readable line about the vault.
  returned: success
  type: str
  sample: "Vault myvault: 2 Batch accounts and 1 storage account use it."
lines:
  description: The report as human-readable lines, one for the vault, each key and each enabled version.
  returned: success
  type: list
  elements: str
  sample:
    - "Vault myvault: 2 Batch accounts and 1 storage account use it."
    - "Key batch: 2 Batch accounts and 1 storage account use it."
    - "Version 01234567… of key batch has to stay enabled: No newer version can be used."
    - "Version fedcba98… of key batch may be disabled now: Nothing uses it."
vault_name:
  description: Name of the vault, in lower case.
  returned: success
  type: str
  sample: myvault
vault_used_by:
  description: The value of O(vault_used_by).
  returned: success
  type: str
  sample: any
generated_on:
  description: Time of the report, in UTC.
  returned: success
  type: str
  sample: "2026-02-01T12:00:00Z"
in_use_by:
  description: Ids of all resources that use the vault.
  returned: success
  type: list
  elements: str
  sample: []
may_be_deleted:
  description: Whether all users are known, and nothing uses the vault.
  returned: success
  type: bool
  sample: false
reason:
  description: Why the vault may be deleted, or why not.
  returned: success
  type: str
  sample: 2 Batch accounts and 1 storage account use it.
vault_keys:
  description: The keys of the vault.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the key.
      type: str
    key_identifier:
      description: Identifier of the key without a version.
      type: str
    exists:
      description: Whether the key exists; null if the key could not be read.
      type: bool
    unknown:
      description: Why the key could not be read; null if it was read.
      type: str
    users:
      description:
        - The resources that use the key. One whose key is not known has no version and does not follow the latest.
      type: list
      elements: dict
      contains:
        id:
          description: Resource id.
          type: str
        name:
          description: Name, with the type unless it is a Batch account.
          type: str
        type:
          description: Type of the resource in lower case.
          type: str
        version:
          description: The version to which the resource is pinned, or that it shows as its current version although it
            follows the latest version. Otherwise null.
          type: str
        follows_latest:
          description: Whether the resource follows the latest version.
          type: bool
        changed_on:
          description: When the resource was last changed, in UTC. It uses the version at least since then. Null if the
            time is not known, as for resources of other services.
          type: str
    versions:
      description: The versions, the newest first.
      type: list
      elements: dict
      contains:
        version:
          description: The version.
          type: str
        enabled:
          description: Whether the version is enabled.
          type: bool
        created_on:
          description: When the version was created, in UTC.
          type: str
        in_use_by:
          description: Ids of the resources that may use the version.
          type: list
          elements: str
        may_be_disabled:
          description: Whether the version may be disabled now.
          type: bool
        may_be_disabled_from:
          description: From when on the version may be disabled if nothing changes until then, in UTC; null if that is
            not known.
          type: str
        reason:
          description: Why the version may be disabled, or why not earlier.
          type: str
    in_use_by:
      description: Ids of the resources that may use the key.
      type: list
      elements: str
    may_be_disabled:
      description: Whether the whole key may be disabled or deleted now.
      type: bool
    may_be_disabled_from:
      description: From when on the whole key may be disabled or deleted, in UTC; null if that is not known.
      type: str
    reason:
      description: Why the whole key may be disabled or deleted, or why not earlier.
      type: str
not_listed:
  description: Why the keys of the vault could not be listed, so that only keys that something uses are reported; null
    if they were listed.
  returned: success
  type: str
  sample: null
unlisted:
  description: The scopes whose users are not all known. If there are any, nothing may be disabled.
  returned: success
  type: list
  elements: dict
  contains:
    scope:
      description: Resource id of a subscription, or Azure Resource Graph.
      type: str
    reason:
      description: Why users may be missing.
      type: str
    action:
      description: The action that the caller lacks at this scope; null if no right is missing.
      type: str
  sample: []
subscriptions_left_out:
  description: Ids of the subscriptions that Azure lists for the caller, and that O(users_in) leaves out.
  returned: success
  type: list
  elements: str
  sample: []
files:
  description: The paths of the files by format.
  returned: success
  type: dict
  sample: {json: reports/cmk-users.json}
code:
  description: Machine-readable error code. The code is stable across releases; C(docs/errors.md) lists all codes.
  returned: failure
  type: str
  sample: invalid_option
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from ansible_collections.azbatch.cmk.plugins.module_utils._arguments import USERS_IN, VAULT_USERS
from ansible_collections.azbatch.cmk.plugins.module_utils._audit import files, users_page
from ansible_collections.azbatch.cmk.plugins.module_utils._checks.usage import left_out, not_listed, not_shown
from ansible_collections.azbatch.cmk.plugins.module_utils._cloud import Cloud
from ansible_collections.azbatch.cmk.plugins.module_utils._core.outcome import Outcome
from ansible_collections.azbatch.cmk.plugins.module_utils._module import execute
from ansible_collections.azbatch.cmk.plugins.module_utils._resources.key import survey

ARGUMENTS: dict[str, dict[str, Any]] = {
    "vault_name": {"type": "str", "required": True},
    "name": {"type": "str"},
    "unused_for": {"type": "str", "default": "P7D"},
    "folder": {"type": "path"},
    "report_name": {"type": "str", "default": "cmk-users"},
    "formats": {"type": "list", "elements": "str", "choices": ["json", "html"], "default": ["json", "html"]},
    **VAULT_USERS,
    **USERS_IN,
}
FORMATS = {"json": (".json", files.as_json), "html": (".html", users_page.as_page)}


def run(params: Mapping[str, Any], cloud: Cloud) -> Outcome:
    asked = survey.asked(params)
    folder = files.prepared(params["folder"]) if params["folder"] and not cloud.predicts else None
    found = cloud.driver.now(partial(survey.survey, asked=asked, facts=cloud.facts))
    written = files.write(found, folder, params["report_name"], params["formats"], FORMATS) if folder else {}
    shown = {**found, "lines": survey.lines(found), "files": written}
    hidden = [found["not_listed"]] if found["not_listed"] else []
    warnings = (*map(not_listed, found["unlisted"]), *hidden, *left_out(found["subscriptions_left_out"]))
    warnings += not_shown(asked.vault_used_by)
    return Outcome(False, shown, shown, warnings).summarized(shown["lines"][0])


def main() -> None:
    execute(ARGUMENTS, run)


if __name__ == "__main__":
    main()
