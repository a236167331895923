# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The experiments with Azure, against a sandbox that plays Azure and whose switches they do not know."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live.experiments import EXPERIMENTS, NOT_ASKED
from live.experiments.versions import explanation
from live.lab import Bounds, Span
from live.requests import Requests
from sandbox_client import Sandbox, plain_environment, serving

from azure_sandbox.shared.behavior import POSITIONS
from azure_sandbox.shared.timing import Timing

ROOT = Path(__file__).resolve().parents[2]
# The switches that the experiments of each length measure.
SHORT = (
    "graph_lag",
    "identities_on_put",
    "list_lag",
    "name_lag",
    "new_principal",
    "permission_model_delay",
    "policies_after_change",
    "policies_of_rbac_vault",
    "refused_creation",
    "role_delay",
    "value_lag",
    "vault_name_delay",
)
HOURS = (*SHORT, "key_loss_noticed", "pools_without_key")
DAYS = (*HOURS, "follower_delay", "previous_version_needed")
# Runs `python -m live` with the clock of the sandbox: a wait advances it.
# If KILLED_AFTER is set, the process kills itself after that number of requests; if KILLED_AT is set, after a PUT with
# that text in its address.
PROGRAM = """
import os, sys
from live.azure import Azure
from live.clock import SandboxClock
from live.command import main

send, left = Azure.send, [int(os.environ.get("KILLED_AFTER", "-1"))]

def counted(self, *request):
    response = send(self, *request)
    left[0] -= 1
    if left[0] == 0 or (request[0] == "PUT" and os.environ.get("KILLED_AT", "none") in request[1]):
        os.kill(os.getpid(), 9)
    return response

Azure.send = counted

sys.exit(main(sys.argv[2:], clock=SandboxClock(sys.argv[1])))
"""


@pytest.fixture
def azure() -> Iterator[Sandbox]:
    with serving() as sandbox:
        yield sandbox


def command(azure: Sandbox, folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-c", PROGRAM, azure.url, arguments[0], "--to", str(folder), *arguments[1:]]


def environment(azure: Sandbox) -> dict[str, str]:
    paths = (ROOT / "tests", ROOT / "tests" / "sandbox", ROOT / "sandbox" / "src")
    return {**plain_environment(), **azure.environment, "PYTHONPATH": os.pathsep.join(map(str, paths))}


def live(
    azure: Sandbox, folder: Path, *arguments: str, answers: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """An empty variable is removed from the environment."""
    return subprocess.run(
        command(azure, folder, *arguments),
        env={name: value for name, value in {**environment(azure), **variables}.items() if value},
        input=answers,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )


def result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "RESULT.json").read_text())
    return found


def test_each_switch_and_each_delay_is_measured_or_says_why_not() -> None:
    measured = {name for one in EXPERIMENTS for name in (*one.switches, *one.durations)}
    assert measured | NOT_ASKED.keys() == POSITIONS.keys() | {delay.name for delay in dataclasses.fields(Timing)}
    assert not measured & NOT_ASKED.keys()


def groups(azure: Sandbox) -> list[str]:
    listed = azure.arm("GET", f"{azure.subscription}/resourcegroups", "2022-09-01").json()["value"]
    return [group["name"] for group in listed if group["name"] != "rg-sandbox"]


def assert_found(found: dict[str, Any], hidden: dict[str, str]) -> None:
    assert found["without_result"] == {}
    for switch, position in hidden.items():
        consistent = found["switches"][switch]["consistent"]
        assert position in consistent, (switch, position, found["switches"][switch])
        if len(consistent) == 1:
            assert found["behavior"][switch] == position


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.slow
def test_the_positions_that_take_days_are_found(azure: Sandbox, tmp_path: Path, seed: int) -> None:
    hidden = {switch: random.Random(f"{seed} {switch}").choice(POSITIONS[switch]) for switch in DAYS}
    azure.control.behavior(**hidden)

    done = live(azure, tmp_path, "run", "--yes", "--without", "job_*", "--class", "days")

    assert done.stderr == ""
    assert_found(result(tmp_path), hidden)


