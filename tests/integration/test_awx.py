# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the steps of AWX with ansible-runner: an update of the inventory source, then a canary job and a sliced job.

AWX gives each job a private data directory, an inventory that is a script, and the credential in its environment.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ansible_runner
import pytest
from cases import BUSY
from harness import Ansible, until, writes
from role_runs import QUARTER, things
from service import Service

SLICES = 3
ACCOUNTS = [f"account{number}" for number in range(1, 8)]
# The files of the project in docs/awx.md that these jobs use.
PROJECT = {
    "batch_accounts.yml": "plugin: azbatch.cmk.batch_accounts\n",
    "rotate.yml": "- name: Rotate\n  ansible.builtin.import_playbook: azbatch.cmk.rotate\n",
    "ansible.cfg": "[defaults]\ncallbacks_enabled = azbatch.cmk.progress\n",
}

Inventory = dict[str, Any]


@dataclass
class Awx:
    """Emulates the steps of AWX before and after a job."""

    folder: Path
    environment: Mapping[str, str]

    def update_inventory(self) -> Inventory:
        """The hosts and groups of the inventory source, as AWX stores them until the next update."""
        found, errors = ansible_runner.get_inventory(
            action="list",
            inventories=[str(self._directory("update") / "project" / "batch_accounts.yml")],
            response_format="json",
            export=True,
            envvars=dict(self.environment),
            quiet=True,
        )
        assert "WARNING" not in errors, errors
        inventory: Inventory = found
        return inventory

    def job(self, name: str, inventory: Inventory, **variables: Any) -> Any:
        """Run a job with the stored inventory. It has to succeed."""
        ended = ansible_runner.run(**self._template(name, inventory, variables))
        assert (ended.status, ended.rc) == ("successful", 0), ended.stdout.read()
        return ended

    def ended_job(
        self, name: str, inventory: Inventory, *, end: str, when: Callable[[], bool], **variables: Any
    ) -> None:
        """Run a job that is canceled, or reaches its timeout, once `when` is true."""
        is_canceled = threading.Event()
        template = {**self._template(name, inventory, variables), "settings": {"pexpect_timeout": 0.2}}
        thread, job = ansible_runner.run_async(**template, cancel_callback=is_canceled.is_set)
        try:
            until(when)
        finally:
            if end == "timeout":
                job.config.job_timeout = 1
            else:
                is_canceled.set()
            thread.join()
            # ansible-runner ends only the process group of ansible-playbook. AWX ends the job's container as well.
            for file in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(FileNotFoundError, ProcessLookupError):
                    if str(self.folder / name).encode() in file.read_bytes():
                        os.kill(int(file.parent.name), signal.SIGKILL)
        assert job.status == end, job.stdout.read()

    def _template(self, name: str, inventory: Inventory, variables: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a job."""
        directory = self._directory(name)
        script = directory / "inventory" / "hosts"
        script.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(inventory)}\nEND\n")
        script.chmod(0o700)
        return {
            "private_data_dir": str(directory),
            "playbook": "rotate.yml",
            "inventory": str(script),
            "extravars": variables,
            "envvars": dict(self.environment),
            "ident": name,
            "quiet": True,
        }

    def sliced_job(self, inventory: Inventory, **variables: Any) -> list[Any]:
        """Run the slices of a job concurrently."""
        with ThreadPoolExecutor(SLICES) as threads:
            return list(threads.map(lambda n: self.job(f"slice{n}", sliced(inventory, n), **variables), range(SLICES)))

    def _directory(self, name: str) -> Path:
        directory = self.folder / name
        for part in ("project", "inventory", "env"):
            (directory / part).mkdir(parents=True)
        for file, content in PROJECT.items():
            (directory / "project" / file).write_text(content)
        return directory


def artifacts(job: Any) -> dict[str, Any]:
    """The extra variables that AWX passes to the next nodes of the workflow: the variables that set_stats has set."""
    (stats,) = (event["event_data"] for event in job.events if event["event"] == "playbook_on_stats")
    found: dict[str, Any] = stats["artifact_data"]
    return found


def sliced(inventory: Inventory, number: int) -> Inventory:
    """A slice of the inventory: every third host in the order of the names, with its groups."""
    hosts = sorted(inventory["_meta"]["hostvars"])[number::SLICES]
    known = {name: variables for name, variables in inventory["_meta"]["hostvars"].items() if name in hosts}
    groups = {
        name: {**group, **({"hosts": [one for one in group["hosts"] if one in hosts]} if "hosts" in group else {})}
        for name, group in inventory.items()
        if name != "_meta"
    }
    return {**groups, "_meta": {"hostvars": known}}


@pytest.fixture
def awx(ansible: Ansible, tmp_path: Path) -> Awx:
    plain = {name: value for name, value in ansible.environment().items() if not name.startswith("AZURE_")}
    for name in ("ANSIBLE_CONFIG", "ANSIBLE_CALLBACK_PLUGINS", "ANSIBLE_CALLBACKS_ENABLED"):
        plain.pop(name)
    sandbox = ansible.sandbox
    # The variables of the credential type "Microsoft Azure Resource Manager", and no others.
    credential = {
        "AZURE_SUBSCRIPTION_ID": sandbox.subscription_id,
        "AZURE_TENANT": sandbox.tenant_id,
        "AZURE_CLIENT_ID": sandbox.client_id,
        "AZURE_SECRET": sandbox.secret,
    }
    return Awx(tmp_path / "awx", {**plain, **credential})


def on_an_old_version(service: Service) -> str:
    """Create all accounts, which use an old key version. Returns the version's identifier."""
    service.make_vault(rbac=True)
    identifier: str = service.make_key().id
    for name in ACCOUNTS:
        service.grant(service.make_account(name)["identity"]["principalId"])
        service.point(identifier, name)
    service.sandbox.control.advance(QUARTER)
    return identifier


@pytest.mark.parametrize(
    "rule", [{"cmk_key_max_age": "P90D"}, {"cmk_key_force_new_version": True}], ids=["due", "forced"]
)
@pytest.mark.slow(every=2)
def test_a_canary_and_slices_rotate_each_account_once(awx: Awx, service: Service, rule: dict[str, Any]) -> None:
    """The slices are in a nested workflow job, which is a node of the workflow that contains the canary."""
    identifier, control = on_an_old_version(service), service.sandbox.control
    inventory = awx.update_inventory()
    assert sorted(inventory["_meta"]["hostvars"]) == ACCOUNTS

    since = control.last
    canary = awx.job("canary", inventory, **rule, cmk_hosts="pinned[0]", awx_workflow_job_id=1)
    newest = service.key().id
    assert [service.encryption(name) for name in ACCOUNTS] == [newest, *[identifier] * 6]

    jobs = awx.sliced_job(inventory, **rule, cmk_hosts="pinned", **{"awx_workflow_job_id": 2, **artifacts(canary)})
    assert {name: service.encryption(name) for name in ACCOUNTS} == dict.fromkeys(ACCOUNTS, newest)
    assert all(service.is_available(name) for name in ACCOUNTS)
    assert Counter(things(writes(control.requests(since)))) == {
        "POST key vault-one key1": 1,
        **{f"PATCH account {name}": 1 for name in ACCOUNTS},
    }
    assert sorted(host for job in jobs for host in job.stats["ok"]) == ACCOUNTS
    for job in jobs:
        assert "failures" not in job.stats or not job.stats["failures"]
        output = job.stdout.read()
        assert re.search(r"PROGRESS: \d rotated, \d unchanged, 0 failed", output), output
        assert service.sandbox.secret not in output


def test_the_same_job_again_changes_nothing(awx: Awx, service: Service) -> None:
    service.on_key()
    inventory = awx.update_inventory()
    since = service.sandbox.control.last
    awx.job("job1", inventory, cmk_hosts="pinned", cmk_key_max_age="P90D")
    assert writes(service.sandbox.control.requests(since)) == []


@pytest.mark.parametrize(
    ("end", "moved"),
    [
        pytest.param("canceled", 3, id="canceled in the second wave"),
        pytest.param("timeout", 0, id="timeout before any account is moved"),
    ],
)
@pytest.mark.slow
def test_the_next_job_completes_an_interrupted_job(awx: Awx, service: Service, end: str, moved: int) -> None:
    old, control = on_an_old_version(service), service.sandbox.control
    inventory = awx.update_inventory()
    wanted = {"cmk_hosts": "pinned", "cmk_key_max_age": "P90D"}
    # The job waits 300 s before it repeats this request, and is ended during that wait.
    later = {"status": 429, "headers": {"Retry-After": "300"}, "body": BUSY}
    control.fault(match={"method": "PATCH", "path": "batchAccounts"}, skip=moved, times=None, answer=later)
    since = control.last

    def is_in_mid_change() -> bool:
        return any(one["status"] == later["status"] for one in control.requests(since))

    awx.ended_job("job1", inventory, end=end, when=is_in_mid_change, **wanted)
    control.call("DELETE", "/faults")
    newest = service.key().id
    assert Counter(service.encryption(name) for name in ACCOUNTS) == Counter({old: 7 - moved, newest: moved})
    assert all(service.is_available(name) for name in ACCOUNTS)

    awx.job("job2", inventory, **wanted)
    assert {name: service.encryption(name) for name in ACCOUNTS} == dict.fromkeys(ACCOUNTS, newest)
    assert all(service.is_available(name) for name in ACCOUNTS)
    assert len(service.versions()) == 2
    since = control.last
    awx.job("job3", inventory, **wanted)
    assert writes(control.requests(since)) == []


def test_the_next_node_of_a_workflow_gets_the_accounts(awx: Awx, service: Service) -> None:
    """The next job gets the accounts as extra variables. These do not override its own result, which it passes on."""
    service.make_vault()
    first = str(service.make_key().id)
    for name in ACCOUNTS[:3]:
        service.grant(service.make_account(name)["identity"]["principalId"])
        service.point(first, name)
    service.sandbox.control.advance(QUARTER)
    inventory = awx.update_inventory()
    changed = {"changed": True, "finished": True}

    canary = artifacts(awx.job("canary", inventory, cmk_hosts="pinned[0]", cmk_key_max_age="P90D"))
    versions = {first.rpartition("/")[0]: service.key().properties.version}
    result = {"accounts": {"account1": changed}, "not_started": [], "new_versions": versions}
    assert canary == {"cmk_rotate_result": result}

    # An extra variable of the workflow node: all accounts except those of the previous node.
    others = "{{ ['pinned'] | union(cmk_rotate_result.accounts | map('regex_replace', '^', '!')) | join(':') }}"
    job = awx.job("others", inventory, cmk_hosts=others, cmk_key_max_age="P90D", **canary)
    result = {"accounts": dict.fromkeys(ACCOUNTS[1:3], changed), "not_started": [], "new_versions": {}}
    assert artifacts(job) == {"cmk_rotate_result": result}
    assert "WARNING" not in job.stdout.read()
