# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbooks for several hosts, whose accounts share a vault and a key, and the playbooks with wrong variables."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from cases import FAILING
from harness import Ansible, Run
from role_runs import QUARTER, VARS, results, wrote
from service import DAY, Service

ROOT = Path(__file__).resolve().parents[2]
# Those that run a role.
PLAYBOOKS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml") if path.stem != "awx")
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


@pytest.mark.parametrize("mode", ["access_policy", "rbac"])
@pytest.mark.slow(every=2)
def test_provision_several_accounts_at_once(ansible: Ansible, service: Service, mode: str) -> None:
    run = done_by_all(ansible, "provision", cmk_vault_authorization=mode)
    assert len(service.versions()) == 1
    assert_all_on(service, str(service.key().id))
    assert Counter(wrote(run))["PUT vault vault-one"] == 1
    assert '"account1, account2 and account3 use version ' in run.output, run.output
    reported = results(run)
    assert set(reported) == set(ACCOUNTS)
    assert all(one["available"] and one["changed"] for one in reported.values())
    for name in ACCOUNTS:
        principal = service.account(name)["identity"]["principalId"]
        assert service.permissions(principal) or service.assignments(principal)

    again = done_by_all(ansible, "provision", cmk_vault_authorization=mode)
    assert wrote(again) == []
    assert not any(one["changed"] for one in results(again).values())


@pytest.mark.parametrize("serial", ["100%", 1])
@pytest.mark.slow(every=2)
def test_rotate_several_accounts_that_share_a_key(ansible: Ansible, service: Service, serial: Any) -> None:
    """All accounts move to one new version. A run after the margin disables the previous version."""
    first = on_one_key(service)
    service.sandbox.control.advance(QUARTER)
    wanted = {"cmk_key_max_version_age": "P90D", "cmk_unused_versions": "disable", "cmk_serial": serial}
    run = done_by_all(ansible, "rotate", **wanted)
    assert service.enabled() == [True, True]
    assert_all_on(service, str(service.key().id))
    assert Counter(wrote(run))["POST key vault-one key1"] == 1
    reported = results(run)
    assert {one["previous_key_identifier"] for one in reported.values()} == {first}
    assert sum(one["changed_steps"]["key"] for one in reported.values()) == 1
    assert sum(one["changed_steps"]["encryption"] for one in reported.values()) == 3

    again = done_by_all(ansible, "rotate", **wanted)
    assert wrote(again) == []
    assert not any(one["changed"] for one in results(again).values())

    service.sandbox.control.advance(8 * DAY)
    later = done_by_all(ansible, "rotate", **wanted)
    assert wrote(later) == ["PATCH key vault-one key1"]
    assert sum(one["changed_steps"]["unused_disabled"] for one in results(later).values()) == 1
    assert service.enabled() == [False, True]


def test_unused_versions_are_disabled_once_for_all_hosts(ansible: Ansible, service: Service) -> None:
    """The accounts, the times of their changes and their pools are read once for a key and a run, not for each host."""
    on_one_key(service)
    newest = service.make_key().id
    for name in ACCOUNTS:
        service.point(newest, name)
    service.sandbox.control.advance(QUARTER)
    run = done_by_all(ansible, "rotate", cmk_unused_versions="disable", cmk_serial=1)
    assert wrote(run) == ["PATCH key vault-one key1"]
    assert service.enabled() == [False, True]
    lists = [one for one in run.requests if "/providers/Microsoft.Batch/batchAccounts?" in one["url"]]
    # Before and after the version is disabled.
    assert len(lists) == 2


@pytest.mark.parametrize("in_process", [True, False])
@pytest.mark.slow(every=2)
def test_a_forced_version(ansible: Ansible, service: Service, in_process: bool) -> None:
    """All accounts share one new version, also across waves and in separate processes."""
    on_one_key(service)
    done_by_all(ansible, "rotate", cmk_key_new_version=True, cmk_in_process=in_process)
    assert len(service.versions()) == 2
    assert_all_on(service, str(service.key().id))


