# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures: a sandbox for each worker, an Ansible for each test, and a comparison of the two ways to run a module."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from ansible.release import __version__ as CORE
from cases import PROOF_OF_ALL
from harness import WAYS, Ansible, comparable, short
from meddling import Wire, keep_connections, pass_time
from one_process import OneProcess, Roles, compile_once
from packaging.version import Version
from sandbox_client import Control, Sandbox, shared
from service import Service, reset
from worlds import World, in_sandbox, on_azure


@pytest.fixture(scope="session")
def running_sandbox() -> Sandbox:
    return shared()


@pytest.fixture
def sandbox(running_sandbox: Sandbox) -> Sandbox:
    reset(running_sandbox.control)
    return running_sandbox


@pytest.fixture
def control(sandbox: Sandbox) -> Control:
    return sandbox.control


@pytest.fixture
def ansible(sandbox: Sandbox, tmp_path: Path) -> Iterator[Ansible]:
    yield Ansible(sandbox, tmp_path)
    assert_nothing_unknown(sandbox)


@pytest.fixture
def roles(request: pytest.FixtureRequest, sandbox: Sandbox) -> Iterator[Ansible | Roles]:
    """Runs the playbooks of roles: with PROOF=all by ansible-playbook, and by default in this process, which takes a
    tenth of the time. Tests of the output of ansible-playbook, or of variable names in errors, need `ansible`."""
    if PROOF_OF_ALL or not CORE.startswith("2.21."):
        yield request.getfixturevalue("ansible")
        return
    yield Roles(request.getfixturevalue("runner"), sandbox.control)
    assert_nothing_unknown(sandbox)


def assert_nothing_unknown(sandbox: Sandbox) -> None:
    """Check that the sandbox implements every operation that was requested."""
    # The responses of injected faults and Key Vault's authentication challenges (401) have no route.
    unknown = [one for one in sandbox.control.unknown() if one["fault"] is None and one["status"] != 401]
    assert short(unknown) == []


@pytest.fixture
def service(sandbox: Sandbox) -> Service:
    """The sandbox through Azure's SDKs."""
    return Service(sandbox)


@pytest.fixture
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    """The sandbox or, with --on-azure, Azure."""
    place: Path | None = request.config.getoption("--on-azure", None)
    if place is not None:
        return on_azure(place, tmp_path)
    return in_sandbox(request.getfixturevalue("sandbox"), request.getfixturevalue("roles"), tmp_path)


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    return Wire(monkeypatch)


@pytest.fixture
def runner(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OneProcess:
    """Runs roles and modules in this process, with a clock that advances without a wait."""
    if Version(CORE) < Version("2.19"):
        pytest.skip("needs the templates of ansible-core 2.19")
    for name, value in sandbox.environment.items():
        monkeypatch.setenv(name, value)
    pass_time(monkeypatch, sandbox.control)
    keep_connections(monkeypatch)
    compile_once(monkeypatch)
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    return OneProcess(folder)


_PASSED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[_PASSED] = report.passed
    return report


_Results = list[dict[str, tuple[str, object]]]


@pytest.fixture(scope="session")
def _by_way() -> dict[str, dict[str, _Results]]:
    return {}


# A task takes half a second longer in a separate process. By default, only the tests of these files run both ways,
# because their results depend on the process. With PROOF=all, every test runs both ways.
BOTH_WAYS = ("test_timeout", "test_waiting")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "way" in metafunc.fixturenames and not any(
        "way" in str(mark.args[0]) for mark in metafunc.definition.iter_markers("parametrize")
    ):
        is_run_both_ways = PROOF_OF_ALL or metafunc.module.__name__.rpartition(".")[2] in BOTH_WAYS
        metafunc.parametrize("way", WAYS if is_run_both_ways else WAYS[:1], indirect=True)


@pytest.fixture
def way(request: pytest.FixtureRequest, ansible: Ansible, _by_way: dict[str, dict[str, _Results]]) -> Iterator[str]:
    """The way to run modules. If a test has passed both ways, its tasks must have had the same results both ways."""
    yield request.param
    if not request.node.stash.get(_PASSED, False):
        return
    seen = _by_way.setdefault(request.node.nodeid.replace(request.param, "WAY"), {})
    seen[request.param] = [comparable(run) for run in ansible.runs]
    if len(seen) < len(WAYS):
        return
    for here, there in zip(seen["in_process"], seen["module"], strict=True):
        assert here == there
