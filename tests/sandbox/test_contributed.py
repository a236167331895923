# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Recordings that contributors have made with `make live`: the sandbox responds as Azure did."""

from __future__ import annotations

from pathlib import Path

import pytest
from contributed import FOLDER, Replay, cases, in_order
from sandbox_client import serving
from test_live import assert_found, live, result


@pytest.mark.parametrize("group", in_order())
def test_the_sandbox_responds_as_azure_did(group: str) -> None:
    assert differences(FOLDER, group) == {}


def differences(folder: Path, group: str) -> dict[str, list[str]]:
    """By recording of a resource group, what a sandbox with the measured positions does differently."""
    with serving("--behavior-file", str(folder / "RESULT.json")) as sandbox:
        replay = Replay(sandbox, group)
        found = {one.stem: [*replay.differences(one)] for one in in_order(folder)[group]}
    return {name: lines for name, lines in found.items() if lines}


def recorded(folder: Path, *options: str, **positions: str) -> Path:
    """A folder with recordings, made with a sandbox instead of Azure."""
    with serving() as azure:
        azure.control.behavior(**positions)
        done = live(azure, folder, "run", "--yes", *options)
    assert done.stderr == ""
    assert_found(result(folder), positions)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("live")
    return recorded(folder, "--without", "job_*", new_principal="known", identities_on_put="merged")


@pytest.mark.slow
def test_recordings_agree_with_a_sandbox_that_has_the_measured_positions(made: Path) -> None:
    [group] = in_order(made)
    assert len(in_order(made)[group]) > 15
    assert differences(made, group) == {}


@pytest.mark.slow
def test_recordings_of_the_main_job_agree_with_a_sandbox(tmp_path: Path) -> None:
    recorded(tmp_path)
    [group] = in_order(tmp_path)
    assert differences(tmp_path, group) == {}


@pytest.mark.slow(every=2)
@pytest.mark.parametrize("name", ["identities_on_put", "new_principal"])
def test_a_recording_differs_from_a_sandbox_with_another_position(made: Path, name: str) -> None:
    [group] = in_order(made)
    with serving() as sandbox:
        assert [*Replay(sandbox, group).differences(made / f"live-{name}-1.json")]


def test_the_rows_of_the_fidelity_tables_can_cite_a_recording(made: Path) -> None:
    cited = cases(made)
    assignments = [
        name
        for name, one in cited.items()
        if name.startswith("live-new_principal-1 #") and "/roleAssignments/" in one["path"] and one["method"] == "PUT"
    ]
    assert len(assignments) == 1