JOBS = [one for one in EXPERIMENTS if one.name.startswith("job_")]


# The sandbox plays Azure for the tests, as it does for the experiments.
@pytest.mark.parametrize("job", [one.name for one in JOBS])
@pytest.mark.slow(every=len(JOBS))
def test_an_integration_test_passes_in_azure_and_is_recorded(azure: Sandbox, tmp_path: Path, job: str) -> None:
    azure.control.behavior(**{one: random.Random(f"{job} {one}").choice(POSITIONS[one]) for one in DAYS})

    done = live(azure, tmp_path, "run", "--yes", "--only", job)

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"passed.** Recordings: live-{job}-1.json." in (tmp_path / "RESULT.md").read_text()
    assert groups(azure) == []


def test_each_test_with_the_mark_is_an_experiment() -> None:
    listed = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "on_azure", "tests/integration"]
    found = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True).stdout
    marked = [line for line in found.splitlines() if "::" in line]
    assert marked == [f"tests/integration/test_main_jobs.py::{one.steps.split()[-1][:-1]}" for one in JOBS]


def refusal(status: int, code: str, **headers: str) -> dict[str, Any]:
    return {"status": status, "headers": headers, "body": {"error": {"code": code, "message": "No."}}}


@pytest.mark.slow
def test_what_no_position_and_no_time_explains_is_a_contradiction(azure: Sandbox, tmp_path: Path) -> None:
    # Azure accepts the change of the identities, and makes none.
    accepted = {"status": 200, "body": {}}
    azure.control.fault(match={"method": "PATCH", "path": "batchAccounts"}, answer=accepted, times=None)

    done = live(azure, tmp_path, "run", "--yes", "--only", "identities_on_put")

    assert done.returncode == 0, done.stdout + done.stderr
    assert result(tmp_path)["switches"]["identities_on_put"]["contradiction"] is True
    assert "identities_on_put" not in result(tmp_path)["behavior"]
    assert "**no position explains what was found**" in (tmp_path / "RESULT.md").read_text()


@pytest.mark.parametrize("delay", ["10", "120"])
def test_a_read_that_does_not_show_a_new_name_decides_nothing(azure: Sandbox, tmp_path: Path, delay: str) -> None:
    hidden = {"name_lag": "60", "vault_name_delay": delay, "refused_creation": "failed_account"}
    azure.control.behavior(**hidden)

    done = live(azure, tmp_path, "run", "--yes", "--only", "vault_creation", "--only", "refused_creation")

    assert done.returncode == 0, done.stdout + done.stderr
    found = result(tmp_path)
    assert found["behavior"]["refused_creation"] == "failed_account"
    # For a minute, nobody knows whether the vault is ready.
    assert found["switches"]["vault_name_delay"]["consistent"] == (["0", "10"] if delay == "10" else ["120"])
    assert found["timing"] == {}


FIVE_MINUTES, TWO_HOURS, A_DAY = (300.0, 310.0), (7200.0, 7210.0), (93600.0, 93610.0)


@pytest.mark.parametrize(
    ("lost", "needed", "time"),
    [
        ({FIVE_MINUTES: False, TWO_HOURS: False, A_DAY: False}, None, Span(0, 910)),
        ({FIVE_MINUTES: True, TWO_HOURS: False, A_DAY: False}, None, Span(900, 7810)),
        # A follower needs the previous version for an hour after it has followed.
        ({FIVE_MINUTES: True, TWO_HOURS: True, A_DAY: False}, (3600.0, 3600.0), Span(4200, 93610)),
        # A follower whose version is disabled before it has followed may never follow.
        ({FIVE_MINUTES: True, TWO_HOURS: False, A_DAY: False}, (0.0, 0.0), Span(300, 7810)),
        # A time that is longer than the experiment, and results that no time explains.
        ({FIVE_MINUTES: True, TWO_HOURS: True, A_DAY: True}, None, Span(94200, math.inf)),
        ({FIVE_MINUTES: False, TWO_HOURS: False, A_DAY: True}, None, None),
    ],
)
def test_the_time_for_which_a_version_is_needed(
    lost: dict[Bounds, bool], needed: Bounds | None, time: Span | None
) -> None:
    assert explanation(lost, (600.0, 600.0), needed) == time


