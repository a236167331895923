# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A run killed right after any of its writes: the same run again ends as an undisturbed one would have."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from harness import Ansible
from role_runs import QUARTER, VARS, play_role, result, standing, unchanged, wrote
from sandbox_client import Control
from service import Service

DISABLE = {"cmk_previous_version": "disable"}


@dataclass(frozen=True)
class Case:
    role: str
    # Makes what the run begins with; returns variables of the run.
    begin: Callable[[Service], dict[str, Any]]
    # How often an undisturbed run writes.
    writes: int


def nothing(service: Service) -> dict[str, Any]:
    return {"cmk_vault_authorization": "access_policy"}


def an_identity(service: Service) -> dict[str, Any]:
    service.make_identity()
    return {"cmk_vault_authorization": "rbac", "cmk_identity": service.identity_id()}


def an_old_version(service: Service) -> dict[str, Any]:
    service.on_key()
    service.sandbox.control.advance(QUARTER)
    return {"cmk_key_max_age": "P90D", **DISABLE}


def another_vault(service: Service) -> dict[str, Any]:
    service.on_key(rbac=True)
    service.make_vault("vault-two", rbac=True)
    return {"cmk_new_key_identifier": service.make_key("other", "vault-two").id, **DISABLE}


def an_account_on_its_key(service: Service) -> dict[str, Any]:
    service.on_key()
    return {"cmk_revert_key": "disable", "cmk_revert_access": "withdraw"}


CASES = {
    "provision": Case("provision", nothing, 5),
    "provision, user-assigned": Case("provision", an_identity, 4),
    "rotate by age": Case("rotate", an_old_version, 3),
    "rotate to a different key": Case("rotate", another_vault, 3),
    "revert": Case("revert", an_account_on_its_key, 3),
}
KILLS = [
    pytest.param(name, k, id=f"{name}, write {k}") for name, case in CASES.items() for k in range(1, case.writes + 1)
]

_undisturbed: dict[str, Any] = {}


def undisturbed(ansible: Ansible, service: Service, name: str) -> Any:
    """How things stand after a run that nobody disturbed; the sandbox is as in the beginning then."""
    if name not in _undisturbed:
        case = CASES[name]
        run = play_role(ansible, case.role, **case.begin(service))
        assert len(wrote(run)) == case.writes
        assert service.answers()
        _undisturbed[name] = standing(service)
        service.sandbox.control.reset()
    return _undisturbed[name]


def killed(ansible: Ansible, role: str, writes: int, **variables: Any) -> None:
    """Run the playbook and kill all of its processes once it has written so often."""
    control = ansible.sandbox.control
    since = control.call("GET", f"/requests?since={2**62}")["last"]
    process = subprocess.Popen(
        ansible.arguments(f"azbatch.cmk.{role}", extra_vars={**VARS, **variables}),
        env=ansible.environment(ANSIBLE_CALLBACKS_ENABLED=None),
        cwd=ansible.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while len(control.requests(since, writes=True)) < writes:
            assert process.poll() is None, process.communicate()[0].decode()
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert len(control.requests(since, writes=True)) == writes, "it was killed too late"


def assert_answers(service: Service) -> None:
    assert all(service.answers(name) for name in service.accounts())


@pytest.mark.parametrize(("name", "k"), KILLS)
def test_killed_after_a_write(ansible: Ansible, service: Service, name: str, k: int) -> None:
    expected = undisturbed(ansible, service, name)
    case = CASES[name]
    wish = case.begin(service)

    killed(ansible, case.role, k, **wish)
    assert_answers(service)
    for left in ansible.local_tmp.rglob("*"):
        assert left.is_dir() or not left.stat().st_mode & 0o077, f"others may read {left}"

    run = play_role(ansible, case.role, **wish)
    assert_answers(service)
    assert len(wrote(run)) == case.writes - k, "what was done is not done again"
    assert standing(service) == expected
    assert result(run)["answers"] is True


def test_killed_while_the_account_is_created(ansible: Ansible, service: Service, control: Control) -> None:
    expected = undisturbed(ansible, service, "provision")
    wish = nothing(service)
    control.timing(batch_create=5)
    killed(ansible, "provision", 2, **wish)
    assert service.account()["properties"]["provisioningState"] == "Creating"
    play_role(ansible, "provision", **wish)
    assert standing(service) == expected


@pytest.mark.parametrize(("k", "versions"), [(1, [False, False, True]), (2, [False, True]), (3, [False, True])])
def test_killed_while_a_new_version_is_forced(
    ansible: Ansible, service: Service, control: Control, k: int, versions: list[bool]
) -> None:
    """Forced again, it makes one more; without force it ends what was begun."""
    service.on_key()
    control.advance(QUARTER)
    killed(ansible, "rotate", k, cmk_key_force_new_version=True, **DISABLE)
    assert_answers(service)
    control.advance(60)
    force = {"cmk_key_force_new_version": True} if k == 1 else {}
    play_role(ansible, "rotate", **force, **DISABLE)
    assert_answers(service)
    assert service.encryption() == service.key().id
    assert [version.enabled for version in service.versions()] == versions
    unchanged(play_role(ansible, "rotate", **DISABLE))
