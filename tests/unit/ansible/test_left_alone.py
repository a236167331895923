# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lines about accounts that were left alone: one for each cause, with one command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import CmkError
from ansible_collections.azbatch.cmk.plugins.plugin_utils._left_alone import lines, links, read_exceptions

KEY = "https://vault1.vault.azure.net/keys/key1"
GROUPS = {
    "all": ["a1", "a2", "a3", "other"],
    "vault_vault1": ["a1", "a2", "a3", "other"],
    "key_vault1__key1": ["a1", "a2", "a3"],
    "location_westeurope": ["a1", "a2", "a3"],
}


def note(host: str, code: str = "account_unavailable", reason: str = "", remedy: str = "Recover it.") -> dict[str, str]:
    reason = reason or f"The Batch account {host} is not available: version {KEY}/{host[-1] * 32} is disabled. {remedy}"
    return {"host": host, "playbook": "cmk_rotate_result", "name": host, "code": code, "reason": reason} | {
        "remedy": remedy
    }


def said(*notes: dict[str, str], inventories: Sequence[str] = ("inventory.yml",)) -> list[str]:
    return lines(notes, GROUPS, inventories)


def test_hosts_with_the_same_cause_are_one_line_with_one_command() -> None:
    """Their messages differ only in the account and the version."""
    [line] = said(note("a1"), note("a2"), note("a3"))

    assert line.startswith("3 hosts (a1, a2, a3) for the same cause (account_unavailable). For example, a1: The Batch")
    assert line.endswith("Run: ansible-playbook -i inventory.yml azbatch.cmk.recover -e cmk_hosts=key_vault1__key1")


@pytest.mark.parametrize(
    ("hosts", "pattern"),
    [
        pytest.param(["a1"], "a1", id="one host"),
        pytest.param(["a1", "a2"], "key_vault1__key1", id="the group of the key has all of them"),
        pytest.param(["a1", "other"], "vault_vault1", id="the group of the vault has all of them"),
        pytest.param(["a1", "new"], "a1,new", id="no group has all of them"),
    ],
)
def test_the_command_names_the_smallest_group_of_a_key_or_a_vault(hosts: list[str], pattern: str) -> None:
    [line] = said(*map(note, hosts))

    assert line.rpartition("cmk_hosts=")[2] == pattern


def test_the_keys_of_a_vault_share_a_cause_of_the_vault() -> None:
    def closed(host: str, vault: str, key: str) -> dict[str, str]:
        uses = f"It uses https://{vault}.vault.azure.net/keys/{key}/{host[-1] * 32}."
        return note(host, reason=f"The Batch account {host} is not available: The firewall blocks Batch. {uses}")

    found = said(closed("a1", "vault1", "key1"), closed("other", "vault1", "key2"), closed("b1", "vault2", "key1"))

    assert len(found) == 2
    assert found[0].startswith("2 hosts (a1, other) for the same cause")
    assert found[1].startswith("b1: ")


def test_versions_of_two_keys_are_two_causes() -> None:
    disabled = note("a1")
    other = note("other", reason=note("other")["reason"].replace("key1", "key2"))

    assert [line.rpartition("cmk_hosts=")[2] for line in said(disabled, note("a2"), other)] == [
        "key_vault1__key1",
        "other",
    ]


def test_accounts_that_an_exception_accepts_are_one_short_line() -> None:
    accepted = {"accepted": "accepted until 2027-03-31 (Private)"}

    found = said(note("a1") | accepted, note("a2"), note("a3") | accepted)

    assert found[0] == "a1, a3: account_unavailable, accepted until 2027-03-31 (Private)."
    assert found[1].startswith("a2: The Batch account")
    assert links([note("a1") | accepted]) == []


GOOD = {"code": "network_denied", "accounts": ["a*"], "reason": "Private", "expires_on": "2027-03-31"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("a1", "it is not a list of dictionaries"),
        ([1], "it is not a list of dictionaries"),
        ([GOOD, {"code": "network_denied"}], "cmk_exceptions[1] is {'code': 'network_denied'}: missing required arg"),
        ([{**GOOD, "until": "2027-03-31"}], "it must not have the key until"),
        ([{**GOOD, "code": "network_deny"}], "there is no error code 'network_deny'. Did you mean network_denied?"),
        ([{**GOOD, "code": None}], "it has neither finding nor code"),
        ([{**GOOD, "reason": " "}], "its reason is empty"),
        ([{**GOOD, "expires_on": "31.3.2027"}], "its expires_on, '31.3.2027', is not a date"),
    ],
)
def test_a_wrong_exception_is_refused(wrong: Any, message: str) -> None:
    with pytest.raises(CmkError) as refused:
        read_exceptions(wrong)
    assert message in str(refused.value)
    assert str(refused.value).startswith("cmk_exceptions")
    assert (refused.value.code, refused.value.facts["variable"]) == ("invalid_option", "cmk_exceptions")
