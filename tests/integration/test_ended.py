# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""If a timeout or a signal ends a task during a switch, the task first reads whether the account can use
the key. If not, it restores the account's previous key."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from ansible.release import __version__
from harness import Ansible, fails, family, kill, task, until
from packaging.version import Version
from service import GROUP, Service

# From this release on, ansible-core's exception contains the timeout, and ansible-playbook passes signals to workers.
IS_SIGNALLED = Version(__version__) >= Version("2.19")

POOLS = {"method": "GET", "path": "/batchAccounts/account1/pools"}
PATCH = {"method": "PATCH", "path": "/batchAccounts/account1"}


def to_key(identifier: str) -> dict[str, Any]:
    requested = {"key_source": "microsoft_keyvault", "key_identifier": identifier}
    return task("switch", "batch_encryption", resource_group=GROUP, account_name="account1", **requested)


@pytest.mark.parametrize(
    "slow",
    [
        pytest.param({"match": POOLS, "delay": 8}, id="whether it is available"),
        pytest.param({"match": PATCH, "delay": 5}, id="the change"),
    ],
)
@pytest.mark.slow(every=2)
def test_a_timeout_in_the_middle_of_a_switch(ansible: Ansible, service: Service, slow: dict[str, Any]) -> None:
    service.on_key()
    wanted = service.make_key().id
    service.sandbox.control.fault(**slow)
    run = ansible.play([fails({**to_key(wanted), "timeout": 3})], way="in_process")
    one = run["switch"]
    assert one["code"] == "timed_out", one
    assert one["timedout"]["period"] == (3 if IS_SIGNALLED else None)
    assert one["restored"] is False
    assert "The change took effect, and stays." in one["msg"]
    assert one["current_state"]["key_identifier"] == wanted
    assert len(one.writes) == 1
    assert service.encryption() == wanted
    assert service.is_available()


@pytest.mark.slow
def test_a_response_that_is_too_late_leaves_the_result_in_doubt(ansible: Ansible, service: Service) -> None:
    """The task waits ten seconds for the response, so the change takes effect after the rollback."""
    service.on_key()
    wanted = service.make_key().id
    service.sandbox.control.fault(match=PATCH, delay=16)
    run = ansible.play([fails({**to_key(wanted), "timeout": 3})], way="in_process")
    one = run["switch"]
    assert (one["code"], one["restored"]) == ("timed_out", False), one
    assert "may still take effect" in one["msg"]
    until(lambda: service.encryption() == wanted)
    assert service.is_available()


def runs(process: int) -> bool:
    with suppress(FileNotFoundError):
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z"
    return False


@pytest.mark.parametrize("is_seen", [True, False], ids=["usable", "not known"])
@pytest.mark.parametrize("way", ["in_process", "module"])
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.slow(every=3)
def test_a_signal_in_the_middle_of_a_switch(
    ansible: Ansible, service: Service, signum: int, way: str, is_seen: bool
) -> None:
    """The worker that ansible-playbook signals, or the module in a separate process, reads whether the account can use
    the key before it ends. If that is not known, the change is rolled back."""
    _principal, first = service.on_key()
    wanted = service.make_key().id
    control = service.sandbox.control
    # The signal may arrive before the request for the pools. Then the check after it has the delay.
    refused = {} if is_seen else {"answer": {"status": 403, "body": {"error": {"code": "AuthorizationFailed"}}}}
    control.fault(match=POOLS, delay=20, **refused)
    if not is_seen:
        control.fault(match=POOLS, times=50, **refused)
    since = control.last
    play = {"name": "Test", "hosts": "localhost", "gather_facts": False, "tasks": [to_key(wanted)]}
    process = subprocess.Popen(
        ansible.arguments([play], way=way),
        env=ansible.environment(ANSIBLE_CALLBACKS_ENABLED=None),
        cwd=ansible.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        # A shell without job control, such as one of CI, lets the processes in its background ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        until(lambda: service.encryption() == wanted)
        members = family(process.pid)
        if way == "module":
            # ansible-playbook sometimes ends before it has signaled a module: 2 times of 360 with a plain `sleep`.
            os.killpg(os.getpgid(family(process.pid)[0]), signum)
        else:
            os.kill(process.pid, signum)
        output = process.communicate(timeout=60)[0].decode()
    finally:
        if process.poll() is None:
            kill(process.pid)
            process.communicate()
    assert process.returncode != 0, output
    assert service.is_available()
    if way == "in_process" and not IS_SIGNALLED:
        # A worker that gets no signal finishes the switch.
        assert service.encryption() in (first, wanted)
        return
    # The worker may end after ansible-playbook itself.
    until(lambda: not any(map(runs, members)))
    assert service.encryption() == (wanted if is_seen else first)
    moves = [one for one in control.requests(since, writes=True) if one["method"] == "PATCH"]
    assert len(moves) == (1 if is_seen else 2)
