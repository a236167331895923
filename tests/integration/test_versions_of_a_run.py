# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The versions of a key that the accounts of a run share, and versions that another user creates during the run."""

from __future__ import annotations

from typing import Any

import pytest
from harness import Ansible
from meddling import Wire
from moments import after, creates_version, lists_pools, reads_key
from one_process import OneProcess
from role_runs import QUARTER, VARS, results, wrote
from service import DAY, Service

from ansible_collections.azbatch.cmk.plugins.module_utils._documents import refs

FORCE = {"cmk_key_new_version": True}
DUE = {"cmk_key_max_version_age": "P90D"}
DISABLE = {"cmk_unused_versions": "disable"}
AT_ONCE = {**DISABLE, "cmk_unused_for": "P0D"}


def rotate(runner: OneProcess, account: str = "account1", **settings: Any) -> dict[str, Any]:
    """Run the role rotate for an account in the run of `runner`. It has to succeed."""
    report = runner.role("rotate", {**VARS, "cmk_account_name": account, **settings})
    assert not report.get("failed"), report
    return report


def on_one_key(service: Service, *accounts: str) -> str:
    service.make_vault()
    identifier: str = service.make_key().id
    for name in accounts:
        service.grant(service.make_account(name)["identity"]["principalId"])
        service.point(identifier, name)
    service.sandbox.control.advance(QUARTER)
    return identifier


def keys_of(service: Service, *accounts: str) -> list[str | None]:
    return [service.encryption(name) for name in accounts]


def newer_by_hand(service: Service, *accounts: str) -> str:
    """Create a version and move these accounts to it, as another controller does. Returns its identifier."""
    service.sandbox.control.advance(1)
    newer: str = service.make_key().id
    for name in accounts:
        service.point(newer, name)
    service.sandbox.control.advance(1)
    return newer


def test_another_controller_moves_an_account_between_two_waves(runner: OneProcess, service: Service) -> None:
    """The run must not move the account from the newer version back to the version that the run has created."""
    on_one_key(service, "account1", "account2", "account3")
    rotate(runner, "account1", **FORCE, **AT_ONCE)
    newer = newer_by_hand(service, "account2")
    rotate(runner, "account2", **FORCE, **AT_ONCE)
    rotate(runner, "account3", **FORCE, **AT_ONCE)

    assert keys_of(service, "account2", "account3") == [newer, newer]
    assert service.enabled()[1:] == [True, True], "account1 is on the second"
    assert all(service.is_available(name) for name in service.accounts())


