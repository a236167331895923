# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts, waves and callers of a run share reads. No host reports a state that was read before its own previous task or
before its wave, and no caller gets what another caller has read."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from typing import Any

import pytest
from harness import BIN, Ansible, Run, Task, task
from meddling import REALISTIC
from one_process import OneProcess
from role_runs import second_account
from service import DAY, GROUP, OFFICER, Service

KEY1 = {"vault_name": "vault-one", "name": "key1"}


def move(identifier: str, account: str = "{{ inventory_hostname }}") -> dict[str, Any]:
    where = {"resource_group": GROUP, "account_name": account, "wait_timeout": 60}
    return {**where, "key_source": "microsoft_keyvault", "key_identifier": identifier}


def by_another_tool(module: str, **options: Any) -> dict[str, Any]:
    """A task that changes Azure as another tool does: in another run, which shares nothing with this run."""
    arguments = " ".join(f"{name}={value}" for name, value in options.items())
    shared = f"-e ansible_python_interpreter={sys.executable}"
    command = f"{BIN}/ansible localhost {shared} -m azbatch.cmk.{module} -a {shlex.quote(arguments)}"
    return {"name": "another tool", "ansible.builtin.command": command, "when": "inventory_hostname == 'account2'"}


REVERT = {"resource_group": GROUP, "account_name": "account2", "key_source": "microsoft_batch"}
REVOKE = {"vault_name": "vault-one", "account_name": "account2", "account_resource_group": GROUP, "state": "absent"}


@pytest.fixture
def key(service: Service) -> str:
    """account1 and account2 use this version for a month."""
    _principal, identifier = service.on_key()
    second_account(service, identifier)
    service.sandbox.control.advance(30 * DAY)
    return identifier


def play(ansible: Ansible, tasks: list[dict[str, Any]], **keywords: Any) -> Run:
    hosts = {name: {"ansible_connection": "local"} for name in ("account1", "account2")}
    file = ansible.write("inventory.yml", {"all": {"hosts": hosts}})
    one = {"hosts": "all", "gather_facts": False, "ignore_errors": True, "tasks": tasks, **keywords}
    return ansible.playbook([one], arguments=["-i", str(file)])


def last(run: Run, name: str, host: str) -> Task:
    return [one for one in run if (one.name, one.host) == (name, host)][-1]


def test_a_second_wave_reads_again(ansible: Ansible, service: Service, key: str) -> None:
    tool = by_another_tool("keyvault_cmk_key_state", **KEY1, state="disabled", force=True)
    run = play(ansible, [tool, task("key", "batch_encryption", **move(key))], serial=1)
    assert last(run, "key", "account1")["available"] is True, run.output
    assert last(run, "key", "account2").get("code") == "account_unavailable", run.output


def test_hosts_that_do_not_wait_for_each_other_read_again(ansible: Ansible, service: Service, key: str) -> None:
    later = by_another_tool("batch_encryption", **REVERT)
    done = ansible.folder / "done"
    # The tool waits for account1, which has then read what it shares.
    later["ansible.builtin.shell"] = f"until [ -e {done} ]; do sleep 0.1; done; {later.pop('ansible.builtin.command')}"
    touch = {"ansible.builtin.file": {"path": str(done), "state": "touch"}, "when": "inventory_hostname == 'account1'"}
    run = play(ansible, [later, task("key", "batch_encryption", **move(key)), touch], strategy="free")
    assert last(run, "key", "account1")["available"] is True, run.output
    assert last(run, "key", "account2")["changed"] is True, run.output


def test_a_handler_that_is_notified_twice_reads_again(ansible: Ansible, service: Service, key: str) -> None:
    tool = by_another_tool("keyvault_cmk_access", **REVOKE, force=True)
    notify = {"ansible.builtin.command": "true", "notify": "key"}
    flush = {"ansible.builtin.meta": "flush_handlers"}
    run = play(
        ansible,
        [{**notify, "name": "once"}, flush, tool, {**notify, "name": "twice"}, flush],
        handlers=[task("key", "batch_encryption", **move(key))],
    )
    assert next(one.status for one in run if (one.name, one.host) == ("key", "account1")) == "ok", run.output
    assert last(run, "key", "account2").get("code") == "account_unavailable", run.output


def test_a_task_that_is_repeated_reads_again(ansible: Ansible, service: Service, key: str) -> None:
    """`until` waits for a repair by another tool."""
    service.disable()
    repair = by_another_tool("keyvault_cmk_key_state", **KEY1, state="enabled")["ansible.builtin.command"]
    found = task("key", "batch_encryption", register="found", **move(key))
    until = {"until": "found is not failed", "retries": 30, "delay": 1}
    later = {"name": "repair", "ansible.builtin.shell": f"(sleep 2; {repair}) >/dev/null 2>&1 &"}
    run = play(ansible, [{**later, "run_once": True}, {**found, **until}])
    assert not last(run, "key", "account2").failed, run.output


# What is confirmed


def test_access_that_another_caller_of_the_run_has_revoked(runner: OneProcess, service: Service) -> None:
    _principal, first = service.on_key()
    second_account(service, first)
    wanted = service.make_key("key2").id
    service.sandbox.control.advance(30 * DAY)
    service.sandbox.control.timing(**REALISTIC)
    made = service.sandbox.control.principal("other", roles=[{"role": "Owner", "scope": service.sandbox.subscription}])
    service.set_policy("add", service.policy(made["object_id"], *OFFICER))
    other = replace(runner, connection={"client_id": made["client_id"], "secret": made["secret"]})
    options = {"resource_group": GROUP, "key_source": "microsoft_keyvault", "previous_key": "any", "wait_timeout": 60}
    assert runner.module("batch_encryption", {**options, "account_name": "account1", "key_identifier": wanted})[
        "changed"
    ]
    access = {"vault_name": "vault-one", "account_name": "account2", "account_resource_group": GROUP}
    assert other.module("keyvault_cmk_access", {**access, "state": "absent", "force": True})["changed"]
    found = runner.module("batch_encryption", {**options, "account_name": "account2", "key_identifier": wanted})
    assert found["code"] == "account_unavailable", found
    assert service.account("account2")["identity"]["principalId"] in found["details"]


def test_users_of_a_key_are_not_shown_to_another_caller(runner: OneProcess, service: Service) -> None:
    service.on_key()
    made = service.sandbox.control.principal("other", roles=[])
    other = replace(runner, connection={"client_id": made["client_id"], "secret": made["secret"]})
    options = {**KEY1, "state": "disabled", "in_use": "keep"}
    assert runner.module("keyvault_cmk_key_state", options)["in_use_by"] == [service.account_id()]
    refused = other.module("keyvault_cmk_key_state", options)
    assert refused.get("failed"), refused
    assert service.account_id() not in str(refused)
