# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A sandbox for each worker, an Ansible for each test, and each module's two ways held against each other."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from harness import WAYS, Ansible, comparable, short
from sandbox_client import Control, Sandbox, started
from service import Service


@pytest.fixture(scope="session")
def running_sandbox() -> Iterator[Sandbox]:
    sandbox = started()
    yield sandbox
    sandbox.process.terminate()
    assert sandbox.process.wait(20) == 0


@pytest.fixture
def sandbox(running_sandbox: Sandbox) -> Sandbox:
    """As it is in the beginning."""
    running_sandbox.control.reset()
    return running_sandbox


@pytest.fixture
def control(sandbox: Sandbox) -> Control:
    return sandbox.control


@pytest.fixture
def ansible(sandbox: Sandbox, tmp_path: Path) -> Iterator[Ansible]:
    """Also sees to it that nothing was asked that the sandbox does not have."""
    ansible = Ansible(sandbox, tmp_path)
    yield ansible
    # Neither what a fault answered nor Key Vault's demand for a token has a route.
    unknown = [one for one in sandbox.control.unknown() if one["fault"] is None and one["status"] != 401]
    assert short(unknown) == []


@pytest.fixture
def service(sandbox: Sandbox) -> Service:
    """Azure as Azure's own SDK sees it."""
    return Service(sandbox)


_PASSED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[_PASSED] = report.passed
    return report


_Results = list[tuple[str, str, object]]


@pytest.fixture(scope="session")
def _by_way() -> dict[str, dict[str, _Results]]:
    return {}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, ansible: Ansible, _by_way: dict[str, dict[str, _Results]]) -> Iterator[str]:
    """Runs a test both ways; whichever comes second must have had the same results from the collection's tasks."""
    yield request.param
    if not request.node.stash.get(_PASSED, False):
        return
    test = request.node.nodeid.replace(request.param, "WAY")
    seen = _by_way.setdefault(test, {})
    seen[request.param] = [result for run in ansible.runs for result in comparable(run)]
    first = next(iter(seen.values()))
    assert seen[request.param] == first