def test_revert_several_accounts_that_share_a_key(ansible: Ansible, service: Service) -> None:
    on_one_key(service, rbac=True)
    principals = [service.account(name)["identity"]["principalId"] for name in ACCOUNTS]
    wanted = {"cmk_unused_key": "disable", "cmk_unused_access": "revoke"}
    run = done_by_all(ansible, "revert", **wanted)
    assert [service.encryption(name) for name in ACCOUNTS] == [None] * 3
    assert all(service.is_available(name) for name in ACCOUNTS)
    assert all(one["key_source"] == "microsoft_batch" for one in results(run).values())
    assert '"account2 and account3 use a Microsoft-managed key ' in run.output, run.output
    (shown,) = (one["msg"] for one in run if one.name == "Show whether the previous key and the access were kept")
    # One of the key, and one of the access of each account.
    assert len(shown) == 4, shown
    assert service.enabled() == [True]
    assert all(service.assignments(one) for one in principals)
    assert wrote(done_by_all(ansible, "revert", **wanted)) == []

    service.sandbox.control.advance(8 * DAY)
    run = done_by_all(ansible, "revert", **wanted)
    assert sorted(wrote(run)) == ["DELETE role vault-one"] * 3 + ["PATCH key vault-one key1"]
    assert service.enabled() == [False]
    assert [service.assignments(one) for one in principals] == [[], [], []]
    assert wrote(done_by_all(ansible, "revert", **wanted)) == []


def waves(run: Run) -> list[list[str]]:
    """The hosts of each wave, from the output of the role's first task with a module of this collection."""
    first = next(one.name for one in run if one.action.startswith("azbatch.cmk."))
    plays = run.output.split("\nPLAY [")[1:]
    looked = [re.search(rf"TASK \[[^]]*{re.escape(first)}\].*?\n\n", f"{play}\n\n", re.DOTALL) for play in plays]
    return [sorted(re.findall(r"\[(\w+)\]", found[0].partition("\n")[2])) for found in looked if found]


def test_accounts_are_rotated_in_waves(ansible: Ansible, service: Service) -> None:
    """The first wave creates the new version, and the accounts of the second wave move to it."""
    on_one_key(service)
    service.sandbox.control.advance(QUARTER)
    run = done_by_all(ansible, "rotate", cmk_key_max_version_age="P90D")
    assert waves(run) == [["account1"], ["account2", "account3"]], run.output
    assert '"account2 and account3 use version ' in run.output, run.output
    assert len(service.versions()) == 2
    assert_all_on(service, str(service.key().id))


@pytest.mark.parametrize("playbook", ["rotate", "revert"])
@pytest.mark.slow(every=2)
def test_a_canary_that_fails_stops_the_rest(ansible: Ansible, service: Service, playbook: str) -> None:
    first = on_one_key(service)
    service.sandbox.control.fault(match={"method": "PATCH", "path": "batchAccounts"}, times=50, answer=FAILING)
    run = play_all(ansible, playbook, cmk_key_new_version=True)
    assert run.rc != 0
    assert {one.host for one in run} == {"account1"}, run.output
    assert [service.encryption(name) for name in ACCOUNTS] == [first] * 3
    assert all(service.is_available(name) for name in ACCOUNTS)


@pytest.mark.parametrize("serial", [[1, 10], "100%"])
@pytest.mark.slow(every=2)
def test_the_first_account_that_can_be_changed_is_the_canary(
    ansible: Ansible, service: Service, serial: object
) -> None:
    """The first account is left alone. Until another one has changed, the others wait, and a failure stops them."""
    first = on_one_key(service)
    service.sandbox.control.advance(QUARTER)
    service.revoke(service.account("account1")["identity"]["principalId"])
    service.sandbox.control.fault(match={"method": "PATCH", "path": "batchAccounts"}, times=50, answer=FAILING)
    run = play_all(ansible, "rotate", cmk_key_max_version_age="P90D", cmk_serial=serial)
    assert run.rc != 0
    codes = {one.host: one.get("code") for one in run.failed}
    # It is not even looked at, if the canary has failed before its turn.
    assert codes.pop("account1", "canary_failed") == "canary_failed", run.output
    assert sorted(codes.values()) == ["canary_failed", "service_unavailable"], run.output
    assert [service.encryption(name) for name in ACCOUNTS] == [first] * 3

    service.sandbox.control.call("DELETE", "/faults")
    again = play_all(ansible, "rotate", cmk_key_max_version_age="P90D", cmk_serial=serial)
    assert sorted(wrote(again)[-2:]) == ["PATCH account account2", "PATCH account account3"], again.output


