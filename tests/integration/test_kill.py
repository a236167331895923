# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ansible-playbook and its processes are killed after one of their writes. A rerun completes the run."""

from __future__ import annotations

import signal
import subprocess
import time
from typing import Any

from harness import Ansible, kill
from role_runs import VARS, play_role, unchanged
from service import Service


def killed(ansible: Ansible, role: str, writes: int, **variables: Any) -> int:
    """Run the playbook and kill all of its processes after its write request number `writes`. Returns the number of
    write requests that Azure completed."""
    control = ansible.sandbox.control
    since = control.last
    process = subprocess.Popen(
        ansible.arguments(f"azbatch.cmk.{role}", extra_vars={**VARS, **variables}),
        env=ansible.environment(ANSIBLE_CALLBACKS_ENABLED=None),
        cwd=ansible.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        deadline = time.monotonic() + 120
        while len(control.requests(since, writes=True)) < writes:
            assert process.poll() is None, process.communicate()[0].decode()
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        kill(process.pid)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    # Azure completes a request that was sent before the process was killed.
    time.sleep(0.5)
    return len(control.requests(since, writes=True))


def test_killed_after_the_account_was_moved(ansible: Ansible, service: Service) -> None:
    service.on_key()
    service.make_key("other")
    switch = {"cmk_new_key_identifier": service.key("other").id}
    assert killed(ansible, "switch", 1, **switch) == 1
    assert service.is_available()
    for left in ansible.local_tmp.rglob("*"):
        assert left.is_dir() or not left.stat().st_mode & 0o077, f"others may read {left}"

    unchanged(play_role(ansible, "switch", **switch))
    assert service.encryption() == service.key("other").id
    assert service.is_available()
