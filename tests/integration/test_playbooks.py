# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbooks for several hosts, whose accounts share a vault and a key."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import yaml
from cases import FAILING
from harness import Ansible, Run
from role_runs import QUARTER, VARS, results, wrote
from service import DAY, Service

ACCOUNTS = ("account1", "account2", "account3")
CAUSES = "Show the causes that were found, and the key that each recovered account uses now"


def play_all(
    ansible: Ansible,
    playbook: str,
    *,
    own: Mapping[str, Mapping[str, Any]] | None = None,
    environment: Mapping[str, str] | None = None,
    check: bool = False,
    **options: Any,
) -> Run:
    """Run the playbook for a host per account. It may fail. `own` has the variables of single hosts."""
    shared = {name: value for name, value in VARS.items() if name != "cmk_account_name"}
    hosts = {name: {"cmk_account_name": name, **(own or {}).get(name, {})} for name in ACCOUNTS}
    inventory = ansible.write("inventory.yml", yaml.safe_dump({"accounts": {"hosts": hosts, "vars": shared}}))
    return ansible.playbook(
        f"azbatch.cmk.{playbook}",
        extra_vars={"cmk_hosts": "accounts", **options},
        check=check,
        environment=environment,
        arguments=["-i", str(inventory), "--forks", "5"],
    )


def done_by_all(ansible: Ansible, playbook: str, **options: Any) -> Run:
    """Run the playbook for a host per account. It has to succeed."""
    run = play_all(ansible, playbook, **options)
    assert run.rc == 0, run.output
    return run


def on_one_key(service: Service, *, rbac: bool = False) -> str:
    """Create all accounts with system-assigned identities and one version of key1. Returns the version's identifier."""
    service.make_vault(rbac=rbac)
    identifier = service.make_key().id
    for name in ACCOUNTS:
        service.grant(service.make_account(name)["identity"]["principalId"])
        service.point(identifier, name)
    return str(identifier)


def assert_all_on(service: Service, identifier: str) -> None:
    assert {name: service.encryption(name) for name in ACCOUNTS} == dict.fromkeys(ACCOUNTS, identifier)
    assert all(service.is_available(name) for name in ACCOUNTS)


def waves(run: Run) -> list[list[str]]:
    """The hosts of each wave, from the results of the role's first task with a module of this collection."""
    first = next(one.name for one in run if one.action.startswith("azbatch.cmk."))
    by_task = itertools.groupby(run, key=lambda one: one.name)
    return [sorted(one.host for one in results) for name, results in by_task if name == first]


def test_provision_several_accounts_at_once(ansible: Ansible, service: Service) -> None:
    run = done_by_all(ansible, "provision", cmk_vault_authorization="access_policy")
    assert len(service.versions()) == 1
    assert_all_on(service, str(service.key().id))
    assert Counter(wrote(run))["PUT vault vault-one"] == 1
    assert "\naccount1, account2 and account3 use version " in run.output, run.output
    reported = results(run)
    assert set(reported) == set(ACCOUNTS)
    assert all(one["available"] and one["changed"] for one in reported.values())
    for name in ACCOUNTS:
        principal = service.account(name)["identity"]["principalId"]
        assert service.permissions(principal)


def test_rotate_several_accounts_that_share_a_key(ansible: Ansible, service: Service) -> None:
    """The first wave creates the new version, and the accounts of the second wave move to it. A run
    after the margin disables the previous version."""
    first = on_one_key(service)
    service.sandbox.control.advance(QUARTER)
    wanted = {"cmk_key_max_version_age": "P90D", "cmk_unused_versions": "disable"}
    run = done_by_all(ansible, "rotate", **wanted)
    assert waves(run) == [["account1"], ["account2", "account3"]], run.output
    assert "\naccount2 and account3 use version " in run.output, run.output
    assert service.enabled() == [True, True]
    assert_all_on(service, str(service.key().id))
    assert Counter(wrote(run))["POST key vault-one key1"] == 1
    reported = results(run)
    assert {one["previous_key_identifier"] for one in reported.values()} == {first}
    assert sum(one["changed_steps"]["key"] for one in reported.values()) == 1
    assert sum(one["changed_steps"]["encryption"] for one in reported.values()) == 3

    service.sandbox.control.advance(8 * DAY)
    later = done_by_all(ansible, "rotate", **wanted)
    assert wrote(later) == ["PATCH key vault-one key1"]
    assert sum(one["changed_steps"]["unused_disabled"] for one in results(later).values()) == 1
    assert service.enabled() == [False, True]


def test_revert_several_accounts_that_share_a_key(ansible: Ansible, service: Service) -> None:
    on_one_key(service, rbac=True)
    principals = [service.account(name)["identity"]["principalId"] for name in ACCOUNTS]
    wanted = {"cmk_unused_key": "disable", "cmk_unused_access": "revoke"}
    run = done_by_all(ansible, "revert", **wanted)
    assert [service.encryption(name) for name in ACCOUNTS] == [None] * 3
    assert all(service.is_available(name) for name in ACCOUNTS)
    assert all(one["key_source"] == "microsoft_batch" for one in results(run).values())
    assert "\naccount2 and account3 use a Microsoft-managed key " in run.output, run.output
    (shown,) = (one["msg"] for one in run if one.name == "Show whether the previous key and the access were kept")
    # One of the key, and one of the access of each account.
    assert len(shown) == 4, shown
    assert service.enabled() == [True]
    assert all(service.assignments(one) for one in principals)

    service.sandbox.control.advance(8 * DAY)
    run = done_by_all(ansible, "revert", **wanted)
    assert sorted(wrote(run)) == ["DELETE role vault-one"] * 3 + ["PATCH key vault-one key1"]
    assert service.enabled() == [False]
    assert [service.assignments(one) for one in principals] == [[], [], []]