@pytest.mark.slow
def test_failures_that_are_allowed_need_no_canary(ansible: Ansible, service: Service) -> None:
    on_one_key(service)
    service.sandbox.control.advance(QUARTER)
    service.sandbox.control.fault(match={"method": "PATCH", "path": "batchAccounts/account1"}, times=50, answer=FAILING)
    wanted = {"cmk_key_max_version_age": "P90D", "cmk_serial": "100%", "cmk_max_fail_percentage": 100}
    run = play_all(ansible, "rotate", **wanted)
    assert {one.host for one in run.failed} == {"account1"}
    second = str(service.key().id)
    assert [service.encryption(name) for name in ACCOUNTS[1:]] == [second] * 2


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

    again = done_by_all(ansible, "rotate", **wanted)
    assert wrote(again) == ["PATCH account account2", "PATCH account account3"]
    assert_all_on(service, second)


@pytest.mark.parametrize(("playbook", "strategy"), [("rotate", "free"), ("revert", "host_pinned")])
@pytest.mark.slow(every=2)
def test_the_strategy_of_the_environment_is_ignored(
    ansible: Ansible, service: Service, playbook: str, strategy: str
) -> None:
    """With these strategies, Ansible ignores `max_fail_percentage`: neither the wave nor the play would stop."""
    first = on_one_key(service)
    wrong = {"account1": {"cmk_wait_timeout": -1}}
    wanted = {"cmk_key_new_version": True, "cmk_serial": [2, 1], "cmk_max_fail_percentage": 0}
    run = play_all(ansible, playbook, own=wrong, environment={"ANSIBLE_STRATEGY": strategy}, **wanted)
    assert run.rc != 0
    assert "account3" not in {one.host for one in run}, run.output
    # The task that fails for account1 is not stopped for account2, unless account1 is the canary.
    assert set(wrote(run)) <= {"POST key vault-one key1", "PATCH account account2"}
    assert [service.encryption(name) for name in ("account1", "account3")] == [first] * 2


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
    on_one_key(service)
    service.sandbox.control.behavior(pools_without_key="200")
    service.sandbox.control.advance(60)
    for name in ACCOUNTS[1:]:
        service.revoke(service.account(name)["identity"]["principalId"])
    run = play_all(ansible, "recover", own={"account1": {"cmk_account_name": "nobody"}})
    assert run.rc != 0
    assert {one.host for one in run.failed} == {"account1"}
    assert all(service.is_available(name) for name in ACCOUNTS)
    [found, now, again] = run[CAUSES]["msg"]
    assert found.startswith("account2 and account3 use version ")
    assert found.endswith(" and are not available: access_missing.")
    assert now.startswith("Now: account2 and account3 use version ")
    assert again.startswith("Run the playbook again at 20")


def test_recover_of_several_hosts_shows_only_the_accounts_that_were_not_available(
    ansible: Ansible, service: Service
) -> None:
    on_one_key(service)
    service.revoke(service.account("account2")["identity"]["principalId"])
    service.sandbox.control.advance(3600)
    [found, now, *_] = done_by_all(ansible, "recover")[CAUSES]["msg"]
    assert re.match("account2 uses version .* and is not available: access_missing", found)
    assert re.match("Now: account2 uses version .*", now)

    service.sandbox.control.advance(3600)
    assert "msg" not in done_by_all(ansible, "recover")[CAUSES].result