def test_an_account_that_another_controller_has_just_moved(
    runner: OneProcess, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run has listed the accounts and read the key a moment before. Both versions can be used, and the next run
    moves the account to the newest version."""
    monkeypatch.setattr(refs, "LISTED_FROM", 1)
    on_one_key(service, "account1", "account2")
    rotate(runner, "account1")
    newer = newer_by_hand(service, "account2")
    rotate(runner, "account2", **AT_ONCE)
    assert service.enabled() == [True, True]
    assert service.is_safe("account2")

    rotate(runner.another(), "account2")
    assert service.encryption("account2") == newer


def test_rotate_then_a_version_by_hand_then_rotate(runner: OneProcess, service: Service) -> None:
    """A run creates one forced version of a key. The account keeps the newer version of another controller."""
    on_one_key(service, "account1")
    rotate(runner, **FORCE, **AT_ONCE)
    newer = newer_by_hand(service)
    rotate(runner, **FORCE, **AT_ONCE)
    assert service.encryption() == service.key().id == newer

    rotate(runner.another(), **AT_ONCE)
    assert service.enabled() == [False, False, True]
    assert service.is_available()


def test_forced_twice_in_one_run_makes_one_version_for_all(runner: OneProcess, service: Service) -> None:
    names = ("account1", "account2", "account3")
    on_one_key(service, *names)
    for _time in range(2):
        for name in names:
            rotate(runner, name, **FORCE)
        assert len(service.versions()) == 2
        assert set(keys_of(service, *names)) == {service.key().id}
        service.sandbox.control.advance(1)
    rotate(runner.another(), **FORCE)
    assert len(service.versions()) == 3, "another run makes another"


def test_a_failed_rotation_does_not_count(runner: OneProcess, service: Service) -> None:
    on_one_key(service, "account1")
    control = service.sandbox.control
    refusal = {"error": {"code": "InvalidRequestBody", "message": "No."}}
    control.fault(match={"method": "PATCH", "path": service.account_id()}, answer={"status": 400, "body": refusal})
    failed = runner.role("rotate", {**VARS, **FORCE})
    assert failed["failed"], failed
    assert len(service.versions()) == 2
    rotate(runner, **FORCE)
    assert len(service.versions()) == 2
    assert service.encryption() == service.key().id


def test_check_mode_does_not_count_as_a_forced_rotation(runner: OneProcess, service: Service) -> None:
    on_one_key(service, "account1")
    predicted = runner.role("rotate", {**VARS, **FORCE}, check=True)
    assert predicted["changed_steps"]["key"]
    assert rotate(runner, **FORCE)["changed_steps"]["key"]
    assert len(service.versions()) == 2


# Runs that share no files

NAMES = ("account1", "account2", "account3")
WORKFLOW = {**FORCE, "awx_workflow_job_id": 17}
TAG = "azbatch-cmk-new-version-for"


@pytest.mark.parametrize(
    ("purpose", "tag"),
    [({"awx_workflow_job_id": 17}, "awx-workflow-job-17"), ({"cmk_key_new_version": "CHG1"}, "CHG1")],
    ids=["workflow", "change"],
)
def test_runs_for_one_purpose_force_one_version(
    runner: OneProcess, service: Service, purpose: dict[str, Any], tag: str
) -> None:
    on_one_key(service, *NAMES)
    service.keys().update_key_properties("key1", tags={"owner": "me"})
    wanted = {**FORCE, **purpose}
    for name in (*NAMES, "account1"):
        check = runner.another().role("rotate", {**VARS, "cmk_account_name": name, **wanted}, check=True)
        report = rotate(runner.another(), name, **wanted)
        assert check["changed_steps"] == report["changed_steps"], name
        service.sandbox.control.advance(60)
    assert [version.tags for version in service.versions()] == [{"owner": "me"}, {"owner": "me", TAG: tag}]
    assert set(keys_of(service, *NAMES)) == {service.key().id}

    rotate(runner.another(), **FORCE, awx_workflow_job_id=18)
    assert (len(service.versions()), service.encryption()) == (3, service.key().id)
    rotate(runner.another(), **FORCE)
    of_run = service.key().properties.tags.pop(TAG)
    assert of_run not in (tag, "awx-workflow-job-18")


def test_concurrent_forced_runs_converge_on_one_version(runner: OneProcess, service: Service) -> None:
    on_one_key(service, *NAMES)
    rotate(runner.another(), "account1", **WORKFLOW)
    # The other run did not read that version yet, so it creates a further version.
    service.make_key(tags={TAG: "awx-workflow-job-17"})
    service.point(service.key().id, "account2")

    for name in NAMES:
        rotate(runner.another(), name, **WORKFLOW)
    assert len(service.versions()) == 3
    assert set(keys_of(service, *NAMES)) == {service.key().id}
    assert all(service.is_available(name) for name in NAMES)


@pytest.mark.parametrize("is_first", [True, False], ids=["before this run", "after this run"])
def test_another_run_creates_a_version_for_the_purpose_at_the_same_moment(
    runner: OneProcess, service: Service, wire: Wire, is_first: bool
) -> None:
    """It has read the key at the same time. Both runs use the newest version for the purpose."""
    on_one_key(service, *NAMES)
    at = lists_pools if is_first else after(creates_version, reads_key)
    with wire.meddled(at, lambda: service.make_key(tags={TAG: "awx-workflow-job-17"})):
        rotate(runner, "account1", **WORKFLOW)
    assert len(service.versions()) == (2 if is_first else 3)
    for name in NAMES:
        rotate(runner, name, **WORKFLOW)
    assert len(service.versions()) == (2 if is_first else 3)
    assert set(keys_of(service, *NAMES)) == {service.key().id}
    assert all(service.enabled()[1:]), "followers may use each of them"


def test_no_account_is_left_on_a_version_before_the_forced_one(runner: OneProcess, service: Service) -> None:
    """A read of the key may not show yet the version that another run has forced. The list of versions shows it."""
    on_one_key(service, "account1", "account2")
    shown: list[Any] = []
    service.keys().get_key("key1", raw_response_hook=lambda response: shown.append(response.http_response.json()))
    rotate(runner.another(), "account1", **WORKFLOW)
    newest = {"method": "GET", "path": r"^/keys/key1/?(\?|$)"}
    service.sandbox.control.fault(match=newest, times=None, answer={"status": 200, "body": shown[0]})

    rotate(runner.another(), "account2", **WORKFLOW)
    service.sandbox.control.call("DELETE", "/faults")
    assert len(service.versions()) == 2
    assert keys_of(service, "account1", "account2") == [service.key().id] * 2


# Unused versions, and how long they stay enabled


def test_a_version_stays_enabled_after_the_run_moves_another_account(runner: OneProcess, service: Service) -> None:
    on_one_key(service, "account1", "account2")
    newer_by_hand(service, "account1")
    service.sandbox.control.advance(8 * DAY)
    for name in ("account2", "account1"):
        report = rotate(runner, name, **DISABLE)
        assert (report["key_kept_for"], bool(report["key_kept_until"])) == ([service.account_id("account2")], True)
    report = rotate(runner.another(), **DISABLE)
    assert report["key_kept_until"]
    assert service.enabled() == [True, True]


def test_the_time_of_an_account_is_read_again_only_if_it_matters(runner: OneProcess, service: Service) -> None:
    """It shows whether a version is unused. In the days after a version was disabled, it shows whether the account may
    need the version; for that, the time in the response with the document is enough."""
    on_one_key(service, "account1")
    newer_by_hand(service, "account1")
    # Before and after the version is disabled.
    for days, disables, more in ((8, True, 2), (1, False, 0), (8, False, 0)):
        service.sandbox.control.advance(days * DAY)
        since = service.sandbox.control.last
        assert rotate(runner.another(), **DISABLE)["changed_steps"]["unused_disabled"] is disables
        reads = [one for one in service.sandbox.control.requests(since) if "/batchAccounts/account1?" in one["url"]]
        assert len(reads) == 2 + more, reads


def test_names_in_capitals(runner: OneProcess, service: Service) -> None:
    """Azure stores a key identifier in the letter case of the request."""
    first = on_one_key(service, "account1")
    service.point(first.upper().replace("HTTPS", "https"))
    assert not rotate(runner.another(), **AT_ONCE)["changed"]
    report = rotate(runner.another(), **DUE, **AT_ONCE)
    assert report["changed_steps"]["unused_disabled"]
    assert str(service.encryption()).lower() == service.key().id
    assert service.enabled() == [False, True]
    assert service.is_available()


# Ways to run the tasks

HOSTS = [f"account{number}" for number in range(1, 9)]


@pytest.mark.parametrize("become", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_one_new_version_for_eight_accounts(ansible: Ansible, service: Service, become: bool) -> None:
    """They are in one wave. With become, each of eight tasks starts a separate process. The become program creates a
    file, which shows whether Ansible used become."""
    on_one_key(service, *HOSTS)
    program = ansible.write("become.sh", f'#!/bin/sh\ntouch {ansible.folder}/became\nexec env "$@"\n')
    program.chmod(0o755)
    hosts = {name: {"cmk_account_name": name, "ansible_become": become} for name in HOSTS}
    inventory = ansible.write("inventory.json", {"all": {"hosts": hosts}})
    run = ansible.playbook(
        "azbatch.cmk.rotate",
        extra_vars={
            **{name: value for name, value in VARS.items() if name != "cmk_account_name"},
            **FORCE,
            "cmk_hosts": "all",
            "cmk_serial": "100%",
            "ansible_become_exe": str(program),
            "ansible_become_flags": "-u XDG_RUNTIME_DIR",
        },
        # Otherwise Ansible does not use become if the tests run as root.
        environment={"ANSIBLE_BECOME_ALLOW_SAME_USER": "1", "ANSIBLE_STRATEGY": "free"},
        arguments=["-i", str(inventory), "--forks", "8"],
    )
    assert run.rc == 0, run.output
    assert (ansible.folder / "became").exists() is become
    assert len(service.versions()) == 2
    assert set(keys_of(service, *HOSTS)) == {service.key().id}
    assert wrote(run).count("POST key vault-one key1") == 1
    assert sum(one["changed_steps"]["key"] for one in results(run).values()) == 1
