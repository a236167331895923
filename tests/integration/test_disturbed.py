# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A request of a role fails or gets no response, or the run is killed. A rerun has the result of a run without faults.

By default, only some kinds of faults are injected, each at one request of a role, in this process or by
ansible-playbook. With PROOF=all, each kind of fault is injected at each request, in this process. Half of the runs have
one switch of the sandbox in another position.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import pytest
from cases import CASES, DISTURBANCES, PROOF_OF_ALL, assert_answers, undisturbed
from harness import Ansible
from meddling import Killed, Wire
from one_process import OneProcess
from operators import Report
from positions import SETTLED, position
from role_runs import VARS, end_state, play_role, result, run_role
from service import DAY, Service, reset

# By default, every third combination, which still includes each case and each kind of fault.
TRIALS = [(name, kind) for name in CASES for kind in DISTURBANCES][:: 1 if PROOF_OF_ALL else 3]
# With PROOF=all, each case and each kind of fault at least once, at different requests of the run.
FEW = [(name, kind, 3 + 5 * n) for n, (name, kind) in enumerate(zip([*CASES, *CASES], DISTURBANCES, strict=False))][
    :: 1 if PROOF_OF_ALL else 2
]


@pytest.mark.parametrize(("name", "kind", "n"), FEW)
@pytest.mark.slow(every=11)
def test_disturbed_playbook(ansible: Ansible, service: Service, name: str, kind: str, n: int) -> None:
    play = partial(play_role, ansible)
    expected = undisturbed(play, service, name)
    requested = CASES[name].begin(service)
    with disturbed(service, DISTURBANCES[kind], n % expected.requests, expected.requests):
        run = run_role(ansible, CASES[name].role, **requested)
    assert run.rc in (0, 2), run.output
    assert "Traceback" not in run.output
    has_kept = run.rc == 0 and has_kept_versions(result(run))
    assert_repaired(play, service, name, requested, keeps_versions=has_kept)


@pytest.mark.parametrize(("name", "kind"), TRIALS)
@pytest.mark.slow(every=3)
def test_disturbed(runner: OneProcess, service: Service, name: str, kind: str) -> None:
    play = partial(play_in_process, runner)
    requests = undisturbed(play, service, name).requests
    for n in chosen(TRIALS.index((name, kind)), requests):
        reset(service.sandbox.control)
        requested = CASES[name].begin(service)
        with in_position(service, n + TRIALS.index((name, kind))), disturbed(service, DISTURBANCES[kind], n, requests):
            report = run_in_process(runner, CASES[name].role, **requested)
        assert_repaired(play, service, name, requested, f"at request {n}", keeps_versions=has_kept_versions(report))


# A poller runs in a thread, which raises Killed as well.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("name", CASES)
def test_killed_between_requests(runner: OneProcess, service: Service, wire: Wire, name: str) -> None:
    play = partial(play_in_process, runner)
    for n in chosen(len(name), undisturbed(play, service, name).requests):
        reset(service.sandbox.control)
        requested = CASES[name].begin(service)
        with in_position(service, n), wire.meddled(n, wire.kill), suppress(Killed):
            run_in_process(runner, CASES[name].role, **requested)
        assert_repaired(play, service, name, requested, f"at request {n}")


@contextmanager
def in_position(service: Service, number: int) -> Iterator[None]:
    """Run with one switch of the sandbox in another position (`position`), until everything has taken effect."""
    control, switches = service.sandbox.control, position(number)
    control.behavior(**switches)
    yield
    if switches:
        control.advance(SETTLED)


def chosen(number: int, requests: int) -> list[int]:
    """The numbers of the requests at which a fault is injected, counted from 0."""
    return list(range(requests)) if PROOF_OF_ALL else [number * 7 % requests]