@pytest.mark.slow
def test_progress_is_shown(ansible: Ansible, service: Service) -> None:
    on_one_key(service)
    # With this interval, a line is printed only at the end of a wave.
    progress = {"ANSIBLE_CALLBACKS_ENABLED": "recorder,azbatch.cmk.progress", "AZBATCH_CMK_PROGRESS_INTERVAL": "3600"}

    def lines(**options: Any) -> list[str]:
        return re.findall("^PROGRESS: (.*)$", play_all(ansible, "rotate", environment=progress, **options).output, re.M)

    after_canary, end = lines()
    assert after_canary == "1 of 3 hosts done"
    assert re.fullmatch(r"0 rotated, 3 unchanged, 0 failed, in \d+ s", end)

    (end,) = lines(cmk_serial="100%", own={"account2": {"cmk_wait_timeout": -1}}, cmk_max_fail_percentage=50)
    assert re.fullmatch(r"0 rotated, 2 unchanged, 1 failed, in \d+ s", end)

    _, stopped, account, end = lines(cmk_serial=[1, 1, 1], own={"account2": {"cmk_wait_timeout": -1}})
    assert re.match(
        r"1 of 3 hosts done, 1 failed; stopped in wave 2: 1 of 1 finished 'Ensure a current version of the key", stopped
    )
    assert account == "account2 failed."
    assert re.fullmatch(r"0 rotated, 1 unchanged, 1 failed, 1 not started, in \d+ s", end)

    *_, end = lines(cmk_key_new_version=True, check=True)
    assert re.fullmatch(r"Predicted: 3 rotated, 0 unchanged, 0 failed, 1 new version, in \d+ s", end)

    *_, end = lines(cmk_key_new_version=True)
    assert re.fullmatch(r"3 rotated, 0 unchanged, 0 failed, 1 new version, in \d+ s", end)

    run = done_by_all(ansible, "rotate", environment={**progress, "AZBATCH_CMK_PROGRESS_INTERVAL": "0"})
    assert len(re.findall("^PROGRESS: ", run.output, re.M)) > len(list(run)) / 2


@pytest.mark.slow
def test_the_accounts_of_a_wave_that_stops_are_shown_without_any_setting(ansible: Ansible, service: Service) -> None:
    first = on_one_key(service)
    wave = {"cmk_serial": [1, 1, 1], "own": {"account2": {"cmk_wait_timeout": -1}}}
    run = play_all(ansible, "rotate", **wave)
    stopped, account, end = re.findall("^PROGRESS: (.*)$", run.output, re.M)
    assert stopped.startswith("1 of 3 hosts done, 1 failed; stopped in wave 2: 1 of 1 finished")
    assert account == "account2 failed."
    assert re.fullmatch(r"0 rotated, 1 unchanged, 1 failed, 1 not started, in \d+ s", end)
    assert "PROGRESS" not in done_by_all(ansible, "rotate").output

    # Another playbook that imports this playbook; its own plays are not shown.
    own = {"hosts": "accounts", "gather_facts": False, "tasks": [{"ansible.builtin.fail": {}}]}
    imported = {"ansible.builtin.import_playbook": "azbatch.cmk.rotate"}
    options: dict[str, Any] = {"arguments": ["-i", str(ansible.folder / "inventory.yml")]}
    run = ansible.playbook([imported, own], extra_vars={"cmk_hosts": "accounts"}, **options)
    assert run.rc != 0
    assert "PROGRESS" not in run.output
    run = ansible.playbook([imported], extra_vars={"cmk_hosts": "accounts", "cmk_wait_timeout": -1}, **options)
    assert re.search("^PROGRESS: account1 failed.$", run.output, re.M), run.output

    # All hosts of the wave fail, so the play stops although any number of failures is allowed.
    nobody = {"account1": {"cmk_wait_timeout": -1}}
    run = play_all(ansible, "recover", cmk_serial=[1, 2], own=nobody)
    _stopped, account, end = re.findall("^PROGRESS: (.*)$", run.output, re.M)
    assert account == "account1 failed."
    assert re.fullmatch(r"0 recovered, 0 unchanged, 1 failed, 2 not started, in \d+ s", end)
    assert service.encryption() == first


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