def test_all_missing_rights_are_named_at_once(azure: Sandbox, tmp_path: Path) -> None:
    reader = azure.control.principal("reader", roles=[{"role": "Reader", "scope": azure.subscription}])
    who = {"AZURE_CLIENT_ID": reader["client_id"], "AZURE_CLIENT_SECRET": reader["secret"]}

    done = live(azure, tmp_path, "run", "--yes", **who)

    assert done.returncode == 1
    for operation in ("resourceGroups/write", "batchAccounts/write", "roleAssignments/write"):
        assert operation in done.stderr
    assert groups(azure) == []


# After each request of the run, from the first read to the last read of the cleaning.
@pytest.mark.parametrize("after", range(1, 27))
@pytest.mark.slow(every=30)
def test_a_killed_run_is_continued_and_cleaned(azure: Sandbox, tmp_path: Path, after: int) -> None:
    only = ("--only", "identities_on_put", "--only", "new_principal")
    assert live(azure, tmp_path, "run", "--yes", *only, KILLED_AFTER=str(after)).returncode == -9

    done = live(azure, tmp_path, "run", "--yes", *only)

    assert done.returncode == 0, done.stdout + done.stderr
    assert_found(result(tmp_path), {"identities_on_put": "replaced", "new_principal": "unknown"})
    assert groups(azure) == []


def interrupted(azure: Sandbox, folder: Path) -> str:
    """The resource group that a killed run has left."""
    before = groups(azure)
    assert live(azure, folder, "run", "--yes", "--only", "locks", KILLED_AT="/locks/").returncode == -9
    [group] = {*groups(azure)} - {*before}
    return group


@pytest.mark.slow
def test_cleaning_removes_the_lock_of_a_killed_run_and_waits(azure: Sandbox, tmp_path: Path) -> None:
    group = interrupted(azure, tmp_path)
    # The removal of the lock takes time, and so does the deletion of the group.
    deletion = {"method": "DELETE", "path": f"/{group}$"}
    azure.control.fault(match=deletion, answer=refusal(409, "ScopeLocked"), times=3)
    azure.control.timing(group_delete=200)

    done = live(azure, tmp_path, "clean", "--yes")

    assert done.returncode == 0, done.stderr
    assert f"The resource group {group} does not exist any more." in done.stdout
    assert groups(azure) == []


@pytest.mark.slow(every=2)
@pytest.mark.parametrize("action", ["run", "clean"])
def test_what_is_left_is_named(azure: Sandbox, tmp_path: Path, action: str) -> None:
    group = interrupted(azure, tmp_path) if action == "clean" else ""
    azure.control.fault(
        match={"method": "DELETE", "path": "resourcegroups/[^/]*$"}, answer=refusal(409, "ScopeLocked"), times=None
    )

    done = live(azure, tmp_path, action, "--yes", *(("--only", "account_life") if action == "run" else ()))

    assert done.returncode == 1
    [left] = groups(azure)
    assert left == (group or left)
    assert f"The resource group {left} is left: 409 ScopeLocked No." in done.stderr
    # It is not forgotten.
    azure.control.call("DELETE", "/faults")
    assert live(azure, tmp_path, "clean", "--yes").returncode == 0
    assert groups(azure) == []


