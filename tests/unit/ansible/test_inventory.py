# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An account as a host: its variables, its name, its groups, and the filters."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.plugins.doc_fragments import constructed, inventory_cache
from documents import (
    KEY,
    NEW,
    OTHER,
    PRINCIPAL,
    SUBSCRIPTION,
    account,
    account_id,
    identity_id,
    system_assigned,
    user_assigned,
)

from ansible_collections.azbatch.cmk.plugins.doc_fragments import azure
from ansible_collections.azbatch.cmk.plugins.inventory import batch_accounts
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import InvalidOption
from ansible_collections.azbatch.cmk.plugins.plugin_utils import _inventory

ROOT = Path(__file__).resolve().parents[3]
MANUAL = (ROOT / "docs" / "inventory.md").read_text(encoding="utf-8")
SPECIFICATIONS = [
    yaml.safe_load(file.read_text(encoding="utf-8"))["argument_specs"][file.parts[-3]]["options"]
    for file in (ROOT / "roles").glob("*/meta/argument_specs.yml")
]
# The variables that every host has, and those that depend on the state of the account.
ALWAYS = _inventory.HostVariables.__required_keys__
SOMETIMES = _inventory.HostVariables.__optional_keys__


def known(name: str = "mybatch", location: str = "westeurope", **changes: Any) -> _inventory.HostVariables:
    return _inventory.host_variables({**account(name, **changes), "location": location})


@pytest.mark.parametrize(
    ("identity", "option", "principals"),
    [
        ({"type": "None"}, None, []),
        (system_assigned(), None, [PRINCIPAL]),
        (user_assigned(one=PRINCIPAL), identity_id("one"), [PRINCIPAL]),
        (user_assigned(two=PRINCIPAL, one=OTHER), identity_id("one"), [PRINCIPAL, OTHER]),
    ],
)
def test_identity_is_a_valid_option_of_provision(identity: Any, option: str | None, principals: list[str]) -> None:
    variables = known(identity=identity)

    assert variables.get("cmk_identity_id") == option
    assert variables["cmk_principal_ids"] == principals


def test_account_without_unset_fields() -> None:
    """Azure omits unset fields."""
    bare = {"id": account_id(), "name": "mybatch", "location": "westeurope", "properties": {}}

    assert _inventory.host_variables(bare)["cmk_provisioning_state"] is None


RECORDS = known(key=f"{KEY}/{NEW}"), known(key=KEY), known()


def test_hosts_are_interleaved_across_subscriptions() -> None:
    places = ["a", "a", "b", "a", "b", "c"]
    records = [{**known(str(number)), "cmk_subscription_id": one} for number, one in enumerate(places)]

    assert [one["cmk_account_name"] for one in _inventory.interleaved(records)] == ["0", "2", "5", "1", "4", "3"]


@pytest.mark.parametrize("name", ["all", "pinned", "Localhost"])
def test_reserved_names_get_the_region(name: str) -> None:
    assert _inventory.host_name(known(name), set()) == f"{name}.westeurope"


def holds_for(*conditions: Any) -> Callable[[Any], bool]:
    return lambda condition: condition in conditions


@pytest.mark.parametrize(
    ("filters", "included"),
    [
        ([{"exclude": "yes"}], False),
        ([{"include": "yes"}, {"exclude": "yes"}], True),
        ([{"exclude": "yes"}, {"include": "yes"}], False),
        ([{"include": "no"}, {"exclude": True}], False),
    ],
)
def test_first_filter_that_holds_decides(filters: list[Any], included: bool) -> None:
    assert _inventory.is_included(_inventory.host_filters(filters), holds_for("yes", True)) is included


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        {"include": "a", "exclude": "b"},
        {"include": None},
        {"exclude": 1},
    ],
)
def test_the_error_of_a_wrong_filter_shows_the_syntax(wrong: Any) -> None:
    with pytest.raises(InvalidOption, match=r"filters is .*`include: CONDITION` or `exclude: CONDITION`") as refused:
        _inventory.host_filters([{"include": "a"}, wrong])

    assert refused.value.facts["value"] == wrong


@pytest.mark.parametrize("wrong", ["production", None])
def test_subscription_that_is_no_guid(wrong: Any) -> None:
    with pytest.raises(InvalidOption, match=r"subscriptions is .*GUID") as refused:
        _inventory.checked_subscriptions([SUBSCRIPTION, wrong])

    assert refused.value.code == "invalid_option"


# The documentation


def documented(table: str) -> dict[str, str]:
    """The names in the first column of the table with that heading, and the last column."""
    rows = MANUAL.partition(table)[2].partition("\n\n")[0].splitlines()
    cells = [row.strip("| ").split(" | ") for row in rows if row.startswith("| `")]
    return {name: row[-1] for row in cells for name in re.findall(r"`([^`]+)`", row[0])}


def test_a_group_has_one_key() -> None:
    """Also if the names of vaults and keys contain hyphens."""
    keys = [("kv-a", "b-c"), ("kv-a-b", "c"), ("kv", "a-b-c"), ("kv-a", "-b-c"), ("kv", "-a-b-c"), ("source", "x")]
    accounts = [known(key=f"https://{vault}.vault.azure.net/keys/{key}/{NEW}") for vault, key in keys]
    named = [{name.replace("-", "_") for name in _inventory.groups(one) if name.startswith("key_")} for one in accounts]

    # One group for the key source, which all accounts share, and one group for each key.
    assert len(set.union(*named)) == len(keys) + 1


def test_manual_lists_the_variables() -> None:
    rows = documented("| Variable | Description | Role option |")

    assert set(rows) == ALWAYS | SOMETIMES
    options = {name for options in SPECIFICATIONS for name in options}
    assert {name for name, is_option in rows.items() if is_option == "yes"} == options & (ALWAYS | SOMETIMES)


def test_manual_lists_the_groups() -> None:
    names = ("cmk_subscription_id", "cmk_location", "cmk_resource_group", "cmk_vault_name", "cmk_key_name")
    anonymous = [{**one, **{name: "X" for name in names if name in one}} for one in RECORDS]
    rows = documented("| Group | Accounts in the group |")

    assert {re.sub(r"[A-Z]+", "X", name) for name in rows} == {
        name for one in anonymous for name in _inventory.groups(one)
    }


def examples() -> list[dict[str, Any]]:
    """The examples in the plugin's documentation and in the manual."""
    blocks = re.findall(r"```yaml\n(plugin: .*?)```", MANUAL, re.S)
    return [one for text in (batch_accounts.EXAMPLES, *blocks) for one in yaml.safe_load_all(text)]


@pytest.mark.parametrize("example", examples())
def test_examples_use_documented_options(example: dict[str, Any]) -> None:
    texts = (
        batch_accounts.DOCUMENTATION,
        azure.ModuleDocFragment.SIGN_IN,
        constructed.ModuleDocFragment.DOCUMENTATION,
        inventory_cache.ModuleDocFragment.DOCUMENTATION,
    )
    options = {name for text in texts for name in yaml.safe_load(text)["options"]}

    assert example["plugin"] == batch_accounts.InventoryModule.NAME
    assert set(example) <= options
    assert len(_inventory.host_filters(example.get("filters", []))) == len(example.get("filters", []))
    assert _inventory.checked_subscriptions(example.get("subscriptions", [])) == example.get("subscriptions", [])