def test_a_canary_that_fails_stops_the_rest(ansible: Ansible, service: Service) -> None:
    first = on_one_key(service)
    service.sandbox.control.fault(match={"method": "PATCH", "path": "batchAccounts"}, times=50, answer=FAILING)
    run = play_all(ansible, "revert")
    assert run.rc != 0
    assert {one.host for one in run} == {"account1"}, run.output
    assert [service.encryption(name) for name in ACCOUNTS] == [first] * 3
    assert all(service.is_available(name) for name in ACCOUNTS)


def test_a_wave_that_fails_stops_those_after_it(ansible: Ansible, service: Service) -> None:
    """The second of three waves fails. The first account has moved, the third is not changed, and all are available."""
    first = on_one_key(service)
    service.sandbox.control.advance(QUARTER)
    wrong = {"account2": {"cmk_wait_timeout": -1}}
    wanted = {"cmk_key_max_version_age": "P90D", "cmk_serial": 1}
    run = play_all(ansible, "rotate", own=wrong, **wanted)
    assert run.rc != 0
    second = str(service.key().id)
    assert [service.encryption(name) for name in ACCOUNTS] == [second, first, first]
    assert all(service.is_available(name) for name in ACCOUNTS)
    (stopped,) = re.findall("^PROGRESS: (.*)$", run.output, re.M)
    assert stopped.startswith("1 of 3 hosts done, 1 failed; stopped in wave 2: 1 of 1 finished")
    counts, remedy = run.output.splitlines()[-2:]
    moved = f"1 rotated to version {second.rpartition('/')[2][:8]}… of key1"
    assert re.fullmatch(rf"{moved}, 1 failed \(account2: invalid_option\), 1 not started, in \d+ s\.", counts)
    assert remedy == "Repair the cause, and rerun the same command. It leaves finished accounts unchanged."


def test_the_allowed_number_of_failures(ansible: Ansible, service: Service) -> None:
    first = on_one_key(service)
    service.sandbox.control.advance(QUARTER)
    wrong = {"account1": {"cmk_wait_timeout": -1}}
    wanted = {"cmk_key_max_version_age": "P90D", "cmk_serial": "100%", "cmk_max_fail_percentage": 34}
    run = play_all(ansible, "rotate", own=wrong, **wanted)
    assert run.rc != 0
    second = str(service.key().id)
    assert [service.encryption(name) for name in ACCOUNTS] == [first, second, second]


def test_an_account_that_cannot_be_recovered_does_not_stop_others(ansible: Ansible, service: Service) -> None:
    """Also if a setting of ansible.cfg makes any error fatal."""
    on_one_key(service)
    service.sandbox.control.behavior(pools_without_key="200")
    service.sandbox.control.advance(60)
    for name in ACCOUNTS[1:]:
        service.revoke(service.account(name)["identity"]["principalId"])
    fatal = {"ANSIBLE_ANY_ERRORS_FATAL": "True"}
    run = play_all(ansible, "recover", own={"account1": {"cmk_account_name": "nobody"}}, environment=fatal)
    assert run.rc != 0
    assert {one.host for one in run.failed} == {"account1"}
    assert all(service.is_available(name) for name in ACCOUNTS)
    [found, now, again] = run[CAUSES]["msg"]
    assert found.startswith("account2 and account3 use version ")
    assert found.endswith(" and are not available: access_missing.")
    assert now.startswith("Now: account2 and account3 use version ")
    assert again.startswith("Run the playbook again at 20")


def test_a_report_for_machines(ansible: Ansible, service: Service) -> None:
    """Changed, unchanged, left alone, failed and not started accounts, also if the play stops."""
    on_one_key(service)
    service.sandbox.control.advance(QUARTER)
    file = ansible.folder / "report.json"
    options: dict[str, Any] = {"cmk_key_max_version_age": "P90D", "cmk_report_file": str(file)}
    play_all(ansible, "rotate", own={"account2": {"cmk_key_name": "key2"}}, **options)
    version = str(service.key().id).rpartition("/")[2]
    made = {str(service.key().id).rpartition("/")[0]: version}
    assert json.loads(file.read_text())["cmk_rotate_result"] == {
        "accounts": {
            "account1": {"changed": True, "finished": True},
            "account2": {"changed": False, "finished": True, "left_alone": "account_on_another_key"},
            "account3": {"changed": True, "finished": True},
        },
        "not_started": [],
        "new_versions": made,
    }

    play_all(ansible, "rotate", own={"account2": {"cmk_wait_timeout": -1}}, cmk_serial=1, **options)
    assert json.loads(file.read_text())["cmk_rotate_result"] == {
        "accounts": {
            "account1": {"changed": False, "finished": True},
            "account2": {"changed": False, "finished": False, "failed": "invalid_option"},
        },
        "not_started": ["account3"],
        "new_versions": {},
    }
