# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The repair of a finding: an inventory with a group of the accounts that have the finding, and a playbook for the
group.

This module util is private to the collection.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from .._core.ids import place_of
from .report import open_findings
from .rules import RULES, Repair

Record = Mapping[str, Any]
# The options of modules that name the account or its vault, set from variables of the inventory.
_NAMES = {
    "account": {
        "subscription_id": "{{ cmk_subscription_id }}",
        "key_identifier": "{{ cmk_key_identifier }}",
        "account_name": "{{ cmk_account_name }}",
        "account_resource_group": "{{ cmk_resource_group }}",
    },
    "vault": {
        "subscription_id": "{{ cmk_vault_subscription_id }}",
        "resource_group": "{{ cmk_vault_resource_group }}",
        "name": "{{ cmk_vault_name }}",
    },
}
# Variables of the role rotate that create a new version of the key.
_MAKES_VERSION = {"cmk_key_new_version", "cmk_key_max_version_age"}


class Ready(NamedTuple):
    """The YAML of two files. Only names in capitals have to be replaced."""

    inventory: str
    playbook: str


def ready(rule: str, report: Mapping[str, Any]) -> Ready | None:
    """The files for all accounts of the report that have this open finding with the remedy of the rule, which the files
    run. None if there is no such account, or if no task of this collection repairs the finding."""
    repair, asked, remedy = RULES[rule].repair, report["options"], RULES[rule].remedy
    accounts = [
        one
        for one in report["accounts"]
        if any(found["id"] == rule and found["remedy"] == remedy for found in open_findings(one))
    ]
    if repair is None or not accounts:
        return None
    # No group of the inventory plugin begins with `finding_`.
    group = f"finding_{rule}"
    options = {**repair.options, **{option: asked[name] for option, name in repair.asked.items()}}
    if asked["expiry_required"] and not _MAKES_VERSION.isdisjoint(options):
        # Otherwise the account would have the finding key_without_expiry after the repair.
        options.setdefault("cmk_key_expires_in", "P1Y")
    condition = _condition(rule, accounts, report)
    return Ready(_inventory(group, condition, accounts), _playbook(group, remedy, repair, options))


def _condition(rule: str, accounts: Sequence[Record], report: Mapping[str, Any]) -> list[str]:
    """Lines of the condition that is true for these accounts. If the accounts share keys, the condition lists the
    keys, because a list of thousands of ids is hard to review."""
    ids = [account["id"].lower() for account in accounts]
    asked = report["options"]
    # `_key` is "" for an account without a customer-managed key.
    keys, affected = dict.fromkeys(_key(account) for account in accounts), set(ids)
    on_keys = [account["id"].lower() for account in report["accounts"] if _key(account) in keys]
    others = [one for one in on_keys if one not in affected]
    by_key = RULES[rule].shared is not None and "" not in keys and not asked["account_name"]
    if not by_key or len(keys) + len(others) >= len(ids):
        return _one_of("cmk_account_id | lower", ids)
    lines = _one_of("cmk_key_identifier | default('', true) | lower", keys)
    if asked["resource_group"]:
        lines += [f"and cmk_resource_group | lower == {json.dumps(asked['resource_group'].lower())}"]
    # Excludes accounts that use the same keys, but do not have the finding or have an exception.
    return [*lines, *_one_of("and cmk_account_id | lower not", others)] if others else lines


def _key(account: Record) -> str:
    return str(account["key_identifier"] or "").lower()


def _one_of(value: str, of: Iterable[str]) -> list[str]:
    return [f"{value} in [", *(f"{json.dumps(one)}," for one in of), "]"]


def _inventory(group: str, condition: Iterable[str], accounts: Sequence[Record]) -> str:
    lines = [
        "plugin: azbatch.cmk.batch_accounts",
        "subscriptions:",
        *(f"  - {one}" for one in sorted({account["subscription_id"].lower() for account in accounts})),
        "groups:",
        f"  {group}: >-",
        *(f"    {line}" for line in condition),
    ]
    # The inventory plugin does not read the subscriptions and resource groups of vaults.
    vaults = {account["vault_name"]: place_of(account["vault"]["id"]) for account in accounts if account["vault"]}
    if vaults:
        lines += [
            "compose:",
            *_by_vault("cmk_vault_resource_group", {name: place[1] for name, place in vaults.items()}),
            *_by_vault("cmk_vault_subscription_id", {name: place[0] for name, place in vaults.items()}),
        ]
    return _yaml(lines)


def _by_vault(variable: str, values: Mapping[str, str]) -> list[str]:
    items = (f"    {json.dumps(vault)}: {json.dumps(value)}," for vault, value in values.items())
    return [f"  {variable}: >-", "    {", *items, "    }[cmk_vault_name]"]


def _playbook(group: str, title: str, repair: Repair, options: Mapping[str, Any]) -> str:
    kind, name = repair.name.split()
    if kind == "role":
        # All accounts at the same time, because Ansible ends a play if all hosts of a wave fail.
        # The playbook provision has no waves, so it does not read the other two variables.
        waves = {} if name == "provision" else {"cmk_serial": "100%", "cmk_max_fail_percentage": 100}
        return _yaml(
            [
                f"- name: {json.dumps(title)}",
                f"  ansible.builtin.import_playbook: azbatch.cmk.{name}",
                "  vars:",
                *_lines(4, {"cmk_hosts": group, **waves, **options}),
            ]
        )
    return _yaml(
        [
            f"- name: {json.dumps(title)}",
            f"  hosts: {group}",
            "  gather_facts: false",
            "  tasks:",
            f"    - name: {json.dumps(title)}",
            f"      azbatch.cmk.{name}:",
            *_lines(8, {**_NAMES[repair.each], **options}),
        ]
    )


def _lines(indent: int, values: Mapping[str, Any]) -> Iterable[str]:
    return (f"{' ' * indent}{name}: {json.dumps(value)}" for name, value in values.items())


def _yaml(lines: Iterable[str]) -> str:
    return "---\n" + "\n".join(lines) + "\n"
