# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What repairs a finding, as a task of this collection that can be run as it stands.

This module util is private to the collection.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .._core.ids import place_of
from .rules import RULES, Repair

Record = Mapping[str, Any]
# More make a task that nobody reads.
_MOST = 50


def task(rule: str, accounts: Sequence[Record], asked: Mapping[str, Any]) -> str | None:
    """YAML for these accounts, or for the vaults that they are on; none if no task repairs it.

    `asked` is the policy."""
    repair = RULES[rule].repair
    items = list(_items(repair, accounts)) if repair else []
    if repair is None or not items:
        return None
    kind, name = repair.name.split()
    options = {**_options(repair), **repair.options, **{option: asked[name] for option, name in repair.asked.items()}}
    lines = [f"- name: {json.dumps(RULES[rule].remedy)}"]
    if kind == "role":
        lines += ["  ansible.builtin.include_role:", f"    name: azbatch.cmk.{name}", "  vars:"]
    else:
        lines.append(f"  azbatch.cmk.{name}:")
    lines += [f"    {option}: {json.dumps(value)}" for option, value in options.items()]
    lines += ["  loop:", *(f"    - {json.dumps(item)}" for item in items[:_MOST])]
    if len(items) > _MOST:
        lines.append(f"    # And {len(items) - _MOST} more; the report in JSON has all of them.")
    return "\n".join(lines) + "\n"


def _items(repair: Repair, accounts: Iterable[Record]) -> Iterable[dict[str, str]]:
    if repair.each == "account":
        return (_names_of_account(account) for account in accounts)
    vaults = {account["vault"]["id"].lower(): account["vault"]["id"] for account in accounts if account["vault"]}
    return (_names_of_vault(vault) for vault in vaults.values())


def _names_of_account(account: Record) -> dict[str, str]:
    names = {"subscription": "subscription_id", "group": "resource_group", "account": "name"}
    if account["key_name"]:
        names.update(vault="vault_name", key="key_name")
    if account["vault"]:
        return {**{item: account[field] for item, field in names.items()}, "vault_group": _group_of(account["vault"])}
    return {item: account[field] for item, field in names.items()}


def _names_of_vault(vault_id: str) -> dict[str, str]:
    subscription, group, name = place_of(vault_id)
    return {"subscription": subscription, "group": group, "vault": name}


def _group_of(vault: Mapping[str, Any]) -> str:
    return place_of(vault["id"])[1]


def _options(repair: Repair) -> dict[str, Any]:
    if repair.each == "vault":
        return {
            "subscription_id": "{{ item.subscription }}",
            "resource_group": "{{ item.group }}",
            "name": "{{ item.vault }}",
        }
    return {
        "cmk_subscription_id": "{{ item.subscription }}",
        "cmk_resource_group": "{{ item.group }}",
        "cmk_account_name": "{{ item.account }}",
        "cmk_vault_name": "{{ item.vault }}",
        "cmk_vault_resource_group": "{{ item.vault_group | default(item.group) }}",
        "cmk_key_name": "{{ item.key }}",
    }
