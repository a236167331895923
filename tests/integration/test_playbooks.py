# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbooks over several hosts, an account each, that share a vault and a key; and with wrong variables."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import Ansible, Run
from role_runs import QUARTER, VARS, wrote
from service import Service

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOKS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))
ACCOUNTS = ("account1", "account2", "account3")


def play_all(ansible: Ansible, playbook: str, *, serial: int | None = None, check: bool = False, **options: Any) -> Run:
    """The playbook for a host per account; with `serial`, its role in a play of one's own."""
    shared = {name: value for name, value in VARS.items() if name != "cmk_account_name"}
    hosts = {name: {"cmk_account_name": name} for name in ACCOUNTS}
    inventory = ansible.write("inventory.yml", yaml.safe_dump({"accounts": {"hosts": hosts, "vars": shared}}))
    role = {"name": "One by one", "hosts": "accounts", "gather_facts": False, "serial": serial}
    what = [{**role, "roles": [f"azbatch.cmk.{playbook}"]}] if serial else f"azbatch.cmk.{playbook}"
    arguments = ["-i", str(inventory), "--forks", "5"]
    run = ansible.playbook(what, extra_vars={"cmk_hosts": "accounts", **options}, check=check, arguments=arguments)
    assert run.rc == 0, run.output
    return run


def results(run: Run) -> dict[str, Any]:
    """What the role reported for each host."""
    return {one.host: one["ansible_facts"]["cmk_result"] for one in run if one.name == "Report how the account stands"}


def on_one_key(service: Service, *, rbac: bool = False) -> str:
    """All accounts on key1 of vault-one, each with an identity of its own."""
    service.make_vault(rbac=rbac)
    identifier = service.make_key().id
    for name in ACCOUNTS:
        service.grant(service.make_account(name)["identity"]["principalId"])
        service.point(identifier, name)
    return str(identifier)


def assert_all_on(service: Service, identifier: str) -> None:
    assert {name: service.encryption(name) for name in ACCOUNTS} == dict.fromkeys(ACCOUNTS, identifier)
    assert all(service.answers(name) for name in ACCOUNTS)


@pytest.mark.parametrize("mode", ["access_policy", "rbac"])
def test_provision_several_accounts_at_once(ansible: Ansible, service: Service, mode: str) -> None:
    run = play_all(ansible, "provision", cmk_vault_authorization=mode)
    assert len(service.versions()) == 1
    assert_all_on(service, str(service.key().id))
    assert Counter(wrote(run))["PUT vault vault-one"] == 1
    told = results(run)
    assert set(told) == set(ACCOUNTS)
    assert all(one["answers"] and one["changed"] for one in told.values())
    for name in ACCOUNTS:
        principal = service.account(name)["identity"]["principalId"]
        assert service.permissions(principal) or service.assignments(principal)

    again = play_all(ansible, "provision", cmk_vault_authorization=mode)
    assert wrote(again) == []
    assert not any(one["changed"] for one in results(again).values())


@pytest.mark.parametrize("serial", [None, 1])
def test_rotate_several_accounts_that_share_a_key(ansible: Ansible, service: Service, serial: int | None) -> None:
    """One new version serves them all, and the version before goes with its last user."""
    first = on_one_key(service)
    service.sandbox.control.advance(QUARTER)
    wish = {"cmk_key_max_age": "P90D", "cmk_previous_version": "disable"}
    run = play_all(ansible, "rotate", serial=serial, **wish)
    assert [version.enabled for version in service.versions()] == [False, True]
    assert_all_on(service, str(service.key().id))
    assert Counter(wrote(run))["POST key vault-one key1"] == 1
    told = results(run)
    assert {one["former_key_identifier"] for one in told.values()} == {first}
    assert sum(one["changed_steps"]["key"] for one in told.values()) == 1
    assert sum(one["changed_steps"]["encryption"] for one in told.values()) == 3
    assert sum(one["changed_steps"]["former_disabled"] for one in told.values()) == 1
    if serial:
        ids = [service.account_id(name) for name in ACCOUNTS]
        assert [told[name]["former_kept_for"] for name in ACCOUNTS] == [ids[1:], ids[2:], []]

    again = play_all(ansible, "rotate", serial=serial, **wish)
    assert wrote(again) == []
    assert not any(one["changed"] for one in results(again).values())


def test_a_forced_rotation_is_forced_for_each(ansible: Ansible, service: Service) -> None:
    """A version each; the next run brings them together again."""
    on_one_key(service)
    play_all(ansible, "rotate", cmk_key_force_new_version=True)
    assert len(service.versions()) == 1 + len(ACCOUNTS)
    assert len({service.encryption(name) for name in ACCOUNTS}) == len(ACCOUNTS)
    assert all(service.answers(name) for name in ACCOUNTS)

    play_all(ansible, "rotate")
    assert_all_on(service, str(service.key().id))


def test_revert_several_accounts_that_share_a_key(ansible: Ansible, service: Service) -> None:
    on_one_key(service, rbac=True)
    principals = [service.account(name)["identity"]["principalId"] for name in ACCOUNTS]
    wish = {"cmk_revert_key": "disable", "cmk_revert_access": "withdraw"}
    run = play_all(ansible, "revert", **wish)
    assert [service.encryption(name) for name in ACCOUNTS] == [None] * 3
    assert all(service.answers(name) for name in ACCOUNTS)
    assert [version.enabled for version in service.versions()] == [False]
    assert [service.assignments(one) for one in principals] == [[], [], []]
    assert all(one["key_source"] == "microsoft_batch" for one in results(run).values())
    assert wrote(play_all(ansible, "revert", **wish)) == []


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_wrong_variables_are_told_at_once(ansible: Ansible, service: Service, playbook: str) -> None:
    """Before anything is asked of Azure."""
    choice = {
        "provision": "cmk_vault_authorization",
        "rotate": "cmk_previous_version",
        "revert": "cmk_revert_key",
        "recover": "cmk_recover_mends",
    }
    wish = {**VARS, choice[playbook]: "perhaps"}
    wish.pop("cmk_account_name")
    run = ansible.playbook(f"azbatch.cmk.{playbook}", extra_vars=wish)
    assert run.rc != 0
    assert run.requests == []
    (failed,) = run.failed
    assert "cmk_account_name" in str(failed["argument_errors"])
    assert choice[playbook] in str(failed["argument_errors"])
