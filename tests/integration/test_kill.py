# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A run is killed right after one of its writes. A rerun has the result of a run without interruption.

By default each role is killed after one of its writes. PROOF=all kills it after each.
"""

from __future__ import annotations

import signal
import subprocess
import time
from functools import partial
from typing import Any

import pytest
from cases import CASES, DISABLE, PROOF_OF_ALL, assert_answers, nothing, undisturbed
from harness import Ansible, kill
from role_runs import QUARTER, VARS, end_state, play_role, result, unchanged, wrote
from sandbox_client import Control
from service import Service

KILLS = [
    pytest.param(name, k, id=f"{name}, write {k}")
    for name, case in CASES.items()
    for k in (range(1, case.writes + 1) if PROOF_OF_ALL else [(case.writes + 1) // 2])
]


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


@pytest.mark.parametrize(("name", "k"), KILLS)
@pytest.mark.slow(every=4)
def test_killed_after_a_write(ansible: Ansible, service: Service, name: str, k: int) -> None:
    expected = undisturbed(partial(play_role, ansible), service, name).end_state
    case = CASES[name]
    wanted = case.begin(service)

    written = killed(ansible, case.role, k, **wanted)
    assert_answers(service, case)
    for left in ansible.local_tmp.rglob("*"):
        assert left.is_dir() or not left.stat().st_mode & 0o077, f"others may read {left}"

    run = play_role(ansible, case.role, **wanted)
    assert_answers(service)
    # After the recovery of a key, its newest version is updated without a change. That is not repeated.
    is_without_update = name == "recover a vault" and written == 2
    assert len(wrote(run)) == case.writes - written - is_without_update, "what was done is not done again"
    assert end_state(service) == expected
    # The availability is unknown (null) if the rerun repaired the rest while Batch listed the pools, which proves
    # nothing, or if the killed run disabled the previous version without a grace period.
    is_in_doubt = case.role == "recover" or wanted.get("cmk_unused_for") == "P0D"
    assert result(run)["available"] in ({True, None} if is_in_doubt else {True}), run.output


def test_killed_while_the_account_is_created(ansible: Ansible, service: Service, control: Control) -> None:
    expected = undisturbed(partial(play_role, ansible), service, "provision").end_state
    wanted = nothing(service)
    control.timing(batch_create=5)
    killed(ansible, "provision", 3, **wanted)
    assert service.account()["properties"]["provisioningState"] == "Creating"
    play_role(ansible, "provision", **wanted)
    assert end_state(service) == expected


@pytest.mark.parametrize(("k", "versions"), [(1, [False, False, True]), (2, [False, True])])
@pytest.mark.slow
def test_killed_while_a_new_version_is_forced(
    ansible: Ansible, service: Service, control: Control, k: int, versions: list[bool]
) -> None:
    """A rerun with force creates a further version. A rerun without force completes the interrupted rotation."""
    service.on_key()
    control.advance(QUARTER)
    assert killed(ansible, "rotate", k, cmk_key_new_version=True, **DISABLE) == k
    assert_answers(service)
    control.advance(60)
    if k == 1:
        play_role(ansible, "rotate", cmk_key_new_version=True, **DISABLE)
        assert_answers(service)
    play_role(ansible, "rotate", **DISABLE)
    assert_answers(service)
    assert service.encryption() == service.key().id
    assert service.enabled() == versions
    unchanged(play_role(ansible, "rotate", **DISABLE))
