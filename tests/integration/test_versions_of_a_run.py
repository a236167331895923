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
from service import Service

FORCE = {"cmk_key_new_version": True}


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
