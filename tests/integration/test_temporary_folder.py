# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs with a temporary folder of Ansible that is full, read-only or removed, or that has tokens of a killed run."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Ansible, kill, task
from role_runs import QUARTER, VARS, results, second_account
from sandbox_client import TOKEN, Control
from service import GROUP, Service

# Shell commands that damage the folder before the role runs.
DAMAGES = {
    "full": "cat /dev/zero > filler",
    "full to the last file": "cat /dev/zero > filler; i=0; while touch filler$i; do i=$((i+1)); done",
    "read-only": "mount -o remount,ro .",
    "none": "true",
    "removed": "rm -rf ansible-local-*",
}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A separate small disk for temporary files."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m,nr_inodes=200", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"only root may mount a disk that can be filled: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def rotating(disk: Path, damage: str) -> dict[str, Any]:
    command = {"ansible.builtin.shell": {"cmd": f"{{ {DAMAGES[damage]}; }} 2>&1; true", "chdir": str(disk)}}
    return {
        "name": "Rotate",
        "hosts": "all",
        "gather_facts": False,
        "pre_tasks": [{"name": "Damage", **command, "run_once": True}],
        "tasks": [{"name": "Rotate", "ansible.builtin.import_role": {"name": "azbatch.cmk.rotate"}}],
    }


@pytest.mark.parametrize("damage", [one for one in DAMAGES if one != "none"])
@pytest.mark.slow(every=6)
def test_nothing_is_changed_with_an_unusable_temporary_folder(
    ansible: Ansible, service: Service, control: Control, disk: Path, damage: str
) -> None:
    """The hosts could not wait for each other, and each would make a new version. The rerun makes one."""
    _principal, identifier = service.on_key()
    second_account(service, identifier)
    control.advance(QUARTER)
    options: dict[str, Any] = {
        "way": "in_process",
        "extra_vars": {**VARS, "cmk_account_name": "{{ inventory_hostname }}", "cmk_key_max_version_age": "P90D"},
        "arguments": ["-i", "account1,account2,"],
    }
    since = control.last
    run = ansible.playbook([rotating(disk, damage)], environment={"ANSIBLE_LOCAL_TEMP": str(disk)}, **options)
    assert [one["code"] for one in run.failed] == ["temporary_folder_unusable"] * 2, run.output
    assert control.requests(since, writes=True) == []
    run = ansible.playbook([rotating(disk, "none")], **options)
    assert run.rc == 0, run.output
    assert {one["changed"] for one in results(run).values()} == {True}
    newest = service.key().id
    assert newest != identifier
    assert len(service.versions()) == 2
    assert {service.encryption(name) for name in ("account1", "account2")} == {newest}


def test_tokens_of_a_run_that_was_killed_are_removed(ansible: Ansible, service: Service, control: Control) -> None:
    service.make_account()
    look = task("look", "batch_encryption_info", resource_group=GROUP, account_name="account1")
    control.call("POST", "/faults", {"match": {"path": "batchAccounts/account1"}, "delay": 120, "times": None})
    process = subprocess.Popen(
        ansible.arguments([{"hosts": "localhost", "gather_facts": False, "tasks": [look]}], way="in_process"),
        env=ansible.environment(ANSIBLE_CALLBACKS_ENABLED=None),
        cwd=ansible.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while not tokens(ansible):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        kill(process.pid)
        process.wait()
    control.call("DELETE", "/faults")
    assert tokens(ansible), "nothing was left that is to be removed"

    ansible.play([look], way="in_process")
    assert [file for file in ansible.local_tmp.rglob("*") if file.is_file()] == []


def tokens(ansible: Ansible) -> list[Path]:
    return [file for file in ansible.local_tmp.rglob("*.json") if TOKEN.search(file.read_text())]
