# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A role asks for nothing that its variables do not name: no force, no removed policy, no further version."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
from documents import KEY, OLD, account
from wishes import provision_goal, revert_goal, rotation_goal

GOALS = {
    "provision": provision_goal(),
    "provision, everything": provision_goal(expires_in="P90D", follow_latest=True, recover=True),
    "rotate": rotation_goal(),
    "rotate, everything": rotation_goal(max_version_age="P90D", previous_version="disable", expires_in="P90D"),
    "rotate to another key": rotation_goal(new_key_identifier=f"{KEY}2", previous_version="disable"),
    "revert": revert_goal(),
    "revert, disable": revert_goal(key="disable", access="withdraw"),
    "revert, delete": revert_goal(key="delete", access="withdraw"),
}
EACH = pytest.mark.parametrize("goal", GOALS.values(), ids=GOALS)


def parts(goal: Any) -> Iterator[Any]:
    """The goal and those in it."""
    if is_dataclass(goal):
        yield goal
        for field in fields(goal):
            yield from parts(getattr(goal, field.name))


@EACH
@pytest.mark.parametrize(
    "wish", ["force", "remove_rotation_policy", "new_version", "trusted_services", "withdrawn", "key_identifier"]
)
def test_what_is_not_asked_for_is_not_wished(goal: Any, wish: str) -> None:
    assert [part for part in parts(goal) if getattr(part, wish, None)] == []


def test_a_new_version_is_wished_for_if_it_is_asked_for() -> None:
    assert rotation_goal(new_version=True).key.new_version is True


def test_a_provision_wishes_for_a_vault_and_an_account() -> None:
    goal = provision_goal()

    assert (goal.vault.present, goal.account.present, goal.key.state) == (True, True, "present")


@pytest.mark.parametrize(("named", "group"), [(None, "rg-batch"), ("rg-keys", "rg-keys")])
def test_the_vault_is_in_the_resource_group_of_the_account_unless_another_one_is_named(
    named: str | None, group: str
) -> None:
    assert provision_goal(vault_resource_group=named).vault.group == group
    assert revert_goal(vault_resource_group=named).vault_group == group


@pytest.mark.parametrize("vault_name", ["myvault", "MyVault"])
@pytest.mark.parametrize("key_name", ["batch", "BATCH"])
@pytest.mark.parametrize("used", [KEY, f"{KEY}/{OLD}", f"{KEY.replace('batch', 'Batch')}/{OLD}"])
def test_a_key_is_the_same_in_any_letter_case(vault_name: str, key_name: str, used: str) -> None:
    names = {"vault_name": vault_name, "key_name": key_name}

    assert rotation_goal(**names).names_key_of(account(key=used))
    assert revert_goal(**names).leaves_behind_key_of(account(key=used))


@pytest.mark.parametrize(
    "used", [f"{KEY}2", f"{KEY}2/{OLD}", "https://vault2.vault.azure.net/keys/batch"], ids=["name", "version", "vault"]
)
def test_another_key_is_not_the_named_one(used: str) -> None:
    assert not rotation_goal().names_key_of(account(key=used))
    assert not revert_goal().leaves_behind_key_of(account(key=used))