def run_in_process(runner: OneProcess, role: str, **requested: Any) -> Report:
    controller = runner.another()
    try:
        # Reads may lag behind writes for longer than the tests' usual timeout.
        return controller.role(role, {**VARS, "cmk_wait_timeout": 900, **requested})
    finally:
        # The disk is too small for the files of all runs.
        shutil.rmtree(controller.tokens, ignore_errors=True)


def play_in_process(runner: OneProcess, role: str, **requested: Any) -> None:
    report = run_in_process(runner, role, **requested)
    assert not report.get("failed"), report


@contextmanager
def disturbed(service: Service, kind: dict[str, Any], at: int, requests: int) -> Iterator[None]:
    """Inject a fault at request number `at`, counted from 0, of a run with about `requests` requests."""
    control = service.sandbox.control
    control.fault(**kind, skip=at)
    yield
    (met,) = control.call("GET", "/faults")["faults"]
    control.call("DELETE", "/faults")
    service.sign_in_again()
    # If two threads sign in at the same time, they read the authority's metadata once or twice. If lists still show an
    # account with the key that it has left, the run asks no more about that key.
    is_short = at == requests - 1 or control.call("GET", "/behavior")["read_lag"] != "0"
    assert met["applied"] or is_short, f"the run was too short for {at} requests"


def has_kept_versions(report: Report) -> bool:
    """Whether the run has moved the account and has disabled no unused version, because it could not read the times of
    accounts. The versions are then kept for a further margin, and disabled after it."""
    steps = report.get("changed_steps", {})
    return bool(steps.get("encryption")) and steps.get("unused_disabled") is False


def assert_repaired(
    play: partial[Any],
    service: Service,
    name: str,
    requested: dict[str, Any],
    where: str = "",
    *,
    keeps_versions: bool = False,
) -> None:
    """Check that no account has lost its key, and that a rerun has the result of a run without faults; with
    `keeps_versions` except that versions may still be enabled."""
    case, expected = CASES[name], undisturbed(play, service, name).end_state
    assert_answers(service, case)
    play(case.role, **requested)
    if lag := int(service.sandbox.control.call("GET", "/behavior")["read_lag"]):
        # The reads of the rerun may be older than its change, so a later run disables what accounts have left.
        service.sandbox.control.advance(lag)
        play(case.role, **requested)
        service.sandbox.control.advance(lag)
    assert_answers(service)
    found = without_one_more_version(end_state(service), expected)
    if keeps_versions and found != expected:
        assert _all_enabled(found) == _all_enabled(expected), where
        service.sandbox.control.advance(8 * DAY)
        play(case.role, **requested)
        assert_answers(service)
        assert service.enabled() == [False] * (len(service.versions()) - 1) + [True], where
    else:
        assert found == expected, where


def _all_enabled(state: Any) -> Any:
    """A copy in which all versions are enabled."""
    if isinstance(state, dict):
        return {name: True if name == "enabled" else _all_enabled(value) for name, value in state.items()}
    return [_all_enabled(one) for one in state] if isinstance(state, list) else state


def without_one_more_version(found: Any, expected: Any) -> Any:
    """A copy without a further version that a failed request may have created."""
    if found == expected:
        return found
    vaults = found["keys"]
    for vault, keys in vaults.items():
        for key, versions in keys.items():
            wanted = expected["keys"].get(vault, {}).get(key)
            if key != "deleted" and wanted is not None and len(versions) == len(wanted) + 1:
                return _renumbered(found, vault, key, len(versions))
    return found


def _renumbered(found: Any, vault: str, key: str, newest: int) -> Any:
    """A copy without the version before the newest version, which gets the number of the removed version."""
    before, last = f"<{vault} {key} {newest - 1}>", f"<{vault} {key} {newest}>"

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: renamed(one) for name, one in value.items()}
        if isinstance(value, list):
            return [renamed(one) for one in value if not (isinstance(one, dict) and one.get("version") == before)]
        return re.sub(re.escape(last), before, value) if isinstance(value, str) else value

    return renamed(found)
