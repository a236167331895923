# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The repair of a finding: an inventory with the accounts that have the finding, and a playbook for the accounts.

This module util is private to the collection.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from .._core.ids import place_of
from .rules import RULES, Repair

Record = Mapping[str, Any]
# More make a playbook that nobody reads.
_MOST = 50
# The data of an account that the modules need: variables of the inventory.
_NAMES = {
    "account": {
        "subscription_id": "{{ cmk_subscription_id }}",
        "key_identifier": "{{ cmk_key_identifier }}",
        "account_name": "{{ cmk_account_name }}",
        "account_resource_group": "{{ cmk_resource_group }}",
    },
    "vault": {
        "subscription_id": "{{ vault_subscription_id }}",
        "resource_group": "{{ cmk_vault_resource_group }}",
        "name": "{{ cmk_vault_name }}",
    },
}


class Ready(NamedTuple):
    """YAML of two files, without anything that has to be added but names in capitals."""

    inventory: str
    playbook: str


def ready(rule: str, accounts: Sequence[Record], asked: Mapping[str, Any]) -> Ready | None:
    """The files for these accounts; none if no task of this collection repairs the finding.

    `asked` is the policy."""
    repair = RULES[rule].repair
    if repair is None or not accounts:
        return None
    # No group of the inventory plugin begins so.
    group = f"finding_{rule}"
    options = {**repair.options, **{option: asked[name] for option, name in repair.asked.items()}}
    return Ready(_inventory(group, accounts), _playbook(group, RULES[rule].remedy, repair, options))


def _inventory(group: str, accounts: Sequence[Record]) -> str:
    named = accounts[:_MOST]
    lines = [
        "plugin: azbatch.cmk.batch_accounts",
        "subscriptions:",
        *(f"  - {one}" for one in sorted({account["subscription_id"].lower() for account in named})),
        "groups:",
        # By their ids: a name is an account's own in its region only.
        f"  {group}: >-",
        "    cmk_account_id | lower in [",
        *(f"    {json.dumps(account['id'].lower())}," for account in named),
        "    ]",
    ]
    if len(accounts) > _MOST:
        lines.append(f"# And {len(accounts) - _MOST} more accounts. Repair these, then run the audit again.")
    # A list of accounts does not show the locations of their vaults.
    vaults = {account["vault_name"]: place_of(account["vault"]["id"]) for account in named if account["vault"]}
    if vaults:
        lines += [
            "compose:",
            *_by_vault("cmk_vault_resource_group", {name: place[1] for name, place in vaults.items()}),
            *_by_vault("vault_subscription_id", {name: place[0] for name, place in vaults.items()}),
        ]
    return _yaml(lines)


def _by_vault(variable: str, values: Mapping[str, str]) -> list[str]:
    items = (f"    {json.dumps(vault)}: {json.dumps(value)}," for vault, value in values.items())
    return [f"  {variable}: >-", "    {", *items, "    }[cmk_vault_name]"]


def _playbook(group: str, title: str, repair: Repair, options: Mapping[str, Any]) -> str:
    kind, name = repair.name.split()
    if kind == "role":
        # All accounts at the same time, because Ansible ends a play if all hosts of a wave fail.
        alone = {"cmk_hosts": group, "cmk_serial": "100%", "cmk_max_fail_percentage": 100}
        return _yaml(
            [
                f"- name: {json.dumps(title)}",
                f"  ansible.builtin.import_playbook: azbatch.cmk.{name}",
                "  vars:",
                *_lines(4, {**alone, **options}),
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