def test_no_progress_of_a_single_account(ansible: Ansible, service: Service) -> None:
    service.on_key()
    run = ansible.playbook(
        "azbatch.cmk.rotate", extra_vars=VARS, environment={"ANSIBLE_CALLBACKS_ENABLED": "azbatch.cmk.progress"}
    )
    assert run.rc == 0, run.output
    assert "PROGRESS" not in run.output


def test_a_wrong_repair_is_reported_before_the_first_request(ansible: Ansible, service: Service) -> None:
    run = ansible.playbook("azbatch.cmk.recover", extra_vars={**VARS, "cmk_allowed_repairs": "perhaps"})
    assert run.rc != 0
    assert run.requests == []
    (failed,) = run.failed
    assert "cmk_allowed_repairs" in failed["msg"]


@pytest.mark.parametrize("playbook", PLAYBOOKS)
@pytest.mark.slow(every=8)
def test_wrong_variables_are_reported_at_once(ansible: Ansible, service: Service, playbook: str) -> None:
    """The run fails before its first request to Azure."""
    choice = {
        "audit": "cmk_audit_fail_on",
        "drill": "cmk_drill_kind",
        "provision": "cmk_vault_authorization",
        "rotate": "cmk_unused_versions",
        "revert": "cmk_unused_key",
        "users": "cmk_vault_used_by",
    }
    # Only the role switch reads the identifier, which it requires.
    other = {"cmk_new_key_identifier": "https://vault-two.vault.azure.net/keys/key1", "cmk_drill_canary": "account1"}
    chosen = choice.get(playbook)
    wanted = {**VARS, **other, **({chosen: "perhaps"} if chosen else {})}
    wanted.pop("cmk_account_name")
    run = ansible.playbook(f"azbatch.cmk.{playbook}", extra_vars=wanted)
    assert run.rc != 0
    assert run.requests == []
    (failed,) = run.failed
    failed.refused("invalid_option")
    # A single problem is the failure itself, whose message ends with a link.
    problems = {one["variable"]: one["msg"].partition(" See ")[0] for one in failed.get("problems", [failed.result])}
    if chosen:
        assert problems.pop(chosen).startswith(f"{chosen} is 'perhaps': it is not allowed. Use one of ")
    # These roles do not require the name of an account.
    required = {"cmk_account_name": "cmk_account_name is not set. Set cmk_account_name: name of the Batch account."}
    assert problems == ({} if playbook in ("audit", "users") else required)


@pytest.mark.slow
def test_what_was_enabled_again_is_not_shown_as_disabled(ansible: Ansible, service: Service) -> None:
    """Another tool has just moved an account to the key. No list shows that until some seconds later."""
    old = on_one_key(service)
    outsider = service.make_account("outsider")
    service.grant(outsider["identity"]["principalId"])
    other = service.make_key("key2").id
    for name in ACCOUNTS:
        service.point(other, name)
    service.sandbox.control.advance(8 * DAY)
    service.sandbox.control.behavior(value_lag="20", key_loss_noticed="3600", pools_without_key="200")
    service.point(old, "outsider")
    options = {
        "cmk_new_key_identifier": other.rpartition("/")[0],
        "cmk_previous_key": old.rpartition("/")[0],
        "cmk_unused_key": "disable",
    }
    run = done_by_all(ansible, "switch", cmk_unused_for="P0D", **options)

    assert wrote(run).count("PATCH key vault-one key1") >= 2
    service.sandbox.control.advance(20)
    assert all(service.enabled())
    assert "is disabled: version" not in run.output
    assert "outsider" in run.output
    assert "enabled again" in run.output


def test_one_account_does_not_stop_the_others_with_any_errors_fatal(ansible: Ansible, service: Service) -> None:
    """A setting of ansible.cfg."""
    on_one_key(service)
    for name in ACCOUNTS[1:]:
        service.revoke(service.account(name)["identity"]["principalId"])
    own = {"account1": {"cmk_wait_timeout": -1}}
    run = play_all(ansible, "recover", own=own, environment={"ANSIBLE_ANY_ERRORS_FATAL": "True"})

    assert run.rc != 0
    assert all(service.is_available(name) for name in ACCOUNTS)