def test_a_run_deletes_only_what_it_has_created(azure: Sandbox, tmp_path: Path) -> None:
    others = {"location": "westeurope", "tags": {"azbatch-live": "no"}}
    azure.arm("PUT", f"{azure.subscription}/resourcegroups/others", "2022-09-01", others)
    theirs = interrupted(azure, tmp_path / "theirs")

    done = live(azure, tmp_path / "mine", "run", "--yes", "--only", "account_life")

    assert done.returncode == 0, done.stderr
    assert {*groups(azure)} == {"others", theirs}
    mine = interrupted(azure, tmp_path / "mine")
    done = live(azure, tmp_path / "mine", "clean", "--yes")
    assert done.returncode == 0, done.stderr
    assert f"{theirs} of another run is left." in done.stdout
    assert {*groups(azure)} == {"others", theirs}
    assert mine not in groups(azure)


def test_cleaning_lists_the_groups_of_other_runs_and_asks(azure: Sandbox, tmp_path: Path) -> None:
    theirs, mine = interrupted(azure, tmp_path / "theirs"), interrupted(azure, tmp_path / "mine")

    assert live(azure, tmp_path / "new", "run", answers="n\n").returncode == 1
    refused = live(azure, tmp_path / "mine", "clean", answers="n\nn\n")
    assert refused.returncode == 0
    assert {*groups(azure)} == {theirs, mine}

    done = live(azure, tmp_path / "mine", "clean", answers="y\ny\n")

    assert done.returncode == 0, done.stderr
    assert f"Delete the resource group {mine} of this folder?" in done.stdout
    assert f"Delete the resource group {theirs} of another run, which may still be in progress?" in done.stdout
    assert groups(azure) == []


def test_a_dry_run_prints_the_requests_and_sends_none(azure: Sandbox, tmp_path: Path) -> None:
    last = azure.control.last
    done = live(azure, tmp_path, "run", "--dry-run", "--only", "locks", "--only", "new_principal")

    assert done.returncode == 0, done.stdout + done.stderr
    assert azure.control.last == last
    assert "DELETE management.azure.com/subscriptions/{id}/resourcegroups/{group}\n" in done.stdout
    lock = "/batchAccounts/{account}/providers/Microsoft.Authorization/locks/azbatch-live"
    assert re.search(rf"  PUT \S+{re.escape(lock)} \(2 times\)\n", done.stdout)
    # What a run sends is in the list.
    printed = Requests()
    assert live(azure, tmp_path, "run", "--yes", "--only", "locks", "--only", "new_principal").returncode == 0
    for one in azure.control.requests(last):
        if "login." not in one["url"]:
            printed.note("", one["method"], one["url"])
    sent = {line.partition(" (")[0] for line in printed.text([]).splitlines()[1:]}
    assert sent - {line.partition(" (")[0] for line in done.stdout.splitlines()} == set()


def test_no_secret_is_in_any_file(azure: Sandbox, tmp_path: Path) -> None:
    only = ("account_life", "new_principal", "changing_accounts")
    live(azure, tmp_path, "run", "--yes", *(part for name in only for part in ("--only", name)))
    files = [file for file in tmp_path.iterdir() if file.name not in ("state.json", ".placeholder-key", ".lock")]
    assert len(files) >= 4
    for file in files:
        text = file.read_text().lower()
        for hidden in (azure.secret, azure.tenant_id, azure.client_id, azure.subscription_id):
            assert hidden.lower() not in text, file


def test_a_sandbox_takes_the_measured_positions(tmp_path: Path) -> None:
    file = tmp_path / "RESULT.json"
    measured = {"behavior": {"value_lag": "5", "new_principal": "known"}, "seconds": {"role_delay": 37.4}}
    file.write_text(json.dumps(measured))
    with serving("--behavior-file", str(file), "--behavior", "value_lag=60") as sandbox:
        behavior = sandbox.control.call("GET", "/behavior")
    assert (behavior["value_lag"], behavior["new_principal"], behavior["role_delay"]) == ("60", "known", "37.4")
